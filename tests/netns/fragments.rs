//! Datagrams that are larger than any packet: fragments both ways, put together again by real hosts.

use lb_tests::agent::Balancer;
use lb_tests::lan::{Lan, Return};
use lb_tests::programs::{Echo, ask, noise};
use lb_tests::require::root;
use lb_tests::routed::Routed;
use lb_tests::topo::Family;
use lb_userspace::lab::Namespace;
use std::sync::Arc;

/// Lengths of datagrams: a whole packet, which makes neighbours known, two fragments, and up to two dozen.
const LENGTHS: [usize; 6] = [1000, 1600, 8000, 8192, 16_384, 32_000];
/// Each length from so many sockets.
const SOCKETS: usize = 8;
/// Bytes of a datagram that a packet of 1500 bytes holds at least.
const FRAGMENT: usize = 1480;

/// Asks a service, and sees that every answer is right and every backend was asked.
#[track_caller]
fn large_datagrams(
    lb: &Balancer,
    client: &Namespace,
    machines: &[&Arc<Namespace>],
    vip: &str,
    backends: [&str; 2],
    mode: &str,
    servers: &[Echo],
) {
    let name = if vip.starts_with('[') { "large6" } else { "large4" };
    let [one, two] = backends;
    let listen = format!("udp://{vip}");
    lb.ok(&["service", "add", name, &listen, "--mode", mode, "--backend", one, "--backend", two]);
    lb.until_ready(name);
    for length in LENGTHS {
        for _ in 0..SOCKETS {
            let question = noise(length);
            let answer = ask(client, vip, &question);
            assert_eq!(answer.len(), length + 2, "the length of an answer");
            let (server, echoed) = answer.split_at(2);
            assert!(servers.iter().any(|known| known.name.as_bytes() == server), "{server:?}");
            assert!(echoed == question, "other bytes came back of {length}");
        }
    }
    let asked: Vec<u64> = servers.iter().map(Echo::asked).collect();
    assert!(asked.iter().all(|count| *count > 0), "one backend was not asked: {asked:?}");

    let stats = lb.stats();
    let counted = &stats.services.iter().find(|service| service.name == name).unwrap().counters;
    let least: usize = LENGTHS.iter().map(|length| length.div_ceil(FRAGMENT) * SOCKETS).sum();
    assert!(counted.packets >= least as u64, "{counted:?}: fewer than {least} packets");
    match mode {
        "nat" => {
            assert!(counted.back_packets >= least as u64, "{counted:?}: fewer than {least} packets back")
        }
        _ => assert_eq!(counted.back_packets, 0, "replies took the way of the requests"),
    }
    for machine in machines {
        assert_eq!(machine.reassembly_failures().unwrap(), 0, "{} missed fragments", machine.name());
    }
    assert_eq!(lb.reasons().get("fragment"), None, "fragments found no first one");
}

fn echoes(backends: &[Arc<Namespace>; 2], on: impl Fn(usize) -> String) -> [Echo; 2] {
    [0, 1].map(|number| Echo::serve(&backends[number], ["b0", "b1"][number], &on(number)))
}

fn nat(attached: &str) {
    if !root() {
        return;
    }
    let net = Routed::attached(attached);
    for family in Family::BOTH {
        let on = |number| family.socket(Routed::backend(family, number), 53);
        let servers = echoes(&net.backends, on);
        let (vip, backends) = (family.socket(Routed::vip(family), 53), [on(0), on(1)]);
        let machines = [&net.client, &net.lb.ns, &net.backends[0], &net.backends[1]];
        let backends = backends.each_ref().map(String::as_str);
        large_datagrams(&net.lb, &net.client, &machines, &vip, backends, "nat", &servers);
    }
    net.assert_clean(&[]);
}

#[test]
fn nat_between_networks() {
    nat("native");
}

#[test]
fn nat_in_generic_mode() {
    nat("generic");
}

#[test]
fn direct_return() {
    if !root() {
        return;
    }
    let net = Lan::attached(Return::Direct);
    for family in Family::BOTH {
        let vip = family.socket(Lan::vip(family), 53);
        let servers = echoes(&net.backends, |_| vip.clone());
        let backends = [0, 1].map(|number| family.socket(Lan::backend(family, number), 53));
        let machines = [&net.client, &net.lb.ns, &net.backends[0], &net.backends[1]];
        let backends = backends.each_ref().map(String::as_str);
        large_datagrams(&net.lb, &net.client, &machines, &vip, backends, "l2", &servers);
    }
    net.assert_clean(&[]);
}
