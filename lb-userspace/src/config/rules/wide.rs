//! What services that listen on several ports must be: alone, and each together with every other one.

use super::super::convert::Placed;
use super::super::finding::{Findings, Path};
use crate::model::{Listen, Mode, Ports, Service, shown};
use lb_common::abi::ranges::PER_ADDRESS;
use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};

/// Judges one service.
pub(super) fn alone(placed: &Placed, out: &mut Findings) {
    let Placed { service, at, backends } = placed;
    let (name, ports) = (&service.name, service.listen.ports);
    if !ports.is_wide() {
        return;
    }
    if service.mode == Mode::Nat {
        ports_of_backends(placed, out);
    }
    if service.mode == Mode::Nat && ports == Ports::Any {
        out.warn(
            at.key("listen"),
            format!(
                "service {name} listens on every port in mode nat: whatever its backends send through this machine \
                 is taken for a reply, their own connections too"
            ),
            "use mode = \"l2\" or a range of ports, or let backends reach others by another way",
        );
    }
    let untold = service.check.as_ref().is_some_and(|check| check.port.is_none());
    if let Some(backend) = backends.keys().find(|address| untold && address.port() == 0) {
        let port = if ports == Ports::Any { 80 } else { ports.first() };
        out.invalid(
            at.key("check"),
            format!(
                "service {name} listens on ports {ports}: its check does not say which of them to try at backend {}",
                shown(backend)
            ),
            format!("write the port, as in check = \"tcp,port={port}\", or check = \"none\""),
        );
    }
}

/// Each backend must have as many ports as the service, and an address of its own: replies tell no more.
fn ports_of_backends(placed: &Placed, out: &mut Findings) {
    let Placed { service, backends, .. } = placed;
    let (name, ports) = (&service.name, service.listen.ports);
    let mut before: Option<SocketAddr> = None;
    for (address, index) in backends {
        let place = || placed.address_of(*index);
        if ports == Ports::Any && address.port() != 0 {
            out.invalid(
                place(),
                format!("service {name} listens on every port, and backend {address} has one port"),
                format!("write {}: packets keep their ports", address.ip()),
            );
            continue;
        }
        if ports.at_backend(address.port()).is_none() {
            out.invalid(
                place(),
                format!("service {name}: from {address} on there are fewer ports than in {ports}"),
                format!("write {}: packets keep their ports; or a smaller first port", address.ip()),
            );
        }
        // They are in the order of addresses.
        if let Some(other) = before.filter(|other| other.ip() == address.ip()) {
            out.invalid(
                place(),
                format!("service {name}: backends {} and {address} have one address", shown(&other)),
                "keep one of them; a larger share is a larger weight",
            );
        }
        before = Some(*address);
    }
}

/// Judges services in pairs of which one listens on several ports. Each is judged against those before it.
pub(super) fn together(services: &[Placed], out: &mut Findings) {
    let wide = |service: &Service| service.listen.ports.is_wide();
    if !services.iter().any(|placed| wide(&placed.service)) {
        return;
    }
    for (n, placed) in services.iter().enumerate() {
        let (service, place) = (&placed.service, placed.at.key("listen"));
        let before = || services[..n].iter().map(|placed| &placed.service);
        before().filter(|other| wide(service) || wide(other)).for_each(|other| {
            pair(other, service, &place, out);
        });
        if wide(service) {
            too_many(service, before, &place, out);
        }
    }
}

/// Judges a service against others that go together already.
pub(super) fn joining<'a>(
    service: &Service,
    others: impl Iterator<Item = &'a Service> + Clone,
    out: &mut Findings,
) {
    let wide = service.listen.ports.is_wide();
    for other in others.clone().filter(|other| wide || other.listen.ports.is_wide()) {
        pair(other, service, &Path::default(), out);
    }
    if wide {
        too_many(service, || others.clone(), &Path::default(), out);
    }
}

/// Judges two services of which one listens on several ports.
fn pair(one: &Service, other: &Service, place: &Path, out: &mut Findings) {
    let [first, second] = if one.name < other.name { [one, other] } else { [other, one] };
    if first.name == second.name || first.listen.protocol != second.listen.protocol {
        return;
    }
    if let Some(ports) = overlap(first.listen, second.listen) {
        out.conflict(
            place.clone(),
            format!(
                "services {} and {} both listen on {}:{ports} ({} and {})",
                first.name, second.name, first.listen.address, first.listen, second.listen
            ),
            "let ranges not overlap; one port may lie in the range of another service, and comes first",
        );
    }
    for (sender, listener) in [(first, second), (second, first)] {
        comes_back(sender, listener, place, out);
    }
    if (first.mode, second.mode) == (Mode::Nat, Mode::Nat) {
        shared_backends(first, second, place, out);
    }
}

/// Ports that both listen on, none of them before the other. The same listener is refused elsewhere.
fn overlap(one: Listen, other: Listen) -> Option<Ports> {
    let alike = one.address == other.address && one.ports.rank() == other.ports.rank();
    let (first, last) = one.ports.common(other.ports).filter(|_| alike && one.ports != other.ports)?;
    Some(if first == last { Ports::One(first) } else { Ports::Range(first, last) })
}

/// Backends of a service at an address.
fn at(service: &Service, address: IpAddr) -> impl Iterator<Item = SocketAddr> {
    let ends = SocketAddr::new(address, 0)..=SocketAddr::new(address, u16::MAX);
    service.backends.range(ends).map(|(address, _)| *address)
}

/// What a backend gets is not to be what another service listens on.
fn comes_back(sender: &Service, listener: &Service, place: &Path, out: &mut Findings) {
    if sender.mode != Mode::Nat {
        return;
    }
    for backend in at(sender, listener.listen.address) {
        let ports = sender.listen.ports.at_backend(backend.port());
        if ports.is_some_and(|ports| ports.common(listener.listen.ports).is_some()) {
            out.conflict(
                place.clone(),
                format!(
                    "service {}: backend {} is where service {} listens ({}): packets would come back",
                    sender.name,
                    shown(&backend),
                    listener.name,
                    listener.listen
                ),
                format!("write the addresses of the backends of {}", listener.name),
            );
        }
    }
}

/// Replies must tell which service they belong to.
fn shared_backends(first: &Service, second: &Service, place: &Path, out: &mut Findings) {
    // Most services have other networks than most others: those cost nothing.
    let ends = |service: &Service| {
        Some((service.backends.first_key_value()?.0.ip(), service.backends.last_key_value()?.0.ip()))
    };
    let (Some(one), Some(other)) = (ends(first), ends(second)) else { return };
    if one.1 < other.0 || other.1 < one.0 {
        return;
    }
    for here in first.backends.keys() {
        for there in at(second, here.ip()) {
            let Some(port) = ambiguous((first, *here), (second, there)) else { continue };
            out.conflict(
                place.clone(),
                format!(
                    "services {} and {} both send {} to port {port} of backend {}: \
                     its replies could belong to either, which mode nat cannot tell apart in this version",
                    first.name,
                    second.name,
                    first.listen.protocol,
                    here.ip()
                ),
                format!("let the backend listen on other ports for {}, or use mode = \"l2\"", second.name),
            );
        }
    }
}

/// A port from which replies could belong to either service, if there is one.
///
/// Replies are looked for like packets: exact before range before any. So there is none if the more exact of the two
/// listens, at the same address, on all that would make the other one send there.
fn ambiguous(one: (&Service, SocketAddr), other: (&Service, SocketAddr)) -> Option<u16> {
    let ports = |(service, backend): (&Service, SocketAddr)| service.listen.ports.at_backend(backend.port());
    let (here, there) = (ports(one)?, ports(other)?);
    let (first, last) = here.common(there)?;
    let (exact, wide, begin) = match here.rank().cmp(&there.rank()) {
        Ordering::Greater => (one.0.listen, other.0.listen, there.first()),
        Ordering::Less => (other.0.listen, one.0.listen, here.first()),
        Ordering::Equal => return Some(first.max(1)),
    };
    let listens = |port: u16| {
        let port = port - begin + wide.ports.first();
        exact.ports.first() <= port && port <= exact.ports.last()
    };
    let never = exact.address == wide.address && listens(first) && listens(last);
    (!never).then_some(first)
}

/// An address has room for so many ranges: where services listen, and at backends that answer.
fn too_many<'a, I: Iterator<Item = &'a Service>>(
    service: &Service,
    others: impl Fn() -> I,
    place: &Path,
    out: &mut Findings,
) {
    let alike = |other: &&Service| {
        let same = other.listen.protocol == service.listen.protocol && other.name != service.name;
        same && other.listen.ports.is_wide()
    };
    let mut room_for_one = |address: IpAddr, before: usize| {
        if before >= PER_ADDRESS {
            let (name, protocol) = (&service.name, service.listen.protocol);
            out.conflict(
                place.clone(),
                format!(
                    "service {name}: {address} has {PER_ADDRESS} ranges of {protocol} ports already, more have no room"
                ),
                "use another address, or larger ranges",
            );
        }
    };
    let here = service.listen.address;
    room_for_one(here, others().filter(alike).filter(|other| other.listen.address == here).count());
    if service.mode != Mode::Nat {
        return;
    }
    let mut addresses: Vec<IpAddr> = service.backends.keys().map(SocketAddr::ip).collect();
    addresses.dedup();
    for address in addresses {
        let nat = others().filter(alike).filter(|other| other.mode == Mode::Nat);
        let before: usize = nat.map(|other| at(other, address).count()).sum();
        room_for_one(address, before + at(service, address).count() - 1);
    }
}

#[cfg(test)]
#[path = "wide_tests.rs"]
mod tests;
