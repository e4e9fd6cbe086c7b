//! Addresses that come and go, and what a neighbour sees of it.

use super::*;
use crate::lab::{Namespace, veth, wait};
use crate::net::announce::announce;
use crate::net::format_mac;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

fn inside<T: Send>(namespace: &Namespace, work: impl AsyncFnOnce(Vips, u32) -> T + Send) -> T {
    let run = || async { work(Vips::new(Netlink::open().unwrap()), crate::net::index("a0").unwrap()).await };
    namespace.run_async(run).unwrap()
}

fn pair() -> (Namespace, Namespace) {
    let (one, two) = (Namespace::create_unique("lbvip").unwrap(), Namespace::create_unique("lbvip").unwrap());
    veth(&one, "a0", &two, "b0").unwrap();
    (one, two)
}

fn addresses() -> [IpAddr; 2] {
    ["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()]
}

#[test]
fn ours_are_added_once_recognised_after_a_crash_and_removed() {
    let (one, _two) = pair();
    for vip in addresses() {
        inside(&one, async |mut vips, ifindex| {
            assert_eq!(vips.add(ifindex, vip).await.unwrap(), Added::Added);
            assert_eq!(vips.add(ifindex, vip).await.unwrap(), Added::AlreadyOurs);
        });
    }
    // Another process: nothing is remembered but what the kernel knows.
    inside(&one, async |mut vips, ifindex| {
        assert_eq!(vips.list_ours(ifindex).await.unwrap(), addresses());
        for vip in addresses() {
            assert_eq!(vips.add(ifindex, vip).await.unwrap(), Added::AlreadyOurs);
            assert_eq!(vips.remove(ifindex, vip).await.unwrap(), Removed::Removed);
            assert_eq!(vips.remove(ifindex, vip).await.unwrap(), Removed::NotThere);
        }
        assert_eq!(vips.list_ours(ifindex).await.unwrap(), Vec::<IpAddr>::new());
    });
}

#[test]
fn foreign_addresses_are_left_alone() {
    let (one, _two) = pair();
    one.address("a0", "192.0.2.10/32").unwrap();
    one.address("a0", "2001:db8::10/128").unwrap();
    inside(&one, async |mut vips, ifindex| {
        for vip in addresses() {
            assert_eq!(vips.add(ifindex, vip).await.unwrap(), Added::Foreign);
            assert_eq!(vips.remove(ifindex, vip).await.unwrap(), Removed::Foreign);
            assert_eq!(vips.add(ifindex, vip).await.unwrap(), Added::Foreign, "it was removed");
        }
        assert_eq!(vips.list_ours(ifindex).await.unwrap(), Vec::<IpAddr>::new());
    });
}

#[test]
fn an_address_is_usable_makes_no_route_and_is_no_source() {
    let (one, two) = pair();
    one.address("a0", "2001:db8::1/64").unwrap();
    two.address("b0", "2001:db8::2/64").unwrap();
    let vip = addresses()[1];
    let source = inside(&one, async |mut vips, ifindex| {
        let before = vips.netlink.routes().await.unwrap();
        vips.add(ifindex, vip).await.unwrap();
        assert_eq!(vips.netlink.routes().await.unwrap(), before);
        // The kernel makes it its own in a work queue.
        let bound = || std::net::TcpListener::bind((vip, 80)).is_ok();
        wait::until("a listener at the address", PATIENCE, bound).unwrap();
        let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
        socket.connect("[2001:db8::2]:9").unwrap();
        socket.local_addr().unwrap().ip()
    });
    assert_eq!(source, "2001:db8::1".parse::<IpAddr>().unwrap());
}

#[test]
fn an_announcement_changes_the_neighbours_of_others() {
    let (one, two) = pair();
    two.address("b0", "192.0.2.2/24").unwrap();
    two.address("b0", "2001:db8::2/64").unwrap();
    let [old, new] = [[2, 0, 0, 0, 0, 0x99], [2, 0, 0, 0, 0, 0x11]];
    one.mac("a0", new).unwrap();
    for vip in addresses() {
        // The address was at another machine until now.
        let stale = netlink_packet_route::neighbour::NeighbourState::Stale;
        two.neighbour_in("b0", &vip.to_string(), old, stale).unwrap();
        let seen = || {
            two.run_async(|| async {
                let ifindex = crate::net::index("b0").unwrap();
                Netlink::open().unwrap().neighbour(ifindex, vip).await.unwrap().unwrap().mac.unwrap()
            })
            .unwrap()
        };
        assert_eq!(seen(), old);
        inside(&one, async |mut vips, ifindex| {
            vips.add(ifindex, vip).await.unwrap();
            announce(ifindex, new, vip).unwrap();
        });
        let what = format!("{vip} at {}", format_mac(new));
        wait::until(&what, PATIENCE, || seen() == new).unwrap();
    }
}
