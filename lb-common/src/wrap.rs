//! What services with encapsulation need beyond a backend: an outer header, or an answer where there is no room for one.
//! A program of its own does what is not usual.

use crate::abi::hand::how;
use crate::abi::service::flags::{ENCAP_CHECKSUM, GUE};
use crate::abi::{Hand, ServiceEntry};
use crate::encap::{self, Kind, Outer, Refused};
use crate::l2::Macs;
use crate::packet::{Frame, Packet};
use crate::pipeline::{self, Tables, Verdict};
use crate::reason::Reason;
use crate::select::Choice;
use crate::stage::Stage;

/// Puts a packet whose backend is chosen into another one. What seldom comes is handed over: tags, a checksum over all of the
/// packet, and what is refused.
#[inline(always)]
pub(crate) fn here<F: Frame + ?Sized, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
    service: &ServiceEntry,
    choice: &Choice<'_>,
) -> Verdict {
    if F::TAGGED || service.flags & ENCAP_CHECKSUM != 0 {
        return hand_over(frame, tables, packet, service, choice);
    }
    let (backend, bytes) = (choice.backend, frame.bytes());
    let outer = Outer {
        kind: if service.flags & GUE != 0 { Kind::Gue } else { Kind::Ipip },
        dst: &backend.addr,
        macs: Macs::from(&backend.macs),
        mtu: backend.mtu,
        checksum: false,
        entropy: packet.entropy(),
    };
    let wrapped = tables.settings().ok_or(Refused::NoSource);
    // Where it is refused nothing was written.
    if wrapped.and_then(|settings| encap::wrap(frame, 0, &outer, settings)).is_err() {
        return hand_over(frame, tables, packet, service, choice);
    }
    tables.count_towards(backend.counters, bytes, choice.new);
    Verdict { reason: Reason::Forwarded, service: service.id, egress: backend.ifindex }
}

/// Hands a packet over whose backend is chosen, and goes on.
#[inline(always)]
fn hand_over<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    tables: &T,
    packet: &Packet,
    service: &ServiceEntry,
    choice: &Choice<'_>,
) -> Verdict {
    let backend = choice.backend;
    tables.hand(|hand| {
        hand.addr = backend.addr;
        Macs::from(&backend.macs).write(&mut hand.macs);
        hand.egress = backend.ifindex;
        hand.mtu = backend.mtu;
        hand.counters = backend.counters;
        hand.service = service.id;
        hand.entropy = packet.entropy();
        let mut bits = (frame.tags() as u32) << how::TAGS_SHIFT;
        for (set, bit) in [
            (service.flags & GUE != 0, how::GUE),
            (service.flags & ENCAP_CHECKSUM != 0, how::CHECKSUM),
            (choice.new, how::NEW),
        ] {
            bits |= if set { bit } else { 0 };
        }
        hand.how = bits;
    });
    tables.go_on(Stage::Wrap);
    Verdict::stop(service.id, Reason::NoProgram)
}

/// Puts a packet into another one, and counts.
#[inline(always)]
pub fn run<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let verdict = tables.hand(|hand| decide(frame, tables, hand));
    let verdict = verdict.unwrap_or(Verdict::stop(0, Reason::NoProgram));
    pipeline::finish(tables, verdict)
}

#[inline(always)]
fn decide<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T, hand: &Hand) -> Verdict {
    let Some(settings) = tables.settings() else { return Verdict::stop(hand.service, Reason::NoOuterSource) };
    let outer = Outer {
        kind: kind(hand),
        dst: &hand.addr,
        macs: Macs::from(&hand.macs),
        mtu: hand.mtu,
        checksum: hand.how & how::CHECKSUM != 0,
        entropy: hand.entropy,
    };
    let tags = hand.tags();
    let bytes = frame.len() as u64;
    match encap::wrap(frame, tags, &outer, settings) {
        Ok(()) => {
            tables.count_towards(hand.counters, bytes, hand.how & how::NEW != 0);
            Verdict { reason: Reason::Forwarded, service: hand.service, egress: hand.egress }
        }
        Err(Refused::NoSource) => Verdict::stop(hand.service, Reason::NoOuterSource),
        Err(Refused::NoRoom) => Verdict::stop(hand.service, Reason::NoHeadroom),
        Err(Refused::TooBig) => {
            if tables.may_answer() {
                tables.go_on(Stage::Answer);
            }
            Verdict::stop(hand.service, Reason::TooBig)
        }
    }
}

/// The kind of encapsulation.
#[inline(always)]
const fn kind(hand: &Hand) -> Kind {
    if hand.how & how::GUE != 0 { Kind::Gue } else { Kind::Ipip }
}

/// The largest packet that fits into another one on the way to the backend.
#[inline(always)]
pub(crate) const fn room(hand: &Hand) -> u32 {
    hand.mtu.saturating_sub(encap::overhead(kind(hand), hand.family()) as u32)
}
