//! Which backend a packet goes to: the ring, and the few flows that disagree with it.
//!
//! | packet on a slot | entry found | no entry |
//! | --- | --- | --- |
//! | slot not tracked | (not looked up) | current |
//! | tracked, TCP SYN | its backend takes new flows: keep (a retransmission); else current | current, remembered as embryonic if it is not `previous` |
//! | tracked, anything else | its backend, if reachable and still the same; else current | embryonic: that backend, promoted; else `previous` if reachable, else current; remembered |
//!
//! "Remembered" happens only where the flow would otherwise break the invariant of [`crate::slot`]: on settled slots,
//! nothing is ever inserted (unless the service asks for an entry for every flow).

use crate::abi::flow::REFRESH_NS;
use crate::abi::service::flags::{TRACK_ALWAYS, TRACK_NEVER};
use crate::abi::{BackendEntry, FlowKey, FlowValue, ServiceEntry, ring};
use crate::hash;
use crate::packet::Packet;
use crate::pipeline::Tables;
use crate::slot::Slot;

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
}

impl How {
    /// The name that people and scripts see; stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Flow => "flow-table",
            Self::Embryonic => "embryonic",
            Self::Previous => "previous",
        }
    }

    /// The value with this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Ring),
            1 => Some(Self::Flow),
            2 => Some(Self::Embryonic),
            3 => Some(Self::Previous),
            _ => None,
        }
    }
}

/// A backend, and how it was found.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The backend: reachable.
    pub backend: &'a BackendEntry,
    /// Whether the flow is counted as new.
    pub new: bool,
}

/// Chooses a backend for a packet of a service. `None`: nobody can take it.
#[inline(always)]
pub fn select<'a, T: Tables>(tables: &'a T, service: &ServiceEntry, packet: &Packet) -> Option<Choice<'a>> {
    let index = hash::slot(hash::flow(&packet.src, packet.ports(), service.seed), service.slots);
    let line = tables.ring_line(service.ring.wrapping_add(index / ring::SLOTS_PER_LINE))?;
    let slot = Slot(line.slots[(index % ring::SLOTS_PER_LINE) as usize]);
    tables.note(|report| {
        report.slot = index;
        report.word = slot.0;
    });
    let opens = packet.opens();
    let always = service.flags & TRACK_ALWAYS != 0;
    if service.flags & TRACK_NEVER != 0 || !(slot.tracked() || always) {
        let backend = current(tables, service, slot)?;
        tables.note(|report| report.how = How::Ring as u32);
        return Some(Choice { backend, new: opens });
    }
    tracked(tables, service, packet, slot, Memory { opens, always })
}

/// What the slow path needs to know beyond the slot.
#[derive(Clone, Copy)]
struct Memory {
    opens: bool,
    always: bool,
}

/// Chooses on a slot whose flows may have entries.
#[inline(always)]
fn tracked<'a, T: Tables>(
    tables: &'a T,
    service: &ServiceEntry,
    packet: &Packet,
    slot: Slot,
    memory: Memory,
) -> Option<Choice<'a>> {
    let key = FlowKey { client: packet.src, ports: [packet.src_port, packet.dst_port], service: service.id };
    let now = tables.now();
    if memory.opens {
        return opening(tables, service, slot, memory, &key, now);
    }
    if let Some(entry) = tables.flow(&key) {
        if let Some(backend) = same(tables, service, &entry, BackendEntry::reachable) {
            if now.wrapping_sub(entry.seen) > REFRESH_NS {
                tables.touch_flow(&key, now);
            }
            return chosen(tables, backend, How::Flow, false);
        }
        let backend = current(tables, service, slot)?;
        if slot.settled() && !memory.always {
            tables.drop_flow(&key);
        } else {
            tables.set_flow(&key, &value(slot.current(), backend, now));
        }
        return chosen(tables, backend, How::Ring, false);
    }
    if let Some(entry) = tables.embryo(&key) {
        tables.drop_embryo(&key);
        if let Some(backend) = same(tables, service, &entry, BackendEntry::reachable) {
            tables.set_flow(&key, &FlowValue { seen: now, ..entry });
            return chosen(tables, backend, How::Embryonic, false);
        }
    }
    let (index, backend, how) = match entry(tables, service, slot.previous()).filter(|b| b.reachable()) {
        Some(backend) => (slot.previous(), backend, How::Previous),
        None => (slot.current(), current(tables, service, slot)?, How::Ring),
    };
    if !slot.settled() || memory.always {
        tables.set_flow(&key, &value(index, backend, now));
    }
    // A datagram without an entry is the first that is seen of its flow; a segment's flow was counted by its SYN.
    chosen(tables, backend, how, packet.protocol == crate::addr::UDP)
}

/// Chooses for a TCP SYN on a tracked slot.
#[inline(always)]
fn opening<'a, T: Tables>(
    tables: &'a T,
    service: &ServiceEntry,
    slot: Slot,
    memory: Memory,
    key: &FlowKey,
    now: u64,
) -> Option<Choice<'a>> {
    let flow = tables.flow(key);
    if let Some(backend) = flow.and_then(|e| same(tables, service, &e, BackendEntry::selectable)) {
        return chosen(tables, backend, How::Flow, true);
    }
    let embryo = tables.embryo(key);
    if flow.is_none()
        && let Some(backend) = embryo.and_then(|e| same(tables, service, &e, BackendEntry::selectable))
    {
        return chosen(tables, backend, How::Embryonic, true);
    }
    // The tuple begins anew: what an earlier connection left would lead its later packets astray.
    if flow.is_some() {
        tables.drop_flow(key);
    }
    let backend = current(tables, service, slot)?;
    if !slot.settled() || memory.always {
        tables.set_embryo(key, &value(slot.current(), backend, now));
    } else if embryo.is_some() {
        tables.drop_embryo(key);
    }
    chosen(tables, backend, How::Ring, true)
}

#[inline(always)]
fn chosen<'a, T: Tables>(
    tables: &'a T,
    backend: &'a BackendEntry,
    how: How,
    new: bool,
) -> Option<Choice<'a>> {
    tables.note(|report| report.how = how as u32);
    Some(Choice { backend, new })
}

#[inline(always)]
fn value(index: u16, backend: &BackendEntry, now: u64) -> FlowValue {
    FlowValue { backend: index as u32, generation: backend.generation, made: now, seen: now }
}

/// The backend of an index, noted for the report.
#[inline(always)]
fn entry<'a, T: Tables>(tables: &'a T, service: &ServiceEntry, index: u16) -> Option<&'a BackendEntry> {
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

/// The backend of a table entry, if it is still the same one and `fit`.
#[inline(always)]
fn same<'a, T: Tables>(
    tables: &'a T,
    service: &ServiceEntry,
    value: &FlowValue,
    fit: impl Fn(&BackendEntry) -> bool,
) -> Option<&'a BackendEntry> {
    // An index beyond 16 bits cannot have been written by us; NONE is beyond every capacity.
    let index = if value.backend < crate::slot::NONE as u32 { value.backend as u16 } else { return None };
    entry(tables, service, index).filter(|b| b.generation == value.generation && fit(b))
}
