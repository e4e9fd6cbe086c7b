//! Addresses that answer echo requests: those of services that say so, counted for the first of them by name.

use super::{Observed, Plan, Step};
use crate::dataplane::tables::Tables;
use crate::model::{Desired, Service};
use lb_common::abi::{Key, VipEntry};
use std::collections::{BTreeMap, BTreeSet};

fn answering(desired: &Desired) -> impl Iterator<Item = (Key, &Service)> {
    let services = desired.services.values().map(AsRef::as_ref).filter(|service: &&Service| service.echo);
    services.map(|service| (Key::address(service.listen.address.into()), service))
}

/// Plans the end of addresses that answer no more: before anything else, so that no answer is counted for somebody else.
pub(super) fn remove(plan: &mut Plan, desired: &Desired, observed: &Observed<'_>, tables: &Tables) {
    let wanted: BTreeSet<Key> = answering(desired).map(|(key, _)| key).collect();
    for entry in tables.vips.iter().filter(|entry| !wanted.contains(&entry.key)) {
        let named = observed.ids.iter().find(|(_, id)| **id == entry.service);
        plan.steps.push(Step::RemoveVip { service: named.map(|(name, _)| name.clone()), key: entry.key });
    }
}

/// Plans addresses that answer, once the ids of all services are known.
pub(super) fn put(plan: &mut Plan, desired: &Desired, tables: &Tables) {
    let mut wanted = BTreeMap::new();
    for (key, service) in answering(desired) {
        if let Some(id) = plan.ids.get(&service.name) {
            wanted.entry(key).or_insert((&service.name, *id));
        }
    }
    for (key, (name, service)) in wanted {
        let entry = VipEntry { key, service };
        if tables.vips.find(&key).map(|(_, found)| found) != Some(entry) {
            plan.steps.push(Step::Vip { service: name.clone(), entry });
        }
    }
}
