//! Any frame through the decision, on a balancer that the first bytes describe.

use std::collections::BTreeMap;

use lb_common::abi::BackendCounters;
use lb_common::host;
use lb_common::pipeline::Verdict;
use lb_common::reason::{Fate, Reason};

use crate::dissector::{Opinion, theirs};
use crate::frame::{UDP, put};
use crate::layout::{Layout, put_address};
use crate::sent;
use crate::world::{Aim, BYTES, ROW, SERVICE, World};

/// A description of a balancer, then a frame.
///
/// # Panics
/// When something does not hold.
pub fn decide(bytes: &[u8]) {
    let Some((description, frame)) = bytes.split_first_chunk::<BYTES>() else { return };
    let world = World::new(*description);
    let mut frame = frame.to_vec();
    if is_part(&frame) {
        // What is right for a part of a datagram, the packet tests know: here it must only get through.
        host::run(&mut frame[..], &world.tables);
        return;
    }
    aim(&world, &mut frame);
    let first = run(&world, &frame);
    // Nothing that the first packet left may send its repetition elsewhere.
    assert_eq!(run(&world, &frame), first, "the same packet again");
}

/// Whether it is the first part of a flow's datagram. Others are no flow to the dissector.
pub(crate) fn is_part(frame: &[u8]) -> bool {
    matches!(theirs(frame), Opinion::Flow(seen) if Layout::of(frame, &seen).is_first_of_several(frame))
}

/// Makes the frame one of the service's, and its checksums right, if that is asked for and can be.
pub(crate) fn aim(world: &World, frame: &mut [u8]) {
    let Opinion::Flow(seen) = theirs(frame) else { return };
    let layout = Layout::of(frame, &seen);
    let ends = match world.aim {
        Aim::Nowhere => None,
        Aim::Service => Some((1, world.vip)),
        Aim::Backend => Some((0, world.backends[0])),
    };
    if let Some((end, to)) = ends
        && seen.to.is_ipv6() == to.is_ipv6()
        && seen.protocol == world.protocol
    {
        put_address(frame, layout.addresses()[end].clone(), to.ip());
        put(frame, layout.transport + 2 * end, to.port());
    }
    if world.finish {
        let Opinion::Flow(seen) = theirs(frame) else { return };
        put(frame, layout.checksum, 0);
        let sum = !layout.transport_sum(frame, &seen);
        put(frame, layout.checksum, if seen.protocol == UDP && sum == 0 { 0xffff } else { sum });
        if seen.to.is_ipv4() {
            put(frame, layout.network + 10, 0);
            let sum = layout.header_sum(frame).map_or(0, |sum| !sum);
            put(frame, layout.network + 10, sum);
        }
    }
}

/// Runs it, and checks everything that can be said of any packet.
fn run(world: &World, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let (before, mut out) = (Counted::of(world), frame.to_vec());
    let verdict = host::run(&mut out[..], &world.tables);
    let opinion = theirs(frame);
    let (service, reasons) = if opinion == Opinion::NotOurs(Reason::Icmp) && verdict.service == SERVICE {
        (SERVICE, ABOUT_FLOWS.to_vec())
    } else {
        expected(world, &opinion)
    };
    assert!(
        verdict.service == service && reasons.contains(&verdict.reason),
        "{verdict:?}, not of service {service} and {reasons:?}: {opinion:?}"
    );
    match (verdict.reason.fate(), opinion) {
        (Fate::Pass, _) => assert_eq!(out, frame, "what is passed is not touched: {verdict:?}"),
        (Fate::Drop, _) => assert_ne!(verdict.service, 0, "dropped without a service: {verdict:?}"),
        (Fate::Forward, Opinion::Flow(seen)) => sent::check(world, verdict, (frame, &seen), &out),
        // An error about one of the service's flows: which bytes change, the packet tests know.
        (Fate::Forward, Opinion::NotOurs(Reason::Icmp)) => assert_eq!(out.len(), frame.len(), "{verdict:?}"),
        (Fate::Forward | Fate::Answer, opinion) => panic!("sent: {opinion:?}"),
    }
    assert_eq!(Counted::of(world), before.and(world, verdict, (frame, &out)), "counted: {verdict:?}");
    (verdict, out)
}

/// What may become of an ICMP error about a flow of the service.
const ABOUT_FLOWS: [Reason; 6] = [
    Reason::IcmpForwarded,
    Reason::IcmpReturned,
    Reason::NoBackend,
    Reason::NoNextHop,
    Reason::NoDevice,
    Reason::NoRoute,
];

/// Whose packet this is, and what may become of it.
fn expected(world: &World, opinion: &Opinion) -> (u32, Vec<Reason>) {
    if let Opinion::Flow(seen) = opinion
        && seen.protocol == world.protocol
    {
        if seen.to == world.vip {
            let reasons = [Reason::Forwarded, Reason::NoBackend, Reason::NoNextHop, Reason::NoDevice];
            return (SERVICE, reasons.to_vec());
        }
        if world.nat && world.backends.contains(&seen.from) {
            return (
                SERVICE,
                vec![if world.knows_way(seen.to.ip()) { Reason::Returned } else { Reason::NoRoute }],
            );
        }
    }
    (0, vec![opinion.reason()])
}

/// All counters.
#[derive(Clone, Debug, PartialEq)]
struct Counted {
    backends: BTreeMap<u32, BackendCounters>,
    reasons: BTreeMap<(u32, Reason), u64>,
}

impl Counted {
    fn of(world: &World) -> Self {
        let tables = &world.tables;
        Self { backends: tables.counters.borrow().clone(), reasons: tables.reasons.borrow().clone() }
    }

    /// And this packet, once: with the backend that it went to or came from, or as what it is.
    fn and(mut self, world: &World, verdict: Verdict, (frame, out): (&[u8], &[u8])) -> Self {
        let bytes = frame.len() as u64;
        match verdict.reason {
            Reason::Forwarded => {
                let place = ROW + World::backend_of(out);
                let row = self.backends.entry(place).or_default();
                (row.packets, row.bytes) = (row.packets + 1, row.bytes + bytes);
                // Which packets open a flow is the selection's to say; its own tests judge that.
                row.flows = world.tables.counters.borrow().get(&place).map_or(0, |row| row.flows);
            }
            Reason::Returned => {
                let Opinion::Flow(seen) = theirs(frame) else { panic!("returned, but no flow") };
                let n = world.backends.iter().position(|backend| *backend == seen.from);
                let row = self.backends.entry(ROW + n.expect("a backend's packet") as u32).or_default();
                (row.back_packets, row.back_bytes) = (row.back_packets + 1, row.back_bytes + bytes);
            }
            reason => *self.reasons.entry((verdict.service, reason)).or_default() += 1,
        }
        self
    }
}
