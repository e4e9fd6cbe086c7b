//! `cargo xtask ci`: what a change must pass. Runs every step whatever the others said, and sums up.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::setup::{self, BPF_TARGET, Group};
use crate::shell::{cargo, root, run as run_command, succeeds, text};
use crate::toolchain::flags;
use crate::{fuzz, test, tidy};

type Step = fn() -> Result<Outcome>;

/// Seconds for each target: enough to see that it runs and that nothing lies near the corpus.
const FUZZING: u32 = 10;

const STEPS: [(&str, Step); 9] = [
    ("setup", || setup::run(&Group::ALL).map(passed)),
    ("format", format),
    ("lints", lints),
    ("lints of lb-ebpf", bpf_lints),
    ("documentation", documentation),
    ("tests", || test::run(None, &[]).map(passed)),
    ("fuzzing", || fuzz::run(None, FUZZING).map(passed)),
    ("licences and sources", licences),
    ("tidiness", || tidy::run().map(passed)),
];

/// Runs all steps.
///
/// # Errors
/// When a step failed; the table printed before says which.
pub(crate) fn run() -> Result<()> {
    let mut results = Vec::new();
    for (name, step) in STEPS {
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = step().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        let time = start.elapsed();
        println!("=== {name}: {outcome} ({})", seconds(time));
        results.push((name, outcome, time));
    }
    println!("\n{}", table(&results));
    let failed: Vec<_> =
        results.iter().filter(|(_, outcome, _)| outcome.is_failure()).map(|(name, ..)| *name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

#[derive(Debug)]
enum Outcome {
    Passed,
    Failed(String),
    /// Not run, and why.
    Skipped(&'static str),
}

impl Outcome {
    fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

fn passed((): ()) -> Outcome {
    Outcome::Passed
}

fn format() -> Result<Outcome> {
    step(component("fmt")?.args(["fmt", "--all", "--check"]))
}

fn lints() -> Result<Outcome> {
    let mut clippy = component("clippy")?;
    step(clippy.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--keep-going",
        "--",
        "-D",
        "warnings",
    ]))
}

/// The programs are empty for the host, so the lints above have not seen them.
fn bpf_lints() -> Result<Outcome> {
    let toolchain = setup::bpf_clippy().context("no clippy for BPF: run `cargo xtask setup`")?;
    let mut clippy = toolchain.cargo("clippy", BPF_TARGET);
    clippy.current_dir(root()).env("CARGO_ENCODED_RUSTFLAGS", flags(std::env::consts::ARCH).join("\x1f"));
    // Not the directory of the build: other flags, and cargo would throw away what it finds there.
    clippy.args(["--release", "--locked", "--target-dir"]).arg(root().join("target/ebpf-clippy"));
    step(clippy.args(["--", "-D", "warnings"]))
}

fn documentation() -> Result<Outcome> {
    step(cargo().env("RUSTDOCFLAGS", "-D warnings").args([
        "doc",
        "--workspace",
        "--no-deps",
        "--locked",
        "--keep-going",
    ]))
}

fn licences() -> Result<Outcome> {
    if !succeeds(cargo().args(["deny", "--version"])) {
        // Minutes to build on a small machine, and it looks only at dependencies: not for every run.
        return Ok(Outcome::Skipped("cargo-deny is not installed (`cargo install --locked cargo-deny`)"));
    }
    // Advisories need a database from the network, whose news must not break an unrelated change.
    step(cargo().args(["deny", "check", "bans", "licenses", "sources"]))
}

fn component(name: &str) -> Result<Command> {
    setup::component(name).with_context(|| format!("no `cargo {name}` here: run `cargo xtask setup`"))
}

fn step(command: &mut Command) -> Result<Outcome> {
    println!("{}", text(command));
    run_command(command).map(passed)
}

fn table(results: &[(&str, Outcome, Duration)]) -> String {
    let width = results.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
    let line = |(name, outcome, time): &(&str, Outcome, Duration)| {
        format!("{name:width$}  {:>8}  {outcome}", seconds(*time))
    };
    results.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_failures_and_reasons_for_skipping() {
        let results = [
            ("format", Outcome::Passed, Duration::from_millis(1234)),
            ("licences", Outcome::Skipped("no cargo-deny"), Duration::ZERO),
            ("tests", Outcome::Failed("two tests".into()), Duration::from_secs(60)),
        ];
        assert_eq!(
            table(&results),
            "format       1.2 s  passed\n\
             licences     0.0 s  skipped: no cargo-deny\n\
             tests       60.0 s  FAILED: two tests"
        );
        assert_eq!(results.iter().filter(|(_, outcome, _)| outcome.is_failure()).count(), 1);
    }
}
