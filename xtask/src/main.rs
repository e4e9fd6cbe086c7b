//! Repository commands: everything one does with the sources of `lb`, and what CI does. `cargo xtask --help`.
//!
//! One file a command. Nothing of the product is here.

mod bench;
mod ci;
mod demo;
mod fuzz;
mod kernels;
mod setup;
mod shell;
mod test;
mod tidy;
#[path = "../../lb-userspace/build/toolchain.rs"]
mod toolchain;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What one does with the sources of lb.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, checking and testing need; say what and why; leave alone what is there
    Setup {
        /// Only say what would be installed
        #[arg(long)]
        dry_run: bool,
    },
    /// Set up, build, and run `lb demo`
    Demo {
        /// Passed to `lb demo`
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, build, and run the tests: all, or those whose name contains FILTER
    Test {
        /// Part of a test's name
        filter: Option<String>,
        /// Passed to the test programs, such as --nocapture
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Build the fuzz targets, and look for inputs for which something does not hold: all, or TARGET
    Fuzz {
        /// One of those in tests/fuzz/corpus
        target: Option<String>,
        /// How long each target runs
        #[arg(long, value_name = "N", default_value_t = 20)]
        seconds: u32,
    },
    /// Build for release, and measure: nanoseconds a packet, and what the control plane takes
    Bench {
        /// Compare with HAProxy, nginx, nftables and plain forwarding instead
        #[arg(long)]
        peers: bool,
        /// Rounds; the median of them counts
        #[arg(long, value_name = "N")]
        rounds: Option<u32>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Passed to the bench, such as --case NAT
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Boot Debian's kernels, old and new, in guests; load the programs and run the packet tests there
    Kernels {
        /// Which, such as 6.1; without any: Debian's stable ones and the newest
        series: Vec<kernels::Series>,
        /// Only packet tests with this in their name
        #[arg(long, value_name = "TEXT")]
        test: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What a change must pass: format, lints, documentation, tests, licences, tidiness
    Ci,
    /// Check that documents name what the code has, and that files stay short
    Tidy,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Task::Setup { dry_run: true } => {
            setup::show();
            Ok(())
        }
        Task::Setup { dry_run: false } => setup::run(&setup::Group::ALL),
        Task::Demo { arguments } => demo::run(&arguments),
        Task::Test { filter, arguments } => test::run(filter.as_deref(), &arguments),
        Task::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
        Task::Bench { peers, rounds, json, arguments } => {
            let json = json.then(|| "--json".into());
            let rounds = rounds.map(|rounds| format!("--rounds={rounds}").into());
            let all: Vec<OsString> = json.into_iter().chain(rounds).chain(arguments).collect();
            if peers { bench::peers(&all) } else { bench::run(&all) }
        }
        Task::Kernels { series, test, json } => kernels::run(&series, test.as_deref(), json),
        Task::Ci => ci::run(),
        Task::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
