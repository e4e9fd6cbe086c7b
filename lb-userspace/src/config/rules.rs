//! What a service must be as a whole, and what services must be together.
//!
//! On the model, so that a file, a body and a single change are judged alike.

use super::convert::Placed;
use super::finding::Findings;
use crate::model::{Listen, Mode, Protocol};
use lb_common::abi::limits::BACKENDS_PER_SERVICE;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

/// Slots a backend should have, so that shares are even to about 1 % (Maglev, NSDI 2016, section 5.3).
const SLOTS_PER_BACKEND: usize = 100;

/// Judges one service as a whole.
pub(super) fn alone(placed: &Placed, out: &mut Findings) {
    let Placed { service, at, backends } = placed;
    let name = &service.name;
    let vip = service.listen.address;
    for (address, place) in backends {
        let place = place.key("address");
        if address.is_ipv4() != vip.is_ipv4() {
            let (want, is) = if vip.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            out.invalid(
                place,
                format!(
                    "service {name}: backend {address} is {is}, the service is {want}; {} cannot translate",
                    service.mode
                ),
                format!("write the backend's {want} address, or make another service for {is} clients"),
            );
            continue;
        }
        if address.ip() == vip {
            out.invalid(
                place,
                format!("service {name}: backend {address} is the service's own address"),
                "write the address of the machine that serves",
            );
            continue;
        }
        if service.mode == Mode::L2 && address.port() != service.listen.port {
            out.invalid(
                place.clone(),
                format!(
                    "service {name}: backend {address} has another port than the service ({}); mode l2 changes no ports",
                    service.listen.port
                ),
                format!("write {}, or mode = \"nat\"", address.ip()),
            );
        }
        if address.ip().is_loopback() {
            out.warn(
                place.clone(),
                format!(
                    "service {name}: backend {address} is a loopback address: no packet can be sent there"
                ),
                "write the address of the machine that serves",
            );
        }
    }
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
        .map(|Placed { service, .. }| {
            ((service.listen.socket(), service.listen.protocol), service.name.as_str())
        })
        .collect();
    for Placed { service, at, backends } in services {
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
            out.conflict(
                at.key("listen"),
                format!("services {other} and {name} both listen on {listen}"),
                "give one of them another address or port, or put the backends into one service",
            );
        }
        if service.mode != Mode::Nat {
            continue;
        }
        for (address, place) in backends {
            if let Some(other) = vips.get(&(*address, listen.protocol)) {
                out.conflict(
                    place.key("address"),
                    format!("service {name}: backend {address} is where service {other} listens: packets would come back"),
                    format!("write the addresses of the backends of {other}"),
                );
            }
            if let Some(other) = endpoints.insert((*address, listen.protocol), name) {
                out.conflict(
                    place.key("address"),
                    format!(
                        "services {other} and {name} both send {} to backend {address}: \
                         its replies could belong to either, which mode nat cannot tell apart in this version",
                        listen.protocol
                    ),
                    format!("let the backend listen on another port for {name}, or use mode = \"l2\""),
                );
            }
        }
    }
}
