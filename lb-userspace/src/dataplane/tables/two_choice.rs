//! Two-choice tables: services, the way back, neighbours. Where keys go is planned by [`lb_common::table`].
//!
//! What a reader does: it compares the key at a key's first place, then, if that place has [`tag::MORE`], at its second,
//! and then reads the entry that matched. So that it neither misses a key nor reads another key's words:
//! - a place gets its mark before a key that was displaced from it appears, and loses it after the last one is gone;
//! - an entry that moves is written to its new place, and cleared at the old one only after a grace period (a reader may
//!   have looked at the new place before);
//! - a place that was cleared is written again only after a grace period (a reader may still be reading it).
//!
//! Waits are rare: most insertions find a place that is empty and has been so for long.

use std::collections::{HashMap, HashSet};

use lb_common::abi::{Key, NeighbourEntry, Plain, RangesEntry, ReverseEntry, ServiceEntry, VipEntry, tag};
use lb_common::table::{insert, places};

use super::grace::Grace;
use super::region::{Region, word_of};

/// The word that holds `key.tag`: stored last, it makes an entry valid.
const TAG_WORD: usize = 2;

/// An entry of a two-choice table.
pub trait Entry: Plain + PartialEq {
    /// Whether an entry may be changed word by word while it is read. Where not, it is absent for a moment.
    const IN_PLACE: bool;

    /// Its key.
    fn key(&self) -> &Key;

    /// Its key, to be changed.
    fn key_mut(&mut self) -> &mut Key;
}

macro_rules! entry {
    ($entry:ty, in place: $in_place:expr) => {
        impl Entry for $entry {
            const IN_PLACE: bool = $in_place;
            fn key(&self) -> &Key {
                &self.key
            }
            fn key_mut(&mut self) -> &mut Key {
                &mut self.key
            }
        }
        const _: () = assert!(std::mem::offset_of!($entry, key) == 0 && std::mem::offset_of!(Key, tag) == 16);
    };
}
// What belongs together (ring and its slots, first backend and capacity) shares a 64-bit word.
entry!(ServiceEntry, in place: true);
entry!(ReverseEntry, in place: true);
entry!(VipEntry, in place: true);
// The list in force is never written, and the word that changes it is the key's.
entry!(RangesEntry, in place: true);
// A MAC lies across two words; absent is harmless, the program asks the kernel.
entry!(NeighbourEntry, in place: false);

/// No place could be made for a key. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{table} is full: {used} of {len} entries are used and a two-choice table fills to two fifths or more; \
     start the agent with a larger table and fresh pins"
)]
pub struct Full {
    /// The table.
    pub table: &'static str,
    /// Entries in use.
    pub used: u32,
    /// Entries in all.
    pub len: u32,
}

/// A table in which a key lies in one of two places.
#[derive(Debug)]
pub struct TwoChoice<T> {
    region: Region<T>,
    mask: u32,
    used: u32,
    grace: Grace,
    /// Places cleared since the last grace period.
    retired: HashSet<u32>,
    /// How many keys whose first place this is lie in their second one; places with none are left out.
    displaced: HashMap<u32, u32>,
}

impl<T: Entry> TwoChoice<T> {
    /// Takes over what stands in the region, whose size must be a power of two.
    ///
    /// A writer that died amid an insertion leaves at most a key in both of its places: one is cleared.
    pub fn new(region: Region<T>, grace: Grace) -> Self {
        debug_assert!(region.len().is_power_of_two());
        let mask = region.len() - 1;
        let mut table =
            Self { region, mask, used: 0, grace, retired: HashSet::new(), displaced: HashMap::new() };
        for place in 0..table.region.len() {
            let Some(entry) = table.at(place) else { continue };
            match table.find(entry.key()) {
                Some((found, _)) if found == place => {
                    table.used += 1;
                    if let Some(first) = table.displaced_from(place, &entry) {
                        *table.displaced.entry(first).or_default() += 1;
                    }
                }
                // Its twin, or lost: nobody looks for it here.
                _ => table.empty(place, &entry),
            }
        }
        for place in 0..table.region.len() {
            table.mark(place);
        }
        if table.used > 0 {
            // The one before us may have cleared a place just now.
            table.synchronize();
        }
        table
    }

    /// Entries in use.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Entries in all.
    pub fn capacity(&self) -> u32 {
        self.region.len()
    }

    /// A key's place and entry.
    pub fn find(&self, key: &Key) -> Option<(u32, T)> {
        places(key, self.mask).into_iter().find_map(|place| {
            let entry = self.at(place)?;
            (entry.key() == key).then_some((place, entry))
        })
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        (0..self.region.len()).filter_map(|place| self.at(place))
    }

    /// Inserts an entry, or changes the one with its key. Writes nothing where all is as it should be.
    ///
    /// # Errors
    /// There is no place for a new key.
    pub fn put(&mut self, entry: &T) -> Result<(), Full> {
        debug_assert!(entry.key().valid() && *entry.key() == entry.key().alone(), "a key as it is made");
        if let Some((place, old)) = self.find(entry.key()) {
            self.replace(place, &old, entry);
            return Ok(());
        }
        let plan = insert(entry.key(), self.mask, |place| self.at(place).map(|e| *e.key()));
        let Some(plan) = plan else { return Err(self.full()) };
        for (from, to) in plan.moves() {
            if let Some(moving) = self.at(from) {
                self.fill(to, &moving);
                self.synchronize();
                self.clear(from);
            }
        }
        self.fill(plan.place(), entry);
        self.used += 1;
        Ok(())
    }

    /// Removes a key; `false` if it was not there.
    pub fn remove(&mut self, key: &Key) -> bool {
        let Some((place, _)) = self.find(key) else { return false };
        self.clear(place);
        self.used -= 1;
        true
    }

    fn full(&self) -> Full {
        Full { table: self.region.table(), used: self.used, len: self.region.len() }
    }

    /// The entry at a place, if the place is in use. Its key is alone.
    fn at(&self, place: u32) -> Option<T> {
        let mut entry = self.region.get(place).filter(|entry| entry.key().valid())?;
        *entry.key_mut() = entry.key().alone();
        Some(entry)
    }

    /// The first place of an entry that lies in its second one.
    fn displaced_from(&self, place: u32, entry: &T) -> Option<u32> {
        let [first, _] = places(entry.key(), self.mask);
        (first != place).then_some(first)
    }

    /// What stands beside a key's own bits at a place.
    fn mark_of(&self, place: u32) -> u32 {
        if self.displaced.contains_key(&place) { tag::MORE } else { 0 }
    }

    /// Gives a place the mark that it should have, whatever else it holds.
    fn mark(&mut self, place: u32) {
        let Some(mut entry) = self.region.get(place) else { return };
        let tag = &mut entry.key_mut().tag;
        *tag = *tag & !tag::MORE | self.mark_of(place);
        self.store_tag(place, &entry);
    }

    fn store_tag(&mut self, place: u32, entry: &T) {
        // Places come from `places` and stay below the table's length.
        let written = self.region.store(place, TAG_WORD, word_of(entry, TAG_WORD));
        debug_assert!(written.is_ok());
    }

    fn replace(&mut self, place: u32, old: &T, new: &T) {
        if old == new {
            return;
        }
        if !T::IN_PLACE {
            self.empty(place, old);
        }
        self.write(place, new);
    }

    /// Writes an entry to an empty place.
    fn fill(&mut self, place: u32, entry: &T) {
        if let Some(first) = self.displaced_from(place, entry) {
            *self.displaced.entry(first).or_default() += 1;
            self.mark(first);
        }
        self.write(place, entry);
    }

    /// Writes an entry to a place that is empty or holds the same key.
    fn write(&mut self, place: u32, entry: &T) {
        if self.retired.contains(&place) {
            self.synchronize();
        }
        let mut entry = *entry;
        entry.key_mut().tag |= self.mark_of(place);
        let written = self.region.write(place, &entry, TAG_WORD);
        debug_assert!(written.is_ok());
    }

    /// Takes out the entry of a place.
    fn clear(&mut self, place: u32) {
        let Some(entry) = self.at(place) else { return };
        self.empty(place, &entry);
        let Some(first) = self.displaced_from(place, &entry) else { return };
        if let Some(count) = self.displaced.get_mut(&first) {
            *count -= 1;
            if *count == 0 {
                self.displaced.remove(&first);
                self.mark(first);
            }
        }
    }

    /// Makes a place empty. The rest of the entry stays for those who are reading it.
    fn empty(&mut self, place: u32, entry: &T) {
        let mut entry = *entry;
        entry.key_mut().tag = self.mark_of(place);
        self.store_tag(place, &entry);
        self.retired.insert(place);
    }

    fn synchronize(&mut self) {
        self.grace.synchronize();
        self.retired.clear();
    }
}

#[path = "put_all.rs"]
mod put_all;

#[cfg(test)]
#[path = "two_choice_tests.rs"]
mod tests;
