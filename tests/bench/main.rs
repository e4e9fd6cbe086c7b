//! `cargo xtask bench`: nanoseconds a packet, and what the control plane takes.
//!
//! Programs are run by BPF_PROG_RUN. With `repeat` that runs a program again on its own output, so a wrapper (crate
//! `lb-ebpf`, `bench.rs`) gives each run a fresh packet and jumps to the program under test. Everything is measured in
//! interleaved rounds on one CPU; results are medians, net of a program that only returns. Needs root.

mod agent;
mod cases;
mod control;
mod packets;
mod programs;
mod report;
#[path = "../../lb-ebpf/src/measure/shared.rs"]
mod shared;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use cases::Effort;
use clap::{Parser, ValueEnum};
use lb_userspace::lab::Namespace;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use programs::{INGRESS, Programs};
use report::Report;

/// Measures lb. Usually run by `cargo xtask bench`.
#[derive(Parser)]
#[command(name = "lb-bench")]
struct Arguments {
    /// The bench's eBPF object
    #[arg(long, value_name = "FILE")]
    object: PathBuf,
    /// The `lb` whose agent is measured
    #[arg(long, value_name = "FILE")]
    lb: PathBuf,
    /// What is measured
    #[arg(long, value_enum, default_value_t = Part::All)]
    part: Part,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Rounds; the median of them counts
    #[arg(long, value_name = "N", default_value_t = 15)]
    rounds: u32,
    /// Packets of one measurement
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    repeat: u32,
    /// Only packet cases whose name contains this; with an empty one, all
    #[arg(long, value_name = "TEXT", default_value = "")]
    case: String,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Everything.
    All,
    /// What a packet costs.
    Packets,
    /// What the control plane takes.
    Control,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(report) if arguments.json => match serde_json::to_string_pretty(&report) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error.into()),
        },
        Ok(report) => {
            print!("{}", report.table());
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn run(arguments: &Arguments) -> Result<Report> {
    // Two at once would measure each other, so what is there was left by one that was killed.
    lb_userspace::lab::cleanup("lb-bench-")?;
    world::remove_leftovers()?;
    let namespace = Namespace::create_unique("lb-bench")?;
    let mut report = Report::default();
    if arguments.part != Part::Control {
        report = namespace.run(|| packets(arguments, &namespace))??;
    }
    if arguments.part != Part::Packets {
        control::ring(&mut report.control);
        // Only its index is needed, as the way to the backends.
        namespace.run(|| control::change(&mut report.control, LOOPBACK))??;
        agent::start(&mut report.control, &arguments.lb)?;
        agent::checks(&mut report.control, &arguments.lb)?;
    }
    report.machine = report::machine();
    Ok(report)
}

/// The packet part, on a thread in the namespace.
fn packets(arguments: &Arguments, namespace: &Namespace) -> Result<Report> {
    pin()?;
    let anchors = programs::links(namespace)?;
    let ifindex = lb_userspace::dataplane::interfaces::index_of(INGRESS)?;
    let mut programs = Programs::load(&arguments.object, &anchors, ifindex)?;
    let effort = Effort { rounds: arguments.rounds.max(1), repeat: arguments.repeat.max(1) };
    cases::measure(&mut programs, ifindex, effort, &arguments.case)
}

/// Stays on the last CPU that it may use: the first is the busiest with interrupts.
fn pin() -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("no CPU may be used")?)?;
    sched_setaffinity(Pid::from_raw(0), &one).context("cannot stay on one CPU")
}
