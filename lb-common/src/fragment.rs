//! Fragments of datagrams (RFC 791, section 3.2, RFC 8200, section 4.5). Only the first one has ports: it is balanced as
//! any packet, and where it went is remembered in `FRAGMENTS`, so that the others follow.
//!
//! | fragment | what happens |
//! | --- | --- |
//! | first, for or from a service | as a whole packet; its checksum is corrected, never finished: the rest of it is elsewhere |
//! | first, of nothing of ours | passed, and so are its followers |
//! | first, without a whole transport header | passed ([`Reason::FragmentTiny`]), and so are its followers |
//! | later, after its first | the same way: L2 writes MAC addresses, NAT the address too |
//! | later, over bytes of its first | dropped ([`Reason::FragmentOverlap`]) |
//! | later, before its first | passed ([`Reason::Fragment`]) |
//!
//! The last row is a choice. Nothing in such a fragment tells whether it is ours, so it must not be dropped: its first one
//! may be on its way to this machine itself. Nor can it be sent: a hash over what it has, the addresses, would need first
//! fragments to go by that hash too, and then a client's large datagrams went to another backend than its small ones.
//! What is late for its backend is lost either way; order is what hosts send and what queues keep, which spread fragments
//! by addresses.
//!
//! Two backends may send a client fragments of the same identification at once. In the service's name they are one
//! datagram, whose checksum is wrong: as with any translation of addresses, the later one is lost.

use crate::abi::{FragmentKey, FragmentValue, ServiceEntry};
use crate::addr::{Family, TCP, UDP};
use crate::packet::locate::{self, Located};
use crate::packet::part::{Kind, Part};
use crate::packet::tags::Untagged;
use crate::packet::{Frame, Packet, Parsed};
use crate::pipeline::{self, Tables, Verdict};
use crate::reason::Reason;
use crate::select::{self, Choice, How};

/// Decides, rewrites, and counts, like [`pipeline::run`].
#[inline(always)]
pub fn run<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let verdict = decide(frame, tables);
    pipeline::finish(tables, verdict)
}

#[inline(always)]
fn decide<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let at = match locate::found(frame) {
        Ok(at) => at,
        Err(reason) => return Verdict::stop(0, reason),
    };
    let mut frame = Untagged::new(frame, at.tags);
    let parsed = match at.kind {
        Kind::Later => later(&frame, tables, at),
        Kind::First => {
            forget(&frame, tables, at);
            locate::parse(&frame, at)
        }
        // Whole packets are not left to this program.
        Kind::Whole => Parsed::NotOurs(Reason::Fragment),
    };
    pipeline::flow(&mut frame, tables, parsed)
}

/// Looks at a later fragment: with what its first one left, it is a packet.
#[inline(always)]
pub(crate) fn later<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, at: Located) -> Parsed {
    let bare = match locate::bare(frame, at) {
        Ok(bare) => bare,
        Err(reason) => return Parsed::Malformed(reason),
    };
    let Some(first) = tables.fragment(&key(&bare)).filter(|first| !first.expired(tables.now())) else {
        return Parsed::NotOurs(Reason::Fragment);
    };
    let protocol = first.protocol as u8;
    // Anything else cannot have been written by us; the compiler takes what is neither for one of them.
    if protocol != TCP && protocol != UDP {
        return Parsed::NotOurs(Reason::Fragment);
    }
    let Some(start) = locate::start(frame, at) else { return Parsed::Malformed(Reason::Truncated) };
    let part = Part {
        overlaps: start < first.end,
        backend: first.backend,
        generation: first.generation,
        ..bare.part
    };
    let [src_port, dst_port] = first.ports;
    Parsed::Flow(Packet { src_port, dst_port, protocol, part, ..bare })
}

/// The backend that a later fragment's first one went to, if it is still there.
#[inline(always)]
pub(crate) fn followed<'a, T: Tables>(
    tables: &'a T,
    service: &ServiceEntry,
    part: &Part,
) -> Option<Choice<'a>> {
    let index = part.backend as u16;
    let backend = select::entry(tables, service, index)?;
    tables.note(|report| report.how = How::Fragment as u32);
    let same = backend.generation == part.generation && backend.reachable();
    same.then_some(Choice { backend, index, new: false })
}

/// Remembers where a first fragment went.
#[inline(always)]
pub(crate) fn remember<T: Tables>(tables: &T, packet: &Packet, backend: u16, generation: u32) {
    let value = FragmentValue {
        ports: [packet.src_port, packet.dst_port],
        backend: backend as u32,
        generation,
        end: packet.part.end,
        protocol: packet.protocol as u16,
        seen: tables.now(),
    };
    tables.set_fragment(&key(packet), &value);
}

/// Forgets what an earlier datagram with the same identification left: the one that begins may go elsewhere, or be nobody's.
#[inline(always)]
fn forget<F: Frame + ?Sized, T: Tables>(frame: &F, tables: &T, at: Located) {
    if let Ok(bare) = locate::bare(frame, at) {
        let key = key(&bare);
        if tables.fragment(&key).is_some() {
            tables.drop_fragment(&key);
        }
    }
}

#[inline(always)]
fn key(packet: &Packet) -> FragmentKey {
    let protocol = match packet.family {
        Family::V4 => packet.protocol as u32,
        Family::V6 => 0,
    };
    FragmentKey { src: packet.src, dst: packet.dst, id: packet.part.id, protocol }
}
