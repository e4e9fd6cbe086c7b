//! One service: what its tables should hold, and the steps from what they hold.

use super::step::{Step, Why};
use super::wide::Wide;
use super::{Allocator, Moves, NextHop, Observed, Plan, PlanError, RingCache};
use crate::dataplane::tables::Tables;
use crate::model::{Admin, Backend, EncapChecksum, Health, Mode, OnDown, Ports, Protocol, Service, Tracking};
use lb_common::abi::{BackendEntry, Correction, Key, ReverseEntry, ServiceEntry, backend, service};
use lb_common::{hash, maglev, slot::Slot};
use std::cell::{Cell, OnceCell};
use std::collections::HashSet;
use std::net::SocketAddr;

/// Entries that a service gets at least: room to grow without moving.
const LEAST_CAPACITY: u32 = 16;

/// The key that a service is found by. With several ports it stays the same, whichever they are.
fn key(service: &Service, id: u32) -> Key {
    exact(service).unwrap_or_else(|| {
        Key::wide(service.listen.address.into(), id as u16, protocol(service.listen.protocol))
    })
}

/// The key of a service that listens on one port.
pub(super) fn exact(service: &Service) -> Option<Key> {
    let Ports::One(port) = service.listen.ports else { return None };
    Some(Key::endpoint(service.listen.address.into(), port.to_be(), protocol(service.listen.protocol)))
}

/// First and last port of a service as they stand in its entry.
fn ports(service: &Service) -> [u16; 2] {
    let ports = service.listen.ports;
    if ports.is_wide() { [ports.first().to_be(), ports.last().to_be()] } else { [0; 2] }
}

/// The entry of a service, found by where it listens.
pub(crate) fn installed(service: &Service, tables: &Tables) -> Option<ServiceEntry> {
    match exact(service) {
        Some(key) => tables.services.find(&key).map(|(_, entry)| entry),
        None => tables
            .services
            .iter()
            .find(|entry| entry.key == key(service, entry.id) && entry.ports == ports(service)),
    }
}

/// The key that a backend's replies are found by.
pub(super) fn way(service: &ServiceEntry, backend: &BackendEntry) -> Key {
    if service.key.is_wide() {
        Key::wide(backend.addr, service.key.port(), service.key.protocol())
    } else {
        Key::endpoint(backend.addr, backend.port, service.key.protocol())
    }
}

/// The IP protocol number.
pub(super) fn protocol(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => lb_common::addr::TCP,
        Protocol::Udp => lb_common::addr::UDP,
    }
}

fn flags(wanted: &Service) -> u32 {
    let mode = match wanted.mode {
        Mode::Nat => service::flags::NAT,
        Mode::L2 => service::flags::L2,
        Mode::Ipip => service::flags::IPIP,
        Mode::Gue => service::flags::GUE,
    };
    let tracking = match wanted.tracking {
        Tracking::Adaptive => 0,
        Tracking::Always => service::flags::TRACK_ALWAYS,
        Tracking::Never => service::flags::TRACK_NEVER,
    };
    let checksum = match wanted.encap_checksum {
        EncapChecksum::None => 0,
        EncapChecksum::Udp => service::flags::ENCAP_CHECKSUM,
    };
    mode | tracking | checksum
}

/// What may be done with a backend, as bits of [`backend::flags`] without the next hop's.
///
/// Selectable = active, up and weighted; reachable = not down (or kept when down) and its drain has not ended.
fn permissions(wanted: &Service, backend: &Backend, observed: &Observed<'_>) -> u16 {
    let health = match wanted.check {
        None => Health::Up,
        Some(_) => {
            let known = observed.health.get(&wanted.name).and_then(|known| known.get(&backend.address));
            known.copied().unwrap_or_default()
        }
    };
    let ended = matches!(backend.admin, Admin::Draining { until: Some(end), .. } if observed.now >= end);
    let reachable = !ended && (health != Health::Down || wanted.on_down == OnDown::Keep);
    let selectable = health == Health::Up && backend.admin == Admin::Active && backend.weight > 0;
    let mut bits = 0;
    if reachable {
        bits |= backend::flags::REACHABLE;
    }
    if reachable && selectable {
        bits |= backend::flags::SELECTABLE;
    }
    bits
}

/// An entry of `BACKENDS`; one beyond the table is empty, which the allocator never gives out.
pub(super) fn entry_at(tables: &Tables, index: u32) -> BackendEntry {
    tables.backends.get(index).unwrap_or_default()
}

/// The way back that is installed for a backend.
pub(super) fn found(tables: &Tables, key: &Key) -> Option<ReverseEntry> {
    tables.reverse.find(key)
}

/// A service's block of `BACKENDS`, as it is or as it should be.
struct Block {
    start: u32,
    entries: Vec<BackendEntry>,
    /// Where the next one that is looked for may be: blocks are mostly in the order of addresses, as are questions.
    next: Cell<usize>,
}

impl Block {
    fn new(start: u32, entries: Vec<BackendEntry>) -> Self {
        Self { start, entries, next: Cell::new(0) }
    }

    fn read(tables: &Tables, start: u32, capacity: u32) -> Self {
        Self::new(start, (start..start + capacity).map(|n| entry_at(tables, n)).collect())
    }

    /// The entry of a backend, if it is in use.
    fn find(&self, addr: &SocketAddr) -> Option<usize> {
        let (ip, port) = (addr.ip().into(), addr.port().to_be());
        let is_it = |e: &BackendEntry| e.generation != 0 && e.addr == ip && e.port == port;
        let next = Some(self.next.get()).filter(|next| self.entries.get(*next).is_some_and(is_it));
        let found = next.or_else(|| self.entries.iter().position(is_it));
        if let Some(index) = found {
            self.next.set(index + 1);
        }
        found
    }
}

/// Plans one service. Gives what is to be done when backends that it loses are out of sight.
pub(super) fn reconcile(
    plan: &mut Plan,
    wanted: &Service,
    installed: Option<ServiceEntry>,
    observed: &Observed<'_>,
    tables: &Tables,
    (allocator, wide): (&mut Allocator<'_>, &mut Wide<'_>),
    rings: &mut RingCache,
) -> Result<Vec<Step>, PlanError> {
    let name = &wanted.name;
    let old = match &installed {
        Some(entry) => Block::read(tables, entry.backends, entry.capacity),
        None => Block::new(0, Vec::new()),
    };
    let target = target_block(plan, wanted, &old, observed, allocator)?;
    let moved = installed.is_some() && target.start != old.start;
    let id = installed.map_or_else(|| allocator.id(name), |e| Ok(e.id))?;
    let entry = ServiceEntry {
        key: key(wanted, id),
        id,
        ring: installed.map_or_else(|| allocator.ring(name, wanted.ring_size), |e| Ok(e.ring))?,
        slots: wanted.ring_size,
        backends: target.start,
        capacity: target.entries.len() as u32,
        seed: hash::service_seed(name, observed.seed),
        flags: flags(wanted),
        sum: key(wanted, id).sum(),
        pad: 0,
        past: installed.map_or_else(|| allocator.row(name), |e| Ok(e.past))?,
        ports: ports(wanted),
    };
    plan.ids.insert(name.clone(), entry.id);
    if installed.is_none() {
        plan.steps.push(Step::ZeroCounters { service: name.clone(), row: entry.past });
        plan.steps.push(Step::ZeroReasons { service: name.clone(), row: entry.id });
    }

    // What gains comes before the slots, what loses after. A block that moved is written whole, as it was, first.
    let before = |n: usize| old.entries.get(n).copied().unwrap_or_default();
    let is_used = |e: &BackendEntry| e.generation != 0;
    for (n, entry) in target.entries.iter().enumerate() {
        let (was, is) = (before(n), *entry);
        let gains = is_used(&is) && was.flags & !is.flags == 0;
        let first = if gains { is } else { was };
        let there =
            if moved || installed.is_none() { entry_at(tables, target.start + n as u32) } else { was };
        if first != there {
            let why = if gains { why(&was, &is) } else { Why::Moved };
            let named = if is_used(&first) { first } else { there };
            plan.steps.push(backend_step(name, why, &target, n, first, &named));
        }
    }
    reverse_steps(plan, wanted, &entry, &target, tables, allocator);
    wide.grow(plan, wanted, entry.id);
    if let Some(was) = installed.filter(|_| moved) {
        let place = ServiceEntry { backends: entry.backends, capacity: entry.capacity, ..was };
        plan.steps.push(Step::Service { service: name.clone(), entry: place, new: false });
        plan.steps.push(Step::Grace);
        allocator.release_backends(was.backends, was.capacity);
    }
    let used = observed.used;
    slot_steps(plan, wanted, &entry, installed.is_none(), (&old, &target), tables, (rings, used));

    let current = installed.map(|e| ServiceEntry { backends: entry.backends, capacity: entry.capacity, ..e });
    if current != Some(entry) {
        plan.steps.push(Step::Service { service: name.clone(), entry, new: installed.is_none() });
    }
    if let Some(was) = installed.filter(|was| was.key != entry.key) {
        wide.moved(name, was.key);
    }
    let past = entry.past;
    let mut gone = Vec::new();
    for (n, entry) in target.entries.iter().enumerate() {
        let (was, is) = (before(n), *entry);
        if is_used(&was) && is_used(&is) && was.flags & !is.flags != 0 {
            plan.steps.push(backend_step(name, why(&was, &is), &target, n, is, &is));
        } else if is_used(&was) && !is_used(&is) {
            plan.steps.push(backend_step(name, Why::Removed, &target, n, is, &was));
            let (from, into) = (was.counters, past);
            gone.push(Step::KeepCounters { service: name.clone(), from, into });
        }
    }
    let Some(was) = installed else { return Ok(gone) };
    let kept: HashSet<Key> = match wanted.mode {
        Mode::Nat => ways(&entry, &target.entries).collect(),
        _ => HashSet::new(),
    };
    let stale = ways(&was, &old.entries).filter(|way| !kept.contains(way));
    stale.for_each(|way| wide.stale(name, entry.id, way));
    Ok(gone)
}

/// The keys that replies of a service's backends are found by.
fn ways(service: &ServiceEntry, backends: &[BackendEntry]) -> impl Iterator<Item = Key> {
    let used = backends.iter().filter(|backend| backend.generation != 0);
    used.map(|backend| way(service, backend))
}

/// The block as it should be: known backends keep their index, new ones take free ones, a full block moves.
fn target_block(
    plan: &mut Plan,
    wanted: &Service,
    old: &Block,
    observed: &Observed<'_>,
    allocator: &mut Allocator<'_>,
) -> Result<Block, PlanError> {
    let name = &wanted.name;
    let new = wanted.backends.keys().filter(|addr| old.find(addr).is_none()).count();
    // An index is free again only when nothing refers to it: a backend that leaves now keeps its index until then.
    let used = old.entries.iter().filter(|e| e.generation != 0).count();
    let mut target = Block::new(old.start, old.entries.clone());
    if used + new > old.entries.len() || old.entries.is_empty() {
        let capacity = ((used + new) as u32).next_power_of_two().max(LEAST_CAPACITY);
        target.start = allocator.backends(name, capacity)?;
        target.entries.resize(capacity as usize, BackendEntry::default());
    }
    let mut free =
        (0..target.entries.len()).filter(|n| old.entries.get(*n).is_none_or(|e| e.generation == 0));
    let mut keep = vec![false; target.entries.len()];
    let (vip, port) = (wanted.listen.address.into(), wanted.listen.ports.first().to_be());
    for (addr, backend) in &wanted.backends {
        let hop = observed.next_hops.get(&addr.ip());
        let bits = permissions(wanted, backend, observed);
        let (index, was) = match old.find(addr) {
            Some(index) => (index, old.entries[index]),
            None => {
                let row = allocator.row(name)?;
                plan.steps.push(Step::ZeroCounters { service: name.clone(), row });
                let entry = BackendEntry {
                    addr: addr.ip().into(),
                    port: addr.port().to_be(),
                    generation: allocator.generation(),
                    counters: row,
                    ..BackendEntry::default()
                };
                // There are as many free ones as new ones: the block was made so.
                let Some(index) = free.next() else { continue };
                (index, entry)
            }
        };
        keep[index] = true;
        let flags = bits | was.flags & backend::flags::RESOLVED;
        let correction = match wanted.mode {
            Mode::Nat => Correction::new((vip, port), (was.addr, was.port)),
            _ => Correction::default(),
        };
        target.entries[index] = with_next_hop(BackendEntry { flags, correction, ..was }, hop);
    }
    for (entry, keep) in target.entries.iter_mut().zip(keep) {
        if !keep {
            *entry = BackendEntry::default();
        }
    }
    Ok(target)
}

/// The entry with its next hop. One that is not known at the moment does not take away one that was: a neighbour
/// entry that expires says nothing about where the backend is.
fn with_next_hop(entry: BackendEntry, hop: Option<&NextHop>) -> BackendEntry {
    match hop {
        Some(hop) => BackendEntry {
            macs: hop.macs,
            ifindex: hop.ifindex,
            mtu: hop.mtu,
            flags: entry.flags | backend::flags::RESOLVED,
            ..entry
        },
        None => entry,
    }
}

fn why(was: &BackendEntry, is: &BackendEntry) -> Why {
    if was.generation != is.generation {
        Why::Added
    } else if (was.flags ^ is.flags) & !backend::flags::RESOLVED == 0 {
        Why::NextHop
    } else if is.selectable() {
        Why::Up
    } else if is.reachable() {
        Why::Draining
    } else {
        Why::Down
    }
}

/// Writes an entry of `block`; `named` is the one that still tells whose it is.
fn backend_step(
    service: &str,
    why: Why,
    block: &Block,
    n: usize,
    entry: BackendEntry,
    named: &BackendEntry,
) -> Step {
    let address = SocketAddr::new(named.addr.into(), u16::from_be(named.port));
    Step::Backend { service: service.into(), why, address, index: block.start + n as u32, entry }
}

/// Gives slots to whom they should belong to.
fn slot_steps(
    plan: &mut Plan,
    wanted: &Service,
    entry: &ServiceEntry,
    new: bool,
    (old, target): (&Block, &Block),
    tables: &Tables,
    (rings, used): (&mut RingCache, &dyn Fn(u32) -> bool),
) {
    let selectable = |b: &&Backend| target.find(&b.address).is_some_and(|n| target.entries[n].selectable());
    let nodes = wanted.backends.values().filter(selectable).map(|b| (b.address, b.weight)).collect();
    let (ring, fresh) = rings.get(wanted, entry.seed, nodes);
    let lost = old.entries.iter().zip(&target.entries).any(|(was, is)| was.reachable() && !is.reachable());
    if !(new || fresh || lost) {
        return;
    }
    let indexes: Vec<u16> =
        ring.nodes.iter().map(|(addr, _)| target.find(addr).map_or(maglev::NONE, |n| n as u16)).collect();
    // Asked at most once for each backend: counters cost a system call.
    let holds: Vec<OnceCell<bool>> = vec![OnceCell::new(); target.entries.len()];
    let may_hold_flows = |n: u16| {
        let known = target.entries.get(n as usize).zip(holds.get(n as usize));
        known.is_some_and(|(backend, holds)| {
            backend.reachable() && *holds.get_or_init(|| used(backend.counters))
        })
    };
    let held = if new { Vec::new() } else { tables.rings.read(entry.ring, entry.slots) };
    let mut words = Vec::new();
    let mut moved = 0;
    for (index, position) in (0..entry.slots).zip(&ring.slots) {
        let next = indexes.get(*position as usize).copied().unwrap_or(maglev::NONE);
        if new {
            words.push((index, Slot::settled_on(next).0));
            continue;
        }
        let was = Slot(held.get(index as usize).copied().unwrap_or(Slot::EMPTY.0));
        let is = was.give_to(next, may_hold_flows);
        if is != was {
            moved += u32::from(is.current() != was.current());
            words.push((index, is.0));
        }
    }
    if new {
        moved = entry.slots;
    }
    if !words.is_empty() {
        plan.moves.insert(wanted.name.clone(), Moves { moved, slots: entry.slots });
        let (service, ring, slots) = (wanted.name.clone(), entry.ring, entry.slots);
        plan.steps.push(Step::Slots { service, ring, words, moved, slots });
    }
}

/// Writes the way back of NAT backends.
fn reverse_steps(
    plan: &mut Plan,
    wanted: &Service,
    entry: &ServiceEntry,
    target: &Block,
    tables: &Tables,
    allocator: &mut Allocator<'_>,
) {
    if wanted.mode != Mode::Nat {
        return;
    }
    for backend in target.entries.iter().filter(|e| e.generation != 0) {
        let key = way(entry, backend);
        let [first, _] = entry.ports;
        let (port, here) = match key.is_wide() {
            true if backend.port == 0 => (first, first),
            true => (first, backend.port),
            false => (entry.key.port(), backend.port),
        };
        let reverse = ReverseEntry {
            key,
            service: entry.id,
            counters: backend.counters,
            vip: entry.key.addr,
            port,
            sum: key.sum(),
            correction: Correction::new((backend.addr, here), (entry.key.addr, port)),
            first: if key.is_wide() { here } else { 0 },
            pad: 0,
            reserved: [0; 2],
        };
        if found(tables, &reverse.key) != Some(reverse) {
            allocator.ways.insert(reverse.key);
            plan.steps.push(Step::Reverse { service: wanted.name.clone(), entry: reverse });
        }
    }
}

/// Takes out the way back of backends, unless another service of this plan has taken it over.
fn remove_reverse(
    plan: &mut Plan,
    name: Option<&String>,
    id: u32,
    keys: &[Key],
    tables: &Tables,
    allocator: &Allocator<'_>,
) {
    for key in keys {
        if !allocator.ways.contains(key) && found(tables, key).is_some_and(|e| e.service == id) {
            plan.steps.push(Step::RemoveReverse { service: name.cloned(), key: *key });
        }
    }
}

/// Plans the end of a service.
pub(super) fn remove(
    plan: &mut Plan,
    name: Option<String>,
    entry: &ServiceEntry,
    tables: &Tables,
    allocator: &Allocator<'_>,
) {
    let block = Block::read(tables, entry.backends, entry.capacity);
    plan.steps.push(Step::RemoveService { service: name.clone(), key: entry.key });
    let used = || block.entries.iter().enumerate().filter(|(_, e)| e.generation != 0);
    let keys: Vec<Key> = ways(entry, &block.entries).collect();
    remove_reverse(plan, name.as_ref(), entry.id, &keys, tables, allocator);
    for (n, was) in used() {
        let service = name.clone().unwrap_or_default();
        plan.steps.push(backend_step(&service, Why::Removed, &block, n, BackendEntry::default(), was));
    }
    plan.steps.push(Step::ForgetFlows { service: name, id: entry.id });
}
