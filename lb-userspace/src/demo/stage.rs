//! Everything that runs during the demonstration, and the time that passes: waiting means drawing the live view and
//! looking for Ctrl-C.

use super::backend::Backend;
use super::client::{Load, Traffic};
use super::ledger::{Books, Ledger, Outage, shares};
use super::leftovers::{DIRECTORY, Leftovers, PINS, PREFIX};
use super::screen::Screen;
use super::tool::{Report, Tool, Watcher};
use super::topology::{BACKENDS, Network, backend_addresses, backend_name};
use super::view::{self, Row, Snapshot, State};
use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How often the live view is drawn.
const FRAME: Duration = Duration::from_millis(100);
/// Over how long shares and rates are measured.
const WINDOW: Duration = Duration::from_secs(2);

/// How long anything may take that is a matter of a moment.
pub(super) const READY: Duration = Duration::from_secs(20);

/// Ctrl-C, or its like.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; nothing was left behind")]
pub(super) struct Interrupted;

/// What is on the stage. Dropping it takes everything down, in the order of the fields.
#[derive(Debug)]
pub(super) struct Stage {
    /// Where it is shown.
    pub(super) screen: Screen,
    /// The clients, once there are any.
    pub(super) traffic: Option<Traffic>,
    /// What they saw.
    pub(super) ledger: Arc<Ledger>,
    /// Servers that run.
    pub(super) backends: Vec<Option<Backend>>,
    watcher: Option<Watcher>,
    agent: Agent,
    /// The namespaces.
    pub(super) network: Network,
    /// `lb`.
    pub(super) tool: Tool,
    title: String,
    seen: VecDeque<(Instant, Books)>,
    drawn: Option<Instant>,
    began: Option<Instant>,
    /// The stop of a backend. Until it is detected, its detection lies in the future.
    pub(super) outage: Option<Outage>,
    interrupted: Arc<AtomicBool>,
    leftovers: Leftovers,
}

/// A process that is killed when nobody wants it any more.
#[derive(Debug, Default)]
struct Agent(Option<Child>);

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Stage {
    /// Builds the network and starts the servers.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(super) fn build(screen: Screen, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let leftovers = Leftovers::new();
        let tool = Tool::new(Path::new(DIRECTORY), Path::new(PINS))?;
        let network = Network::build(PREFIX)?;
        let mut stage = Self {
            screen,
            traffic: None,
            ledger: Arc::default(),
            backends: (0..BACKENDS).map(|_| None).collect(),
            watcher: None,
            agent: Agent::default(),
            network,
            tool,
            title: String::new(),
            seen: VecDeque::new(),
            drawn: None,
            began: None,
            outage: None,
            interrupted,
            leftovers,
        };
        for backend in 0..BACKENDS {
            stage.start_backend(backend)?;
        }
        Ok(stage)
    }

    /// Starts a server.
    ///
    /// # Errors
    ///
    /// Its ports are taken.
    pub(super) fn start_backend(&mut self, backend: usize) -> Result<()> {
        let addresses: [IpAddr; 2] = backend_addresses(backend);
        let started = Backend::start(&self.network.backends[backend], &backend_name(backend), &addresses)?;
        self.backends[backend] = Some(started);
        Ok(())
    }

    /// Starts the agent, and asks it from now on how it is.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(super) fn start_agent(&mut self) -> Result<()> {
        self.agent.0 = Some(self.tool.start_agent(&self.network.balancer)?);
        if self.watcher.is_none() {
            self.watcher = Some(Watcher::start(self.tool.socket())?);
        }
        Ok(())
    }

    /// Kills the agent: SIGKILL, it can do nothing about it.
    ///
    /// # Errors
    ///
    /// It had ended before, which is worse.
    pub(super) fn kill_agent(&mut self) -> Result<()> {
        self.agent_lives()?;
        self.agent = Agent::default();
        Ok(())
    }

    /// Starts the clients.
    ///
    /// # Errors
    ///
    /// They cannot enter their namespace.
    pub(super) fn start_traffic(&mut self, load: Load) -> Result<()> {
        self.traffic = Some(Traffic::start(&self.network.client, load, Arc::clone(&self.ledger))?);
        self.began = Some(Instant::now());
        Ok(())
    }

    /// What the agent said last.
    pub(super) fn report(&self) -> Report {
        self.watcher.as_ref().map(Watcher::report).unwrap_or_default()
    }

    /// What is said above the live view.
    pub(super) fn title(&mut self, title: impl Into<String>) {
        self.title = title.into();
    }

    /// Runs `lb` in the balancer's namespace, and shows it.
    ///
    /// # Errors
    ///
    /// It failed.
    pub(super) fn lb(&mut self, command: &str) -> Result<()> {
        self.screen.command(&format!("lb {command}"));
        self.run(command)
    }

    /// As [`Self::lb`], with the options left out of what is shown: they were seen before.
    ///
    /// # Errors
    ///
    /// It failed.
    pub(super) fn lb_like_before(&mut self, command: &str) -> Result<()> {
        self.screen.line(&view::like_before(&format!("lb {command}")));
        self.run(command)
    }

    fn run(&self, command: &str) -> Result<()> {
        let words: Vec<_> = command.split(' ').collect();
        self.tool.run(&self.network.balancer, &words).with_context(|| self.last_words())
    }

    /// What the agent said last, for an error.
    fn last_words(&self) -> String {
        format!("the agent's last words were:\n{}\n", self.tool.last_words())
    }

    /// Lets time pass.
    ///
    /// # Errors
    ///
    /// Interrupted, or the agent ended by itself.
    pub(super) fn watch(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.pass_time()?;
        }
        Ok(())
    }

    /// Waits until something is so.
    ///
    /// # Errors
    ///
    /// As [`Self::watch`], and when it is not so in time.
    pub(super) fn wait(
        &mut self,
        what: &str,
        time: Duration,
        is_so: impl Fn(&Report, &Books) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + time;
        while !is_so(&self.report(), &self.ledger.snapshot()) {
            if Instant::now() >= end {
                bail!("waited {} s in vain for {what}; {}", time.as_secs(), self.last_words());
            }
            self.pass_time()?;
        }
        Ok(())
    }

    fn pass_time(&mut self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        self.agent_lives()?;
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME) {
            self.drawn = Some(Instant::now());
            self.draw();
        }
        std::thread::sleep(LOOK);
        Ok(())
    }

    fn agent_lives(&mut self) -> Result<()> {
        if let Some(child) = &mut self.agent.0
            && let Some(status) = child.try_wait()?
        {
            bail!("the agent ended by itself ({status}); {}", self.last_words());
        }
        Ok(())
    }

    fn draw(&mut self) {
        if !self.screen.is_live() || self.traffic.is_none() {
            return;
        }
        let books = self.ledger.snapshot();
        let now = Instant::now();
        self.seen.push_back((now, books.clone()));
        while self.seen.len() > 2 && self.seen[1].0 + WINDOW < now {
            self.seen.pop_front();
        }
        let report = self.report();
        let snapshot = Snapshot {
            title: self.title.clone(),
            rows: rows(&self.seen, &report),
            requests: books.answered.iter().sum(),
            lost: books.judge(self.outage).faults.len(),
            agent: report.agent,
            elapsed: self.began.map_or(Duration::ZERO, |began| began.elapsed()),
        };
        let lines = view::live(&snapshot, self.screen.width());
        self.screen.panel(lines);
    }

    /// Ends the clients, and takes the live view away.
    ///
    /// # Errors
    ///
    /// They failed.
    pub(super) fn end_traffic(&mut self) -> Result<()> {
        self.ledger.end();
        if let Some(traffic) = self.traffic.take() {
            traffic.stop()?;
        }
        self.screen.clear();
        Ok(())
    }

    /// Leaves everything as it is, with an agent and servers that do not end with this process, and says what to try.
    ///
    /// # Errors
    ///
    /// Something that has to stay cannot be started.
    pub(super) fn leave(mut self, hints: &[String]) -> Result<()> {
        self.kill_agent()?;
        self.tool.start_staying_agent(&self.network.balancer)?;
        self.backends.clear();
        let first = self.network.backends.first().context("no backends")?;
        self.tool.start_staying(first, &["demo", "--hold"].map(str::to_owned))?;
        self.wait("the backends to be up again", READY, |report, _| {
            (0..BACKENDS).all(|backend| report.is(backend, State::Up))
        })?;
        self.screen.lines(hints);
        self.network.keep();
        self.leftovers.stay();
        Ok(())
    }
}

/// Rows of the live view, from what was seen in the window.
fn rows(seen: &VecDeque<(Instant, Books)>, report: &Report) -> [Row; BACKENDS] {
    let (Some((first, then)), Some((last, now))) = (seen.front(), seen.back()) else {
        return Default::default();
    };
    let seconds = (*last - *first).as_secs_f64().max(LOOK.as_secs_f64());
    let fresh: [u64; BACKENDS] = std::array::from_fn(|backend| now.opened[backend] - then.opened[backend]);
    let share = shares(fresh).unwrap_or_default();
    std::array::from_fn(|backend| Row {
        state: report.state(backend),
        share: share[backend],
        open: now.open[backend],
        rate: (now.answered[backend] - then.answered[backend]) as f64 / seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_window() {
        let start = Instant::now();
        let books = |opened: [u64; BACKENDS], answered: [u64; BACKENDS]| Books {
            opened,
            answered,
            open: [7, 0, 0, 0],
            ..Books::default()
        };
        let seen = VecDeque::from([
            (start, books([100, 100, 0, 0], [1000, 0, 0, 0])),
            (start + Duration::from_secs(2), books([130, 110, 0, 0], [1500, 0, 0, 0])),
        ]);
        let mut report = Report::default();
        report.states[1] = vec![State::Down];
        let rows = rows(&seen, &report);
        assert_eq!(rows[0], Row { state: State::Unknown, share: 0.75, open: 7, rate: 250.0 });
        assert_eq!((rows[1].state, rows[1].share), (State::Down, 0.25));
        assert_eq!(super::rows(&VecDeque::new(), &report), [Row::default(); BACKENDS]);
    }
}
