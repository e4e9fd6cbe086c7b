//! `RANGES` and its bits in `FILTER`: a packet sees the old ranges of an address or the new ones.

use std::collections::HashSet;

use lb_common::abi::ranges::PER_ADDRESS;
use lb_common::abi::{Filter, Key, RangesEntry};

use super::grace::Grace;
use super::region::Region;
use super::two_choice::{Full, TwoChoice};

/// The first of the words of `FILTER` that are ours.
const WORD: usize = std::mem::offset_of!(Filter, wide) / size_of::<u64>();
/// Bits of such a word.
const BITS: usize = u64::BITS as usize;

/// A list of ranges cannot be written. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangesError {
    /// There is no place for another address.
    #[error(transparent)]
    Full(#[from] Full),
    /// An address has more ranges than there is room for.
    #[error("{0} ranges of ports at one address, there is room for {PER_ADDRESS}")]
    TooMany(usize),
}

/// Ranges of ports by address.
#[derive(Debug)]
pub struct Ranges {
    table: TwoChoice<RangesEntry>,
    filter: Region<Filter>,
    grace: Grace,
    /// Addresses that share a bit: of destinations, of sources.
    held: [[u32; BITS]; 2],
    /// Lists whose idle half somebody may still be reading.
    flipped: HashSet<Key>,
}

impl Ranges {
    /// Takes over what stands in the table. A writer that died may have left bits that nothing needs.
    pub fn new(table: TwoChoice<RangesEntry>, filter: Region<Filter>, grace: Grace) -> Self {
        let mut held = [[0; BITS]; 2];
        for entry in table.iter() {
            let (half, bit) = bit(&entry.key);
            held[half][bit] += 1;
        }
        if table.used() > 0 {
            grace.synchronize();
        }
        let mut this = Self { table, filter, grace, held, flipped: HashSet::new() };
        (0..2).for_each(|half| this.mark(half));
        this
    }

    /// Addresses in use.
    pub fn used(&self) -> u32 {
        self.table.used()
    }

    /// Addresses that there are places for.
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = RangesEntry> + '_ {
        self.table.iter()
    }

    /// The list that is in force at an address, without what is no range.
    pub fn list(&self, key: &Key) -> Vec<u64> {
        let Some((_, entry)) = self.table.find(key) else { return Vec::new() };
        entry.list().iter().copied().filter(|word| *word != 0).collect()
    }

    /// Puts a list in force; an empty one takes the address out.
    ///
    /// # Errors
    /// It is too long, or there is no place for a new address.
    pub fn set(&mut self, key: &Key, list: &[u64]) -> Result<(), RangesError> {
        if list.len() > PER_ADDRESS {
            return Err(RangesError::TooMany(list.len()));
        }
        if self.list(key) == list {
            return Ok(());
        }
        if list.is_empty() {
            self.table.remove(key);
            self.hold(key, false);
            return Ok(());
        }
        if self.flipped.contains(key) {
            self.grace.synchronize();
            self.flipped.clear();
        }
        let old = self.table.find(key).map(|(_, entry)| entry);
        let mut entry = old.unwrap_or(RangesEntry { key: *key, ..RangesEntry::default() });
        entry.bank = 1 - (entry.bank & 1);
        let idle = &mut entry.lists[entry.bank as usize];
        idle.fill(0);
        idle[..list.len()].copy_from_slice(list);
        if old.is_none() {
            self.hold(key, true);
        }
        if let Err(full) = self.table.put(&entry) {
            self.hold(key, false);
            return Err(full.into());
        }
        self.flipped.insert(*key);
        Ok(())
    }

    /// An address is there, or not any more.
    fn hold(&mut self, key: &Key, there: bool) {
        let (half, bit) = bit(key);
        let held = &mut self.held[half][bit];
        *held = if there { *held + 1 } else { *held - 1 };
        self.mark(half);
    }

    /// Writes a word of the filter as it should be.
    fn mark(&mut self, half: usize) {
        let value = self.held[half].iter().rev().fold(0, |value, held| value << 1 | u64::from(*held > 0));
        // The region has one entry, of so many words.
        let written = self.filter.store(0, WORD + half, value);
        debug_assert!(written.is_ok());
    }
}

fn bit(key: &Key) -> (usize, usize) {
    (usize::from(key.is_of_source()), Filter::wide_bit(&key.addr) as usize)
}

#[cfg(test)]
mod tests {
    use super::super::region::observe::while_observed;
    use super::*;
    use lb_common::abi::ranges;
    use lb_common::addr::{Addr, TCP};
    use lb_common::wide;

    const ANY: u64 = word(0, 65_535);

    /// A range whose service is called like its first port.
    const fn word(first: u16, last: u16) -> u64 {
        ranges::word(first, last, first as u32)
    }

    fn key(n: u32) -> Key {
        Key::ranges(Addr::v4((0xc000_0200 + n).to_be()), TCP)
    }

    fn empty() -> (Ranges, Region<RangesEntry>, Region<Filter>) {
        let (table, filter) = (Region::on_heap("RANGES", 256), Region::on_heap("FILTER", 1));
        let two_choice = TwoChoice::new(table.clone(), Grace::None);
        (Ranges::new(two_choice, filter.clone(), Grace::None), table, filter)
    }

    #[test]
    fn a_packet_sees_the_old_ranges_or_the_new_ones() {
        let (mut ranges, table, filter) = empty();
        ranges.set(&key(1), &[word(10, 19), word(20, 29)]).unwrap();
        let lists = [[10, 20], [20, 20], [15, 15]];
        let view = TwoChoice::<RangesEntry>::new(table, Grace::None);
        let look = move || {
            let entry = view.find(&key(1)).expect("it is there all the time").1;
            let first = |port: u16| {
                let key = Key::endpoint(key(1).addr, port.to_be(), TCP);
                wide::look(&key, 0, |_| Some(&entry)).expect("in some range")
            };
            assert!(lists.contains(&[first(19), first(22)]), "{entry:?}");
            assert!(filter.get(0).unwrap().may_be_wide(&key(1).addr, &Addr::v4(0)));
        };
        while_observed(look, || {
            ranges.set(&key(1), &[word(15, 40)]).unwrap();
            ranges.set(&key(1), &[word(20, 29), word(10, 19)]).unwrap();
            ranges.set(&key(1), &[word(10, 19), word(20, 29)]).unwrap();
        });
        assert_eq!(ranges.list(&key(1)), [word(10, 19), word(20, 29)]);
    }

    thread_local! {
        static WAITS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }

    #[test]
    fn a_list_that_may_be_read_is_not_written() {
        let (_, table, filter) = empty();
        let grace = Grace::Told(|| WAITS.set(WAITS.get() + 1));
        let mut ranges = Ranges::new(TwoChoice::new(table, Grace::None), filter, grace);
        ranges.set(&key(1), &[ANY]).unwrap();
        ranges.set(&key(2), &[ANY]).unwrap();
        ranges.set(&key(1), &[ANY]).unwrap();
        assert_eq!(WAITS.get(), 0);
        ranges.set(&key(1), &[word(1, 2)]).unwrap();
        assert_eq!(WAITS.get(), 1);
        ranges.set(&key(2), &[word(1, 2)]).unwrap();
        assert_eq!(WAITS.get(), 1, "one wait for all that was before");
    }

    #[test]
    fn bits_come_and_go_with_addresses() {
        let (mut ranges, table, filter) = empty();
        (0..80).for_each(|n| ranges.set(&key(n), &[ANY]).unwrap());
        let source = key(3).of_source();
        ranges.set(&source, &[word(7, 9)]).unwrap();
        let seen = filter.get(0).unwrap();
        assert!((0..80).all(|n| seen.wide[0] >> Filter::wide_bit(&key(n).addr) & 1 == 1));
        assert_eq!(seen.wide[1], 1 << Filter::wide_bit(&source.addr));
        let adopted = Ranges::new(TwoChoice::new(table, Grace::None), filter.clone(), Grace::None);
        assert_eq!((adopted.used(), filter.get(0).unwrap().wide), (81, seen.wide));
        (0..80).for_each(|n| ranges.set(&key(n), &[]).unwrap());
        ranges.set(&source, &[]).unwrap();
        assert_eq!((ranges.used(), filter.get(0).unwrap()), (0, Filter::EMPTY));
    }

    #[test]
    fn what_is_too_much_changes_nothing() {
        let (mut ranges, _, filter) = empty();
        let long: Vec<u64> = (1..18).map(|n| word(n, n)).collect();
        assert_eq!(ranges.set(&key(1), &long), Err(RangesError::TooMany(17)));
        let refused = (0..1000).find(|n| ranges.set(&key(*n), &[ANY]).is_err()).unwrap();
        assert_eq!(ranges.list(&key(refused)), [] as [u64; 0]);
        (0..refused).for_each(|n| ranges.set(&key(n), &[]).unwrap());
        assert_eq!(filter.get(0).unwrap(), Filter::EMPTY);
    }
}
