//! The consistency invariant against a model with perfect memory.
//!
//! Random histories of backends added, removed, drained, weighted anew and failing, of connections that open, send,
//! fall silent and open again, of entries that the kernel evicts and of agents that restart. The balancer is the shipped
//! code: `plan`, its steps, windows and sweeps, and the decision of the program. The model remembers for each flow which
//! backend it is on, and knows the few cases in which it may move:
//!
//! - its backend cannot be reached any more (down, removed, or its drain ended);
//! - it was silent for longer than the service's idle timeout;
//! - its entry was evicted while it disagreed with `previous` (DESIGN, section 4).

use super::apply;
use super::windows::{Memory, Timeouts, Windows};
use crate::dataplane::{Sizes, Tables};
use crate::model::{Admin, Announce, Backend, Check, CheckKind, Desired, Health, Listen, Mode, OnDown};
use crate::model::{Protocol, Service, Tracking};
use crate::plan::{self, HealthMap, Observed, RingCache};
use lb_common::abi::{FlowKey, ServiceEntry};
use lb_common::addr::{Addr, TCP};
use lb_common::host::HostTables;
use lb_common::packet::{Packet, transport};
use lb_common::select;
use lb_common::slot::Slot;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const IDLE: u64 = 60;
const SIZES: Sizes = Sizes {
    services: 8,
    ring_lines: 32,
    backends: 128,
    reverse: 256,
    neighbours: 2,
    flows: 1,
    embryonic: 1,
    counters: 128,
    reasons: 4,
};

/// A balancer: the shipped code, and the world around it.
struct Balancer {
    desired: Desired,
    tables: Tables,
    kernel: HostTables,
    windows: Windows,
    rings: RingCache,
    ids: BTreeMap<String, u32>,
    health: HealthMap,
    now: u64,
}

/// What the model remembers of a flow.
#[derive(Clone, Copy, Debug)]
struct Remembrance {
    backend: SocketAddr,
    generation: u32,
    seen: u64,
    /// Its backend was out of reach at some moment since, or its entry was evicted while it mattered: it may move once.
    may_move: bool,
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

fn packet(flow: u16, flags: u8) -> Packet {
    Packet {
        src: Addr::from(IpAddr::from([198, 51, 100, (flow >> 8) as u8])),
        dst: Addr::from(IpAddr::from([192, 0, 2, 1])),
        src_port: flow.to_be(),
        dst_port: 80_u16.to_be(),
        protocol: TCP,
        tcp_flags: flags,
        transport: 34,
        length: 20,
        checksum: 0,
    }
}

impl Balancer {
    fn new(on_down: OnDown) -> Self {
        let service = Service {
            name: "web".into(),
            listen: Listen { protocol: Protocol::Tcp, address: [192, 0, 2, 1].into(), port: 80 },
            mode: Mode::L2,
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
            ring_size: 251,
            backends: BTreeMap::new(),
        };
        let mut this = Self {
            desired: Desired { services: BTreeMap::from([("web".into(), service)]), ..Desired::default() },
            tables: Tables::in_memory(&SIZES),
            kernel: HostTables::default(),
            windows: Windows::default(),
            rings: RingCache::default(),
            ids: BTreeMap::new(),
            health: HealthMap::new(),
            now: SECOND,
        };
        this.kernel.now.set(this.now);
        for n in 1..=4 {
            this.put(n, 1);
        }
        this.converge();
        this
    }

    fn backends(&mut self) -> &mut BTreeMap<SocketAddr, Backend> {
        &mut self.desired.services.get_mut("web").unwrap().backends
    }

    fn put(&mut self, n: u8, weight: u32) {
        let address = address(n);
        let admin = self.backends().get(&address).map_or(Admin::Active, |b| b.admin);
        self.backends().insert(address, Backend { address, weight, admin });
        self.health.entry(("web".into(), address)).or_insert(Health::Up);
    }

    fn entry(&self) -> ServiceEntry {
        self.tables.services.iter().next().unwrap()
    }

    /// What the agent does after every event.
    fn converge(&mut self) {
        let observed = Observed {
            now: self.now / SECOND,
            health: &self.health,
            next_hops: &BTreeMap::new(),
            ids: &self.ids,
            seed: 3,
            sizes: &SIZES,
            used: &|_| true,
        };
        let plan = plan::plan(&self.desired, &observed, &self.tables, &mut self.rings).unwrap();
        apply::to_tables(&mut self.tables, &plan.steps).unwrap();
        self.windows.applied(&plan.steps, self.now);
        self.ids = plan.ids;
        self.mirror();
    }

    /// What the agent does as time passes.
    fn pass_time(&mut self, seconds: u64) {
        self.now += seconds * SECOND;
        self.kernel.now.set(self.now);
        let timeouts: Timeouts = self.ids.values().map(|id| (*id, Duration::from_secs(IDLE))).collect();
        self.windows.close(&mut self.tables, &timeouts, self.now).unwrap();
        let of = |memory, table: &std::collections::HashMap<FlowKey, _>| {
            table.iter().map(move |(key, value)| (memory, *key, *value)).collect::<Vec<_>>()
        };
        let mut entries = of(Memory::Flows, &self.kernel.flows.borrow());
        entries.extend(of(Memory::Embryonic, &self.kernel.embryos.borrow()));
        for (memory, key) in self.windows.sweep(&mut self.tables, entries, &timeouts, self.now).unwrap() {
            match memory {
                Memory::Flows => self.kernel.flows.borrow_mut().remove(&key),
                Memory::Embryonic => self.kernel.embryos.borrow_mut().remove(&key),
            };
        }
        self.converge();
    }

    /// The agent is killed and another one adopts the tables.
    fn restart(&mut self) {
        self.windows = Windows::adopt(&self.tables, self.now);
        self.rings = RingCache::default();
        self.converge();
    }

    /// Shows the program what the agent wrote.
    fn mirror(&mut self) {
        let entry = self.entry();
        self.kernel.put_service(entry);
        for (index, word) in (0..).zip(self.tables.rings.read(entry.ring, entry.slots)) {
            self.kernel.set_slot(&entry, index, word);
        }
        for n in entry.backends..entry.backends + entry.capacity {
            self.kernel.backends[n as usize] = self.tables.backends.get(n).unwrap();
        }
    }

    /// A packet of a flow: who gets it.
    fn send(&self, flow: u16, flags: u8) -> Option<(SocketAddr, u32)> {
        let choice = select::select(&self.kernel, &self.entry(), &packet(flow, flags))?;
        let to = SocketAddr::new(choice.backend.addr.into(), u16::from_be(choice.backend.port));
        Some((to, choice.backend.generation))
    }

    /// Whether flows on a backend of this generation may stay there.
    fn reachable(&self, generation: u32) -> bool {
        let entry = self.entry();
        let mut block = entry.backends..entry.backends + entry.capacity;
        block
            .any(|n| self.tables.backends.get(n).is_some_and(|b| b.generation == generation && b.reachable()))
    }

    fn selectable(&self, generation: u32) -> bool {
        let entry = self.entry();
        let mut block = entry.backends..entry.backends + entry.capacity;
        block.any(|n| {
            self.tables.backends.get(n).is_some_and(|b| b.generation == generation && b.selectable())
        })
    }

    fn slot(&self, flow: u16) -> Slot {
        let entry = self.entry();
        let packet = packet(flow, 0);
        let key =
            FlowKey { client: packet.src, ports: [packet.src_port, packet.dst_port], service: entry.id };
        Slot(self.tables.rings.slot(entry.ring, super::windows::slot_of(&entry, &key)).unwrap())
    }

    fn evict(&self, flow: u16) -> bool {
        let packet = packet(flow, 0);
        let key = FlowKey {
            client: packet.src,
            ports: [packet.src_port, packet.dst_port],
            service: self.entry().id,
        };
        let flows = self.kernel.flows.borrow_mut().remove(&key);
        let embryo = self.kernel.embryos.borrow_mut().remove(&key);
        let entry = self.entry();
        let previous = self.tables.backends.get(entry.backends + u32::from(self.slot(flow).previous()));
        let disagrees = |generation| previous.is_none_or(|p| p.generation != generation);
        flows.or(embryo).is_some_and(|value| disagrees(value.generation))
    }
}

#[derive(Clone, Debug)]
enum Event {
    Open(u16),
    Data(u16),
    Time(u64),
    Put(u8, u32),
    Remove(u8),
    Drain(u8, u64),
    Undrain(u8),
    Health(u8, bool),
    Evict(u16),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let (flow, backend) = (|| 0_u16..60, || 1_u8..9);
    prop_oneof![
        12 => flow().prop_map(Event::Open),
        30 => flow().prop_map(Event::Data),
        6 => (1_u64..25).prop_map(Event::Time),
        1 => (IDLE..3 * IDLE).prop_map(Event::Time),
        3 => (backend(), 0_u32..4).prop_map(|(n, weight)| Event::Put(n, weight)),
        1 => backend().prop_map(Event::Remove),
        2 => (backend(), 1_u64..200).prop_map(|(n, seconds)| Event::Drain(n, seconds)),
        2 => backend().prop_map(Event::Undrain),
        3 => (backend(), any::<bool>()).prop_map(|(n, up)| Event::Health(n, up)),
        1 => flow().prop_map(Event::Evict),
        1 => Just(Event::Restart),
    ]
}

/// Plays a history; every packet is judged.
fn play(on_down: OnDown, events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut balancer = Balancer::new(on_down);
    let mut model: BTreeMap<u16, Remembrance> = BTreeMap::new();
    for event in events {
        match event {
            Event::Open(flow) => {
                // A connection that is alive does not send SYNs.
                if model.get(&flow).is_some_and(|m| balancer.now - m.seen <= IDLE * SECOND) {
                    continue;
                }
                model.remove(&flow);
                if let Some((backend, generation)) = balancer.send(flow, transport::SYN) {
                    prop_assert!(
                        balancer.selectable(generation),
                        "a new flow went to {backend}, which takes none"
                    );
                    let memory = Remembrance { backend, generation, seen: balancer.now, may_move: false };
                    model.insert(flow, memory);
                }
            }
            Event::Data(flow) => {
                let Some(memory) = model.get(&flow).copied() else { continue };
                let dead = balancer.now - memory.seen > IDLE * SECOND;
                let Some((backend, generation)) = balancer.send(flow, transport::ACK) else {
                    prop_assert!(memory.may_move || dead, "a live flow on {} got nobody", memory.backend);
                    model.remove(&flow);
                    continue;
                };
                let stays = (backend, generation) == (memory.backend, memory.generation);
                prop_assert!(
                    stays || memory.may_move || dead,
                    "flow {flow} moved from {} to {backend}; its slot is {:?}",
                    memory.backend,
                    balancer.slot(flow)
                );
                model.insert(flow, Remembrance { backend, generation, seen: balancer.now, may_move: false });
            }
            Event::Time(seconds) => balancer.pass_time(seconds),
            Event::Put(n, weight) => balancer.put(n, weight),
            Event::Remove(n) => {
                balancer.backends().remove(&address(n));
                balancer.health.remove(&("web".into(), address(n)));
            }
            Event::Drain(n, seconds) => {
                let until = Some(balancer.now / SECOND + seconds);
                if let Some(backend) = balancer.backends().get_mut(&address(n)) {
                    backend.admin = Admin::Draining { until, remove: false };
                }
            }
            Event::Undrain(n) => {
                if let Some(backend) = balancer.backends().get_mut(&address(n)) {
                    backend.admin = Admin::Active;
                }
            }
            Event::Health(n, up) => {
                if let Some(health) = balancer.health.get_mut(&("web".into(), address(n))) {
                    *health = if up { Health::Up } else { Health::Down };
                }
            }
            Event::Evict(flow) => {
                if balancer.evict(flow)
                    && let Some(memory) = model.get_mut(&flow)
                {
                    memory.may_move = true;
                }
            }
            Event::Restart => balancer.restart(),
        }
        balancer.converge();
        for memory in model.values_mut() {
            memory.may_move |= !balancer.reachable(memory.generation);
        }
    }
    // In the end the world is quiet: every window closes, every entry goes, nothing is tracked.
    for _ in 0..4 {
        balancer.pass_time(2 * IDLE);
    }
    let slots: BTreeSet<bool> = {
        let entry = balancer.entry();
        balancer.tables.rings.read(entry.ring, entry.slots).into_iter().map(|w| Slot(w).tracked()).collect()
    };
    prop_assert!(!slots.contains(&true), "a slot is tracked for ever");
    prop_assert!(balancer.kernel.flows.borrow().is_empty() && balancer.kernel.embryos.borrow().is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn no_flow_moves_that_need_not(events in proptest::collection::vec(event(), 50..400)) {
        play(OnDown::Rehash, events)?;
    }

    #[test]
    fn nor_when_dead_backends_keep_their_flows(events in proptest::collection::vec(event(), 50..400)) {
        play(OnDown::Keep, events)?;
    }
}

#[test]
fn without_changes_nothing_is_remembered() {
    let balancer = Balancer::new(OnDown::Rehash);
    for flow in 0..2000 {
        let first = balancer.send(flow, transport::SYN);
        assert_eq!(balancer.send(flow, transport::ACK), first);
    }
    assert!(balancer.kernel.flows.borrow().is_empty() && balancer.kernel.embryos.borrow().is_empty());
}

/// Two balancers that were configured in another order choose alike, so a flow may change between them.
#[test]
fn two_balancers_agree_whatever_their_history() {
    let mut first = Balancer::new(OnDown::Rehash);
    let mut second = Balancer::new(OnDown::Rehash);
    for n in [7, 5, 6] {
        first.put(n, 2);
        first.converge();
    }
    for n in [6, 8, 7, 5] {
        second.put(n, 2);
        second.converge();
    }
    second.backends().remove(&address(8));
    second.converge();
    for flow in 0..2000 {
        assert_eq!(
            first.send(flow, transport::SYN).map(|(to, _)| to),
            second.send(flow, transport::SYN).map(|(to, _)| to)
        );
    }
}
