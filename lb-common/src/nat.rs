//! Rewriting an address and a port, with the checksums that cover them.

use crate::addr::{Addr, UDP};
use crate::checksum::{self, Delta};
use crate::packet::{Frame, Packet, eth, ipv4, transport};

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
#[inline(always)]
pub fn looks_unfinished(packet: &Packet) -> bool {
    packet.checksum
        == checksum::fold(checksum::pseudo(&packet.src, &packet.dst, packet.protocol, packet.length))
}

/// Completes an unfinished checksum in place. `None`: the packet is too long to sum.
///
/// The field already holds the pseudo-header's sum, so the sum over the segment as it stands is the whole sum, and its
/// complement is the checksum (RFC 9293, section 3.1). A checksum that was complete all along is left alone.
pub fn finish<F: Frame + ?Sized>(frame: &mut F, packet: &mut Packet) -> Option<()> {
    let sum = checksum::fold(frame.sum(packet.transport, packet.length as usize)?);
    if is_complete(packet, sum) {
        return Some(());
    }
    packet.checksum = match packet.protocol {
        UDP => checksum::udp(!sum),
        _ => !sum,
    };
    write_checksum(frame, packet)
}

/// Whether a segment whose bytes sum to `sum` carries a complete and right checksum (RFC 1071, section 1, step 3).
#[inline(always)]
pub fn is_complete(packet: &Packet, sum: u16) -> bool {
    let pseudo = checksum::pseudo(&packet.src, &packet.dst, packet.protocol, packet.length);
    checksum::fold(sum as u64 + pseudo) == 0xffff
}

/// Rewrites one end of a packet to `addr` and `port` (network order; 0 keeps the packet's). `None`: past the end.
#[inline(always)]
pub fn rewrite<F: Frame + ?Sized>(
    frame: &mut F,
    packet: &Packet,
    end: End,
    addr: &Addr,
    port: u16,
    sum: Sum,
) -> Option<()> {
    let (old_addr, old_port) = match end {
        End::Destination => (packet.dst, packet.dst_port),
        End::Source => (packet.src, packet.src_port),
    };
    let port = if port == 0 { old_port } else { port };
    let addresses = Delta::NONE.addr(&old_addr, addr);
    if old_addr.is_v4() {
        let ip = frame.at_mut::<{ ipv4::LEN }>(eth::LEN)?;
        let header = addresses.apply(u16::from_ne_bytes([ip[10], ip[11]]));
        [ip[10], ip[11]] = header.to_ne_bytes();
        let word = addr.last().to_ne_bytes();
        match end {
            End::Destination => [ip[16], ip[17], ip[18], ip[19]] = word,
            End::Source => [ip[12], ip[13], ip[14], ip[15]] = word,
        }
    } else {
        // Offsets of the addresses in the IPv6 header: RFC 8200, section 3.
        let at = eth::LEN + if end == End::Destination { 24 } else { 8 };
        let field = frame.at_mut::<16>(at)?;
        for n in 0..4 {
            let [a, b, c, d] = addr.0[n].to_ne_bytes();
            [field[n * 4], field[n * 4 + 1], field[n * 4 + 2], field[n * 4 + 3]] = [a, b, c, d];
        }
    }
    let checksum = match sum {
        Sum::Absent => packet.checksum,
        Sum::Partial => addresses.apply_to_sum(packet.checksum),
        Sum::Complete => {
            let updated = addresses.half(old_port, port).apply(packet.checksum);
            if packet.protocol == UDP { checksum::udp(updated) } else { updated }
        }
    };
    let ports = port.to_ne_bytes();
    let checksum = checksum.to_ne_bytes();
    let place = if end == End::Destination { 2 } else { 0 };
    if packet.protocol == UDP {
        let udp = frame.at_mut::<{ transport::UDP_LEN }>(packet.transport)?;
        [udp[place], udp[place + 1]] = ports;
        [udp[transport::UDP_CHECKSUM], udp[transport::UDP_CHECKSUM + 1]] = checksum;
    } else {
        let tcp = frame.at_mut::<{ transport::TCP_LEN }>(packet.transport)?;
        [tcp[place], tcp[place + 1]] = ports;
        [tcp[transport::TCP_CHECKSUM], tcp[transport::TCP_CHECKSUM + 1]] = checksum;
    }
    Some(())
}

fn write_checksum<F: Frame + ?Sized>(frame: &mut F, packet: &Packet) -> Option<()> {
    let at = match packet.protocol {
        UDP => transport::UDP_CHECKSUM,
        _ => transport::TCP_CHECKSUM,
    };
    *frame.at_mut::<2>(packet.transport + at)? = packet.checksum.to_ne_bytes();
    Some(())
}
