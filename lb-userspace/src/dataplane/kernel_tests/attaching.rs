//! Attaching to veths, beside programs of others.

use std::os::fd::{AsFd, OwnedFd};

use lb_common::abi::names;

use super::super::devices::Mode;
use super::super::interfaces::{AttachError, Attached};
use super::super::load::load_pass;
use super::super::offline::Offline;
use super::super::pins::PinsError;
use super::super::{netdev, pass, sys};
use super::{Rig, in_namespace, ip, veth};
use crate::model::AttachMode;

fn programs(index: u32) -> Vec<u32> {
    netdev::device(index).unwrap().unwrap().programs
}

/// Somebody else's program; attached as long as the link is held.
fn foreign(index: u32, mode: u32) -> OwnedFd {
    let ebpf = load_pass().unwrap();
    let fd = ebpf.program(names::PASS).unwrap().fd().unwrap();
    sys::link_create(fd.as_fd(), index, mode).unwrap()
}

#[test]
fn native_generic_twice_and_off() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        let dataplane = rig.opened();
        for (asked, mode) in [
            (AttachMode::Native, Mode::Native),
            (AttachMode::Generic, Mode::Generic),
            (AttachMode::Auto, Mode::Native),
        ] {
            let attached = dataplane.attach(index, "a0", asked).unwrap();
            assert_eq!(attached, Attached { mode, fallback: None, already: false });
            assert_eq!(programs(index).len(), 1);
            assert_eq!(
                dataplane.attach(index, "a0", AttachMode::Auto).unwrap(),
                Attached { mode, fallback: None, already: true }
            );
            let mut interfaces = dataplane.interfaces().unwrap();
            assert_eq!(interfaces.devices().mode(index), Some(mode));
            assert_eq!(interfaces.devices().allowed(), [index]);
            assert_eq!(interfaces.attached().unwrap().attached[0].name, "a0");
            assert!(interfaces.detach(index).unwrap());
            assert!(!interfaces.detach(index).unwrap(), "twice is no error");
            assert!(programs(index).is_empty(), "detached at once");
            assert_eq!((interfaces.devices().mode(index), interfaces.devices().allowed()), (None, vec![]));
        }
    });
}

#[test]
fn another_mode_is_not_taken_silently() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        let dataplane = rig.opened();
        dataplane.attach(index, "a0", AttachMode::Generic).unwrap();
        let error = dataplane.attach(index, "a0", AttachMode::Native).unwrap_err();
        assert!(matches!(error, AttachError::OtherMode { has: Mode::Generic, .. }), "{error}");
    });
}

#[test]
fn auto_falls_back_and_says_why() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        ip("link set a1 mtu 9000");
        let dataplane = rig.opened();
        let error = dataplane.attach(index, "a0", AttachMode::Native).unwrap_err();
        assert!(error.to_string().contains("MTU"), "{error}");
        assert_eq!(dataplane.interfaces().unwrap().devices().mode(index), None);
        let attached = dataplane.attach(index, "a0", AttachMode::Auto).unwrap();
        assert_eq!(attached.mode, Mode::Generic);
        assert!(attached.fallback.unwrap().contains("ip link set dev PEER mtu"));
    });
}

#[test]
fn a_foreign_program_is_named_and_stays() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        let dataplane = rig.opened();
        for mode in [sys::DRIVER_MODE, sys::SKB_MODE] {
            let link = foreign(index, mode);
            let before = programs(index);
            for asked in [AttachMode::Auto, AttachMode::Native, AttachMode::Generic] {
                let error = dataplane.attach(index, "a0", asked).unwrap_err();
                let AttachError::Conflict { program, .. } = &error else { panic!("{error}") };
                assert_eq!(*program, format!("{} (lb_pass)", before[0]));
            }
            assert_eq!(programs(index), before);
            let mut interfaces = dataplane.interfaces().unwrap();
            assert_eq!((interfaces.devices().mode(index), interfaces.devices().allowed()), (None, vec![]));
            sys::link_detach(link.as_fd()).unwrap();
        }
    });
}

#[test]
fn a_deleted_interface_is_told_and_forgotten() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        let dataplane = rig.opened();
        dataplane.attach(index, "a0", AttachMode::Native).unwrap();
        ip("link del a0");
        let mut interfaces = dataplane.interfaces().unwrap();
        let all = interfaces.attached().unwrap();
        assert_eq!(all.attached, []);
        assert_eq!((all.vanished[0].ifindex, all.vanished[0].name.as_str()), (index, "a0"));
        assert_eq!(interfaces.devices().mode(index), None);
        assert_eq!(interfaces.attached().unwrap().vanished, []);
    });
}

#[test]
fn no_such_interface() {
    let rig = Rig::new();
    in_namespace(|| {
        let error = rig.opened().attach(4711, "nope", AttachMode::Auto).unwrap_err();
        assert!(matches!(error, AttachError::NoInterface(_)), "{error}");
    });
}

#[test]
fn traffic_may_leave_where_nothing_is_attached() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        let dataplane = rig.opened();
        let mut interfaces = dataplane.interfaces().unwrap();
        interfaces.allow_egress(index).unwrap();
        assert_eq!((interfaces.devices().allowed(), interfaces.devices().mode(index)), (vec![index], None));
    });
}

#[test]
fn links_outlive_the_agent_and_can_be_detached_without_it() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        let dataplane = rig.opened();
        dataplane.attach(index, "a0", AttachMode::Native).unwrap();
        let offline = Offline::open(rig.pins()).unwrap();
        let error = offline.interfaces().map(drop).unwrap_err();
        assert!(matches!(error, AttachError::Pins(PinsError::Locked(_))), "while an agent runs: {error}");
        drop(dataplane);
        assert_eq!(programs(index).len(), 1);
        let (mut interfaces, _lock) = offline.interfaces().unwrap();
        assert!(interfaces.detach(index).unwrap());
        assert!(programs(index).is_empty());
    });
}

#[test]
fn pass_needs_no_agent() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        let pins = rig.pins();
        assert!(pass::attach(&pins, index, "a0").unwrap());
        assert!(!pass::attach(&pins, index, "a0").unwrap(), "twice changes nothing");
        assert_eq!(pass::attached(&pins).unwrap(), [(index, "a0".to_owned())]);
        assert_eq!(sys::program_name(programs(index)[0]).as_deref(), Some(names::PASS));
        assert!(!rig.options.pins.exists(), "the balancer's pins are not touched");
        assert!(pass::detach(&pins, index).unwrap());
        assert!(!pass::detach(&pins, index).unwrap());
        assert!(programs(index).is_empty());

        let _link = foreign(index, sys::DRIVER_MODE);
        let error = pass::attach(&pins, index, "a0").unwrap_err();
        assert!(matches!(error, AttachError::Conflict { .. }), "{error}");
        assert_eq!(pass::attached(&pins).unwrap(), []);
    });
}

#[test]
fn each_namespace_passes_for_itself() {
    let rig = Rig::new();
    let pins = rig.pins();
    in_namespace(|| {
        let index = veth();
        assert!(pass::attach(&pins, index, "a0").unwrap());
        in_namespace(|| {
            assert_eq!(veth(), index, "indexes start anew in each namespace");
            assert!(pass::attach(&pins, index, "a0").unwrap(), "another interface with the same index");
            assert_eq!(programs(index).len(), 1);
            assert!(pass::detach(&pins, index).unwrap());
        });
        assert_eq!(programs(index).len(), 1, "the first one is as it was");
        assert_eq!(pass::attached(&pins).unwrap().len(), 1);
    });
}

#[test]
fn pins_of_another_namespace_are_not_mistaken_for_ours() {
    let rig = Rig::new();
    let dataplane = rig.opened();
    in_namespace(|| {
        let index = veth();
        dataplane.attach(index, "a0", AttachMode::Native).unwrap();
        in_namespace(|| {
            assert_eq!(veth(), index, "indexes start anew in each namespace");
            let error = dataplane.attach(index, "a0", AttachMode::Auto).unwrap_err();
            assert!(matches!(error, AttachError::OtherNamespace(_)), "{error}");
            assert!(programs(index).is_empty());
        });
        assert_eq!(programs(index).len(), 1);
    });
}

#[test]
fn an_index_that_was_used_before_can_be_attached_again() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        let dataplane = rig.opened();
        dataplane.attach(index, "a0", AttachMode::Native).unwrap();
        ip("link del a0");
        ip(&format!("link add a0 index {index} type veth peer name a1"));
        assert!(!dataplane.attach(index, "a0", AttachMode::Native).unwrap().already);
        assert_eq!(programs(index).len(), 1);
        let all = dataplane.interfaces().unwrap().attached().unwrap();
        assert_eq!((all.attached.len(), all.vanished.len()), (1, 0));
    });
}
