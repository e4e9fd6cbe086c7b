//! `lb agent`.

use crate::agent::AgentOptions;
use crate::dataplane::Sizes;
use anyhow::{Context, Result};
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
    /// Entries of a table that does not exist yet, such as RINGS=1048576 (lines of 16 slots); may be repeated
    #[arg(long = "table", value_name = "NAME=ENTRIES", value_parser = parse_size)]
    tables: Vec<(String, u32)>,
    /// Tell of each packet that is dropped; without it, drops are only counted
    #[arg(long)]
    log_drops: bool,
}

pub(super) async fn run(args: AgentArgs, socket: PathBuf, pins: PathBuf) -> Result<()> {
    let AgentArgs { config, state, seed, tables, log_drops } = args;
    let mut sizes = Sizes::default();
    for (table, entries) in tables {
        sizes.set(&table, entries)?;
    }
    crate::agent::run(AgentOptions { config, state, socket, pins, seed, sizes, log_drops }).await
}

/// `NAME=ENTRIES`.
fn parse_size(text: &str) -> Result<(String, u32)> {
    let (table, entries) = text.split_once('=').context("write NAME=ENTRIES, such as FLOWS=1048576")?;
    let entries = entries.parse().with_context(|| format!("{entries:?} is not a number of entries"))?;
    Ok((table.to_owned(), entries))
}
