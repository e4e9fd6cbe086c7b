//! Every change: done, already so, refused.

use super::*;
use crate::config::{arbitrary, check, export};
use crate::model::Admin;
use proptest::prelude::*;

fn two() -> Desired {
    let text = "
[agent]
interfaces = ['eth0']
[[service]]
name = 'web'
listen = 'tcp://192.0.2.10:443'
[[service.backend]]
address = '10.0.0.1:8443'
[[service.backend]]
address = '10.0.0.2:8443'
[[service.backend]]
address = '10.0.0.2:9443'
[[service]]
name = 'direct'
listen = 'udp://192.0.2.11:53'
mode = 'l2'
[[service.backend]]
address = '10.0.0.3'
";
    check(text, "two").unwrap().desired
}

fn done(desired: &Desired, change: Change) -> Outcome {
    let outcome = apply(desired, change.clone()).unwrap();
    assert!(outcome.changed, "{outcome:?}");
    // What comes out is as valid as a file, and the same change again is already so.
    let text = export(&outcome.desired, None).unwrap();
    assert_eq!(check(&text, "out").unwrap().desired, outcome.desired);
    let json = serde_json::to_string(&change).unwrap();
    assert_eq!(serde_json::from_str::<Change>(&json).unwrap(), change, "{json}");
    outcome
}

fn done_once(desired: &Desired, change: Change) -> Outcome {
    let outcome = done(desired, change.clone());
    let again = apply(&outcome.desired, change).unwrap();
    assert!(!again.changed && again.message.contains("already so"), "{again:?}");
    outcome
}

fn refused(desired: &Desired, change: Change, code: Code, words: &[&str]) {
    let refusal = apply(desired, change).unwrap_err();
    assert_eq!(refusal.code, code, "{refusal:?}");
    let text = format!("{} | {}", refusal.message, refusal.remedy);
    for word in words {
        assert!(text.contains(word), "{text:?} has no {word:?}");
    }
}

fn shape(name: &str, listen: &str) -> file::Service {
    file::Service { name: name.into(), listen: listen.into(), ..file::Service::default() }
}

fn set(name: &str, key: &str, value: &str) -> Change {
    Change::SetService { name: name.into(), set: [(key.to_owned(), value.to_owned())].into() }
}

fn address(service: &str, address: &str) -> (String, String) {
    (service.to_owned(), address.to_owned())
}

fn add_backend(service: &str, address: &str, weight: Option<i64>) -> Change {
    let backend = file::Backend { address: address.into(), weight, draining: None };
    Change::AddBackend { service: service.into(), backend }
}

fn drain(service: &str, backend: &str, until: Option<u64>, remove: bool) -> Change {
    let (service, address) = address(service, backend);
    Change::DrainBackend { service, address, until, remove }
}

#[test]
fn services_come() {
    let desired = two();
    let new = shape("new", "tcp://192.0.2.12:80");
    let outcome = done_once(&desired, Change::AddService { service: new });
    assert!(outcome.message.contains("service new added: tcp://192.0.2.12:80, mode nat, 0 backends"));
    let other = shape("web", "tcp://192.0.2.12:80");
    refused(
        &desired,
        Change::AddService { service: other },
        Code::Conflict,
        &["web exists", "lb service set web"],
    );
    let overlap = shape("new", "tcp://192.0.2.10:443");
    refused(&desired, Change::AddService { service: overlap }, Code::Conflict, &["new and web both listen"]);
    let wrong = shape("n w", "tcp://192.0.2.10");
    refused(&desired, Change::AddService { service: wrong }, Code::Invalid, &["not a name", "no port"]);
    let mut shared = shape("new", "tcp://192.0.2.12:80");
    shared.backend.push(file::Backend { address: "10.0.0.1:8443".into(), ..file::Backend::default() });
    refused(
        &desired,
        Change::AddService { service: shared },
        Code::Conflict,
        &["new", "web", "10.0.0.1:8443"],
    );
}

#[test]
fn services_are_put() {
    let desired = two();
    let mut web = export::service(&desired.services["web"]);
    assert!(!apply(&desired, Change::PutService { service: web.clone() }).unwrap().changed);
    web.backend.pop();
    let outcome = done_once(&desired, Change::PutService { service: web.clone() });
    assert_eq!(outcome.desired.services["web"].backends.len(), 2);
    web.ring_size = Some(251);
    refused(
        &desired,
        Change::PutService { service: web },
        Code::Conflict,
        &["ring-size", "flows would move", "remove"],
    );
}

#[test]
fn services_are_set() {
    let desired = two();
    for (key, value) in [
        ("listen", "tcp://192.0.2.10:444"),
        ("on-down", "keep"),
        ("announce", "none"),
        ("idle-timeout", "20m"),
        ("tracking", "always"),
        ("check", "http:/healthz,interval=5s"),
    ] {
        let outcome = done_once(&desired, set("web", key, value));
        assert!(outcome.message.contains(key), "{outcome:?}");
    }
    assert!(!apply(&desired, set("web", "ring-size", "16381")).unwrap().changed);
    assert!(!apply(&desired, set("web", "check", "none")).unwrap().changed);
    let checked = done(&desired, set("web", "check", "tcp")).desired;
    assert_eq!(done(&checked, set("web", "check", "none")).desired, desired);
    refused(&desired, set("web", "ring-size", "509"), Code::Conflict, &["ring-size"]);
    refused(&desired, set("web", "ring-size", "many"), Code::Invalid, &["not a number"]);
    assert!(!apply(&desired, set("web", "echo", "true")).unwrap().changed, "as it is unless it is said");
    assert!(!apply(&desired, set("web", "echo", "false")).unwrap().desired.services["web"].echo);
    refused(&desired, set("web", "echo", "no"), Code::Invalid, &["neither true nor false"]);
    refused(&desired, set("web", "mode", "l2"), Code::Invalid, &["another port"]);
    refused(&desired, set("web", "mode", "snat"), Code::Invalid, &["not available in this version"]);
    refused(&desired, set("web", "name", "x"), Code::Invalid, &["cannot change its name"]);
    refused(&desired, set("web", "idletimeout", "1s"), Code::Invalid, &["did you mean \"idle-timeout\""]);
    refused(&desired, set("wbe", "mode", "nat"), Code::NotFound, &["did you mean \"web\""]);
    refused(
        &desired,
        set("web", "listen", "tcp://[2001:db8::1]:80"),
        Code::Invalid,
        &["is IPv4, the service is IPv6"],
    );
}

#[test]
fn a_direct_services_backends_follow_its_port() {
    let desired = done_once(&two(), set("direct", "listen", "udp://192.0.2.11:54")).desired;
    assert!(desired.services["direct"].backends.contains_key(&"10.0.0.3:54".parse().unwrap()));
    // Not if it stops being direct with the same change.
    let both =
        [("listen", "udp://192.0.2.11:54"), ("mode", "nat")].map(|(key, value)| (key.into(), value.into()));
    let change = Change::SetService { name: "direct".into(), set: both.into() };
    let desired = done_once(&two(), change).desired;
    assert!(desired.services["direct"].backends.contains_key(&"10.0.0.3:53".parse().unwrap()));
}

#[test]
fn another_protocol_has_its_own_idle_timeout() {
    let desired = done_once(&two(), set("web", "listen", "udp://192.0.2.10:443")).desired;
    assert_eq!(desired.services["web"].idle_timeout.as_secs(), 30);
}

#[test]
fn services_go() {
    let desired = two();
    let outcome = done(&desired, Change::RemoveService { name: "web".into() });
    assert_eq!(outcome.message, "service web removed, and its 3 backends");
    refused(
        &outcome.desired,
        Change::RemoveService { name: "web".into() },
        Code::NotFound,
        &["lb service list"],
    );
}

#[test]
fn backends_come() {
    let desired = two();
    let outcome = done_once(&desired, add_backend("web", "10.0.0.9", None));
    assert_eq!(outcome.message, "backend 10.0.0.9:443 added to service web, weight 100");
    refused(
        &desired,
        add_backend("web", "10.0.0.1:8443", Some(5)),
        Code::Conflict,
        &["exists", "--weight 5"],
    );
    let draining = done_once(&desired, drain("web", "10.0.0.1:8443", None, false)).desired;
    refused(
        &draining,
        add_backend("web", "10.0.0.1:8443", None),
        Code::Conflict,
        &["lb backend undrain web"],
    );
    refused(&desired, add_backend("web", "2001:db8::1", None), Code::Invalid, &["is IPv6"]);
    refused(&desired, add_backend("direct", "10.0.0.4:54", None), Code::Invalid, &["another port"]);
    refused(&desired, add_backend("nope", "10.0.0.1", None), Code::NotFound, &["no service"]);
    refused(
        &desired,
        add_backend("web", "10.0.0.9", Some(70_000)),
        Code::Invalid,
        &["weight 70000", "65535"],
    );
}

#[test]
fn weights_change() {
    let desired = two();
    let weight =
        |address: &str, weight| Change::SetBackend { service: "web".into(), address: address.into(), weight };
    let outcome = done_once(&desired, weight("10.0.0.1", 7));
    assert_eq!(outcome.message, "backend 10.0.0.1:8443 of service web has weight 7");
    refused(&desired, weight("10.0.0.1", -1), Code::Invalid, &["weight -1"]);
    refused(&desired, weight("10.0.0.2", 1), Code::Conflict, &["10.0.0.2:8443, 10.0.0.2:9443"]);
    refused(&desired, weight("10.0.0.1:8444", 1), Code::NotFound, &["lb backend list web"]);
    // A draining backend stays so.
    let draining = done_once(&desired, drain("web", "10.0.0.1", Some(9), true)).desired;
    let after = done_once(&draining, weight("10.0.0.1", 7)).desired;
    let backend = &after.services["web"].backends[&"10.0.0.1:8443".parse().unwrap()];
    assert_eq!(backend.admin, Admin::Draining { until: Some(9), remove: true });
}

#[test]
fn backends_drain_and_go() {
    let desired = two();
    let draining = done_once(&desired, drain("direct", "10.0.0.3", Some(1_900_000_000), false));
    assert!(draining.warnings[0].contains("no backend left"), "{draining:?}");
    // Another deadline is another drain.
    done_once(&draining.desired, drain("direct", "10.0.0.3", None, true));
    let (service, address) = address("direct", "10.0.0.3");
    let undrain = Change::UndrainBackend { service: service.clone(), address: address.clone() };
    assert_eq!(done_once(&draining.desired, undrain).desired, desired);
    let outcome =
        done(&desired, Change::RemoveBackend { service: service.clone(), address: address.clone() });
    assert!(outcome.warnings[0].contains("no backend left"));
    refused(
        &outcome.desired,
        Change::RemoveBackend { service, address },
        Code::NotFound,
        &["no backend 10.0.0.3"],
    );
    refused(&desired, drain("web", "10.0.0.1", Some(u64::MAX), false), Code::Invalid, &["too far"]);
}

#[test]
fn interfaces() {
    let desired = two();
    let attach = |interface: &str, mode| Change::Attach { interface: interface.into(), mode };
    done_once(&desired, attach("eth1", AttachMode::Native));
    done_once(&desired, attach("eth0", AttachMode::Generic));
    refused(&desired, attach("eth/0", AttachMode::Auto), Code::Invalid, &["not the name"]);
    let detach = |interface: &str| Change::Detach { interface: interface.into() };
    done(&desired, detach("eth0"));
    refused(&desired, detach("eth1"), Code::NotFound, &["attached: eth0"]);
    done_once(&desired, Change::DetachAll);
}

#[test]
fn a_file_replaces_everything_but_unsaid_interfaces() {
    let desired = two();
    let mut file = export::to_shape(&desired, None);
    assert!(!apply(&desired, Change::Apply { file: file.clone() }).unwrap().changed);
    file.agent.interfaces = None;
    file.service.remove(0);
    file.service.push(shape("new", "tcp://192.0.2.12:80"));
    file.service[0].announce = Some("none".into());
    let outcome = done_once(&desired, Change::Apply { file: file.clone() });
    assert_eq!(outcome.message, "1 service added, 1 changed, 1 removed");
    assert_eq!(outcome.desired.interfaces, desired.interfaces);
    file.agent.interfaces = Some(Vec::new());
    assert!(done_once(&desired, Change::Apply { file: file.clone() }).desired.interfaces.is_empty());
    file.service[0].ring_size = Some(251);
    refused(&desired, Change::Apply { file }, Code::Conflict, &["ring-size"]);
}

proptest! {
    /// Any configuration is reached from any other, one service at a time or at once, unless something would move.
    #[test]
    fn changes_lead_to_what_is_asked_for(before in arbitrary::desired(), after in arbitrary::desired()) {
        let file = export::to_shape(&after, None);
        match apply(&before, Change::Apply { file }) {
            Ok(outcome) => prop_assert_eq!(outcome.desired.services, after.services.clone()),
            Err(refusal) => prop_assert!(refusal.message.contains("ring-size"), "{}", refusal),
        }
        let mut desired = Desired::default();
        for service in after.services.values() {
            desired = apply(&desired, Change::AddService { service: export::service(service) }).unwrap().desired;
        }
        prop_assert_eq!(&desired.services, &after.services);
        for name in after.services.keys() {
            desired = apply(&desired, Change::RemoveService { name: name.clone() }).unwrap().desired;
        }
        prop_assert_eq!(desired, Desired::default());
    }
}
