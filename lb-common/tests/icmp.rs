//! ICMP on the host: an error goes where its flow goes and leaves no trace, whatever the tables hold; and its checksum is
//! right afterwards if it was before. `etherparse` builds and judges.

#[path = "../../tests/src/frame.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the packet tests, a crate that uses all of it")]
mod frame;
#[path = "../../tests/src/icmp.rs"]
#[allow(dead_code, unreachable_pub, reason = "as above")]
mod icmp;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use frame::{Flow, Kind, TCP, UDP};
use icmp::{Failure, Ping};
use lb_common::abi::{
    BackendEntry, Correction, FlowKey, FlowValue, Key, Report, ReverseEntry, ServiceEntry, VipEntry, backend,
    service,
};
use lb_common::host::{self, HostTables};
use lb_common::pipeline::Hop;
use lb_common::reason::Reason;
use lb_common::slot::{NONE, Slot};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

const SLOTS: u32 = 251;
const BACKENDS: u8 = 3;
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 2];

fn vip(v6: bool) -> SocketAddr {
    SocketAddr::new(ip(if v6 { "2001:db8::80" } else { "192.0.2.80" }), 80)
}

fn client(v6: bool) -> SocketAddr {
    SocketAddr::new(ip(if v6 { "2001:db8:1::7" } else { "198.51.100.7" }), 5000)
}

fn server(v6: bool, n: u8) -> SocketAddr {
    let ip = if v6 { ip(&format!("fd00::{n}")) } else { [10, 0, 0, n].into() };
    SocketAddr::new(ip, 8080)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A NAT service of which every slot holds the same word.
fn tables(v6: bool, protocol: u8, slot: Slot, flags: u32, states: [u16; BACKENDS as usize]) -> HostTables {
    let mut tables = HostTables::default();
    let end = |addr: SocketAddr| (addr.ip().into(), addr.port().to_be());
    let key = Key::endpoint(end(vip(v6)).0, end(vip(v6)).1, protocol);
    let entry = ServiceEntry {
        key,
        id: 1,
        ring: 4,
        slots: SLOTS,
        backends: 16,
        capacity: u32::from(BACKENDS),
        seed: 99,
        flags: service::flags::NAT | flags,
        sum: key.sum(),
        past: 19,
        ..ServiceEntry::default()
    };
    tables.put_service(entry);
    tables.put_vip(VipEntry { key: Key::address(end(vip(v6)).0), service: 1 });
    for (n, flags) in (0..BACKENDS).zip(states) {
        let at = end(server(v6, n));
        tables.backends[16 + usize::from(n)] = BackendEntry {
            addr: at.0,
            macs: MACS,
            ifindex: 1,
            port: at.1,
            flags: flags | backend::flags::RESOLVED,
            generation: 10 + u32::from(n),
            counters: 20 + u32::from(n),
            mtu: 1500,
            correction: Correction::new(end(vip(v6)), at),
            ..BackendEntry::default()
        };
        let key = Key::endpoint(at.0, at.1, protocol);
        tables.put_reverse(ReverseEntry {
            key,
            service: 1,
            counters: 20 + u32::from(n),
            vip: end(vip(v6)).0,
            port: end(vip(v6)).1,
            sum: key.sum(),
            correction: Correction::new(at, end(vip(v6))),
            ..ReverseEntry::default()
        });
    }
    for index in 0..SLOTS {
        tables.set_slot(&entry, index, slot.0);
    }
    let hop = Hop { macs: (&MACS).into(), ifindex: 1 };
    tables.kernel.insert(client(v6).ip().into(), Ok(hop));
    tables
}

/// Whether the checksums of IP and ICMP are right.
fn is_right(frame: &[u8]) -> bool {
    let Ok(sliced) = SlicedPacket::from_ethernet(frame) else { return false };
    match (sliced.net, sliced.transport) {
        (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
            let header = ip.header().to_header();
            let icmp_sum = icmp.icmp_type().calc_checksum(icmp.payload());
            header.calc_header_checksum() == header.header_checksum && icmp_sum == icmp.checksum()
        }
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
            icmp.is_checksum_valid(ip.header().source(), ip.header().destination())
        }
        _ => false,
    }
}

fn index() -> impl Strategy<Value = u16> {
    prop_oneof![0..u16::from(BACKENDS), Just(NONE), 0..NONE]
}

fn entry() -> impl Strategy<Value = Option<FlowValue>> {
    let fields = (0..u32::from(BACKENDS) + 1, 9..10 + u32::from(BACKENDS), any::<bool>());
    proptest::option::of(fields.prop_map(|(backend, generation, closing)| {
        FlowValue { backend, generation, made: 1, seen: 1 }.with_closing(closing)
    }))
}

proptest! {
    #[test]
    fn an_error_goes_where_its_flow_goes_and_leaves_no_trace(
        v6: bool,
        udp: bool,
        (current, tracked, previous) in (index(), any::<bool>(), index()),
        track in prop_oneof![Just(0), Just(service::flags::TRACK_ALWAYS), Just(service::flags::TRACK_NEVER)],
        states in proptest::array::uniform3(0_u16..4),
        flow in entry(),
        embryo in entry(),
    ) {
        let protocol = if udp { UDP } else { TCP };
        let tables = tables(v6, protocol, Slot::new(current, tracked, previous), track, states);
        let key = FlowKey {
            client: client(v6).ip().into(),
            ports: [client(v6).port().to_be(), vip(v6).port().to_be()],
            service: 1,
        };
        flow.map(|value| tables.flows.borrow_mut().insert(key, value));
        embryo.map(|value| tables.embryos.borrow_mut().insert(key, value));
        let before = (tables.flows.borrow().clone(), tables.embryos.borrow().clone());

        let reply = Flow { kind: Kind::Data, ..Flow::new(protocol, vip(v6), client(v6)) };
        let mut error = Failure::about(&reply).build();
        let told = host::run(&mut error[..], &tables);
        let found = tables.report.replace(Report::EMPTY);
        prop_assert_eq!(&before, &(tables.flows.borrow().clone(), tables.embryos.borrow().clone()));
        prop_assert!(is_right(&error));

        let mut data = Flow { kind: Kind::Data, ..Flow::new(protocol, client(v6), vip(v6)) }.build();
        let went = host::run(&mut data[..], &tables);
        match went.reason {
            Reason::Forwarded => {
                let there = *tables.report.borrow();
                prop_assert_eq!(told.reason, Reason::IcmpForwarded);
                prop_assert_eq!((found.backend, found.how, found.slot), (there.backend, there.how, there.slot));
            }
            other => prop_assert_eq!(told.reason, other),
        }
    }

    /// Of any bytes: an error is passed as it is, or its checksum is as right as it was.
    #[test]
    fn right_sums_stay_right(
        v6: bool,
        udp: bool,
        back: bool,
        kept in 0_usize..70,
        changes in proptest::collection::vec((0_usize..80, any::<u8>()), 0..4),
        odd in any::<u8>(),
    ) {
        let protocol = if udp { UDP } else { TCP };
        let tables = tables(v6, protocol, Slot::settled_on(1), 0, [3; 3]);
        let about = if back {
            Flow::new(protocol, client(v6), server(v6, 1))
        } else {
            Flow::new(protocol, vip(v6), client(v6))
        };
        let mut failure = Failure::about(&about.carrying(vec![odd; 40])).keeping(kept);
        for (at, byte) in changes {
            if let Some(there) = failure.about.get_mut(at) {
                *there = byte;
            }
        }
        let before = failure.build();
        let mut after = before.clone();
        let verdict = host::run(&mut after[..], &tables);
        match verdict.reason {
            Reason::Icmp => prop_assert_eq!(before, after),
            Reason::IcmpForwarded | Reason::IcmpReturned => prop_assert!(is_right(&after), "{:?}", after),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn pings_come_back(v6: bool, ttl: u8, payload in proptest::collection::vec(any::<u8>(), 0..100), from: [u16; 8]) {
        let tables = tables(v6, TCP, Slot::settled_on(0), 0, [3; 3]);
        let from: IpAddr = if v6 {
            from.map(|part| part & 0x1fff | 0x2000).into()
        } else {
            [from[0] as u8 % 100 + 1, from[1] as u8, from[2] as u8, from[3] as u8].into()
        };
        let ping = Ping { ttl, payload, ..Ping::new(from, vip(v6).ip()) };
        let mut frame = ping.build();
        let verdict = host::run(&mut frame[..], &tables);
        prop_assert_eq!((verdict.reason, verdict.service), (Reason::EchoAnswered, 1));
        prop_assert!(is_right(&frame));
        // The two zeros of ones' complement are one value.
        let at = ping.icmp() + 2;
        let expected = ping.answered().build();
        prop_assert_eq!(&frame[..at], &expected[..at]);
        prop_assert_eq!(&frame[at + 2..], &expected[at + 2..]);
    }
}
