//! From what is wanted and what is there to the steps between: pure, so that it can be printed, compared and tested.
//!
//! [`plan`] reads the tables, never writes them, and knows no clock but [`Observed::now`]. Carrying its steps out and
//! planning again gives nothing: that is the agent's definition of done. Steps are in an order in which every packet
//! finds a consistent state: what gains a backend comes before the slots that point to it, what loses one after.

mod allocate;
mod ring;
mod service;
mod step;
#[cfg(test)]
mod tests;
mod vip;
mod wide;
#[cfg(test)]
mod wide_tests;

pub use ring::{RingCache, Share};
pub(crate) use service::installed;
pub use step::Step;

use crate::dataplane::Sizes;
use crate::dataplane::tables::Tables;
use crate::model::{Desired, Health, Service};
use allocate::Allocator;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use wide::Wide;

/// Health of backends, by service and address. One that is not here is unknown.
pub type HealthMap = BTreeMap<String, BTreeMap<SocketAddr, Health>>;

/// The next station on the way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Its MAC address, then the interface's.
    pub macs: [u8; 12],
    /// The interface.
    pub ifindex: u32,
    /// Largest IP packet, bytes.
    pub mtu: u32,
}

/// What the agent has seen.
pub struct Observed<'a> {
    /// Seconds since the Unix epoch.
    pub now: u64,
    /// What the checks say.
    pub health: &'a HealthMap,
    /// Next hops that are known, by the backend's address.
    pub next_hops: &'a BTreeMap<IpAddr, NextHop>,
    /// Ids of services in the tables, by name.
    pub ids: &'a BTreeMap<String, u32>,
    /// Seed that all balancers of a cluster share.
    pub seed: u32,
    /// How large the tables are.
    pub sizes: &'a Sizes,
    /// Whether a backend may have flows, by its row of `COUNTERS`: one that never got a packet has none, and slots that
    /// leave it need no window.
    pub used: &'a dyn Fn(u32) -> bool,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Slots that change hands, by service.
    pub moves: BTreeMap<String, Moves>,
    /// Ids of the services after the steps.
    pub ids: BTreeMap<String, u32>,
}

/// How much of a ring changes hands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Slots whose backend for new flows changes.
    pub moved: u32,
    /// Slots of the ring.
    pub slots: u32,
}

/// Why nothing can be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A table has no room. Nothing was changed.
    #[error(
        "{what} is full: {used} of {size} {unit} are used and {wanted} more are needed by service {service:?}"
    )]
    Full {
        /// The table.
        what: &'static str,
        /// The service that asked.
        service: String,
        /// What is in use.
        used: u32,
        /// What there is.
        size: u32,
        /// What was asked for.
        wanted: u32,
        /// What is counted.
        unit: &'static str,
    },
}

/// Plans the way from the tables as they are to `desired`.
///
/// `rings` remembers rings between calls, so that only services whose set of backends changed cost anything.
///
/// # Errors
/// [`PlanError::Full`] when a table has no room; nothing is to be done then.
pub fn plan(
    desired: &Desired,
    observed: &Observed<'_>,
    tables: &Tables,
    rings: &mut RingCache,
) -> Result<Plan, PlanError> {
    let wanted = desired.services.values().map(AsRef::as_ref);
    plan_these(desired, wanted, observed, tables, rings)
}

/// Plans like [`plan`], but looks only at services that are named in `touched`, and at those that are gone.
///
/// The result is the same as long as the others are what they should be: whoever calls this knows what has changed since
/// a plan was carried out.
///
/// # Errors
/// As [`plan`].
pub fn plan_touched(
    desired: &Desired,
    touched: &BTreeSet<String>,
    observed: &Observed<'_>,
    tables: &Tables,
    rings: &mut RingCache,
) -> Result<Plan, PlanError> {
    let wanted = touched.iter().filter_map(|name| desired.services.get(name)).map(AsRef::as_ref);
    plan_these(desired, wanted, observed, tables, rings)
}

fn plan_these<'a>(
    desired: &Desired,
    wanted: impl Iterator<Item = &'a Service>,
    observed: &Observed<'_>,
    tables: &Tables,
    rings: &mut RingCache,
) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let mut allocator = Allocator::new(tables, observed.sizes);
    let installed: BTreeMap<u32, _> = tables.services.iter().map(|entry| (entry.id, entry)).collect();
    vip::remove(&mut plan, desired, observed, tables);
    let silenced = plan.steps.len();
    let known = |name: &str| observed.ids.get(name).and_then(|id| installed.get(id)).copied();

    let mut wide = Wide::new(desired, tables);

    // Services that are gone make room first.
    let kept: BTreeSet<u32> =
        desired.services.keys().filter_map(|name| observed.ids.get(name)).copied().collect();
    let gone = || installed.values().filter(|entry| !kept.contains(&entry.id));
    gone().for_each(|entry| wide.forget(&mut plan, entry));
    if plan.steps.len() > silenced {
        plan.steps.push(Step::Grace);
    }
    for entry in gone() {
        let name = observed.ids.iter().find(|(_, id)| **id == entry.id).map(|(name, _)| name.clone());
        service::remove(&mut plan, name, entry, tables, &allocator);
        allocator.release(entry);
    }
    if plan.steps.len() > silenced {
        plan.steps.push(Step::Grace);
    }
    rings.retain(|name| desired.services.contains_key(name));
    let stay =
        observed.ids.iter().filter(|(name, _)| known(name).is_some() && desired.services.contains_key(*name));
    plan.ids = stay.map(|(name, id)| (name.clone(), *id)).collect();
    let mut gone = Vec::new();
    for wanted in wanted {
        let entry = known(&wanted.name);
        gone.extend(service::reconcile(
            &mut plan,
            wanted,
            entry,
            observed,
            tables,
            (&mut allocator, &mut wide),
            rings,
        )?);
    }
    vip::put(&mut plan, desired, tables);
    wide.settle(&mut plan, &allocator);
    if !gone.is_empty() {
        // Once for all of them: then nobody counts for them any more, and their places may be given out.
        plan.steps.push(Step::Grace);
        plan.steps.extend(gone);
    }
    Ok(plan)
}
