//! Every input that is kept, and every beginning of it, through its target: what was found once stays repaired.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use lb_fuzz::TARGETS;

/// A target's inputs, by name.
fn inputs(target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| {
            let path = entry.expect("a folder's entry").path();
            let name = path.file_name().expect("a file's name").to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        })
        .collect()
}

/// Runs a target over its inputs and their beginnings, and names those for which something does not hold.
fn run(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "the corpus of {name} is empty");
    let mut bad = Vec::new();
    for (input, bytes) in &inputs {
        // Whole first: what fails then is told by its whole name.
        for length in (0..=bytes.len()).rev() {
            // The panic says by itself what does not hold; a target keeps nothing that a panic could leave half done.
            if panic::catch_unwind(AssertUnwindSafe(|| target(&bytes[..length]))).is_err() {
                bad.push(format!("corpus/{name}/{input}, its first {length} of {} bytes", bytes.len()));
                break;
            }
        }
    }
    assert!(bad.is_empty(), "the reasons are above:\n{}", bad.join("\n"));
}

#[test]
fn config() {
    run("config");
}

#[test]
fn decide() {
    run("decide");
}

#[test]
fn embedded() {
    run("embedded");
}

#[test]
fn parse() {
    run("parse");
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = fs::read_dir(&corpus).expect("a corpus").map(|entry| entry.expect("a folder's entry"));
    let mut folders: Vec<_> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    let targets: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(folders, targets);
}
