//! Plans carried out on tables in memory: they converge, move no more than they must, and keep what is shared apart.

mod vips;

use super::step::Why;
use super::*;
use crate::agent::touched::Touched;
use crate::dataplane::tables::Tables;
use crate::model::{
    Admin, Announce, Backend, Check, CheckKind, EncapChecksum, Listen, Mode, OnDown, Ports, Protocol,
    Service, Tracking,
};
use lb_common::abi::ServiceEntry;
use lb_common::slot::Slot;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

const SIZES: Sizes = Sizes {
    services: 64,
    ring_lines: 256,
    backends: 512,
    reverse: 1024,
    ranges: 64,
    neighbours: 2,
    flows: 1,
    embryonic: 1,
    fragments: 1,
    counters: 256,
    reasons: 16,
};

/// A machine: tables, and what the agent remembers and sees.
struct Machine {
    tables: Tables,
    desired: Desired,
    ids: BTreeMap<String, u32>,
    health: HealthMap,
    hops: BTreeMap<IpAddr, NextHop>,
    rings: RingCache,
    now: u64,
    /// What was seen by the pass before.
    before: (Desired, HealthMap, BTreeMap<IpAddr, NextHop>),
}

fn machine() -> Machine {
    Machine {
        tables: Tables::in_memory(&SIZES),
        desired: Desired::default(),
        ids: BTreeMap::new(),
        health: HealthMap::new(),
        hops: BTreeMap::new(),
        rings: RingCache::default(),
        now: 1000,
        before: Default::default(),
    }
}

fn service(name: &str, port: u16, mode: Mode) -> Service {
    Service {
        name: name.into(),
        listen: Listen { protocol: Protocol::Tcp, address: [192, 0, 2, 1].into(), ports: Ports::One(port) },
        mode,
        check: None,
        on_down: OnDown::Rehash,
        announce: Announce::None,
        idle_timeout: Duration::from_secs(900),
        tracking: Tracking::Adaptive,
        encap_checksum: EncapChecksum::None,
        echo: true,
        ring_size: 251,
        backends: BTreeMap::new(),
    }
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8080))
}

fn with(mut service: Service, backends: impl IntoIterator<Item = u8>) -> Service {
    for n in backends {
        service.backends.insert(address(n), Backend { address: address(n), weight: 1, admin: Admin::Active });
    }
    service
}

impl Machine {
    fn observed(&self) -> Observed<'_> {
        Observed {
            now: self.now,
            health: &self.health,
            next_hops: &self.hops,
            ids: &self.ids,
            seed: 7,
            sizes: &SIZES,
            used: &|_| true,
        }
    }

    fn plan(&mut self) -> Result<Plan, PlanError> {
        let mut rings = std::mem::take(&mut self.rings);
        let plan = plan(&self.desired, &self.observed(), &self.tables, &mut rings);
        self.rings = rings;
        plan
    }

    /// What the agent would look at.
    fn touched(&self) -> BTreeSet<String> {
        let (desired, health, hops) = &self.before;
        let mut touched = Touched::default();
        touched.differing(desired, &self.desired);
        let services = self.health.keys().chain(health.keys());
        services
            .filter(|name| health.get(*name) != self.health.get(*name))
            .for_each(|name| touched.service(name));
        let changed = self.hops.iter().filter(|(addr, hop)| hops.get(addr) != Some(hop));
        touched.backends(&self.desired, &changed.map(|(addr, _)| *addr).collect());
        touched.time(&self.desired, u64::MAX, self.now);
        match touched {
            Touched::Services(names) => names,
            Touched::Everything => unreachable!("nothing failed"),
        }
    }

    /// Plans, carries out, and checks that nothing is left to do: neither with what is remembered nor without. A plan
    /// for what was touched is the same as one for everything.
    fn converge(&mut self) -> Plan {
        let mut rings = self.rings.clone();
        let touched = self.touched();
        let part = plan_touched(&self.desired, &touched, &self.observed(), &self.tables, &mut rings);
        let done = self.plan().unwrap();
        assert_eq!(part.as_ref(), Ok(&done), "{touched:?}");
        self.before = (self.desired.clone(), self.health.clone(), self.hops.clone());
        crate::agent::apply::to_tables(&mut self.tables, &done.steps).unwrap();
        self.ids = done.ids.clone();
        assert_eq!(self.plan().unwrap().steps, [], "a second pass plans nothing");
        self.rings = RingCache::default();
        assert_eq!(self.plan().unwrap().steps, [], "nor does one that remembers nothing");
        done
    }

    fn health(&mut self, service: &str, backend: SocketAddr, health: Health) {
        self.health.entry(service.into()).or_default().insert(backend, health);
    }

    fn set(&mut self, service: Service) -> Plan {
        self.desired.put(service);
        self.converge()
    }

    fn entry(&self, name: &str) -> ServiceEntry {
        self.tables.services.iter().find(|e| e.id == self.ids[name]).unwrap()
    }

    fn slots(&self, name: &str) -> Vec<Slot> {
        let entry = self.entry(name);
        self.tables.rings.read(entry.ring, entry.slots).into_iter().map(Slot).collect()
    }

    /// The last byte of the address that each slot's new flows go to.
    fn owners(&self, name: &str) -> Vec<u8> {
        let entry = self.entry(name);
        let owner = |slot: Slot| {
            let backend = self.tables.backends.get(entry.backends + u32::from(slot.current())).unwrap();
            match IpAddr::from(backend.addr) {
                IpAddr::V4(v4) => v4.octets()[3],
                IpAddr::V6(_) => unreachable!("no IPv6 here"),
            }
        };
        self.slots(name).into_iter().map(owner).collect()
    }

    fn backend(&self, name: &str, n: u8) -> lb_common::abi::BackendEntry {
        let entry = self.entry(name);
        let block = entry.backends..entry.backends + entry.capacity;
        let wanted = lb_common::addr::Addr::from(address(n).ip());
        block
            .filter_map(|i| self.tables.backends.get(i))
            .find(|b| b.generation != 0 && b.addr == wanted)
            .unwrap()
    }
}

#[test]
fn a_new_service_appears_whole() {
    let mut machine = machine();
    let plan = machine.set(with(service("web", 80, Mode::Nat), [1, 2, 3]));
    assert!(
        matches!(&plan.steps[..], [.., Step::Service { new: true, .. }, Step::Vip { .. }]),
        "visible last: {:?}",
        plan.steps.last_chunk::<2>()
    );
    assert_eq!(plan.moves["web"], Moves { moved: 251, slots: 251 });
    assert!(machine.slots("web").iter().all(|s| s.settled() && !s.tracked()));
    assert_eq!(machine.owners("web").into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
    assert_eq!(machine.tables.reverse.iter().count(), 3);
    assert!(
        machine.tables.reverse.iter().all(|r| r.service == machine.ids["web"] && r.port == 80_u16.to_be())
    );
}

#[test]
fn a_leaver_moves_its_slots_and_few_others() {
    let mut machine = machine();
    machine.set(with(service("web", 80, Mode::Nat), 1..=5));
    let before = machine.owners("web");
    let plan = machine.set(with(service("web", 80, Mode::Nat), 1..=4));
    let after = machine.owners("web");
    let own = before.iter().filter(|o| **o == 5).count();
    let moved = before.iter().zip(&after).filter(|(b, a)| b != a).count();
    assert_eq!(plan.moves["web"].moved as usize, moved);
    assert!(moved >= own && moved <= own + 25, "{moved} moved, {own} had to");
    // Nobody is on what is gone: the slots of the leaver need no window, the others have one.
    for (slot, (b, a)) in machine.slots("web").iter().zip(before.iter().zip(&after)) {
        assert_eq!(slot.settled(), b == a || *b == 5);
    }
    assert_eq!(machine.tables.reverse.iter().count(), 4);
}

#[test]
fn a_drained_backend_keeps_its_flows_until_its_deadline() {
    let mut machine = machine();
    machine.set(with(service("web", 80, Mode::Nat), [1, 2]));
    let before = machine.owners("web");
    let mut draining = with(service("web", 80, Mode::Nat), [1, 2]);
    draining.backends.get_mut(&address(2)).unwrap().admin =
        Admin::Draining { until: Some(2000), remove: false };
    machine.set(draining);
    assert!(machine.owners("web").iter().all(|o| *o == 1));
    let entry = machine.backend("web", 2);
    assert!(entry.reachable() && !entry.selectable());
    for (slot, owner) in machine.slots("web").iter().zip(before) {
        assert_eq!(
            slot.tracked() && !slot.settled(),
            owner == 2,
            "windows are open where the drained one was"
        );
    }
    machine.now = 2000;
    machine.converge();
    assert!(!machine.backend("web", 2).reachable());
    assert!(machine.slots("web").iter().all(|s| s.settled()), "nobody is on it any more");
}

#[test]
fn health_takes_a_backend_out_and_back_in() {
    let check = Check {
        kind: CheckKind::Tcp,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        port: None,
    };
    for on_down in [OnDown::Rehash, OnDown::Keep] {
        let mut machine = machine();
        let mut checked = with(service("web", 80, Mode::Nat), [1, 2]);
        (checked.check, checked.on_down) = (Some(check.clone()), on_down);
        machine.set(checked);
        assert!(machine.slots("web").iter().all(|s| *s == Slot::EMPTY), "unknown ones get nothing");
        for n in [1, 2] {
            machine.health("web", address(n), Health::Up);
        }
        machine.converge();
        assert!(
            machine.slots("web").iter().all(|s| s.settled() && !s.tracked()),
            "first backends need no window"
        );
        machine.health("web", address(2), Health::Down);
        machine.converge();
        assert!(machine.owners("web").iter().all(|o| *o == 1));
        assert_eq!(machine.backend("web", 2).reachable(), on_down == OnDown::Keep);
        assert_eq!(machine.slots("web").iter().any(|s| !s.settled()), on_down == OnDown::Keep);
        machine.health("web", address(2), Health::Up);
        let back = machine.converge();
        assert!(machine.backend("web", 2).selectable());
        assert_eq!(
            back.moves["web"].moved as usize,
            machine.owners("web").iter().filter(|o| **o == 2).count()
        );
    }
}

#[test]
fn what_a_backend_counted_is_kept_when_nobody_sees_it_any_more() {
    let mut machine = machine();
    machine.set(with(service("web", 80, Mode::Nat), 1..=3));
    machine.set(with(service("dns", 53, Mode::Nat), 100..=101));
    let (row, past) = (machine.backend("web", 2).counters, machine.entry("web").past);
    let rows = |machine: &Machine, name: &str, of: std::ops::RangeInclusive<u8>| {
        of.map(|n| machine.backend(name, n).counters).collect::<BTreeSet<_>>()
    };
    let mut all = rows(&machine, "web", 1..=3);
    all.append(&mut rows(&machine, "dns", 100..=101));
    all.extend([past, machine.entry("dns").past]);
    assert_eq!(all.len(), 7, "each backend and each service has a row of its own");

    let plan = machine.set(with(service("web", 80, Mode::Nat), [1, 3]));
    let at =
        |wanted: &dyn Fn(&Step) -> bool| plan.steps.iter().position(wanted).expect("a step of this kind");
    let gone = at(&|step| matches!(step, Step::Backend { why: Why::Removed, .. }));
    let waited = at(&|step| *step == Step::Grace);
    let kept = at(&|step| *step == Step::KeepCounters { service: "web".into(), from: row, into: past });
    assert!(gone < waited && waited < kept, "{:?}", plan.steps);
    // A row that is remembered is nobody else's.
    machine.set(with(service("web", 80, Mode::Nat), 1..=16));
    assert!(rows(&machine, "web", 1..=16).iter().all(|row| *row != past));
    assert_eq!(machine.entry("web").past, past);
}

#[test]
fn a_next_hop_is_taken_and_never_taken_away() {
    let mut machine = machine();
    machine.set(with(service("web", 80, Mode::Nat), [1]));
    assert!(!machine.backend("web", 1).resolved());
    let hop = NextHop { macs: [7; 12], ifindex: 3, mtu: 1500 };
    machine.hops.insert(address(1).ip(), hop);
    let plan = machine.converge();
    assert_eq!(plan.steps.len(), 1);
    assert!(plan.moves.is_empty());
    machine.hops.clear();
    assert_eq!(machine.converge().steps, []);
    let entry = machine.backend("web", 1);
    assert!(entry.resolved() && entry.macs == [7; 12]);
}

#[test]
fn a_service_that_outgrows_its_block_keeps_its_flows() {
    let mut machine = machine();
    machine.set(with(service("web", 80, Mode::Nat), 1..=16));
    machine.set(with(service("dns", 53, Mode::Nat), 100..=101));
    let (before, first) = (machine.entry("web"), machine.owners("web"));
    let rows: Vec<u32> = (1..=16).map(|n| machine.backend("web", n).counters).collect();
    machine.set(with(service("web", 80, Mode::Nat), 1..=17));
    let after = machine.entry("web");
    assert_eq!((after.id, after.ring, after.capacity), (before.id, before.ring, 32));
    assert_ne!(after.backends, before.backends);
    assert_eq!((1..=16).map(|n| machine.backend("web", n).counters).collect::<Vec<_>>(), rows);
    let elsewhere =
        first.iter().zip(machine.owners("web")).filter(|(was, is)| *is != **was && *is != 17).count();
    assert!(elsewhere <= 40, "{elsewhere} of 251 slots moved to others than the newcomer");
    assert_eq!(machine.owners("dns").into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([100, 101]));
}

#[test]
fn every_field_changes_in_place() {
    let mut machine = machine();
    machine.set(with(service("web", 80, Mode::Nat), [1, 2]));
    let before = machine.entry("web");
    let mut other = with(service("web", 8081, Mode::L2), [1, 2]);
    other.listen.protocol = Protocol::Udp;
    other.tracking = Tracking::Never;
    let plan = machine.set(other);
    assert!(plan.moves.is_empty());
    let after = machine.entry("web");
    assert_eq!((after.id, after.ring, after.backends), (before.id, before.ring, before.backends));
    assert_eq!(machine.tables.services.iter().count(), 1, "the old listener is gone");
    assert_eq!(machine.tables.reverse.iter().count(), 0, "direct return needs no way back");
}

#[test]
fn a_backend_that_changes_its_service_keeps_one_way_back() {
    // Whichever of the two is planned first.
    for (from, to) in [("a", "b"), ("b", "a")] {
        let mut machine = machine();
        machine.set(with(service(from, 80, Mode::Nat), [1, 2]));
        machine.set(with(service(to, 81, Mode::Nat), [3]));
        machine.desired.put(with(service(from, 80, Mode::Nat), [1]));
        machine.desired.put(with(service(to, 81, Mode::Nat), [2, 3]));
        machine.converge();
        let way = machine.tables.reverse.iter().find(|r| r.key.addr == address(2).ip().into()).unwrap();
        assert_eq!(way.service, machine.ids[to]);
    }
}

#[test]
fn backends_that_never_got_a_packet_leave_no_window() {
    let mut machine = machine();
    machine.set(with(service("web", 80, Mode::Nat), [1]));
    machine.desired.put(with(service("web", 80, Mode::Nat), [1, 2]));
    let unused = Observed { used: &|_| false, ..machine.observed() };
    let plan = plan(&machine.desired, &unused, &machine.tables, &mut RingCache::default()).unwrap();
    let words = plan.steps.iter().find_map(|s| match s {
        Step::Slots { words, .. } => Some(words),
        _ => None,
    });
    assert!(words.unwrap().iter().all(|(_, word)| Slot(*word).settled() && !Slot(*word).tracked()));
}

#[test]
fn a_full_table_is_an_error_and_nothing_is_planned() {
    let mut machine = machine();
    let mut large = with(service("web", 80, Mode::Nat), [1]);
    large.ring_size = 4093;
    machine.set(large);
    let mut second = with(service("more", 81, Mode::Nat), [2]);
    second.ring_size = 251;
    machine.desired.put(second);
    let error = machine.plan().unwrap_err();
    assert!(error.to_string().contains("the table of rings is full"), "{error}");
    assert!(error.to_string().contains("\"more\""), "{error}");
}

#[derive(Clone, Debug)]
enum Event {
    Put { service: u8, backends: BTreeSet<u8>, l2: bool },
    Remove(u8),
    Health { service: u8, backend: u8, health: u8 },
    Drain { service: u8, backend: u8 },
    Hop { backend: u8, mac: u8 },
    Time,
}

fn event() -> impl Strategy<Value = Event> {
    let number = || 0_u8..4;
    prop_oneof![
        4 => (number(), proptest::collection::btree_set(0_u8..40, 0..25), any::<bool>())
            .prop_map(|(service, backends, l2)| Event::Put { service, backends, l2 }),
        1 => number().prop_map(Event::Remove),
        3 => (number(), 0_u8..40, 0_u8..3).prop_map(|(service, backend, health)| Event::Health { service, backend, health }),
        2 => (number(), 0_u8..40).prop_map(|(service, backend)| Event::Drain { service, backend }),
        2 => (0_u8..200, any::<u8>()).prop_map(|(backend, mac)| Event::Hop { backend, mac }),
        1 => Just(Event::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever happens: one pass reaches the goal, ids and parts of tables are never shared, flags say what is so.
    #[test]
    fn every_history_converges(events in proptest::collection::vec(event(), 1..25)) {
        let mut machine = machine();
        for event in events {
            match event {
                Event::Put { service: n, backends, l2 } => {
                    let name = format!("s{n}");
                    let mode = if l2 { Mode::L2 } else { Mode::Nat };
                    // A NAT backend belongs to one service: each has its own tenth of the addresses.
                    let own = backends.into_iter().map(|b| n * 50 + b);
                    machine.desired.put(with(service(&name, 80 + u16::from(n), mode), own));
                }
                Event::Remove(n) => { machine.desired.services.remove(&format!("s{n}")); }
                Event::Health { service, backend, health } => {
                    let health = [Health::Unknown, Health::Up, Health::Down][usize::from(health)];
                    machine.health(&format!("s{service}"), address(service * 50 + backend), health);
                }
                Event::Drain { service, backend } => {
                    let until = Some(machine.now + 10);
                    let service = machine.desired.service_mut(&format!("s{service}"));
                    let own = service.and_then(|s| { let n = s.name.as_bytes()[1] - b'0'; s.backends.get_mut(&address(n * 50 + backend)) });
                    if let Some(backend) = own {
                        backend.admin = Admin::Draining { until, remove: false };
                    }
                }
                Event::Hop { backend, mac } => {
                    let hop = NextHop { macs: [mac; 12], ifindex: 3, mtu: 1500 };
                    machine.hops.insert(address(backend).ip(), hop);
                }
                Event::Time => machine.now += 20,
            }
            machine.converge();
            let entries: Vec<ServiceEntry> = machine.tables.services.iter().collect();
            prop_assert_eq!(entries.len(), machine.desired.services.len());
            let disjoint = |spans: Vec<(u32, u32)>| {
                let mut spans = spans;
                spans.sort_unstable();
                spans.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0)
            };
            prop_assert!(disjoint(entries.iter().map(|e| (e.backends, e.capacity)).collect()));
            prop_assert!(disjoint(entries.iter().map(|e| (e.ring, lb_common::abi::ring::lines(e.slots))).collect()));
            let blocks = entries.iter().flat_map(|e| e.backends..e.backends + e.capacity);
            let used: Vec<_> = blocks.filter_map(|n| machine.tables.backends.get(n)).filter(|b| b.generation != 0).collect();
            let rows: BTreeSet<u32> = used.iter().map(|b| b.counters).collect();
            prop_assert_eq!(rows.len(), used.len(), "a row of counters is shared");
            let generations: BTreeSet<u32> = used.iter().map(|b| b.generation).collect();
            prop_assert_eq!(generations.len(), used.len(), "a generation is shared");
            for (name, wanted) in &machine.desired.services {
                let entry = machine.entry(name);
                for slot in machine.slots(name) {
                    for index in [slot.current(), slot.previous()] {
                        if index == lb_common::slot::NONE { continue; }
                        let backend = machine.tables.backends.get(entry.backends + u32::from(index)).unwrap();
                        prop_assert!(backend.reachable(), "a slot points to what cannot be reached");
                    }
                }
                prop_assert!(wanted.backends.len() as u32 <= entry.capacity);
            }
            let nat: usize = machine.desired.services.values().filter(|s| s.mode == Mode::Nat).map(|s| s.backends.len()).sum();
            prop_assert_eq!(machine.tables.reverse.iter().count(), nat);
            prop_assert_eq!(machine.tables.reverse.used() as usize, nat);
        }
    }
}
