//! `lb` the way people use it: the binary as an agent in a namespace, and the same binary as its command line.
//!
//! Nothing here reaches into the agent: what a test wants it asks by a verb and reads from `-o json`.

use lb_userspace::api::types::{HealthState, ServiceView, StatsView, StatusView};
use lb_userspace::lab::{Namespace, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// How long anything may take before a test gives up: far beyond what it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Path of `lb`, which lies where cargo builds it: beside the directory of the test's own executable.
///
/// # Panics
///
/// It is not there.
#[must_use]
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its executable");
    let path = own.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join("lb");
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace`, or `cargo xtask test`",
        path.display()
    );
    path
}

/// What a command came to.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Ran {
    /// Runs a command to its end.
    ///
    /// # Panics
    ///
    /// It cannot be started.
    pub fn of(command: &mut Command) -> Self {
        let output =
            command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A balancer: a namespace, a state directory, pins, and an agent that may be stopped and started.
pub struct Balancer {
    /// Where it runs.
    pub ns: Arc<Namespace>,
    directory: TempDir,
    pins: PathBuf,
    agent: Option<Child>,
}

impl Balancer {
    /// One that has nothing and does nothing yet.
    pub fn new(ns: Arc<Namespace>) -> Self {
        let pins = PathBuf::from(format!("/sys/fs/bpf/{}", ns.name()));
        Self { ns, directory: tempfile::tempdir().unwrap(), pins, agent: None }
    }

    /// Another one in the same namespace, with everything of its own.
    #[must_use]
    pub fn beside(&self) -> Self {
        let pins = self.pins.with_added_extension("2").to_string_lossy().replace('.', "-").into();
        Self { ns: Arc::clone(&self.ns), directory: tempfile::tempdir().unwrap(), pins, agent: None }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("lb.sock")
    }

    /// The directory of its state file.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The directory of its pins.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// A directory for files of the test.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The command that starts its agent.
    #[must_use]
    pub fn agent_command(&self) -> Command {
        let mut command = self.ns.command(binary());
        self.agent_arguments(&mut command);
        command
    }

    /// The arguments of its agent, for a command that is not `lb` itself.
    pub fn agent_arguments(&self, command: &mut Command) {
        command.args(["agent", "--state"]).arg(self.state()).arg("--pins").arg(&self.pins);
        command
            .arg("--socket")
            .arg(self.socket())
            .env("LB_LOG", "info,lb_userspace=debug")
            .env("NO_COLOR", "1");
    }

    /// Starts the agent and waits until it answers. It ends with the thread that calls this.
    ///
    /// # Panics
    ///
    /// It does not come up.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// As [`Self::start`], with more arguments.
    ///
    /// # Panics
    ///
    /// It does not come up.
    pub fn start_with(&mut self, arguments: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.agent_command();
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.agent = Some(command.spawn().unwrap());
        let agent = self.agent.as_mut().unwrap();
        let socket = self.directory.path().join("lb.sock");
        wait::until("an agent that answers", PATIENCE, || {
            let ended = agent.try_wait().unwrap();
            assert_eq!(ended, None, "the agent ended:\n{}", read(&self.directory.path().join("agent.log")));
            let mut status = self.ns.command(binary());
            Ran::of(status.arg("--socket").arg(&socket).arg("status")).code == 0
        })
        .unwrap();
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("agent.log")
    }

    /// What its agents have written.
    #[must_use]
    pub fn log(&self) -> String {
        read(&self.log_path())
    }

    /// The agent's process.
    ///
    /// # Panics
    ///
    /// None runs.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.agent.as_ref().expect("an agent runs").id().cast_signed())
    }

    /// Ends the agent without a word (SIGKILL).
    pub fn kill(&mut self) {
        let mut agent = self.agent.take().expect("an agent runs");
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Asks the agent to end (SIGTERM), as systemd does, and sees that it does so without a failure.
    pub fn stop(&mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let status = self.agent.take().expect("an agent runs").wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Runs a verb.
    pub fn lb(&self, arguments: &[&str]) -> Ran {
        Ran::of(
            self.ns.command(binary()).arg("--socket").arg(self.socket()).args(arguments).env("NO_COLOR", "1"),
        )
    }

    /// Runs a verb that must succeed, and returns what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let Ran { code, stdout, stderr } = self.lb(arguments);
        assert_eq!(code, 0, "lb {}: {stdout}{stderr}", arguments.join(" "));
        stdout
    }

    /// Runs a verb that must fail with this exit code, and returns what it said.
    #[track_caller]
    pub fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let ran = self.lb(arguments);
        assert_eq!(ran.code, code, "lb {}: {}{}", arguments.join(" "), ran.stdout, ran.stderr);
        assert!(!ran.stderr.trim().is_empty(), "lb {} said nothing", arguments.join(" "));
        ran.stderr
    }

    /// Runs a verb with `-o json` and reads its document.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        let text = self.ok(&[&["-o", "json"], arguments].concat());
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("lb {}: {error}\n{text}", arguments.join(" ")))
    }

    /// `lb status`.
    #[track_caller]
    pub fn status(&self) -> StatusView {
        self.json(&["status"])
    }

    /// `lb stats`.
    #[track_caller]
    pub fn stats(&self) -> StatsView {
        self.json(&["stats"])
    }

    /// `lb service show`.
    #[track_caller]
    pub fn service(&self, name: &str) -> ServiceView {
        self.json(&["service", "show", name])
    }

    /// Waits until a service is as it should be.
    #[track_caller]
    pub fn until(&self, name: &str, what: &str, mut condition: impl FnMut(&ServiceView) -> bool) {
        let mut last = ServiceView::default();
        let asked = wait::until(what, PATIENCE, || {
            last = self.service(name);
            condition(&last)
        });
        asked.unwrap_or_else(|error| panic!("{error}: {last:#?}"));
    }

    /// Waits until new flows reach every backend of a service that is not draining.
    #[track_caller]
    pub fn until_ready(&self, name: &str) {
        self.until(name, "every backend to be ready", |service| {
            service.backends.iter().all(|backend| {
                let hop = backend.next_hop.as_ref().is_some_and(|hop| hop.state == "resolved");
                let up = matches!(backend.health, HealthState::Up | HealthState::Unchecked);
                hop && up && (backend.actual_share > 0.0 || backend.weight == 0)
            })
        });
    }

    /// Every reason that was counted, of all services and of none, and how often.
    #[track_caller]
    pub fn reasons(&self) -> std::collections::BTreeMap<String, u64> {
        let stats = self.stats();
        let mut all = stats.reasons;
        for service in stats.services {
            for (reason, count) in service.reasons {
                *all.entry(reason).or_default() += count;
            }
        }
        all
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the agent in {}\n{}", self.ns.name(), self.log());
        }
        // Links go with their pins, and programs with their links.
        let mut pass = self.pins.clone().into_os_string();
        pass.push("-pass");
        for directory in [self.pins.clone(), pass.into()] {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
