//! The tables' answer against the kernel's, address by address.

use super::*;
use crate::lab::{Namespace, veth};
use netlink_packet_route::route::RouteType;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two networks, gateways with and without an MTU, prefixes within prefixes, refusals, neighbours in several states.
fn world() -> (Namespace, Namespace) {
    let make = || Namespace::create_unique("lbmany").unwrap();
    let (here, there) = (make(), make());
    for (one, other) in [("a0", "b0"), ("a1", "b1")] {
        veth(&here, one, &there, other).unwrap();
    }
    for (link, address) in [("a0", "10.6.0.1/24"), ("a0", "fd06::1/64"), ("a1", "10.8.0.1/24")] {
        here.address(link, address).unwrap();
    }
    here.route("10.7.0.0/16", "10.6.0.2").unwrap();
    here.route("10.7.9.0/24", "10.8.0.2").unwrap();
    here.route("fd07::/32", "fd06::2").unwrap();
    here.route_mtu("fd07:0:9::/48", "fd06::3", 1300).unwrap();
    for (prefix, kind) in [
        ("10.20.0.0/24", RouteType::BlackHole),
        ("10.21.0.0/24", RouteType::Unreachable),
        ("10.22.0.0/24", RouteType::Prohibit),
        ("fd20::/64", RouteType::BlackHole),
    ] {
        here.route_refuse(prefix, kind).unwrap();
    }
    here.output("ip", &["route", "add", "local", "10.30.0.0/24", "dev", "lo"]).unwrap();
    let paths = ["nexthop", "via", "10.6.0.2", "nexthop", "via", "10.8.0.2"];
    here.output("ip", &[&["route", "add", "10.31.0.0/24"], &paths[..]].concat()).unwrap();
    here.output("ip", &["route", "add", "10.32.0.0/24", "via", "10.6.0.2", "metric", "5"]).unwrap();
    here.output("ip", &["route", "add", "10.32.0.0/24", "via", "10.8.0.2", "metric", "9"]).unwrap();
    for (link, neighbour) in [("a0", "10.6.0.2"), ("a0", "10.6.0.77"), ("a0", "fd06::3")] {
        here.neighbour(link, neighbour, [2, 0, 0, 0, 0, 7]).unwrap();
    }
    (here, there)
}

fn targets() -> Vec<IpAddr> {
    let single = [
        "10.6.0.1",
        "10.6.0.2",
        "10.6.0.77",
        "10.6.0.78",
        "10.6.0.255",
        "10.8.0.9",
        "10.7.1.1",
        "10.7.1.2",
        "10.7.9.1",
        "10.20.0.1",
        "10.21.0.1",
        "10.22.0.1",
        "10.30.0.1",
        "10.31.0.1",
        "10.32.0.1",
        "203.0.113.1",
        "127.0.0.1",
        "224.0.0.1",
        "fd06::1",
        "fd06::2",
        "fd06::9",
        "fd07::1",
        "fd07:0:9::1",
        "fd20::1",
        "2001:db8::1",
        "::1",
        "ff02::1",
    ];
    let many = (1..=MANY as u8).map(|n| IpAddr::from([10, 7, 2, n]));
    single.map(ip).into_iter().chain(many).collect()
}

#[test]
fn many_addresses_get_the_answers_that_each_gets_alone() {
    let (here, there) = world();
    let compare = || {
        here.run_async(|| async {
            let netlink = Netlink::open().unwrap();
            let targets = targets();
            let answers = netlink.resolve_all(&targets).await.unwrap();
            for (target, answer) in targets.iter().zip(&answers) {
                assert_eq!(**answer, netlink.resolve(*target).await.unwrap(), "{target}");
            }
            answers
        })
        .unwrap()
    };
    let answers = compare();
    let [.., one, other] = answers.as_slice() else { panic!("no answers") };
    assert!(Arc::ptr_eq(one, other), "the same way is told once");
    // Its routes are out of order now.
    there.down("b0").unwrap();
    compare();
    // With a rule of its own the family is the kernel's business.
    here.output("ip", &["rule", "add", "to", "10.7.2.0/24", "table", "77"]).unwrap();
    here.output("ip", &["route", "add", "10.7.2.0/24", "via", "10.8.0.2", "table", "77"]).unwrap();
    let answers = compare();
    assert_eq!(answers.last().unwrap().as_ref().as_ref().unwrap().gateway, Some(ip("10.8.0.2")));
}
