//! Who should hold which slot, computed once for each set of backends.

use crate::model::Service;
use lb_common::maglev::{self, Node, Turn};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Rings by service: what was computed last, and for whom.
#[derive(Clone, Default)]
pub struct RingCache {
    rings: BTreeMap<String, Ring>,
}

/// A ring, as positions in its list of backends.
#[derive(Clone)]
pub(super) struct Ring {
    seed: u64,
    /// The backends, sorted by address.
    pub(super) nodes: Vec<(SocketAddr, u32)>,
    /// For each slot a position in `nodes`, or [`maglev::NONE`].
    pub(super) slots: Vec<u16>,
}

impl RingCache {
    /// Forgets the rings of services that are gone.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.rings.retain(|name, _| keep(name));
    }

    /// The ring of a service for a set of backends and weights, sorted by address, and whether it was made just now.
    pub(super) fn get(
        &mut self,
        service: &Service,
        seed: u64,
        nodes: Vec<(SocketAddr, u32)>,
    ) -> (&Ring, bool) {
        let same = |ring: &Ring| {
            ring.seed == seed && ring.nodes == nodes && ring.slots.len() == service.ring_size as usize
        };
        let known = self.rings.get(&service.name).is_some_and(same);
        if !known {
            let ring = build(service.ring_size, seed, nodes);
            self.rings.insert(service.name.clone(), ring);
        }
        (&self.rings[&service.name], !known)
    }

    /// The share of the ring that each backend holds and should hold, once the ring was computed.
    pub fn shares(&self, service: &str) -> BTreeMap<SocketAddr, Share> {
        let Some(ring) = self.rings.get(service) else { return BTreeMap::new() };
        let mut held = vec![0_u32; ring.nodes.len()];
        for position in ring.slots.iter().filter(|p| **p != maglev::NONE) {
            held[*position as usize] += 1;
        }
        let total: u64 = ring.nodes.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        ring.nodes
            .iter()
            .zip(held)
            .map(|((addr, weight), held)| {
                let expected = share(f64::from(*weight), total as f64);
                (*addr, Share { expected, actual: share(f64::from(held), ring.slots.len() as f64) })
            })
            .collect()
    }
}

/// What part of new flows a backend gets, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// By its weight.
    pub expected: f64,
    /// By the ring.
    pub actual: f64,
}

fn build(size: u32, seed: u64, nodes: Vec<(SocketAddr, u32)>) -> Ring {
    let weighted: Vec<Node> = nodes
        .iter()
        .map(|(addr, weight)| Node { addr: addr.ip().into(), port: addr.port(), weight: *weight })
        .collect();
    let mut slots = vec![maglev::NONE; size as usize];
    maglev::build(&weighted, seed, &mut slots, &mut vec![Turn::default(); weighted.len()]);
    Ring { seed, nodes, slots }
}
