//! The decision on the host: verdicts, bytes, and exactly what was counted. Checksums are judged by `etherparse`.

#[path = "../../tests/src/frame.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the packet tests, a crate that uses all of it")]
mod frame;
#[path = "../../tests/src/oracle.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the packet tests, a crate that uses all of it")]
mod oracle;

use frame::{Flow, Kind};
use lb_common::abi::{
    BackendEntry, Correction, FlowKey, FlowValue, Key, NeighbourEntry, ReverseEntry, RouteEntry,
    ServiceEntry, backend, route, service,
};
use lb_common::addr::{Addr, TCP, UDP};
use lb_common::host::{self, HostTables};
use lb_common::packet::{self, Parsed};
use lb_common::pipeline::{Hop, Tables};
use lb_common::reason::{Fate, Reason};
use lb_common::slot::Slot;
use proptest::prelude::*;
use std::net::IpAddr;

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BACKEND_MACS: [u8; 12] = [2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 2];
const CLIENT_MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
const SLOTS: u32 = 251;

struct Lab {
    tables: HostTables,
    vip: IpAddr,
    client: IpAddr,
    backends: [IpAddr; 2],
    protocol: u8,
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// One service on port 80 with two backends on port 8080, everything behind interface 1.
fn lab(v6: bool, protocol: u8, flags: u32) -> Lab {
    let (vip, client, backends) = if v6 {
        (ip("2001:db8::80"), ip("2001:db8:1::7"), [ip("fd00::1"), ip("fd00::2")])
    } else {
        (ip("192.0.2.80"), ip("198.51.100.7"), [ip("10.0.0.1"), ip("10.0.0.2")])
    };
    let mut tables = HostTables::default();
    let entry = ServiceEntry {
        key: Key::endpoint(vip.into(), 80_u16.to_be(), protocol),
        id: 1,
        ring: 4,
        slots: SLOTS,
        backends: 16,
        capacity: 2,
        seed: 99,
        flags,
        sum: Key::endpoint(vip.into(), 80_u16.to_be(), protocol).sum(),
        pad: 0,
        past: 19,
        ports: [0; 2],
    };
    tables.put_service(entry);
    for (n, addr) in backends.iter().enumerate() {
        let (service, backend) = ((vip.into(), 80_u16.to_be()), ((*addr).into(), 8080_u16.to_be()));
        tables.backends[16 + n] = BackendEntry {
            addr: (*addr).into(),
            macs: BACKEND_MACS,
            ifindex: 1,
            port: if flags & service::flags::NAT != 0 { 8080_u16.to_be() } else { 80_u16.to_be() },
            flags: backend::flags::REACHABLE | backend::flags::SELECTABLE | backend::flags::RESOLVED,
            generation: 10 + n as u32,
            counters: 20 + n as u32,
            mtu: 1500,
            correction: Correction::new(service, backend),
            reserved: [0; 3],
        };
        if flags & service::flags::NAT != 0 {
            tables.put_reverse(ReverseEntry {
                key: Key::endpoint((*addr).into(), 8080_u16.to_be(), protocol),
                service: 1,
                counters: 20 + n as u32,
                vip: vip.into(),
                port: 80_u16.to_be(),
                sum: Key::endpoint((*addr).into(), 8080_u16.to_be(), protocol).sum(),
                correction: Correction::new(backend, service),
                first: 0,
                pad: 0,
                reserved: [0; 2],
            });
        }
    }
    for index in 0..SLOTS {
        tables.set_slot(&entry, index, Slot::settled_on((index % 2) as u16).0);
    }
    tables.kernel.insert(client.into(), Ok(Hop { macs: (&CLIENT_MACS).into(), ifindex: 1 }));
    Lab { tables, vip, client, backends, protocol }
}

/// A packet with checksums made by `etherparse`.
fn build(protocol: u8, src: (IpAddr, u16), dst: (IpAddr, u16), kind: Kind, payload: &[u8]) -> Vec<u8> {
    Flow { kind, ..Flow::new(protocol, src.into(), dst.into()) }.carrying(payload).build()
}

/// Source and destination as `etherparse` reads them, after it has found every checksum right.
fn read(frame: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let [src, dst] = oracle::check(frame);
    ((src.ip(), src.port()), (dst.ip(), dst.port()))
}

/// Leaves only the pseudo-header's sum in the checksum field, as a sender with checksum offload does.
fn unfinish(frame: &mut [u8]) {
    let Parsed::Flow(packet) = packet::parse(&frame[..]) else { panic!("not a flow") };
    let sum = lb_common::checksum::fold(lb_common::checksum::pseudo(
        packet.family,
        &packet.src,
        &packet.dst,
        packet.protocol,
        packet.length,
    ));
    let at = packet.transport + if packet.protocol == UDP { 6 } else { 16 };
    frame[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
}

impl Lab {
    fn client_port(&self, port: u16) -> (IpAddr, u16) {
        (self.client, port)
    }

    fn run(&self, frame: &mut [u8]) -> Reason {
        let verdict = host::run(frame, &self.tables);
        if verdict.reason.fate() == Fate::Forward {
            assert_eq!(verdict.egress, 1);
        }
        verdict.reason
    }

    /// Runs a packet of the client and tells which backend got it.
    fn send(&self, port: u16, kind: Kind) -> usize {
        let mut frame = build(self.protocol, self.client_port(port), (self.vip, 80), kind, b"x");
        assert_eq!(self.run(&mut frame), Reason::Forwarded);
        let (_, (dst, _)) = read(&frame);
        self.backends.iter().position(|b| *b == dst).expect("one of the backends")
    }

    fn entry(&self) -> ServiceEntry {
        *self.tables.services.iter().find(|s| s.key.valid()).expect("the one service")
    }

    fn set_slots(&mut self, slot: Slot) {
        let entry = self.entry();
        for index in 0..SLOTS {
            self.tables.set_slot(&entry, index, slot.0);
        }
    }

    fn key(&self, port: u16) -> FlowKey {
        FlowKey { client: self.client.into(), ports: [port.to_be(), 80_u16.to_be()], service: 1 }
    }
}

const ALL: [(bool, u8); 4] = [(false, TCP), (false, UDP), (true, TCP), (true, UDP)];

#[test]
fn nat_rewrites_towards_the_backend_and_back() {
    for (v6, protocol) in ALL {
        let lab = lab(v6, protocol, service::flags::NAT);
        let mut frame = build(protocol, lab.client_port(5000), (lab.vip, 80), Kind::Syn, b"hello, world");
        let length = frame.len() as u64;
        assert_eq!(lab.run(&mut frame), Reason::Forwarded);
        let (src, dst) = read(&frame);
        assert_eq!(src, lab.client_port(5000));
        assert_eq!(dst.1, 8080);
        let chosen = lab.backends.iter().position(|b| *b == dst.0).unwrap();
        assert_eq!(frame[..12], BACKEND_MACS);

        let mut reply = build(protocol, dst, src, Kind::Data, b"hello yourself");
        assert_eq!(lab.run(&mut reply), Reason::Returned);
        assert_eq!(read(&reply), ((lab.vip, 80), lab.client_port(5000)));
        assert_eq!(reply[..12], CLIENT_MACS);

        // Exactly this was counted.
        let counters = lab.tables.counters.borrow();
        assert_eq!(counters.len(), 1);
        let row = counters[&(20 + chosen as u32)];
        assert_eq!((row.packets, row.bytes, row.flows), (1, length, u64::from(protocol == TCP)));
        assert_eq!((row.back_packets, row.back_bytes), (1, reply.len() as u64));
        assert!(lab.tables.reasons.borrow().is_empty(), "what a backend was counted for is counted once");
        assert!(lab.tables.flows.borrow().is_empty() && lab.tables.embryos.borrow().is_empty());
    }
}

#[test]
fn l2_rewrites_nothing_but_macs() {
    for (v6, protocol) in ALL {
        let lab = lab(v6, protocol, service::flags::L2);
        let mut frame = build(protocol, lab.client_port(5000), (lab.vip, 80), Kind::Syn, b"hello");
        let before = frame.clone();
        assert_eq!(lab.run(&mut frame), Reason::Forwarded);
        assert_eq!(frame[..12], BACKEND_MACS);
        assert_eq!(frame[12..], before[12..]);
    }
}

#[test]
fn unfinished_checksums_are_finished_in_native_mode() {
    for (v6, protocol) in ALL {
        for flags in [service::flags::NAT, service::flags::L2] {
            for payload in [&b""[..], b"x", b"a longer payload of odd length.."] {
                let lab = lab(v6, protocol, flags);
                let mut frame = build(protocol, lab.client_port(5000), (lab.vip, 80), Kind::Data, payload);
                unfinish(&mut frame);
                assert_eq!(lab.run(&mut frame), Reason::Forwarded);
                read(&frame);
            }
        }
    }
}

#[test]
fn unfinished_checksums_stay_unfinished_in_generic_mode() {
    for (v6, protocol) in ALL {
        let mut lab = lab(v6, protocol, service::flags::NAT);
        lab.tables.generic = true;
        let mut frame = build(protocol, lab.client_port(5000), (lab.vip, 80), Kind::Data, b"payload");
        unfinish(&mut frame);
        assert_eq!(lab.run(&mut frame), Reason::Forwarded);
        // What the sender would have left for the rewritten packet.
        let mut expected = frame.clone();
        unfinish(&mut expected);
        assert_eq!(frame, expected);
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let lab = lab(false, UDP, service::flags::NAT);
    let mut frame = build(UDP, lab.client_port(5000), (lab.vip, 80), Kind::Data, b"payload");
    frame[40..42].copy_from_slice(&[0, 0]);
    assert_eq!(lab.run(&mut frame), Reason::Forwarded);
    assert_eq!(frame[40..42], [0, 0]);
}

#[test]
fn what_is_not_ours_is_passed_unchanged() {
    let lab = lab(false, TCP, service::flags::NAT);
    let other = build(TCP, lab.client_port(5000), (lab.vip, 81), Kind::Syn, b"");
    let wrong_protocol = build(UDP, lab.client_port(5000), (lab.vip, 80), Kind::Syn, b"");
    let mut options = build(TCP, lab.client_port(5000), (lab.vip, 80), Kind::Syn, b"");
    options[14] = 0x46;
    let mut fragment = build(TCP, lab.client_port(5000), (lab.vip, 80), Kind::Syn, b"");
    // The last one, eight bytes into its datagram.
    fragment[21] = 1;
    let mut vlan = build(TCP, lab.client_port(5000), (lab.vip, 80), Kind::Syn, b"");
    vlan[12..14].copy_from_slice(&[0x81, 0x00]);
    let mut version = build(TCP, lab.client_port(5000), (lab.vip, 80), Kind::Syn, b"");
    version[14] = 0x55;
    let mut offset = build(TCP, lab.client_port(5000), (lab.vip, 80), Kind::Syn, b"");
    offset[46] = 0xf0;
    for (frame, reason) in [
        (other, Reason::NotAService),
        (wrong_protocol, Reason::NotAService),
        (options, Reason::MalformedTransport),
        (fragment, Reason::Fragment),
        (vlan, Reason::NotIp),
        (version, Reason::MalformedIp),
        (offset, Reason::MalformedTransport),
        (vec![0; 60], Reason::NotIp),
        (vec![0; 13], Reason::Truncated),
    ] {
        let mut out = frame.clone();
        assert_eq!(lab.run(&mut out), reason);
        assert_eq!(out, frame);
        assert_eq!(reason.fate(), Fate::Pass);
    }
}

#[test]
fn a_packet_cut_anywhere_is_passed() {
    for (v6, protocol) in ALL {
        let lab = lab(v6, protocol, service::flags::NAT);
        let whole = build(protocol, lab.client_port(5000), (lab.vip, 80), Kind::Syn, b"payload");
        for length in 0..whole.len() {
            let mut frame = whole[..length].to_vec();
            assert_eq!(lab.run(&mut frame), Reason::Truncated, "cut to {length}");
            assert_eq!(frame, whole[..length]);
        }
    }
}

#[test]
fn padding_is_no_payload() {
    let lab = lab(false, TCP, service::flags::NAT);
    let mut frame = build(TCP, lab.client_port(5000), (lab.vip, 80), Kind::Syn, b"");
    let length = frame.len();
    frame.resize(60, 0xaa);
    assert_eq!(lab.run(&mut frame), Reason::Forwarded);
    read(&frame[..length]);
}

#[test]
fn ours_without_a_way_is_dropped_with_its_reason() {
    let drop = |change: &dyn Fn(&mut Lab), expected| {
        let mut lab = lab(false, TCP, service::flags::NAT);
        change(&mut lab);
        let mut frame = build(TCP, lab.client_port(5000), (lab.vip, 80), Kind::Syn, b"");
        let before = frame.clone();
        assert_eq!(host::run(&mut frame[..], &lab.tables).reason, expected);
        assert_eq!(frame, before);
        assert_eq!(lab.tables.reasons.borrow().get(&(1, expected)), Some(&1));
        assert!(lab.tables.counters.borrow().is_empty());
    };
    drop(&|l| l.set_slots(Slot::EMPTY), Reason::NoBackend);
    drop(&|l| l.tables.backends[16..18].iter_mut().for_each(|b| b.flags = 0), Reason::NoBackend);
    let unresolved = backend::flags::REACHABLE | backend::flags::SELECTABLE;
    drop(&|l| l.tables.backends[16..18].iter_mut().for_each(|b| b.flags = unresolved), Reason::NoNextHop);
    drop(&|l| l.tables.backends[16..18].iter_mut().for_each(|b| b.ifindex = 9), Reason::NoDevice);
}

#[test]
fn the_way_back_prefers_the_longest_route_and_falls_back_to_the_kernel() {
    let mut lab = lab(false, TCP, service::flags::NAT);
    let net = |text: &str, mask: &str| (Addr::from(ip(text)), Addr::from(ip(mask)));
    let route = |(prefix, mask): (Addr, Addr), kind, mac: u8| RouteEntry {
        prefix,
        mask,
        kind,
        ifindex: 1,
        macs: [mac; 12],
        mtu: 1500,
        reserved: [0; 2],
    };
    // Generation 1, IPv4.
    lab.tables.settings.routes = 1;
    lab.tables.routes[32] = route(net("198.51.100.0", "255.255.255.0"), route::kind::ON_LINK, 0);
    lab.tables.routes[33] = route(net("203.0.113.0", "255.255.255.0"), route::kind::ASK, 0);
    lab.tables.routes[34] = route(net("0.0.0.0", "0.0.0.0"), route::kind::GATEWAY, 0xee);
    lab.tables.put_neighbour(NeighbourEntry {
        key: Key::neighbour(ip("198.51.100.9").into(), 1).unwrap(),
        macs: [0x99; 12],
    });
    lab.tables.put_neighbour(NeighbourEntry {
        key: Key::neighbour(ip("198.51.100.1").into(), 1).unwrap(),
        macs: [0; 12],
    });
    let back = |to: &str| {
        let mut reply = build(TCP, (lab.backends[0], 8080), (ip(to), 5000), Kind::Data, b"");
        let verdict = host::run(&mut reply[..], &lab.tables);
        (verdict.reason, reply[0])
    };
    assert_eq!(back("8.8.8.8"), (Reason::Returned, 0xee), "through the gateway");
    assert_eq!(back("198.51.100.9"), (Reason::Returned, 0x99), "on the link, known");
    assert_eq!(
        back("198.51.100.7"),
        (Reason::Returned, CLIENT_MAC[0]),
        "on the link, unknown: the kernel knows"
    );
    assert_eq!(back("198.51.100.1").0, Reason::ToThisMachine, "an answer to a health check");
    assert_eq!(back("203.0.113.5").0, Reason::NoRoute, "not compiled: the kernel says no");
}

#[test]
fn an_open_window_keeps_old_flows_and_moves_new_ones() {
    let mut lab = lab(false, TCP, service::flags::NAT);
    lab.set_slots(Slot::new(1, true, 0));
    // A segment in the middle of a connection: it was on the previous backend.
    assert_eq!(lab.send(6000, Kind::Data), 0);
    assert_eq!(lab.tables.flow(&lab.key(6000)).unwrap().backend, 0);
    // A new connection: the current one, and its second packet follows it.
    assert_eq!(lab.send(6001, Kind::Syn), 1);
    assert!(lab.tables.flow(&lab.key(6001)).is_none(), "a SYN alone makes no entry in FLOWS");
    assert_eq!(lab.send(6001, Kind::Syn), 1, "retransmission");
    assert_eq!(lab.send(6001, Kind::Data), 1);
    assert_eq!(lab.tables.flow(&lab.key(6001)).unwrap().backend, 1);
    assert!(lab.tables.embryo(&lab.key(6001)).is_none());
    // The window closes: entries decide still.
    lab.set_slots(Slot::new(1, true, 1));
    assert_eq!(lab.send(6000, Kind::Data), 0);
    // On a settled slot nothing is inserted.
    assert_eq!(lab.send(6002, Kind::Syn), 1);
    assert_eq!(lab.send(6003, Kind::Data), 1);
    assert_eq!(lab.tables.flows.borrow().len(), 2);
    assert!(lab.tables.embryos.borrow().is_empty());
}

#[test]
fn an_entry_of_a_replaced_or_dead_backend_is_void() {
    let mut lab = lab(false, TCP, service::flags::NAT);
    lab.set_slots(Slot::new(1, true, 1));
    let stale = FlowValue { backend: 0, generation: 9, made: 0, seen: 0 };
    lab.tables.set_flow(&lab.key(7000), &stale);
    assert_eq!(lab.send(7000, Kind::Data), 1, "another generation");
    assert!(lab.tables.flow(&lab.key(7000)).is_none());
    lab.tables.set_flow(&lab.key(7000), &FlowValue { generation: 10, ..stale });
    lab.tables.backends[16].flags = backend::flags::RESOLVED;
    assert_eq!(lab.send(7000, Kind::Data), 1, "not reachable");
}

#[test]
fn a_tuple_that_begins_anew_leaves_a_draining_backend() {
    let mut lab = lab(false, TCP, service::flags::NAT);
    lab.set_slots(Slot::new(1, true, 0));
    lab.tables.backends[16].flags &= !backend::flags::SELECTABLE;
    assert_eq!(lab.send(7100, Kind::Data), 0, "draining keeps its flows");
    assert_eq!(lab.send(7100, Kind::Syn), 1, "the port was used again");
    assert_eq!(lab.send(7100, Kind::Data), 1, "and what it left behind does not lead astray");
}

#[test]
fn tracking_always_remembers_every_flow_and_never_none() {
    let always = lab(false, TCP, service::flags::NAT | service::flags::TRACK_ALWAYS);
    let chosen = always.send(7200, Kind::Syn);
    assert_eq!(always.send(7200, Kind::Data), chosen);
    assert_eq!(always.tables.flow(&always.key(7200)).unwrap().backend, chosen as u32);
    let mut never = lab(false, UDP, service::flags::NAT | service::flags::TRACK_NEVER);
    never.set_slots(Slot::new(1, true, 0));
    assert_eq!(never.send(7300, Kind::Data), 1);
    assert!(never.tables.flows.borrow().is_empty());
}

#[test]
fn seen_is_refreshed_about_once_a_second() {
    let mut lab = lab(false, TCP, service::flags::NAT);
    lab.set_slots(Slot::new(1, true, 0));
    lab.send(7400, Kind::Data);
    lab.tables.now.set(500_000_000);
    lab.send(7400, Kind::Data);
    assert_eq!(lab.tables.flow(&lab.key(7400)).unwrap().seen, 1);
    lab.tables.now.set(2_000_000_000);
    lab.send(7400, Kind::Data);
    assert_eq!(lab.tables.flow(&lab.key(7400)).unwrap().seen, 2_000_000_000);
}

#[test]
fn explaining_tells_how() {
    let lab = lab(false, TCP, service::flags::NAT);
    lab.send(5000, Kind::Syn);
    let report = *lab.tables.report.borrow();
    assert_eq!(Reason::from_number(report.reason), Some(Reason::Forwarded));
    assert_eq!((report.service, report.egress), (1, 1));
    assert_eq!(report.backend, Slot(report.word).current() as u32);
    assert_eq!(report.backend, report.slot % 2);
}

proptest! {
    /// Any bytes get a verdict, and bytes that are passed are not touched.
    #[test]
    fn no_bytes_surprise_the_parser(mut frame in proptest::collection::vec(any::<u8>(), 0..200), ethertype in 0..3_u8) {
        if frame.len() >= 34 {
            match ethertype {
                0 => { frame[12..14].copy_from_slice(&[0x08, 0x00]); frame[14] = 0x45; frame[20] = 0; frame[21] = 0; }
                1 => { frame[12..14].copy_from_slice(&[0x86, 0xdd]); frame[14] = 0x60; }
                _ => {}
            }
        }
        let lab = lab(false, TCP, service::flags::NAT);
        let before = frame.clone();
        let verdict = host::run(&mut frame[..], &lab.tables);
        if verdict.reason.fate() == Fate::Pass {
            prop_assert_eq!(frame, before);
        }
        let towards: u64 = lab.tables.counters.borrow().values().map(|row| row.packets + row.back_packets).sum();
        prop_assert_eq!(lab.tables.reasons.borrow().values().sum::<u64>() + towards, 1);
        prop_assert_eq!(verdict.reason.counted_by_backends(), towards == 1);
    }

    /// Whatever the packet, the rewritten one has the checksums that an independent implementation computes.
    #[test]
    fn rewritten_checksums_are_right(
        case in 0_usize..4, port in 1_u16.., payload in proptest::collection::vec(any::<u8>(), 0..300), unfinished: bool,
    ) {
        let (v6, protocol) = ALL[case];
        let lab = lab(v6, protocol, service::flags::NAT);
        let mut frame = build(protocol, lab.client_port(port), (lab.vip, 80), Kind::Data, &payload);
        if unfinished {
            unfinish(&mut frame);
        }
        prop_assert_eq!(lab.run(&mut frame), Reason::Forwarded);
        let (src, dst) = read(&frame);
        let mut reply = build(protocol, dst, src, Kind::Data, &payload);
        prop_assert_eq!(lab.run(&mut reply), Reason::Returned);
        prop_assert_eq!(read(&reply), ((lab.vip, 80), src));
    }
}
