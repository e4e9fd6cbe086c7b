//! The control plane: how long rings, changes and starts take, what the agent needs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lb_common::maglev::{self, Node, Turn};
use lb_userspace::model::{Admin, Mode};

use crate::packets::Family;
use crate::report::Spread;
use crate::world::{Setup, World};

/// Times that something quick is repeated.
const ROUNDS: u32 = 15;

/// A thousand services with a hundred backends each.
pub(crate) const LARGE: Setup =
    Setup { services: 1000, backends: 100, slots: 1021, ..Setup::one(Family::V4, Mode::Nat) };

/// Values by name.
pub(crate) type Values = BTreeMap<String, f64>;

/// Measures a ring of 65 537 slots for 1 000 backends.
pub(crate) fn ring(values: &mut Values) {
    let nodes: Vec<Node> = (0..1000_u32)
        .map(|n| Node { addr: IpAddr::from((0x0a00_0001 + n).to_be_bytes()).into(), port: 443, weight: 100 })
        .collect();
    let (mut slots, mut turns) = (vec![0; 65_537], vec![Turn::default(); nodes.len()]);
    let times = (0..ROUNDS).map(|seed| {
        let start = Instant::now();
        maglev::build(&nodes, u64::from(seed), &mut slots, &mut turns);
        milliseconds(start)
    });
    let times = Spread::of(times.collect());
    values.insert("ring of 65537 slots for 1000 backends, ms".into(), times.median);
}

/// Measures how long a change of one backend among [`LARGE`] takes until the kernel's tables hold it: plan and stores,
/// without the operator's way to the agent.
pub(crate) fn change(values: &mut Values, ifindex: u32) -> Result<()> {
    let mut world = World::open(LARGE, ifindex)?;
    let control = &mut world.control;
    let (mut times, mut slots) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let service = control.desired.service_mut("service-500").context("the service was made")?;
        let backend = service.backends.values_mut().next().context("it has backends")?;
        backend.admin = match backend.admin {
            Admin::Active => Admin::Draining { until: None, remove: false },
            Admin::Draining { .. } => Admin::Active,
        };
        let start = Instant::now();
        let plan = control.plan_touched("service-500")?;
        lb_userspace::agent::apply::to_tables(&mut control.tables, &plan.steps)?;
        let took = milliseconds(start);
        let moved: u32 = plan.moves.values().map(|moves| moves.moved).sum();
        ensure!(moved > 0, "round {round} moved no slot");
        ensure!(control.converge()? == 0, "the tables do not hold what was planned");
        slots = moved;
        times.push(took);
    }
    let times = Spread::of(times);
    values.insert("one backend of 1000 x 100 changed, plan and stores, ms".into(), times.median);
    values.insert("one backend of 1000 x 100 changed, slots".into(), f64::from(slots));
    Ok(())
}

pub(crate) fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
