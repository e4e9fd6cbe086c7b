//! Ranges of ports come and go: after each single step every packet and every reply belongs to whom it belonged before, or to
//! whom it will.

use super::*;
use crate::agent::apply::to_tables;
use crate::config::{self, Change};
use crate::model::{
    Admin, Announce, Backend, EncapChecksum, Listen, Mode, OnDown, Ports, Protocol, Tracking,
};
use lb_common::abi::{Key, RangesEntry, ServiceEntry};
use lb_common::addr::{Addr, TCP};
use lb_common::wide;
use proptest::prelude::*;
use std::time::Duration;

const SIZES: Sizes = Sizes {
    services: 64,
    ring_lines: 256,
    backends: 512,
    reverse: 256,
    ranges: 64,
    neighbours: 2,
    flows: 1,
    embryonic: 1,
    fragments: 16,
    counters: 256,
    reasons: 16,
};
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn vip(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn server(n: u8) -> IpAddr {
    [10, 0, 0, n].into()
}

fn service(name: &str, at: u8, ports: Ports, mode: Mode, backends: &[(u8, u16)]) -> Service {
    let backends = backends.iter().map(|(n, port)| {
        let address = SocketAddr::new(server(*n), *port);
        (address, Backend { address, weight: 1, admin: Admin::Active })
    });
    Service {
        name: name.into(),
        listen: Listen { protocol: Protocol::Tcp, address: vip(at), ports },
        mode,
        check: None,
        on_down: OnDown::Rehash,
        announce: Announce::None,
        idle_timeout: Duration::from_secs(900),
        tracking: Tracking::Adaptive,
        encap_checksum: EncapChecksum::None,
        echo: false,
        ring_size: 251,
        backends: backends.collect(),
    }
}

/// Whom a reply belongs to: service, and what the client sees.
type Way = (u32, IpAddr, u16);

struct Machine {
    tables: Tables,
    desired: Desired,
    ids: BTreeMap<String, u32>,
}

fn machine() -> Machine {
    Machine { tables: Tables::in_memory(&SIZES), desired: Desired::default(), ids: BTreeMap::new() }
}

/// The most exact service that listens there.
fn listener(desired: &Desired, address: IpAddr, port: u16) -> Option<&Service> {
    let there = desired.services.values().map(AsRef::as_ref).filter(|service: &&Service| {
        service.listen.address == address && service.listen.ports.common(Ports::One(port)).is_some()
    });
    there.max_by_key(|service| service.listen.ports.rank())
}

/// The most exact service in mode nat that gets replies from there, and the port that its client knows.
fn asker(desired: &Desired, address: IpAddr, port: u16) -> Option<(&Service, u16)> {
    let nat =
        desired.services.values().map(AsRef::as_ref).filter(|service: &&Service| service.mode == Mode::Nat);
    let there = nat.flat_map(|service| {
        let ports = service.listen.ports;
        let backends = service.backends.keys().filter(move |backend| backend.ip() == address);
        let of = move |backend: &SocketAddr| {
            let own = ports.at_backend(backend.port())?;
            own.common(Ports::One(port))?;
            Some((service, port - own.first() + ports.first()))
        };
        backends.filter_map(of)
    });
    there.max_by_key(|(service, _)| service.listen.ports.rank())
}

/// Whose range holds a key's port.
fn range(lists: &BTreeMap<Key, RangesEntry>, key: Key) -> Option<u16> {
    let address = Key::ranges(key.addr, key.protocol());
    let entry = lists.get(&if key.is_of_source() { address.of_source() } else { address })?;
    wide::look(&key, 0, |_| Some(entry))
}

/// What a backend's replies become: an address, and by how much ports are shifted.
fn mapping(desired: &Desired, service: &str, address: IpAddr) -> Option<(IpAddr, i32)> {
    let service = desired.services.get(service)?;
    let backend = service.backends.keys().find(|backend| backend.ip() == address)?;
    let ports = service.listen.ports;
    let shift = i32::from(ports.at_backend(backend.port())?.first()) - i32::from(ports.first());
    Some((service.listen.address, shift))
}

impl Machine {
    /// Every list of ranges, see [`range`].
    fn lists(&self) -> BTreeMap<Key, RangesEntry> {
        self.tables.ranges.iter().map(|entry| (entry.key, entry)).collect()
    }

    /// What the program finds for a packet: as the program looks.
    fn found(&self, lists: &BTreeMap<Key, RangesEntry>, address: IpAddr, port: u16) -> Option<ServiceEntry> {
        let exact = Key::endpoint(address.into(), port.to_be(), TCP);
        let find = |key: &Key| self.tables.services.find(key).map(|(_, entry)| entry);
        find(&exact).or_else(|| find(&Key::wide(address.into(), range(lists, exact)?, TCP)))
    }

    /// What the program finds for a reply.
    fn way(&self, lists: &BTreeMap<Key, RangesEntry>, address: IpAddr, port: u16) -> Option<Way> {
        let exact = Key::endpoint(address.into(), port.to_be(), TCP);
        let wide = || {
            let service = range(lists, exact.of_source())?;
            self.tables.reverse.find(&Key::wide(address.into(), service, TCP))
        };
        let entry = self.tables.reverse.find(&exact).or_else(wide)?;
        let client_sees = match u16::from_be(entry.port) {
            0 => port,
            first if entry.key.is_wide() => (port + first).wrapping_sub(u16::from_be(entry.first)),
            one => one,
        };
        Some((entry.service, Addr::into(entry.vip), client_sees))
    }

    fn plan(&self, desired: &Desired) -> Plan {
        let observed = Observed {
            now: 1000,
            health: &HealthMap::new(),
            next_hops: &BTreeMap::new(),
            ids: &self.ids,
            seed: 7,
            sizes: &SIZES,
            used: &|_| true,
        };
        plan(desired, &observed, &self.tables, &mut RingCache::default()).unwrap()
    }

    /// Goes over to what is desired step by step.
    fn become_so(&mut self, desired: Desired) {
        let plan = self.plan(&desired);
        self.check(&desired, &plan, None);
        for step in &plan.steps {
            to_tables(&mut self.tables, std::slice::from_ref(step)).unwrap();
            self.check(&desired, &plan, Some(step));
        }
        (self.desired, self.ids) = (desired, plan.ids.clone());
        let plan = self.plan(&self.desired.clone());
        assert_eq!(plan.steps, [], "a second pass plans nothing");
        // What is there is what should be, and nothing else.
        self.check(&self.desired, &plan, None);
        let all = self.desired.services.values();
        assert_eq!(self.tables.services.used() as usize, all.clone().count());
        let nat = all.filter(|service| service.mode == Mode::Nat);
        assert_eq!(
            self.tables.reverse.used() as usize,
            nat.map(|service| service.backends.len()).sum::<usize>()
        );
    }

    fn check(&self, desired: &Desired, plan: &Plan, step: Option<&Step>) {
        let (old, new, lists) = (&self.desired, desired, self.lists());
        let id = |ids: &BTreeMap<String, u32>, service: &Service| ids.get(&service.name).copied();
        // Services that are gone are taken out first: what they leave belongs to whoever is left, or to nobody.
        let mut left = old.clone();
        left.services.retain(|name, _| new.services.contains_key(name));
        let stays = |was: &Service| new.services.contains_key(&was.name);
        for at in 1..=2 {
            for port in 1..=50 {
                let got = self.found(&lists, vip(at), port).map(|entry| entry.id);
                let was = listener(old, vip(at), port);
                let is = listener(new, vip(at), port);
                let gap = was.zip(is).is_none_or(|(was, _)| !stays(was));
                let rest = listener(&left, vip(at), port).and_then(|rest| id(&self.ids, rest));
                let fine = got == was.and_then(|was| id(&self.ids, was))
                    || got == rest && gap
                    || got == is.and_then(|is| id(&plan.ids, is))
                    || got.is_none() && gap;
                assert!(
                    fine,
                    "packets to {}:{port} find {got:?} after {step:?} of {:#?}",
                    vip(at),
                    plan.steps
                );
            }
        }
        for n in 1..=4 {
            for port in 1..=70 {
                let way = |ids, (service, port): (&Service, u16)| -> Option<Way> {
                    Some((id(ids, service)?, service.listen.address, port))
                };
                let got = self.way(&lists, server(n), port);
                let (was, is) = (asker(old, server(n), port), asker(new, server(n), port));
                let gap = was.zip(is).is_none_or(|(was, _)| !stays(was.0));
                // A service that becomes another one for its clients does not do so for packets and replies at once.
                let another = was.is_some_and(|(was, _)| {
                    let by = |desired| mapping(desired, &was.name, server(n));
                    by(old) != by(new) && got.map(|got| got.0) == id(&self.ids, was)
                });
                // Where nobody had asked yet, replies may belong to any new service for a moment.
                let rest = asker(&left, server(n), port).and_then(|rest| way(&self.ids, rest));
                let fine = was.is_none()
                    || got == rest && gap
                    || another
                    || got == was.and_then(|was| way(&self.ids, was))
                    || got == is.and_then(|is| way(&plan.ids, is))
                    || got.is_none() && gap;
                assert!(
                    fine,
                    "replies of {}:{port} find {got:?} after {step:?} of {:#?}",
                    server(n),
                    plan.steps
                );
            }
        }
    }

    /// Puts services, all at once.
    fn put(&mut self, services: impl IntoIterator<Item = Service>) {
        let mut desired = self.desired.clone();
        services.into_iter().for_each(|service| desired.put(service));
        self.become_so(desired);
    }
}

const NAT: Mode = Mode::Nat;

#[test]
fn a_range_is_handed_over() {
    let mut machine = machine();
    machine.put([service("any", 1, Ports::Any, NAT, &[(1, 0)])]);
    machine.put([service("a", 1, Ports::Range(10, 29), NAT, &[(2, 0)])]);
    // Half of it to another one, then all, then back, then changed places.
    machine.put([
        service("a", 1, Ports::Range(10, 19), NAT, &[(2, 0)]),
        service("b", 1, Ports::Range(20, 29), NAT, &[(3, 0)]),
    ]);
    machine.put([
        service("a", 1, Ports::Range(20, 29), NAT, &[(2, 0)]),
        service("b", 1, Ports::Range(10, 19), NAT, &[(3, 0)]),
    ]);
    machine.put([
        service("a", 1, Ports::One(15), NAT, &[(2, 15)]),
        service("b", 1, Ports::Range(5, 29), NAT, &[(3, 0)]),
    ]);
    machine.put([service("a", 1, Ports::Range(40, 49), NAT, &[(2, 50)])]);
    let mut desired = machine.desired.clone();
    desired.services.remove("b");
    machine.become_so(desired);
    machine.become_so(Desired::default());
    assert_eq!(machine.tables.ranges.used(), 0);
}

#[test]
fn two_services_change_places() {
    for ports in [Ports::One(20), Ports::Range(20, 29), Ports::Any] {
        let mut machine = machine();
        let two = |a, b| [service("a", a, ports, Mode::L2, &[]), service("b", b, ports, Mode::L2, &[])];
        machine.put(two(1, 2));
        machine.put(two(2, 1));
    }
}

#[test]
fn a_range_that_is_changed_keeps_its_slots() {
    let mut machine = machine();
    machine.put([service("a", 1, Ports::Range(10, 19), NAT, &[(1, 0), (2, 0)])]);
    let before = machine.found(&machine.lists(), vip(1), 15).unwrap();
    let slots = machine.tables.rings.read(before.ring, before.slots);
    machine.put([service("a", 1, Ports::Range(5, 29), NAT, &[(1, 0), (2, 0)])]);
    let after = machine.found(&machine.lists(), vip(1), 15).unwrap();
    assert_eq!((after.id, after.ring, after.backends), (before.id, before.ring, before.backends));
    assert_eq!(machine.tables.rings.read(after.ring, after.slots), slots, "no flow moves");
}

#[test]
fn lists_change_once_for_all_services_of_an_address() {
    let mut machine = machine();
    let all = |first: u16| {
        (0..5).map(move |n| {
            let ports = Ports::Range(first + n * 10, first + n * 10 + 9);
            service(NAMES[usize::from(n)], 1, ports, Mode::L2, &[])
        })
    };
    machine.put(all(1));
    let mut desired = machine.desired.clone();
    all(6).for_each(|service| desired.put(service));
    let plan = machine.plan(&desired);
    let lists = plan.steps.iter().filter(|step| matches!(step, Step::Ranges { .. })).count();
    assert_eq!(lists, 1, "{:#?}", plan.steps);
    machine.become_so(desired);
}

fn any_ports() -> impl Strategy<Value = Ports> {
    prop_oneof![
        2 => (1_u16..48).prop_map(Ports::One),
        3 => (1_u16..40, 1_u16..10).prop_map(|(first, more)| Ports::Range(first, first + more)),
        1 => Just(Ports::Any),
    ]
}

fn any_service() -> impl Strategy<Value = Service> {
    let backends = proptest::collection::btree_map(1_u8..=4, prop_oneof![Just(0_u16), 1_u16..60], 0..4);
    let mode = prop_oneof![2 => Just(Mode::Nat), 1 => Just(Mode::L2)];
    (0..NAMES.len(), 1_u8..=2, any_ports(), mode, backends).prop_map(|(name, at, ports, mode, backends)| {
        let port = |said: u16| match ports {
            _ if mode == Mode::L2 => ports.backend_port(),
            Ports::Any => 0,
            Ports::One(port) if said == 0 => port,
            _ => said,
        };
        let backends: Vec<_> = backends.into_iter().map(|(n, said)| (n, port(said))).collect();
        service(NAMES[name], at, ports, mode, &backends)
    })
}

#[derive(Clone, Debug)]
enum Event {
    Put(Service),
    Remove(usize),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![6 => any_service().prop_map(Event::Put), 1 => (0..NAMES.len()).prop_map(Event::Remove)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Several changes at once, as when a file is applied. Those that are refused do not happen.
    #[test]
    fn every_packet_has_an_owner_at_every_step(
        events in proptest::collection::vec(proptest::collection::vec(any_event(), 1..4), 1..8),
    ) {
        let mut machine = machine();
        for together in events {
            let mut desired = machine.desired.clone();
            for event in together {
                let change = match event {
                    Event::Put(service) => Change::PutService { service: config::export::service(&service) },
                    Event::Remove(n) => Change::RemoveService { name: NAMES[n].into() },
                };
                if let Ok(outcome) = config::apply(&desired, change) {
                    desired = outcome.desired;
                }
            }
            machine.become_so(desired);
        }
    }
}
