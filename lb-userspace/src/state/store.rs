//! The files: written so that a crash at any point leaves a good one, read so that a broken one is noticed and kept.

use super::{State, stored};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

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

/// What a file turned out to be.
enum Found {
    Nothing,
    Good(State),
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
        match (look(&path)?, look(&backup)?) {
            (Found::Good(state), _) => Ok(Loaded { state, note: None }),
            (Found::Nothing, Found::Nothing) => {
                let state = State::fresh();
                self.save(&state)?;
                Ok(Loaded { state, note: None })
            }
            (Found::Nothing, Found::Good(state)) => {
                let note = format!("{} is gone; started from {}", path.display(), backup.display());
                self.save(&state)?;
                Ok(Loaded { state, note: Some(note) })
            }
            (Found::Broken(why), Found::Good(state)) => {
                let aside = self.set_aside(&path)?;
                self.save(&state)?;
                let note = format!(
                    "{} was broken ({why}) and is kept as {}; started from the last good one: the latest change may be \
                     missing, see `lb export`",
                    path.display(),
                    aside.display()
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

    /// Writes the state. When this returns it is on the disk; if it fails or the machine stops, the old one is.
    ///
    /// # Errors
    ///
    /// If the system refuses any step.
    pub fn save(&self, state: &State) -> Result<(), Error> {
        let bytes = stored::write(state)?;
        let (path, backup) = (self.path(), self.backup_path());
        let new = self.directory.join("state.json.tmp");
        let link = self.directory.join("state.json.bak.tmp");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(io("make", &self.directory))?;
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
        directory.sync_all().map_err(io("sync", &self.directory))
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

fn look(path: &Path) -> Result<Found, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(stored::read(&bytes).map_or_else(Found::Broken, Found::Good)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(io("read", path)(error)),
    }
}

fn describe(path: &Path, found: Found) -> String {
    match found {
        Found::Nothing => format!("{} does not exist", path.display()),
        Found::Good(_) => format!("{} is good", path.display()),
        Found::Broken(why) => format!("{} is broken ({why})", path.display()),
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

#[cfg(test)]
mod tests;
