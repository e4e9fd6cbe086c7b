//! Compilation against a naive longest-prefix match, and the kernel's real tables.

use super::*;
use crate::lab::{Namespace, veth};
use crate::net::neighbours::State;
use netlink_packet_route::route::RouteType;
use proptest::prelude::*;

const LIMIT: usize = 16;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn route(prefix: &str, via: Via, ifindex: u32) -> Route {
    Route { prefix: net(prefix), via, ifindex, metric: 0, multipath: false, kind: Kind::Unicast, mtu: None }
}

fn gateway(number: u8) -> Via {
    Via::Gateway(IpAddr::from([10, 0, 0, number]))
}

fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

/// Interfaces 1 and 2 work, 3 is down.
fn links() -> Vec<Link> {
    let link = |index: u32, up| Link {
        index,
        mac: mac(100 + index as u8),
        ethernet: true,
        mtu: 1500,
        up,
        carrier: up,
        ..Link::default()
    };
    vec![link(1, true), link(2, true), link(3, false)]
}

/// Gateways 1 to 3 are resolved on every interface, 4 failed, 5 is unknown.
fn neighbours() -> Vec<Neighbour> {
    let entry = |ifindex, number, state| {
        let address = IpAddr::from([10, 0, 0, number]);
        Neighbour { ifindex, address, mac: Some(mac(number)), state }
    };
    (1..=3)
        .flat_map(|ifindex| {
            let resolved = (1..=3).map(move |number| entry(ifindex, number, State::Reachable));
            resolved.chain([entry(ifindex, 4, State::Failed)])
        })
        .collect()
}

fn compiled(routes: &[Route]) -> Vec<CompiledRoute> {
    compile(routes, &neighbours(), &links(), LIMIT)
}

#[test]
fn gateways_and_links_come_out_longest_first() {
    let routes = [
        route("0.0.0.0/0", gateway(1), 1),
        route("192.168.1.0/24", Via::OnLink, 2),
        Route { mtu: Some(1400), ..route("192.168.0.0/16", gateway(2), 2) },
        route("2001:db8::/64", Via::OnLink, 1),
    ];
    let entry = |prefix: &str, kind, ifindex: u32, mtu| CompiledRoute {
        prefix: net(prefix),
        kind,
        ifindex,
        source_mac: mac(100 + ifindex as u8),
        mtu,
    };
    let expected = [
        entry("192.168.1.0/24", CompiledKind::OnLink, 2, 1500),
        entry("192.168.0.0/16", CompiledKind::Gateway { mac: mac(2) }, 2, 1400),
        entry("0.0.0.0/0", CompiledKind::Gateway { mac: mac(1) }, 1, 1500),
        entry("2001:db8::/64", CompiledKind::OnLink, 1, 1500),
    ];
    assert_eq!(compiled(&routes), expected);
}

#[test]
fn what_only_the_kernel_can_do_is_left_to_it() {
    let base = route("10.1.0.0/16", gateway(1), 1);
    for hard in [
        Route { multipath: true, ..base },
        Route { kind: Kind::Blackhole, ..base },
        Route { kind: Kind::Other, ..base },
        Route { via: gateway(4), ..base },
        Route { via: gateway(5), ..base },
        Route { ifindex: 3, ..base },
        Route { ifindex: 9, ..base },
    ] {
        assert_eq!(compiled(&[hard]), [], "asking is what happens without an entry");
        let below_default = compiled(&[hard, route("0.0.0.0/0", gateway(2), 1)]);
        assert_eq!(below_default[0], CompiledRoute::ask(base.prefix), "{hard:?}");
        assert_eq!(below_default.len(), 2);
    }
}

#[test]
fn the_lowest_metric_wins_and_a_tie_asks() {
    let route = |number, metric| Route { metric, ..route("10.1.0.0/16", gateway(number), 1) };
    let winner = compiled(&[route(1, 200), route(2, 100), route(3, 300)]);
    assert_eq!(winner[0].kind, CompiledKind::Gateway { mac: mac(2) });
    // The winner decides even when it cannot be compiled.
    assert_eq!(compiled(&[route(1, 200), route(5, 100)]), []);
    assert_eq!(compiled(&[route(1, 100), route(2, 100)]), []);
}

#[test]
fn many_routes_through_one_gateway_are_one_entry() {
    let mut routes: Vec<_> =
        (0..=255).map(|third| route(&format!("10.1.{third}.0/24"), gateway(1), 1)).collect();
    routes.push(route("0.0.0.0/0", gateway(1), 1));
    assert_eq!(compiled(&routes).len(), 1);
}

#[test]
fn too_many_routes_end_in_a_question() {
    let length = |position: usize| format!("10.{position}.0.0/{}", 16 + position / 10);
    let mut routes: Vec<_> = (0..40).map(|n| route(&length(n), gateway((n % 3) as u8 + 1), 1)).collect();
    routes.push(route("0.0.0.0/0", gateway(1), 2));
    let table = compiled(&routes);
    assert_eq!(table.len(), LIMIT);
    assert_eq!(table[LIMIT - 1], CompiledRoute::ask(net("0.0.0.0/0")));
    assert!(table[..LIMIT - 1].iter().all(|entry| entry.prefix.prefix_len() >= 18), "{table:?}");
    assert_eq!(compile(&routes, &neighbours(), &links(), 1), [CompiledRoute::ask(net("0.0.0.0/0"))]);
    assert_eq!(compile(&routes, &neighbours(), &links(), 0), []);
}

/// What the kernel would do, found the slow way. `None`: ask it.
fn naive(routes: &[Route], address: IpAddr) -> Option<CompiledRoute> {
    let containing = || routes.iter().filter(|route| route.prefix.contains(&address));
    let longest = containing().map(|route| route.prefix.prefix_len()).max()?;
    let candidates = || containing().filter(|route| route.prefix.prefix_len() == longest);
    let metric = candidates().map(|route| route.metric).min()?;
    let winners: Vec<_> = candidates().filter(|route| route.metric == metric).collect();
    let [winner] = winners[..] else { return None };
    let links = links();
    let link = links.iter().find(|link| link.index == winner.ifindex)?;
    if winner.multipath || winner.kind != Kind::Unicast || !link.up {
        return None;
    }
    let kind = match winner.via {
        Via::OnLink => CompiledKind::OnLink,
        Via::Gateway(gateway) => {
            let neighbours = neighbours();
            let entry = neighbours.iter().find(|n| n.ifindex == link.index && n.address == gateway)?;
            CompiledKind::Gateway { mac: entry.usable()? }
        }
    };
    let mtu = winner.mtu.unwrap_or(link.mtu);
    Some(CompiledRoute { prefix: winner.prefix, kind, ifindex: link.index, source_mac: link.mac, mtu })
}

/// The search that the data plane does. `None`: ask.
fn search(table: &[CompiledRoute], address: IpAddr) -> Option<CompiledRoute> {
    let first = table.iter().find(|entry| entry.prefix.contains(&address))?;
    (first.kind != CompiledKind::Ask).then_some(*first)
}

/// Prefixes from few bits, so that they nest often.
fn any_prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (0..64_u32, 0..=8_u8).prop_map(|(bits, length)| {
        IpNet::new(IpAddr::from((bits << 26).to_be_bytes()), length).unwrap().trunc()
    });
    let v6 = (0..64_u128, 0..=8_u8).prop_map(|(bits, length)| {
        IpNet::new(IpAddr::from((bits << 122).to_be_bytes()), length).unwrap().trunc()
    });
    prop_oneof![v4, v6]
}

fn any_route() -> impl Strategy<Value = Route> {
    let via = prop_oneof![Just(Via::OnLink), (1..=5_u8).prop_map(gateway)];
    let kind = prop_oneof![9 => Just(Kind::Unicast), 1 => Just(Kind::Blackhole)];
    let mtu = prop_oneof![3 => Just(None), 1 => Just(Some(1400))];
    (any_prefix(), via, 1..=3_u32, 0..3_u32, proptest::bool::weighted(0.1), kind, mtu).prop_map(
        |(prefix, via, ifindex, metric, multipath, kind, mtu)| Route {
            prefix,
            via,
            ifindex,
            metric,
            multipath,
            kind,
            mtu,
        },
    )
}

proptest! {
    #[test]
    fn a_table_never_disagrees_with_the_kernel(
        routes in prop::collection::vec(any_route(), 0..60),
        limit in 0..=LIMIT,
        tail in any::<u128>(),
    ) {
        let table = compile(&routes, &neighbours(), &links(), limit);
        let unlimited = compile(&routes, &neighbours(), &links(), usize::MAX);
        for v6 in [false, true] {
            let family = |entry: &&CompiledRoute| entry.prefix.addr().is_ipv6() == v6;
            prop_assert!(table.iter().filter(family).count() <= limit);
            let lengths: Vec<_> = table.iter().filter(family).map(|entry| entry.prefix.prefix_len()).collect();
            prop_assert!(lengths.is_sorted_by(|a, b| a >= b), "{lengths:?}");
        }
        // The prefixes differ in the first eight bits at most: these addresses meet them all.
        for first in 0..=255_u8 {
            let mut octets = tail.to_be_bytes();
            octets[0] = first;
            let [a, b, c, d, ..] = octets;
            for address in [IpAddr::from([a, b, c, d]), IpAddr::from(octets)] {
                let action = |found: Option<CompiledRoute>| found.map(|f| (f.kind, f.ifindex, f.source_mac, f.mtu));
                let truth = action(naive(&routes, address));
                if let Some(found) = action(search(&table, address)) {
                    prop_assert_eq!(Some(found), truth, "{} in {:?}", address, table);
                }
                prop_assert_eq!(action(search(&unlimited, address)), truth, "{}", address);
            }
        }
    }
}

#[test]
fn the_kernels_routes_are_read_and_compiled() {
    let (here, there) =
        (Namespace::create_unique("lbrt").unwrap(), Namespace::create_unique("lbrt").unwrap());
    veth(&here, "a0", &there, "b0").unwrap();
    here.address("a0", "10.6.0.1/24").unwrap();
    here.address("a0", "fd06::1/64").unwrap();
    here.route("default", "10.6.0.2").unwrap();
    here.route_mtu("default", "fd06::2", 1400).unwrap();
    here.route_multipath("10.7.0.0/16", &["10.6.0.2", "10.6.0.3"]).unwrap();
    here.route_multipath("fd07::/64", &["fd06::2", "fd06::3"]).unwrap();
    here.route_refuse("10.8.0.0/16", RouteType::BlackHole).unwrap();
    here.route("10.9.0.0/16", "fd06::2").unwrap();
    here.neighbour("a0", "10.6.0.2", mac(1)).unwrap();
    here.neighbour("a0", "fd06::2", mac(2)).unwrap();
    let (link, table) = here
        .run_async(|| async {
            let netlink = Netlink::open().unwrap();
            (netlink.link("a0").await.unwrap(), netlink.compiled_routes(LIMIT).await.unwrap())
        })
        .unwrap();
    let found = |prefix: &str| {
        table.iter().find(|entry| entry.prefix == net(prefix)).map(|entry| (entry.kind, entry.mtu))
    };
    let to = |number| CompiledKind::Gateway { mac: mac(number) };
    assert_eq!(found("0.0.0.0/0"), Some((to(1), 1500)));
    assert_eq!(found("::/0"), Some((to(2), 1400)));
    assert_eq!(found("10.9.0.0/16"), Some((to(2), 1500)), "IPv4 through an IPv6 gateway");
    assert_eq!(found("10.6.0.0/24"), Some((CompiledKind::OnLink, 1500)));
    assert_eq!(found("fd06::/64"), Some((CompiledKind::OnLink, 1500)));
    for asked in ["10.7.0.0/16", "fd07::/64", "10.8.0.0/16"] {
        assert_eq!(found(asked), Some((CompiledKind::Ask, 0)), "{asked}");
    }
    let usable = table.iter().filter(|entry| entry.kind != CompiledKind::Ask);
    assert!(
        usable.clone().count() >= 5
            && usable.clone().all(|e| (e.ifindex, e.source_mac) == (link.index, link.mac))
    );
}

#[test]
fn a_family_with_rules_of_its_own_is_left_to_the_kernel() {
    let (here, there) =
        (Namespace::create_unique("lbrt").unwrap(), Namespace::create_unique("lbrt").unwrap());
    veth(&here, "a0", &there, "b0").unwrap();
    here.address("a0", "10.6.0.1/24").unwrap();
    here.address("a0", "fd06::1/64").unwrap();
    let families = || {
        let table = here
            .run_async(|| async { Netlink::open().unwrap().compiled_routes(LIMIT).await.unwrap() })
            .unwrap();
        [false, true].map(|v6| table.iter().any(|entry| entry.prefix.addr().is_ipv6() == v6))
    };
    assert_eq!(families(), [true, true]);
    here.run_async(|| async {
        let netlink = Netlink::open().unwrap();
        let rule = netlink.handle().rule().add().v4().source_prefix([10, 6, 0, 0].into(), 24).table_id(100);
        rule.execute().await.unwrap();
    })
    .unwrap();
    assert_eq!(families(), [false, true]);
}
