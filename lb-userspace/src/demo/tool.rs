//! `lb` itself, run as anybody would run it: the demonstration has no private door to what it shows.

use super::topology::{BACKENDS, backend_addresses};
use super::view::State;
use crate::api::client::Client;
use crate::api::types::{AdminState, BackendView, HealthState, ServiceView};
use crate::lab::Namespace;
use anyhow::{Context, Result, ensure};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the agent is asked how its backends are.
const POLL: Duration = Duration::from_millis(50);
/// Last lines of the agent's log that an error shows.
const LOG_LINES: usize = 12;

/// Where things are.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    program: PathBuf,
    directory: PathBuf,
    pins: PathBuf,
}

impl Tool {
    /// This program, with its files in `directory` and its pins in `pins`.
    ///
    /// # Errors
    ///
    /// The kernel does not say where this program is, or the directory cannot be made.
    pub(super) fn new(directory: &Path, pins: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {} (needs root)", directory.display()))?;
        let program = std::env::current_exe().context("cannot find this program in /proc/self/exe")?;
        Ok(Self { program, directory: directory.to_owned(), pins: pins.to_owned() })
    }

    /// The agent's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("lb.sock")
    }

    /// What the agent says.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    /// The last lines of what the agent said.
    pub(super) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn agent_arguments(&self) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        ["agent", "--socket", &path(self.socket()), "--state", &path(self.directory.join("state")), "--pins"]
            .map(str::to_owned)
            .into_iter()
            .chain([path(self.pins.clone())])
            .collect()
    }

    fn log_file(&self) -> Result<File> {
        let log = self.log();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))
    }

    /// Starts an agent that ends with the calling thread.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(super) fn start_agent(&self, namespace: &Namespace) -> Result<Child> {
        let mut command = namespace.command(&self.program);
        command.args(self.agent_arguments());
        command.stdin(Stdio::null()).stdout(self.log_file()?).stderr(self.log_file()?);
        command.spawn().context("cannot start the agent")
    }

    /// Starts this program so that it stays when the demonstration ends.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(super) fn start_staying(&self, namespace: &Namespace, arguments: &[String]) -> Result<Child> {
        use std::os::unix::process::CommandExt;
        let (out, err) = (self.log_file()?, self.log_file()?);
        // A child is born into the namespace of the thread that starts it.
        let started = namespace.run(|| {
            let mut command = std::process::Command::new(&self.program);
            command.args(arguments).stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
            command.spawn()
        })?;
        started.with_context(|| format!("cannot start {} {}", self.program.display(), arguments.join(" ")))
    }

    /// Starts an agent that stays.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(super) fn start_staying_agent(&self, namespace: &Namespace) -> Result<Child> {
        self.start_staying(namespace, &self.agent_arguments())
    }

    /// Runs `lb pass` in a namespace. Its pins are named after the namespace: indexes of interfaces repeat in others.
    ///
    /// # Errors
    ///
    /// It failed: with what it said.
    pub(super) fn pass(&self, namespace: &Namespace, interface: &str) -> Result<()> {
        let pins = self.pins.with_file_name(namespace.name()).display().to_string();
        self.run(namespace, &["pass", interface, "--pins", &pins])
    }

    /// Runs a command in a namespace to its end.
    ///
    /// # Errors
    ///
    /// It failed: with what it said.
    pub(super) fn run(&self, namespace: &Namespace, words: &[&str]) -> Result<()> {
        let mut command = namespace.command(&self.program);
        command.arg("--socket").arg(self.socket()).args(words).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("cannot run lb {}", words.join(" ")))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "lb {} failed ({}): {}",
            words.join(" "),
            output.status,
            said.trim()
        );
        Ok(())
    }
}

/// What the agent says of itself and of its backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// It answers.
    pub(super) agent: bool,
    /// `fresh` or `adopted`.
    pub(super) started: String,
    /// Its process.
    pub(super) pid: u32,
    /// How each backend is, service by service.
    pub(super) states: [Vec<State>; BACKENDS],
    /// What it says that needs attention.
    pub(super) attention: Vec<String>,
}

impl Report {
    /// Whether every service says this of a backend.
    pub(super) fn is(&self, backend: usize, state: State) -> bool {
        !self.states[backend].is_empty() && self.states[backend].iter().all(|said| *said == state)
    }

    /// What to show for a backend: what its services agree on, or what the first of them says.
    pub(super) fn state(&self, backend: usize) -> State {
        self.states[backend].first().copied().unwrap_or_default()
    }
}

/// Asks the agent again and again, on a thread of its own. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Watcher {
    report: Arc<Mutex<Report>>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub(super) fn start(socket: PathBuf) -> Result<Self> {
        let report = Arc::new(Mutex::new(Report::default()));
        let (stop, stopped) = mpsc::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&report);
        let thread = std::thread::Builder::new().name("watcher".to_owned()).spawn(move || {
            let client = Client::new(socket);
            while stopped.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                let seen = runtime.block_on(ask(&client));
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = seen;
            }
        })?;
        Ok(Self { report, stop: Some(stop), thread: Some(thread) })
    }

    /// The last answer.
    pub(super) fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

async fn ask(client: &Client) -> Report {
    // An agent that does not answer is a report too: there are moments without one.
    match client.status().await {
        Err(_) => Report::default(),
        Ok(status) => Report {
            agent: true,
            started: status.agent.started,
            pid: status.agent.pid,
            states: std::array::from_fn(|backend| states(backend, &status.services)),
            attention: status.attention,
        },
    }
}

/// What each service says of a backend.
fn states(backend: usize, services: &[ServiceView]) -> Vec<State> {
    let addresses = backend_addresses(backend);
    let is_it = |view: &&BackendView| {
        view.address.parse::<std::net::SocketAddr>().is_ok_and(|address| addresses.contains(&address.ip()))
    };
    services.iter().flat_map(|service| &service.backends).filter(is_it).map(state).collect()
}

fn state(view: &BackendView) -> State {
    match (view.admin, view.health) {
        (_, HealthState::Down) => State::Down,
        (AdminState::Draining, _) => State::Draining,
        (AdminState::Active, HealthState::Up | HealthState::Unchecked) => State::Up,
        (AdminState::Active, HealthState::Unknown) => State::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(address: &str, admin: AdminState, health: HealthState) -> BackendView {
        BackendView { address: address.to_owned(), admin, health, ..BackendView::default() }
    }

    #[test]
    fn a_backend_is_found_in_every_service() {
        let service = |address: &str, admin, health| ServiceView {
            backends: vec![
                view(address, admin, health),
                view("10.11.0.14:8080", AdminState::Active, HealthState::Up),
            ],
            ..ServiceView::default()
        };
        let services = [
            service("10.11.0.12:8080", AdminState::Active, HealthState::Down),
            service("[fd00:11::12]:8080", AdminState::Draining, HealthState::Up),
        ];
        let report =
            Report { states: std::array::from_fn(|number| states(number, &services)), ..Report::default() };
        assert_eq!(report.states[1], [State::Down, State::Draining]);
        assert_eq!(report.state(1), State::Down);
        assert!(!report.is(1, State::Down), "the other service has not noticed");
        assert!(report.is(3, State::Up));
        assert!(!report.is(0, State::Unknown), "no service has it");
    }
}
