//! Who answers for an address: the balancer while it can serve, nobody when it cannot.

use lb_tests::agent::PATIENCE;
use lb_tests::lan::{ARM, Lan, Return};
use lb_tests::nginx::Nginx;
use lb_tests::programs::reaches;
use lb_tests::require::root;
use lb_tests::topo::Family;
use lb_userspace::api::types::ServiceState;
use lb_userspace::lab::wait;

fn announced(family: Family) {
    if !root() {
        return;
    }
    let net = Lan::attached(Return::Direct);
    let vip = Lan::vip(family);
    let mut servers: Vec<Nginx> = (0..2)
        .map(|number| Nginx::start(&net.backends[number], &format!("b{number}"), &[family.socket(vip, 80)]))
        .collect();
    let check = "http:/id,interval=100ms,timeout=500ms,rise=1,fall=2";
    // The check asks backends at their own addresses: the server must listen there, too.
    let own: Vec<Nginx> = (0..2)
        .map(|number| {
            let at = family.socket(Lan::backend(family, number), 80);
            Nginx::start(&net.backends[number], &format!("own{number}"), &[at])
        })
        .collect();
    net.add_service("web", family, &["--mode", "l2", "--check", check]);
    let on_arm =
        || net.lb.ns.output("ip", &["addr", "show", "dev", ARM]).unwrap().contains(&format!("{vip}/"));
    assert!(on_arm(), "the address is not on {ARM}");
    let url = format!("http://{}/id", family.socket(vip, 80));
    // Nothing was configured there: ARP or neighbour discovery found it.
    wait::until("an answer on the segment", PATIENCE, || reaches(&net.neighbour, &url)).unwrap();

    // An entry that points to somebody else, as after a take-over.
    let stale = [2, 0, 0, 0, 0x22, 1];
    drop(own);
    servers.iter_mut().for_each(Nginx::stop);
    net.lb.until("web", "the service to be down", |service| service.state == ServiceState::Down);
    net.lb.until("web", "the address to be withdrawn", |service| service.announced_on.is_empty());
    wait::until("the address to be off the interface", PATIENCE, || !on_arm()).unwrap();
    let state = netlink_packet_route::neighbour::NeighbourState::Reachable;
    net.neighbour.neighbour_in("eth0", vip, stale, state).unwrap();

    servers.iter_mut().for_each(Nginx::resume);
    let _own: Vec<Nginx> = (0..2)
        .map(|number| {
            let at = family.socket(Lan::backend(family, number), 80);
            Nginx::start(&net.backends[number], &format!("own{number}"), &[at])
        })
        .collect();
    net.lb.until("web", "the address to be announced", |service| !service.announced_on.is_empty());
    wait::until("the stale entry to be corrected and an answer", PATIENCE, || reaches(&net.neighbour, &url))
        .unwrap();
    net.assert_clean(&["no-backend"]);
}

#[test]
fn the_address_comes_and_goes_with_the_service_ipv4() {
    announced(Family::V4);
}

#[test]
fn the_address_comes_and_goes_with_the_service_ipv6() {
    announced(Family::V6);
}
