//! An agent without a kernel: changes are really applied, to what is desired; the rest is made from that.

use lb_userspace::api::control::{Control, Source};
use lb_userspace::api::failure::{Failure, FailureCode};
use lb_userspace::api::types::{
    AdminState, AgentView, BackendStatsView, BackendView, CountersView, ExplainRequest, ExplainView,
    FrameView, InterfaceView, PlanView, ServicePlanView, ServiceState, ServiceStatsView, ServiceView,
    StatsView, StatusView,
};
use lb_userspace::config::{self, Change, Outcome};
use lb_userspace::explain::decode;
use lb_userspace::model::{Admin, Desired, Service};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Fake {
    desired: Mutex<Desired>,
    /// Grows with each look, as a kernel's would.
    packets: AtomicU64,
}

impl Fake {
    fn commit(&self, outcome: Outcome, dry_run: bool) -> PlanView {
        let Outcome { desired, changed, message, warnings } = outcome;
        let services: Vec<_> = desired
            .services
            .values()
            .map(|service| ServicePlanView {
                name: service.name.clone(),
                slots_moved: 10,
                slots_total: 100,
                share_moved: 0.1,
            })
            .collect();
        if !dry_run {
            *self.desired.lock().unwrap() = desired;
        }
        PlanView {
            changed,
            dry_run,
            steps: vec![message.clone()],
            message,
            slots_moved: 10,
            slots_total: 100,
            services,
            warnings,
        }
    }

    fn views(&self) -> Vec<ServiceView> {
        self.desired.lock().unwrap().services.values().map(|service| view(service)).collect()
    }
}

fn view(service: &Service) -> ServiceView {
    let total: u32 = service.active().map(|backend| backend.weight).sum();
    let backends: Vec<_> = service
        .backends
        .values()
        .map(|backend| {
            let (admin, drain_deadline, remove_when_drained) = match backend.admin {
                Admin::Active => (AdminState::Active, None, false),
                Admin::Draining { until, remove } => (AdminState::Draining, until, remove),
            };
            let share =
                if admin == AdminState::Active { f64::from(backend.weight) / f64::from(total) } else { 0.0 };
            BackendView {
                address: backend.address.to_string(),
                weight: backend.weight,
                admin,
                drain_deadline,
                remove_when_drained,
                expected_share: share,
                actual_share: share,
                counters: CountersView { packets: 1_500_000, bytes: 3_145_728, ..CountersView::default() },
                ..BackendView::default()
            }
        })
        .collect();
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
        check: service.check.as_ref().map(config::spec::format),
        state: if backends.is_empty() { ServiceState::Empty } else { ServiceState::Ok },
        reason: backends.is_empty().then(|| "it has no backends".into()),
        announced_on: Vec::new(),
        backends,
    }
}

impl Control for Fake {
    async fn status(&self) -> StatusView {
        let interfaces = self.desired.lock().unwrap().interfaces.clone();
        let interfaces = interfaces.iter().map(|(name, mode)| InterfaceView {
            name: name.clone(),
            wanted: mode.to_string(),
            mode: Some("generic".into()),
            reason: Some("the driver has no native mode".into()),
            since: None,
        });
        StatusView {
            agent: AgentView { version: "0.0.0".into(), pid: 7, uptime_s: 3700, ..AgentView::default() },
            interfaces: interfaces.collect(),
            services: self.views(),
            attention: Vec::new(),
            messages: Vec::new(),
        }
    }

    async fn services(&self) -> Vec<String> {
        self.desired.lock().unwrap().services.keys().cloned().collect()
    }

    async fn service(&self, name: &str) -> Option<ServiceView> {
        self.desired.lock().unwrap().services.get(name).map(|service| view(service))
    }

    async fn stats(&self, service: Option<&str>) -> Result<StatsView, Failure> {
        let views = self.views();
        if let Some(name) = service.filter(|name| !views.iter().any(|view| view.name == *name)) {
            let message = format!("there is no service {name:?}");
            return Err(Failure::new(FailureCode::NotFound, message, "see `lb service list`"));
        }
        let packets = 1000 * (1 + self.packets.fetch_add(1, Ordering::Relaxed));
        let counters = CountersView { packets, bytes: packets * 64, ..CountersView::default() };
        let views = views.into_iter().filter(|view| service.is_none_or(|name| view.name == name));
        let services = views.enumerate().map(|(index, view)| ServiceStatsView {
            name: view.name,
            id: index as u32 + 1,
            counters,
            backends: view
                .backends
                .into_iter()
                .map(|backend| BackendStatsView { address: backend.address, counters })
                .collect(),
            reasons: [("forwarded".to_owned(), packets)].into(),
        });
        Ok(StatsView { services: services.collect(), reasons: [("not-ip".to_owned(), 3)].into() })
    }

    async fn change(&self, change: Change, dry_run: bool) -> Result<PlanView, Failure> {
        if let Change::Attach { interface, .. } = &change
            && interface == "broken0"
        {
            return Err(Failure::failed("broken0: the kernel said no", "see the agent's log"));
        }
        let outcome = config::apply(&self.desired.lock().unwrap(), change)?;
        Ok(self.commit(outcome, dry_run))
    }

    async fn apply(&self, source: Source, dry_run: bool) -> Result<PlanView, Failure> {
        let checked = config::check(&source.text, &source.name)?;
        let outcome = config::change::replace(&self.desired.lock().unwrap(), checked)?;
        Ok(self.commit(outcome, dry_run))
    }

    async fn export(&self) -> Result<String, Failure> {
        config::export(&self.desired.lock().unwrap(), None).map_err(|e| Failure::failed(e.to_string(), ""))
    }

    async fn explain(&self, request: ExplainRequest) -> Result<ExplainView, Failure> {
        let frame = hex::decode(&request.frame).map_err(|e| Failure::invalid(e.to_string(), "send hex"))?;
        let line = decode::line(&frame);
        let frame = FrameView { hex: request.frame, decoded: line.clone() };
        let views = self.views();
        let service = views.iter().find(|view| line.contains(view.listen.trim_start_matches("tcp://")));
        let interface = request.interface.unwrap_or_else(|| "eth0".into());
        let mut view =
            ExplainView { interface, before: frame.clone(), after: frame, ..ExplainView::default() };
        match service {
            Some(service) => {
                (view.verdict, view.reason) = ("tx".into(), "forwarded".into());
                view.backend = service.backends.first().map(|backend| backend.address.clone());
                view.service = Some(service.name.clone());
            }
            None => (view.verdict, view.reason) = ("pass".into(), "not-a-service".into()),
        }
        Ok(view)
    }
}
