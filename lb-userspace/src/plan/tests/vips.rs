//! Addresses that answer echo requests.

use super::*;

/// The names of the services that addresses answer for.
fn answering(machine: &Machine) -> Vec<(IpAddr, &str)> {
    let named = |id| machine.ids.iter().find(|(_, known)| **known == id).map_or("", |(name, _)| name);
    machine.tables.vips.iter().map(|entry| (entry.key.addr.into(), named(entry.service))).collect()
}

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

#[test]
fn an_address_answers_while_a_service_there_does() {
    let mut machine = machine();
    let quiet = |name, port| Service { echo: false, ..service(name, port, Mode::Nat) };
    machine.set(service("b", 80, Mode::Nat));
    assert_eq!(answering(&machine), [(VIP, "b")]);
    machine.set(service("a", 81, Mode::L2));
    assert_eq!(answering(&machine), [(VIP, "a")], "the first by name");
    let plan = machine.set(quiet("a", 81));
    assert_eq!(answering(&machine), [(VIP, "b")]);
    assert!(!plan.steps.contains(&Step::Grace), "nobody is waited for: {:?}", plan.steps);
    machine.set(quiet("b", 80));
    assert_eq!(answering(&machine), []);
    let plan = machine.set(service("b", 80, Mode::Nat));
    assert!(matches!(&plan.steps[..], [Step::Vip { service, .. }] if service == "b"), "{:?}", plan.steps);
}

#[test]
fn an_address_goes_with_its_last_service() {
    let mut machine = machine();
    for (name, port) in [("a", 80), ("b", 81)] {
        machine.set(service(name, port, Mode::Nat));
    }
    machine.desired.services.remove("a");
    machine.converge();
    assert_eq!(answering(&machine), [(VIP, "b")]);
    let mut moved = service("b", 81, Mode::Nat);
    moved.listen.address = [192, 0, 2, 2].into();
    machine.set(moved);
    assert_eq!(answering(&machine), [([192, 0, 2, 2].into(), "b")]);
    machine.desired.services.clear();
    let plan = machine.converge();
    assert!(matches!(&plan.steps[0], Step::RemoveVip { service: Some(name), .. } if name == "b"));
    assert_eq!(answering(&machine), []);
}
