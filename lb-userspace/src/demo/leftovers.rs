//! What a demonstration leaves on the machine while it runs, and the removal of it: at its end, after Ctrl-C, after a
//! panic, and of one that was killed by the next.

use crate::lab;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

/// Beginning of the names of namespaces, and of pins.
pub(super) const PREFIX: &str = "lb-demo";
/// Files: the agent's state, its socket, its log.
pub(super) const DIRECTORY: &str = "/run/lb-demo";
/// Pins of the agent.
pub(super) const PINS: &str = "/sys/fs/bpf/lb-demo";

/// Only one demonstration at a time. The name is free again when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held, never looked at")] UnixListener);

impl Lock {
    /// Takes the lock. An abstract socket, because a file would be one more thing to leave behind.
    ///
    /// # Errors
    ///
    /// Another demonstration runs.
    pub(super) fn take() -> Result<Self> {
        let name = SocketAddr::from_abstract_name(PREFIX)?;
        match UnixListener::bind_addr(&name) {
            Ok(socket) => Ok(Self(socket)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                bail!(
                    "another `lb demo` is running on this machine: wait for its end, or stop it with Ctrl-C"
                )
            }
            Err(error) => Err(error).context("cannot take the demonstration's lock"),
        }
    }
}

/// Fails unless this process is root.
pub(super) fn require_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the demonstration makes network namespaces and loads XDP programs, which needs root: run `sudo lb demo`"
    );
    Ok(())
}

/// Removes everything when it is dropped, unless it is told to leave it.
#[derive(Debug)]
pub(super) struct Leftovers {
    stay: bool,
}

impl Leftovers {
    /// From now on there is something to remove.
    pub(super) fn new() -> Self {
        Self { stay: false }
    }

    /// Leaves it all.
    pub(super) fn stay(&mut self) {
        self.stay = true;
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if !self.stay
            && let Err(error) = remove()
        {
            tracing::warn!("something of the demonstration stays: {error:#}");
        }
    }
}

/// Removes what a demonstration leaves: namespaces with the processes in them, pins, files. Whether there was anything.
///
/// # Errors
///
/// The first thing that could not be removed; the others are.
pub(super) fn remove() -> Result<bool> {
    let namespaces = lab::cleanup(&format!("{PREFIX}-"));
    let pins = pins(Path::new(PINS).parent().unwrap_or(Path::new("/")));
    let mut found = false;
    let mut failed = None;
    for path in pins.into_iter().chain([PathBuf::from(DIRECTORY)]) {
        match fs::remove_dir_all(&path) {
            Ok(()) => found = true,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                failed.get_or_insert(
                    anyhow::Error::new(error).context(format!("cannot remove {}", path.display())),
                );
            }
        }
    }
    let namespaces = namespaces?;
    match failed {
        Some(error) => Err(error),
        None => Ok(found || !namespaces.is_empty()),
    }
}

/// Directories of pins: the agent's, and those of `lb pass` in each namespace.
fn pins(bpf: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(bpf) else { return Vec::new() };
    let ours = |name: &str| name == PREFIX || name.starts_with(&format!("{PREFIX}-"));
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(ours))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pins_of_the_demonstration_are_found() {
        let bpf = tempfile::tempdir().unwrap();
        for name in ["lb", "lb-demo", "lb-demo-client-pass", "lb-demonstration", "other"] {
            fs::create_dir(bpf.path().join(name)).unwrap();
        }
        let mut found = pins(bpf.path());
        found.sort();
        assert_eq!(found, ["lb-demo", "lb-demo-client-pass"].map(|name| bpf.path().join(name)));
        assert_eq!(pins(&bpf.path().join("none")), Vec::<PathBuf>::new());
    }
}
