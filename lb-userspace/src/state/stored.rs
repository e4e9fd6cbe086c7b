//! The state as it stands in the file: JSON, with the configuration in its usual shape and judged by the usual rules.

use super::State;
use crate::config::check::from_shape;
use crate::config::export::{service, to_shape};
use crate::config::file::{self, Agent, File};
use crate::model::{Desired, Health};
use crate::plan::HealthMap;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Version of this shape. A later one is not read.
const SCHEMA: u32 = 2;
/// The earliest one that is read: it had no journal.
const EARLIEST: u32 = 1;

/// What is read.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Stored {
    schema: u32,
    /// Name of this snapshot, see [`super::journal`].
    #[serde(default)]
    journal: Option<String>,
    seed: u32,
    desired: File,
    health: HealthMap,
    announced: BTreeSet<Announced>,
}

/// What is written: the same, without a copy of everything in its shape.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Snapshot<'a> {
    schema: u32,
    journal: &'a str,
    seed: u32,
    desired: Shape<'a>,
    health: &'a HealthMap,
    announced: BTreeSet<Announced>,
}

/// The configuration, brought into its shape service by service.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shape<'a> {
    agent: Agent,
    #[serde(serialize_with = "services")]
    service: &'a Desired,
}

fn services<S: Serializer>(desired: &Desired, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(desired.services.values().map(|shared| service(shared)))
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Announced {
    interface: String,
    address: IpAddr,
}

/// Only this is looked at before the rest is believed.
#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// What is different after a change.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Record {
    /// What concerns the agent, if it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Agent>,
    /// Services that are new or different, whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    services: Vec<file::Service>,
    /// Services that are gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
    /// Health of all backends of services that something changed of.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    health: BTreeMap<String, BTreeMap<SocketAddr, Health>>,
    /// Addresses that are announced, if they changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    announced: Option<BTreeSet<Announced>>,
}

impl Record {
    /// What is so of these services, and of interfaces and announced addresses if they changed.
    pub(super) fn new(state: &State, names: &BTreeSet<&str>, interfaces: bool, announced: bool) -> Self {
        let mut record = Self {
            agent: interfaces.then(|| agent(&state.desired)),
            announced: announced.then(|| to_announced(state)),
            ..Self::default()
        };
        for name in names.iter().copied() {
            match state.desired.services.get(name) {
                Some(desired) => {
                    record.services.push(service(desired));
                    let health = state.health.get(name).cloned().unwrap_or_default();
                    record.health.insert(name.to_owned(), health);
                }
                None => record.removed.push(name.to_owned()),
            }
        }
        record
    }
}

impl Stored {
    /// Its name.
    pub(super) fn name(&self) -> Option<&str> {
        self.journal.as_deref()
    }

    /// Does the changes of a journal, in their order.
    pub(super) fn apply(&mut self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let services = std::mem::take(&mut self.desired.service);
        let mut services: BTreeMap<String, file::Service> =
            services.into_iter().map(|service| (service.name.clone(), service)).collect();
        for record in records {
            if let Some(agent) = record.agent {
                self.desired.agent = agent;
            }
            for name in record.removed {
                services.remove(&name);
                self.health.remove(&name);
            }
            services.extend(record.services.into_iter().map(|service| (service.name.clone(), service)));
            self.health.extend(record.health);
            if let Some(announced) = record.announced {
                self.announced = announced;
            }
        }
        self.health.retain(|_, known| !known.is_empty());
        self.desired.service = services.into_values().collect();
    }

    /// The state, if the usual rules allow it; else in a few words why not.
    pub(super) fn judge(self) -> Result<State, String> {
        let checked = from_shape(&self.desired).map_err(|findings| {
            findings.into_iter().map(|finding| finding.message).collect::<Vec<_>>().join("; ")
        })?;
        Ok(State {
            desired: checked.desired,
            health: self.health,
            announced: self.announced.into_iter().map(|entry| (entry.interface, entry.address)).collect(),
            seed: self.seed,
        })
    }
}

fn agent(desired: &Desired) -> Agent {
    let alone = Desired { services: BTreeMap::new(), ..desired.clone() };
    to_shape(&alone, None).agent
}

fn to_announced(state: &State) -> BTreeSet<Announced> {
    let announced = state.announced.iter();
    announced
        .map(|(interface, address)| Announced { interface: interface.clone(), address: *address })
        .collect()
}

/// Writes a state. `journal` names the snapshot.
pub(super) fn write(state: &State, journal: &str) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec(&Snapshot {
        schema: SCHEMA,
        journal,
        seed: state.seed,
        desired: Shape { agent: agent(&state.desired), service: &state.desired },
        health: &state.health,
        announced: to_announced(state),
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a snapshot, or says in a few words why not. Nothing is believed yet, see [`Stored::judge`].
pub(super) fn parse(bytes: &[u8]) -> Result<Stored, String> {
    let parsed = serde_json::from_slice::<Stored>(bytes);
    let schema = match &parsed {
        Ok(stored) => stored.schema,
        // Another schema has other keys: that it is another one says more.
        Err(error) => {
            let version = serde_json::from_slice::<Version>(bytes);
            version.map_err(|_| error.to_string())?.schema
        }
    };
    if !(EARLIEST..=SCHEMA).contains(&schema) {
        return Err(format!("it has schema {schema}, this version reads {EARLIEST} to {SCHEMA}"));
    }
    parsed.map_err(|error| error.to_string())
}
