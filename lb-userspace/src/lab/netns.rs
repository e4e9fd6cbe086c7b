//! Names of network namespaces under `/run/netns`, made and removed the way `ip netns` does.
//!
//! A name is an empty file with the namespace's `nsfs` inode bind-mounted over it.

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where `ip netns` looks.
pub(super) const DIRECTORY: &str = "/run/netns";

/// The path of a name. Names are what `ip netns` accepts: one path component.
pub(super) fn path(name: &str) -> Result<PathBuf> {
    ensure!(
        !name.is_empty() && name.len() < 256 && !name.contains('/') && name != "." && name != "..",
        "\"{name}\" cannot name a network namespace: use letters, digits, - and _"
    );
    Ok(Path::new(DIRECTORY).join(name))
}

/// Makes an empty namespace and binds it to its name. Must run on a thread that ends soon: the thread moves into it.
pub(super) fn create(name: &str) -> Result<()> {
    let path = path(name)?;
    prepare_directory()?;
    match OpenOptions::new().read(true).write(true).create_new(true).mode(0o000).open(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("the network namespace {name} exists already: remove it with `ip netns del {name}`")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot create {}", path.display())),
    }
    let bound = unshare(CloneFlags::CLONE_NEWNET)
        .context("cannot make a network namespace (needs root)")
        .and_then(|()| bind("/proc/thread-self/ns/net", &path));
    if bound.is_err() {
        // Best effort: what failed first is what the caller should read.
        let _ = fs::remove_file(&path);
    }
    bound
}

fn bind(source: &str, target: &Path) -> Result<()> {
    mount(Some(source), target, Some("none"), MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("cannot bind a network namespace to {} (needs root)", target.display()))
}

/// Makes `/run/netns` a shared mount point of its own, so that unmounting a name reaches every mount namespace.
///
/// Two creators at once would mount it twice: both `ip` and this hold a lock on the directory.
fn prepare_directory() -> Result<()> {
    fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot create {DIRECTORY} (needs root)"))?;
    let directory = File::open(DIRECTORY)?;
    let _lock = Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("cannot lock {DIRECTORY}"))?;
    let share = || {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(Some(""), DIRECTORY, Some("none"), flags, None::<&str>)
    };
    if share().is_ok() {
        return Ok(());
    }
    fs::set_permissions(DIRECTORY, Permissions::from_mode(0o755))?;
    mount(Some(DIRECTORY), DIRECTORY, Some("none"), MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .and_then(|()| share())
        .with_context(|| format!("cannot make {DIRECTORY} a shared mount (needs root)"))
}

/// Kills the processes in a namespace and removes its name. A name that is not there is no error.
pub(super) fn remove(name: &str) -> Result<()> {
    let path = path(name)?;
    if let Ok(namespace) = fs::metadata(&path) {
        kill_inhabitants((namespace.dev(), namespace.ino()));
    }
    // EINVAL: a name without a mount, left by a creator that was killed half way.
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot unmount {}", path.display())),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Sends SIGKILL to every process whose main thread is in the namespace, except this one.
fn kill_inhabitants(namespace: (u64, u64)) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for pid in processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let inside = fs::metadata(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|process| (process.dev(), process.ino()) == namespace);
        if inside && pid.unsigned_abs() != std::process::id() {
            // A process that ended meanwhile is what was wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_path_component() {
        assert!(path("lb-client_1").is_ok());
        for bad in ["", ".", "..", "a/b", "../x"] {
            assert!(path(bad).is_err(), "{bad} was accepted");
        }
    }
}
