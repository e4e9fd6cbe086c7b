//! What the agent does about entries and windows as time passes.

use super::core::{Core, monotonic_ns};
use super::flows::{self, FlowCounts};
use super::windows::{Memory, Remembered, Timeouts};
use crate::model::{Admin, Desired};
use anyhow::Result;
use lb_common::abi::FlowKey;
use std::collections::BTreeSet;
use tokio::task::block_in_place;

/// Ticks between two looks at all flow entries.
const SWEEP: u64 = 5;

impl Core {
    pub(super) fn timeouts(&self) -> Timeouts {
        let timeout =
            |(name, id): (&String, &u32)| Some((*id, self.state.desired.services.get(name)?.idle_timeout));
        self.ids.iter().filter_map(timeout).collect()
    }

    /// Closes windows, and every few ticks looks at all entries.
    pub(super) fn remember_less(&mut self) {
        let (timeouts, now) = (self.timeouts(), monotonic_ns());
        if let Err(error) = self.windows.close(&mut self.tables, &timeouts, now) {
            self.failed("close windows", &error);
        }
        let draining = |d: &Desired| {
            d.services
                .values()
                .any(|s| s.backends.values().any(|b| matches!(b.admin, Admin::Draining { .. })))
        };
        let due = self.ticks.is_multiple_of(SWEEP) && self.windows.any_tracked();
        if !(due || draining(&self.state.desired)) {
            return;
        }
        if let Err(error) = block_in_place(|| self.sweep(&timeouts)) {
            self.failed("look at the flows", error.as_ref());
        }
    }

    pub(super) fn sweep(&mut self, timeouts: &Timeouts) -> Result<()> {
        let entries = self.remembered()?;
        let gone = self.windows.sweep(&mut self.tables, entries.iter().copied(), timeouts, monotonic_ns())?;
        let removed: BTreeSet<_> = gone.iter().map(|(_, key)| (key.client, key.ports, key.service)).collect();
        let left = entries.iter().filter(|(_, k, _)| !removed.contains(&(k.client, k.ports, k.service)));
        self.flows = FlowCounts::new(left, &self.ids, &self.tables);
        for (memory, keys) in flows::by_memory(gone) {
            self.forget(memory, &keys)?;
        }
        Ok(())
    }

    pub(super) fn forget_flows(&mut self, id: u32) -> Result<()> {
        let entries = self.remembered()?;
        let of =
            entries.iter().filter(|(_, key, _)| key.service == id).map(|(memory, key, _)| (*memory, *key));
        for (memory, keys) in flows::by_memory(of.collect()) {
            self.forget(memory, &keys)?;
        }
        Ok(())
    }

    /// Every entry of both tables.
    pub(super) fn remembered(&mut self) -> Result<Vec<Remembered>> {
        let mut all = Vec::new();
        for (memory, table) in &mut self.entries {
            table.for_each(|key, value| all.push((*memory, *key, *value)))?;
        }
        Ok(all)
    }

    pub(super) fn forget(&mut self, memory: Memory, keys: &[FlowKey]) -> Result<()> {
        for (which, table) in &mut self.entries {
            if *which == memory && !keys.is_empty() {
                table.delete(keys)?;
            }
        }
        Ok(())
    }
}
