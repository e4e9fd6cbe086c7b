//! The agent's one task: everything it owns, and how what happens becomes what is so.

use super::change::outcome_of;
use super::control::Request;
use super::drains;
use super::explain;
use super::flows::FlowCounts;
use super::heap::Heap;
use super::hops::Hops;
use super::interfaces::Interfaces;
use super::options::AgentOptions;
use super::touched::{ROUND, Touched};
use super::vips::Announcer;
use super::ways::Ways;
use super::windows::{Memory, Windows};
use crate::api::failure::Failure;
use crate::config;
use crate::dataplane::counters::Counters;
use crate::dataplane::events::Events;
use crate::dataplane::flows::Flows;
use crate::dataplane::{Dataplane, Sizes, Start, Tables};
use crate::health::{Network, Runner, Transition};
use crate::model::shown;
use crate::net::watch::{self, Watch};
use crate::net::{self, Netlink};
use crate::plan::RingCache;
use crate::state::{Saved, State};
use anyhow::Result;
use lb_common::abi::{Event, event};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::block_in_place;

/// What the agent listens to.
pub(super) struct Inputs {
    pub(super) transitions: mpsc::Receiver<Transition>,
    pub(super) watch: Watch,
    pub(super) events: Events,
}

/// Everything that the agent owns.
pub(super) struct Core {
    pub(super) options: AgentOptions,
    pub(super) started: Instant,
    pub(super) start: Start,
    pub(super) messages: Vec<String>,
    pub(super) state: State,
    pub(super) dataplane: Dataplane,
    pub(super) tables: Tables,
    pub(super) counters: Counters,
    pub(super) ids: BTreeMap<String, u32>,
    pub(super) rings: RingCache,
    pub(super) windows: Windows,
    pub(super) flows: FlowCounts,
    pub(super) interfaces: Interfaces,
    pub(super) hops: Hops,
    pub(super) announcer: Announcer,
    pub(super) runner: Runner<Network>,
    /// Why the last pass did not reach its goal.
    pub(super) failure: Option<String>,
    /// What was last said of it in the log.
    pub(super) said: Option<String>,
    pub(super) sizes: Sizes,
    pub(super) entries: [(Memory, Flows); 2],
    pub(super) ways: Ways,
    pub(super) netlink: Netlink,
    pub(super) saved: Saved,
    /// What the next pass has to look at.
    pub(super) touched: Touched,
    pub(super) heap: Heap,
    /// Services that have a backend for new flows.
    pub(super) fit: BTreeSet<String>,
    /// Interfaces that packets may leave through.
    pub(super) egress: BTreeSet<u32>,
    pub(super) ticks: u64,
    pub(super) unsaved: bool,
}

impl Core {
    /// Answers a request.
    pub(super) async fn answer(&mut self, request: Request) {
        // Whoever asked may have gone: the answer then goes nowhere.
        match request {
            Request::Status(to) => {
                self.heap.large();
                drop(to.send(self.status()));
            }
            Request::Services(to) => {
                self.heap.large();
                drop(to.send(self.state.desired.services.keys().cloned().collect()));
            }
            Request::Service(name, to) => drop(to.send(self.service(&name))),
            Request::Stats(service, to) => drop(to.send(self.stats(service.as_deref()))),
            Request::Change(change, dry_run, to) => drop(to.send(self.change(*change, dry_run).await)),
            Request::Apply(checked, dry_run, to) => {
                self.heap.large();
                let result = match outcome_of(&self.state.desired, *checked) {
                    Ok(outcome) => self.bring_about(outcome, dry_run).await,
                    Err(failure) => Err(failure),
                };
                drop(to.send(result));
            }
            Request::Export(to) => {
                let text = config::export(&self.state.desired, None)
                    .map_err(|e| Failure::failed(format!("cannot write the configuration: {e}"), ""));
                drop(to.send(text));
            }
            Request::Explain(request, to) => drop(to.send(explain::answer(self, &request))),
        }
    }

    /// Backends went up or down.
    pub(super) async fn health_changed(&mut self, transitions: Vec<Transition>) {
        let mut any = false;
        for Transition { target, health, reason, .. } in transitions {
            let known = self.state.desired.services.get(&*target.service);
            if !known.is_some_and(|s| s.backends.contains_key(&target.backend)) {
                continue;
            }
            tracing::info!(
                service = &*target.service,
                backend = shown(&target.backend),
                "{health}: {reason}"
            );
            self.state.health.entry(target.service.to_string()).or_default().insert(target.backend, health);
            self.saved.health_changed(&target.service);
            self.touched.service(&target.service);
            any = true;
        }
        if !any {
            return;
        }
        self.unsaved = true;
        // The check that found it up has made the kernel find its MAC address: new flows must not wait for the news.
        match self.hops.look_again().await {
            Ok(changed) => self.touched.backends(&self.state.desired, &changed),
            Err(error) => self.failed("ask for next hops", &error),
        }
        self.converge().await;
    }

    /// The kernel's network configuration changed.
    pub(super) async fn network_changed(&mut self, changes: &[watch::Change]) {
        let result = async {
            self.ways.changed(changes, &mut self.tables).await?;
            self.hops.changed(changes).await
        };
        match result.await {
            Ok(changed) => self.touched.backends(&self.state.desired, &changed),
            Err(error) => return self.failed("follow the network", &error),
        }
        if changes.iter().any(|c| {
            matches!(c, watch::Change::Resync | watch::Change::Link(_) | watch::Change::LinkGone { .. })
        }) {
            self.interfaces_follow().await;
        }
        self.converge().await;
    }

    /// The program has something to say.
    pub(super) async fn kernel_says(&mut self, event: Event) {
        if event.kind == event::kind::NO_NEIGHBOUR {
            let address = event.addr.into();
            if let Err(error) = self.netlink.probe(event.ifindex, address).await {
                tracing::debug!(%address, %error, "cannot resolve a client");
            }
        }
    }

    /// A second has passed.
    pub(super) async fn tick(&mut self) {
        self.ticks += 1;
        block_in_place(|| self.heap.look());
        if self.ticks.is_multiple_of(ROUND) {
            self.hops.forget(&self.state.desired);
        }
        match self.hops.keep_fresh().await {
            Ok(changed) => self.touched.backends(&self.state.desired, &changed),
            Err(error) => self.failed("ask for next hops", &error),
        }
        self.remember_less();
        let now = unix_now();
        let ended =
            drains::ended(&self.state.desired, &self.ids, &self.windows, &self.tables, &self.flows, now);
        for change in ended {
            match config::apply(&self.state.desired, change) {
                Ok(outcome) => {
                    tracing::info!("drain ended: {}", outcome.message);
                    self.touched.differing(&self.state.desired, &outcome.desired);
                    self.state.desired = outcome.desired;
                    self.unsaved = true;
                }
                Err(refusal) => tracing::warn!("cannot end a drain: {refusal}"),
            }
        }
        if self.interfaces_incomplete() {
            self.interfaces_follow().await;
        }
        self.touched.time(&self.state.desired, self.ticks, now);
        self.converge().await;
        if self.saved.is_long() {
            // Now, and not while somebody waits for a change.
            self.saved.begin_anew();
            self.unsaved = true;
        }
        if self.unsaved {
            self.save();
        }
    }

    pub(super) fn interfaces_incomplete(&self) -> bool {
        self.interfaces.attached().len() < self.state.desired.interfaces.len()
    }

    /// Attaches and detaches what the desired interfaces say.
    pub(super) async fn interfaces_follow(&mut self) {
        match self.netlink.links().await {
            Ok(links) => block_in_place(|| {
                self.interfaces.reconcile(&self.dataplane, &self.state.desired, &links);
            }),
            Err(error) => self.failed("list interfaces", &error),
        }
    }

    /// Saves the state; a failure is remembered and tried again.
    pub(super) fn save(&mut self) {
        if let Err(error) = self.try_save() {
            self.unsaved = true;
            self.failed("save the state", error.as_ref());
        }
    }

    pub(super) fn try_save(&mut self) -> Result<()> {
        let names = self.interfaces.attached();
        let placed = self.announcer.placed().iter();
        self.state.announced = placed.filter_map(|(i, a)| Some((names.get(i)?.clone(), *a))).collect();
        block_in_place(|| self.saved.save(&self.state))?;
        self.unsaved = false;
        Ok(())
    }

    /// Remembers what went wrong for `lb status`, and says it once.
    pub(super) fn failed(&mut self, what: &str, error: &dyn std::error::Error) {
        let mut text = format!("cannot {what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        if self.said.as_ref() != Some(&text) {
            tracing::warn!("{text}");
            self.said = Some(text.clone());
        }
        self.failure = Some(text);
        // What was done and what was not is found out by looking at everything.
        self.touched.everything();
    }

    /// An interface's name, if it still has one.
    pub(super) fn interface_name(&self, ifindex: u32) -> Option<String> {
        net::name(ifindex)
    }
}

pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The clock that the program uses (`bpf_ktime_get_ns`).
pub(super) fn monotonic_ns() -> u64 {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
        Ok(now) => now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64,
        // The clock always exists; a machine without one would remember flows too long, not too short.
        Err(_) => 0,
    }
}
