//! Fragments on the host: whatever a datagram is cut into, and in whatever order the rest follows the first, what arrives
//! is what the whole datagram would have become.

#[path = "../../tests/src/fragments.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the packet tests, a crate that uses all of it")]
mod fragments;
#[path = "../../tests/src/frame.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the packet tests, a crate that uses all of it")]
mod frame;
#[path = "../../tests/src/oracle.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the packet tests, a crate that uses all of it")]
mod oracle;

use frame::Flow;
use lb_common::abi::{BackendEntry, Correction, Key, ReverseEntry, RouteEntry, ServiceEntry};
use lb_common::abi::{backend, fragment, limits, route, service};
use lb_common::addr::{TCP, UDP};
use lb_common::host::{self, HostTables};
use lb_common::reason::Reason;
use lb_common::slot::Slot;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

const BACKENDS: u32 = 5;

/// A service on port 80, its backends on port 8080 where they may be, and a client.
struct Lab {
    tables: HostTables,
    protocol: u8,
    client: SocketAddr,
    vip: SocketAddr,
}

impl Lab {
    fn new(v6: bool, protocol: u8, flags: u32) -> Self {
        let at = |text: &str, port| SocketAddr::new(text.parse().expect("an address"), port);
        let (vip, client) = if v6 {
            (at("2001:db8::80", 80), at("2001:db8:1::7", 5000))
        } else {
            (at("192.0.2.80", 80), at("198.51.100.7", 5000))
        };
        let mut tables = HostTables::default();
        let key = Key::endpoint(vip.ip().into(), 80_u16.to_be(), protocol);
        let entry = ServiceEntry {
            key,
            id: 1,
            ring: 4,
            slots: 64,
            backends: 16,
            capacity: BACKENDS,
            seed: 99,
            flags,
            sum: key.sum(),
            ..ServiceEntry::default()
        };
        tables.put_service(entry);
        let port: u16 = if flags & service::flags::NAT != 0 { 8080 } else { 80 };
        for n in 0..BACKENDS as u16 {
            let addr: IpAddr =
                if v6 { [0xfd00, 0, 0, 0, 0, 0, 0, n + 1].into() } else { [10, 0, 0, n as u8 + 1].into() };
            let (here, there) = ((vip.ip().into(), 80_u16.to_be()), (addr.into(), port.to_be()));
            tables.backends[16 + n as usize] = BackendEntry {
                addr: addr.into(),
                macs: [n as u8; 12],
                ifindex: 1,
                port: port.to_be(),
                flags: backend::flags::REACHABLE | backend::flags::SELECTABLE | backend::flags::RESOLVED,
                generation: 10 + u32::from(n),
                counters: 20 + u32::from(n),
                mtu: 1500,
                correction: Correction::new(here, there),
                reserved: [0; 3],
            };
            let key = Key::endpoint(addr.into(), port.to_be(), protocol);
            tables.put_reverse(ReverseEntry {
                key,
                service: 1,
                counters: 20 + u32::from(n),
                vip: vip.ip().into(),
                port: 80_u16.to_be(),
                sum: key.sum(),
                correction: Correction::new(there, here),
                first: 0,
                pad: 0,
                reserved: [0; 2],
            });
        }
        for index in 0..64 {
            tables.set_slot(&entry, index, Slot::settled_on((index % BACKENDS) as u16).0);
        }
        // The default route of both families.
        for family in 0..2 {
            tables.routes[(family * limits::ROUTES_PER_FAMILY) as usize] =
                RouteEntry { kind: route::kind::GATEWAY, ifindex: 1, macs: [9; 12], ..RouteEntry::default() };
        }
        Self { tables, protocol, client, vip }
    }

    fn run(&self, frame: &[u8]) -> (Reason, Vec<u8>) {
        let mut frame = frame.to_vec();
        let reason = host::run(&mut frame, &self.tables).reason;
        (reason, frame)
    }

    fn request(&self, port: u16, length: usize) -> Vec<u8> {
        let from = SocketAddr::new(self.client.ip(), port);
        let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
        Flow::new(self.protocol, from, self.vip).data().carrying(payload).build()
    }
}

/// Cuts a datagram, lets the first fragment go first and the others in an order of their own, and joins what leaves.
fn through(lab: &Lab, whole: &[u8], id: u32, size: usize, order: u64) -> Vec<u8> {
    let mut parts = fragments::cut(whole, id, size);
    let mut random = order;
    for n in (2..parts.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        parts.swap(n, 1 + (random >> 33) as usize % n);
    }
    let sent = |part: &Vec<u8>| {
        let (reason, frame) = lab.run(part);
        assert!(matches!(reason, Reason::Forwarded | Reason::Returned), "{reason:?}");
        frame
    };
    let out: Vec<_> = parts.iter().map(sent).collect();
    assert!(out.iter().all(|frame| frame[..12] == out[0][..12]), "all through the same next hop");
    fragments::join(&out)
}

/// The datagram without what an IPv4 header says of fragments, and its checksum.
fn without_marks(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12] == 8 {
        frame[18..22].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_is_joined_is_the_whole_rewritten(
        v6: bool, tcp: bool, nat: bool, port in 1024_u16.., length in 80_usize..9000, units in 3_usize..180, id: u32,
        order: u64,
    ) {
        let (protocol, flags) =
            (if tcp { TCP } else { UDP }, if nat { service::flags::NAT } else { service::flags::L2 });
        let lab = Lab::new(v6, protocol, flags);
        let whole = lab.request(port, length);
        prop_assume!(units * 8 < length);
        let joined = through(&lab, &whole, id, units * 8, order);
        let [from, to] = oracle::check(&joined);
        let (reason, expected) = lab.run(&whole);
        prop_assert_eq!(reason, Reason::Forwarded);
        prop_assert!(without_marks(joined) == without_marks(expected));

        if nat {
            let reply = Flow::new(protocol, to, from).data().carrying(vec![3; length]).build();
            let joined = through(&lab, &reply, id, units * 8, order);
            prop_assert_eq!(oracle::check(&joined), [lab.vip, from]);
        }
    }

    #[test]
    fn nothing_is_lost_to_ports_of_other_datagrams(ports in proptest::collection::vec(1024_u16.., 2..20)) {
        let lab = Lab::new(false, UDP, service::flags::NAT);
        let all: Vec<_> = (1..).zip(&ports).map(|(id, port)| {
            fragments::cut(&lab.request(*port, 2000), id, 800)
        }).collect();
        // All first fragments, then all second ones, then all third ones.
        let mut out = vec![Vec::new(); all.len()];
        for n in 0..3 {
            for (parts, out) in all.iter().zip(&mut out) {
                out.push(lab.run(&parts[n]).1);
            }
        }
        for (parts, port) in out.iter().zip(&ports) {
            prop_assert_eq!(oracle::check(&fragments::join(parts))[0].port(), *port);
        }
    }
}

#[test]
fn the_clock_of_another_cpu_makes_no_entry_old() {
    let lab = Lab::new(false, UDP, service::flags::NAT);
    let parts = fragments::cut(&lab.request(5000, 2000), 1, 800);
    lab.tables.now.set(1_000_000);
    assert_eq!(lab.run(&parts[0]).0, Reason::Forwarded);
    for (now, reason) in [
        (999_000, Reason::Forwarded),
        (1_000_000 + fragment::LIFETIME_NS, Reason::Forwarded),
        (1_000_001 + fragment::LIFETIME_NS, Reason::Fragment),
    ] {
        lab.tables.now.set(now);
        assert_eq!(lab.run(&parts[1]).0, reason, "{now}");
    }
}

#[test]
fn a_later_datagram_with_the_same_identification_goes_its_own_way() {
    let lab = Lab::new(true, UDP, service::flags::L2);
    let ways: std::collections::BTreeSet<_> = (5000..5040)
        .map(|port| {
            let parts = fragments::cut(&lab.request(port, 2000), 1, 800);
            let out: Vec<_> = parts.iter().map(|part| lab.run(part).1).collect();
            assert!(out.iter().all(|frame| frame[..12] == out[0][..12]));
            out[0][0]
        })
        .collect();
    assert_eq!(ways.len(), BACKENDS as usize, "every backend got some");
    assert_eq!(lab.tables.fragments.borrow().len(), 1);
}
