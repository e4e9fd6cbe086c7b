//! Interfaces: attached, detached, somebody else's, and gone.

use lb_tests::agent::{Balancer, PATIENCE, Ran};
use lb_tests::bpf;
use lb_tests::nginx::Nginx;
use lb_tests::programs::reaches;
use lb_tests::require::root;
use lb_tests::routed::{BACK, Routed};
use lb_tests::topo::{Family, machine};
use lb_userspace::api::types::PlanView;
use lb_userspace::lab::{Namespace, veth, wait};
use std::sync::Arc;

/// A machine with two interfaces, and the other ends of them.
fn pair() -> (Balancer, Arc<Namespace>) {
    let (ns, far) = (machine("lb"), machine("far"));
    veth(&ns, "l0", &far, "f0").unwrap();
    veth(&ns, "l1", &far, "f1").unwrap();
    let mut lb = Balancer::new(ns);
    lb.start();
    (lb, far)
}

/// What `ip` says of the program on an interface.
fn program(ns: &Namespace, link: &str) -> String {
    let shown = ns.output("ip", &["-d", "link", "show", "dev", link]).unwrap();
    shown.lines().find(|line| line.contains("prog/xdp")).unwrap_or_default().trim().to_owned()
}

#[test]
fn attaching_and_detaching_twice_is_no_failure() {
    if !root() {
        return;
    }
    let (lb, _far) = pair();
    let attached: PlanView = lb.json(&["attach", "l0"]);
    assert!(attached.changed);
    let program_id = program(&lb.ns, "l0");
    assert!(!program_id.is_empty());
    let again: PlanView = lb.json(&["attach", "l0"]);
    assert!(!again.changed, "{again:#?}");
    assert_eq!(program(&lb.ns, "l0"), program_id, "it was attached anew");
    lb.ok(&["attach", "l1"]);
    assert!(lb.status().interfaces.iter().all(|interface| interface.mode.as_deref() == Some("native")));
    lb.ok(&["detach", "l0"]);
    assert_eq!(program(&lb.ns, "l0"), "");
    assert_ne!(program(&lb.ns, "l1"), "");
    assert!(lb.refused(3, &["detach", "l0"]).contains("not attached"));
    lb.ok(&["detach", "--all"]);
    assert_eq!(program(&lb.ns, "l1"), "");
    let again: PlanView = lb.json(&["detach", "--all"]);
    assert!(!again.changed, "{again:#?}");
    lb.refused(3, &["attach", "nowhere"]);
}

#[test]
fn the_program_of_somebody_else_stays() {
    if !root() {
        return;
    }
    let (mut lb, _far) = pair();
    let pin = format!("{}-stranger", lb.pins().display());
    bpf::pin_stranger(pin.as_ref()).unwrap();
    let set = Ran::of(lb.ns.command("ip").args(["link", "set", "dev", "l0", "xdp", "pinned", &pin]));
    std::fs::remove_file(&pin).unwrap();
    assert_eq!(set.code, 0, "{}", set.stderr);
    let stranger = program(&lb.ns, "l0");
    assert!(!stranger.is_empty());

    let said = lb.refused(4, &["attach", "l0"]);
    assert!(said.contains("l0") && said.contains("stranger"), "{said}");
    assert!(lb.status().interfaces.is_empty(), "what was refused is not wanted");
    // Neither is anything else done to it.
    lb.ok(&["attach", "l1"]);
    lb.ok(&["detach", "--all"]);
    lb.stop();
    lb.start();
    lb.refused(3, &["detach", "l0"]);
    assert_eq!(program(&lb.ns, "l0"), stranger);
}

#[test]
fn two_balancers_do_not_take_an_interface_from_each_other() {
    if !root() {
        return;
    }
    let (lb, _far) = pair();
    lb.ok(&["attach", "l0"]);
    let first = program(&lb.ns, "l0");
    let mut other = lb.beside();
    other.start();
    other.refused(4, &["attach", "l0"]);
    other.ok(&["attach", "l1"]);
    other.ok(&["detach", "--all"]);
    assert_eq!(program(&lb.ns, "l0"), first);
}

#[test]
fn an_interface_that_comes_back_is_attached_again() {
    if !root() {
        return;
    }
    let net = Routed::attached("native");
    let at = Family::V4.socket(Routed::backend(Family::V4, 0), 80);
    let server = Nginx::start(&net.backends[0], "b0", std::slice::from_ref(&at));
    net.lb.ok(&["service", "add", "web", "tcp://192.0.2.10:80", "--backend", &at]);
    net.lb.until_ready("web");
    let url = "http://192.0.2.10/id";
    assert!(reaches(&net.client, url));

    net.lb.ns.delete_link(BACK[0]).unwrap();
    let attached = || {
        net.lb.status().interfaces.iter().any(|i| i.name == BACK[0] && i.mode.as_deref() == Some("native"))
    };
    wait::until("the loss to be noticed", PATIENCE, || !attached()).unwrap();
    assert!(net.lb.status().attention.iter().any(|sentence| sentence.contains(BACK[0])));

    // Its addresses went with it, and with them what was bound to them only by a route.
    veth(&net.lb.ns, BACK[0], &net.backends[0], "eth0").unwrap();
    net.backends[0].gro("eth0", true).unwrap();
    net.address_backend_link(0);
    net.backends[0].address("eth0", "10.0.3.2/24").unwrap();
    net.backends[0].route("default", "10.0.3.1").unwrap();
    wait::until("the interface to be attached", PATIENCE, attached).unwrap();
    wait::until("an answer through it", PATIENCE, || reaches(&net.client, url)).unwrap();
    assert!(!server.requests().is_empty());
}
