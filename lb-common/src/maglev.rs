//! Which backend a slot belongs to: weighted Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! Each backend has a permutation of the slots, made from its address alone. Backends take turns, in proportion to
//! their weights, and each takes the first slot of its permutation that is still free. The ring depends only on the
//! seed and on the set of (address, weight): not on order, local numbers or history, so that balancers that were
//! configured alike agree without talking.

use crate::addr::Addr;
use crate::hash;

/// Sizes that a ring may have: primes, so that every permutation visits every slot.
pub const SIZES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_537, 131_071];
/// The size of a ring unless the operator says otherwise: shares within 1 % for 160 backends.
pub const DEFAULT_SIZE: u32 = 16_381;
/// A slot without a backend.
pub const NONE: u16 = crate::slot::NONE;

/// A backend that wants slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its address.
    pub addr: Addr,
    /// Its port, host order.
    pub port: u16,
    /// Its share, at least 1.
    pub weight: u32,
}

/// Room for one backend while a ring is made. Callers give as many as they have backends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    place: u64,
    index: u16,
    next: u32,
    skip: u32,
    weight: u32,
    credit: u64,
}

/// Fills `ring` with indexes into `nodes`; without nodes, with [`NONE`].
///
/// `ring.len()` must be one of [`SIZES`] and `turns.len()` at least `nodes.len()`, which is at most
/// [`crate::abi::limits::BACKENDS_PER_SERVICE`]. Takes O(slots × log slots) steps for similar weights.
pub fn build(nodes: &[Node], seed: u64, ring: &mut [u16], turns: &mut [Turn]) {
    ring.fill(NONE);
    let size = ring.len() as u32;
    let turns = &mut turns[..nodes.len()];
    for (index, (turn, node)) in turns.iter_mut().zip(nodes).enumerate() {
        *turn = first_turn(node, index as u16, seed, size);
    }
    // Two nodes with one 64-bit hash would be the same node; addresses decide even then.
    turns.sort_unstable_by_key(|t| {
        (t.place, nodes[t.index as usize].addr.halves().map(u64::from_be), nodes[t.index as usize].port)
    });
    let Some(most) = turns.iter().map(|t| t.weight).max().filter(|most| *most > 0) else { return };
    let mut free = size;
    // Half a turn in advance: shares are rounded to the nearest, not down in favour of the heaviest.
    for turn in turns.iter_mut() {
        turn.credit = most as u64 / 2;
    }
    loop {
        for turn in turns.iter_mut() {
            turn.credit += turn.weight as u64;
            if turn.credit < most as u64 {
                continue;
            }
            turn.credit -= most as u64;
            // `next` walks the permutation; a free slot exists as long as `free > 0`.
            while ring[turn.next as usize] != NONE {
                turn.next = step(turn.next, turn.skip, size);
            }
            ring[turn.next as usize] = turn.index;
            free -= 1;
            if free == 0 {
                return;
            }
        }
    }
}

/// Start and stride of a backend's permutation: `offset` and `skip` of the paper.
fn first_turn(node: &Node, index: u16, seed: u64, size: u32) -> Turn {
    let addr: [u8; 16] = zerocopy::transmute!(node.addr);
    let parts: [&[u8]; 2] = [&addr, &node.port.to_be_bytes()];
    let place = hash::bytes(&parts, seed);
    let stride = hash::bytes(&parts, seed ^ 0x5bd1_e995_0000_0000);
    Turn {
        place,
        index,
        next: (place % size as u64) as u32,
        skip: (stride % (size as u64 - 1)) as u32 + 1,
        weight: node.weight,
        credit: 0,
    }
}

#[inline(always)]
const fn step(at: u32, skip: u32, size: u32) -> u32 {
    let next = at + skip;
    if next >= size { next - size } else { next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn node(n: u32, weight: u32) -> Node {
        Node { addr: Addr::from(IpAddr::from((0x0a00_0000 + n).to_be_bytes())), port: 80, weight }
    }

    fn ring(nodes: &[Node], size: u32) -> Vec<u16> {
        let mut ring = vec![0; size as usize];
        build(nodes, 7, &mut ring, &mut vec![Turn::default(); nodes.len()]);
        ring
    }

    fn shares(ring: &[u16], nodes: usize) -> Vec<u32> {
        let mut shares = vec![0; nodes];
        for index in ring {
            shares[*index as usize] += 1;
        }
        shares
    }

    #[test]
    fn sizes_are_primes() {
        for size in SIZES {
            assert!((2..size).take_while(|d| d * d <= size).all(|d| size % d != 0), "{size}");
        }
    }

    #[test]
    fn no_backend_no_slot() {
        assert!(ring(&[], 251).iter().all(|s| *s == NONE));
        assert!(ring(&[node(1, 0)], 251).iter().all(|s| *s == NONE));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Every share is within two slots of what the weights say, and what rounding the others leaves to it.
        #[test]
        fn shares_follow_weights(weights in proptest::collection::vec(1_u32..200, 1..40)) {
            let nodes: Vec<Node> = weights.iter().enumerate().map(|(n, w)| node(n as u32, *w)).collect();
            let total: u32 = weights.iter().sum();
            let size = 4093;
            for (share, weight) in shares(&ring(&nodes, size), nodes.len()).iter().zip(&weights) {
                let expected = size as f64 * *weight as f64 / total as f64;
                let others = nodes.len() as f64 / 2.0 * *weight as f64 / total as f64;
                prop_assert!((*share as f64 - expected).abs() <= 2.0 + others, "share {share}, expected {expected}");
            }
        }

        /// The order in which backends are given does not matter.
        #[test]
        fn order_does_not_matter(weights in proptest::collection::vec(1_u32..100, 2..30), turn in 1_usize..29) {
            let nodes: Vec<Node> = weights.iter().enumerate().map(|(n, w)| node(n as u32, *w)).collect();
            let mut turned = nodes.clone();
            turned.rotate_left(turn % nodes.len());
            turned.swap(0, nodes.len() / 2);
            let by_addr = |nodes: &[Node]| ring(nodes, 1021).iter().map(|i| nodes[*i as usize].addr).collect::<Vec<_>>();
            prop_assert_eq!(by_addr(&nodes), by_addr(&turned));
        }

        /// One of N leaving moves its own slots, and few of the others': the paper's section 5.3 measures 1 to 2 % for
        /// rings 100 times as large as the set; the bound here leaves room for small sets.
        #[test]
        fn a_leaver_moves_little_else(count in 3_usize..60, leaver in any::<proptest::sample::Index>()) {
            let nodes: Vec<Node> = (0..count as u32).map(|n| node(n, 1)).collect();
            let leaver = leaver.index(count);
            let mut rest = nodes.clone();
            rest.remove(leaver);
            let size = 16_381;
            let before = ring(&nodes, size);
            let after = ring(&rest, size);
            let moved = before.iter().zip(&after).filter(|(b, a)| {
                **b as usize != leaver && nodes[**b as usize].addr != rest[**a as usize].addr
            }).count();
            prop_assert!(moved < size as usize * 4 / 100, "{moved} of {size} slots moved without need");
        }
    }
}
