//! Errors about a flow: whoever sent the packet is told.
//!
//! An error goes the way of a packet in the other direction than the one it is about. About a reply of a service, it is for
//! the backend that sent it; about what a NAT backend was sent, it is for the client. Both ends must agree with what was
//! embedded (RFC 5927, section 4), and both must be rewritten with it (RFC 5508, section 4.2).

use super::{CHECKSUM, ends, outer};
use crate::abi::Correction;
use crate::abi::service::flags::NAT;
use crate::abi::{ReverseEntry, ServiceEntry};
use crate::addr::{Addr, Family, UDP};
use crate::checksum::{self, Delta};
use crate::l2::{self, Macs};
use crate::nat::{End, New};
use crate::packet::embedded::{Embedded, ICMP_LEN};
use crate::packet::locate::Located;
use crate::packet::part::Part;
use crate::packet::{Frame, Packet, eth, half, put_double, put_half, put_word, transport};
use crate::pipeline::{self, Tables, Verdict};
use crate::reason::Reason;
use crate::select;
use crate::stage::Stage;
use crate::wide;

/// Where an error and what is embedded lie.
#[derive(Clone, Copy)]
struct Places {
    family: Family,
    /// The ICMP header.
    icmp: usize,
    /// The embedded IP header.
    network: usize,
    /// The embedded transport header.
    transport: usize,
    /// The embedded transport checksum's offset, 0 if it was not kept.
    checksum: usize,
    protocol: u8,
}

/// Brings an error to whom it concerns. `None`: it is about no flow of ours. `WIDE`: see [`wide`]; without it, only exact
/// services and ways back are looked at.
#[inline(always)]
pub(super) fn deliver<const WIDE: bool, F: Frame + ?Sized, T: Tables>(
    frame: &mut F,
    tables: &T,
    at: Located,
) -> Option<Verdict> {
    let network = at.transport + ICMP_LEN;
    let found = frame.embedded(network, at.transport + at.length as usize, at.family);
    let Embedded { protocol, headers, checksum } = Embedded::unpack(found)?;
    let transport = network + headers;
    let checksum = match (checksum, protocol) {
        (false, _) => 0,
        (true, UDP) => transport + transport::UDP_CHECKSUM,
        (true, _) => transport + transport::TCP_CHECKSUM,
    };
    let places = Places { family: at.family, icmp: at.transport, network, transport, checksum, protocol };

    let [src, dst] = outer(frame, at.family)?;
    let [sender, receiver] = ends(frame, at.family, network)?;
    if dst != sender {
        return None;
    }
    let ports = frame.at::<4>(transport)?;
    // The flow, as a packet in the direction of the error: not its first one.
    let packet = Packet {
        family: at.family,
        src: receiver,
        dst: sender,
        src_port: half(ports, 2),
        dst_port: half(ports, 0),
        protocol,
        tcp_flags: transport::ACK,
        transport,
        length: at.length,
        checksum: 0,
        part: Part::WHOLE,
    };
    let service =
        if WIDE { wide::find_service(tables, &packet) } else { pipeline::find_service(tables, &packet) };
    if let Some(service) = service {
        return Some(towards::<WIDE, _, _>(frame, tables, &packet, service, places));
    }
    let entry = if WIDE { wide::find_way(tables, &packet) } else { pipeline::find_reverse(tables, &packet) };
    if let Some(entry) = entry {
        return Some(back::<WIDE, _, _>(frame, tables, &packet, entry, (places, src == receiver)));
    }
    if !WIDE && wide::may_be_wide(tables, &packet) {
        tables.go_on(Stage::Wide);
    }
    None
}

/// An error about a service's reply: to the backend that sent it.
#[inline(always)]
fn towards<const WIDE: bool, F: Frame + ?Sized, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
    service: &ServiceEntry,
    places: Places,
) -> Verdict {
    let Some(backend) = select::peek(tables, service, packet) else {
        return Verdict::stop(service.id, Reason::NoBackend);
    };
    tables.note(|report| report.counters = backend.counters);
    if !backend.resolved() {
        return Verdict::stop(service.id, Reason::NoNextHop);
    }
    if !tables.send(backend.ifindex) {
        return Verdict::stop(service.id, Reason::NoDevice);
    }
    let rewritten = if service.flags & NAT != 0 {
        let (mut port, mut correction) = (backend.port, backend.correction);
        if WIDE {
            (port, correction) = wide::shifted(packet.dst_port, service.ports[0], port, correction);
        }
        let new = New { addr: &backend.addr, port, correction };
        rewrite(frame, places, (End::Destination, true), (&packet.dst, packet.dst_port), new)
    } else {
        Some(())
    };
    if rewritten.and_then(|()| l2::redirect(frame, Macs::from(&backend.macs))).is_none() {
        return Verdict::stop(service.id, Reason::Truncated);
    }
    Verdict { reason: Reason::IcmpForwarded, service: service.id, egress: backend.ifindex }
}

/// An error about what a NAT backend was sent: to the client, in the service's name if it is the backend's own.
#[inline(always)]
fn back<const WIDE: bool, F: Frame + ?Sized, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
    entry: &ReverseEntry,
    (places, own): (Places, bool),
) -> Verdict {
    tables.note(|report| report.counters = entry.counters);
    let hop = match pipeline::way_back(tables, &entry.vip, packet) {
        Ok(hop) => hop,
        Err(reason) => return Verdict::stop(entry.service, reason),
    };
    if !tables.send(hop.ifindex) {
        return Verdict::stop(entry.service, Reason::NoDevice);
    }
    let (mut port, mut correction) = (entry.port, entry.correction);
    if WIDE {
        (port, correction) = wide::shifted(packet.src_port, entry.first, port, correction);
    }
    let new = New { addr: &entry.vip, port, correction };
    let rewritten = rewrite(frame, places, (End::Source, own), (&packet.src, packet.src_port), new);
    if rewritten.and_then(|()| l2::redirect(frame, hop.macs)).is_none() {
        return Verdict::stop(entry.service, Reason::Truncated);
    }
    Verdict { reason: Reason::IcmpReturned, service: entry.service, egress: hop.ifindex }
}

/// Rewrites an end of the error, if `outside` says so, and the end of the embedded packet that is the same.
#[inline(always)]
fn rewrite<F: Frame + ?Sized>(
    frame: &mut F,
    places: Places,
    (end, outside): (End, bool),
    (old, old_port): (&Addr, u16),
    New { addr, port, correction }: New<'_>,
) -> Option<()> {
    let inside = if end == End::Destination { End::Source } else { End::Destination };
    // What ICMP's checksum covers: all that is embedded, and over IPv6 the pseudo-header.
    let mut delta = Delta::NONE.addr(old, addr);
    put_address(frame, places.family, places.network, inside, addr)?;
    if outside {
        put_address(frame, places.family, eth::LEN, end, addr)?;
    }
    if places.family == Family::V4 {
        if outside {
            correct(frame, eth::LEN + 10, correction, Delta::NONE)?;
        }
        delta = correct(frame, places.network + 10, correction, delta)?;
    } else if outside {
        delta = delta.addr(old, addr);
    }
    let port = if port == 0 { old_port } else { port };
    let place = if inside == End::Source { 0 } else { 2 };
    put_half(frame.at_mut::<2>(places.transport + place)?, 0, port);
    delta = delta.half(old_port, port);
    if places.checksum != 0 {
        let field = frame.at_mut::<2>(places.checksum)?;
        let was = half(field, 0);
        let is = match (places.protocol, was) {
            // None, and it stays so (RFC 768).
            (UDP, 0) => 0,
            (UDP, _) => checksum::udp(checksum::correct(was, correction.endpoint)),
            _ => checksum::correct(was, correction.endpoint),
        };
        put_half(field, 0, is);
        delta = delta.half(was, is);
    }
    let field = frame.at_mut::<2>(places.icmp + CHECKSUM)?;
    let was = half(field, 0);
    put_half(field, 0, delta.apply(was));
    Some(())
}

/// Corrects an IPv4 header's checksum for an address, and says what that does to one that covers it.
#[inline(always)]
fn correct<F: Frame + ?Sized>(
    frame: &mut F,
    at: usize,
    correction: Correction,
    delta: Delta,
) -> Option<Delta> {
    let field = frame.at_mut::<2>(at)?;
    let was = half(field, 0);
    let is = checksum::correct(was, correction.address);
    put_half(field, 0, is);
    Some(delta.half(was, is))
}

/// Writes an end of the IP header at an offset.
#[inline(always)]
fn put_address<F: Frame + ?Sized>(
    frame: &mut F,
    family: Family,
    at: usize,
    end: End,
    addr: &Addr,
) -> Option<()> {
    if family == Family::V4 {
        let field = at + if end == End::Destination { 16 } else { 12 };
        put_word(frame.at_mut::<4>(field)?, 0, addr.last());
    } else {
        let field = frame.at_mut::<16>(at + if end == End::Destination { 24 } else { 8 })?;
        let [first, last] = addr.halves();
        put_double(field, 0, first);
        put_double(field, 8, last);
    }
    Some(())
}
