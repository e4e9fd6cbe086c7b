//! MAC addresses that change and entries that are forgotten: the kernel's neighbour tables are what packets follow.

use lb_tests::agent::PATIENCE;
use lb_tests::lan::{Lan, Return};
use lb_tests::nginx::Nginx;
use lb_tests::programs::reaches;
use lb_tests::require::root;
use lb_tests::routed::Routed;
use lb_tests::topo::Family;
use lb_userspace::lab::wait;

const URL: &str = "http://192.0.2.10/id";

#[test]
fn a_backend_with_another_mac_is_followed() {
    if !root() {
        return;
    }
    let net = Routed::attached("native");
    let at = Family::V4.socket(Routed::backend(Family::V4, 0), 80);
    let _server = Nginx::start(&net.backends[0], "b0", &[at]);
    net.lb.ok(&["service", "add", "web", "tcp://192.0.2.10:80", "--backend", "10.0.3.2:80"]);
    net.lb.until_ready("web");
    assert!(reaches(&net.client, URL));

    net.backends[0].mac("eth0", [2, 0, 0, 0, 0x11, 1]).unwrap();
    // What was learnt there before went with the address; so does the default route's use of it.
    net.lb.until("web", "the new MAC address", |service| {
        service.backends[0].next_hop.as_ref().and_then(|hop| hop.mac.as_deref()) == Some("02:00:00:00:11:01")
    });
    wait::until("an answer after the backend's change", PATIENCE, || reaches(&net.client, URL)).unwrap();

    // The gateway towards the clients, too.
    net.router.mac("l0", [2, 0, 0, 0, 0x11, 2]).unwrap();
    wait::until("an answer after the gateway's change", PATIENCE, || reaches(&net.client, URL)).unwrap();
}

#[test]
fn forgotten_neighbours_are_asked_for_again() {
    if !root() {
        return;
    }
    let net = Routed::attached("native");
    for family in Family::BOTH {
        let (name, backend) = (family.pick("web4", "web6"), Routed::backend(family, 0));
        let _server = Nginx::start(&net.backends[0], "b0", &[family.socket(backend, 80)]);
        let listen = format!("tcp://{}", family.socket(Routed::vip(family), 80));
        net.lb.ok(&["service", "add", name, &listen, "--backend", &family.socket(backend, 80)]);
        net.lb.until_ready(name);
        let url = format!("http://{}/id", family.socket(Routed::vip(family), 80));
        assert!(reaches(&net.client, &url));
        for (link, address) in [("b0", backend), ("r0", family.pick("10.0.2.1", "fd00:2::1"))] {
            // It may be gone already: IPv6 routers talk by their link-local addresses.
            let _ = net.lb.ns.delete_neighbour(link, address);
            wait::until("an answer without the entry", PATIENCE, || reaches(&net.client, &url)).unwrap();
        }
        net.lb.until_ready(name);
    }
}

#[test]
fn clients_on_the_segment_may_change_their_mac() {
    if !root() {
        return;
    }
    let net = Lan::attached(Return::Balancer);
    // Replies must come through the balancer: a backend that knows a shorter way to the client breaks NAT anywhere.
    let _server = Nginx::start(&net.backends[0], "b0", &["10.0.2.11:80".to_owned()]);
    net.backends[0].route("10.0.2.9/32", "10.0.2.2").unwrap();
    net.lb.ok(&["service", "add", "web", "tcp://10.0.2.100:80", "--backend", "10.0.2.11:80"]);
    net.lb.until_ready("web");
    let url = "http://10.0.2.100/id";
    wait::until("the first answer", PATIENCE, || reaches(&net.neighbour, url)).unwrap();
    net.neighbour.mac("eth0", [2, 0, 0, 0, 0x11, 3]).unwrap();
    wait::until("an answer after the client's change", PATIENCE, || reaches(&net.neighbour, url)).unwrap();
}
