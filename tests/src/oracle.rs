//! Is this packet right? Answered by `etherparse` and by a checksum written down as RFC 1071 says it, not by `lb-common`.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::frame::{Flow, put};

/// Sum of bytes as 16-bit words in network order, folded (RFC 1071, section 1).
pub fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Sum of a flow's pseudo-header for a segment of `length` bytes (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub fn pseudo(flow: &Flow, length: usize) -> u16 {
    let mut bytes = Vec::new();
    for ip in [flow.from.ip(), flow.to.ip()] {
        match ip {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, flow.protocol]);
    sum(&bytes)
}

/// The frame of a flow as a sender with checksum offload leaves it: only the pseudo-header's sum in the field.
pub fn unfinished(flow: &Flow) -> Vec<u8> {
    let mut frame = flow.build();
    let length = frame.len() - flow.transport();
    put(&mut frame, flow.checksum_at(), pseudo(flow, length));
    frame
}

/// The frame of a flow whose complete checksum is `wanted`: its last two bytes of payload make it so.
///
/// # Panics
/// When the payload is shorter than two bytes, or of odd length.
pub fn with_checksum(flow: &Flow, wanted: u16) -> (Flow, Vec<u8>) {
    let mut flow = flow.clone();
    let end = flow.payload.len();
    assert!(end >= 2 && end.is_multiple_of(2), "two aligned bytes of payload are needed");
    put(&mut flow.payload, end - 2, 0);
    let mut frame = flow.build();
    let at = flow.transport();
    put(&mut frame, flow.checksum_at(), 0);
    let without = sum(&[&frame[at..], &pseudo(&flow, frame.len() - at).to_be_bytes()].concat());
    // The word x for which without + x = ~wanted in ones' complement.
    let word = sum(&[(!without).to_be_bytes(), (!wanted).to_be_bytes()].concat());
    put(&mut flow.payload, end - 2, word);
    let last = frame.len() - 2;
    put(&mut frame, last, word);
    put(&mut frame, flow.checksum_at(), wanted);
    (flow, frame)
}

/// Finds every checksum of a TCP or UDP packet right, and tells its source and destination.
///
/// # Panics
/// When one is wrong, or the frame holds something else.
#[track_caller]
pub fn check(frame: &[u8]) -> [SocketAddr; 2] {
    let sliced = SlicedPacket::from_ethernet(frame).expect("etherparse reads the frame");
    let (from, to): (IpAddr, IpAddr) = match sliced.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(v4) => {
            let header = v4.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum, "IPv4 header checksum");
            (header.source.into(), header.destination.into())
        }
        NetSlice::Ipv6(v6) => {
            let header = v6.header().to_header();
            (header.source.into(), header.destination.into())
        }
        NetSlice::Arp(_) => panic!("ARP, not IP"),
    };
    let transport = sliced.transport.as_ref().expect("a transport header");
    let (stands, right) = match (transport, from, to) {
        (TransportSlice::Tcp(tcp), IpAddr::V4(from), IpAddr::V4(to)) => (
            tcp.checksum(),
            tcp.to_header().calc_checksum_ipv4_raw(from.octets(), to.octets(), tcp.payload()),
        ),
        (TransportSlice::Tcp(tcp), IpAddr::V6(from), IpAddr::V6(to)) => (
            tcp.checksum(),
            tcp.to_header().calc_checksum_ipv6_raw(from.octets(), to.octets(), tcp.payload()),
        ),
        (TransportSlice::Udp(udp), IpAddr::V4(from), IpAddr::V4(to)) => (
            udp.checksum(),
            udp.to_header().calc_checksum_ipv4_raw(from.octets(), to.octets(), udp.payload()),
        ),
        (TransportSlice::Udp(udp), IpAddr::V6(from), IpAddr::V6(to)) => (
            udp.checksum(),
            udp.to_header().calc_checksum_ipv6_raw(from.octets(), to.octets(), udp.payload()),
        ),
        _ => panic!("neither TCP nor UDP"),
    };
    assert_eq!(stands, right.expect("a payload that fits"), "transport checksum");
    let ports = match transport {
        TransportSlice::Tcp(tcp) => [tcp.source_port(), tcp.destination_port()],
        TransportSlice::Udp(udp) => [udp.source_port(), udp.destination_port()],
        _ => unreachable!("neither, as above"),
    };
    [SocketAddr::new(from, ports[0]), SocketAddr::new(to, ports[1])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{TCP, UDP};

    fn flow(protocol: u8) -> Flow {
        Flow::new(protocol, ([198, 51, 100, 7], 5000).into(), ([192, 0, 2, 80], 80).into())
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn wanted_checksums_are_right_ones() {
        for protocol in [TCP, UDP] {
            for wanted in [1, 0x1234, 0xfffe] {
                let (flow, frame) = with_checksum(&flow(protocol).carrying(*b"abcd"), wanted);
                check(&frame);
                assert_eq!(frame, flow.build());
            }
        }
    }

    #[test]
    #[should_panic(expected = "transport checksum")]
    fn an_unfinished_checksum_is_found_wrong() {
        check(&unfinished(&flow(TCP)));
    }
}
