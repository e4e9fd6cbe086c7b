//! A data plane to be measured: tables filled as the agent fills them, the program as the agent loads it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{ProgramFd, Xdp};
use aya_obj::programs::XdpAttachType;
use lb_common::abi::{RouteEntry, SCHEMA, names, ring, route};
use lb_common::addr::Addr;
use lb_common::reason::Reason;
use lb_userspace::agent::apply;
use lb_userspace::dataplane::counters::Counters;
use lb_userspace::dataplane::{Dataplane, Options, Sizes, Tables};
use lb_userspace::model::{
    Announce, Backend, Desired, EncapChecksum, Listen, Mode, OnDown, Ports, Protocol, Service, Tracking,
};
use lb_userspace::plan::{self, HealthMap, NextHop, Observed, Plan, RingCache};

use crate::packets::{Family, SERVICE_PORT};

/// Where pins are.
const PINS: &str = "/sys/fs/bpf";
/// How directories of pins of a bench begin.
const PREFIX: &str = "lb-bench-";

/// What is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) family: Family,
    pub(crate) mode: Mode,
    pub(crate) tracking: Tracking,
    pub(crate) services: u32,
    /// Backends of each service.
    pub(crate) backends: u32,
    /// Slots of each ring.
    pub(crate) slots: u32,
    /// Entries of `FLOWS`.
    pub(crate) flows: u32,
}

impl Setup {
    /// One service with a hundred backends.
    pub(crate) const fn one(family: Family, mode: Mode) -> Self {
        Self {
            family,
            mode,
            tracking: Tracking::Adaptive,
            services: 1,
            backends: 100,
            slots: 65_537,
            flows: 1024,
        }
    }

    /// The configuration.
    pub(crate) fn desired(&self) -> Desired {
        let services = (0..self.services).map(|number| {
            let service = self.service(number);
            (service.name.clone(), service.into())
        });
        Desired { services: services.collect(), ..Desired::default() }
    }

    /// A service.
    pub(crate) fn service(&self, number: u32) -> Service {
        let backends = (0..self.backends).map(|n| {
            let address = self.family.backend(number, n);
            (address, Backend::new(address, Backend::DEFAULT_WEIGHT))
        });
        Service {
            name: format!("service-{number}"),
            listen: Listen {
                protocol: Protocol::Tcp,
                address: self.family.service(number),
                ports: Ports::One(SERVICE_PORT),
            },
            mode: self.mode,
            check: None,
            on_down: OnDown::Rehash,
            announce: Announce::None,
            idle_timeout: Duration::from_mins(15),
            tracking: self.tracking,
            encap_checksum: EncapChecksum::None,
            echo: true,
            ring_size: self.slots,
            backends: backends.collect(),
        }
    }

    /// Tables in which all of it has room. Two-choice tables are filled to an eighth: at two fifths, the most they take, one
    /// insertion in ten moves another key, and waits for a grace period of the kernel.
    pub(crate) fn sizes(&self) -> Sizes {
        let backends = self.services * self.backends.next_power_of_two().max(16);
        let two_choice = |entries: u32| (entries * 8).next_power_of_two().max(16);
        Sizes {
            services: two_choice(self.services),
            ring_lines: self.services * ring::lines(self.slots) + 1,
            backends: backends + 128,
            reverse: two_choice(self.services * self.backends),
            ranges: 16,
            neighbours: 16,
            flows: self.flows,
            embryonic: self.flows,
            fragments: 1024,
            counters: backends + self.services + 128,
            reasons: self.services + 1,
        }
    }
}

/// The loaded data plane. Its pins go with it.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) balance: Xdp,
    counters: Counters,
    pub(crate) control: Control,
    _dataplane: Dataplane,
    _pins: Pinned,
}

/// The tables, and what is remembered between plans.
pub(crate) struct Control {
    pub(crate) tables: Tables,
    pub(crate) desired: Desired,
    sizes: Sizes,
    ids: BTreeMap<String, u32>,
    hops: BTreeMap<std::net::IpAddr, NextHop>,
    rings: RingCache,
}

impl Control {
    /// Plans the way to what is desired.
    pub(crate) fn plan(&mut self) -> Result<Plan> {
        self.plan_these(None)
    }

    /// The same if only one service was changed.
    pub(crate) fn plan_touched(&mut self, service: &str) -> Result<Plan> {
        self.plan_these(Some(&BTreeSet::from([service.to_owned()])))
    }

    fn plan_these(&mut self, touched: Option<&BTreeSet<String>>) -> Result<Plan> {
        let observed = Observed {
            now: 0,
            health: &HealthMap::new(),
            next_hops: &self.hops,
            ids: &self.ids,
            seed: 1,
            sizes: &self.sizes,
            used: &|_| true,
        };
        let plan = match touched {
            None => plan::plan(&self.desired, &observed, &self.tables, &mut self.rings)?,
            Some(touched) => {
                plan::plan_touched(&self.desired, touched, &observed, &self.tables, &mut self.rings)?
            }
        };
        self.ids = plan.ids.clone();
        Ok(plan)
    }

    /// Makes the tables what is desired. The number of steps.
    pub(crate) fn converge(&mut self) -> Result<usize> {
        let plan = self.plan()?;
        apply::to_tables(&mut self.tables, &plan.steps)?;
        Ok(plan.steps.len())
    }
}

impl World {
    /// Loads and fills. Packets come in through `ifindex` and leave there.
    pub(crate) fn open(setup: Setup, ifindex: u32) -> Result<Self> {
        let pins = Pinned::fresh();
        let sizes = setup.sizes();
        let opened = Dataplane::open(&Options { pins: pins.path().to_owned(), sizes, log_drops: false })?;
        let dataplane = opened.dataplane;
        let hop = NextHop { macs: [2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 9], ifindex, mtu: 1500 };
        let desired = setup.desired();
        let backends: BTreeSet<_> =
            desired.services.values().flat_map(|s| s.backends.keys()).map(|b| b.ip()).collect();
        let mut control = Control {
            tables: dataplane.tables()?,
            desired,
            sizes,
            ids: BTreeMap::new(),
            hops: backends.into_iter().map(|ip| (ip, hop)).collect(),
            rings: RingCache::default(),
        };
        control.converge()?;
        let default = RouteEntry {
            prefix: Addr::default(),
            mask: Addr::default(),
            kind: route::kind::GATEWAY,
            ifindex,
            macs: [2, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 9],
            mtu: 1500,
            reserved: [0; 2],
        };
        control.tables.routes.publish(&[default], &[default])?;
        // Prefixes, from which each flow takes an address: what a backend with several receive queues wants.
        let sources = ("198.18.0.0/15".parse()?, "2001:db8:f::/64".parse()?);
        control.tables.settings.set_sources(Some(sources.0), Some(sources.1))?;
        let counters = Counters::open(dataplane.maps())?;
        let balance = balance(pins.path())?;
        Ok(Self { setup, balance, counters, control, _dataplane: dataplane, _pins: pins })
    }

    /// The program under test.
    pub(crate) fn target(&self) -> Result<&ProgramFd> {
        Ok(self.balance.fd()?)
    }

    /// Packets that left for a reason, all services together: as backends counted them, where they do.
    pub(crate) fn counted(&self, reason: Reason) -> Result<u64> {
        if reason.counted_by_backends() {
            let backends = self.counters.backends()?;
            return Ok(backends
                .iter()
                .map(|b| if reason == Reason::Returned { b.back_packets } else { b.packets })
                .sum());
        }
        let mut packets = 0;
        for row in 0..self.counters.reason_rows() {
            packets += self.counters.reasons(row)?[reason as usize];
        }
        Ok(packets)
    }
}

/// The pinned program. One build is pinned: the one that was just loaded.
fn balance(pins: &Path) -> Result<Xdp> {
    let builds = pins.join(format!("v{SCHEMA}/programs"));
    let all: Vec<PathBuf> =
        fs::read_dir(&builds)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    ensure!(all.len() == 1, "{} holds {} builds", builds.display(), all.len());
    let pin = all[0].join(names::BALANCE);
    Xdp::from_pin(&pin, XdpAttachType::Interface).with_context(|| format!("cannot open {}", pin.display()))
}

/// Removes the pins that a bench left which was killed.
pub(crate) fn remove_leftovers() -> Result<()> {
    for entry in fs::read_dir(PINS)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Pins that go when this does.
pub(crate) struct Pinned(PathBuf);

impl Pinned {
    /// A directory of its own; whoever pins makes it.
    pub(crate) fn fresh() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(PathBuf::from(format!("{PINS}/{PREFIX}{}-{number}", std::process::id())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}
