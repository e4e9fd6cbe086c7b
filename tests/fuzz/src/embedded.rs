//! Any packet through the decision, and back comes an ICMP error about what was sent of it: whoever sent it is told of the
//! packet that it sent.

use std::net::IpAddr;

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4, icmpv6};
use lb_common::host;
use lb_common::reason::Reason;

use crate::decide::{aim, is_part};
use crate::dissector::{Opinion, Seen, theirs};
use crate::frame::{get, put};
use crate::layout::Layout;
use crate::oracle;
use crate::world::{BYTES, TO_CLIENT, World};

/// Bytes that describe the error: its kind, who reports, and how much of the packet is sent back.
const ERROR: usize = 4;
/// Transport bytes that every error brings back (RFC 792).
const PROMISED: usize = 8;
/// ICMP's header.
const ICMP: usize = 8;

/// A description of a balancer, one of an error, then a frame.
///
/// # Panics
/// When something does not hold.
pub fn embedded(bytes: &[u8]) {
    let Some((description, bytes)) = bytes.split_first_chunk::<BYTES>() else { return };
    let Some(([kind, own, kept @ ..], frame)) = bytes.split_first_chunk::<ERROR>() else { return };
    let world = World::new(*description);
    let mut frame = frame.to_vec();
    // A part of a datagram has no checksum that could be judged.
    if is_part(&frame) {
        return;
    }
    aim(&world, &mut frame);
    let Opinion::Flow(before) = theirs(&frame) else { return };
    let layout = Layout::of(&frame, &before);
    let mut sent = frame.clone();
    let verdict = host::run(&mut sent[..], &world.tables);
    if !matches!(verdict.reason, Reason::Forwarded | Reason::Returned) {
        return;
    }
    let Opinion::Flow(after) = theirs(&sent) else { panic!("sent, but no flow any more") };
    let headers = layout.transport - layout.network;
    let most = (headers + before.length).min(1200);
    let kept = usize::from(u16::from_be_bytes(*kept)) % (most + 1);
    let told = (kept >= headers + PROMISED).then_some(kept);
    let reporter = if own & 1 == 0 { router(&after) } else { after.to.ip() };
    let error = error((&sent[layout.network..][..kept], &after), *kind, reporter);

    let mut out = error.clone();
    let verdict = host::run(&mut out[..], &world.tables);
    let (Some(kept), true) = (told, world.nat) else {
        // Without promised bytes it is about nobody; what a backend was sent unchanged, it answers to the client by itself.
        if verdict.reason == Reason::Icmp {
            assert_eq!(out, error, "what is passed is not touched");
        }
        return;
    };
    assert_ne!(verdict.reason, Reason::Icmp, "an error about a flow of ours found nobody");
    match verdict.reason {
        Reason::IcmpReturned => assert_eq!(out[..12], TO_CLIENT),
        Reason::IcmpForwarded => assert_eq!(out[5], World::to_backend(World::backend_of(&out))[5]),
        // There is no way to whom it is for; that is right where the packet itself would find none.
        _ => return,
    }
    let renamed = verdict.reason == Reason::IcmpReturned && reporter == after.to.ip();
    check((&error, reporter), &out, renamed);
    let back = &out[out.len() - kept..];
    // A backend's reply may be of a flow that this balancer would have sent elsewhere.
    if address(back, after.to.is_ipv6()) == address(&frame[layout.network..], after.to.is_ipv6()) {
        same(back, &frame[layout.network..][..kept], &layout, &before);
    }
}

/// A router on the way.
fn router(seen: &Seen) -> IpAddr {
    match seen.to {
        to if to.is_ipv6() => [0x2001, 0xdb8, 9, 0, 0, 0, 0, 1].into(),
        _ => [203, 0, 113, 9].into(),
    }
}

/// An error about a packet, from `reporter` to whoever seems to have sent it.
fn error((packet, seen): (&[u8], &Seen), kind: u8, reporter: IpAddr) -> Vec<u8> {
    let (mut frame, eth) = (Vec::new(), PacketBuilder::ethernet2([2; 6], [2, 0, 0, 0, 0, 2]));
    let written = match (reporter, seen.from.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let icmp = match kind % 4 {
                0 => Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port),
                1 => Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu: 1280,
                }),
                2 => Icmpv4Type::ParameterProblem(icmpv4::ParameterProblemHeader::PointerIndicatesError(8)),
                _ => Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
            };
            eth.ipv4(from.octets(), to.octets(), 64).icmpv4(icmp).write(&mut frame, packet)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let icmp = match kind % 4 {
                0 => Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port),
                1 => Icmpv6Type::PacketTooBig { mtu: 1280 },
                2 => Icmpv6Type::ParameterProblem(icmpv6::ParameterProblemHeader {
                    code: icmpv6::ParameterProblemCode::UnrecognizedIpv6Option,
                    pointer: 40,
                }),
                _ => Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
            };
            eth.ipv6(from.octets(), to.octets(), 64).icmpv6(icmp).write(&mut frame, packet)
        }
        ends => panic!("one of another family: {ends:?}"),
    };
    written.expect("a frame");
    frame
}

/// Its own headers are right, and say who reports: a backend does so in its service's name.
fn check((error, reporter): (&[u8], IpAddr), out: &[u8], renamed: bool) {
    assert_eq!(out.len(), error.len());
    let v6 = reporter.is_ipv6();
    let icmp = 14 + if v6 { 40 } else { 20 };
    let mut sum = oracle::sum(&out[icmp..]);
    if v6 {
        let length = (out.len() - icmp) as u16;
        sum = oracle::sum(&[&out[22..54], &[0, 58], &length.to_be_bytes(), &sum.to_be_bytes()].concat());
    } else {
        assert_eq!(oracle::sum(&out[14..34]), 0xffff, "the error's header checksum");
    }
    assert_eq!(sum, 0xffff, "the error's checksum");
    let source = address(&out[14..], v6)[0].to_vec();
    let octets = match reporter {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    assert_eq!(source != octets, renamed, "whoever reports, but for backends, does it in its own name");
    // Who reports is no part of what is reported.
    assert_eq!(out[icmp..icmp + 2], error[icmp..icmp + 2]);
    assert_eq!(out[icmp + 4..icmp + ICMP], error[icmp + 4..icmp + ICMP]);
}

/// Source and destination of a packet.
fn address(packet: &[u8], v6: bool) -> [&[u8]; 2] {
    if v6 { [&packet[8..24], &packet[24..40]] } else { [&packet[12..16], &packet[16..20]] }
}

/// What was sent back is what was sent, as far as it goes; a checksum that was finished on the way stays so.
fn same(back: &[u8], sent: &[u8], layout: &Layout, seen: &Seen) {
    let plain = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        let checksum = layout.checksum - layout.network;
        // Half of it may have been kept, which nobody can correct.
        packet.iter_mut().skip(checksum).take(2).for_each(|byte| *byte = 0);
        if seen.to.is_ipv4() {
            put(&mut packet, 10, 0);
        }
        packet
    };
    assert_eq!(plain(back), plain(sent), "another packet than was sent");
    if seen.to.is_ipv4() {
        // In ones' complement, 0 and all ones are the same.
        assert_eq!(get(back, 10) % 0xffff, get(sent, 10) % 0xffff, "the header checksum that was sent");
    }
}
