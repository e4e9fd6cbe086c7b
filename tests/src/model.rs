//! The consistency invariant (DESIGN, section 4) against a model with perfect memory.
//!
//! A [`World`] is the shipped control plane (`plan`, its steps, windows and sweeps) around a [`Machine`]: tables and a
//! program. There are two machines, the maps as vectors ([`host`]) and the loaded program (the packet suite); both get
//! the same frames, and which backend got one is told by the frame that comes out. Histories and the judge are in
//! [`history`].

pub mod history;
pub mod host;

use crate::frame::{Flow, Kind, TCP};
use crate::kernel::SIZES;
use lb_common::abi::{BackendEntry, FlowKey, FlowValue, ServiceEntry};
use lb_common::addr::Addr;
use lb_common::slot::Slot;
use lb_userspace::agent::apply;
use lb_userspace::agent::windows::{self, Memory, Remembered, Timeouts, Windows};
use lb_userspace::dataplane::Tables;
use lb_userspace::model::{
    Admin, Announce, Backend, Check, CheckKind, Desired, EncapChecksum, Health, Listen, Mode, OnDown, Ports,
    Protocol, Service, Tracking,
};
use lb_userspace::plan::{self, HealthMap, NextHop, Observed, RingCache};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A second, ns.
pub const SECOND: u64 = 1_000_000_000;
/// The service's idle timeout, s.
pub const IDLE: u64 = 90;
/// Backends that histories know: 1 to this.
pub const BACKENDS: u8 = 8;
const NAME: &str = "web";

/// What a balancer consists of beside the agent.
pub trait Machine {
    /// What the agent writes.
    fn tables(&mut self) -> &mut Tables;
    /// The clock, ns.
    fn now(&self) -> u64;
    /// Lets so many seconds pass.
    fn pass(&mut self, seconds: u64);
    /// The agent has written.
    fn written(&mut self);
    /// Runs the program on a frame that comes in. The frame that leaves; `None`: it was not forwarded.
    fn run(&mut self, frame: &[u8]) -> Option<Vec<u8>>;
    /// Every entry of `FLOWS` and `EMBRYONIC`.
    fn entries(&mut self) -> Vec<Remembered>;
    /// Removes entries.
    fn forget(&mut self, gone: &[(Memory, FlowKey)]);
}

/// A balancer: the shipped code, and the world around it.
pub struct World<M> {
    /// Tables and program.
    pub machine: M,
    desired: Desired,
    windows: Windows,
    rings: RingCache,
    ids: BTreeMap<String, u32>,
    health: HealthMap,
    hops: BTreeMap<IpAddr, NextHop>,
}

/// A backend's address.
#[must_use]
pub fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

/// The frame of a flow's client.
fn frame(flow: u16, kind: Kind) -> Flow {
    let client = SocketAddr::from(([198, 51, 100, (flow >> 8) as u8], 1024 + flow));
    Flow { kind, ..Flow::new(TCP, client, SocketAddr::from(([192, 0, 2, 1], 80))) }
}

impl<M: Machine> World<M> {
    /// A balancer with four backends on a machine whose tables hold what an earlier one left, or nothing.
    ///
    /// # Panics
    /// When the tables are too small.
    pub fn new(machine: M, on_down: OnDown) -> Self {
        let service = Service {
            name: NAME.into(),
            listen: Listen { protocol: Protocol::Tcp, address: [192, 0, 2, 1].into(), ports: Ports::One(80) },
            mode: Mode::Nat,
            check: Some(Check {
                kind: CheckKind::Tcp,
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                rise: 1,
                fall: 1,
                port: None,
            }),
            on_down,
            announce: Announce::None,
            idle_timeout: Duration::from_secs(IDLE),
            tracking: Tracking::Adaptive,
            encap_checksum: EncapChecksum::None,
            echo: true,
            ring_size: 251,
            backends: BTreeMap::new(),
        };
        let hop = |n: u8| NextHop { macs: [2, 0, 0, 0, 1, n, 2, 0, 0, 0, 0, 2], ifindex: 1, mtu: 1500 };
        let mut this = Self {
            machine,
            desired: Desired::default(),
            windows: Windows::default(),
            rings: RingCache::default(),
            ids: BTreeMap::new(),
            health: HealthMap::new(),
            hops: (1..=BACKENDS).map(|n| (address(n).ip(), hop(n))).collect(),
        };
        this.converge();
        let left: Vec<_> = this.machine.entries().iter().map(|(memory, key, _)| (*memory, *key)).collect();
        this.machine.forget(&left);
        this.desired.put(service);
        for n in 1..=4 {
            this.put(n, 1);
        }
        this.converge();
        this
    }

    /// The backends that are desired.
    ///
    /// # Panics
    /// Never: the service is always there.
    pub fn backends(&mut self) -> &mut BTreeMap<SocketAddr, Backend> {
        &mut self.desired.service_mut(NAME).unwrap().backends
    }

    /// Adds a backend, or gives it another weight.
    pub fn put(&mut self, n: u8, weight: u32) {
        let address = address(n);
        let admin = self.backends().get(&address).map_or(Admin::Active, |b| b.admin);
        self.backends().insert(address, Backend { address, weight, admin });
        self.health.entry(NAME.into()).or_default().entry(address).or_insert(Health::Up);
    }

    /// Removes a backend at once.
    pub fn remove(&mut self, n: u8) {
        self.backends().remove(&address(n));
        self.health.entry(NAME.into()).or_default().remove(&address(n));
    }

    /// Changes what the operator wants of a backend, if there is one.
    pub fn administer(&mut self, n: u8, admin: Admin) {
        if let Some(backend) = self.backends().get_mut(&address(n)) {
            backend.admin = admin;
        }
    }

    /// A check changes its mind.
    pub fn check(&mut self, n: u8, health: Health) {
        if let Some(known) = self.health.entry(NAME.into()).or_default().get_mut(&address(n)) {
            *known = health;
        }
    }

    /// What the agent does after every event.
    ///
    /// # Panics
    /// When the tables are too small.
    pub fn converge(&mut self) {
        let now = self.machine.now();
        let observed = Observed {
            now: now / SECOND,
            health: &self.health,
            next_hops: &self.hops,
            ids: &self.ids,
            seed: 3,
            sizes: &SIZES,
            used: &|_| true,
        };
        let tables = self.machine.tables();
        let plan = plan::plan(&self.desired, &observed, tables, &mut self.rings).unwrap();
        apply::to_tables(tables, &plan.steps).unwrap();
        self.windows.applied(&plan.steps, now);
        self.ids = plan.ids;
        if !plan.steps.is_empty() {
            self.machine.written();
        }
    }

    /// What the agent does as time passes.
    ///
    /// # Panics
    /// When a table refuses.
    pub fn pass_time(&mut self, seconds: u64) {
        self.machine.pass(seconds);
        let timeouts: Timeouts = self.ids.values().map(|id| (*id, Duration::from_secs(IDLE))).collect();
        let now = self.machine.now();
        self.windows.close(self.machine.tables(), &timeouts, now).unwrap();
        let entries = self.machine.entries();
        let now = self.machine.now();
        let gone = self.windows.sweep(self.machine.tables(), entries, &timeouts, now).unwrap();
        self.machine.forget(&gone);
        self.machine.written();
        self.converge();
    }

    /// The agent is killed and another one adopts the tables.
    pub fn restart(&mut self) {
        let now = self.machine.now();
        self.windows = Windows::adopt(self.machine.tables(), now);
        self.rings = RingCache::default();
        self.converge();
    }

    /// A packet of a flow: which backend gets it, and its generation.
    ///
    /// # Panics
    /// When the frame that leaves is for nobody.
    pub fn send(&mut self, flow: u16, kind: Kind) -> Option<(SocketAddr, u32)> {
        let out = self.machine.run(&frame(flow, kind).build())?;
        let [a, b, c, d] = out[30..34] else { unreachable!("four bytes") };
        let to = SocketAddr::from(([a, b, c, d], u16::from_be_bytes([out[36], out[37]])));
        let at = |b: &BackendEntry| SocketAddr::new(b.addr.into(), u16::from_be(b.port)) == to;
        let entry = self.block().into_iter().find(|b| b.reachable() && at(b));
        Some((to, entry.unwrap_or_else(|| panic!("{to} is no backend that can be reached")).generation))
    }

    /// Generations of the backends that flows may stay on.
    pub fn reachable(&mut self) -> BTreeSet<u32> {
        self.block().iter().filter(|b| b.reachable()).map(|b| b.generation).collect()
    }

    /// Whether a backend of this generation may get new flows.
    pub fn selectable(&mut self, generation: u32) -> bool {
        self.block().iter().any(|b| b.generation == generation && b.selectable())
    }

    /// The slot of a flow.
    ///
    /// # Panics
    /// Never: the flow's slot is one of the ring's.
    pub fn slot(&mut self, flow: u16) -> Slot {
        let (entry, key) = (self.entry(), self.key(flow));
        let index = windows::slot_of(&entry, &key);
        Slot(self.machine.tables().rings.slot(entry.ring, index).unwrap())
    }

    /// Every slot.
    pub fn slots(&mut self) -> Vec<Slot> {
        let entry = self.entry();
        self.machine.tables().rings.read(entry.ring, entry.slots).into_iter().map(Slot).collect()
    }

    /// The kernel evicts a flow's entry. Whether that may matter: the entry disagrees with the slot's `previous`, or
    /// will when the window closes, unless the flow is seen again before.
    pub fn evict(&mut self, flow: u16) -> bool {
        let key = self.key(flow);
        let found: Vec<Remembered> =
            self.machine.entries().into_iter().filter(|(_, k, _)| *k == key).collect();
        let gone: Vec<_> = found.iter().map(|(memory, key, _)| (*memory, *key)).collect();
        self.machine.forget(&gone);
        let slot = self.slot(flow);
        let previous = self.block().get(usize::from(slot.previous())).map(|b| b.generation);
        let matters = |value: &FlowValue| !slot.settled() || Some(value.generation) != previous;
        // An entry in `FLOWS` hides one in `EMBRYONIC`.
        let counts = found.iter().find(|(memory, ..)| *memory == Memory::Flows).or(found.first());
        counts.is_some_and(|(_, _, value)| matters(value))
    }

    fn entry(&mut self) -> ServiceEntry {
        self.machine.tables().services.iter().next().unwrap()
    }

    fn block(&mut self) -> Vec<BackendEntry> {
        let entry = self.entry();
        let tables = self.machine.tables();
        (entry.backends..entry.backends + entry.capacity).filter_map(|n| tables.backends.get(n)).collect()
    }

    fn key(&mut self, flow: u16) -> FlowKey {
        let frame = frame(flow, Kind::Data);
        FlowKey {
            client: Addr::from(frame.from.ip()),
            ports: [frame.from.port(), frame.to.port()].map(u16::to_be),
            service: self.entry().id,
        }
    }
}
