//! Two-choice tables: a key lives in one of two places, so a reader looks twice at most.
//!
//! Where no key was displaced from its first place, that place says so, and a reader who misses does not look further.
//!
//! The kernel only looks; the agent inserts. An insertion may have to move other keys to their second place (cuckoo
//! hashing, Pagh and Rodler 2001). It is planned first and carried out from its far end, each key copied before it is
//! overwritten, so that a reader finds every key at every moment, for an instant twice, never not at all.

use crate::abi::{Key, Place};
use crate::addr::Family;
use crate::hash::{FACTORS, folded};

/// Longest chain of moves that an insertion may cause. At two fifths full chains are short and
/// a place is found all but surely (cuckoo graphs with fewer than half as many edges as nodes).
pub const MAX_MOVES: usize = 32;

/// A key's hash, from which its places are made. Its upper bits depend on all of the key.
#[inline(always)]
pub fn hash(key: &Key) -> u64 {
    // Products that do not wait for each other. Of one alone, addresses and ports that count up would make progressions
    // that leave most places out; two that differ, put together by another operation, do not.
    let tail = u64::from_le(key.tail());
    let mut other = folded(tail).wrapping_mul(FACTORS[2]);
    if key.family() == Family::V6 {
        let [first, last] = key.addr.halves().map(u64::from_le);
        other = other.wrapping_add(folded(first).wrapping_mul(FACTORS[1]));
        other = other.wrapping_add(last.wrapping_mul(FACTORS[3]));
    }
    tail.wrapping_mul(FACTORS[0]) ^ other
}

#[inline(always)]
const fn first(hash: u64, mask: u32) -> u32 {
    (hash >> 40) as u32 & mask
}

#[inline(always)]
const fn second(hash: u64, mask: u32) -> u32 {
    (folded(hash).wrapping_mul(FACTORS[1]) >> 40) as u32 & mask
}

/// The two places of a key in a table whose size is `mask + 1`, a power of two, at most 2^24.
pub fn places(key: &Key, mask: u32) -> [u32; 2] {
    let hash = hash(key);
    [first(hash, mask), second(hash, mask)]
}

/// Looks for a key whose hash is known: most of the time at one place, whether it is there or not.
#[inline(always)]
pub fn look<'a, T>(
    (key, hash): (&Key, u64),
    mask: u32,
    at: impl Fn(u32) -> Option<&'a T>,
    key_of: impl Fn(&T) -> &Key,
) -> Option<&'a T> {
    let entry = at(first(hash, mask))?;
    match key_of(entry).holds(key) {
        Place::Here => Some(entry),
        Place::Elsewhere => at(second(hash, mask)).filter(|entry| key_of(entry).holds(key) == Place::Here),
        Place::Nowhere => None,
    }
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

    /// What the sizes in `limits` rely on: addresses and ports as people choose them fill two fifths, and most keys lie in
    /// their first place.
    #[test]
    fn two_fifths_of_a_table_can_be_filled() {
        type Choice = (&'static str, fn(u32) -> (u32, u16, u8));
        let choices: [Choice; 6] = [
            ("addresses that count up", |n| (n, 80, 6)),
            ("four ports an address", |n| (n / 4, 8000 + (n % 4) as u16, 6)),
            ("a hundred ports an address", |n| (n / 100, 30_000 + (n % 100) as u16, 6)),
            ("thousands of ports an address", |n| (n / 5000, 1024 + (n % 5000) as u16, 6)),
            ("TCP and UDP on the same port", |n| (n / 2, 443, if n % 2 == 0 { 6 } else { 17 })),
            ("an address in each network", |n| (n << 8, 443, 6)),
        ];
        for bits in [10, 12, 14, 16] {
            let size = 1_u32 << bits;
            for (name, choose) in choices {
                for v6 in [false, true] {
                    let mut table = Table { entries: vec![None; size as usize], mask: size - 1 };
                    for n in 0..size * 2 / 5 {
                        let (host, port, protocol) = choose(n);
                        let addr = if v6 {
                            Addr::from_words([0x2001_0db8, 0, 0, 1 + host].map(u32::to_be))
                        } else {
                            Addr::v4((0x0a00_0001 + host).to_be())
                        };
                        let key = Key::endpoint(addr, port.to_be(), protocol);
                        assert!(
                            table.insert(key, &BTreeSet::new()),
                            "{name}, {size} places: key {n} found none"
                        );
                    }
                    let displaced = table.entries.iter().enumerate().filter(|(place, key)| {
                        key.is_some_and(|key| places(&key, table.mask)[0] as usize != *place)
                    });
                    // Of keys without any order a fifth, give or take in small tables.
                    let share = displaced.count() as f64 / f64::from(size * 2 / 5);
                    assert!(
                        share < 0.4,
                        "{name}, {size} places: {share:.2} of the keys lie in their second one"
                    );
                }
            }
        }
    }
}
