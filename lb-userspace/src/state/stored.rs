//! The state as it stands in the file: JSON, with the configuration in its usual shape and judged by the usual rules.

use super::State;
use crate::config::check::from_shape;
use crate::config::export::to_shape;
use crate::config::file::File;
use crate::model::Health;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Version of this shape. A later one is not read.
const SCHEMA: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Stored {
    schema: u32,
    seed: u32,
    desired: File,
    health: BTreeMap<String, BTreeMap<SocketAddr, Health>>,
    announced: BTreeSet<Announced>,
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

/// Writes a state.
pub(super) fn write(state: &State) -> Result<Vec<u8>, serde_json::Error> {
    let stored = Stored {
        schema: SCHEMA,
        seed: state.seed,
        desired: to_shape(&state.desired, None),
        health: state.health.clone(),
        announced: state
            .announced
            .iter()
            .map(|(interface, address)| Announced { interface: interface.clone(), address: *address })
            .collect(),
    };
    let mut bytes = serde_json::to_vec_pretty(&stored)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a state, or says in a few words why not.
pub(super) fn read(bytes: &[u8]) -> Result<State, String> {
    let Version { schema } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if schema != SCHEMA {
        return Err(format!("it has schema {schema}, this version reads {SCHEMA}"));
    }
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let checked = from_shape(&stored.desired).map_err(|findings| {
        findings.into_iter().map(|finding| finding.message).collect::<Vec<_>>().join("; ")
    })?;
    Ok(State {
        desired: checked.desired,
        health: stored.health,
        announced: stored.announced.into_iter().map(|entry| (entry.interface, entry.address)).collect(),
        seed: stored.seed,
    })
}
