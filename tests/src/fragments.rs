//! Datagrams cut into fragments and put together again, with the headers of `etherparse`: nothing of `lb-common`.

use std::net::IpAddr;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header};

const ETH: usize = 14;
const V4: usize = 20;
const V6: usize = 40;
const HEADER: usize = 8;

/// What a fragment is of, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Source and destination.
    pub ends: [IpAddr; 2],
    /// The identification.
    pub id: u32,
    /// What is in it: protocol of the datagram.
    pub protocol: u8,
    /// Where its bytes begin in the datagram, bytes.
    pub start: usize,
    /// Whether others follow.
    pub more: bool,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The fragment that carries `bytes` of the datagram that `whole`, a frame without tags and options, begins like.
///
/// # Panics
/// When there is no such fragment.
pub fn fragment(whole: &[u8], id: u32, start: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    assert!(start.is_multiple_of(8), "offsets count in units of 8 bytes");
    let offset = IpFragOffset::try_new((start / 8) as u16).expect("13 bits");
    let mut frame = whole[..ETH].to_vec();
    if whole[12..ETH] == [8, 0] {
        let (mut header, _) = Ipv4Header::from_slice(&whole[ETH..]).expect("an IPv4 header");
        header.identification = id as u16;
        header.dont_fragment = false;
        header.more_fragments = more;
        header.fragment_offset = offset;
        header.set_payload_len(bytes.len()).expect("a length that fits");
        header.header_checksum = header.calc_header_checksum();
        frame.extend(header.to_bytes());
    } else {
        let (mut header, _) = Ipv6Header::from_slice(&whole[ETH..]).expect("an IPv6 header");
        let fragment = Ipv6FragmentHeader::new(header.next_header, offset, more, id);
        header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
        header.payload_length = (HEADER + bytes.len()) as u16;
        frame.extend(header.to_bytes());
        frame.extend(fragment.to_bytes());
    }
    frame.extend(bytes);
    frame
}

/// Cuts a frame into fragments of `size` bytes of the datagram each, and a last one with the rest.
pub fn cut(whole: &[u8], id: u32, size: usize) -> Vec<Vec<u8>> {
    let payload = &whole[if whole[12..ETH] == [8, 0] { ETH + V4 } else { ETH + V6 }..];
    let parts = payload.chunks(size).enumerate();
    parts.map(|(n, bytes)| fragment(whole, id, n * size, (n + 1) * size < payload.len(), bytes)).collect()
}

/// Reads a fragment.
///
/// # Panics
/// When it is none.
pub fn read(frame: &[u8]) -> Seen {
    if frame[12..ETH] == [8, 0] {
        let (header, rest) = Ipv4Header::from_slice(&frame[ETH..]).expect("an IPv4 header");
        assert_eq!(header.calc_header_checksum(), header.header_checksum, "IPv4 header checksum");
        return Seen {
            ends: [header.source.into(), header.destination.into()],
            id: header.identification.into(),
            protocol: header.protocol.0,
            start: usize::from(header.fragment_offset.value()) * 8,
            more: header.more_fragments,
            bytes: rest.to_vec(),
        };
    }
    let (header, rest) = Ipv6Header::from_slice(&frame[ETH..]).expect("an IPv6 header");
    assert_eq!(header.next_header, IpNumber::IPV6_FRAGMENTATION_HEADER);
    let (fragment, rest) = Ipv6FragmentHeader::from_slice(rest).expect("a fragment header");
    Seen {
        ends: [header.source.into(), header.destination.into()],
        id: fragment.identification,
        protocol: fragment.next_header.0,
        start: usize::from(fragment.fragment_offset.value()) * 8,
        more: fragment.more_fragments,
        bytes: rest.to_vec(),
    }
}

/// Puts a datagram together from all of its fragments, in whatever order: a whole frame.
///
/// # Panics
/// When something is missing, twice there, or of another datagram.
pub fn join(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut seen: Vec<_> = fragments.iter().map(|frame| read(frame)).collect();
    seen.sort_by_key(|one| one.start);
    let mut bytes: Vec<u8> = Vec::new();
    for (n, one) in seen.iter().enumerate() {
        assert_eq!((&one.ends, one.id), (&seen[0].ends, seen[0].id), "fragments of one datagram");
        assert_eq!(one.start, bytes.len(), "neither gap nor overlap");
        assert_eq!(one.more, n + 1 < seen.len(), "the last one says that it is");
        bytes.extend(&one.bytes);
    }
    let first = &fragments[0];
    let mut frame = first[..ETH].to_vec();
    if first[12..ETH] == [8, 0] {
        let (mut header, _) = Ipv4Header::from_slice(&first[ETH..]).expect("read before");
        (header.more_fragments, header.fragment_offset) = (false, IpFragOffset::ZERO);
        header.set_payload_len(bytes.len()).expect("a length that fits");
        header.header_checksum = header.calc_header_checksum();
        frame.extend(header.to_bytes());
    } else {
        let (mut header, _) = Ipv6Header::from_slice(&first[ETH..]).expect("read before");
        header.next_header = IpNumber(seen[0].protocol);
        header.payload_length = bytes.len() as u16;
        frame.extend(header.to_bytes());
    }
    frame.extend(bytes);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Flow, TCP, UDP};
    use crate::oracle;

    #[test]
    fn what_is_cut_can_be_joined() {
        let ends = [
            (([198, 51, 100, 7], 5000).into(), ([192, 0, 2, 80], 80).into()),
            (
                ([0x2001, 0xdb8, 1, 0, 0, 0, 0, 7], 5000).into(),
                ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 80).into(),
            ),
        ];
        for (from, to) in ends {
            for protocol in [TCP, UDP] {
                let flow = Flow::new(protocol, from, to).data().carrying(vec![7; 3001]);
                let mut parts = cut(&flow.build(), 0x1234, 1480);
                assert_eq!(parts.len(), 3);
                parts.reverse();
                let whole = join(&parts);
                assert_eq!(oracle::check(&whole), [from, to]);
                assert!(whole.ends_with(&[7; 3001]));
            }
        }
    }

    #[test]
    #[should_panic(expected = "neither gap nor overlap")]
    fn a_gap_is_found() {
        let flow = Flow::new(UDP, ([198, 51, 100, 7], 1).into(), ([192, 0, 2, 80], 2).into());
        let mut parts = cut(&flow.carrying(vec![7; 3001]).build(), 1, 1480);
        parts.remove(1);
        join(&parts);
    }
}
