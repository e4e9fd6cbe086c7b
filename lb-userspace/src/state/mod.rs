//! What survives a restart of the agent: `state.json`, the changes since in a journal, and the last good ones beside
//! them. They belong together: who keeps or restores a copy, does so with the whole directory.
//!
//! What is desired, including drains and their deadlines; what the checks last said, so that a restart does not take
//! dead backends for unknown ones; which addresses the agent put on interfaces, so that it can take them back; and the
//! seed that decides where flows fall. What lies in the kernel's maps is not here: the maps are pinned.
//!
//! Calls block on the disk: use them off the runtime's threads.

mod journal;
mod store;
mod stored;

pub use journal::Saved;
pub use store::{Error, Loaded, Store};

use crate::model::Desired;
use crate::plan::HealthMap;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// What the operator asked for.
    pub desired: Desired,
    /// What the checks last said. Unknown ones are left out.
    pub health: HealthMap,
    /// Addresses that the agent put on interfaces, by the interface's name.
    pub announced: BTreeSet<(String, IpAddr)>,
    /// Seed of every service's flow hash and ring. Made once; another one would move flows.
    pub seed: u32,
}

impl State {
    /// A state in which nothing is desired, with a seed of its own.
    pub fn fresh() -> Self {
        Self {
            desired: Desired::default(),
            health: HealthMap::new(),
            announced: BTreeSet::new(),
            seed: rand::random(),
        }
    }
}
