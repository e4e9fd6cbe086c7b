//! The command line's shape. Each verb's own arguments stand in its file.

use super::{agent, apply, attach, backend, decap, demo, doctor, explain, generate, pass, service, stats};
use crate::agent::AgentOptions;
use crate::api::DEFAULT_SOCKET;
use crate::model::{InvalidText, parse_backend};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  lb agent                                    the daemon, in the foreground
  lb attach eth0
  lb service add web tcp://192.0.2.10:443 --backend 10.0.0.11:8443 --backend 10.0.0.12:8443
  lb status
  lb backend drain web 10.0.0.11:8443 --for 60s
  lb explain tcp 198.51.100.7:40000 192.0.2.10:443

Exit codes: 0 done (or already so), 1 failed, 2 wrong usage, 3 not found, 4 conflict with what exists";

/// A layer-4 load balancer in the kernel: XDP programs, and the agent that runs them.
#[derive(Clone, Debug, Parser)]
#[command(name = "lb", version, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    /// What every verb understands.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// What every verb understands.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// How results are printed; JSON is stable and one document
    #[arg(short, long, global = true, value_enum, default_value = "table", help_heading = "Global options")]
    pub output: Format,
    /// Socket of the agent
    #[arg(long, global = true, value_name = "PATH", env = "LB_SOCKET", default_value = DEFAULT_SOCKET,
          help_heading = "Global options")]
    pub socket: PathBuf,
    /// Directory of pinned maps and programs, on a BPF file system
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "LB_PINS",
        default_value = AgentOptions::PINS,
        help_heading = "Global options"
    )]
    pub pins: PathBuf,
    /// Print without colours; so do NO_COLOR and a pipe
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_color: bool,
    /// Tell more on stderr; twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide terminals: more columns, exact numbers.
    Wide,
    /// For programs.
    Json,
}

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show it working in a small network of namespaces on this machine
    Demo(demo::DemoArgs),
    /// Run the daemon, in the foreground
    Agent(agent::AgentArgs),
    /// Attach the balancer to interfaces
    Attach(attach::AttachArgs),
    /// Detach the balancer from interfaces
    Detach(attach::DetachArgs),
    /// Add, change, remove and show services
    #[command(subcommand, visible_alias = "svc")]
    Service(service::ServiceCommand),
    /// Add, change, drain, remove and list the backends of services
    #[command(subcommand)]
    Backend(backend::BackendCommand),
    /// Put a configuration file in force, in place of everything before
    Apply(apply::ApplyArgs),
    /// Show what applying a file would change
    Diff(apply::DiffArgs),
    /// Print what is in force as a configuration file
    Export,
    /// Check a configuration file; needs no agent
    Check(apply::CheckArgs),
    /// Show agent, interfaces, services and what needs attention
    Status,
    /// Show what the kernel counted
    Stats(stats::StatsArgs),
    /// Ask the loaded program what it does with a packet, and why; changes nothing
    Explain(explain::ExplainArgs),
    /// Look for what keeps this machine from balancing well
    Doctor(doctor::DoctorArgs),
    /// Attach a program that passes everything: the far end of a veth needs one
    Pass(pass::PassArgs),
    /// Take packets of services in mode ipip or gue out of those around them, on a backend
    Decap(decap::DecapArgs),
    /// Print a completion script
    Completions(generate::CompletionsArgs),
    /// Print the manual page
    Man(generate::ManArgs),
}

/// A flag of every verb that changes something.
#[derive(Clone, Copy, Debug, Args)]
pub struct DryRun {
    /// Only show what would happen
    #[arg(long)]
    pub dry_run: bool,
}

/// A duration as people write it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 30s, 5m or 1h30m"))
}

/// A backend's address: judged here, sent as it was written.
pub(super) fn backend_address(text: &str) -> Result<String, InvalidText> {
    // Any port: the service's is used by the agent.
    parse_backend(text, 1).map(|_| text.to_owned())
}

/// A text that must mean something as a `T`, sent as it was written.
pub(super) fn word<T: std::str::FromStr<Err = InvalidText>>(text: &str) -> Result<String, InvalidText> {
    text.parse::<T>().map(|_| text.to_owned())
}
