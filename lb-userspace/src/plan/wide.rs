//! Ranges of ports: which lists `RANGES` should hold, and when they change.
//!
//! A list comes into force at once, for all its ranges: services that gain one are in the table before, services that lose
//! one until everybody who has seen the old list is done. So no packet of an address goes nowhere while its ranges change.

use super::service::{entry_at, found, key, protocol, span, way};
use super::{Allocator, Plan, Step};
use crate::dataplane::tables::Tables;
use crate::model::{Desired, Mode};
use lb_common::abi::ranges::{ANY, PER_ADDRESS, word};
use lb_common::abi::{Key, ServiceEntry};
use std::collections::{BTreeMap, HashSet};

/// The lists as they are after the steps so far, and what has to wait for the last ones.
pub(super) struct Wide<'a> {
    tables: &'a Tables,
    lists: BTreeMap<Key, Vec<u32>>,
    /// Services that listen elsewhere now: name, and the key that they had.
    moved: Vec<(String, Key)>,
    /// Ways back that nothing needs: name and id of the service, and the key.
    stale: Vec<(String, u32, Key)>,
}

impl<'a> Wide<'a> {
    pub(super) fn new(tables: &'a Tables) -> Self {
        Self { tables, lists: BTreeMap::new(), moved: Vec::new(), stale: Vec::new() }
    }

    fn list(&self, key: &Key) -> Vec<u32> {
        self.lists.get(key).cloned().unwrap_or_else(|| self.tables.ranges.list(key))
    }

    fn put(&mut self, plan: &mut Plan, key: Key, list: Vec<u32>) {
        plan.steps.push(Step::Ranges { key, list: list.clone() });
        self.lists.insert(key, list);
    }

    /// Packets from a backend find a way back from here on. Where old and new ranges have no room together, they do so with
    /// the last step.
    pub(super) fn grow(&mut self, plan: &mut Plan, way: Key, span: u32) {
        let key = Key::ranges(way.addr, way.protocol()).of_source();
        let mut list = self.list(&key);
        if !list.contains(&span) && list.len() < PER_ADDRESS {
            list.push(span);
            self.put(plan, key, in_order(list));
        }
    }

    /// A service that is gone is found by nobody from here on.
    pub(super) fn forget(&mut self, plan: &mut Plan, entry: &ServiceEntry) {
        if !entry.key.is_wide() {
            return;
        }
        let here = Key::ranges(entry.key.addr, entry.key.protocol());
        let mut gone = vec![(here, span(&entry.key, entry.last))];
        let block = (entry.backends..entry.backends + entry.capacity).map(|n| entry_at(self.tables, n));
        for backend in block.filter(|backend| backend.generation != 0) {
            let (way, last) = way(&entry.key, entry.last, &backend);
            if found(self.tables, &way).is_some_and(|found| found.service == entry.id) {
                gone.push((Key::ranges(way.addr, way.protocol()).of_source(), span(&way, last)));
            }
        }
        for (key, span) in gone {
            let mut list = self.list(&key);
            if list.contains(&span) {
                list.retain(|word| *word != span);
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
    pub(super) fn settle(mut self, plan: &mut Plan, desired: &Desired, allocator: &Allocator<'_>) {
        let wanted = wanted(desired);
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
        if self.moved.is_empty() && self.stale.is_empty() {
            return;
        }
        plan.steps.push(Step::Grace);
        let taken: HashSet<Key> = desired.services.values().map(|service| key(service)).collect();
        for (name, was) in self.moved.into_iter().filter(|(_, was)| !taken.contains(was)) {
            plan.steps.push(Step::RemoveService { service: Some(name), key: was });
        }
        for (name, id, way) in self.stale {
            let its_own = found(self.tables, &way).is_some_and(|found| found.service == id);
            if its_own && !allocator.ways.contains(&way) {
                plan.steps.push(Step::RemoveReverse { service: Some(name), key: way });
            }
        }
    }
}

/// Every list that there should be.
fn wanted(desired: &Desired) -> BTreeMap<Key, Vec<u32>> {
    let mut lists: BTreeMap<Key, Vec<u32>> = BTreeMap::new();
    for service in desired.services.values().filter(|service| service.listen.ports.is_wide()) {
        let (protocol, ports) = (protocol(service.listen.protocol), service.listen.ports);
        let here = Key::ranges(service.listen.address.into(), protocol);
        lists.entry(here).or_default().push(word(ports.first(), ports.last()));
        if service.mode != Mode::Nat {
            continue;
        }
        for address in service.backends.keys() {
            // Ranges that do not fit are refused before.
            let Some(ports) = ports.at_backend(address.port()) else { continue };
            let from = Key::ranges(address.ip().into(), protocol).of_source();
            lists.entry(from).or_default().push(word(ports.first(), ports.last()));
        }
    }
    lists.into_iter().map(|(key, list)| (key, in_order(list))).collect()
}

/// The order in which ranges are looked at: every port comes last.
fn in_order(mut list: Vec<u32>) -> Vec<u32> {
    list.sort_unstable_by_key(|word| (*word == ANY, *word));
    list.dedup();
    list
}
