//! Real changes in namespaces, and an overflow.

use super::*;
use crate::lab::{Namespace, veth};
use crate::net::{Netlink, index, neighbours::State};
use futures_util::StreamExt;
use netlink_packet_route::neighbour::NeighbourState as Nud;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use rtnetlink::sys::Socket;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn pair() -> (Namespace, Namespace) {
    let (one, two) =
        (Namespace::create_unique("lbwatch").unwrap(), Namespace::create_unique("lbwatch").unwrap());
    veth(&one, "a0", &two, "b0").unwrap();
    (one, two)
}

/// Waits for a change that `wanted` accepts.
async fn expect(watch: &mut Watch, what: &str, wanted: impl Fn(&Change) -> bool) -> Change {
    let search = async {
        loop {
            let burst = watch.next().await.unwrap();
            assert!(!burst.is_empty());
            if let Some(found) = burst.into_iter().find(&wanted) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("no {what} was reported"))
}

/// Work for the other side while a watch waits.
async fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

#[test]
fn a_neighbour_appears_changes_its_mac_and_goes() {
    let (one, _two) = pair();
    for (own, address) in [("10.3.0.1/24", "10.3.0.2"), ("fd03::1/64", "fd03::2")] {
        one.address("a0", own).unwrap();
        let target: IpAddr = address.parse().unwrap();
        one.run_async(|| async {
            let ifindex = index("a0").unwrap();
            let mut watch = Watch::open().unwrap();
            for mac in [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]] {
                elsewhere(|| one.neighbour_in("a0", address, mac, Nud::Stale).unwrap()).await;
                let is = |change: &Change| matches!(change, Change::Neighbour(n) if n.address == target && n.mac == Some(mac));
                let Change::Neighbour(seen) = expect(&mut watch, "neighbour", is).await else { unreachable!() };
                assert_eq!((seen.ifindex, seen.state, seen.usable()), (ifindex, State::Stale, Some(mac)));
            }
            elsewhere(|| one.delete_neighbour("a0", address).unwrap()).await;
            // Deleting first makes it failed, then removes it.
            let gone = |change: &Change| *change == Change::NeighbourGone { ifindex, address: target };
            expect(&mut watch, "departure", gone).await;
        })
        .unwrap();
    }
}

#[test]
fn links_addresses_and_routes_are_reported() {
    let (one, two) = pair();
    let vip: IpAddr = "10.4.0.1".parse().unwrap();
    one.run_async(|| async {
        let ifindex = index("a0").unwrap();
        let mut watch = Watch::open().unwrap();
        elsewhere(|| one.address("a0", "10.4.0.1/24").unwrap()).await;
        expect(&mut watch, "address", |c| *c == Change::Address { ifindex, address: vip }).await;
        elsewhere(|| one.route("10.5.0.0/16", "10.4.0.2").unwrap()).await;
        expect(&mut watch, "IPv4 route", |c| *c == Change::Routes { v6: false }).await;
        elsewhere(|| one.route_on_link("fd05::/64", "a0").unwrap()).await;
        expect(&mut watch, "IPv6 route", |c| *c == Change::Routes { v6: true }).await;
        elsewhere(|| two.down("b0").unwrap()).await;
        expect(
            &mut watch,
            "lost carrier",
            |c| matches!(c, Change::Link(l) if l.index == ifindex && !l.carrier),
        )
        .await;
        elsewhere(|| one.delete_link("a0").unwrap()).await;
        expect(&mut watch, "end", |c| matches!(c, Change::LinkGone { name, .. } if name == "a0")).await;
    })
    .unwrap();
}

#[test]
fn a_neighbour_that_never_answers_is_reported_as_failed() {
    let (one, _two) = pair();
    one.address("a0", "10.3.0.1/24").unwrap();
    one.sysctl("net.ipv4.neigh.a0.retrans_time_ms", "50").unwrap();
    let address = IpAddr::from([10, 3, 0, 99]);
    one.run_async(|| async {
        let mut watch = Watch::open().unwrap();
        Netlink::open().unwrap().probe(index("a0").unwrap(), address).await.unwrap();
        let failed = |c: &Change| matches!(c, Change::Neighbour(n) if n.address == address && n.state == State::Failed);
        expect(&mut watch, "failure", failed).await;
    })
    .unwrap();
}

#[test]
fn a_routing_rule_changes_the_routes_of_its_family() {
    let (one, _two) = pair();
    one.run_async(|| async {
        let mut watch = Watch::open().unwrap();
        let netlink = Netlink::open().unwrap();
        for (v6, add) in [(false, netlink.handle().rule().add()), (true, netlink.handle().rule().add())] {
            let added = if v6 {
                add.v6().table_id(100).execute().await
            } else {
                add.v4().table_id(100).execute().await
            };
            added.unwrap();
            expect(&mut watch, "rule", |change| *change == Change::Routes { v6 }).await;
        }
    })
    .unwrap();
}

/// Adds next hop 7, a blackhole. The library has no messages for it: `struct nhmsg` of linux/nexthop.h by hand.
fn add_next_hop_object() {
    const RTM_NEWNEXTHOP: u16 = 104;
    const NHA_ID: u16 = 1;
    const NHA_BLACKHOLE: u16 = 4;
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = Vec::new();
    message.extend(36_u32.to_ne_bytes());
    message.extend([RTM_NEWNEXTHOP, flags].map(u16::to_ne_bytes).concat());
    message.extend([0; 8]);
    message.extend([libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 0]);
    message.extend([8, NHA_ID].map(u16::to_ne_bytes).concat());
    message.extend(7_u32.to_ne_bytes());
    message.extend([4, NHA_BLACKHOLE].map(u16::to_ne_bytes).concat());
    let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
    socket.bind_auto().unwrap();
    assert_eq!(socket.send_to(&message, &SocketAddr::new(0, 0), 0).unwrap(), message.len());
}

#[test]
fn a_next_hop_object_asks_for_a_resync() {
    let (one, _two) = pair();
    one.run_async(|| async {
        let mut watch = Watch::open().unwrap();
        add_next_hop_object();
        expect(&mut watch, "resync", |change| *change == Change::Resync).await;
    })
    .unwrap();
}

#[test]
fn the_stream_can_move_between_threads() {
    let (one, _two) = pair();
    let seen = one
        .run_async(|| async {
            let stream = Watch::open().unwrap().stream();
            elsewhere(|| one.mtu("a0", 1400).unwrap()).await;
            let task = tokio::spawn(async move {
                let mut stream = std::pin::pin!(stream);
                stream.next().await.unwrap().unwrap()
            });
            tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap()
        })
        .unwrap();
    assert!(seen.iter().any(|change| matches!(change, Change::Link(link) if link.mtu == 1400)), "{seen:?}");
}

#[test]
fn a_burst_is_reported_once_and_in_order() {
    let mut burst = Burst::default();
    let neighbour = |mac: u8, state| {
        let address = "10.0.0.2".parse().unwrap();
        Change::Neighbour(Neighbour { ifindex: 3, address, mac: Some([mac; 6]), state })
    };
    let link = Link { index: 3, ..Link::default() };
    for mac in 1..=9 {
        burst.add(neighbour(mac, State::Reachable));
        burst.add(Change::Routes { v6: false });
        burst.add(Change::Link(link.clone()));
    }
    burst.add(neighbour(9, State::Stale));
    let expected = [Change::Link(link), Change::Routes { v6: false }, neighbour(9, State::Stale)];
    assert_eq!(burst.take(), expected);
    assert!(burst.is_empty());

    burst.add(neighbour(1, State::Stale));
    burst.add(Change::Resync);
    assert_eq!(burst.take(), [Change::Resync]);
    assert!(burst.is_empty());
}

#[test]
fn an_overflow_asks_for_a_resync_and_the_watch_goes_on() {
    let (one, _two) = pair();
    one.address("a0", "10.3.0.1/16").unwrap();
    one.run_async(|| async {
        let ifindex = index("a0").unwrap();
        // The kernel's smallest buffer holds a handful of messages.
        let mut watch = Watch::with_buffer(1).unwrap();
        let netlink = Netlink::open().unwrap();
        for host in 0..200_u8 {
            let address = IpAddr::from([10, 3, 1, host]);
            let request = netlink
                .handle()
                .neighbours()
                .add(ifindex, address)
                .link_layer_address(&[2, 0, 0, 0, 0, host]);
            request.execute().await.unwrap();
        }
        expect(&mut watch, "resync", |change| *change == Change::Resync).await;
        elsewhere(|| one.neighbour("a0", "10.3.2.1", [2; 6]).unwrap()).await;
        let address = IpAddr::from([10, 3, 2, 1]);
        expect(&mut watch, "later neighbour", |c| matches!(c, Change::Neighbour(n) if n.address == address))
            .await;
    })
    .unwrap();
}

#[test]
fn what_cannot_be_parsed_asks_for_a_resync() {
    for datagram in [&[255, 0, 0, 0, 1][..], &[8, 0, 0, 0, 0, 0, 0, 0], &[0, 0, 0, 0]] {
        let mut burst = Burst::default();
        parse(datagram, &mut burst);
        assert_eq!(burst.take(), [Change::Resync], "{datagram:?}");
    }
}
