//! Drains that end: at their deadline, or when nobody is left.

use super::flows::FlowCounts;
use super::windows::Windows;
use crate::config::Change;
use crate::dataplane::Tables;
use crate::model::{Admin, Desired, shown};
use std::collections::BTreeMap;

/// The changes that end drains: backends that leave now.
///
/// Nobody is left on a backend when the windows that opened when its drain began are closed, and no entry names it: a
/// flow that was silent for the service's idle timeout is over by that rule.
pub(crate) fn ended(
    desired: &Desired,
    ids: &BTreeMap<String, u32>,
    windows: &Windows,
    tables: &Tables,
    flows: &FlowCounts,
    now: u64,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for service in desired.services.values() {
        let entry = || ids.get(&service.name).and_then(|id| tables.services.iter().find(|e| e.id == *id));
        for backend in service.backends.values() {
            let Admin::Draining { until, remove: true } = backend.admin else { continue };
            let late = until.is_some_and(|until| now >= until);
            let empty = || {
                // A client that closes its end may still be reading.
                let left = flows.on(&service.name, backend.address);
                entry().is_some_and(|e| windows.open(&e) == 0) && left.entries + left.closing == 0
            };
            if late || empty() {
                changes.push(Change::RemoveBackend {
                    service: service.name.clone(),
                    address: shown(&backend.address),
                });
            }
        }
    }
    changes
}
