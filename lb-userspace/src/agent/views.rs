//! What the agent shows: its tables and what it knows, in the API's shapes.

use super::core::Core;
use super::interfaces::State;
use crate::api::failure::{Failure, FailureCode};
use crate::api::types::{
    AdminState, AgentView, BackendStatsView, BackendView, CountersView, HealthState, InterfaceView,
    NextHopView, PlanView, ServicePlanView, ServiceState, ServiceStatsView, ServiceView, StatsView,
    StatusView,
};
use crate::config::{Outcome, spec};
use crate::dataplane::Start;
use crate::dataplane::devices::Mode;
use crate::dataplane::interfaces::AttachError;
use crate::dataplane::maps::MapsError;
use crate::health::Target;
use crate::model::{Admin, Backend, Desired, Health, Service, shown};
use crate::net::format_mac;
use crate::plan::{Plan, Share, Step};
use lb_common::abi::BackendCounters;
use lb_common::reason::Reason;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

/// How an interface is attached, as a word.
fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
    }
}

/// How the agent began, as a word.
pub(super) fn start_word(start: Start) -> &'static str {
    match start {
        Start::Fresh => "fresh",
        Start::Adopted => "adopted",
        Start::Upgraded { .. } => "upgraded",
    }
}

/// A failure with everything that it says, for a terminal.
pub(super) fn full_text(failure: &Failure) -> String {
    let mut text = failure.message.clone();
    for p in &failure.problems {
        text.push_str(&format!("\n  {}:{}:{}: {}\n    {}", p.file, p.line, p.column, p.message, p.remedy));
    }
    if !failure.remedy.is_empty() {
        text.push_str(&format!("\n{}", failure.remedy));
    }
    text
}

/// An interface that cannot be attached or detached.
pub(super) fn interface_failure(error: &AttachError) -> Failure {
    let code = match error {
        AttachError::Conflict { .. } | AttachError::OtherMode { .. } => FailureCode::Conflict,
        AttachError::NoInterface(_) => FailureCode::NotFound,
        _ => FailureCode::Failed,
    };
    // The sentence says what to do already.
    Failure::new(code, error.to_string(), "")
}

/// What a change does.
pub(super) fn plan(outcome: &Outcome, plan: &Plan, dry_run: bool) -> PlanView {
    // What only prepares or follows is no news for people.
    let told = |s: &&Step| {
        !matches!(
            s,
            Step::ZeroReasons { .. }
                | Step::ZeroCounters { .. }
                | Step::KeepCounters { .. }
                | Step::Grace
                | Step::Ranges { .. }
                | Step::ForgetFlows { .. }
        )
    };
    let services: Vec<ServicePlanView> = plan
        .moves
        .iter()
        .map(|(name, moves)| ServicePlanView {
            name: name.clone(),
            slots_moved: moves.moved.into(),
            slots_total: moves.slots.into(),
            share_moved: f64::from(moves.moved) / f64::from(moves.slots.max(1)),
        })
        .collect();
    PlanView {
        changed: outcome.changed,
        dry_run,
        message: outcome.message.clone(),
        steps: plan.steps.iter().filter(told).map(ToString::to_string).collect(),
        slots_moved: services.iter().map(|s| s.slots_moved).sum(),
        slots_total: services.iter().map(|s| s.slots_total).sum(),
        services,
        warnings: outcome.warnings.clone(),
    }
}

/// Adds what happens to interfaces.
pub(super) fn interface_steps(view: &mut PlanView, before: &Desired, after: &Desired) {
    for (name, mode) in &after.interfaces {
        if before.interfaces.get(name) != Some(mode) {
            view.steps.push(format!("interface {name}: attached, mode {mode}"));
        }
    }
    for name in before.interfaces.keys().filter(|name| !after.interfaces.contains_key(*name)) {
        view.steps.push(format!("interface {name}: detached"));
    }
}

fn counters(row: &BackendCounters) -> CountersView {
    CountersView {
        packets: row.packets,
        bytes: row.bytes,
        flows: row.flows,
        back_packets: row.back_packets,
        back_bytes: row.back_bytes,
    }
}

/// Reasons that were counted, by name.
fn reasons(counts: &[u64]) -> BTreeMap<String, u64> {
    let named = Reason::ALL.iter().zip(counts).filter(|(_, count)| **count > 0);
    named.map(|(reason, count)| (reason.as_str().to_owned(), *count)).collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Core {
    /// One screen.
    pub(super) fn status(&self) -> StatusView {
        let services: Vec<ServiceView> =
            self.state.desired.services.values().map(|service| self.service_view(service)).collect();
        let mut attention: Vec<String> = self.failure.iter().cloned().collect();
        let interfaces: Vec<InterfaceView> = self
            .state
            .desired
            .interfaces
            .iter()
            .map(|(name, mode)| self.interface_view(name, &mode.to_string()))
            .collect();
        for interface in &interfaces {
            if let Some(reason) = &interface.reason {
                let how = if interface.mode.is_some() { "runs in generic mode" } else { "is not attached" };
                attention.push(format!("interface {} {how}: {reason}", interface.name));
            }
        }
        if interfaces.is_empty() && !services.is_empty() {
            attention.push("no interface is attached, so nothing is balanced: lb attach IFACE".into());
        }
        for service in &services {
            if let Some(reason) = &service.reason {
                attention.push(format!("service {} is {}: {reason}", service.name, service.state.as_str()));
            }
            let address = self.state.desired.services[&service.name].listen.address;
            if let Some(failure) = self.announcer.failure(address) {
                attention.push(format!("service {}: {failure}", service.name));
            }
            let wanted = &self.state.desired.services[&service.name];
            for family in super::sources::missing(wanted, &self.tables.settings.get()) {
                attention.push(format!(
                    "service {}: this machine has no {family} address for outer headers: give it one, or write \
                     encap-source in [agent]",
                    service.name
                ));
            }
            for backend in &service.backends {
                let hop = backend.next_hop.as_ref().filter(|hop| hop.state != "resolved");
                if let Some(reason) = hop.and_then(|hop| hop.reason.as_ref()) {
                    attention.push(format!("backend {} of {}: {reason}", backend.address, service.name));
                }
            }
        }
        StatusView {
            agent: AgentView {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: std::process::id(),
                uptime_s: self.started.elapsed().as_secs(),
                started: start_word(self.start).into(),
                socket: self.options.socket.display().to_string(),
                pins: self.options.pins.display().to_string(),
            },
            interfaces,
            services,
            attention,
            messages: self.messages.clone(),
        }
    }

    fn interface_view(&self, name: &str, wanted: &str) -> InterfaceView {
        let (name, wanted) = (name.to_owned(), wanted.to_owned());
        match self.interfaces.state(&name) {
            Some(State::Attached { mode, fallback, since, .. }) => InterfaceView {
                name,
                wanted,
                mode: Some(mode_word(*mode).into()),
                reason: fallback.clone(),
                since: Some(*since),
            },
            Some(State::Missing { reason }) => {
                InterfaceView { name, wanted, reason: Some(reason.clone()), ..InterfaceView::default() }
            }
            None => InterfaceView { name, wanted, ..InterfaceView::default() },
        }
    }

    /// One service.
    pub(super) fn service(&self, name: &str) -> Option<ServiceView> {
        self.state.desired.services.get(name).map(|service| self.service_view(service))
    }

    fn service_view(&self, service: &Service) -> ServiceView {
        let shares = self.rings.shares(&service.name);
        let rows = self.rows(service);
        let backends: Vec<BackendView> = service
            .backends
            .values()
            .map(|backend| self.backend_view(service, backend, &shares, &rows))
            .collect();
        let active = service.backends.values().filter(|b| b.admin == Admin::Active && b.weight > 0).count();
        let (state, reason) = match (active, shares.len()) {
            _ if service.backends.is_empty() => (
                ServiceState::Empty,
                Some(format!("it has no backends: lb backend add {} ADDR", service.name)),
            ),
            (_, 0) => {
                (ServiceState::Down, Some("no backend takes new flows: packets are dropped".to_owned()))
            }
            (active, serving) if serving < active => (
                ServiceState::Degraded,
                Some(format!("{} of {active} backends do not serve", active - serving)),
            ),
            _ => (ServiceState::Ok, None),
        };
        ServiceView {
            name: service.name.clone(),
            listen: service.listen.to_string(),
            mode: service.mode.to_string(),
            scheduler: "maglev".into(),
            announce: service.announce.to_string(),
            on_down: service.on_down.to_string(),
            tracking: service.tracking.to_string(),
            encap_checksum: service.encap_checksum.to_string(),
            idle_timeout_s: service.idle_timeout.as_secs(),
            echo: service.echo,
            ring_size: service.ring_size,
            check: service.check.as_ref().map(spec::format),
            state,
            reason,
            announced_on: self
                .announcer
                .placed_on(service.listen.address)
                .filter_map(|ifindex| self.interface_name(ifindex))
                .collect(),
            backends,
        }
    }

    fn backend_view(
        &self,
        service: &Service,
        backend: &Backend,
        shares: &BTreeMap<SocketAddr, Share>,
        rows: &BTreeMap<SocketAddr, BackendCounters>,
    ) -> BackendView {
        let target = Target { service: service.name.as_str().into(), backend: backend.address };
        let known = self.state.health.get(&service.name);
        let seen = service.check.as_ref().and_then(|_| self.runner.seen(&target));
        // What the tables were made from: the checks may know more that is still on its way.
        let health = match (&service.check, known.and_then(|known| known.get(&backend.address))) {
            (None, _) => HealthState::Unchecked,
            (_, None | Some(Health::Unknown)) => HealthState::Unknown,
            (_, Some(Health::Up)) => HealthState::Up,
            (_, Some(Health::Down)) => HealthState::Down,
        };
        let last = seen.as_ref().and_then(|seen| seen.last.as_ref());
        let (deadline, remove) = match backend.admin {
            Admin::Draining { until, remove } => (until, remove),
            Admin::Active => (None, false),
        };
        let share = shares.get(&backend.address).copied().unwrap_or(Share { expected: 0.0, actual: 0.0 });
        let draining = backend.admin != Admin::Active;
        BackendView {
            address: shown(&backend.address),
            weight: backend.weight,
            admin: if draining { AdminState::Draining } else { AdminState::Active },
            drain_deadline: deadline,
            remove_when_drained: remove,
            flows_left: draining.then(|| self.flows.on(&service.name, backend.address).entries),
            health,
            health_reason: last.map(|last| match &last.result {
                Ok(success) => success.to_string(),
                Err(failure) => failure.to_string(),
            }),
            since: seen.as_ref().map(|seen| seconds(seen.since)),
            next_hop: Some(self.next_hop_view(backend.address.ip())),
            expected_share: share.expected,
            actual_share: share.actual,
            counters: rows.get(&backend.address).map(counters).unwrap_or_default(),
        }
    }

    fn next_hop_view(&self, backend: IpAddr) -> NextHopView {
        let usable = self.hops.known().contains_key(&backend);
        match self.hops.answer(backend) {
            None => NextHopView { state: "resolving".into(), ..NextHopView::default() },
            Some(Err(reason)) => NextHopView {
                state: "failed".into(),
                reason: Some(reason.to_string()),
                ..NextHopView::default()
            },
            Some(Ok(hop)) => {
                let ready = hop.ready();
                let state = match (&ready, usable) {
                    (Ok(_), _) => "resolved",
                    // The neighbour entry expired or fails: packets go where it was last seen.
                    (Err(_), true) => "stale",
                    (Err(_), false) => "resolving",
                };
                NextHopView {
                    state: state.into(),
                    interface: Some(hop.interface.to_string()),
                    mac: hop.mac.map(format_mac),
                    via: hop.gateway.map(|gateway| gateway.to_string()),
                    reason: ready.err().map(|reason| reason.to_string()),
                }
            }
        }
    }

    /// What the kernel counted for the backends of a service.
    fn rows(&self, service: &Service) -> BTreeMap<SocketAddr, BackendCounters> {
        let Some(entry) = self.installed(service) else { return BTreeMap::new() };
        let block = entry.backends..entry.backends + entry.capacity;
        let used = block.filter_map(|n| self.tables.backends.get(n)).filter(|b| b.generation != 0);
        used.filter_map(|b| {
            let address = SocketAddr::new(b.addr.into(), u16::from_be(b.port));
            Some((address, self.counters.backend(b.counters).ok()?))
        })
        .collect()
    }

    /// What the kernel counted.
    pub(super) fn stats(&self, service: Option<&str>) -> Result<StatsView, Failure> {
        if let Some(name) = service.filter(|name| !self.state.desired.services.contains_key(*name)) {
            return Err(Failure::new(
                FailureCode::NotFound,
                format!("there is no service {name}"),
                "see `lb service list`",
            ));
        }
        let failed = |error: MapsError| Failure::failed(error.to_string(), "see `lb status`");
        let mut services = Vec::new();
        let asked = |name: &str| service.is_none_or(|service| service == name);
        for service in self.state.desired.services.values().filter(|service| asked(&service.name)) {
            let Some(entry) = self.installed(service) else { continue };
            let backends: Vec<BackendStatsView> = self
                .rows(service)
                .iter()
                .map(|(address, row)| BackendStatsView { address: shown(address), counters: counters(row) })
                .collect();
            let mut total = counters(&self.counters.backend(entry.past).map_err(failed)?);
            for backend in &backends {
                total += backend.counters;
            }
            let counted = self.counters.service(entry.id, total.packets, total.back_packets);
            services.push(ServiceStatsView {
                name: service.name.clone(),
                id: entry.id,
                counters: total,
                backends,
                reasons: reasons(&counted.map_err(failed)?),
            });
        }
        let global = self.counters.reasons(0).map_err(failed)?;
        Ok(StatsView { services, reasons: reasons(&global) })
    }
}
