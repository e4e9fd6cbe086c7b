//! The windows of slots that changed, and the sweep that ends tracking (DESIGN, section 4).
//!
//! A window opens when a slot's `previous` and `current` part, and closes after the service's idle timeout: a flow that
//! was not seen in between is dead by that rule, one that was has an entry. Entries that say what their settled slot
//! says are redundant. A settled slot without entries is not looked up any more.
//!
//! When windows opened is not in the tables. An agent that adopts them lets every open window begin anew: longer than
//! needed, never too short.

use crate::dataplane::Tables;
use crate::dataplane::tables::OutOfRange;
use crate::plan::Step;
use lb_common::abi::flow::{CLOCK_LAG_NS, CLOSING_NS, REFRESH_NS};
use lb_common::abi::service::flags::TRACK_ALWAYS;
use lb_common::abi::{FlowKey, FlowValue, ServiceEntry, ring};
use lb_common::hash;
use lb_common::slot::{NONE, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A slot: its ring's first line and its number.
type Place = (u32, u32);

/// What is open and what is tracked.
#[derive(Debug, Default)]
pub struct Windows {
    /// When each window opened, ns of the monotonic clock.
    open: BTreeMap<Place, u64>,
    tracked: BTreeSet<Place>,
}

/// Idle timeouts by service id.
pub type Timeouts = BTreeMap<u32, Duration>;

/// The table that an entry lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// `FLOWS`.
    Flows,
    /// `EMBRYONIC`.
    Embryonic,
}

/// An entry and where it lies.
pub type Remembered = (Memory, FlowKey, FlowValue);

impl Windows {
    /// The windows that the tables show, all opening `now`.
    pub fn adopt(tables: &Tables, now: u64) -> Self {
        let mut windows = Self::default();
        for service in tables.services.iter() {
            for (index, word) in (0..).zip(tables.rings.read(service.ring, service.slots)) {
                windows.note((service.ring, index), Slot(word), now);
            }
        }
        windows
    }

    /// Takes notice of steps that were carried out.
    pub fn applied(&mut self, steps: &[Step], now: u64) {
        for step in steps {
            if let Step::Slots { ring, words, .. } = step {
                for (index, word) in words {
                    self.note((*ring, *index), Slot(*word), now);
                }
            }
        }
    }

    fn note(&mut self, place: Place, slot: Slot, now: u64) {
        if slot.settled() {
            self.open.remove(&place);
        } else {
            self.open.entry(place).or_insert(now);
        }
        if slot.tracked() {
            self.tracked.insert(place);
        } else {
            self.tracked.remove(&place);
        }
    }

    /// Whether a sweep has anything to look at.
    pub fn any_tracked(&self) -> bool {
        !self.tracked.is_empty()
    }

    /// How many windows of a service are open.
    pub fn open(&self, service: &ServiceEntry) -> usize {
        self.open.range((service.ring, 0)..(service.ring + ring::lines(service.slots).max(1), 0)).count()
    }

    /// Closes the windows that have been open for their service's idle timeout, and tells how many.
    ///
    /// # Errors
    /// A ring is not where its service says.
    pub fn close(&mut self, tables: &mut Tables, timeouts: &Timeouts, now: u64) -> Result<usize, OutOfRange> {
        let rings: BTreeMap<u32, Duration> = tables
            .services
            .iter()
            .filter_map(|s| timeouts.get(&s.id).map(|timeout| (s.ring, *timeout)))
            .collect();
        let mut closed = 0;
        let mut failed = None;
        self.open.retain(|(ring, index), opened| {
            // A ring that nobody owns any more has no windows.
            let Some(timeout) = rings.get(ring) else { return false };
            // A flow that was silent for exactly the timeout is alive: the window must outlast it.
            if u128::from(now.saturating_sub(*opened)) <= timeout.as_nanos() {
                return true;
            }
            let Some(slot) = tables.rings.slot(*ring, *index).map(Slot) else { return false };
            match tables.rings.write(*ring, *index, slot.settle().0) {
                Ok(()) => closed += 1,
                Err(error) => failed = Some(error),
            }
            false
        });
        self.tracked.retain(|(ring, _)| rings.contains_key(ring));
        failed.map_or(Ok(closed), Err)
    }

    /// Looks at every entry: which may go, and which slots need no tracking any more. The caller removes the entries
    /// that are returned; slots are untracked here. They must have been read from `EMBRYONIC` first: an entry that moves
    /// to `FLOWS` meanwhile is then seen there or here.
    ///
    /// # Errors
    /// A ring is not where its service says.
    pub fn sweep(
        &mut self,
        tables: &mut Tables,
        entries: impl IntoIterator<Item = Remembered>,
        timeouts: &Timeouts,
        now: u64,
    ) -> Result<Vec<(Memory, FlowKey)>, OutOfRange> {
        let services: BTreeMap<u32, ServiceEntry> = tables.services.iter().map(|s| (s.id, s)).collect();
        let mut gone = Vec::new();
        let mut live = BTreeSet::new();
        for (memory, key, value) in entries {
            let known = services.get(&key.service).zip(timeouts.get(&key.service));
            match known {
                Some((service, timeout)) if !expired(&value, *timeout, now) => {
                    let index = slot_of(service, &key);
                    if redundant(tables, service, index, &value) {
                        gone.push((memory, key));
                    } else {
                        live.insert((service.ring, index));
                    }
                }
                _ => gone.push((memory, key)),
            }
        }
        let idle: Vec<Place> = self.tracked.iter().copied().filter(|p| !live.contains(p)).collect();
        for place in idle {
            let Some(slot) = tables.rings.slot(place.0, place.1).map(Slot) else { continue };
            if slot.settled() {
                tables.rings.write(place.0, place.1, slot.untrack().0)?;
                self.tracked.remove(&place);
            }
        }
        Ok(gone)
    }
}

/// Whether a flow has been silent for longer than its service remembers, or than one that is closing is worth. `seen` may
/// lag behind by a refresh.
pub fn expired(value: &FlowValue, timeout: Duration, now: u64) -> bool {
    let timeout = if value.closing() { timeout.min(Duration::from_nanos(CLOSING_NS)) } else { timeout };
    u128::from(now.saturating_sub(value.seen)) > timeout.as_nanos() + u128::from(REFRESH_NS + CLOCK_LAG_NS)
}

/// The slot that a flow falls on.
pub fn slot_of(service: &ServiceEntry, key: &FlowKey) -> u32 {
    let [[a, b], [c, d]] = key.ports.map(u16::to_ne_bytes);
    let ports = u32::from_ne_bytes([a, b, c, d]);
    hash::slot(hash::flow_of(service.key.family(), &key.client, ports, service.seed), service.slots)
}

/// Whether a settled slot says the same as an entry, or the entry's backend is not the one it was made for.
fn redundant(tables: &Tables, service: &ServiceEntry, index: u32, value: &FlowValue) -> bool {
    let backend = (value.index() < u32::from(NONE).min(service.capacity))
        .then(|| tables.backends.get(service.backends + value.index()))
        .flatten();
    if backend.is_none_or(|b| b.generation != value.generation) {
        return true;
    }
    if service.flags & TRACK_ALWAYS != 0 {
        return false;
    }
    tables
        .rings
        .slot(service.ring, index)
        .map(Slot)
        .is_some_and(|slot| slot.settled() && u32::from(slot.current()) == value.index())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Sizes;
    use lb_common::abi::{BackendEntry, Key};

    const SECOND: u64 = 1_000_000_000;

    fn sizes() -> Sizes {
        Sizes { services: 8, ring_lines: 32, backends: 4, reverse: 2, neighbours: 2, ..Sizes::default() }
    }

    fn lab(slot: Slot) -> (Tables, ServiceEntry, Timeouts) {
        let mut tables = Tables::in_memory(&sizes());
        let service = ServiceEntry {
            key: Key::endpoint(lb_common::addr::Addr::v4(1), 80, 6),
            id: 5,
            ring: 2,
            slots: 251,
            backends: 1,
            capacity: 2,
            ..ServiceEntry::default()
        };
        for n in 0..2 {
            tables
                .backends
                .put(1 + n, &BackendEntry { generation: 10 + n, ..BackendEntry::default() })
                .unwrap();
        }
        tables.services.put(&service).unwrap();
        for index in 0..251 {
            tables.rings.write(2, index, slot.0).unwrap();
        }
        (tables, service, Timeouts::from([(5, Duration::from_secs(30))]))
    }

    fn entry(memory: Memory, port: u16, backend: u32, seen: u64) -> Remembered {
        let key = FlowKey { ports: [port, 80], service: 5, ..FlowKey::default() };
        (memory, key, FlowValue { backend, generation: 10 + backend, made: 0, seen })
    }

    fn count(tables: &Tables, wanted: impl Fn(Slot) -> bool) -> usize {
        tables.rings.read(2, 251).into_iter().filter(|w| wanted(Slot(*w))).count()
    }

    #[test]
    fn windows_close_after_the_idle_timeout_and_not_before() {
        let (mut tables, service, timeouts) = lab(Slot::new(1, true, 0));
        let mut windows = Windows::adopt(&tables, 0);
        assert_eq!(windows.open(&service), 251);
        assert_eq!(windows.close(&mut tables, &timeouts, 30 * SECOND).unwrap(), 0);
        assert_eq!(windows.close(&mut tables, &timeouts, 31 * SECOND).unwrap(), 251);
        assert_eq!((windows.open(&service), count(&tables, |s| s == Slot::new(1, true, 1))), (0, 251));
    }

    #[test]
    fn a_sweep_keeps_what_disagrees_and_untracks_what_has_no_entry() {
        let (mut tables, service, timeouts) = lab(Slot::new(1, true, 1));
        let mut windows = Windows::adopt(&tables, 0);
        let disagrees = entry(Memory::Flows, 1000, 0, 50 * SECOND);
        let agrees = entry(Memory::Flows, 1001, 1, 50 * SECOND);
        let silent = entry(Memory::Flows, 1002, 0, 10 * SECOND);
        let embryo = entry(Memory::Embryonic, 1003, 0, 50 * SECOND);
        let mut replaced = entry(Memory::Flows, 1004, 0, 50 * SECOND);
        replaced.2.generation = 1;
        let mut foreign = entry(Memory::Flows, 1005, 0, 50 * SECOND);
        foreign.1.service = 6;
        let all = [disagrees, agrees, silent, embryo, replaced, foreign];
        let gone = windows.sweep(&mut tables, all, &timeouts, 55 * SECOND).unwrap();
        assert_eq!(gone, [agrees, silent, replaced, foreign].map(|(memory, key, _)| (memory, key)));
        let kept = [disagrees, embryo].map(|(_, key, _)| slot_of(&service, &key));
        assert_eq!(count(&tables, Slot::tracked), BTreeSet::from(kept).len());
        assert!(windows.any_tracked());
        let gone = windows.sweep(&mut tables, [], &timeouts, 55 * SECOND).unwrap();
        assert_eq!((gone.len(), count(&tables, Slot::tracked), windows.any_tracked()), (0, 0, false));
    }

    #[test]
    fn a_closing_flow_is_forgotten_after_a_minute_of_silence() {
        let (mut tables, ..) = lab(Slot::new(1, true, 1));
        let timeouts = Timeouts::from([(5, Duration::from_hours(1))]);
        let mut windows = Windows::adopt(&tables, 0);
        let mut closing = entry(Memory::Flows, 1000, 0, SECOND);
        closing.2 = closing.2.with_closing(true);
        let open = entry(Memory::Flows, 1001, 0, SECOND);
        let mut sweep = |now| windows.sweep(&mut tables, [closing, open], &timeouts, now * SECOND).unwrap();
        assert_eq!(sweep(62), []);
        assert_eq!(sweep(63), [(Memory::Flows, closing.1)]);
    }

    #[test]
    fn what_the_program_may_be_late_by_is_no_silence() {
        let (_, _, value) = entry(Memory::Flows, 1000, 0, 7);
        let late = 7 + 30 * SECOND + REFRESH_NS + CLOCK_LAG_NS;
        let timeout = Duration::from_secs(30);
        assert!(!expired(&value, timeout, late) && expired(&value, timeout, late + 1));
    }

    #[test]
    fn an_open_window_is_never_untracked() {
        let (mut tables, _, timeouts) = lab(Slot::new(1, true, 0));
        let mut windows = Windows::adopt(&tables, 0);
        windows.sweep(&mut tables, [], &timeouts, 0).unwrap();
        assert_eq!(count(&tables, Slot::tracked), 251);
    }
}
