//! The conclusion alone, then the kernel's real answers.

use super::*;
use crate::lab::{Namespace, veth, wait};
use crate::net::index;
use netlink_packet_route::neighbour::NeighbourState as Nud;
use netlink_packet_route::route::RouteType;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 3];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link() -> Link {
    let (name, mac) = ("eth0".to_owned(), [2, 0, 0, 0, 0, 1]);
    Link { name, index: 2, mac, ethernet: true, mtu: 1500, up: true, carrier: true, ..Link::default() }
}

fn route(via: Via) -> Route {
    let prefix = "10.0.0.0/24".parse().unwrap();
    Route { prefix, via, ifindex: 2, metric: 0, multipath: false, kind: Kind::Unicast, mtu: None }
}

#[test]
fn gateway_mtu_and_neighbour_are_joined() {
    let target = ip("10.0.0.9");
    let entry = |address, mac, state| Neighbour { ifindex: 2, address, mac: Some(mac), state };
    let neighbours = [
        entry(ip("10.0.0.9"), OTHER, State::Reachable),
        Neighbour { ifindex: 7, ..entry(ip("10.0.0.1"), OTHER, State::Reachable) },
        entry(ip("10.0.0.1"), SERVER, State::Stale),
    ];
    let through = Route { mtu: Some(1400), ..route(Via::Gateway(ip("10.0.0.1"))) };
    let hop = decide(target, &through, &[link()], &neighbours).unwrap();
    assert_eq!((hop.gateway, hop.neighbour, hop.mtu), (Some(ip("10.0.0.1")), ip("10.0.0.1"), 1400));
    assert_eq!((hop.ready(), hop.state, hop.source_mac), (Ok(SERVER), State::Stale, link().mac));
    assert_eq!(hop.to_string(), "via 10.0.0.1 dev eth0 lladdr 02:00:00:00:00:02 stale");

    let hop = decide(target, &route(Via::OnLink), &[link()], &neighbours).unwrap();
    assert_eq!((hop.gateway, hop.neighbour, hop.mtu, hop.mac), (None, target, 1500, Some(OTHER)));
    let jumbo = Route { mtu: Some(9000), ..route(Via::OnLink) };
    assert_eq!(decide(target, &jumbo, &[link()], &[]).unwrap().mtu, 1500);
}

#[test]
fn an_old_mac_of_an_entry_that_failed_is_not_used() {
    let target = ip("10.0.0.9");
    for (state, wanted) in [
        (State::Failed, "10.0.0.9 does not answer ARP or neighbour discovery on eth0"),
        (State::Incomplete, "10.0.0.9 on eth0 is being resolved"),
    ] {
        let entry = Neighbour { ifindex: 2, address: target, mac: Some(SERVER), state };
        let hop = decide(target, &route(Via::OnLink), &[link()], &[entry]).unwrap();
        assert_eq!(hop.mac, None);
        let reason = hop.ready().unwrap_err().to_string();
        assert!(reason.starts_with(wanted), "{reason}");
    }
    for state in [State::Permanent, State::NoArp, State::Delay, State::Probe] {
        let entry = Neighbour { ifindex: 2, address: target, mac: Some(SERVER), state };
        assert_eq!(decide(target, &route(Via::OnLink), &[link()], &[entry]).unwrap().ready(), Ok(SERVER));
    }
}

#[test]
fn every_dead_end_has_its_reason() {
    let target = ip("10.0.0.9");
    let of_kind = |kind| decide(target, &Route { kind, ..route(Via::OnLink) }, &[link()], &[]).unwrap_err();
    assert_eq!(of_kind(Kind::Local), Unresolved::Local { target });
    assert_eq!(of_kind(Kind::Blackhole), Unresolved::Blackhole { target });
    assert_eq!(of_kind(Kind::Unreachable), Unresolved::Unreachable { target });
    assert_eq!(of_kind(Kind::Prohibit), Unresolved::Prohibited { target });
    assert_eq!(of_kind(Kind::Other), Unresolved::NotUnicast { target });
    let over = |link: Link| decide(target, &route(Via::OnLink), &[link], &[]).unwrap_err();
    let interface = "eth0".to_owned();
    assert_eq!(
        over(Link { carrier: false, ..link() }),
        Unresolved::LinkDown { target, interface: interface.clone() }
    );
    assert_eq!(over(Link { ethernet: false, ..link() }), Unresolved::NotEthernet { target, interface });
    assert_eq!(over(Link { index: 9, ..link() }), Unresolved::LinkGone { target, ifindex: 2 });
}

/// Client, with a server on its segment that is also its router.
fn segment() -> (Namespace, Namespace) {
    let (here, there) =
        (Namespace::create_unique("lbhop").unwrap(), Namespace::create_unique("lbhop").unwrap());
    veth(&here, "a0", &there, "b0").unwrap();
    there.mac("b0", SERVER).unwrap();
    for (namespace, link, address) in [
        (&here, "a0", "10.6.0.1/24"),
        (&here, "a0", "fd06::1/64"),
        (&there, "b0", "10.6.0.2/24"),
        (&there, "b0", "fd06::2/64"),
    ] {
        namespace.address(link, address).unwrap();
    }
    // The kernel gives up after three tries: let them be 100 ms apart instead of a second.
    for family in ["ipv4", "ipv6"] {
        here.sysctl(&format!("net.{family}.neigh.a0.retrans_time_ms"), "100").unwrap();
    }
    here.route("10.7.0.0/16", "10.6.0.2").unwrap();
    here.route_mtu("fd07::/64", "fd06::2", 1300).unwrap();
    (here, there)
}

async fn resolve(target: &str) -> Answer {
    Netlink::open().unwrap().resolve(ip(target)).await.unwrap()
}

/// Probes, again when the neighbour failed, and waits until `target` is at `mac`.
async fn probe_until(target: &str, mac: [u8; 6]) -> NextHop {
    let netlink = Netlink::open().unwrap();
    let mut hop = resolve(target).await.unwrap();
    netlink.probe(hop.ifindex, hop.neighbour).await.unwrap();
    let what = format!("{target} at {mac:?}");
    let arrived = async || {
        hop = resolve(target).await.unwrap();
        if hop.state == State::Failed {
            netlink.probe(hop.ifindex, hop.neighbour).await.unwrap();
        }
        hop.mac == Some(mac)
    };
    wait::until_async(&what, PATIENCE, arrived).await.unwrap();
    hop
}

#[test]
fn a_probe_resolves_and_the_answer_follows_the_neighbour() {
    let (here, there) = segment();
    for (target, neighbour, mtu) in [
        ("10.6.0.2", "10.6.0.2", 1500),
        ("fd06::2", "fd06::2", 1500),
        ("10.7.1.1", "10.6.0.2", 1500),
        ("fd07::5", "fd06::2", 1300),
    ] {
        there.mac("b0", SERVER).unwrap();
        here.run_async(|| async {
            let netlink = Netlink::open().unwrap();
            let ifindex = index("a0").unwrap();
            if netlink.neighbour(ifindex, ip(neighbour)).await.unwrap().is_some() {
                here.delete_neighbour("a0", neighbour).unwrap();
            }
            let hop = resolve(target).await.unwrap();
            assert!(hop.ready().is_err(), "{hop}");
            let hop = probe_until(target, SERVER).await;
            assert_eq!((hop.neighbour, hop.mtu, hop.ifindex), (ip(neighbour), mtu, ifindex));
            assert_eq!(hop.gateway, (target != neighbour).then(|| ip(neighbour)));
            assert!(hop.state.valid());
        })
        .unwrap();
        // The neighbour's card is replaced: what was known is stale, a probe finds the new one.
        here.neighbour_in("a0", neighbour, SERVER, Nud::Stale).unwrap();
        there.mac("b0", OTHER).unwrap();
        here.run_async(|| async {
            let netlink = Netlink::open().unwrap();
            let hop = resolve(target).await.unwrap();
            netlink.probe(hop.ifindex, hop.neighbour).await.unwrap();
            // Checked now, not when the kernel finds the time for it.
            let state = resolve(target).await.unwrap().state;
            assert!(!matches!(state, State::Stale | State::Delay), "{state}");
            probe_until(target, OTHER).await;
        })
        .unwrap();
    }
}

#[test]
fn a_probe_of_a_dead_neighbour_fails_and_a_permanent_one_is_left_alone() {
    let (here, _there) = segment();
    for target in ["10.6.0.99", "fd06::99"] {
        here.run_async(|| async {
            let netlink = Netlink::open().unwrap();
            let hop = resolve(target).await.unwrap();
            netlink.probe(hop.ifindex, hop.neighbour).await.unwrap();
            let failed = async || resolve(target).await.unwrap().state == State::Failed;
            wait::until_async("a failed neighbour", PATIENCE, failed).await.unwrap();
            let reason = resolve(target).await.unwrap().ready().unwrap_err();
            assert!(matches!(reason, Unresolved::NeighbourFailed { .. }), "{reason}");
        })
        .unwrap();
        here.neighbour("a0", target, OTHER).unwrap();
        let hop = here.run_async(|| probe_until(target, OTHER)).unwrap();
        assert_eq!(hop.state, State::Permanent);
    }
}

#[test]
fn the_kernels_refusals_are_told_apart() {
    let (here, there) = segment();
    for (family, prefixes) in
        [(4, ["10.20.0.0/24", "10.21.0.0/24", "10.22.0.0/24"]), (6, ["fd20::/64", "fd21::/64", "fd22::/64"])]
    {
        let kinds = [RouteType::BlackHole, RouteType::Unreachable, RouteType::Prohibit];
        for (prefix, kind) in prefixes.iter().zip(kinds) {
            here.route_refuse(prefix, kind).unwrap();
        }
        let targets = if family == 4 {
            ["10.20.0.1", "10.21.0.1", "10.22.0.1", "203.0.113.1", "10.6.0.1"]
        } else {
            ["fd20::1", "fd21::1", "fd22::1", "2001:db8::1", "fd06::1"]
        };
        let answers = targets.map(|target| here.run_async(|| resolve(target)).unwrap().unwrap_err());
        let [blackhole, unreachable, prohibited, nowhere, local] = targets.map(ip);
        assert_eq!(
            answers,
            [
                Unresolved::Blackhole { target: blackhole },
                Unresolved::Unreachable { target: unreachable },
                Unresolved::Prohibited { target: prohibited },
                Unresolved::NoRoute { target: nowhere },
                Unresolved::Local { target: local },
            ]
        );
    }
    there.down("b0").unwrap();
    let down = here.run_async(|| resolve("10.6.0.2")).unwrap().unwrap_err();
    assert_eq!(down, Unresolved::LinkDown { target: ip("10.6.0.2"), interface: "a0".into() });
}
