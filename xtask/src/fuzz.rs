//! `cargo xtask fuzz`: libFuzzer looks for inputs for which something does not hold. The targets are in `tests/fuzz`.
//!
//! The compiler in use does it: LLVM's coverage is a pass that stable rustc runs too, and libFuzzer comes as sources. What is
//! for this machine alone lies in `target/fuzz`, so that no other build is done again: programs, what a run has learnt, and
//! findings.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Group};
use crate::shell::{self, cargo, root, text};
use crate::test::host;

/// What makes the programs tell libFuzzer which branches an input took, and what was compared there.
const COVERAGE: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// An input that takes longer is a finding, seconds.
const SLOW: u32 = 10;
/// Longer inputs than two full frames find nothing that shorter ones do not.
const LONGEST: u32 = 3000;

/// Fuzzes `target`, every one where none is named, for so long each.
///
/// # Errors
/// When set-up or build fail, when there is no such target, or when something is found: the message names the input, and
/// what shows it again.
pub(crate) fn run(target: Option<&str>, seconds: u32) -> Result<()> {
    let known = targets()?;
    let chosen: Vec<&str> = match target {
        Some(name) if !known.contains(name) => {
            let known: Vec<_> = known.iter().map(String::as_str).collect();
            bail!("there is no fuzz target {name}: take one of {}", known.join(", "));
        }
        Some(name) => vec![name],
        None => known.iter().map(String::as_str).collect(),
    };
    setup::run(&[Group::Build])?;
    let programs = build(&chosen)?;
    let mut bad = Vec::new();
    for name in chosen {
        if let Err(error) = fuzz(&programs, name, seconds) {
            eprintln!("fuzz: {error:#}");
            bad.push(name);
        }
    }
    if !bad.is_empty() {
        bail!("something does not hold in {}: what, and how to see it again, is said above", bad.join(", "));
    }
    Ok(())
}

/// The targets: each has a folder in the corpus.
fn targets() -> Result<BTreeSet<String>> {
    let folder = corpus();
    let mut targets = BTreeSet::new();
    for entry in folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        if entry.path().is_dir() {
            targets.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(targets)
}

fn corpus() -> PathBuf {
    root().join("tests/fuzz/corpus")
}

/// Where everything goes that a run makes, from the workspace's directory.
fn directory() -> &'static Path {
    Path::new("target/fuzz")
}

/// Builds the programs of `targets`, and tells where they are.
fn build(targets: &[&str]) -> Result<PathBuf> {
    let host = host()?;
    let directory = directory();
    fs::create_dir_all(root().join(directory)).context("cannot make target/fuzz")?;
    // No target loads programs into the kernel: nothing is embedded instead.
    let nothing = root().join(directory).join("no-programs.o");
    // Once: where it is newer than what was built, cargo builds that again.
    if !nothing.exists() {
        fs::write(&nothing, []).with_context(|| format!("cannot write {}", nothing.display()))?;
    }
    let mut build = cargo();
    build.args(["build", "--locked", "--profile", "fuzz", "--package", "lb-fuzz", "--features", "libfuzzer"]);
    for name in targets {
        build.arg("--bin").arg(program(name));
    }
    // Named although it is this machine: otherwise build scripts get the flags too, which have no libFuzzer.
    build.args(["--target", &host, "--target-dir"]).arg(directory);
    build.env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f")).env("LB_EBPF_OBJECT", nothing);
    shell::run(&mut build)?;
    Ok(directory.join(host).join("fuzz"))
}

fn program(target: &str) -> String {
    format!("fuzz-{target}")
}

/// One target for so long.
fn fuzz(programs: &Path, name: &str, seconds: u32) -> Result<()> {
    let learnt = fresh(&directory().join("learnt").join(name))?;
    let findings = directory().join("findings").join(name);
    fs::create_dir_all(root().join(&findings))
        .with_context(|| format!("cannot make {}", findings.display()))?;
    let before = files(&findings)?;
    let program = programs.join(program(name));
    let mut fuzz = Command::new(root().join(&program));
    fuzz.current_dir(root()).stdin(Stdio::null()).args([&learnt, &corpus().join(name)]);
    fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", findings.display()));
    fuzz.arg(format!("-timeout={SLOW}")).arg(format!("-max_len={LONGEST}"));
    fuzz.args(["-verbosity=0", "-print_final_stats=1"]);
    // Even so, pages of words that were useful.
    let log = root().join(directory()).join(format!("{name}.log"));
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    eprintln!("fuzz: {name}, {seconds} s");
    let failed = shell::run(fuzz.stderr(file));
    let said = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    eprintln!("{}", if failed.is_ok() { summary(name, &said) } else { trouble(&said).to_owned() });
    let found: Vec<_> = files(&findings)?.difference(&before).cloned().collect();
    match (failed, found.first()) {
        (Ok(()), None) => Ok(()),
        (_, Some(input)) => bail!("{}", finding(name, &program, input)),
        (Err(error), None) => Err(error).context("it ended without an input to show for it"),
    }
}

/// What a run that found nothing says of itself.
fn summary(target: &str, said: &str) -> String {
    let number = |name: &str| {
        let prefix = format!("stat::{name}:");
        let found = said.lines().find_map(|line| line.strip_prefix(&prefix));
        found.map_or("?", str::trim)
    };
    let (runs, rate) = (number("number_of_executed_units"), number("average_exec_per_sec"));
    format!("fuzz: {target}: {runs} inputs, {rate} each second, nothing found")
}

/// What a run says from where something went wrong on.
fn trouble(said: &str) -> &str {
    let starts = ["panicked at", "ERROR: libFuzzer", "libFuzzer: "];
    let first = starts.iter().filter_map(|start| said.find(start)).min().unwrap_or_default();
    &said[said[..first].rfind('\n').map_or(0, |newline| newline + 1)..]
}

/// What to do with an input.
fn finding(target: &str, program: &Path, input: &Path) -> String {
    let mut again = Command::new(program);
    again.arg(input);
    format!(
        "{target}: something does not hold for {}\n    see it again: {}\n    keep it: cp {} \
         tests/fuzz/corpus/{target}/NAME-IT, where `cargo test -p lb-fuzz` runs it",
        input.display(),
        text(&again),
        input.display()
    )
}

/// An empty folder; what an earlier run has learnt goes, so that a run starts from what is committed.
fn fresh(path: &Path) -> Result<PathBuf> {
    let whole = root().join(path);
    if whole.exists() {
        fs::remove_dir_all(&whole).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    fs::create_dir_all(&whole).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path.to_path_buf())
}

/// The files of a folder, by their path from the workspace's directory.
fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let list = || format!("cannot list {}", folder.display());
    let entries = root().join(folder).read_dir().with_context(list)?;
    entries.map(|entry| Ok(folder.join(entry.with_context(list)?.file_name()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_folders_of_the_corpus_and_have_programs() {
        let manifest = fs::read_to_string(root().join("tests/fuzz/Cargo.toml")).unwrap();
        let targets = targets().unwrap();
        assert!(!targets.is_empty());
        for target in &targets {
            assert!(manifest.contains(&format!("name = \"{}\"", program(target))), "{target} has no [[bin]]");
        }
    }

    #[test]
    fn an_unknown_target_is_told_with_those_that_there_are() {
        let said = run(Some("pars"), 1).unwrap_err().to_string();
        assert!(said.starts_with("there is no fuzz target pars: take one of config, decide, "), "{said}");
    }

    #[test]
    fn a_run_is_summed_up() {
        let said = "words\nstat::number_of_executed_units: 229366\nstat::average_exec_per_sec:     38227\n";
        assert_eq!(summary("parse", said), "fuzz: parse: 229366 inputs, 38227 each second, nothing found");
    }

    #[test]
    fn trouble_is_told_without_what_came_before() {
        let panic = "thread 'x' panicked at tests/a.rs:1:1:\nit does not hold\n==1== ERROR: libFuzzer: deadly signal\n";
        assert_eq!(trouble(&format!("INFO: corpus\n\tNEW_FUNC\n{panic}")), panic);
        assert_eq!(trouble("killed"), "killed");
    }

    #[test]
    fn a_finding_says_what_to_type() {
        let said = finding("parse", Path::new("target/fuzz/fuzz-parse"), Path::new("target/fuzz/crash-1"));
        assert_eq!(
            said,
            "parse: something does not hold for target/fuzz/crash-1\n    \
             see it again: target/fuzz/fuzz-parse target/fuzz/crash-1\n    \
             keep it: cp target/fuzz/crash-1 tests/fuzz/corpus/parse/NAME-IT, where `cargo test -p lb-fuzz` runs it"
        );
    }
}
