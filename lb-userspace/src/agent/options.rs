//! What an agent is told when it starts.

use crate::dataplane::Sizes;
use std::path::PathBuf;

/// Options of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    /// Configuration that is put in the place of what was desired before; `None`: go on with that.
    pub config: Option<PathBuf>,
    /// Directory of the state file.
    pub state: PathBuf,
    /// Socket of the API.
    pub socket: PathBuf,
    /// Directory of pinned maps, programs and links; on a BPF file system.
    pub pins: PathBuf,
    /// Seed of rings and flow hashes: balancers with the same seed and services send every flow to the same backend.
    /// `None`: the one in the state, made when the agent first started.
    pub seed: Option<u32>,
    /// Sizes of tables that do not exist yet; those that are pinned keep theirs.
    pub sizes: Sizes,
    /// Tell of each packet that the program drops.
    pub log_drops: bool,
}

impl AgentOptions {
    /// Where the state file is if nothing else is said.
    pub const STATE: &'static str = "/var/lib/lb";
    /// Where pins are if nothing else is said.
    pub const PINS: &'static str = "/sys/fs/bpf/lb";
}
