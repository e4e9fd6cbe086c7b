//! `lb agent`.

use crate::agent::AgentOptions;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `lb agent`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The data plane goes on while the agent is stopped, and the next agent takes it over.
Changes made on the command line are kept in the state directory; --config replaces them at start.

Examples:
  lb agent --config /etc/lb.toml
  lb agent --state /tmp/lb --socket /tmp/lb/lb.sock")]
pub struct AgentArgs {
    /// Configuration to put in force at start; without it, what was in force before
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the state file
    #[arg(long, value_name = "DIR", default_value = AgentOptions::STATE)]
    state: PathBuf,
    /// Seed of the cluster: balancers with the same seed and services choose the same backends; without it, the one
    /// that was made when the agent first started
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Tell of each packet that is dropped; without it, drops are only counted
    #[arg(long)]
    log_drops: bool,
}

pub(super) async fn run(args: AgentArgs, socket: PathBuf, pins: PathBuf) -> Result<()> {
    let AgentArgs { config, state, seed, log_drops } = args;
    crate::agent::run(AgentOptions { config, state, socket, pins, seed, log_drops }).await
}
