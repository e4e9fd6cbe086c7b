//! The agent's one task: everything it owns, and how what happens becomes what is so.

use super::apply;
use super::change::outcome_of;
use super::control::Request;
use super::drains;
use super::explain;
use super::flows::FlowCounts;
use super::hops::Hops;
use super::interfaces::Interfaces;
use super::options::AgentOptions;
use super::vips::Announcer;
use super::ways::Ways;
use super::windows::{Memory, Windows};
use crate::api::failure::Failure;
use crate::config;
use crate::dataplane::counters::Counters;
use crate::dataplane::events::Events;
use crate::dataplane::flows::Flows;
use crate::dataplane::{Dataplane, Sizes, Start, Tables};
use crate::health::{self, Network, Runner, Target, Transition};
use crate::model::{Desired, Health};
use crate::net::watch::{self, Watch};
use crate::net::{self, Netlink};
use crate::plan::{self, HealthMap, Observed, Plan, RingCache, Step};
use crate::state::{State, Store};
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
    pub(super) health: HealthMap,
    pub(super) ways: Ways,
    pub(super) netlink: Netlink,
    pub(super) store: Store,
    pub(super) ticks: u64,
    pub(super) unsaved: bool,
}

impl Core {
    /// Answers a request.
    pub(super) async fn answer(&mut self, request: Request) {
        // Whoever asked may have gone: the answer then goes nowhere.
        match request {
            Request::Status(to) => drop(to.send(self.status())),
            Request::Services(to) => drop(to.send(self.service_views())),
            Request::Stats(service, to) => drop(to.send(self.stats(service.as_deref()))),
            Request::Change(change, dry_run, to) => drop(to.send(self.change(*change, dry_run).await)),
            Request::Apply(source, dry_run, to) => {
                let result = match outcome_of(&self.state.desired, source) {
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

    /// A backend went up or down.
    pub(super) async fn health_changed(&mut self, transition: Transition) {
        let Transition { target, health, reason, .. } = transition;
        let known = self.state.desired.services.get(&*target.service);
        if !known.is_some_and(|s| s.backends.contains_key(&target.backend)) {
            return;
        }
        tracing::info!(service = &*target.service, backend = %target.backend, "{health}: {reason}");
        self.health.insert((target.service.to_string(), target.backend), health);
        self.unsaved = true;
        // The check that found it up has made the kernel find its MAC address: new flows must not wait for the news.
        if let Err(error) = self.hops.look_again().await {
            self.failed("ask for next hops", &error);
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
            Ok(_) => {}
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
        if let Err(error) = self.hops.keep_fresh().await {
            self.failed("ask for next hops", &error);
        }
        self.remember_less();
        let now = unix_now();
        let ended =
            drains::ended(&self.state.desired, &self.ids, &self.windows, &self.tables, &self.flows, now);
        for change in ended {
            match config::apply(&self.state.desired, change) {
                Ok(outcome) => {
                    tracing::info!("drain ended: {}", outcome.message);
                    self.state.desired = outcome.desired;
                    self.unsaved = true;
                }
                Err(refusal) => tracing::warn!("cannot end a drain: {refusal}"),
            }
        }
        if self.interfaces_incomplete() {
            self.interfaces_follow().await;
        }
        self.converge().await;
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

    /// Plans and carries out until tables, addresses and checks are what they should be.
    pub(super) async fn converge(&mut self) {
        self.failure = None;
        let desired = self.state.desired.clone();
        if let Err(error) = self.hops.follow(&desired).await {
            self.failed("ask for next hops", &error);
        }
        if let Err(error) = self.hops.keep_fresh().await {
            self.failed("probe neighbours", &error);
        }
        let mut rings = std::mem::take(&mut self.rings);
        let planned = self.plan(&desired, &mut rings);
        self.rings = rings;
        match planned {
            Ok(plan) => {
                if let Err(error) = block_in_place(|| self.carry_out(&plan)) {
                    // What was carried out is found in the tables; rings must be looked at again.
                    self.rings = RingCache::default();
                    self.failed("write the tables", error.as_ref());
                }
            }
            Err(error) => self.failed("plan", &error),
        }
        let known = &self.health;
        let lookup = |t: &Target| known.get(&(t.service.to_string(), t.backend)).copied().unwrap_or_default();
        self.runner.update(health::targets(&desired), lookup);
        self.health.retain(|(service, backend), _| {
            desired
                .services
                .get(service)
                .is_some_and(|s| s.check.is_some() && s.backends.contains_key(backend))
        });
        self.allow_egress();
        let fit = self.fit();
        let attached = self.interfaces.attached();
        if let Err(error) = self.announcer.reconcile(&desired, &fit, &attached).await {
            self.failed("announce addresses", &error);
        }
    }

    pub(super) fn plan(&self, desired: &Desired, rings: &mut RingCache) -> Result<Plan, plan::PlanError> {
        let observed = Observed {
            now: unix_now(),
            health: &self.health,
            next_hops: self.hops.known(),
            ids: &self.ids,
            seed: self.state.seed,
            sizes: &self.sizes,
            // What cannot be read may have flows.
            used: &|row| self.counters.backend(row).map_or(true, |c| c.packets > 0),
        };
        plan::plan(desired, &observed, &self.tables, rings)
    }

    pub(super) fn carry_out(&mut self, plan: &Plan) -> Result<()> {
        for step in &plan.steps {
            tracing::debug!("{step}");
            match step {
                Step::ZeroReasons { row, .. } => self.counters.clear_reasons(*row)?,
                Step::ZeroCounters { row, .. } => self.counters.clear_backend(*row)?,
                Step::KeepCounters { from, into, .. } => self.counters.keep_backend(*from, *into)?,
                Step::ForgetFlows { id, .. } => self.forget_flows(*id)?,
                other => apply::to_tables(&mut self.tables, std::slice::from_ref(other))?,
            }
        }
        self.windows.applied(&plan.steps, monotonic_ns());
        self.ids.clone_from(&plan.ids);
        Ok(())
    }

    /// Lets packets leave through every interface that a way leads through.
    pub(super) fn allow_egress(&mut self) {
        let ways = self.hops.interfaces().into_iter().chain(self.ways.interfaces().iter().copied());
        let wanted: BTreeSet<u32> = ways.collect();
        let allow = |dataplane: &Dataplane| -> Result<()> {
            let mut interfaces = dataplane.interfaces()?;
            let known = interfaces.devices().allowed();
            for ifindex in wanted.into_iter().filter(|ifindex| !known.contains(ifindex)) {
                interfaces.allow_egress(ifindex)?;
            }
            Ok(())
        };
        if let Err(error) = allow(&self.dataplane) {
            self.failed("let packets leave", error.as_ref());
        }
    }

    /// Services that have a backend for new flows.
    pub(super) fn fit(&self) -> BTreeSet<String> {
        let serves = |name: &String| {
            let entry =
                self.ids.get(name).and_then(|id| self.tables.services.iter().find(|e| e.id == *id))?;
            let mut block = entry.backends..entry.backends + entry.capacity;
            block.any(|n| self.tables.backends.get(n).is_some_and(|b| b.selectable())).then_some(())
        };
        self.state.desired.services.keys().filter(|name| serves(name).is_some()).cloned().collect()
    }

    /// Saves the state; a failure is remembered and tried again.
    pub(super) fn save(&mut self) {
        if let Err(error) = self.try_save() {
            self.unsaved = true;
            self.failed("save the state", error.as_ref());
        }
    }

    pub(super) fn try_save(&mut self) -> Result<()> {
        self.state.health.clear();
        for ((service, backend), health) in &self.health {
            if *health != Health::Unknown {
                self.state.health.entry(service.clone()).or_default().insert(*backend, *health);
            }
        }
        let names = self.interfaces.attached();
        let placed = self.announcer.placed().iter();
        self.state.announced = placed.filter_map(|(i, a)| Some((names.get(i)?.clone(), *a))).collect();
        block_in_place(|| self.store.save(&self.state))?;
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
