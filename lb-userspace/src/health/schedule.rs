//! When targets are tried: each on a task of its own, spread out, and never too many at once.
//!
//! The set of targets can be changed at any time: what stays keeps what is known of it. Results that change a backend's
//! health go to a channel, everything else is there to be asked for. Time is tokio's.

use super::machine::Machine;
use super::probe::{Failure, Probe, Success};
use crate::model::{Check, Desired, Health, Service};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Tries at the same time, unless said otherwise: below the usual limit of 1024 open files.
pub const CONCURRENCY: usize = 512;
/// The first try comes within this, or within the interval if that is shorter.
const FIRST: Duration = Duration::from_secs(1);

/// A backend as a service uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Name of the service.
    pub service: Arc<str>,
    /// The backend.
    pub backend: SocketAddr,
}

/// How a target is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The check, shared by the backends of a service.
    pub check: Arc<Check>,
    /// Address that tries come from; `None`: the kernel's choice.
    pub source: Option<IpAddr>,
}

/// A backend went up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which.
    pub target: Target,
    /// What it is now.
    pub health: Health,
    /// The result that decided.
    pub reason: String,
    /// When.
    pub at: SystemTime,
}

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its health.
    pub health: Health,
    /// Since when.
    pub since: SystemTime,
    /// Results in a row like the last one that said something of the backend.
    pub streak: u32,
    /// The last result.
    pub last: Option<Last>,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// What came of it.
    pub result: Result<Success, Failure>,
    /// How long it took.
    pub latency: Duration,
    /// When it was known.
    pub at: SystemTime,
}

/// Every checked backend of a configuration. Draining ones too: they must stay reachable.
pub fn targets(desired: &Desired) -> BTreeMap<Target, Plan> {
    desired.services.values().flat_map(|service| targets_of(service)).collect()
}

/// Every backend of a service, if it is checked.
pub fn targets_of(service: &Service) -> BTreeMap<Target, Plan> {
    let Some(check) = &service.check else { return BTreeMap::new() };
    let (name, check): (Arc<str>, _) = (service.name.as_str().into(), Arc::new(check.clone()));
    let target = |backend: &SocketAddr| {
        let target = Target { service: Arc::clone(&name), backend: *backend };
        (target, Plan { check: Arc::clone(&check), source: None })
    };
    service.backends.keys().map(target).collect()
}

/// Tries targets until it is dropped.
#[derive(Debug)]
pub struct Runner<P> {
    probe: Arc<P>,
    gate: Arc<Semaphore>,
    transitions: mpsc::Sender<Transition>,
    /// By service, then by backend.
    entries: BTreeMap<Arc<str>, BTreeMap<SocketAddr, Entry>>,
}

#[derive(Debug)]
struct Entry {
    plan: watch::Sender<Plan>,
    record: Arc<Record>,
    task: JoinHandle<()>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a task writes and a snapshot reads.
#[derive(Debug)]
struct Record(Mutex<(Machine, SystemTime, Option<Last>)>);

impl<P: Probe> Runner<P> {
    /// A runner without targets, with at most `concurrency` tries at once.
    ///
    /// If the channel is full, the targets that went up or down wait, and nothing is lost. After a target is taken out
    /// of the set, a transition of it may still be in the channel.
    pub fn new(probe: P, concurrency: usize, transitions: mpsc::Sender<Transition>) -> Self {
        let gate = Arc::new(Semaphore::new(concurrency));
        Self { probe: Arc::new(probe), gate, transitions, entries: BTreeMap::new() }
    }

    /// Makes `wanted` the set of targets. Must be called on a tokio runtime.
    ///
    /// A target that stays as it is, is not disturbed. One whose plan changed keeps its health and starts its timer
    /// anew. A new one starts with what `known` says of it, perhaps from before a restart.
    pub fn update(&mut self, wanted: BTreeMap<Target, Plan>, known: impl Fn(&Target) -> Health) {
        let mut services: BTreeMap<Arc<str>, BTreeMap<Target, Plan>> = BTreeMap::new();
        for (target, plan) in wanted {
            services.entry(Arc::clone(&target.service)).or_default().insert(target, plan);
        }
        self.entries.retain(|service, _| services.contains_key(service));
        for (service, wanted) in services {
            self.update_service(&service, wanted, &known);
        }
    }

    /// Makes `wanted` the set of targets of one service, which all of them must belong to; see [`Self::update`].
    pub fn update_service(
        &mut self,
        service: &str,
        mut wanted: BTreeMap<Target, Plan>,
        known: impl Fn(&Target) -> Health,
    ) {
        if wanted.is_empty() {
            self.entries.remove(service);
            return;
        }
        let name: Arc<str> =
            self.entries.get_key_value(service).map_or_else(|| service.into(), |(name, _)| Arc::clone(name));
        let entries = self.entries.entry(Arc::clone(&name)).or_default();
        entries.retain(|backend, entry| {
            match wanted.remove(&Target { service: Arc::clone(&name), backend: *backend }) {
                Some(plan) => {
                    entry.plan.send_if_modified(|current| {
                        let changed = *current != plan;
                        *current = plan;
                        changed
                    });
                    true
                }
                None => false,
            }
        });
        for (target, plan) in wanted {
            let machine = Machine::new(plan.check.rise, plan.check.fall, known(&target));
            let record = Arc::new(Record(Mutex::new((machine, SystemTime::now(), None))));
            let (plan, plans) = watch::channel(plan);
            let task = Task {
                target: target.clone(),
                probe: Arc::clone(&self.probe),
                gate: Arc::clone(&self.gate),
                record: Arc::clone(&record),
                transitions: self.transitions.clone(),
            };
            let task = tokio::spawn(task.run(plans));
            entries.insert(target.backend, Entry { plan, record, task });
        }
    }

    /// What is known of a target; `None` if it is not in the set.
    pub fn seen(&self, target: &Target) -> Option<Seen> {
        self.entries.get(&target.service)?.get(&target.backend).map(|entry| entry.record.seen())
    }

    /// What is known of every target.
    pub fn snapshot(&self) -> BTreeMap<Target, Seen> {
        let of = |(service, entries): (&Arc<str>, &BTreeMap<SocketAddr, Entry>)| {
            let seen = |(backend, entry): (&SocketAddr, &Entry)| {
                (Target { service: Arc::clone(service), backend: *backend }, entry.record.seen())
            };
            entries.iter().map(seen).collect::<Vec<_>>()
        };
        self.entries.iter().flat_map(of).collect()
    }
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, (Machine, SystemTime, Option<Last>)> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Seen {
        let (machine, since, last) = &*self.lock();
        Seen { health: machine.health(), since: *since, streak: machine.streak(), last: last.clone() }
    }

    /// Notes a result; the new health if it changed.
    fn note(&self, last: Last) -> Option<Health> {
        let (machine, since, slot) = &mut *self.lock();
        let change = match &last.result {
            Ok(_) => machine.observe(true),
            Err(failure) if failure.is_backends() => machine.observe(false),
            Err(_) => None,
        };
        if change.is_some() {
            *since = last.at;
        }
        *slot = Some(last);
        change
    }
}

struct Task<P> {
    target: Target,
    probe: Arc<P>,
    gate: Arc<Semaphore>,
    record: Arc<Record>,
    transitions: mpsc::Sender<Transition>,
}

impl<P: Probe> Task<P> {
    /// Ends when the runner or the receiver of transitions is gone.
    async fn run(self, mut plans: watch::Receiver<Plan>) {
        loop {
            let plan = plans.borrow_and_update().clone();
            self.record.lock().0.configure(plan.check.rise, plan.check.fall);
            let mut delay = FIRST.min(plan.check.interval).mul_f64(rand::random_range(0.0..1.0));
            loop {
                let last = tokio::select! {
                    changed = plans.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    last = self.wait_and_try(&plan, delay) => last,
                };
                // Outside of the select: a transition that was noted is sent, whatever changes meanwhile.
                if self.note(last).await.is_err() {
                    return;
                }
                delay = plan.check.interval.mul_f64(rand::random_range(0.9..=1.1));
            }
        }
    }

    async fn wait_and_try(&self, plan: &Plan, delay: Duration) -> Last {
        tokio::time::sleep(delay).await;
        // The gate is never closed; if it were, tries would only be unlimited.
        let _permit = self.gate.acquire().await;
        let start = Instant::now();
        let result = self.probe.probe(&self.target, plan).await;
        Last { result, latency: start.elapsed(), at: SystemTime::now() }
    }

    async fn note(&self, last: Last) -> Result<(), mpsc::error::SendError<Transition>> {
        let at = last.at;
        let result = last.result.clone();
        let Some(health) = self.record.note(last) else { return Ok(()) };
        let reason = result.map_or_else(|failure| failure.to_string(), |success| success.to_string());
        self.transitions.send(Transition { target: self.target.clone(), health, reason, at }).await
    }
}

#[cfg(test)]
mod tests;
