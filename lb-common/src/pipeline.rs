//! A packet's life, in order: parse, find the service, choose a backend, rewrite, count.
//!
//! What is not ours is passed, always, and nothing is dropped before its service is known.

use crate::abi::service::flags::{ENCAPSULATES, NAT};
use crate::abi::{
    BackendEntry, Filter, FlowKey, FlowValue, FragmentKey, FragmentValue, Hand, Key, NeighbourEntry, Report,
    ReverseEntry, RingLine, RouteEntry, ServiceEntry, Settings, VipEntry, limits, route,
};
use crate::addr::{Addr, Family, UDP};
use crate::l2::Macs;
use crate::nat::{self, End, New, Sum};
use crate::packet::{Frame, Packet, Parsed, eth, ipv4, ipv6};
use crate::reason::{Fate, Reason};
use crate::slot::NONE;
use crate::stage::Stage;
use crate::{checksum, fragment, l2, select, table, wide, wrap};
use core::hint::black_box;

/// What the decision needs from its surroundings: the maps, a clock, the kernel's routing table, counters.
///
/// In the kernel these are array reads and helpers, on the host a few vectors. Reads return references into tables
/// that the agent may change at any moment, one word at a time.
pub trait Tables {
    /// `SERVICES` at a place, empty or not.
    fn service(&self, place: u32) -> Option<&ServiceEntry>;
    /// Size of `SERVICES` minus one.
    fn service_mask(&self) -> u32;
    /// A line of `RINGS`.
    fn ring_line(&self, line: u32) -> Option<&RingLine>;
    /// An entry of `BACKENDS`.
    fn backend(&self, index: u32) -> Option<&BackendEntry>;
    /// `REVERSE` at a place, empty or not.
    fn reverse(&self, place: u32) -> Option<&ReverseEntry>;
    /// Size of `REVERSE` minus one.
    fn reverse_mask(&self) -> u32;
    /// Whose range in `RANGES` holds a key's port, see [`crate::wide::look`].
    fn range(&self, key: &Key) -> Option<u16>;
    /// The entry of `FILTER`.
    fn filter(&self) -> Option<&Filter>;
    /// An entry of `ROUTES`.
    fn route(&self, index: u32) -> Option<&RouteEntry>;
    /// `NEIGHBOURS` at a place, empty or not.
    fn neighbour(&self, place: u32) -> Option<&NeighbourEntry>;
    /// Size of `NEIGHBOURS` minus one.
    fn neighbour_mask(&self) -> u32;
    /// `VIPS` at a place, empty or not.
    fn vip(&self, place: u32) -> Option<&VipEntry>;
    /// Size of `VIPS` minus one.
    fn vip_mask(&self) -> u32;
    /// The entry of `SETTINGS`.
    fn settings(&self) -> Option<&Settings>;

    /// Looks in `FLOWS`.
    fn flow(&self, key: &FlowKey) -> Option<FlowValue>;
    /// Writes to `FLOWS`.
    fn set_flow(&self, key: &FlowKey, value: &FlowValue);
    /// Notes that an entry of `FLOWS` was used.
    fn touch_flow(&self, key: &FlowKey, now: u64);
    /// Removes from `FLOWS`.
    fn drop_flow(&self, key: &FlowKey);
    /// Looks in `EMBRYONIC`.
    fn embryo(&self, key: &FlowKey) -> Option<FlowValue>;
    /// Writes to `EMBRYONIC`.
    fn set_embryo(&self, key: &FlowKey, value: &FlowValue);
    /// Removes from `EMBRYONIC`.
    fn drop_embryo(&self, key: &FlowKey);
    /// Looks in `FRAGMENTS`.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue>;
    /// Writes to `FRAGMENTS`.
    fn set_fragment(&self, key: &FragmentKey, value: &FragmentValue);
    /// Removes from `FRAGMENTS`.
    fn drop_fragment(&self, key: &FragmentKey);

    /// Nanoseconds of the monotonic clock, at most [`crate::abi::flow::CLOCK_LAG_NS`] late.
    fn now(&self) -> u64;
    /// The interface that the packet came in through.
    fn ingress(&self) -> u32;
    /// Whether somebody after us finishes checksums: the program runs on socket buffers, not in the driver.
    fn checksums_finished_later(&self) -> bool;
    /// Asks the kernel for the way from `src` to `dst`, both of `family`, and on [`Reason::NoNeighbour`] the agent to resolve it.
    fn ask_kernel(&self, family: Family, src: &Addr, dst: &Addr) -> Result<Hop, Reason>;
    /// Prepares to send out of an interface; `false` if it is not known.
    fn send(&self, ifindex: u32) -> bool;

    /// Whether one more answer may be sent now, see [`crate::icmp::limit`].
    fn may_answer(&self) -> bool;

    /// Counts why a packet left that no backend was counted for. Service 0 is no service.
    fn count(&self, service: u32, reason: Reason);
    /// Counts a packet towards a backend.
    fn count_towards(&self, row: u32, bytes: u64, new: bool);
    /// Counts a packet back from a backend.
    fn count_back(&self, row: u32, bytes: u64);
    /// What a program leaves for the one that goes on. `None`: there is no place for it.
    fn hand<R>(&self, with: impl FnOnce(&mut Hand) -> R) -> Option<R>;
    /// Goes on in another program. Comes back only where there is none.
    fn go_on(&self, stage: Stage);
    /// Whether another program goes on: only where programs are functions, on the host.
    #[inline(always)]
    fn went_on(&self) -> bool {
        false
    }
    /// Tells the explaining program what was found. Costs nothing elsewhere.
    #[inline(always)]
    fn note(&self, _: impl FnOnce(&mut Report)) {}
}

/// The next station of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Destination and source MAC address.
    pub macs: Macs,
    /// Interface that it leaves through.
    pub ifindex: u32,
}

/// What was decided about a packet. Where it lies on the stack LLVM writes two fields at once, and the verifier wants such a
/// word in its place: so the two that are written together come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Verdict {
    /// The service it belongs to, 0 for none.
    pub service: u32,
    /// Where it leaves, if it is forwarded.
    pub egress: u32,
    /// Why.
    pub reason: Reason,
}

impl Verdict {
    #[inline(always)]
    pub(crate) const fn stop(service: u32, reason: Reason) -> Self {
        Self { reason, service, egress: 0 }
    }
}

/// Decides, rewrites, and counts: the program that is attached. What it leaves to others, see [`Stage`].
#[inline(always)]
pub fn run<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let verdict = decide(frame, tables);
    finish(tables, verdict)
}

/// Counts, unless another program goes on: the only exit of every program.
#[inline(always)]
pub(crate) fn finish<T: Tables>(tables: &T, verdict: Verdict) -> Verdict {
    if tables.went_on() {
        return verdict;
    }
    tables.note(|report| {
        report.reason = verdict.reason as u32;
        report.service = verdict.service;
        if matches!(verdict.reason.fate(), Fate::Forward | Fate::Answer) {
            report.egress = verdict.egress;
        }
    });
    // What is forwarded or returned was counted for its backend, whose service it is for.
    if !verdict.reason.counted_by_backends() {
        tables.count(verdict.service, verdict.reason);
    }
    verdict
}

#[inline(always)]
fn decide<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    // Each family goes its own way from here, so that the compiler knows which words of an address are constants.
    let Some(ethertype) = eth::ethertype(frame) else { return Verdict::stop(0, Reason::Truncated) };
    // One by one, and the others out of sight: of a `match` the compiler makes a search, in which these come last.
    if ethertype == eth::IPV4 {
        return usual(frame, tables, ipv4::parse(frame));
    }
    if ethertype == eth::IPV6 {
        return usual(frame, tables, ipv6::parse(frame));
    }
    detour(tables, eth::reason(black_box(ethertype)))
}

#[inline(always)]
fn usual<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T, parsed: Parsed) -> Verdict {
    match parsed {
        Parsed::NotOurs(reason) => detour(tables, reason),
        parsed => flow(frame, tables, parsed),
    }
}

/// Not looked at here, perhaps by the program for what seldom comes.
#[inline(always)]
fn detour<T: Tables>(tables: &T, reason: Reason) -> Verdict {
    if reason.detours() {
        tables.go_on(Stage::Detour);
    }
    Verdict::stop(0, reason)
}

#[inline(always)]
pub(crate) fn flow<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T, parsed: Parsed) -> Verdict {
    let packet = match parsed {
        Parsed::Flow(packet) => packet,
        Parsed::NotOurs(reason) | Parsed::Malformed(reason) => return Verdict::stop(0, reason),
    };
    if let Some(service) = find_service(tables, &packet) {
        return towards::<false, _, _>(frame, tables, packet, service);
    }
    if let Some(entry) = find_reverse(tables, &packet) {
        return back::<false, _, _>(frame, tables, packet, entry);
    }
    // Ranges are looked at elsewhere.
    if wide::may_be_wide(tables, &packet) {
        tables.go_on(Stage::Wide);
    }
    Verdict::stop(0, Reason::NotAService)
}

#[inline(always)]
pub(crate) fn find_service<'a, T: Tables>(tables: &'a T, packet: &Packet) -> Option<&'a ServiceEntry> {
    service_of(tables, &packet.destination())
}

#[inline(always)]
pub(crate) fn find_reverse<'a, T: Tables>(tables: &'a T, packet: &Packet) -> Option<&'a ReverseEntry> {
    let key = packet.source();
    let hash = table::hash(&key);
    if !tables.filter()?.may_hold(hash) {
        return None;
    }
    reverse_of(tables, &key, hash)
}

/// The service of a key.
#[inline(always)]
pub(crate) fn service_of<'a, T: Tables>(tables: &'a T, key: &Key) -> Option<&'a ServiceEntry> {
    let hash = table::hash(key);
    table::look((key, hash), tables.service_mask(), |place| tables.service(place), |entry| &entry.key)
}

/// The way back of a key whose hash is known.
#[inline(always)]
pub(crate) fn reverse_of<'a, T: Tables>(tables: &'a T, key: &Key, hash: u64) -> Option<&'a ReverseEntry> {
    table::look((key, hash), tables.reverse_mask(), |place| tables.reverse(place), |entry| &entry.key)
}

/// A packet for a service: towards one of its backends. `WIDE`: the service may listen on a range of ports.
#[inline(always)]
pub(crate) fn towards<const WIDE: bool, F: Frame + ?Sized, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: Packet,
    service: &ServiceEntry,
) -> Verdict {
    if packet.part.overlaps {
        return Verdict::stop(service.id, Reason::FragmentOverlap);
    }
    let choice = if packet.part.is_later() {
        fragment::followed(tables, service, &packet.part)
    } else {
        select::select(tables, service, &packet)
    };
    let Some(choice) = choice else {
        return Verdict::stop(service.id, Reason::NoBackend);
    };
    let backend = choice.backend;
    tables.note(|report| report.counters = backend.counters);
    if !backend.resolved() {
        return Verdict::stop(service.id, Reason::NoNextHop);
    }
    if !tables.send(backend.ifindex) {
        return Verdict::stop(service.id, Reason::NoDevice);
    }
    let bytes = frame.bytes();
    let settled = settle_checksum(frame, tables, &packet, service.sum, &packet.src);
    if settled.too_long {
        return Verdict::stop(service.id, Reason::Unfinished);
    }
    let Settled { sum, checksum, .. } = settled;
    if packet.part.is_first() {
        fragment::remember(tables, &packet, choice.index, backend.generation);
    }
    let rewritten = if service.flags & NAT != 0 {
        let (mut port, mut correction) = (backend.port, backend.correction);
        if WIDE && service.key.is_wide() {
            (port, correction) = wide::shifted(packet.dst_port, service.ports[0], port, correction);
        }
        let new = New { addr: &backend.addr, port, correction };
        nat::rewrite(frame, &packet, End::Destination, new, sum, checksum)
    } else {
        let written = if checksum != packet.checksum {
            nat::write_checksum(frame, &packet, checksum)
        } else {
            Some(())
        };
        if service.flags & ENCAPSULATES != 0 {
            return wrap::here(frame, tables, &packet, service, &choice);
        }
        written
    };
    // The views below were all checked while parsing; a `None` cannot happen and must not be invented.
    if rewritten.and_then(|()| l2::redirect(frame, Macs::from(&backend.macs))).is_none() {
        return Verdict::stop(service.id, Reason::Truncated);
    }
    tables.count_towards(backend.counters, bytes, choice.new);
    Verdict { reason: Reason::Forwarded, service: service.id, egress: backend.ifindex }
}

/// A NAT backend's reply: back to its client, in the service's name.
#[inline(always)]
pub(crate) fn back<const WIDE: bool, F: Frame + ?Sized, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: Packet,
    entry: &ReverseEntry,
) -> Verdict {
    if packet.part.overlaps {
        return Verdict::stop(entry.service, Reason::FragmentOverlap);
    }
    tables.note(|report| report.counters = entry.counters);
    let hop = match way_back(tables, &entry.vip, &packet) {
        Ok(hop) => hop,
        Err(reason) => return Verdict::stop(entry.service, reason),
    };
    if !tables.send(hop.ifindex) {
        return Verdict::stop(entry.service, Reason::NoDevice);
    }
    let bytes = frame.bytes();
    let settled = settle_checksum(frame, tables, &packet, entry.sum, &packet.dst);
    if settled.too_long {
        return Verdict::stop(entry.service, Reason::Unfinished);
    }
    let Settled { sum, checksum, .. } = settled;
    let (mut port, mut correction) = (entry.port, entry.correction);
    if WIDE && entry.key.is_wide() {
        (port, correction) = wide::shifted(packet.src_port, entry.first, port, correction);
    }
    let new = New { addr: &entry.vip, port, correction };
    let rewritten = nat::rewrite(frame, &packet, End::Source, new, sum, checksum);
    if rewritten.and_then(|()| l2::redirect(frame, hop.macs)).is_none() {
        return Verdict::stop(entry.service, Reason::Truncated);
    }
    if packet.part.is_first() {
        fragment::remember(tables, &packet, NONE, 0);
    }
    tables.count_back(entry.counters, bytes);
    Verdict { reason: Reason::Returned, service: entry.service, egress: hop.ifindex }
}

/// What the transport checksum is. Every field is always set: the compiler may keep what is not in a register that the
/// verifier knows nothing of.
#[derive(Clone, Copy)]
struct Settled {
    /// The packet is too long to finish its checksum, and nobody else will.
    too_long: bool,
    sum: Sum,
    checksum: u16,
}

/// Finds out what the transport checksum is. `known` and `other`: see [`nat::looks_unfinished`].
#[inline(always)]
fn settle_checksum<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    packet: &Packet,
    known: u16,
    other: &Addr,
) -> Settled {
    let as_it_is = |sum| Settled { too_long: false, sum, checksum: packet.checksum };
    // Over IPv4 only: RFC 8200, section 8.1, forbids it in IPv6.
    if packet.checksum == 0 && packet.protocol == UDP && packet.family == Family::V4 {
        return as_it_is(Sum::Absent);
    }
    // Who fragments a datagram has summed it, and nobody could here: the rest of it is in other packets.
    if !packet.part.is_whole() || !nat::looks_unfinished(packet, known, other) {
        return as_it_is(Sum::Complete);
    }
    // On socket buffers the sender's mark is still there, and whoever finishes the checksum adds to what the field
    // holds. A checksum that is complete and equal by chance is told apart by its sum.
    let later = tables.checksums_finished_later();
    let Some(sum) = frame.sum(packet.transport, packet.length as usize) else {
        return Settled { too_long: !later, ..as_it_is(Sum::Partial) };
    };
    let sum = checksum::fold(sum);
    if nat::is_complete(packet, sum) {
        as_it_is(Sum::Complete)
    } else if later {
        as_it_is(Sum::Partial)
    } else {
        Settled { too_long: false, sum: Sum::Complete, checksum: nat::finished(packet.protocol, sum) }
    }
}

/// The way to a client: compiled routes first, the kernel's own look-up (about 90 ns) where they do not answer.
#[inline(always)]
pub(crate) fn way_back<T: Tables>(tables: &T, src: &Addr, packet: &Packet) -> Result<Hop, Reason> {
    let generation = tables.settings().map_or(0, |settings| settings.routes & 1);
    let (dst, family) = (&packet.dst, packet.family);
    let first = (generation * 2 + family as u32) * limits::ROUTES_PER_FAMILY;
    for n in 0..limits::ROUTES_PER_FAMILY {
        let Some(entry) = tables.route(first + n) else { break };
        if entry.kind == route::kind::END {
            break;
        }
        if !covers(entry, family, dst) {
            continue;
        }
        match entry.kind {
            route::kind::GATEWAY => return Ok(Hop { macs: Macs::from(&entry.macs), ifindex: entry.ifindex }),
            route::kind::ON_LINK => {
                if let Some(hop) = on_link(tables, dst, entry.ifindex) {
                    return if hop.macs.is_empty() { Err(Reason::ToThisMachine) } else { Ok(hop) };
                }
            }
            _ => {}
        }
        break;
    }
    tables.ask_kernel(family, src, dst)
}

#[inline(always)]
fn covers(route: &RouteEntry, family: Family, addr: &Addr) -> bool {
    if family == Family::V4 {
        return addr.last() & route.mask.last() == route.prefix.last();
    }
    let ([a, b], [c, d], [e, f]) = (addr.halves(), route.mask.halves(), route.prefix.halves());
    ((a & c) ^ e) | ((b & d) ^ f) == 0
}

#[inline(always)]
fn on_link<T: Tables>(tables: &T, addr: &Addr, ifindex: u32) -> Option<Hop> {
    let key = Key::neighbour(*addr, ifindex)?;
    table::look(
        (&key, table::hash(&key)),
        tables.neighbour_mask(),
        |place| tables.neighbour(place),
        |entry| &entry.key,
    )
    .map(|n| Hop { macs: Macs::from(&n.macs), ifindex })
}
