//! Services that listen on several ports, with real servers and real clients.

use lb_tests::lan::{Lan, Return};
use lb_tests::nginx::{Nginx, until_served};
use lb_tests::programs::curl;
use lb_tests::require::root;
use lb_tests::routed::Routed;
use lb_tests::topo::Family;
use lb_userspace::lab::Namespace;
use std::sync::Arc;

/// Ports of the range that something listens on: its ends, and some between.
const PORTS: [u16; 4] = [8000, 8001, 8500, 8999];
/// A port beside the range.
const BESIDE: u16 = 9000;
/// Connections to each port.
const FETCHES: usize = 20;

/// Servers that listen on many ports, and call themselves after the port.
fn servers(
    backends: &[Arc<Namespace>; 2],
    address: impl Fn(usize) -> &'static str,
    family: Family,
) -> Vec<Nginx> {
    let start = |number: usize| {
        let ports = PORTS.into_iter().chain([BESIDE]);
        let listen: Vec<String> = ports.map(|port| family.socket(address(number), port)).collect();
        Nginx::start(&backends[number], &format!("b{number}"), &listen)
    };
    (0..backends.len()).map(start).collect()
}

/// Fetches from a port, each time by a connection of its own. Both backends serve.
#[track_caller]
fn fetch(client: &Namespace, vip: &str, port: u16, servers: &[Nginx], round: &str) {
    let asked = format!("/id?{round}={port}&");
    let url = format!("http://{vip}:{port}{asked}n=[1-{FETCHES}]");
    curl(client, &["-H", "Connection: close", "-o", "/dev/null", &url]);
    let each = until_served(servers, &asked, FETCHES);
    assert_eq!(each.iter().sum::<usize>(), FETCHES);
    assert!(each.iter().all(|served| *served > 0), "one backend served nothing on port {port}: {each:?}");
}

fn routed(family: Family) {
    if !root() {
        return;
    }
    let mut net = Routed::attached("native");
    let servers = servers(&net.backends, |number| Routed::backend(family, number), family);
    let vip = family.pick("192.0.2.10", "[2001:db8::10]");
    let [one, two] = [0, 1].map(|number| Routed::backend(family, number));
    let client = family.pick("10.0.1.2", "[fd00:1::2]");
    let listen = |ports: &str| format!("tcp://{vip}:{ports}");
    let check = "tcp,port=8000,interval=50ms,timeout=40ms,rise=1,fall=2";
    net.lb.ok(&[
        "service",
        "add",
        "range",
        &listen("8000-8999"),
        "--check",
        check,
        "--backend",
        one,
        "--backend",
        two,
    ]);
    net.lb.until_ready("range");
    PORTS.into_iter().for_each(|port| fetch(&net.client, vip, port, &servers, "first"));

    // In place, and more: every port is served, and what was counted is still there.
    net.lb.ok(&["service", "set", "range", "--listen", &listen("*")]);
    fetch(&net.client, vip, BESIDE, &servers, "any");
    let counted = &net.lb.stats().services[0].counters;
    assert!(counted.flows >= ((PORTS.len() + 1) * FETCHES) as u64, "{counted:?}");
    assert!(counted.back_packets > 0, "{counted:?}");

    let explained = net.lb.ok(&["explain", "tcp", &format!("{client}:4000"), &format!("{vip}:1234")]);
    assert!(explained.contains("range") && explained.contains(one) | explained.contains(two), "{explained}");
    let shown = net.lb.ok(&["service", "list"]);
    assert!(shown.contains(&listen("*")), "{shown}");

    // Without the agent, and with the next one, as before.
    let id = net.lb.stats().services[0].id;
    net.lb.kill();
    fetch(&net.client, vip, 8001, &servers, "alone");
    let shown = net.lb.ok(&["--pins", net.lb.pins().to_str().unwrap(), "stats"]);
    assert!(shown.contains(&listen("*")) && shown.contains(one), "{shown}");
    net.lb.start();
    net.lb.until_ready("range");
    fetch(&net.client, vip, 8500, &servers, "again");
    assert_eq!(net.lb.stats().services[0].id, id, "it was adopted");
    assert!(net.lb.ok(&["backend", "list", "range"]).contains(one));
    net.assert_clean(&[]);
}

#[test]
fn nat_keeps_the_ports_of_a_range_ipv4() {
    routed(Family::V4);
}

#[test]
fn nat_keeps_the_ports_of_a_range_ipv6() {
    routed(Family::V6);
}

#[test]
fn every_port_by_direct_return() {
    if !root() {
        return;
    }
    let net = Lan::attached(Return::Direct);
    let family = Family::V4;
    let servers = servers(&net.backends, |_| Lan::vip(family), family);
    let vip = Lan::vip(family);
    let [one, two] = [0, 1].map(|number| Lan::backend(family, number));
    let listen = format!("tcp://{vip}:*");
    net.lb.ok(&[
        "service",
        "add",
        "any",
        &listen,
        "--mode",
        "l2",
        "--check",
        "none",
        "--backend",
        one,
        "--backend",
        two,
    ]);
    net.lb.until_ready("any");
    PORTS.into_iter().for_each(|port| fetch(&net.client, vip, port, &servers, "first"));
    net.assert_clean(&[]);
}
