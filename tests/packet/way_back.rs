//! The way back to clients: compiled routes, known neighbours, and what the kernel says where they do not answer.

use std::net::{IpAddr, SocketAddr};

use lb_common::abi::names;
use lb_common::abi::{Event, Key, NeighbourEntry, event, route};
use lb_common::reason::Reason;
use lb_tests::frame::{Flow, Macs};
use lb_userspace::dataplane::events::Events;

use crate::case::{passed, refused, returned};
use crate::lab::{LOOPBACK, Lab, Served, TO_CLIENT, address, gateway, in_lab, nat, way};

/// MACs of the neighbour and of this machine where the kernel knows the way.
const BY_KERNEL: Macs = [2, 0, 0, 0, 7, 7, 2, 0, 0, 0, 7, 1];
const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 7, 7];
const OURS: [u8; 6] = [2, 0, 0, 0, 7, 1];

/// The backend's reply to a client with this address.
fn reply_to(served: &Served, client: IpAddr) -> Flow {
    Served { client: SocketAddr::new(client, 5000), ..served.clone() }.reply()
}

/// IPv4 or IPv6, as the service is.
fn pick(served: &Served, v4: &str, v6: &str) -> IpAddr {
    address(if served.vip.is_ipv4() { v4 } else { v6 })
}

/// A link with an address of each family, a neighbour and routes; nothing is compiled, so the kernel is asked.
fn link(lab: &mut Lab<'_>) -> u32 {
    let index = lab.veth("in0", "in1");
    let namespace = lab.namespace;
    let configured = (|| {
        namespace.forward()?;
        namespace.mac("in0", OURS)?;
        namespace.address("in0", "203.0.113.1/24")?;
        namespace.address("in0", "2001:db8:2::1/64")?;
        for known in ["203.0.113.7", "203.0.113.254", "2001:db8:2::7", "2001:db8:2::fe"] {
            namespace.neighbour("in0", known, NEIGHBOUR)?;
        }
        for (to, gateway) in [
            ("100.64.0.0/16", "203.0.113.254"),
            ("100.65.0.0/16", "203.0.113.253"),
            ("2001:db8:64::/48", "2001:db8:2::fe"),
            ("2001:db8:65::/48", "2001:db8:2::fd"),
        ] {
            namespace.route(to, gateway)?;
        }
        anyhow::Ok(())
    })();
    configured.expect("a link with addresses, neighbours and routes");
    lab.kernel.tables.routes.publish(&[], &[]).expect("room for no routes");
    index
}

#[test]
fn the_longest_compiled_route_counts() {
    in_lab(|lab| {
        let narrow: Macs = [2, 0, 0, 0, 5, 5, 2, 0, 0, 0, 0, 2];
        let through = |prefix, mask| lb_common::abi::RouteEntry {
            kind: route::kind::GATEWAY,
            macs: narrow,
            ..way(prefix, mask)
        };
        let on_link =
            |prefix, mask| lb_common::abi::RouteEntry { kind: route::kind::ON_LINK, ..way(prefix, mask) };
        let v4 =
            [on_link("198.51.100.0", "255.255.255.0"), through("198.51.0.0", "255.255.0.0"), gateway(false)];
        let v6 = [
            on_link("2001:db8:1::", "ffff:ffff:ffff::"),
            through("2001:db8::", "ffff:ffff::"),
            gateway(true),
        ];
        let neighbour: Macs = [2, 0, 0, 0, 4, 4, 2, 0, 0, 0, 0, 2];
        for known in ["198.51.100.7", "2001:db8:1::7"] {
            let entry = NeighbourEntry {
                key: Key::neighbour(address(known).into(), LOOPBACK).expect("a small index"),
                macs: neighbour,
            };
            lab.kernel.tables.neighbours.put(&entry).expect("room for a neighbour");
        }
        // Twice: each publishing takes the other generation.
        for _ in 0..2 {
            lab.kernel.tables.routes.publish(&v4, &v6).expect("room for the routes");
            for served in nat() {
                for (what, client, macs) in [
                    ("a neighbour", pick(&served, "198.51.100.7", "2001:db8:1::7"), neighbour),
                    ("the narrow route", pick(&served, "198.51.99.7", "2001:db8:9::7"), narrow),
                    ("the default route", pick(&served, "203.0.113.7", "2a00::7"), TO_CLIENT),
                ] {
                    let reply = reply_to(&served, client);
                    let out = reply.clone().sent_from(served.vip, macs).build();
                    lab.flow(format!("{}: through {what}", served.name), &reply)
                        .expect(returned(&served, &out));
                }
                let unknown = reply_to(&served, pick(&served, "198.51.100.8", "2001:db8:1::8"));
                lab.flow(format!("{}: the kernel does not forward here", served.name), &unknown)
                    .expect(refused(&served, Reason::ForwardingOff));
            }
            lab.kernel.tables.routes.publish(&[], &[]).expect("room for no routes");
        }
    });
}

#[test]
fn the_kernel_is_asked_where_nothing_is_compiled() {
    in_lab(|lab| {
        let index = link(lab);
        for asks in [false, true] {
            for served in nat() {
                for (what, client) in [
                    ("a neighbour", pick(&served, "203.0.113.7", "2001:db8:2::7")),
                    ("behind a gateway", pick(&served, "100.64.3.4", "2001:db8:64::4")),
                ] {
                    let reply = reply_to(&served, client);
                    let out = reply.clone().sent_from(served.vip, BY_KERNEL).build();
                    lab.flow(format!("{}: {what}", served.name), &reply)
                        .from(index)
                        .expect(returned(&served, &out).through(index));
                }
                let itself = reply_to(&served, pick(&served, "203.0.113.1", "2001:db8:2::1"));
                lab.flow(format!("{}: a reply to this machine is the kernel's", served.name), &itself)
                    .from(index)
                    .expect(refused(&served, Reason::ToThisMachine));
                let nowhere = reply_to(&served, pick(&served, "8.8.8.8", "2a00::8"));
                lab.flow(
                    format!("{}: without a route the kernel answers the backend", served.name),
                    &nowhere,
                )
                .from(index)
                .expect(refused(&served, Reason::ToThisMachine));
            }
            if !asks {
                // A route that says to ask, before one that would answer.
                let ask = |v6| {
                    [way(if v6 { "::" } else { "0.0.0.0" }, if v6 { "::" } else { "0.0.0.0" }), gateway(v6)]
                };
                lab.kernel.tables.routes.publish(&ask(false), &ask(true)).expect("room for the routes");
            }
        }
    });
}

#[test]
fn a_way_through_an_interface_that_is_not_allowed_is_none() {
    in_lab(|lab| {
        let index = link(lab);
        let other = lab.veth("other0", "other1");
        for served in nat() {
            let reply = reply_to(&served, pick(&served, "203.0.113.7", "2001:db8:2::7"));
            let out = reply.clone().sent_from(served.vip, BY_KERNEL).build();
            lab.flow(format!("{}: not allowed", served.name), &reply)
                .from(other)
                .expect(refused(&served, Reason::NoDevice));
            lab.allow(index);
            lab.flow(format!("{}: allowed", served.name), &reply)
                .from(other)
                .expect(returned(&served, &out).through(index));
            let mut interfaces = lab.kernel.dataplane.interfaces().expect("the devices are pinned");
            interfaces.devices().forget(index).expect("it was allowed");
        }
    });
}

#[test]
fn routes_that_refuse_are_no_routes() {
    use netlink_packet_route::route::RouteType;
    in_lab(|lab| {
        let index = link(lab);
        for (v4, v6, kind) in [
            ("100.66.0.0/16", "2001:db8:66::/48", RouteType::Unreachable),
            ("100.67.0.0/16", "2001:db8:67::/48", RouteType::Prohibit),
            ("100.68.0.0/16", "2001:db8:68::/48", RouteType::BlackHole),
        ] {
            for net in [v4, v6] {
                lab.namespace.route_refuse(net, kind).expect("a route that refuses");
            }
            let [v4, v6] = [v4, v6].map(|net| net.split_once('/').map_or(net, |(prefix, _)| prefix));
            for served in nat() {
                let reply = reply_to(&served, pick(&served, v4, v6));
                lab.flow(format!("{}: {kind:?}", served.name), &reply)
                    .from(index)
                    .expect(refused(&served, Reason::NoRoute));
            }
        }
    });
}

#[test]
fn an_unknown_neighbour_is_told_once_a_packet() {
    in_lab(|lab| {
        let index = link(lab);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.expect("a runtime");
        let _inside = runtime.enter();
        let mut events = Events::open(lab.kernel.dataplane.maps()).expect("the events are pinned");
        let mut next = || runtime.block_on(events.next()).expect("the runtime runs");
        for served in nat() {
            for (what, client, asked) in [
                ("on the link", ("203.0.113.99", "2001:db8:2::99"), ("203.0.113.99", "2001:db8:2::99")),
                ("behind a gateway", ("100.65.1.1", "2001:db8:65::1"), ("203.0.113.253", "2001:db8:2::fd")),
            ] {
                // Explaining, which a case does first, tells nothing.
                let reply = reply_to(&served, pick(&served, client.0, client.1));
                lab.flow(format!("{}: an unknown neighbour {what}", served.name), &reply)
                    .from(index)
                    .expect(refused(&served, Reason::NoNeighbour));
                // A second packet marks the end of what the first one told.
                let mark = pick(&served, "203.0.113.98", "2001:db8:2::98");
                let frame = reply_to(&served, mark).build();
                lab.kernel.runner().run(names::BALANCE, &frame, index, 1).expect("the kernel runs it");
                let told = |addr: IpAddr| Event {
                    kind: event::kind::NO_NEIGHBOUR,
                    ifindex: index,
                    addr: addr.into(),
                };
                assert_eq!(next(), told(pick(&served, asked.0, asked.1)), "{}: {what}", served.name);
                assert_eq!(next(), told(mark), "{}: {what}: told once", served.name);
            }
        }
    });
}

#[test]
fn nothing_comes_back_for_services_without_replies() {
    in_lab(|lab| {
        let served: Vec<_> = nat().collect();
        for one in &served {
            lab.change(one.name, |service| service.mode = lb_userspace::model::Mode::L2);
        }
        assert_eq!(lab.kernel.tables.reverse.used(), 0);
        for one in &served {
            lab.flow(format!("{}: L2 does not rewrite replies", one.name), &one.reply())
                .expect(passed(Reason::NotAService));
        }
    });
}
