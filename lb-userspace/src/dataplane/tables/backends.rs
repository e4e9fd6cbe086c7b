//! `BACKENDS`: where packets go.

use std::mem::offset_of;

use lb_common::abi::BackendEntry;

use super::region::{OutOfRange, Region, word_of};

/// MAC of the next hop and the start of the interface's.
const MACS: usize = 2;
/// The rest of the interface's MAC, and the interface.
const INTERFACE: usize = 3;
/// Port, flags and generation: stored last, it makes an entry usable.
const STATE: usize = 4;
/// Row of counters and MTU.
const LIMITS: usize = 5;

const _: () = assert!(
    offset_of!(BackendEntry, macs) == MACS * 8
        && offset_of!(BackendEntry, ifindex) == INTERFACE * 8 + 4
        && offset_of!(BackendEntry, port) == STATE * 8
        && offset_of!(BackendEntry, mtu) == LIMITS * 8 + 4
);

/// Backends by index; each service owns a block of them.
#[derive(Debug)]
pub struct Backends {
    entries: Region<BackendEntry>,
}

impl Backends {
    /// Backends in a region.
    pub fn new(entries: Region<BackendEntry>) -> Self {
        Self { entries }
    }

    /// Entries in all.
    pub fn capacity(&self) -> u32 {
        self.entries.len()
    }

    /// An entry, in use or not.
    pub fn get(&self, index: u32) -> Option<BackendEntry> {
        self.entries.get(index)
    }

    /// Writes an entry, its flags last. A new occupant (another generation) finds the flags cleared meanwhile.
    ///
    /// # Errors
    /// There is no such entry.
    pub fn put(&mut self, index: u32, entry: &BackendEntry) -> Result<(), OutOfRange> {
        if let Some(old) = self.get(index)
            && old.generation != entry.generation
        {
            self.set_flags(index, 0)?;
        }
        self.entries.write(index, entry, STATE)
    }

    /// Sets the flags: one store.
    ///
    /// # Errors
    /// There is no such entry.
    pub fn set_flags(&mut self, index: u32, flags: u16) -> Result<(), OutOfRange> {
        self.change(index, &[STATE], |entry| entry.flags = flags)
    }

    /// Sets the way to a backend. Another MAC on the same interface is one store.
    ///
    /// # Errors
    /// There is no such entry.
    pub fn set_next_hop(
        &mut self,
        index: u32,
        macs: [u8; 12],
        ifindex: u32,
        mtu: u32,
    ) -> Result<(), OutOfRange> {
        self.change(index, &[LIMITS, INTERFACE, MACS], |entry| {
            entry.macs = macs;
            entry.ifindex = ifindex;
            entry.mtu = mtu;
        })
    }

    /// Changes an entry and stores these words, in this order.
    fn change(
        &mut self,
        index: u32,
        words: &[usize],
        change: impl FnOnce(&mut BackendEntry),
    ) -> Result<(), OutOfRange> {
        let missing = OutOfRange { table: self.entries.table(), index, len: self.entries.len() };
        let mut entry = self.get(index).ok_or(missing)?;
        change(&mut entry);
        words.iter().try_for_each(|word| self.entries.store(index, *word, word_of(&entry, *word)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::region::observe::while_observed;
    use super::*;
    use lb_common::abi::Correction;
    use lb_common::abi::backend::flags::{REACHABLE, RESOLVED, SELECTABLE};
    use std::cell::RefCell;
    use std::rc::Rc;

    fn entry(generation: u32) -> BackendEntry {
        BackendEntry {
            addr: std::net::IpAddr::from([10, 0, 0, generation as u8]).into(),
            macs: [2; 12],
            ifindex: 3,
            port: 80_u16.to_be(),
            flags: REACHABLE | SELECTABLE | RESOLVED,
            generation,
            counters: 9,
            mtu: 1500,
            correction: Correction::default(),
            reserved: [0; 3],
        }
    }

    /// What a reader could have seen, state after state, while `work` ran.
    fn seen(
        backends: &mut Backends,
        work: impl FnOnce(&mut Backends) -> Result<(), OutOfRange>,
    ) -> Vec<BackendEntry> {
        let states = Rc::new(RefCell::new(Vec::new()));
        let (view, log) = (backends.entries.clone(), states.clone());
        while_observed(move || log.borrow_mut().push(view.get(1).unwrap()), || work(backends)).unwrap();
        states.take()
    }

    #[test]
    fn an_entry_is_usable_only_when_it_is_whole() {
        let mut backends = Backends::new(Region::on_heap("BACKENDS", 4));
        backends.put(1, &entry(1)).unwrap();
        let states = seen(&mut backends, |b| b.put(1, &entry(2)));
        let (last, partial) = states.split_last().unwrap();
        assert_eq!(*last, entry(2));
        assert!(partial.iter().all(|state| state.flags == 0), "{partial:?}");
    }

    #[test]
    fn another_mac_on_the_same_interface_is_one_store() {
        let mut backends = Backends::new(Region::on_heap("BACKENDS", 4));
        backends.put(1, &entry(1)).unwrap();
        let macs = [9, 9, 9, 9, 9, 9, 2, 2, 2, 2, 2, 2];
        let states = seen(&mut backends, |b| b.set_next_hop(1, macs, 3, 1500));
        assert_eq!(states, [BackendEntry { macs, ..entry(1) }]);
    }

    #[test]
    fn flags_are_one_store_and_nothing_else() {
        let mut backends = Backends::new(Region::on_heap("BACKENDS", 4));
        backends.put(1, &entry(1)).unwrap();
        let states = seen(&mut backends, |b| b.set_flags(1, REACHABLE));
        assert_eq!(states, [BackendEntry { flags: REACHABLE, ..entry(1) }]);
        assert!(
            seen(&mut backends, |b| b.set_flags(1, REACHABLE)).is_empty(),
            "nothing to do, nothing stored"
        );
        assert!(backends.set_flags(4, 0).is_err());
    }
}
