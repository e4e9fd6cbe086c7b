//! What a service must be as a whole, and what services must be together.
//!
//! On the model, so that a file, a body and a single change are judged alike.

use super::convert::Placed;
use super::finding::Findings;
use super::finding::Path;
use crate::model::{EncapChecksum, Listen, Mode, Protocol, Service, shown};
use lb_common::abi::limits::BACKENDS_PER_SERVICE;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

mod wide;

/// Slots a backend should have, so that shares are even to about 1 % (Maglev, NSDI 2016, section 5.3).
const SLOTS_PER_BACKEND: usize = 100;

/// Judges one service as a whole.
pub(super) fn alone(placed: &Placed, out: &mut Findings) {
    let Placed { service, at, backends } = placed;
    let name = &service.name;
    let vip = service.listen.address;
    for (address, index) in backends {
        let place = || placed.address_of(*index);
        if address.is_ipv4() != vip.is_ipv4() && !service.mode.encapsulates() {
            let (want, is) = if vip.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            out.invalid(
                place(),
                format!(
                    "service {name}: backend {} is {is}, the service is {want}; {} cannot translate",
                    shown(address),
                    service.mode
                ),
                format!("write the backend's {want} address, or make another service for {is} clients"),
            );
            continue;
        }
        if address.ip() == vip {
            out.invalid(
                place(),
                format!("service {name}: backend {} is the service's own address", shown(address)),
                "write the address of the machine that serves",
            );
            continue;
        }
        if service.mode.keeps_destination() && address.port() != service.listen.ports.backend_port() {
            out.invalid(
                place(),
                format!(
                    "service {name}: backend {} has another port than the service ({}); mode {} changes no ports",
                    shown(address),
                    service.listen.ports,
                    service.mode
                ),
                format!("write {}, or mode = \"nat\"", address.ip()),
            );
        }
        if address.ip().is_loopback() {
            out.warn(
                place(),
                format!(
                    "service {name}: backend {} is a loopback address: no packet can be sent there",
                    shown(address)
                ),
                "write the address of the machine that serves",
            );
        }
    }
    if service.encap_checksum == EncapChecksum::Udp && service.mode != Mode::Gue {
        out.warn(
            at.key("encap-checksum"),
            format!(
                "service {name}: mode {} has no outer UDP header, encap-checksum says nothing",
                service.mode
            ),
            "write mode = \"gue\", or leave encap-checksum out",
        );
    }
    wide::alone(placed, out);
    let limit = BACKENDS_PER_SERVICE as usize;
    let count = service.backends.len();
    if count > limit {
        out.invalid(
            at.key("backend"),
            format!("service {name}: {count} backends are too many"),
            format!("write at most {limit}, and more services for more"),
        );
    } else if count * SLOTS_PER_BACKEND > service.ring_size as usize {
        let larger =
            lb_common::maglev::SIZES.into_iter().find(|size| *size as usize >= count * SLOTS_PER_BACKEND);
        out.warn(
            at.key("ring-size"),
            format!("service {name}: {count} backends share a ring of {} slots unevenly", service.ring_size),
            match larger {
                Some(size) => format!("write ring-size = {size}"),
                None => "split the service; larger rings are not available".to_owned(),
            },
        );
    }
}

/// Judges services together. Each is judged against those before it.
pub(super) fn together(services: &[Placed], out: &mut Findings) {
    let mut names = HashSet::new();
    let mut listeners: HashMap<Listen, &str> = HashMap::new();
    let mut endpoints: HashMap<(SocketAddr, Protocol), &str> = HashMap::new();
    let vips: HashMap<(SocketAddr, Protocol), &str> = services
        .iter()
        .filter_map(|Placed { service, .. }| {
            Some(((service.listen.socket()?, service.listen.protocol), service.name.as_str()))
        })
        .collect();
    for placed in services {
        let Placed { service, at, backends } = placed;
        let name = service.name.as_str();
        if !names.insert(name) {
            out.conflict(
                at.key("name"),
                format!("service {name} is written twice"),
                "remove one of them, or give it another name",
            );
            continue;
        }
        let listen = service.listen;
        if let Some(other) = listeners.insert(listen, name) {
            same_listener(other, name, listen, at.key("listen"), out);
        }
        if service.mode != Mode::Nat || listen.ports.is_wide() {
            continue;
        }
        for (address, index) in backends {
            let place = || placed.address_of(*index);
            if let Some(other) = vips.get(&(*address, listen.protocol)) {
                comes_back(name, *address, other, place(), out);
            }
            if let Some(other) = endpoints.insert((*address, listen.protocol), name) {
                shared_backend(other, name, (*address, listen.protocol), place(), out);
            }
        }
    }
    wide::together(services, out);
}

/// Judges a service against others that go together already: finds what [`together`] finds in all of them, and looks
/// only at what concerns the one.
pub(super) fn joining<'a>(
    service: &Service,
    others: impl Iterator<Item = &'a Service> + Clone,
    out: &mut Findings,
) {
    let listen = service.listen;
    for other in others.clone() {
        let [first, second] = if other.name < service.name { [other, service] } else { [service, other] }
            .map(|s| s.name.as_str());
        if other.listen == listen {
            same_listener(first, second, listen, Path::default(), out);
        }
        let wide = listen.ports.is_wide() || other.listen.ports.is_wide();
        if other.listen.protocol != listen.protocol || wide {
            continue;
        }
        for (sender, listener) in [(service, other), (other, service)] {
            let Some(address) = listener.listen.socket() else { continue };
            if sender.mode == Mode::Nat && sender.backends.contains_key(&address) {
                comes_back(&sender.name, address, &listener.name, Path::default(), out);
            }
        }
        if (service.mode, other.mode) == (Mode::Nat, Mode::Nat) {
            for address in common(service, other) {
                shared_backend(first, second, (address, listen.protocol), Path::default(), out);
            }
        }
    }
    wide::joining(service, others, out);
}

/// Backends of both services. Most services have other networks than most others: those cost nothing.
fn common(one: &Service, other: &Service) -> impl Iterator<Item = SocketAddr> {
    let ends = |service: &Service| {
        Some((*service.backends.first_key_value()?.0, *service.backends.last_key_value()?.0))
    };
    let apart = match (ends(one), ends(other)) {
        (Some(one), Some(other)) => one.1 < other.0 || other.1 < one.0,
        _ => true,
    };
    let looked_at = if apart { None } else { Some(one.backends.keys()) };
    looked_at.into_iter().flatten().filter(|address| other.backends.contains_key(address)).copied()
}

fn same_listener(first: &str, second: &str, listen: Listen, place: Path, out: &mut Findings) {
    out.conflict(
        place,
        format!("services {first} and {second} both listen on {listen}"),
        "give one of them another address or port, or put the backends into one service",
    );
}

fn comes_back(sender: &str, backend: SocketAddr, listener: &str, place: Path, out: &mut Findings) {
    out.conflict(
        place,
        format!(
            "service {sender}: backend {backend} is where service {listener} listens: packets would come back"
        ),
        format!("write the addresses of the backends of {listener}"),
    );
}

fn shared_backend(
    first: &str,
    second: &str,
    (backend, protocol): (SocketAddr, Protocol),
    place: Path,
    out: &mut Findings,
) {
    out.conflict(
        place,
        format!(
            "services {first} and {second} both send {protocol} to backend {backend}: \
             its replies could belong to either, which mode nat cannot tell apart in this version"
        ),
        format!("let the backend listen on another port for {second}, or use mode = \"l2\""),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::arbitrary::desired;
    use crate::model::Backend;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn place(service: &Service) -> Placed {
        let backends: BTreeMap<_, _> = service.backends.keys().copied().zip(0..).collect();
        Placed { service: service.clone(), at: Path::default(), backends }
    }

    fn messages(judge: impl FnOnce(&mut Findings)) -> Vec<String> {
        let mut out = Findings::default();
        judge(&mut out);
        let mut messages: Vec<_> =
            out.0.into_iter().map(|finding| finding.message + &finding.remedy).collect();
        messages.sort();
        messages
    }

    proptest! {
        /// Whatever a service takes from the others: one look at it finds what a look at all pairs finds.
        #[test]
        fn joining_finds_what_all_pairs_show(desired in desired(), listener: bool, backends: bool, into: bool) {
            let mut names = desired.services.keys();
            let (Some(one), Some(two)) = (names.next(), names.next()) else { return Ok(()) };
            let [one, two] = if into { [one, two] } else { [two, one] };
            let mut service = Service::clone(&desired.services[one]);
            let other = &desired.services[two];
            if listener {
                service.listen = other.listen;
            }
            if backends {
                service.backends.extend(other.backends.clone());
            }
            // With the same listener it would be the service's own address, which is refused before.
            if backends && !listener {
                let address = SocketAddr::new(other.listen.address, other.listen.ports.backend_port());
                service.backends.insert(address, Backend::new(address, 1));
            }
            let mut all = desired.clone();
            all.put(service.clone());
            let placed: Vec<_> = all.services.values().map(|service| place(service)).collect();
            let others = desired.services.values().map(AsRef::as_ref).filter(|s: &&Service| s.name != service.name);
            let found = messages(|out| joining(&service, others, out));
            prop_assert_eq!(found, messages(|out| together(&placed, out)));
        }
    }
}
