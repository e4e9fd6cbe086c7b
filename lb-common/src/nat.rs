//! Rewriting an address and a port, with the checksums that cover them.

use crate::abi::Correction;
use crate::addr::{Addr, Family, UDP};
use crate::checksum;
use crate::packet::{Frame, Packet, eth, half, ipv4, put_double, put_half, put_word, transport};

/// Which end of the packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The destination: towards a backend.
    Destination,
    /// The source: back to a client.
    Source,
}

/// What the transport checksum is before the rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// UDP over IPv4 without a checksum (RFC 768): stays so.
    Absent,
    /// Complete: updated by RFC 1624.
    Complete,
    /// Only the sum of the pseudo-header, and somebody after us finishes it: only addresses count, no complement.
    Partial,
}

/// Whether the checksum field holds only the pseudo-header's sum: the sender left the rest to hardware
/// (`CHECKSUM_PARTIAL`), and on veth there is none. A complete checksum equals it once in 65 536 packets.
///
/// `known` is what one of its endpoints and the protocol add, `other` the other address.
#[inline(always)]
pub const fn looks_unfinished(packet: &Packet, known: u16, other: &Addr) -> bool {
    let pseudo = known as u64 + checksum::unknown(packet.family, other, packet.length);
    checksum::same(pseudo, packet.checksum)
}

/// The checksum that completes one that [looks unfinished](looks_unfinished), given what the segment sums to as it stands.
///
/// The field already holds the pseudo-header's sum, so the sum over the segment as it stands is the whole sum, and its
/// complement is the checksum (RFC 9293, section 3.1). A checksum that was complete all along stays what it is.
pub const fn finished(protocol: u8, sum: u16) -> u16 {
    match protocol {
        UDP => checksum::udp(!sum),
        _ => !sum,
    }
}

/// Writes a checksum. `None`: past the end.
#[inline(always)]
pub fn write_checksum<F: Frame + ?Sized>(frame: &mut F, packet: &Packet, checksum: u16) -> Option<()> {
    let at = match packet.protocol {
        UDP => transport::UDP_CHECKSUM,
        _ => transport::TCP_CHECKSUM,
    };
    put_half(frame.at_mut::<2>(packet.transport + at)?, 0, checksum);
    Some(())
}

/// Whether a segment whose bytes sum to `sum` carries a complete and right checksum (RFC 1071, section 1, step 3).
#[inline(always)]
pub fn is_complete(packet: &Packet, sum: u16) -> bool {
    let pseudo = checksum::pseudo(packet.family, &packet.src, &packet.dst, packet.protocol, packet.length);
    checksum::fold(sum as u64 + pseudo) == 0xffff
}

/// The endpoint that is written.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// Its address.
    pub addr: &'a Addr,
    /// Its port in network order; 0 keeps the packet's.
    pub port: u16,
    /// What that does to checksums.
    pub correction: Correction,
}

/// Rewrites one end of a packet. `checksum` is what the field would hold otherwise: the packet's, or what finished it.
/// `None`: past the end.
#[inline(always)]
pub fn rewrite<F: Frame + ?Sized>(
    frame: &mut F,
    packet: &Packet,
    end: End,
    New { addr, port, correction }: New<'_>,
    sum: Sum,
    checksum: u16,
) -> Option<()> {
    let old_port = match end {
        End::Destination => packet.dst_port,
        End::Source => packet.src_port,
    };
    let port = if port == 0 { old_port } else { port };
    if packet.family == Family::V4 {
        let ip = frame.at_mut::<{ ipv4::LEN }>(eth::LEN)?;
        put_half(ip, 10, checksum::correct(half(ip, 10), correction.address));
        put_word(ip, if end == End::Destination { 16 } else { 12 }, addr.last());
    } else {
        // Offsets of the addresses in the IPv6 header: RFC 8200, section 3.
        let at = eth::LEN + if end == End::Destination { 24 } else { 8 };
        let field = frame.at_mut::<16>(at)?;
        let [first, last] = addr.halves();
        put_double(field, 0, first);
        put_double(field, 8, last);
    }
    // The transport header, and with it the checksum over all of the datagram, is in the first fragment.
    if packet.part.is_later() {
        return Some(());
    }
    let checksum = match sum {
        Sum::Absent => 0,
        Sum::Partial => checksum::add(checksum, correction.address),
        Sum::Complete => {
            let updated = checksum::correct(checksum, correction.endpoint);
            if packet.protocol == UDP { checksum::udp(updated) } else { updated }
        }
    };
    let place = if end == End::Destination { 2 } else { 0 };
    if packet.protocol == UDP {
        let udp = frame.at_mut::<{ transport::UDP_LEN }>(packet.transport)?;
        put_half(udp, place, port);
        put_half(udp, transport::UDP_CHECKSUM, checksum);
    } else {
        let tcp = frame.at_mut::<{ transport::TCP_LEN }>(packet.transport)?;
        put_half(tcp, place, port);
        put_half(tcp, transport::TCP_CHECKSUM, checksum);
    }
    Some(())
}
