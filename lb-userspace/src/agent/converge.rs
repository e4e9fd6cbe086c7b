//! A pass: what was touched is planned, and the plan is carried out.

use super::apply;
use super::core::{Core, monotonic_ns, unix_now};
use super::sources;
use super::touched::Touched;
use crate::dataplane::Dataplane;
use crate::health::{self, Target};
use crate::model::{Desired, Health, Service};
use crate::plan::{self, HealthMap, Observed, Plan, RingCache, Step};
use anyhow::Result;
use lb_common::abi::ServiceEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tokio::task::block_in_place;

impl Core {
    /// Plans and carries out until tables, addresses and checks are what they should be for what was touched.
    pub(super) async fn converge(&mut self) {
        self.failure = None;
        let touched = self.touched.take();
        // Costs as much as there are services: they are shared.
        let desired = self.state.desired.clone();
        if let Err(error) = self.hops.follow(&desired, &touched).await {
            self.failed("ask for next hops", &error);
        }
        let mut rings = std::mem::take(&mut self.rings);
        let planned = self.plan(&desired, &touched, &mut rings);
        self.rings = rings;
        match planned {
            Ok(plan) => {
                if let Err(error) = block_in_place(|| self.carry_out(plan)) {
                    // What was carried out is found in the tables; rings must be looked at again.
                    self.rings = RingCache::default();
                    self.failed("write the tables", error.as_ref());
                }
            }
            Err(error) => self.failed("plan", &error),
        }
        let attached = self.interfaces.attached();
        let (v4, v6) = sources::chosen(desired.sources, self.ways.own(), &attached);
        if let Err(error) = self.tables.settings.set_sources(v4, v6) {
            self.failed("write the settings", &error);
        }
        self.check_health(&desired, &touched);
        self.allow_egress(&touched);
        self.note_fit(&desired, &touched);
        if let Err(error) = self.announcer.reconcile(&desired, &self.fit, &attached).await {
            self.failed("announce addresses", &error);
        }
    }

    pub(super) fn plan(
        &self,
        desired: &Desired,
        touched: &Touched,
        rings: &mut RingCache,
    ) -> Result<Plan, plan::PlanError> {
        let observed = Observed {
            now: unix_now(),
            health: &self.state.health,
            next_hops: self.hops.known(),
            ids: &self.ids,
            seed: self.state.seed,
            sizes: &self.sizes,
            // What cannot be read may have flows.
            used: &|row| self.counters.backend(row).map_or(true, |c| c.packets > 0),
        };
        match touched {
            Touched::Everything => plan::plan(desired, &observed, &self.tables, rings),
            Touched::Services(names) => plan::plan_touched(desired, names, &observed, &self.tables, rings),
        }
    }

    fn carry_out(&mut self, plan: Plan) -> Result<()> {
        for stretch in apply::stretches(&plan.steps) {
            for step in stretch {
                tracing::debug!("{step}");
                // Rows that nobody uses: before anything of their new owners is visible.
                match step {
                    Step::ZeroCounters { row, .. } => self.counters.clear_backend(*row)?,
                    Step::KeepCounters { from, into, .. } => self.counters.keep_backend(*from, *into)?,
                    Step::ZeroReasons { row, .. } => self.counters.clear_reasons(*row)?,
                    Step::ForgetFlows { id, .. } => self.forget_flows(*id)?,
                    _ => {}
                }
            }
            apply::to_tables(&mut self.tables, stretch)?;
        }
        self.windows.applied(&plan.steps, monotonic_ns());
        self.ids = plan.ids;
        Ok(())
    }

    /// Checks what is to be checked, and forgets the health of what is not.
    fn check_health(&mut self, desired: &Desired, touched: &Touched) {
        let known = &self.state.health;
        let lookup = |t: &Target| {
            known.get(&*t.service).and_then(|known| known.get(&t.backend)).copied().unwrap_or_default()
        };
        match touched {
            Touched::Everything => {
                self.runner.update(health::targets(desired), lookup);
                self.state
                    .health
                    .retain(|name, known| keep_health(desired.services.get(name).map(AsRef::as_ref), known));
            }
            Touched::Services(names) => {
                for name in names {
                    let service = desired.services.get(name).map(AsRef::as_ref);
                    let targets = service.map(health::targets_of).unwrap_or_default();
                    self.runner.update_service(name, targets, lookup);
                }
                for name in names {
                    let service = desired.services.get(name).map(AsRef::as_ref);
                    forget_health(&mut self.state.health, name, service);
                }
            }
        }
    }

    /// Lets packets leave through every interface that a way leads through.
    fn allow_egress(&mut self, touched: &Touched) {
        let wanted: BTreeSet<u32> = self.hops.interfaces().union(self.ways.interfaces()).copied().collect();
        if *touched != Touched::Everything && wanted.is_subset(&self.egress) {
            return;
        }
        let allow = |dataplane: &Dataplane| -> Result<()> {
            let mut interfaces = dataplane.interfaces()?;
            let known = interfaces.devices().allowed();
            for ifindex in wanted.iter().filter(|ifindex| !known.contains(ifindex)) {
                interfaces.allow_egress(*ifindex)?;
            }
            Ok(())
        };
        match allow(&self.dataplane) {
            Ok(()) => self.egress = wanted,
            Err(error) => self.failed("let packets leave", error.as_ref()),
        }
    }

    /// Notes which services have a backend for new flows.
    fn note_fit(&mut self, desired: &Desired, touched: &Touched) {
        match touched {
            Touched::Everything => {
                let fit = desired.services.values().filter(|service| self.serves(service));
                self.fit = fit.map(|service| service.name.clone()).collect();
            }
            Touched::Services(names) => {
                for name in names {
                    if desired.services.get(name).is_some_and(|service| self.serves(service)) {
                        self.fit.insert(name.clone());
                    } else {
                        self.fit.remove(name);
                    }
                }
            }
        }
    }

    fn serves(&self, service: &Service) -> bool {
        self.installed(service).is_some_and(|entry| {
            let mut block = entry.backends..entry.backends + entry.capacity;
            block.any(|n| self.tables.backends.get(n).is_some_and(|b| b.selectable()))
        })
    }

    /// What the tables hold for a service.
    pub(super) fn installed(&self, service: &Service) -> Option<ServiceEntry> {
        let id = *self.ids.get(&service.name)?;
        let here = plan::installed(service, &self.tables);
        // It may still listen elsewhere.
        here.filter(|entry| entry.id == id)
            .or_else(|| self.tables.services.iter().find(|entry| entry.id == id))
    }
}

/// Forgets backends that are gone or not checked any more; whether anything is left.
fn keep_health(service: Option<&Service>, known: &mut BTreeMap<SocketAddr, Health>) -> bool {
    let Some(service) = service.filter(|service| service.check.is_some()) else { return false };
    known.retain(|backend, _| service.backends.contains_key(backend));
    !known.is_empty()
}

fn forget_health(health: &mut HealthMap, name: &str, service: Option<&Service>) {
    if health.get_mut(name).is_some_and(|known| !keep_health(service, known)) {
        health.remove(name);
    }
}
