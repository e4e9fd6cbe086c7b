//! `cargo xtask bench --peers`: the same load through `lb` and other balancers, and through none.
//!
//! One network, one client, the same backends; the ways take turns, and turns go round and round, so that what else
//! happens on the machine meets all of them. Client, backends and balancer share the processors of one machine: what a
//! balancer costs is the processor time of the whole machine a request, less that of plain forwarding. Needs root.

mod cpu;
mod load;
mod network;
mod report;
mod servers;
mod ways;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lb_tests::measured;
use lb_userspace::lab::{self, wait};

use load::{Load, Sample};
use network::{Network, PREFIX};
use report::{Report, Samples};
use servers::{PATIENCE, Servers};
use ways::{Turn, Way};

/// Compares lb with other balancers. Usually run by `cargo xtask bench --peers`.
#[derive(Parser)]
#[command(name = "lb-peers")]
struct Arguments {
    /// The `lb` that is compared
    #[arg(long, value_name = "FILE")]
    lb: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Rounds; the median of them counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of one measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// The share of the processors that others may have during a measurement: with more, it is repeated.
const OTHERS: f64 = 0.04;
/// How often one is repeated at most.
const REPEATS: u32 = 15;

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<String> {
    // Two at once would measure each other, so what is there was left by one that was killed.
    lab::cleanup(&format!("{PREFIX}-"))?;
    ways::remove_pins()?;
    let interrupted = interrupted()?;
    let home = tempfile::tempdir()?;
    let network = Network::build()?;
    let _servers = Servers::start(&network, home.path())?;
    let offloads = network.offloads()?;

    let mut samples = Samples::new();
    let mut repeated = 0;
    for round in 1..=arguments.rounds {
        for (number, way) in Way::ALL.into_iter().enumerate() {
            eprint!("\rround {round} of {}: {way:<30}", arguments.rounds);
            network.source(number)?;
            let turn = Turn::start(way, &network, &arguments.lb, home.path())?;
            for load in Load::ALL.into_iter().filter(|load| way.carries(*load)) {
                let once = || {
                    ensure!(!interrupted.load(Ordering::Relaxed), "interrupted; nothing was left behind");
                    let duration = Duration::from_secs(arguments.seconds);
                    load::run(load, &network.client, &turn.targets, duration, turn.group(), home.path())
                        .with_context(|| way.to_string())
                };
                let (sample, more) = undisturbed(once)?;
                repeated += more;
                samples.entry((load, way)).or_default().push(sample);
            }
            drop(turn);
            // The kernel lets go of a program a little after its pin is gone, and only then restores the driver.
            let restored = || network.offloads().is_ok_and(|now| now == offloads);
            wait::until("offloads to be as they were", PATIENCE, restored)
                .with_context(|| format!("after {way}"))?;
        }
    }
    eprintln!();
    let report = Report {
        machine: measured::machine(),
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        repeated,
        others_max: samples.values().flatten().map(|sample| sample.others).fold(0.0, f64::max),
        cells: report::cells(&samples),
    };
    Ok(if arguments.json { serde_json::to_string_pretty(&report)? } else { report.tables() })
}

/// Measures until nobody else has much of the processors meanwhile, or it is too often, and says how often more than
/// once. What a measurement comes to has no part in that.
fn undisturbed(mut once: impl FnMut() -> Result<Sample>) -> Result<(Sample, u32)> {
    let mut sample = once()?;
    for more in 0..REPEATS {
        if sample.others <= OTHERS {
            return Ok((sample, more));
        }
        sample = once()?;
    }
    Ok((sample, REPEATS))
}

/// Becomes true at Ctrl-C or a request to end, which from now on end nothing by themselves.
fn interrupted() -> Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let told = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&told);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate] = &mut signals;
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        flag.store(true, Ordering::Relaxed);
    });
    Ok(told)
}
