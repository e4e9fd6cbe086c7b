//! Small networks of namespaces, for `lb demo` and for tests.
//!
//! A [`Namespace`] is a machine with its own interfaces, routes and sockets. Everything here enters a namespace on a
//! thread of its own, because a network namespace belongs to a thread, not to a process; nothing does what `ip netns
//! exec` does, which also mounts a new `/sys` and so hides `/sys/fs/bpf`.
//!
//! Nothing outlives its owner: dropping a [`Namespace`] kills the processes in it and removes its name. After a
//! SIGKILL of the owner, [`cleanup`] removes what was left. Needs root.

mod command;
mod counters;
mod links;
mod namespace;
mod netns;
mod routes;
mod settings;
pub mod wait;

pub use links::{Inside, veth};
pub use namespace::Namespace;

use anyhow::{Result, ensure};
use std::io::ErrorKind;

/// Removes the namespaces whose name begins with `prefix`, with the processes in them, and returns their names.
///
/// # Errors
///
/// An empty prefix is refused: it would remove namespaces of others.
pub fn cleanup(prefix: &str) -> Result<Vec<String>> {
    ensure!(!prefix.is_empty(), "refusing to remove every network namespace: name a prefix");
    let entries = match std::fs::read_dir(netns::DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut removed = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            netns::remove(&name)?;
            removed.push(name);
        }
    }
    removed.sort();
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::time::Duration;

    #[test]
    fn leftovers_are_removed_with_their_processes() {
        let prefix = format!("lbleft{}", std::process::id());
        let one = Namespace::create(&format!("{prefix}a")).unwrap();
        let two = Namespace::create(&format!("{prefix}b")).unwrap();
        let other = Namespace::create_unique("lbother").unwrap();
        let mut child = one.command("sleep").arg("600").spawn().unwrap();
        // What a SIGKILL of the owner leaves behind: names without a destructor.
        std::mem::forget(one);
        std::mem::forget(two);

        assert_eq!(cleanup(&prefix).unwrap(), [format!("{prefix}a"), format!("{prefix}b")]);
        let ended = || child.try_wait().unwrap().is_some();
        wait::until("the end of the child", Duration::from_secs(10), ended).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(Namespace::open(&format!("{prefix}a")).is_err());
        assert!(other.path().exists(), "another prefix was touched");
        assert_eq!(cleanup(&prefix).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_empty_prefix_is_refused() {
        assert!(cleanup("").unwrap_err().to_string().contains("name a prefix"));
    }
}
