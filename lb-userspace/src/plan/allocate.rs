//! Room in the tables: which ids, rows, lines and entries are free. Derived from the tables at each plan, never kept.

use super::PlanError;
use crate::dataplane::Sizes;
use crate::dataplane::tables::Tables;
use lb_common::abi::{Key, ServiceEntry, ring};
use std::collections::{BTreeSet, HashSet};

/// Free room, as of one plan.
pub(super) struct Allocator<'a> {
    tables: &'a Tables,
    sizes: &'a Sizes,
    ids: BTreeSet<u32>,
    lines: Spans,
    backends: Spans,
    /// Which rows of `COUNTERS` are in use; computed when the first one is asked for.
    rows: Option<Vec<bool>>,
    /// Rows below are in use: a plan takes rows, it never gives one back.
    first_row: u32,
    generation: u32,
    /// Ways back that this plan writes: those are nobody else's to take out.
    pub(super) ways: HashSet<Key>,
}

/// Parts of a table that are in use: start and length, never overlapping.
#[derive(Default)]
struct Spans(BTreeSet<(u32, u32)>);

impl Spans {
    fn used(&self) -> u32 {
        self.0.iter().map(|(_, len)| len).sum()
    }

    /// Takes the first gap that is long enough.
    fn take(&mut self, len: u32, size: u32) -> Option<u32> {
        let mut at = 0;
        for (start, used) in &self.0 {
            if start - at >= len {
                break;
            }
            at = start + used;
        }
        if size.saturating_sub(at) < len {
            return None;
        }
        self.0.insert((at, len));
        Some(at)
    }
}

impl<'a> Allocator<'a> {
    pub(super) fn new(tables: &'a Tables, sizes: &'a Sizes) -> Self {
        let mut this = Self {
            tables,
            sizes,
            ids: BTreeSet::new(),
            lines: Spans::default(),
            backends: Spans::default(),
            rows: None,
            first_row: 0,
            generation: tables.settings.get().generation,
            ways: HashSet::new(),
        };
        for entry in tables.services.iter() {
            this.ids.insert(entry.id);
            this.lines.0.insert((entry.ring, ring::lines(entry.slots)));
            this.backends.0.insert((entry.backends, entry.capacity));
        }
        this
    }

    /// Gives back what a removed service held.
    pub(super) fn release(&mut self, entry: &ServiceEntry) {
        self.ids.remove(&entry.id);
        self.lines.0.remove(&(entry.ring, ring::lines(entry.slots)));
        self.release_backends(entry.backends, entry.capacity);
    }

    /// Gives back a block of backends.
    pub(super) fn release_backends(&mut self, start: u32, capacity: u32) {
        self.backends.0.remove(&(start, capacity));
    }

    /// An id for a service: also its row of `REASONS`.
    pub(super) fn id(&mut self, service: &str) -> Result<u32, PlanError> {
        // Keys of services with several ports have 16 bits for it.
        let size = self.sizes.reasons.min(1 << 16);
        let id = (1..size).find(|id| !self.ids.contains(id)).ok_or_else(|| PlanError::Full {
            what: "the table of services",
            service: service.into(),
            used: self.ids.len() as u32,
            size: size - 1,
            wanted: 1,
            unit: "services",
        })?;
        self.ids.insert(id);
        Ok(id)
    }

    /// Lines for a ring.
    pub(super) fn ring(&mut self, service: &str, slots: u32) -> Result<u32, PlanError> {
        let (size, wanted) = (self.sizes.ring_lines, ring::lines(slots));
        self.lines.take(wanted, size).ok_or_else(|| PlanError::Full {
            what: "the table of rings",
            service: service.into(),
            used: self.lines.used(),
            size,
            wanted,
            unit: "lines of 16 slots",
        })
    }

    /// A block of backends.
    pub(super) fn backends(&mut self, service: &str, capacity: u32) -> Result<u32, PlanError> {
        let size = self.sizes.backends;
        self.backends.take(capacity, size).ok_or_else(|| PlanError::Full {
            what: "the table of backends",
            service: service.into(),
            used: self.backends.used(),
            size,
            wanted: capacity,
            unit: "entries",
        })
    }

    /// A row of `COUNTERS`.
    pub(super) fn row(&mut self, service: &str) -> Result<u32, PlanError> {
        let tables = self.tables;
        let rows = self.rows.get_or_insert_with(|| {
            let entries = tables.services.iter().flat_map(|s| s.backends..s.backends + s.capacity);
            let used = entries.filter_map(|n| tables.backends.get(n)).filter(|b| b.generation != 0);
            let mut rows = vec![false; self.sizes.counters as usize];
            for used in used.map(|b| b.counters).chain(tables.services.iter().map(|s| s.past)) {
                // A row beyond the table is nobody's to give out.
                if let Some(row) = rows.get_mut(used as usize) {
                    *row = true;
                }
            }
            rows
        });
        let size = self.sizes.counters;
        let row = (self.first_row..size).find(|row| !rows[*row as usize]).ok_or_else(|| PlanError::Full {
            what: "the table of counters",
            service: service.into(),
            used: rows.iter().filter(|used| **used).count() as u32,
            size,
            wanted: 1,
            unit: "rows",
        })?;
        rows[row as usize] = true;
        self.first_row = row + 1;
        Ok(row)
    }

    /// A generation that no entry has had: counts up, never 0.
    pub(super) fn generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.generation
    }
}
