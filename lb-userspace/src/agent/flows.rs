//! What `FLOWS` and `EMBRYONIC` hold, read as a whole every few seconds while there is anything in them.

use super::windows::{Memory, Remembered};
use crate::dataplane::Tables;
use lb_common::abi::FlowKey;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Flows with an entry, by service and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowCounts {
    counts: BTreeMap<(String, SocketAddr), Count>,
}

/// Flows of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Flows that have an entry and go on.
    pub(crate) entries: u64,
    /// Flows that have an entry and whose client has begun to close them.
    pub(crate) closing: u64,
}

impl FlowCounts {
    /// Counts entries by the backend that they name; those of replaced backends belong to nobody.
    pub(crate) fn new<'a>(
        entries: impl IntoIterator<Item = &'a Remembered>,
        ids: &BTreeMap<String, u32>,
        tables: &Tables,
    ) -> Self {
        let names: BTreeMap<u32, &String> = ids.iter().map(|(name, id)| (*id, name)).collect();
        let services: BTreeMap<u32, (&String, _)> =
            tables.services.iter().filter_map(|e| names.get(&e.id).map(|name| (e.id, (*name, e)))).collect();
        let mut counts: BTreeMap<(String, SocketAddr), Count> = BTreeMap::new();
        for (_, key, value) in entries {
            let Some((name, service)) = services.get(&key.service) else { continue };
            let backend = tables.backends.get(service.backends.saturating_add(value.index()));
            let Some(backend) = backend.filter(|b| b.generation == value.generation) else { continue };
            let address = SocketAddr::new(IpAddr::from(backend.addr), u16::from_be(backend.port));
            let count = counts.entry(((*name).clone(), address)).or_default();
            if value.closing() {
                count.closing += 1;
            } else {
                count.entries += 1;
            }
        }
        Self { counts }
    }

    /// Flows of a backend.
    pub(crate) fn on(&self, service: &str, backend: SocketAddr) -> Count {
        self.counts.get(&(service.to_owned(), backend)).copied().unwrap_or_default()
    }
}

/// Splits keys by the table that they lie in.
pub(crate) fn by_memory(keys: Vec<(Memory, FlowKey)>) -> [(Memory, Vec<FlowKey>); 2] {
    let of = |wanted| keys.iter().filter(|(memory, _)| *memory == wanted).map(|(_, key)| *key).collect();
    [(Memory::Flows, of(Memory::Flows)), (Memory::Embryonic, of(Memory::Embryonic))]
}
