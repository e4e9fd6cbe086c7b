//! `REVERSE` and its filter: what is in the table has its bit set before it appears, and until after it is gone.

use std::collections::BTreeSet;

use lb_common::abi::{Filter, Key, ReverseEntry, filter};
use lb_common::table;

use super::region::Region;
use super::two_choice::{Full, TwoChoice};

/// The way back from NAT backends.
#[derive(Debug)]
pub struct Reverse {
    table: TwoChoice<ReverseEntry>,
    filter: Region<Filter>,
    /// Keys that share a bit.
    held: Vec<u32>,
}

impl Reverse {
    /// Takes over what stands in the table. A writer that died may have left bits that nothing needs.
    pub fn new(table: TwoChoice<ReverseEntry>, filter: Region<Filter>) -> Self {
        let mut held = vec![0; filter::BITS as usize];
        for entry in table.iter() {
            held[bit(&entry.key)] += 1;
        }
        let mut this = Self { table, filter, held };
        (0..filter::WORDS).for_each(|word| this.write(word));
        this
    }

    /// Entries in use.
    pub fn used(&self) -> u32 {
        self.table.used()
    }

    /// Entries in all.
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// A key's entry.
    pub fn find(&self, key: &Key) -> Option<ReverseEntry> {
        self.table.find(key).map(|(_, entry)| entry)
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = ReverseEntry> + '_ {
        self.table.iter()
    }

    /// The bits as they stand.
    pub fn filter(&self) -> Filter {
        self.filter.get(0).unwrap_or(Filter::EMPTY)
    }

    /// Inserts an entry, or changes the one with its key.
    ///
    /// # Errors
    /// There is no place for a new key.
    pub fn put(&mut self, entry: &ReverseEntry) -> Result<(), Full> {
        self.put_all(std::slice::from_ref(entry))
    }

    /// The same for many, see [`TwoChoice::put_all`].
    ///
    /// # Errors
    /// There is no place for a new key; all that have one are in the table.
    pub fn put_all(&mut self, entries: &[ReverseEntry]) -> Result<(), Full> {
        let new: BTreeSet<Key> =
            entries.iter().map(|e| e.key).filter(|key| self.table.find(key).is_none()).collect();
        new.iter().for_each(|key| self.hold(key));
        let result = self.table.put_all(entries);
        if result.is_err() {
            let refused: Vec<_> = new.into_iter().filter(|key| self.table.find(key).is_none()).collect();
            refused.iter().for_each(|key| self.let_go(key));
        }
        result
    }

    /// Removes a key; `false` if it was not there.
    pub fn remove(&mut self, key: &Key) -> bool {
        let removed = self.table.remove(key);
        if removed {
            self.let_go(key);
        }
        removed
    }

    fn hold(&mut self, key: &Key) {
        let bit = bit(key);
        self.held[bit] += 1;
        self.write(bit / u64::BITS as usize);
    }

    fn let_go(&mut self, key: &Key) {
        let bit = bit(key);
        self.held[bit] -= 1;
        self.write(bit / u64::BITS as usize);
    }

    /// Writes a word of the filter as it should be.
    fn write(&mut self, word: usize) {
        let first = word * u64::BITS as usize;
        let bits = &self.held[first..first + u64::BITS as usize];
        let value = bits.iter().rev().fold(0, |value, held| value << 1 | u64::from(*held > 0));
        // The region has one entry, of so many words.
        let written = self.filter.store(0, word, value);
        debug_assert!(written.is_ok());
    }
}

fn bit(key: &Key) -> usize {
    Filter::bit(table::hash(key)) as usize
}

#[cfg(test)]
mod tests {
    use super::super::Grace;
    use super::super::region::observe::while_observed;
    use super::*;
    use lb_common::addr::Addr;

    fn entry(n: u32) -> ReverseEntry {
        let key = Key::endpoint(Addr::v4((0x0a00_0000 + n).to_be()), 8080_u16.to_be(), 6);
        ReverseEntry { key, service: n, ..ReverseEntry::default() }
    }

    fn empty() -> (Reverse, Region<ReverseEntry>, Region<Filter>) {
        let (table, filter) = (Region::on_heap("REVERSE", 1024), Region::on_heap("FILTER", 1));
        (Reverse::new(TwoChoice::new(table.clone(), Grace::None), filter.clone()), table, filter)
    }

    #[test]
    fn whatever_the_table_holds_passes_the_filter_at_every_moment() {
        let (mut reverse, table, filter) = empty();
        let view = TwoChoice::<ReverseEntry>::new(table, Grace::None);
        let look = move || {
            let filter = filter.get(0).unwrap();
            for entry in view.iter() {
                assert!(filter.may_hold(table::hash(&entry.key)), "entry {} is there unseen", entry.service);
            }
        };
        while_observed(look, || {
            (0..300).for_each(|n| reverse.put(&entry(n)).unwrap());
            (0..300).step_by(2).for_each(|n| assert!(reverse.remove(&entry(n).key)));
            let again: Vec<_> = (0..300).step_by(3).map(entry).collect();
            reverse.put_all(&again).unwrap();
        });
        assert_eq!(reverse.used(), 200);
        let many: Vec<_> = (0..2000).map(entry).collect();
        reverse.put_all(&many).unwrap_err();
        (300..2000).for_each(|n| _ = reverse.remove(&entry(n).key));
        (0..300).for_each(|n| _ = reverse.remove(&entry(n).key));
        assert_eq!((reverse.used(), reverse.filter()), (0, Filter::EMPTY), "no bit is left behind");
    }

    #[test]
    fn few_others_pass_the_filter() {
        let (mut reverse, ..) = empty();
        (0..100).for_each(|n| reverse.put(&entry(n)).unwrap());
        let filter = reverse.filter();
        let strangers = (0..100_000).filter(|n| filter.may_hold(table::hash(&entry(1_000_000 + n).key)));
        assert!(strangers.count() < 1000, "one in three hundred is expected");
    }

    #[test]
    fn whoever_comes_next_mends_the_bits() {
        let (mut reverse, table, mut filter) = empty();
        reverse.put(&entry(1)).unwrap();
        let good = reverse.filter();
        (0..filter::WORDS).for_each(|word| filter.store(0, word, u64::from(word == 7)).unwrap());
        let adopted = Reverse::new(TwoChoice::new(table, Grace::None), filter);
        assert_eq!(adopted.filter(), good);
    }
}
