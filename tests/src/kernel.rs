//! The loaded data plane under pins of its own, what the agent writes there, and what moved when a packet ran.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

use lb_common::abi::counter::REASON_SLOTS;
use lb_common::abi::{
    BackendCounters, BackendEntry, FlowKey, FlowValue, FragmentKey, FragmentValue, ServiceEntry,
};
use lb_common::reason::Reason;
use lb_userspace::agent::apply::to_tables;
use lb_userspace::dataplane::counters::Counters;
use lb_userspace::dataplane::explain::Explainer;
use lb_userspace::dataplane::flows::{FlowTable, Flows};
use lb_userspace::dataplane::fragments::Fragments;
use lb_userspace::dataplane::{Dataplane, Options, Sizes, Tables};
use lb_userspace::model::Desired;
use lb_userspace::plan::{HealthMap, NextHop, Observed, Plan, RingCache, plan};

use crate::bpf::Program;

/// Small tables: opening them is fast, and reading all of them too.
pub const SIZES: Sizes = Sizes {
    services: 64,
    ring_lines: 256,
    backends: 256,
    reverse: 64,
    ranges: 64,
    neighbours: 64,
    flows: 1 << 15,
    embryonic: 1 << 13,
    fragments: 1 << 11,
    counters: 64,
    reasons: 16,
};

/// Seed of every ring and hash.
const SEED: u32 = 7;

/// A loaded data plane. Its pins are removed with it.
pub struct Kernel {
    /// Programs and maps.
    pub dataplane: Dataplane,
    /// What the agent writes.
    pub tables: Tables,
    /// Next hops that are known, by the backend's address.
    pub hops: BTreeMap<IpAddr, NextHop>,
    /// What the checks say.
    pub health: HealthMap,
    ids: BTreeMap<String, u32>,
    rings: RingCache,
    counters: Counters,
    flows: [Flows; 2],
    fragments: Fragments,
    pins: PathBuf,
}

impl Kernel {
    /// Loads the programs.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn open() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("/sys/fs/bpf/lb-test-{}-{n}", process::id()));
        let options = Options { pins: pins.clone(), sizes: SIZES, log_drops: false };
        let dataplane = Dataplane::open(&options).expect("the data plane opens").dataplane;
        let maps = dataplane.maps();
        let flows = |table| Flows::open(maps, table).expect("the flow tables are pinned");
        Self {
            tables: dataplane.tables().expect("tables can be mapped"),
            hops: BTreeMap::new(),
            health: HealthMap::new(),
            ids: BTreeMap::new(),
            rings: RingCache::default(),
            counters: Counters::open(maps).expect("the counters are pinned"),
            flows: [flows(FlowTable::Established), flows(FlowTable::Embryonic)],
            fragments: Fragments::open(maps).expect("the fragments are pinned"),
            dataplane,
            pins,
        }
    }

    /// Writes what the agent would write to serve this.
    ///
    /// # Panics
    /// When the tables are too small.
    pub fn serve(&mut self, desired: &Desired) -> Plan {
        let observed = Observed {
            now: 1000,
            health: &self.health,
            next_hops: &self.hops,
            ids: &self.ids,
            seed: SEED,
            sizes: &SIZES,
            used: &|_| true,
        };
        let plan = plan(desired, &observed, &self.tables, &mut self.rings).expect("room in the tables");
        to_tables(&mut self.tables, &plan.steps).expect("the plan fits the tables");
        self.ids = plan.ids.clone();
        plan
    }

    /// Runs programs on frames. Interfaces are those of the calling thread's network namespace.
    ///
    /// # Panics
    /// When the pins are gone.
    pub fn runner(&self) -> Explainer<'_> {
        Explainer::open(self.dataplane.pins(), self.dataplane.maps()).expect("the answer is pinned")
    }

    /// A loaded program, to run it often.
    ///
    /// # Panics
    /// When it is not pinned.
    pub fn program(&self, name: &str) -> Program {
        let maps = self.dataplane.pins().map("");
        let builds = maps.parent().expect("maps lie beside programs").join("programs");
        let build = fs::read_dir(&builds).expect("programs are pinned").next().expect("one build is loaded");
        Program::open(&build.expect("a directory").path().join(name)).expect("the program is pinned")
    }

    /// A service, as it stands in the table.
    ///
    /// # Panics
    /// When it is not served.
    pub fn service(&self, name: &str) -> ServiceEntry {
        let id = self.ids[name];
        self.tables.services.iter().find(|entry| entry.id == id).expect("the service is in the table")
    }

    /// The backend of a service with this address: its index in the service, and what stands in the table.
    ///
    /// # Panics
    /// When the service has none.
    pub fn backend(&self, name: &str, address: IpAddr) -> (u32, BackendEntry) {
        let service = self.service(name);
        let found = (0..service.capacity).find_map(|index| {
            let entry = self.tables.backends.get(service.backends + index)?;
            (entry.generation != 0 && entry.addr == address.into()).then_some((index, entry))
        });
        found.expect("the backend is in the table")
    }

    /// A table of flows, to write what an earlier packet left.
    pub fn table(&mut self, table: FlowTable) -> &mut Flows {
        &mut self.flows[usize::from(table == FlowTable::Embryonic)]
    }

    /// The table of fragments, to make what is in it older.
    pub fn fragments(&mut self) -> &mut Fragments {
        &mut self.fragments
    }

    /// Why packets of no service left: far cheaper than a whole [`Snapshot`].
    ///
    /// # Panics
    /// When the map cannot be read.
    pub fn reasons(&self) -> [u64; REASON_SLOTS] {
        self.counters.reasons(0).expect("reasons can be read")
    }

    /// Everything that the program writes.
    ///
    /// # Panics
    /// When a map cannot be read.
    pub fn snapshot(&mut self) -> Snapshot {
        let rows = 0..self.counters.reason_rows();
        let [flows, embryos] = &mut self.flows;
        Snapshot {
            counters: self.counters.backends().expect("counters can be read"),
            reasons: rows.map(|row| self.counters.reasons(row).expect("reasons can be read")).collect(),
            flows: entries(flows),
            embryos: entries(embryos),
            fragments: followed(&self.fragments),
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// A flow in words that can be read in a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId {
    /// The client's address.
    pub client: IpAddr,
    /// Source and destination port.
    pub ports: [u16; 2],
    /// The service's id.
    pub service: u32,
}

impl From<&FlowKey> for FlowId {
    fn from(key: &FlowKey) -> Self {
        Self { client: key.client.into(), ports: key.ports.map(u16::from_be), service: key.service }
    }
}

impl From<FlowId> for FlowKey {
    fn from(id: FlowId) -> Self {
        Self { client: id.client.into(), ports: id.ports.map(u16::to_be), service: id.service }
    }
}

/// A datagram in words that can be read in a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FragmentId {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// The identification.
    pub id: u32,
    /// The protocol; 0 for IPv6.
    pub protocol: u32,
}

impl From<&FragmentKey> for FragmentId {
    fn from(key: &FragmentKey) -> Self {
        let (src, dst) = (key.src.into(), key.dst.into());
        let id = if key.src.is_v4() { u16::from_be(key.id as u16).into() } else { u32::from_be(key.id) };
        Self { src, dst, id, protocol: key.protocol }
    }
}

/// Where the rest of a datagram goes: index of the backend in its service, and its generation.
pub fn followed_to(value: &FragmentValue) -> Owner {
    (value.backend, value.generation)
}

fn followed(table: &Fragments) -> BTreeMap<FragmentId, Owner> {
    let entries = table.entries().expect("fragments can be read");
    entries.iter().map(|(key, value)| (key.into(), followed_to(value))).collect()
}

/// Where a flow goes: index of the backend in its service, and its generation.
pub type Owner = (u32, u32);

/// The owner that stands in an entry.
pub fn owner(value: &FlowValue) -> Owner {
    (value.index(), value.generation)
}

fn entries(table: &mut Flows) -> BTreeMap<FlowId, Owner> {
    let mut all = BTreeMap::new();
    let read = table.for_each(|key, value| {
        all.insert(key.into(), owner(value));
    });
    read.expect("flows can be read");
    all
}

/// Everything that the program writes, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Rows of `COUNTERS`.
    pub counters: Vec<BackendCounters>,
    /// Rows of `REASONS`.
    pub reasons: Vec<[u64; REASON_SLOTS]>,
    /// `FLOWS`.
    pub flows: BTreeMap<FlowId, Owner>,
    /// `EMBRYONIC`.
    pub embryos: BTreeMap<FlowId, Owner>,
    /// `FRAGMENTS`.
    pub fragments: BTreeMap<FragmentId, Owner>,
}

/// What changed between two snapshots, and nothing else did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// What was added to rows of `COUNTERS`.
    pub counters: BTreeMap<u32, BackendCounters>,
    /// What was added to `REASONS`, by service id and reason's number: reasons that backends do not count.
    pub reasons: BTreeMap<(u32, usize), u64>,
    /// Entries of `FLOWS` that are new, another's, or gone.
    pub flows: BTreeMap<FlowId, Option<Owner>>,
    /// Entries of `EMBRYONIC` that are new, another's, or gone.
    pub embryos: BTreeMap<FlowId, Option<Owner>>,
    /// Entries of `FRAGMENTS` that are new, lead elsewhere, or are gone.
    pub fragments: BTreeMap<FragmentId, Option<Owner>>,
}

impl Moved {
    /// One more packet of a service (0: of none) left for a reason.
    #[must_use]
    pub fn reason(mut self, service: u32, reason: Reason) -> Self {
        if !reason.counted_by_backends() {
            *self.reasons.entry((service, reason as usize)).or_default() += 1;
        }
        self
    }
}

impl Snapshot {
    /// What changed since an earlier snapshot.
    pub fn since(&self, before: &Self) -> Moved {
        let mut moved = Moved::default();
        for (row, (now, was)) in (0..).zip(self.counters.iter().zip(&before.counters)) {
            if now != was {
                moved.counters.insert(row, difference(now, was));
            }
        }
        for (row, (now, was)) in (0..).zip(self.reasons.iter().zip(&before.reasons)) {
            for (number, (now, was)) in now.iter().zip(was).enumerate().filter(|(_, (now, was))| now != was) {
                moved.reasons.insert((row, number), now - was);
            }
        }
        moved.flows = changes(&self.flows, &before.flows);
        moved.embryos = changes(&self.embryos, &before.embryos);
        moved.fragments = changes(&self.fragments, &before.fragments);
        moved
    }
}

fn difference(now: &BackendCounters, was: &BackendCounters) -> BackendCounters {
    BackendCounters {
        packets: now.packets - was.packets,
        bytes: now.bytes - was.bytes,
        flows: now.flows - was.flows,
        back_packets: now.back_packets - was.back_packets,
        back_bytes: now.back_bytes - was.back_bytes,
        reserved: now.reserved,
    }
}

fn changes<I: Copy + Ord>(now: &BTreeMap<I, Owner>, was: &BTreeMap<I, Owner>) -> BTreeMap<I, Option<Owner>> {
    let gone = was.keys().filter(|id| !now.contains_key(id)).map(|id| (*id, None));
    let new = now.iter().filter(|(id, owner)| was.get(id) != Some(owner)).map(|(id, o)| (*id, Some(*o)));
    gone.chain(new).collect()
}
