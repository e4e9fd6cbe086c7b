//! Bulk traffic, datagrams, the generic mode, and shares by weight.

use lb_tests::agent::{Balancer, Ran};
use lb_tests::flows;
use lb_tests::lan::{Lan, Return};
use lb_tests::nginx::{Nginx, until_served};
use lb_tests::programs::{Echo, Iperf, ask, curl, iperf, noise};
use lb_tests::require::root;
use lb_tests::routed::Routed;
use lb_tests::topo::Family;
use lb_userspace::lab::Namespace;
use std::sync::Arc;

/// Bytes that iperf3 moves: thousands of segments.
const BULK: u64 = 24 << 20;

#[test]
fn iperf3_moves_bulk_both_ways() {
    if !root() {
        return;
    }
    let net = Routed::attached("native");
    let amount = BULK.to_string();
    for family in Family::BOTH {
        let (vip, backend) = (Routed::vip(family), Routed::backend(family, 0));
        let name = family.pick("perf4", "perf6");
        // One backend: iperf3 opens a second connection, which belongs to the same test.
        let listen = format!("tcp://{}", family.socket(vip, 5201));
        net.lb.ok(&["service", "add", name, &listen, "--backend", &family.socket(backend, 5201)]);
        net.lb.until_ready(name);
        let _server = Iperf::serve(&net.backends[0], backend, 5201);
        for direction in [&[][..], &["-R"]] {
            let received = iperf(&net.client, &[&["-c", vip, "-n", &amount], direction].concat());
            // iperf3 ends when the last byte is handed over: what is under way then is not counted.
            assert!(received > BULK / 2, "{name} {direction:?}: {received} of {BULK} bytes");
        }
    }
    net.assert_clean(&[]);
}

/// Asks a UDP service with datagrams of many lengths, each from a socket of its own: the answers are right, and every
/// backend was asked.
#[track_caller]
fn datagrams(
    lb: &Balancer,
    client: &Namespace,
    vip: &str,
    backends: [&str; 2],
    mode: &str,
    servers: &[Echo],
) {
    let (name, listen) = (if vip.starts_with('[') { "dns6" } else { "dns4" }, format!("udp://{vip}"));
    let [one, two] = backends;
    lb.ok(&["service", "add", name, &listen, "--mode", mode, "--backend", one, "--backend", two]);
    lb.until_ready(name);
    for length in (0..64).chain([1200, 1201, 1400]) {
        let question = noise(length);
        let answer = ask(client, vip, &question);
        let (server, echoed) = answer.split_at(2);
        assert!(servers.iter().any(|known| known.name.as_bytes() == server), "{answer:?}");
        assert!(echoed == question, "{length} bytes came back as others");
    }
    let asked: Vec<u64> = servers.iter().map(Echo::asked).collect();
    assert!(asked.iter().all(|count| *count > 0), "one backend was never asked: {asked:?}");
}

/// An echo on each backend.
fn echoes(backends: &[Arc<Namespace>; 2], on: impl Fn(usize) -> String) -> [Echo; 2] {
    [0, 1].map(|number| Echo::serve(&backends[number], ["b0", "b1"][number], &on(number)))
}

#[test]
fn datagrams_find_one_backend_a_flow_and_come_back() {
    if !root() {
        return;
    }
    let net = Routed::attached("native");
    for family in Family::BOTH {
        let backends = [0, 1].map(|number| family.socket(Routed::backend(family, number), 53));
        let servers = echoes(&net.backends, |number| backends[number].clone());
        let vip = family.socket(Routed::vip(family), 53);
        datagrams(&net.lb, &net.client, &vip, backends.each_ref().map(String::as_str), "nat", &servers);
    }
    net.assert_clean(&[]);
}

#[test]
fn datagrams_return_directly() {
    if !root() {
        return;
    }
    let net = Lan::attached(Return::Direct);
    for family in Family::BOTH {
        let vip = family.socket(Lan::vip(family), 53);
        let servers = echoes(&net.backends, |_| vip.clone());
        let backends = [0, 1].map(|number| family.socket(Lan::backend(family, number), 53));
        datagrams(&net.lb, &net.client, &vip, backends.each_ref().map(String::as_str), "l2", &servers);
    }
    let counted = net.lb.stats().services.iter().map(|s| s.counters.back_packets).sum::<u64>();
    assert_eq!(counted, 0, "replies took the way of the requests");
    net.assert_clean(&[]);
}

/// Generic XDP sees socket buffers: from a sender on the same machine they are as long as its segmentation offload makes
/// them, and transfers stall. A network card in between would send segments, so every sender's segmentation offload is
/// off here. Checksum offload stays on: the program finishes those.
#[test]
fn generic_mode_balances_tcp() {
    if !root() {
        return;
    }
    let mut net = Routed::new();
    for (machine, link) in
        [(&net.client, "eth0"), (&net.router, "l0"), (&net.backends[0], "eth0"), (&net.backends[1], "eth0")]
    {
        let mut ethtool = machine.command("ethtool");
        let ran = Ran::of(ethtool.args(["-K", link, "tso", "off", "gso", "off"]));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }
    net.lb.start();
    net.lb.ok(&["attach", "r0", "b0", "b1", "--mode", "generic"]);
    assert!(net.lb.status().interfaces.iter().all(|i| i.mode.as_deref() == Some("generic")));
    let servers: Vec<Nginx> = (0..2)
        .map(|number| {
            let at = Family::V4.socket(Routed::backend(Family::V4, number), 80);
            Nginx::start(&net.backends[number], &format!("b{number}"), &[at])
        })
        .collect();
    net.add_service("web", Family::V4, &[]);
    let content = noise(1_000_000);
    servers.iter().for_each(|server| server.put("file", &content));
    let directory = tempfile::tempdir().unwrap();
    let into = directory.path().join("#1");
    curl(
        &net.client,
        &["-H", "Connection: close", "-o", into.to_str().unwrap(), "http://192.0.2.10/file?[1-16]"],
    );
    for number in 1..=16 {
        assert!(std::fs::read(directory.path().join(number.to_string())).unwrap() == content);
    }
    let each = until_served(&servers, "GET /file", 16);
    assert!(each.iter().all(|served| *served > 0), "one backend served nothing: {each:?}");
    net.assert_clean(&[]);
}

#[test]
fn new_flows_are_shared_by_weight() {
    if !root() {
        return;
    }
    let net = Lan::attached(Return::Direct);
    let _servers: Vec<Nginx> = (0..2)
        .map(|number| {
            let vip = Family::V4.socket(Lan::vip(Family::V4), 80);
            Nginx::start(&net.backends[number], &format!("b{number}"), &[vip])
        })
        .collect();
    net.add_service("web", Family::V4, &["--mode", "l2"]);
    net.lb.ok(&["backend", "set", "web", "10.0.2.12:80", "--weight", "300"]);
    const FLOWS: usize = 2000;
    let counted = flows::count(&net.client, "10.0.2.100:80", FLOWS);
    assert_eq!(counted.values().sum::<usize>(), FLOWS);
    // Ports of consecutive connections are not random, but their hash is: six standard deviations of a fair draw.
    let (share, slack) = (counted["b1"] as f64 / FLOWS as f64, 6.0 * (0.75_f64 * 0.25 / FLOWS as f64).sqrt());
    assert!((share - 0.75).abs() < slack, "the heavier backend got {share}, not 0.75 ± {slack}");
    let stats = net.lb.stats();
    let flows: u64 = stats.services[0].backends.iter().map(|backend| backend.counters.flows).sum();
    assert!(flows >= FLOWS as u64, "{flows} flows counted");
    net.assert_clean(&[]);
}
