//! Agents come and go; the data plane stays.

use lb_common::abi::{limits, names};
use lb_tests::bpf;
use lb_tests::flows::{Herd, Stream};
use lb_tests::nginx::Nginx;
use lb_tests::require::root;
use lb_tests::routed::Routed;
use lb_tests::topo::Family;
use lb_userspace::api::types::PlanView;
use lb_userspace::dataplane::pins::Pins;

const VIP: &str = "192.0.2.10:80";

fn serve() -> (Routed, Vec<Nginx>) {
    let net = Routed::attached("native");
    let servers = (0..2)
        .map(|number| {
            let at = Family::V4.socket(Routed::backend(Family::V4, number), 80);
            Nginx::start(&net.backends[number], &format!("b{number}"), &[at])
        })
        .collect();
    net.add_service("web", Family::V4, &[]);
    (net, servers)
}

/// Every ring as it lies in the kernel.
fn rings(net: &Routed) -> Vec<u8> {
    let line = 64;
    bpf::bytes(&Pins::new(net.lb.pins()).map(names::RINGS), limits::RING_LINES as usize * line).unwrap()
}

#[test]
fn killed_and_started_again_under_load_it_loses_nothing() {
    if !root() {
        return;
    }
    let (mut net, _servers) = serve();
    let mut herd = Herd::open(&net.client, VIP, 300);
    let stream = Stream::start(&net.client, VIP);
    for _ in 0..3 {
        stream.until_more(30);
        net.lb.kill();
        stream.until_more(30);
        herd.assert_whole();
        net.lb.start();
        assert_eq!(net.lb.status().agent.started, "adopted");
        net.lb.until_ready("web");
        stream.until_more(30);
        herd.assert_whole();
    }
    // Changes after a restart keep the connections from before it.
    net.lb.ok(&["backend", "set", "web", "10.0.3.2:80", "--weight", "10"]);
    stream.until_more(30);
    herd.assert_whole();
    assert_eq!(stream.end(), Vec::<String>::new(), "short connections were lost");
    net.assert_clean(&[]);
}

#[test]
fn a_restart_writes_nothing_where_nothing_changed() {
    if !root() {
        return;
    }
    let (mut net, _servers) = serve();
    let before = rings(&net);
    assert!(before.iter().any(|byte| *byte != 0), "an empty ring");
    net.lb.stop();
    let log = net.lb.log().len();
    net.lb.start();
    assert_eq!(net.lb.status().agent.started, "adopted");
    assert!(rings(&net) == before, "the rings changed");
    // The log tells each step; a slot that is written again with what it has would show here.
    let log = net.lb.log().split_off(log);
    assert!(!log.contains("change hands") && !log.contains("service is"), "steps were carried out:\n{log}");
}

#[test]
fn a_second_pass_over_the_same_configuration_plans_nothing() {
    if !root() {
        return;
    }
    let (net, _servers) = serve();
    let file = net.lb.directory().join("lb.toml").display().to_string();
    std::fs::write(&file, net.lb.ok(&["export"])).unwrap();
    let plan: PlanView = net.lb.json(&["apply", "-f", &file, "--dry-run"]);
    assert!(!plan.changed && plan.steps.is_empty() && plan.slots_moved == 0, "{plan:#?}");
    let plan: PlanView = net.lb.json(&["apply", "-f", &file]);
    assert!(!plan.changed && plan.steps.is_empty(), "{plan:#?}");

    // The other direction: a dry run of a change tells its steps and does none of them.
    let before = rings(&net);
    let arguments = ["backend", "add", "web", "10.0.4.2:81"];
    let plan: PlanView = net.lb.json(&[&arguments[..], &["--dry-run"]].concat());
    assert!(plan.changed && plan.dry_run && !plan.steps.is_empty() && plan.slots_moved > 0, "{plan:#?}");
    assert!(rings(&net) == before, "a dry run wrote");
    assert_eq!(net.lb.service("web").backends.len(), 2);
    let done: PlanView = net.lb.json(&arguments);
    assert_eq!((done.slots_moved, done.steps), (plan.slots_moved, plan.steps), "what was announced was done");
}

#[test]
fn the_data_plane_goes_on_without_an_agent_and_tells_its_counters() {
    if !root() {
        return;
    }
    let (mut net, _servers) = serve();
    let mut herd = Herd::open(&net.client, VIP, 50);
    net.lb.stop();
    assert!(!net.lb.socket().exists(), "the socket outlives the agent");
    herd.assert_whole();
    let more = Herd::open(&net.client, VIP, 50);
    assert_eq!(more.shares().len(), 2);
    let pins = net.lb.pins().display().to_string();
    let stats: lb_userspace::api::types::StatsView = net.lb.json(&["stats", "--pins", &pins]);
    assert!(stats.services[0].counters.flows >= 100, "{stats:#?}");
    net.lb.refused(1, &["service", "list"]);
    net.lb.start();
    herd.assert_whole();
    net.assert_clean(&[]);
}
