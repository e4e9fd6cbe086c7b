//! Services that listen on several ports: which lists `RANGES` should hold, and when they change.
//!
//! A list comes into force at once, for all its ranges. What it names is in the tables before, and what only the old one
//! named stays until everybody who has seen that is done: while ranges change, each packet belongs to its old service or to
//! its new one.

use super::service::{entry_at, exact, found, protocol, way};
use super::{Allocator, Plan, Step};
use crate::dataplane::tables::Tables;
use crate::model::{Desired, Mode, Service};
use lb_common::abi::ranges::{PER_ADDRESS, ends, service, word};
use lb_common::abi::{Key, ServiceEntry};
use std::collections::{BTreeMap, HashSet};

/// The lists as they are after the steps so far, and what has to wait for the last ones.
pub(super) struct Wide<'a> {
    desired: &'a Desired,
    tables: &'a Tables,
    lists: BTreeMap<Key, Vec<u64>>,
    /// Services that listen elsewhere now: name, and the key that they had.
    moved: Vec<(String, Key)>,
    /// Ways back that nothing needs: name and id of the service, and the key.
    stale: Vec<(String, u32, Key)>,
}

impl<'a> Wide<'a> {
    pub(super) fn new(desired: &'a Desired, tables: &'a Tables) -> Self {
        Self { desired, tables, lists: BTreeMap::new(), moved: Vec::new(), stale: Vec::new() }
    }

    fn list(&self, key: &Key) -> Vec<u64> {
        self.lists.get(key).cloned().unwrap_or_else(|| self.tables.ranges.list(key))
    }

    fn put(&mut self, plan: &mut Plan, key: Key, list: Vec<u64>) {
        plan.steps.push(Step::Ranges { key, list: list.clone() });
        self.lists.insert(key, list);
    }

    /// Replies of a service's backends find their way back from here on: before anything is sent there. Where old and new
    /// ranges have no room together, they do so with the last step.
    pub(super) fn grow(&mut self, plan: &mut Plan, service: &Service, id: u32) {
        for (key, word) in ranges(service, id).into_iter().filter(|(key, _)| key.is_of_source()) {
            let mut list = self.list(&key);
            if !list.contains(&word) && list.len() < PER_ADDRESS {
                list.push(word);
                self.put(plan, key, in_order(list));
            }
        }
    }

    /// A service that is gone is found by nobody from here on.
    pub(super) fn forget(&mut self, plan: &mut Plan, entry: &ServiceEntry) {
        if !entry.key.is_wide() {
            return;
        }
        let block = (entry.backends..entry.backends + entry.capacity).map(|n| entry_at(self.tables, n));
        let ways = block.filter(|backend| backend.generation != 0).map(|backend| way(entry, &backend));
        let sources: Vec<Key> = ways.map(|way| Key::ranges(way.addr, way.protocol()).of_source()).collect();
        for key in [Key::ranges(entry.key.addr, entry.key.protocol())].into_iter().chain(sources) {
            let mut list = self.list(&key);
            if list.iter().any(|word| service(*word) == entry.id) {
                list.retain(|word| service(*word) != entry.id);
                self.put(plan, key, list);
            }
        }
    }

    /// A service listens elsewhere; what finds it where it was is taken out last.
    pub(super) fn moved(&mut self, name: &str, was: Key) {
        self.moved.push((name.into(), was));
    }

    /// A way back that a service does not need any more is taken out last.
    pub(super) fn stale(&mut self, name: &str, id: u32, way: Key) {
        self.stale.push((name.into(), id, way));
    }

    /// Puts the lists in force that are right, and then takes out what is out of sight.
    pub(super) fn settle(mut self, plan: &mut Plan, allocator: &Allocator<'_>) {
        let wanted = wanted(self.desired, &plan.ids);
        let there: Vec<Key> = self.tables.ranges.iter().map(|entry| entry.key).collect();
        let known = there.into_iter().chain(self.lists.keys().copied());
        let mut keys: Vec<Key> = known.chain(wanted.keys().copied()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let list = wanted.get(&key).cloned().unwrap_or_default();
            if self.list(&key) != list {
                self.put(plan, key, list);
            }
        }
        let late = self.late(allocator);
        if !late.is_empty() && !self.lists.is_empty() {
            plan.steps.push(Step::Grace);
        }
        plan.steps.extend(late);
    }

    /// What nobody finds any more.
    fn late(&self, allocator: &Allocator<'_>) -> Vec<Step> {
        let mut late = Vec::new();
        if !self.moved.is_empty() {
            // Where another one listens now, there is nothing to take out.
            let taken: HashSet<Key> = self.desired.services.values().filter_map(|s| exact(s)).collect();
            let free = self.moved.iter().filter(|(_, was)| !taken.contains(was));
            late.extend(
                free.map(|(name, was)| Step::RemoveService { service: Some(name.clone()), key: *was }),
            );
        }
        let ways = self.stale.iter().filter(|(_, id, way)| {
            let its_own = found(self.tables, way).is_some_and(|found| found.service == *id);
            its_own && !allocator.ways.contains(way)
        });
        late.extend(
            ways.map(|(name, _, way)| Step::RemoveReverse { service: Some(name.clone()), key: *way }),
        );
        late
    }
}

/// The ranges of a service: where packets come to, and where replies come from.
fn ranges(service: &Service, id: u32) -> Vec<(Key, u64)> {
    let (listen, protocol) = (service.listen, protocol(service.listen.protocol));
    if !listen.ports.is_wide() {
        return Vec::new();
    }
    let here = Key::ranges(listen.address.into(), protocol);
    let mut all = vec![(here, word(listen.ports.first(), listen.ports.last(), id))];
    if service.mode == Mode::Nat {
        all.extend(service.backends.keys().filter_map(|address| {
            // Ranges that do not fit are refused before.
            let ports = listen.ports.at_backend(address.port())?;
            let from = Key::ranges(address.ip().into(), protocol).of_source();
            Some((from, word(ports.first(), ports.last(), id)))
        }));
    }
    all
}

/// Every list that there should be.
fn wanted(desired: &Desired, ids: &BTreeMap<String, u32>) -> BTreeMap<Key, Vec<u64>> {
    let mut lists: BTreeMap<Key, Vec<u64>> = BTreeMap::new();
    let all = desired.services.values().filter_map(|service| Some((service, *ids.get(&service.name)?)));
    for (key, word) in all.flat_map(|(service, id)| ranges(service, id)) {
        lists.entry(key).or_default().push(word);
    }
    lists.into_iter().map(|(key, list)| (key, in_order(list))).collect()
}

/// The order in which ranges are looked at: every port comes last.
fn in_order(mut list: Vec<u64>) -> Vec<u64> {
    list.sort_unstable_by_key(|word| {
        let (first, last) = ends(*word);
        (first == 0, first, last, service(*word))
    });
    list
}
