//! Two-choice tables: a key lives in one of two places, so a reader looks twice at most.
//!
//! The kernel only looks; the agent inserts. An insertion may have to move other keys to their second place (cuckoo
//! hashing, Pagh and Rodler 2001). It is planned first and carried out from its far end, each key copied before it is
//! overwritten, so that a reader finds every key at every moment, for an instant twice, never not at all.

use crate::abi::Key;

/// Longest chain of moves that an insertion may cause. At two fifths full chains are short and
/// a place is found all but surely (cuckoo graphs with fewer than half as many edges as nodes).
pub const MAX_MOVES: usize = 32;

/// The two places of a key in a table whose size is `mask + 1`, a power of two.
#[inline(always)]
pub fn places(key: &Key, mask: u32) -> [u32; 2] {
    let pair = |low: u32, high: u32| low as u64 | (high as u64) << 32;
    let a = &key.addr.0;
    // For IPv4 the first three words are constants, and so is what they contribute.
    let mut hash = pair(a[0], a[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ pair(a[2], 0).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    hash ^= pair(a[3], key.tag);
    hash = (hash ^ hash >> 32).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 29).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    [(hash >> 40) as u32 & mask, (hash >> 12) as u32 & mask]
}

/// The steps of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insertion {
    moves: [u32; MAX_MOVES + 1],
    len: usize,
}

impl Insertion {
    /// Where the new key goes once the moves are done.
    pub fn place(&self) -> u32 {
        self.moves[0]
    }

    /// Pairs (from, to) in the order in which they must be copied.
    pub fn moves(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (1..self.len).rev().map(|n| (self.moves[n - 1], self.moves[n]))
    }
}

/// Plans the insertion of a key that is not in the table. `None`: the table is too full.
///
/// `at` reads the key at a place, `None` when it is empty.
pub fn insert(key: &Key, mask: u32, at: impl Fn(u32) -> Option<Key>) -> Option<Insertion> {
    let [first, second] = places(key, mask);
    for place in [first, second] {
        if at(place).is_none() {
            return Some(Insertion { moves: [place; MAX_MOVES + 1], len: 1 });
        }
    }
    [first, second].into_iter().find_map(|start| chain(start, mask, &at))
}

/// Follows the second places of occupants until one is empty.
fn chain(start: u32, mask: u32, at: &impl Fn(u32) -> Option<Key>) -> Option<Insertion> {
    let mut plan = Insertion { moves: [start; MAX_MOVES + 1], len: 1 };
    let mut place = start;
    while plan.len <= MAX_MOVES {
        let Some(occupant) = at(place) else { return Some(plan) };
        let [first, second] = places(&occupant, mask);
        place = if place == first { second } else { first };
        if plan.moves[..plan.len].contains(&place) {
            return None;
        }
        plan.moves[plan.len] = place;
        plan.len += 1;
        if at(place).is_none() {
            return Some(plan);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec;
    use std::vec::Vec;

    struct Table {
        entries: Vec<Option<Key>>,
        mask: u32,
    }

    impl Table {
        fn find(&self, key: &Key) -> bool {
            places(key, self.mask).iter().any(|p| self.entries[*p as usize] == Some(*key))
        }

        /// Carries an insertion out, checking at every step that nothing is missing.
        fn insert(&mut self, key: Key, present: &BTreeSet<(u32, u32)>) -> bool {
            let Some(plan) = insert(&key, self.mask, |p| self.entries[p as usize]) else { return false };
            for (from, to) in plan.moves() {
                self.entries[to as usize] = self.entries[from as usize];
                for (word, tag) in present {
                    assert!(self.find(&Key { addr: Addr::v4(*word), tag: *tag }));
                }
            }
            self.entries[plan.place() as usize] = Some(key);
            true
        }
    }

    proptest! {
        #[test]
        fn keys_stay_findable_through_every_insertion(keys in proptest::collection::btree_set((any::<u32>(), 1_u32..), 1..120)) {
            let mut table = Table { entries: vec![None; 256], mask: 255 };
            let mut present = BTreeSet::new();
            for (word, tag) in keys {
                let key = Key { addr: Addr::v4(word), tag };
                if table.insert(key, &present) {
                    present.insert((word, tag));
                }
                for (word, tag) in &present {
                    let key = Key { addr: Addr::v4(*word), tag: *tag };
                    prop_assert!(table.find(&key));
                }
            }
        }
    }

    /// What the sizes in `limits` rely on: consecutive addresses and ports, as people choose them, fill two fifths.
    #[test]
    fn two_fifths_of_a_table_can_be_filled() {
        let mut table = Table { entries: vec![None; 1 << 14], mask: (1 << 14) - 1 };
        let none = BTreeSet::new();
        for n in 0..(1_u32 << 14) * 2 / 5 {
            let addr = Addr::v4((0x0a00_0000 + n / 4).to_be());
            let key = Key::endpoint(addr, (8000 + (n % 4) as u16).to_be(), 6);
            assert!(table.insert(key, &none), "key {n} found no place");
        }
    }
}
