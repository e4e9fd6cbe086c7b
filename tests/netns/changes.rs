//! Backends that die, come back, and are drained, while connections live on the others.

use lb_tests::flows::{self, Herd, Stream};
use lb_tests::nginx::Nginx;
use lb_tests::require::root;
use lb_tests::routed::Routed;
use lb_tests::topo::Family;
use lb_userspace::api::types::HealthState;

const VIP: &str = "192.0.2.10:80";
/// A check that decides soon: down after three failures.
const CHECK: &str = "http:/id,interval=100ms,timeout=500ms,rise=2,fall=3";
/// Enough connections that each backend has some.
const HELD: usize = 100;

fn serve(options: &[&str]) -> (Routed, Vec<Nginx>) {
    let net = Routed::attached("native");
    let servers = (0..2)
        .map(|number| {
            let at = Family::V4.socket(Routed::backend(Family::V4, number), 80);
            Nginx::start(&net.backends[number], &format!("b{number}"), &[at])
        })
        .collect();
    net.add_service("web", Family::V4, options);
    (net, servers)
}

fn health(service: &lb_userspace::api::types::ServiceView, address: &str) -> HealthState {
    service.backends.iter().find(|backend| backend.address == address).unwrap().health
}

#[test]
fn a_dead_backend_leaves_and_returns_and_the_others_notice_nothing() {
    if !root() {
        return;
    }
    let (net, mut servers) = serve(&["--check", CHECK]);
    let mut herd = Herd::open(&net.client, VIP, HELD);
    let shares = herd.shares();
    assert_eq!(shares.len(), 2, "{shares:?}");

    servers[0].stop();
    net.lb.until("web", "b0 to be down", |service| health(service, "10.0.3.2:80") == HealthState::Down);
    assert_eq!(
        flows::count(&net.client, VIP, 100).keys().collect::<Vec<_>>(),
        ["b1"],
        "new flows go elsewhere"
    );
    let broken = herd.ask();
    assert_eq!(broken.get("b1"), None, "a connection to the living backend broke");
    assert_eq!(broken["b0"], shares["b0"], "connections to the dead backend are answered");
    assert_eq!(herd.shares(), [("b1".to_owned(), shares["b1"])].into());

    servers[0].resume();
    net.lb.until("web", "b0 to be up", |service| health(service, "10.0.3.2:80") == HealthState::Up);
    net.lb.until_ready("web");
    assert_eq!(flows::count(&net.client, VIP, 100).len(), 2, "the backend that returned gets new flows");
    // Their slots went to b0 again; they stay where they are.
    herd.assert_whole();
    net.assert_clean(&[]);
}

#[test]
fn a_drain_keeps_connections_and_ends_at_its_deadline() {
    if !root() {
        return;
    }
    let (net, _servers) = serve(&[]);
    let mut herd = Herd::open(&net.client, VIP, HELD);
    assert_eq!(herd.shares().len(), 2, "{:?}", herd.shares());

    net.lb.ok(&["backend", "drain", "web", "10.0.3.2:80"]);
    assert_eq!(
        flows::count(&net.client, VIP, 100).keys().collect::<Vec<_>>(),
        ["b1"],
        "new flows go elsewhere"
    );
    herd.assert_whole();
    net.lb.until("web", "the drain to see its flows", |service| {
        service.backends.iter().any(|backend| backend.flows_left.is_some_and(|left| left > 0))
    });

    net.lb.ok(&["backend", "undrain", "web", "10.0.3.2:80"]);
    assert_eq!(flows::count(&net.client, VIP, 100).len(), 2, "new flows come again");
    herd.assert_whole();

    net.lb.ok(&["backend", "rm", "web", "10.0.3.2:80", "--drain", "3s"]);
    herd.assert_whole();
    net.lb.until("web", "the drained backend to be gone", |service| service.backends.len() == 1);
    let broken = herd.ask();
    assert_eq!(broken.get("b1"), None, "a connection to the backend that stays broke");
    assert_eq!(flows::count(&net.client, VIP, 100).keys().collect::<Vec<_>>(), ["b1"]);
    net.assert_clean(&[]);
}

#[test]
fn a_drain_ends_its_count_with_its_connections() {
    if !root() {
        return;
    }
    let (net, _servers) = serve(&[]);
    let mut herd = Herd::open(&net.client, VIP, HELD);
    net.lb.ok(&["backend", "drain", "web", "10.0.3.2:80"]);
    herd.assert_whole();
    let left = |service: &lb_userspace::api::types::ServiceView| {
        service.backends.iter().find_map(|backend| backend.flows_left)
    };
    let held = herd.shares()["b0"] as u64;
    net.lb.until("web", "the drain to count its flows", |service| left(service) == Some(held));
    // Long before the idle timeout: their FINs were seen.
    herd.close("b0");
    net.lb.until("web", "the drain to see them close", |service| left(service) == Some(0));
    herd.assert_whole();
}

#[test]
fn changing_a_service_again_and_again_breaks_nothing() {
    if !root() {
        return;
    }
    let (net, _servers) = serve(&[]);
    let mut herd = Herd::open(&net.client, VIP, HELD);
    let stream = Stream::start(&net.client, VIP);
    for (number, arguments) in [
        &["backend", "set", "web", "10.0.3.2:80", "--weight", "10"][..],
        &["backend", "set", "web", "10.0.4.2:80", "--weight", "0"],
        &["service", "set", "web", "--on-down", "keep"],
        &["backend", "set", "web", "10.0.4.2:80", "--weight", "100"],
        &["backend", "set", "web", "10.0.3.2:80", "--weight", "100"],
        &["service", "set", "web", "--idle-timeout", "1h"],
    ]
    .into_iter()
    .enumerate()
    {
        net.lb.ok(arguments);
        stream.until_more(20);
        herd.assert_whole();
        assert!(net.lb.status().services.len() == 1, "step {number}");
    }
    assert_eq!(stream.end(), Vec::<String>::new());
    net.assert_clean(&[]);
}
