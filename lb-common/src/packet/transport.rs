//! TCP (RFC 9293) and UDP (RFC 768) headers.

use super::part::Part;
use super::{Frame, Packet, Parsed, half, word};
use crate::addr::{Addr, Family, TCP, UDP};
use crate::reason::Reason;

/// Length of a TCP header without options, bytes.
pub const TCP_LEN: usize = 20;
/// Length of a UDP header, bytes.
pub const UDP_LEN: usize = 8;
/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM: usize = 6;

/// TCP's SYN flag.
pub const SYN: u8 = 1 << 1;
/// TCP's FIN flag.
pub const FIN: u8 = 1;
/// TCP's RST flag.
pub const RST: u8 = 1 << 2;
/// TCP's PSH flag: the end of what a sender wrote.
pub const PSH: u8 = 1 << 3;
/// TCP's ACK flag.
pub const ACK: u8 = 1 << 4;

/// What the IP header says.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) family: Family,
    pub(super) src: Addr,
    pub(super) dst: Addr,
}

/// Looks at a TCP segment of `length` bytes at `offset`. A first fragment needs all of the header but the options, or
/// what is filtered by ports and flags would be decided elsewhere (RFC 1858, section 3).
#[inline(always)]
pub(super) fn tcp<F: Frame + ?Sized>(
    frame: &F,
    ends: Ends,
    offset: usize,
    length: u16,
    part: Part,
) -> Parsed {
    if (length as usize) < TCP_LEN {
        return too_short(part);
    }
    let Some(tcp) = frame.at::<TCP_LEN>(offset) else { return Parsed::Malformed(Reason::Truncated) };
    let header = (tcp[12] >> 4) as usize * 4;
    if header < TCP_LEN || part.is_whole() && header > length as usize {
        return Parsed::Malformed(Reason::MalformedTransport);
    }
    let [src_port, dst_port] = ports(tcp);
    Parsed::Flow(Packet {
        family: ends.family,
        src: ends.src,
        dst: ends.dst,
        src_port,
        dst_port,
        protocol: TCP,
        tcp_flags: tcp[13],
        transport: offset,
        length,
        checksum: half(tcp, TCP_CHECKSUM),
        part,
    })
}

/// Why a transport header that is not all there is not looked at.
#[inline(always)]
const fn too_short(part: Part) -> Parsed {
    if part.is_whole() {
        Parsed::Malformed(Reason::MalformedTransport)
    } else {
        Parsed::NotOurs(Reason::FragmentTiny)
    }
}

/// Source and destination port, from one word: the flow's hash wants them as one again.
#[inline(always)]
const fn ports<const N: usize>(header: &[u8; N]) -> [u16; 2] {
    let [a, b, c, d] = word(header, 0).to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

/// Looks at a UDP datagram at `offset`: of at most `length` bytes, if all of it is there.
#[inline(always)]
pub(super) fn udp<F: Frame + ?Sized>(
    frame: &F,
    ends: Ends,
    offset: usize,
    length: u16,
    part: Part,
) -> Parsed {
    if (length as usize) < UDP_LEN {
        return too_short(part);
    }
    let Some(udp) = frame.at::<UDP_LEN>(offset) else { return Parsed::Malformed(Reason::Truncated) };
    let own = u16::from_be(half(udp, 4));
    if (own as usize) < UDP_LEN || part.is_whole() && own > length {
        return Parsed::Malformed(Reason::MalformedTransport);
    }
    let [src_port, dst_port] = ports(udp);
    Parsed::Flow(Packet {
        family: ends.family,
        src: ends.src,
        dst: ends.dst,
        src_port,
        dst_port,
        protocol: UDP,
        tcp_flags: 0,
        transport: offset,
        length: own,
        checksum: half(udp, UDP_CHECKSUM),
        part,
    })
}
