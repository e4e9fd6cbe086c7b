//! The state file and the pins, when somebody has been at them.

use lb_tests::agent::{Balancer, Ran};
use lb_tests::flows::Herd;
use lb_tests::nginx::Nginx;
use lb_tests::require::root;
use lb_tests::routed::Routed;
use lb_tests::topo::{Family, machine};
use std::fs;

/// A balancer that has run and has two services, so that its files have a history.
fn stopped() -> Balancer {
    let mut lb = Balancer::new(machine("lb"));
    lb.start();
    lb.ok(&["service", "add", "one", "tcp://192.0.2.1:80"]);
    lb.ok(&["service", "add", "two", "tcp://192.0.2.2:80"]);
    lb.stop();
    lb
}

#[test]
fn a_broken_state_file_is_kept_and_the_last_good_one_is_used() {
    if !root() {
        return;
    }
    for damage in [&b"{\"version\":"[..], b"", b"\0\0\0\0\0\0\0\0"] {
        let mut lb = stopped();
        let file = lb.state().join("state.json");
        fs::write(&file, damage).unwrap();
        lb.start();
        let status = lb.status();
        assert!(status.services.iter().any(|service| service.name == "one"), "{status:#?}");
        assert!(status.messages.iter().any(|message| message.contains("broken")), "{:?}", status.messages);
        let kept: Vec<_> = fs::read_dir(lb.state())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.display().to_string().contains("state.json.broken-"))
            .collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(fs::read(&kept[0]).unwrap(), damage);
        // All is well from here on.
        lb.ok(&["service", "add", "three", "tcp://192.0.2.3:80"]);
        lb.stop();
        lb.start();
        assert_eq!(lb.status().messages, Vec::<String>::new());
    }
}

#[test]
fn with_no_good_state_nothing_is_touched() {
    if !root() {
        return;
    }
    let mut net = Routed::attached("native");
    let servers: Vec<Nginx> = (0..2)
        .map(|number| {
            let at = Family::V4.socket(Routed::backend(Family::V4, number), 80);
            Nginx::start(&net.backends[number], &format!("b{number}"), &[at])
        })
        .collect();
    net.add_service("web", Family::V4, &[]);
    let mut herd = Herd::open(&net.client, "192.0.2.10:80", 50);
    net.lb.stop();
    for file in ["state.json", "state.json.bak"] {
        fs::write(net.lb.state().join(file), "nonsense").unwrap();
    }
    let ran = Ran::of(&mut net.lb.agent_command());
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("state.json.bak") && ran.stderr.contains("backup"), "{}", ran.stderr);
    herd.assert_whole();
    assert_eq!(Herd::open(&net.client, "192.0.2.10:80", 50).shares().len(), servers.len());
    // The remedy that it names works.
    fs::rename(net.lb.state(), net.lb.state().with_extension("old")).unwrap();
    net.lb.start();
    assert_eq!(net.lb.status().services, []);
}

#[test]
fn pins_of_somebody_else_are_told_and_left() {
    if !root() {
        return;
    }
    let mut lb = stopped();
    let stranger = lb.pins().join("stranger");
    fs::create_dir(&stranger).unwrap();
    lb.start();
    let status = lb.status();
    assert!(status.messages.iter().any(|message| message.contains("stranger")), "{:?}", status.messages);
    assert_eq!(status.services.len(), 2);
    assert!(stranger.exists());
}

#[test]
fn what_was_asked_for_survives_the_machine() {
    if !root() {
        return;
    }
    let mut lb = stopped();
    // A reboot: pins are gone, files are there.
    fs::remove_dir_all(lb.pins()).unwrap();
    lb.start();
    let status = lb.status();
    assert_eq!(status.agent.started, "fresh");
    assert_eq!(
        status.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(),
        ["one", "two"]
    );
}
