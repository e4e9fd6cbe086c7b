//! What a packet that is sent must look like, whatever it was.

use lb_common::pipeline::Verdict;
use lb_common::reason::Reason;

use crate::dissector::{Opinion, Seen, theirs};
use crate::frame::{UDP, get, put};
use crate::layout::{Layout, pseudo};
use crate::world::{Macs, TO_CLIENT, World};

/// It has the ends that it should have, checksums that are as right as they were, and is otherwise as it was.
pub(crate) fn check(world: &World, verdict: Verdict, (frame, before): (&[u8], &Seen), out: &[u8]) {
    assert_eq!(out.len(), frame.len(), "these modes change no length");
    let Opinion::Flow(after) = theirs(out) else { panic!("sent, but no flow any more: {verdict:?}") };
    let (macs, expected) = ends(world, verdict, before, out);
    assert_eq!(out[..12], macs);
    assert_eq!(after, Seen { checksum: after.checksum, ..expected });

    let layout = Layout::of(frame, before);
    assert_eq!(Layout::of(out, &after), layout, "headers moved");
    assert_eq!(rest(out, world, &layout), rest(frame, world, &layout), "something else changed");
    assert_eq!(after.checksum, get(out, layout.checksum));
    transport(world.tables.generic, &layout, (frame, before), (out, &after));
    let sums = [frame, out].map(|frame| layout.header_sum(frame));
    assert_eq!(sums[0].map(folded), sums[1].map(folded), "the header checksum");
}

/// The MAC addresses that it should have, and its ends.
fn ends(world: &World, verdict: Verdict, before: &Seen, out: &[u8]) -> (Macs, Seen) {
    let mut seen = *before;
    if verdict.reason == Reason::Returned {
        seen.from = world.vip;
        return (TO_CLIENT, seen);
    }
    let n = World::backend_of(out);
    let entry = world.tables.backends[World::place(n)];
    assert!(entry.resolved() && (entry.reachable() || entry.selectable()), "to a backend that is not there");
    assert_eq!(verdict.egress, entry.ifindex);
    if world.nat {
        seen.to = world.backends[n as usize];
    }
    (World::to_backend(n), seen)
}

/// The frame without what may change.
fn rest(frame: &[u8], world: &World, layout: &Layout) -> Vec<u8> {
    let mut rest = frame.to_vec();
    rest[..12].fill(0);
    put(&mut rest, layout.checksum, 0);
    if world.nat {
        layout.addresses().into_iter().for_each(|address| rest[address].fill(0));
        rest[layout.transport..][..4].fill(0);
        if layout.header_sum(frame).is_some() {
            put(&mut rest, layout.network + 10, 0);
        }
    }
    rest
}

/// A right checksum stays right, an unfinished one is finished by us or can be by those behind us, and one that is wrong
/// stays wrong by as much: who receives it must see that.
fn transport(generic: bool, layout: &Layout, (frame, before): (&[u8], &Seen), (out, after): (&[u8], &Seen)) {
    let sums = (layout.transport_sum(frame, before), layout.transport_sum(out, after));
    let udp = before.protocol == UDP;
    // RFC 768. RFC 8200, section 8.1, forbids it in IPv6.
    if udp && before.to.is_ipv4() && before.checksum == 0 {
        assert_eq!(after.checksum, 0, "no checksum stays none");
        return;
    }
    let unfinished = folded(before.checksum) == folded(pseudo(before)) && sums.0 != 0xffff;
    if unfinished && generic {
        assert_eq!(folded(after.checksum), folded(pseudo(after)), "whoever finishes it adds to this");
        return;
    }
    if unfinished {
        assert_eq!(sums.1, 0xffff, "it should be finished");
    } else {
        assert_eq!(folded(sums.1), folded(sums.0), "the transport checksum");
    }
    // One that never was there, a mistake of its sender over IPv6, may stay away.
    assert!(!udp || after.checksum != 0 || before.checksum == 0, "a checksum became none");
}

/// In ones' complement, 0 and all ones are the same.
fn folded(sum: u16) -> u16 {
    sum % 0xffff
}
