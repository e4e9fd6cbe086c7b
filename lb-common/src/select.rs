//! Which backend a packet goes to: the ring, and the few flows that disagree with it.
//!
//! | packet on a slot | entry found | no entry |
//! | --- | --- | --- |
//! | slot not tracked | (not looked up) | current |
//! | tracked, TCP SYN | its backend takes new flows: keep (a retransmission); else current | current, remembered as embryonic if it is not `previous` |
//! | tracked, anything else | its backend, if reachable and still the same; else current | embryonic: that backend, promoted; else `previous` if reachable, else current; remembered |
//!
//! A FIN or RST on a tracked slot marks the flow's entry closing, data or a new SYN unmarks it: see
//! [`crate::abi::flow::CLOSING`]. Marked or not, it is used alike.
//!
//! "Remembered" happens only where the flow would otherwise break the invariant of [`crate::slot`]: on settled slots,
//! nothing is ever inserted (unless the service asks for an entry for every flow).

use crate::abi::flow::REFRESH_NS;
use crate::abi::service::flags::{TRACK_ALWAYS, TRACK_NEVER};
use crate::abi::{BackendEntry, FlowKey, FlowValue, ServiceEntry, ring};
use crate::hash;
use crate::packet::Packet;
use crate::pipeline::Tables;
use crate::slot::{NONE, Slot};

/// How a backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum How {
    /// By the ring.
    Ring = 0,
    /// By the flow's entry.
    Flow = 1,
    /// By the entry that its first packet left.
    Embryonic = 2,
    /// By what the ring said before it changed.
    Previous = 3,
    /// As the first fragment of its datagram.
    Fragment = 4,
}

impl How {
    /// The name that people and scripts see; stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Flow => "flow-table",
            Self::Embryonic => "embryonic",
            Self::Previous => "previous",
            Self::Fragment => "fragment",
        }
    }

    /// The value with this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Ring),
            1 => Some(Self::Flow),
            2 => Some(Self::Embryonic),
            3 => Some(Self::Previous),
            4 => Some(Self::Fragment),
            _ => None,
        }
    }
}

/// A backend, and how it was found.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The backend: reachable.
    pub backend: &'a BackendEntry,
    /// Its index in the service.
    pub index: u16,
    /// Whether the flow is counted as new.
    pub new: bool,
}

/// Chooses a backend for a packet of a service. `None`: nobody can take it.
#[inline(always)]
pub fn select<'a, T: Tables>(tables: &'a T, service: &ServiceEntry, packet: &Packet) -> Option<Choice<'a>> {
    let slot = slot(tables, service, packet)?;
    let mut pick = Pick { index: slot.current(), new: packet.opens() };
    let exceptions = slot.tracked() || service.flags & TRACK_ALWAYS != 0;
    if exceptions && service.flags & TRACK_NEVER == 0 {
        let key = key(service, packet);
        pick = Pick::unpack(tracked(tables, service, &key, slot.0, Stage::of(packet)));
    } else {
        tables.note(|report| report.how = How::Ring as u32);
    }
    let backend = entry(tables, service, pick.index).filter(|b| b.reachable())?;
    Some(Choice { backend, index: pick.index, new: pick.new })
}

/// The slot that a packet falls on.
#[inline(always)]
fn slot<T: Tables>(tables: &T, service: &ServiceEntry, packet: &Packet) -> Option<Slot> {
    let place = hash::slot(packet.hash(service.seed), service.slots);
    let line = tables.ring_line(service.ring.wrapping_add(place / ring::SLOTS_PER_LINE))?;
    let slot = Slot(line.slots[(place % ring::SLOTS_PER_LINE) as usize]);
    tables.note(|report| {
        report.slot = place;
        report.word = slot.0;
    });
    Some(slot)
}

/// What the flow of a packet is remembered by.
#[inline(always)]
const fn key(service: &ServiceEntry, packet: &Packet) -> FlowKey {
    FlowKey { client: packet.src, ports: [packet.src_port, packet.dst_port], service: service.id }
}

/// The backend that the flow of a packet is on: what [`select`] says of one that does not open it, without a trace.
#[inline(always)]
pub(crate) fn peek<'a, T: Tables>(
    tables: &'a T,
    service: &ServiceEntry,
    packet: &Packet,
) -> Option<&'a BackendEntry> {
    let slot = slot(tables, service, packet)?;
    let mut pick = slot.current();
    let exceptions = slot.tracked() || service.flags & TRACK_ALWAYS != 0;
    if exceptions && service.flags & TRACK_NEVER == 0 {
        pick = seen(tables, service, &key(service, packet), slot.0) as u16;
    } else {
        tables.note(|report| report.how = How::Ring as u32);
    }
    entry(tables, service, pick).filter(|b| b.reachable())
}

/// As [`tracked`], without a trace: an index. Never inlined, as that one.
#[inline(never)]
fn seen<T: Tables>(tables: &T, service: &ServiceEntry, key: &FlowKey, slot: u32) -> u32 {
    let slot = Slot(slot);
    let fits = |entry: &FlowValue| same(tables, service, entry, BackendEntry::reachable);
    let (index, how) = if let Some(found) = tables.flow(key) {
        if fits(&found) { (found.index() as u16, How::Flow) } else { (slot.current(), How::Ring) }
    } else if let Some(found) = tables.embryo(key).filter(fits) {
        (found.index() as u16, How::Embryonic)
    } else if entry(tables, service, slot.previous()).is_some_and(BackendEntry::reachable) {
        (slot.previous(), How::Previous)
    } else {
        (slot.current(), How::Ring)
    };
    chosen(tables, index, how, false).index as u32
}

/// A backend by its index, [`NONE`] for none.
#[derive(Clone, Copy)]
struct Pick {
    index: u16,
    new: bool,
}

impl Pick {
    /// As one word: what a function of the kernel's machine can return.
    #[inline(always)]
    const fn pack(self) -> u32 {
        self.index as u32 | (self.new as u32) << 16
    }

    #[inline(always)]
    const fn unpack(word: u32) -> Self {
        Self { index: word as u16, new: word >> 16 != 0 }
    }
}

/// What a packet says about where its flow is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Stage {
    /// A TCP SYN.
    Syn,
    /// Another TCP segment.
    Segment,
    /// A TCP segment with data: the flow lives, whatever came before.
    Data,
    /// A TCP FIN or RST.
    Close,
    /// A datagram.
    Datagram,
}

impl Stage {
    #[inline(always)]
    const fn of(packet: &Packet) -> Self {
        if packet.protocol == crate::addr::UDP {
            Self::Datagram
        } else if packet.opens() {
            Self::Syn
        } else if packet.closes() {
            Self::Close
        } else if packet.pushes() {
            Self::Data
        } else {
            Self::Segment
        }
    }

    /// Whether a flow is closing after this packet.
    #[inline(always)]
    const fn closing(self, before: bool) -> bool {
        match self {
            Self::Close => true,
            Self::Segment => before,
            _ => false,
        }
    }
}

/// Chooses on a slot whose flows may have entries: a [`Pick`], packed.
///
/// Never inlined: packets on other slots do not pay for the registers that this needs.
#[inline(never)]
fn tracked<T: Tables>(tables: &T, service: &ServiceEntry, key: &FlowKey, slot: u32, stage: Stage) -> u32 {
    let slot = Slot(slot);
    let now = tables.now();
    let pick = match stage {
        Stage::Syn => opens(tables, service, slot, key, now),
        _ => continues(tables, service, slot, key, now, stage),
    };
    pick.pack()
}

/// Chooses for anything but a TCP SYN.
#[inline(always)]
fn continues<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    slot: Slot,
    key: &FlowKey,
    now: u64,
    stage: Stage,
) -> Pick {
    let always = service.flags & TRACK_ALWAYS != 0;
    if let Some(entry) = tables.flow(key) {
        if same(tables, service, &entry, BackendEntry::reachable) {
            let closing = stage.closing(entry.closing());
            if closing != entry.closing() {
                tables.set_flow(key, &FlowValue { seen: now, ..entry.with_closing(closing) });
            } else if now.wrapping_sub(entry.seen) > REFRESH_NS {
                tables.touch_flow(key, now);
            }
            return chosen(tables, entry.index() as u16, How::Flow, false);
        }
        let Some(backend) = current(tables, service, slot) else { return NOBODY };
        if slot.settled() && !always {
            tables.drop_flow(key);
        } else {
            tables.set_flow(key, &value(slot.current(), backend, now).with_closing(stage.closing(false)));
        }
        return chosen(tables, slot.current(), How::Ring, false);
    }
    if let Some(entry) = tables.embryo(key) {
        tables.drop_embryo(key);
        if same(tables, service, &entry, BackendEntry::reachable) {
            tables.set_flow(key, &FlowValue { seen: now, ..entry.with_closing(stage.closing(false)) });
            return chosen(tables, entry.index() as u16, How::Embryonic, false);
        }
    }
    let previous = entry(tables, service, slot.previous()).filter(|b| b.reachable());
    let (index, backend, how) = match previous {
        Some(backend) => (slot.previous(), backend, How::Previous),
        None => {
            let Some(backend) = current(tables, service, slot) else { return NOBODY };
            (slot.current(), backend, How::Ring)
        }
    };
    if !slot.settled() || always {
        tables.set_flow(key, &value(index, backend, now).with_closing(stage.closing(false)));
    }
    // A datagram without an entry is the first that is seen of its flow; a segment's flow was counted by its SYN.
    chosen(tables, index, how, stage == Stage::Datagram)
}

/// Chooses for a TCP SYN.
#[inline(always)]
fn opens<T: Tables>(tables: &T, service: &ServiceEntry, slot: Slot, key: &FlowKey, now: u64) -> Pick {
    let flow = tables.flow(key);
    if let Some(entry) = flow
        && same(tables, service, &entry, BackendEntry::selectable)
    {
        // The tuple is used again: its entry must last as long as any.
        if entry.closing() {
            tables.set_flow(key, &FlowValue { made: now, seen: now, ..entry.with_closing(false) });
        }
        return chosen(tables, entry.index() as u16, How::Flow, true);
    }
    let embryo = tables.embryo(key);
    if flow.is_none()
        && let Some(entry) = embryo
        && same(tables, service, &entry, BackendEntry::selectable)
    {
        return chosen(tables, entry.index() as u16, How::Embryonic, true);
    }
    // The tuple begins anew: what an earlier connection left would lead its later packets astray.
    if flow.is_some() {
        tables.drop_flow(key);
    }
    let Some(backend) = current(tables, service, slot) else { return NOBODY };
    if !slot.settled() || service.flags & TRACK_ALWAYS != 0 {
        tables.set_embryo(key, &value(slot.current(), backend, now));
    } else if embryo.is_some() {
        tables.drop_embryo(key);
    }
    chosen(tables, slot.current(), How::Ring, true)
}

const NOBODY: Pick = Pick { index: NONE, new: false };

#[inline(always)]
fn chosen<T: Tables>(tables: &T, index: u16, how: How, new: bool) -> Pick {
    tables.note(|report| report.how = how as u32);
    Pick { index, new }
}

#[inline(always)]
fn value(index: u16, backend: &BackendEntry, now: u64) -> FlowValue {
    FlowValue { backend: index as u32, generation: backend.generation, made: now, seen: now }
}

/// The backend of an index, noted for the report.
#[inline(always)]
pub(crate) fn entry<'a, T: Tables>(
    tables: &'a T,
    service: &ServiceEntry,
    index: u16,
) -> Option<&'a BackendEntry> {
    if index as u32 >= service.capacity {
        return None;
    }
    let backend = tables.backend(service.backends.wrapping_add(index as u32))?;
    tables.note(|report| report.backend = index as u32);
    Some(backend)
}

/// The backend that new flows of a slot go to.
#[inline(always)]
fn current<'a, T: Tables>(tables: &'a T, service: &ServiceEntry, slot: Slot) -> Option<&'a BackendEntry> {
    entry(tables, service, slot.current()).filter(|b| b.reachable())
}

/// Whether a table entry's backend is still the same one and `fit`.
#[inline(always)]
fn same<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    value: &FlowValue,
    fit: impl Fn(&BackendEntry) -> bool,
) -> bool {
    // An index beyond 15 bits cannot have been written by us.
    value.index() < NONE as u32
        && entry(tables, service, value.index() as u16)
            .is_some_and(|b| b.generation == value.generation && fit(b))
}
