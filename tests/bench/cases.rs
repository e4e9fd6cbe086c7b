//! What is measured: floors and cases in interleaved rounds, each case net of a target that only returns.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lb_common::reason::Reason;
use lb_userspace::model::{Mode, Tracking};

use crate::packets::{self, Family, Kind};
use crate::programs::{FLOORS, PASS, Programs, Run, TX, Wrapper};
use crate::report::{Case, Report, Spread};
use crate::shared::Template;
use crate::world::{Setup, World};

/// Numbers of flows.
const FLOWS: [u32; 4] = [1, 1 << 16, 1 << 20, 1 << 22];
/// Flows that have entries in the cases of tracked slots.
const TRACKED: u32 = 1 << 16;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: u32,
    pub(crate) repeat: u32,
}

/// A case before it is measured.
struct Plan {
    name: String,
    world: usize,
    wrapper: Wrapper,
    template: Template,
    flows: u32,
    services: u32,
    reason: Reason,
    /// Bytes by which a packet leaves longer than it came.
    grows: usize,
    /// Gross times, one a round.
    times: Vec<f64>,
}

impl Plan {
    fn run(&self, repeat: u32) -> Run<'_> {
        let action = if self.reason == Reason::NotAService { PASS } else { TX };
        Run { wrapper: self.wrapper, template: &self.template, repeat, action, grows: self.grows }
    }
}

/// Worlds and cases.
struct Cases {
    ifindex: u32,
    worlds: Vec<World>,
    plans: Vec<Plan>,
}

impl Cases {
    fn world(&mut self, setup: Setup) -> Result<usize> {
        if let Some(known) = self.worlds.iter().position(|world| world.setup == setup) {
            return Ok(known);
        }
        self.worlds.push(World::open(setup, self.ifindex)?);
        Ok(self.worlds.len() - 1)
    }

    fn add(&mut self, name: &str, setup: Setup, kind: Kind, flows: u32, peers: u32) -> Result<()> {
        let world = self.world(setup)?;
        let (back, reason) = match kind {
            Kind::Backend => (true, Reason::Returned),
            Kind::Stranger => (false, Reason::NotAService),
            Kind::Client | Kind::Syn => (false, Reason::Forwarded),
        };
        self.plans.push(Plan {
            name: format!("{name}, {}", setup.family.name()),
            world,
            wrapper: Wrapper { family: setup.family, back },
            template: packets::template(setup.family, kind, flows, peers)?,
            flows,
            services: setup.services,
            reason,
            grows: match (setup.mode, setup.family) {
                (Mode::Nat | Mode::L2, _) => 0,
                // The outer header of the same family; GUE puts a UDP header between.
                (Mode::Ipip, Family::V4) => 20,
                (Mode::Ipip, Family::V6) => 40,
                (Mode::Gue, Family::V4) => 20 + 8,
                (Mode::Gue, Family::V6) => 40 + 8,
            },
            times: Vec::new(),
        });
        Ok(())
    }

    fn all(ifindex: u32, only: &str) -> Result<Self> {
        let mut cases = Self { ifindex, worlds: Vec::new(), plans: Vec::new() };
        for family in Family::ALL {
            let nat = Setup::one(family, Mode::Nat);
            let l2 = Setup::one(family, Mode::L2);
            let [ipip, gue] = [Mode::Ipip, Mode::Gue].map(|mode| Setup::one(family, mode));
            let tracked = Setup { tracking: Tracking::Always, flows: 4 * TRACKED, ..nat };
            let wants = |name: &str| format!("{name}, {}", family.name()).contains(only);
            for flows in FLOWS {
                for (name, setup, kind, peers) in [
                    ("NAT to the backend", nat, Kind::Client, 1),
                    ("NAT back to the client", nat, Kind::Backend, nat.backends),
                    ("L2", l2, Kind::Client, 1),
                    ("encapsulation, ipip", ipip, Kind::Client, 1),
                    ("encapsulation, gue", gue, Kind::Client, 1),
                ] {
                    if wants(name) {
                        cases.add(name, setup, kind, flows, peers)?;
                    }
                }
            }
            let most = FLOWS[FLOWS.len() - 1];
            for (name, setup, kind, flows) in [
                ("NAT, SYNs, all new", nat, Kind::Syn, most),
                ("not ours, beside NAT", nat, Kind::Stranger, most),
                ("not ours, beside L2", l2, Kind::Stranger, most),
                ("tracked slot, entry present", tracked, Kind::Client, TRACKED),
            ] {
                if wants(name) {
                    cases.add(name, setup, kind, flows, 1)?;
                }
            }
            for services in [1, 1000, 10_000] {
                let many = Setup { services, backends: 10, slots: 1021, ..nat };
                for (name, peers) in [("services, traffic of one", 1), ("services, traffic of all", services)]
                {
                    if wants(name) {
                        cases.add(name, many, Kind::Client, FLOWS[1], peers)?;
                    }
                }
            }
        }
        ensure!(!cases.plans.is_empty(), "no case has {only:?} in its name");
        Ok(cases)
    }
}

/// Measures everything whose name contains `only`.
pub(crate) fn measure(programs: &mut Programs, ifindex: u32, effort: Effort, only: &str) -> Result<Report> {
    let mut cases = Cases::all(ifindex, only)?;
    let reasons = [Reason::Forwarded, Reason::Returned, Reason::NotAService];
    let mut floors: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut returns: Vec<(Wrapper, Vec<f64>)> = Wrapper::ALL.map(|wrapper| (wrapper, Vec::new())).into();
    warm_up(programs, &mut cases, effort.repeat)?;
    let mut before = Vec::new();
    for world in &cases.worlds {
        for reason in reasons {
            before.push(world.counted(reason)?);
        }
    }
    for _ in 0..effort.rounds {
        for (name, program, family, grows) in FLOORS {
            let wrapper = Wrapper { family, back: false };
            let template = packets::template(family, Kind::Client, 1, 1)?;
            let run = Run { wrapper, template: &template, repeat: effort.repeat, action: TX, grows };
            floors.entry(name).or_default().push(programs.floor(program, &run)?);
        }
        for (wrapper, times) in &mut returns {
            let kind = if wrapper.back { Kind::Backend } else { Kind::Client };
            let template = packets::template(wrapper.family, kind, 1 << 20, 100)?;
            let run =
                Run { wrapper: *wrapper, template: &template, repeat: effort.repeat, action: TX, grows: 0 };
            times.push(programs.floor("floor_return", &run)?);
        }
        for plan in &mut cases.plans {
            let target = cases.worlds[plan.world].target()?;
            let time = programs.run(target, &plan.run(effort.repeat));
            plan.times.push(time.with_context(|| plan.name.clone())?);
        }
    }
    prove(&cases, &reasons, &before, u64::from(effort.rounds) * u64::from(effort.repeat))?;
    report(floors, &returns, cases.plans)
}

/// Every path once, every flow that needs an entry once.
fn warm_up(programs: &mut Programs, cases: &mut Cases, repeat: u32) -> Result<()> {
    for plan in &cases.plans {
        let target = cases.worlds[plan.world].target()?;
        let repeat = if plan.flows == TRACKED { repeat.max(2 * TRACKED) } else { repeat };
        programs.run(target, &plan.run(repeat)).with_context(|| plan.name.clone())?;
    }
    Ok(())
}

/// Each run did the full work: it was counted for its reason, by a backend if it went to or came from one.
fn prove(cases: &Cases, reasons: &[Reason], before: &[u64], runs: u64) -> Result<()> {
    let mut before = before.iter();
    for (number, world) in cases.worlds.iter().enumerate() {
        for reason in reasons {
            let packets = before.next().context("one number for each")?;
            let of = |plan: &&Plan| plan.world == number && plan.reason == *reason;
            let expected = cases.plans.iter().filter(of).count() as u64 * runs;
            let counted = world.counted(*reason)? - packets;
            let setup = &world.setup;
            ensure!(counted == expected, "{counted} of {expected} packets left as {reason:?} of {setup:?}");
        }
    }
    Ok(())
}

/// Takes off what the wrapper costs, round by round.
fn report(
    floors: BTreeMap<&str, Vec<f64>>,
    returns: &[(Wrapper, Vec<f64>)],
    plans: Vec<Plan>,
) -> Result<Report> {
    let base = |wrapper: Wrapper| {
        let found = returns.iter().find(|(w, _)| *w == wrapper);
        found.map(|(_, times)| times).context("every wrapper is measured")
    };
    let mut report = Report::default();
    for (name, _, family, _) in FLOORS {
        let gross = &floors[name];
        let spread = if name == "return" {
            Spread::of(gross.clone())
        } else {
            Spread::of(net(gross, base(Wrapper { family, back: false })?))
        };
        report.floors.insert(name.to_owned(), spread.median);
    }
    for plan in plans {
        let spread = Spread::of(net(&plan.times, base(plan.wrapper)?));
        let floor = format!("encap-{}", plan.wrapper.family.name());
        let unit = report.floors[&floor];
        report.cases.push(Case {
            name: plan.name,
            flows: plan.flows,
            services: plan.services,
            ns: spread.median,
            min: spread.min,
            max: spread.max,
            floor,
            ratio: spread.median / unit,
        });
    }
    Ok(report)
}

fn net(gross: &[f64], base: &[f64]) -> Vec<f64> {
    gross.iter().zip(base).map(|(gross, base)| gross - base).collect()
}
