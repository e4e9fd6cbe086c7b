//! The agent's one task: everything it owns, and how what happens becomes what is so.

use super::control::Request;
use super::drains;
use super::explain;
use super::flows::{self, FlowCounts};
use super::hops::Hops;
use super::interfaces::Interfaces;
use super::options::AgentOptions;
use super::vips::Announcer;
use super::ways::Ways;
use super::windows::{Memory, Remembered, Timeouts, Windows};
use super::{apply, views};
use crate::api::control::Source;
use crate::api::failure::{Failure, FailureCode};
use crate::api::types::PlanView;
use crate::config::{self, Change, Outcome};
use crate::dataplane::counters::Counters;
use crate::dataplane::drops;
use crate::dataplane::events::Events;
use crate::dataplane::flows::{FlowTable, Flows};
use crate::dataplane::{Dataplane, Opened, Options, Sizes, Start, Tables};
use crate::health::{self, Network, Runner, Target, Transition};
use crate::model::{Admin, Desired, Health};
use crate::net::watch::{self, Watch};
use crate::net::{self, Netlink};
use crate::plan::{self, HealthMap, Observed, Plan, RingCache, Step};
use crate::state::{State, Store};
use anyhow::{Context, Result};
use lb_common::abi::{Event, FlowKey, event};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::block_in_place;

/// Ticks between two looks at all flow entries.
const SWEEP: u64 = 5;
/// Transitions that wait at once.
const TRANSITIONS: usize = 1024;

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
    said: Option<String>,
    sizes: Sizes,
    entries: [(Memory, Flows); 2],
    health: HealthMap,
    ways: Ways,
    netlink: Netlink,
    store: Store,
    ticks: u64,
    unsaved: bool,
}

impl Core {
    /// Reads the state, adopts or loads the data plane, and makes one pass.
    ///
    /// # Errors
    /// No privileges, an unsupported kernel, pins of somebody else, state or configuration that cannot be used.
    pub(super) async fn start(options: AgentOptions) -> Result<(Self, Inputs)> {
        let store = Store::new(&options.state);
        let loaded = block_in_place(|| store.load())?;
        let mut messages: Vec<String> = loaded.note.into_iter().collect();
        let mut state = loaded.state;
        if let Some(seed) = options.seed {
            state.seed = seed;
        }
        if let Some(path) = &options.config {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let outcome = outcome_of(&state.desired, Source { text, name: path.display().to_string() })
                .map_err(|failure| anyhow::anyhow!(views::full_text(&failure)))?;
            messages.extend(outcome.warnings);
            state.desired = outcome.desired;
        }

        let opened = block_in_place(|| {
            let (pins, log_drops) = (options.pins.clone(), options.log_drops);
            Dataplane::open(&Options { pins, sizes: options.sizes, log_drops })
        })?;
        let Opened { dataplane, start, unknown, kept_sizes } = opened;
        messages.extend(unknown.iter().map(|path| {
            format!("{} is not ours and was left alone: remove it if nobody needs it", path.display())
        }));
        messages.extend(kept_sizes.iter().map(|k| {
            format!("table {} keeps its size of {} entries (asked for: {})", k.table, k.has, k.asked)
        }));
        for message in &messages {
            tracing::warn!("{message}");
        }
        let tables = dataplane.tables()?;
        let counters = Counters::open(dataplane.maps())?;
        let sizes = sizes(&tables, &counters);
        let events = Events::open(dataplane.maps())?;
        if options.log_drops {
            let program = dataplane.program_id()?;
            tokio::spawn(async move {
                if let Err(error) = drops::follow(program).await {
                    tracing::warn!(%error, "dropped packets are not told of");
                }
            });
        }
        let entries = [
            (Memory::Flows, Flows::open(dataplane.maps(), FlowTable::Established)?),
            (Memory::Embryonic, Flows::open(dataplane.maps(), FlowTable::Embryonic)?),
        ];

        // Subscribed first, read afterwards: nothing falls between the two.
        let watch = Watch::open()?;
        let netlink = Netlink::open()?;
        let (sender, transitions) = mpsc::channel(TRANSITIONS);
        let health = known_health(&state);
        let mut core = Self {
            started: Instant::now(),
            start,
            messages,
            ids: ids_by_listener(&state.desired, &tables),
            windows: Windows::adopt(&tables, monotonic_ns()),
            rings: RingCache::default(),
            flows: FlowCounts::default(),
            interfaces: Interfaces::default(),
            hops: Hops::new(netlink.clone()),
            announcer: Announcer::new(netlink.clone()),
            ways: Ways::new(netlink.clone()),
            runner: Runner::new(Network, health::schedule::CONCURRENCY, sender),
            failure: None,
            said: None,
            options,
            state,
            dataplane,
            tables,
            counters,
            sizes,
            entries,
            health,
            netlink,
            store,
            ticks: 0,
            unsaved: true,
        };
        let found = core.dataplane.interfaces()?.attached()?;
        for gone in &found.vanished {
            tracing::info!(
                interface = gone.name,
                "was deleted while it was attached: attached again when it is back"
            );
        }
        core.interfaces.adopt(found.attached);
        core.announcer.adopt(&core.interfaces.attached()).await?;
        core.ways.refresh(&mut core.tables).await?;
        core.interfaces_follow().await;
        core.converge().await;
        core.save();
        tracing::info!(
            services = core.state.desired.services.len(),
            interfaces = core.interfaces.attached().len(),
            "ready: {}",
            views::start_word(core.start)
        );
        Ok((core, Inputs { transitions, watch, events }))
    }

    /// Answers a request.
    pub(super) async fn answer(&mut self, request: Request) {
        // Whoever asked may have gone: the answer then goes nowhere.
        match request {
            Request::Status(to) => drop(to.send(self.status())),
            Request::Services(to) => drop(to.send(self.service_views())),
            Request::Stats(service, to) => drop(to.send(self.stats(service.as_deref()))),
            Request::Change(change, dry_run, to) => drop(to.send(self.change(change, dry_run).await)),
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

    /// Does a change, or plans it.
    async fn change(&mut self, change: Change, dry_run: bool) -> Result<PlanView, Failure> {
        let outcome = config::apply(&self.state.desired, change)?;
        self.bring_about(outcome, dry_run).await
    }

    /// Makes what is desired so: interfaces first, because they are what may be refused; then it is persisted, then done.
    async fn bring_about(&mut self, outcome: Outcome, dry_run: bool) -> Result<PlanView, Failure> {
        let mut rings = RingCache::default();
        let planned = self.plan(&outcome.desired, &mut rings).map_err(full)?;
        let mut view = views::plan(&outcome, &planned, dry_run);
        views::interface_steps(&mut view, &self.state.desired, &outcome.desired);
        if dry_run || !outcome.changed {
            return Ok(view);
        }
        let new = self.attach_new(&outcome.desired, &mut view).await?;
        let before = std::mem::replace(&mut self.state.desired, outcome.desired);
        if let Err(error) = self.try_save() {
            self.state.desired = before;
            for name in new {
                // It was attached a moment ago; what fails now is found and tried again by the next pass.
                let _ = self.interfaces.detach(&self.dataplane, &name);
            }
            return Err(Failure::failed(
                format!("nothing was changed: the state cannot be saved: {error:#}"),
                format!("see that {} can be written", self.options.state.display()),
            ));
        }
        self.interfaces_follow().await;
        self.converge().await;
        match &self.failure {
            None => Ok(view),
            Some(failure) => Err(Failure::failed(
                format!("the change is saved, but not yet in force: {failure}"),
                "the agent keeps trying; see `lb status`",
            )),
        }
    }

    /// Attaches interfaces that are new in `desired`; if one is refused, those before it are detached again.
    async fn attach_new(&mut self, desired: &Desired, view: &mut PlanView) -> Result<Vec<String>, Failure> {
        let mut done: Vec<String> = Vec::new();
        for (name, mode) in &desired.interfaces {
            if self.state.desired.interfaces.get(name) == Some(mode) {
                continue;
            }
            let was_attached = self.state.desired.interfaces.contains_key(name);
            let result = match self.netlink.link(name).await {
                Ok(link) => self
                    .interfaces
                    .attach(&self.dataplane, &link, *mode)
                    .map_err(|error| views::interface_failure(&error)),
                Err(error) => Err(Failure::new(FailureCode::NotFound, error.to_string(), "see `ip link`")),
            };
            match result {
                Ok(attached) => {
                    view.warnings.extend(
                        attached
                            .fallback
                            .map(|why| format!("{name} is attached in generic mode, which is slower: {why}")),
                    );
                    if !was_attached {
                        done.push(name.clone());
                    }
                }
                Err(failure) => {
                    for name in &done {
                        // As above: what fails is found by the next pass.
                        let _ = self.interfaces.detach(&self.dataplane, name);
                    }
                    return Err(failure);
                }
            }
        }
        Ok(done)
    }

    fn interfaces_incomplete(&self) -> bool {
        self.interfaces.attached().len() < self.state.desired.interfaces.len()
    }

    /// Attaches and detaches what the desired interfaces say.
    async fn interfaces_follow(&mut self) {
        match self.netlink.links().await {
            Ok(links) => block_in_place(|| {
                self.interfaces.reconcile(&self.dataplane, &self.state.desired, &links);
            }),
            Err(error) => self.failed("list interfaces", &error),
        }
    }

    /// Plans and carries out until tables, addresses and checks are what they should be.
    async fn converge(&mut self) {
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

    fn plan(&self, desired: &Desired, rings: &mut RingCache) -> Result<Plan, plan::PlanError> {
        let observed = Observed {
            now: unix_now(),
            health: &self.health,
            next_hops: self.hops.known(),
            ids: &self.ids,
            seed: self.state.seed,
            sizes: &self.sizes,
        };
        plan::plan(desired, &observed, &self.tables, rings)
    }

    fn carry_out(&mut self, plan: &Plan) -> Result<()> {
        for step in &plan.steps {
            tracing::debug!("{step}");
            match step {
                Step::ZeroReasons { row, .. } => self.counters.clear_reasons(*row)?,
                Step::ZeroCounters { row, .. } => self.counters.clear_backend(*row)?,
                Step::ForgetFlows { id, .. } => self.forget_flows(*id)?,
                other => apply::to_tables(&mut self.tables, std::slice::from_ref(other))?,
            }
        }
        self.windows.applied(&plan.steps, monotonic_ns());
        self.ids.clone_from(&plan.ids);
        Ok(())
    }

    /// Lets packets leave through every interface that a way leads through.
    fn allow_egress(&mut self) {
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
    fn fit(&self) -> BTreeSet<String> {
        let serves = |name: &String| {
            let entry =
                self.ids.get(name).and_then(|id| self.tables.services.iter().find(|e| e.id == *id))?;
            let mut block = entry.backends..entry.backends + entry.capacity;
            block.any(|n| self.tables.backends.get(n).is_some_and(|b| b.selectable())).then_some(())
        };
        self.state.desired.services.keys().filter(|name| serves(name).is_some()).cloned().collect()
    }

    fn timeouts(&self) -> Timeouts {
        let timeout =
            |(name, id): (&String, &u32)| Some((*id, self.state.desired.services.get(name)?.idle_timeout));
        self.ids.iter().filter_map(timeout).collect()
    }

    /// Closes windows, and every few ticks looks at all entries.
    fn remember_less(&mut self) {
        let (timeouts, now) = (self.timeouts(), monotonic_ns());
        if let Err(error) = self.windows.close(&mut self.tables, &timeouts, now) {
            self.failed("close windows", &error);
        }
        let draining = |d: &Desired| {
            d.services
                .values()
                .any(|s| s.backends.values().any(|b| matches!(b.admin, Admin::Draining { .. })))
        };
        let due = self.ticks.is_multiple_of(SWEEP) && self.windows.any_tracked();
        if !(due || draining(&self.state.desired)) {
            return;
        }
        if let Err(error) = block_in_place(|| self.sweep(&timeouts)) {
            self.failed("look at the flows", error.as_ref());
        }
    }

    fn sweep(&mut self, timeouts: &Timeouts) -> Result<()> {
        let entries = self.remembered()?;
        let gone = self.windows.sweep(&mut self.tables, entries.iter().copied(), timeouts, monotonic_ns())?;
        let removed: BTreeSet<_> =
            gone.iter().map(|(_, key)| (key.client.0, key.ports, key.service)).collect();
        let left = entries.iter().filter(|(_, k, _)| !removed.contains(&(k.client.0, k.ports, k.service)));
        self.flows = FlowCounts::new(left, &self.ids, &self.tables);
        for (memory, keys) in flows::by_memory(gone) {
            self.forget(memory, &keys)?;
        }
        Ok(())
    }

    fn forget_flows(&mut self, id: u32) -> Result<()> {
        let entries = self.remembered()?;
        let of =
            entries.iter().filter(|(_, key, _)| key.service == id).map(|(memory, key, _)| (*memory, *key));
        for (memory, keys) in flows::by_memory(of.collect()) {
            self.forget(memory, &keys)?;
        }
        Ok(())
    }

    /// Every entry of both tables.
    fn remembered(&mut self) -> Result<Vec<Remembered>> {
        let mut all = Vec::new();
        for (memory, table) in &mut self.entries {
            table.for_each(|key, value| all.push((*memory, *key, *value)))?;
        }
        Ok(all)
    }

    fn forget(&mut self, memory: Memory, keys: &[FlowKey]) -> Result<()> {
        for (which, table) in &mut self.entries {
            if *which == memory && !keys.is_empty() {
                table.delete(keys)?;
            }
        }
        Ok(())
    }

    /// Saves the state; a failure is remembered and tried again.
    pub(super) fn save(&mut self) {
        if let Err(error) = self.try_save() {
            self.unsaved = true;
            self.failed("save the state", error.as_ref());
        }
    }

    fn try_save(&mut self) -> Result<()> {
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
    fn failed(&mut self, what: &str, error: &dyn std::error::Error) {
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

/// What a configuration makes of what is desired.
fn outcome_of(desired: &Desired, source: Source) -> Result<Outcome, Failure> {
    let checked = config::check(&source.text, &source.name)?;
    let warnings: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    let outcome = config::change::replace(desired, checked)?;
    Ok(Outcome { warnings, ..outcome })
}

fn full(error: plan::PlanError) -> Failure {
    Failure::failed(
        format!("nothing was changed: {error}"),
        "start the agent with larger tables and fresh pins, or remove services",
    )
}

/// The ids of services that are in the tables, found by where they listen: names are not in the kernel.
fn ids_by_listener(desired: &Desired, tables: &Tables) -> BTreeMap<String, u32> {
    let id = |service| tables.services.find(&plan::key(service)).map(|(_, entry)| entry.id);
    desired.services.iter().filter_map(|(name, service)| Some((name.clone(), id(service)?))).collect()
}

/// How large the tables are that were found or made.
fn sizes(tables: &Tables, counters: &Counters) -> Sizes {
    Sizes {
        services: tables.services.capacity(),
        ring_lines: tables.rings.lines(),
        backends: tables.backends.capacity(),
        reverse: tables.reverse.capacity(),
        neighbours: tables.neighbours.capacity(),
        counters: counters.backend_rows(),
        reasons: counters.reason_rows(),
        ..Sizes::default()
    }
}

fn known_health(state: &State) -> HealthMap {
    let of = |(service, backends): (&String, &BTreeMap<_, Health>)| {
        let service = service.clone();
        backends.clone().into_iter().map(move |(backend, health)| ((service.clone(), backend), health))
    };
    state.health.iter().flat_map(of).collect()
}

pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The clock that the program uses (`bpf_ktime_get_ns`).
fn monotonic_ns() -> u64 {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
        Ok(now) => now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64,
        // The clock always exists; a machine without one would remember flows too long, not too short.
        Err(_) => 0,
    }
}
