//! Where things lie in the frame of a flow, found by walking its headers. They are right: the dissector has seen a flow.

use std::net::IpAddr;
use std::ops::Range;

use crate::dissector::Seen;
use crate::frame::{Flow, UDP, get};
use crate::oracle;

/// Offsets in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Of the IP header, behind the Ethernet header and its tags.
    pub(crate) network: usize,
    /// Of the transport header, behind options and extension headers.
    pub(crate) transport: usize,
    /// Of the transport checksum.
    pub(crate) checksum: usize,
    v6: bool,
}

impl Layout {
    /// Walks the headers of a frame in which the dissector has seen this.
    pub(crate) fn of(frame: &[u8], seen: &Seen) -> Self {
        let tags = [12, 16].into_iter().take_while(|at| matches!(get(frame, *at), 0x8100 | 0x88a8)).count();
        let (network, v6) = (14 + 4 * tags, seen.to.is_ipv6());
        let transport = network + if v6 { extended(&frame[network..]) } else { words(frame[network]) };
        let ports = [get(frame, transport), get(frame, transport + 2)];
        assert_eq!(ports, [seen.from.port(), seen.to.port()], "this walk and the dissector disagree");
        let checksum = transport + if seen.protocol == UDP { 6 } else { 16 };
        Self { network, transport, checksum, v6 }
    }

    /// Whether more fragments follow it: of its segment it holds only the beginning.
    pub(crate) fn is_first_of_several(&self, frame: &[u8]) -> bool {
        if !self.v6 {
            return get(frame, self.network + 6) & 0x3fff != 0;
        }
        let packet = &frame[self.network..];
        extensions(packet).any(|(kind, place)| kind == 44 && get(packet, place.start + 2) & 0xfff9 != 0)
    }

    /// Where the source and the destination address are.
    pub(crate) fn addresses(&self) -> [Range<usize>; 2] {
        let (source, length) = if self.v6 { (8, 16) } else { (12, 4) };
        let source = self.network + source;
        [source..source + length, source + length..source + 2 * length]
    }

    /// The sum of an IPv4 header with its options: all ones if its checksum is right (RFC 791, section 3.1).
    pub(crate) fn header_sum(&self, frame: &[u8]) -> Option<u16> {
        (!self.v6).then(|| oracle::sum(&frame[self.network..self.transport]))
    }

    /// The sum of pseudo-header and segment: all ones if the checksum is right (RFC 1071, section 1).
    pub(crate) fn transport_sum(&self, frame: &[u8], seen: &Seen) -> u16 {
        let segment = oracle::sum(&frame[self.transport..][..seen.length]);
        oracle::sum(&[segment, pseudo(seen)].map(u16::to_be_bytes).concat())
    }
}

/// The sum of what the checksum covers beside the segment.
pub(crate) fn pseudo(seen: &Seen) -> u16 {
    oracle::pseudo(&Flow::new(seen.protocol, seen.from, seen.to), seen.length)
}

/// Bytes of an IPv4 header that starts so.
fn words(first: u8) -> usize {
    usize::from(first & 0xf) * 4
}

/// Bytes of an IPv6 header and its extension headers.
fn extended(packet: &[u8]) -> usize {
    extensions(packet).last().map_or(40, |(_, place)| place.end)
}

/// Extension headers, by kind, and where they are (RFC 8200, section 4, RFC 4302, section 2.2).
fn extensions(packet: &[u8]) -> impl Iterator<Item = (u8, Range<usize>)> {
    let (mut next, mut at) = (packet[6], 40);
    std::iter::from_fn(move || {
        let units = || usize::from(packet[at + 1]);
        let length = match next {
            0 | 43 | 60 => (units() + 1) * 8,
            51 => (units() + 2) * 4,
            // A fragment header has no length of its own.
            44 => 8,
            _ => return None,
        };
        let header = (next, at..at + length);
        (next, at) = (packet[at], at + length);
        Some(header)
    })
}

/// Writes an address.
pub(crate) fn put_address(frame: &mut [u8], at: Range<usize>, address: IpAddr) {
    match address {
        IpAddr::V4(ip) => frame[at].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => frame[at].copy_from_slice(&ip.octets()),
    }
}
