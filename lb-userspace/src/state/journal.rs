//! Changes behind the state file: a line for each, so that saving one costs what it is and not what everything is.
//!
//! `state.json` is written whole now and then ("snapshot"); what changes after that is appended to
//! `state.json.journal-ID`, where ID stands in the snapshot. A line holds everything that is desired of the services that
//! changed, so a line that is applied twice does no harm. Its checksum tells whether all of it is there: the last line of
//! a machine that stopped may not be, and then nobody was told that it is saved.
//!
//! The first line of a journal names the snapshot before its own: if `state.json` turns out to be broken, the journals of
//! both lead from `state.json.bak` to the last change.

use super::State;
use super::store::{Begun, Error, Store, io};
use super::stored::{Record, Stored};
use crate::model::Desired;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

/// A journal is long when it is larger than its snapshot, and at least so many bytes.
const LONG: u64 = 1 << 20;
/// A journal that is so many times too long is ended even by a change that somebody waits for.
const MUCH_TOO_LONG: u64 = 8;

/// Keeps the files at what is so.
#[derive(Debug)]
pub struct Saved {
    store: Store,
    /// Where the files are; `None`: the next save writes them whole.
    open: Option<Open>,
    /// Name of the snapshot; `None`: it has to be read.
    name: Option<String>,
    /// Services whose backends' health changed since.
    health: BTreeSet<String>,
}

/// A journal that can be appended to, and what it and its snapshot say.
#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    /// Its bytes, and those of the snapshot.
    length: u64,
    snapshot: u64,
    desired: Desired,
    announced: BTreeSet<(String, IpAddr)>,
    seed: u32,
}

impl Saved {
    /// Files of which nothing is known.
    pub fn new(store: Store) -> Self {
        Self { store, open: None, name: None, health: BTreeSet::new() }
    }

    /// The health of a backend of this service is another.
    pub fn health_changed(&mut self, service: &str) {
        if !self.health.contains(service) {
            self.health.insert(service.to_owned());
        }
    }

    /// Whether it is time to begin anew.
    pub fn is_long(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.length > open.snapshot.max(LONG))
    }

    /// Makes the next save write everything: the journal ends there.
    pub fn begin_anew(&mut self) {
        self.open = None;
    }

    /// Saves a state. When this returns it is on the disk; if it fails or the machine stops, the old one is.
    ///
    /// # Errors
    ///
    /// If the system refuses any step.
    pub fn save(&mut self, state: &State) -> Result<(), Error> {
        let done = match &mut self.open {
            Some(open)
                if open.seed == state.seed && open.length <= MUCH_TOO_LONG * open.snapshot.max(LONG) =>
            {
                open.append(state, &self.health)
            }
            _ => self.begin(state),
        };
        match &done {
            Ok(()) => self.health.clear(),
            // Whatever is at the end of the journal now: nothing may come after it.
            Err(_) => (self.open, self.name) = (None, None),
        }
        done
    }

    fn begin(&mut self, state: &State) -> Result<(), Error> {
        let before = self.name.take().or_else(|| self.store.name());
        let Begun { file, path, name, snapshot } = self.store.begin(state, before)?;
        self.name = Some(name);
        let (desired, announced) = (state.desired.clone(), state.announced.clone());
        self.open = Some(Open { file, path, length: 0, snapshot, desired, announced, seed: state.seed });
        Ok(())
    }
}

impl Open {
    fn append(&mut self, state: &State, health: &BTreeSet<String>) -> Result<(), Error> {
        let mut names: BTreeSet<&str> = self.desired.differing(&state.desired).collect();
        names.extend(health.iter().map(String::as_str));
        let interfaces = self.desired.interfaces != state.desired.interfaces
            || self.desired.sources != state.desired.sources;
        let announced = self.announced != state.announced;
        if names.is_empty() && !interfaces && !announced {
            return Ok(());
        }
        let line = line(&Record::new(state, &names, interfaces, announced))?;
        let written = self.file.write_all(&line).map_err(io("write", &self.path));
        let written = written.and_then(|()| self.file.sync_data().map_err(io("sync", &self.path)));
        if let Err(error) = written {
            // A refused change must not come back with the next start. If this fails too, its line may.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += line.len() as u64;
        self.desired = state.desired.clone();
        self.announced.clone_from(&state.announced);
        Ok(())
    }
}

/// A line: a checksum, the record, a newline.
fn line(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(record)?;
    let mut line = format!("{:016x} ", checksum(&json)).into_bytes();
    line.extend(json);
    line.push(b'\n');
    Ok(line)
}

/// FNV-1a, 64 bits: tells a line that was not written to its end, not one that was forged.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The records of a journal behind its first line, and whether it goes on behind one that is broken.
pub(super) fn read(journal: &[u8]) -> (Vec<Record>, bool) {
    let mut records = Vec::new();
    let mut rest = after_header(journal);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let Some(record) = parse(&rest[..end]) else { break };
        records.push(record);
        rest = &rest[end + 1..];
    }
    // What comes after a line that was cut is nothing.
    let goes_on = rest.iter().position(|byte| *byte == b'\n').is_some_and(|end| end + 1 < rest.len());
    (records, goes_on)
}

fn parse(line: &[u8]) -> Option<Record> {
    let (sum, json) = line.split_at_checked(17)?;
    let sum = u64::from_str_radix(str::from_utf8(sum).ok()?.strip_suffix(' ')?, 16).ok()?;
    (sum == checksum(json)).then_some(())?;
    serde_json::from_slice(json).ok()
}

/// The first line of a journal: the snapshot before its own.
pub(super) fn header(follows: &str) -> Vec<u8> {
    format!("{follows}\n").into_bytes()
}

/// The snapshot that a journal's own one follows.
pub(super) fn follows(journal: &[u8]) -> Option<&str> {
    let end = journal.iter().position(|byte| *byte == b'\n')?;
    str::from_utf8(&journal[..end]).ok()
}

fn after_header(journal: &[u8]) -> &[u8] {
    let end = journal.iter().position(|byte| *byte == b'\n').map_or(journal.len(), |end| end + 1);
    &journal[end..]
}

/// The state that a snapshot and the journals behind it lead to; the note says what could not be read.
pub(super) fn replay(
    mut stored: Stored,
    journals: &[(PathBuf, Vec<u8>)],
) -> Result<(State, Option<String>), String> {
    let mut note = None;
    for (path, journal) in journals {
        let (records, goes_on) = read(journal);
        if goes_on {
            let path = path.display();
            note = Some(format!("{path} has a broken line: changes after it are missing, see `lb export`"));
        }
        stored.apply(records);
        if goes_on {
            break;
        }
    }
    Ok((stored.judge()?, note))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
