//! Programs in a namespace.

use super::Namespace;
use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

impl Namespace {
    /// A command that runs inside. Only the network namespace differs: the file systems are the caller's.
    ///
    /// The child is killed (SIGKILL) when the *thread* that started it ends, because that is what
    /// `PR_SET_PDEATHSIG` watches (prctl(2)): start long-lived children from a thread that lives as long. It leads a
    /// process group of its own, so Ctrl-C at the terminal reaches this process only. Its own children are ended
    /// with the namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        // Opened with close-on-exec before the fork: after it, only async-signal-safe calls are allowed.
        let fd = self.shared_fd();
        let parent = nix::unistd::getpid();
        let mut command = Command::new(program);
        command.process_group(0);
        // SAFETY: the closure makes three system calls, allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have ended before the line above.
                if getppid() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(setns(fd.as_ref(), CloneFlags::CLONE_NEWNET)?)
            });
        }
        command
    }

    /// Runs a command inside and returns what it wrote to its standard output.
    ///
    /// # Errors
    ///
    /// It cannot be started, or it failed: with what it wrote to its standard error.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program).args(arguments).output();
        let output = output.with_context(|| format!("cannot run {program} in {}", self.name()))?;
        ensure!(
            output.status.success(),
            "{program} {} failed in {} ({}): {}",
            arguments.join(" "),
            self.name(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::wait;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::ExitStatusExt;
    use std::time::Duration;

    /// Whether a process runs: a zombie does not.
    fn alive(pid: u32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
    }

    #[test]
    fn a_command_runs_inside_with_the_callers_files() {
        let namespace = Namespace::create_unique("lbcmd").unwrap();
        let inode = std::fs::metadata(namespace.path()).unwrap().ino();
        assert_eq!(
            namespace.output("readlink", &["/proc/self/ns/net"]).unwrap().trim(),
            format!("net:[{inode}]")
        );
        let mounts = |path: &str| std::fs::read_link(path).unwrap();
        let child = namespace.output("readlink", &["/proc/self/ns/mnt"]).unwrap();
        assert_eq!(child.trim(), mounts("/proc/self/ns/mnt").to_str().unwrap());
        let error = format!("{:#}", namespace.output("ls", &["/no/such"]).unwrap_err());
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn descriptors_of_the_parent_are_closed() {
        let namespace = Namespace::create_unique("lbcmd").unwrap();
        // What this process itself was started with is inherited by any child.
        let inherited = Command::new("ls").arg("/proc/self/fd").output().unwrap().stdout;
        let open = namespace.output("ls", &["/proc/self/fd"]).unwrap();
        assert_eq!(open, String::from_utf8(inherited).unwrap());
    }

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let namespace = Namespace::create_unique("lbcmd").unwrap();
        let mut child = std::thread::scope(|scope| {
            scope.spawn(|| namespace.command("sleep").arg("600").spawn().unwrap()).join().unwrap()
        });
        let ended = || child.try_wait().unwrap().is_some();
        wait::until("the end of the child", Duration::from_secs(10), ended).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn a_grandchild_ends_with_the_namespace() {
        let namespace = Namespace::create_unique("lbcmd").unwrap();
        // The shell ends at once; its background child is nobody's but the namespace's.
        let script = "sleep 600 >/dev/null 2>&1 & echo $!";
        let pid = namespace.output("sh", &["-c", script]).unwrap().trim().parse().unwrap();
        assert!(alive(pid));
        drop(namespace);
        wait::until("the end of the grandchild", Duration::from_secs(10), || !alive(pid)).unwrap();
    }
}
