//! The files: written so that a crash at any point leaves a good one, read so that a broken one is noticed and kept.

use super::{State, journal, stored};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How names of journals begin. As those of all the other files, so that one pattern names them together.
const JOURNAL: &str = "state.json.journal-";

/// The directory with the state.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What to start from.
    pub state: State,
    /// What the operator should know: something was broken.
    pub note: Option<String>,
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system said no.
    #[error("cannot {action} {}: {source}; check the directory's owner, its mode and the space left", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The state cannot be written as JSON.
    #[error("cannot write the state as JSON: {0}; please report this")]
    Json(#[from] serde_json::Error),
    /// Neither file can be used. Starting from nothing would stop every service that the kernel still serves.
    #[error(
        "{main}; {last_good}. Not starting from nothing: services that run would stop. Restore {dir}/state.json from a \
         backup; or, to start from nothing, move both away: mkdir {dir}/old && mv {dir}/state.json* {dir}/old",
        dir = directory.display()
    )]
    Broken {
        /// Where they are.
        directory: PathBuf,
        /// What is wrong with `state.json`.
        main: String,
        /// What is wrong with `state.json.bak`.
        last_good: String,
    },
}

/// A snapshot that was written, and its journal.
#[derive(Debug)]
pub(super) struct Begun {
    /// The journal, to be appended to, and its path.
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Name of the snapshot, and its bytes.
    pub(super) name: String,
    pub(super) snapshot: u64,
}

/// What a file turned out to be.
enum Found {
    Nothing,
    /// A state, and what the operator should know of it.
    Good(State, Option<String>),
    Broken(String),
}

impl Store {
    /// The store in a directory, which is made when something is written.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The current file.
    pub fn path(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    /// The one before it.
    pub fn backup_path(&self) -> PathBuf {
        self.directory.join("state.json.bak")
    }

    /// Reads what is there; nothing at all is a fresh state, which is saved at once so that its seed stays.
    ///
    /// A broken file is kept under another name, and the last good one takes its place.
    ///
    /// # Errors
    ///
    /// If the files cannot be read or written, or neither is good.
    pub fn load(&self) -> Result<Loaded, Error> {
        let (path, backup) = (self.path(), self.backup_path());
        let main = self.look(&path, false)?;
        if let Found::Good(state, note) = main {
            return Ok(Loaded { state, note });
        }
        match (main, self.look(&backup, true)?) {
            (Found::Nothing, Found::Nothing) => {
                let state = State::fresh();
                self.save(&state)?;
                Ok(Loaded { state, note: None })
            }
            (Found::Nothing, Found::Good(state, more)) => {
                let note = format!("{} is gone; started from {}", path.display(), backup.display());
                self.save(&state)?;
                Ok(Loaded { state, note: Some(note + &also(more)) })
            }
            (Found::Broken(why), Found::Good(state, more)) => {
                let aside = self.set_aside(&path)?;
                self.save(&state)?;
                let note = format!(
                    "{} was broken ({why}) and is kept as {}; started from the last good one: the latest change may be \
                     missing, see `lb export`{}",
                    path.display(),
                    aside.display(),
                    also(more)
                );
                Ok(Loaded { state, note: Some(note) })
            }
            (main, last_good) => Err(Error::Broken {
                directory: self.directory.clone(),
                main: describe(&path, main),
                last_good: describe(&backup, last_good),
            }),
        }
    }

    /// Writes the whole state. When this returns it is on the disk; if it fails or the machine stops, the old one is.
    /// See [`super::Saved`] for saving change after change.
    ///
    /// # Errors
    ///
    /// If the system refuses any step.
    pub fn save(&self, state: &State) -> Result<(), Error> {
        self.write(state, &name()).map(drop)
    }

    /// The name of the snapshot that is there.
    pub(super) fn name(&self) -> Option<String> {
        stored::parse(&fs::read(self.path()).ok()?).ok()?.name().map(str::to_owned)
    }

    /// Writes the whole state and begins its journal. `before` is the name of the snapshot that is there.
    pub(super) fn begin(&self, state: &State, before: Option<String>) -> Result<Begun, Error> {
        let name = name();
        self.make()?;
        let path = self.journal_path(&name);
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(io("create", &path))?;
        let header = journal::header(before.as_deref().unwrap_or_default());
        file.write_all(&header).map_err(io("write", &path))?;
        file.sync_all().map_err(io("sync", &path))?;
        // If this fails, nobody refers to the journal, and the next snapshot removes it.
        let snapshot = self.write(state, &name)?;
        self.remove_journals(&[Some(&name), before.as_ref()])?;
        Ok(Begun { file, path, name, snapshot })
    }

    /// Removes the journals of all snapshots but these.
    fn remove_journals(&self, keep: &[Option<&String>]) -> Result<(), Error> {
        for (path, name) in self.journals()? {
            if !keep.iter().flatten().any(|kept| **kept == name) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Journals that are there, and the names of their snapshots.
    fn journals(&self) -> Result<Vec<(PathBuf, String)>, Error> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io("read", &self.directory))?,
        };
        let mut journals = Vec::new();
        for entry in entries {
            let path = entry.map_err(io("read", &self.directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_prefix(JOURNAL));
            if let Some(name) = name.map(str::to_owned) {
                journals.push((path, name));
            }
        }
        Ok(journals)
    }

    fn journal_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{JOURNAL}{name}"))
    }

    fn make(&self) -> Result<(), Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(io("make", &self.directory))
    }

    /// Writes a snapshot of this name; its bytes.
    fn write(&self, state: &State, name: &str) -> Result<u64, Error> {
        let bytes = stored::write(state, name)?;
        let (path, backup) = (self.path(), self.backup_path());
        let new = self.directory.join("state.json.tmp");
        let link = self.directory.join("state.json.bak.tmp");
        self.make()?;
        remove(&new)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .map_err(io("create", &new))?;
        file.write_all(&bytes).map_err(io("write", &new))?;
        file.sync_all().map_err(io("sync", &new))?;
        // A second name for the old file, so that `state.json` is there at every moment.
        remove(&link)?;
        match fs::hard_link(&path, &link) {
            Ok(()) => fs::rename(&link, &backup).map_err(io("rename", &link))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("link", &path)(error)),
        }
        fs::rename(&new, &path).map_err(io("rename", &new))?;
        let directory = File::open(&self.directory).map_err(io("open", &self.directory))?;
        directory.sync_all().map_err(io("sync", &self.directory))?;
        Ok(bytes.len() as u64)
    }

    /// Reads a snapshot and its journal; with `next` also the one of the snapshot that followed and is broken.
    fn look(&self, path: &Path, next: bool) -> Result<Found, Error> {
        let snapshot = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(io("read", path)(error)),
        };
        let stored = match stored::parse(&snapshot) {
            Ok(stored) => stored,
            Err(why) => return Ok(Found::Broken(why)),
        };
        drop(snapshot);
        let mut journals = Vec::new();
        if let Some(name) = stored.name() {
            let all = self.journals()?;
            let own = all.iter().filter(|(_, of)| *of == name);
            let others = all.iter().filter(|(_, of)| next && *of != name);
            for (journal, of) in own.chain(others) {
                let bytes = fs::read(journal).map_err(io("read", journal))?;
                if *of == name || journal::follows(&bytes) == Some(name) {
                    journals.push((journal.clone(), bytes));
                }
            }
        }
        Ok(match journal::replay(stored, &journals) {
            Ok((state, note)) => Found::Good(state, note),
            Err(why) => Found::Broken(why),
        })
    }

    /// Keeps a broken file under a name that says so.
    fn set_aside(&self, path: &Path) -> Result<PathBuf, Error> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut aside = self.directory.join(format!("state.json.broken-{seconds}"));
        for number in 1_u32.. {
            if !aside.exists() {
                break;
            }
            aside = self.directory.join(format!("state.json.broken-{seconds}-{number}"));
        }
        fs::rename(path, &aside).map_err(io("rename", path))?;
        Ok(aside)
    }
}

/// A name for a snapshot.
fn name() -> String {
    format!("{:016x}", rand::random::<u64>())
}

fn also(more: Option<String>) -> String {
    more.map(|more| format!("; {more}")).unwrap_or_default()
}

fn describe(path: &Path, found: Found) -> String {
    match found {
        Found::Nothing => format!("{} does not exist", path.display()),
        Found::Good(..) => format!("{} is good", path.display()),
        Found::Broken(why) => format!("{} is broken ({why})", path.display()),
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests;
