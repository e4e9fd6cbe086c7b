//! What is this frame? Answered by `etherparse`, to be compared with `lb_common::packet::parse`.
//!
//! Each layer is asked of `etherparse` with its strict rules; what is written down here is only which of its answers
//! means which of our reasons. Where it is more lenient or looks farther than the balancer does, the line says so.

use std::net::{IpAddr, SocketAddr};

use etherparse::err::Layer;
use etherparse::err::{ipv4, ipv6};
use etherparse::{
    EtherType, Ethernet2Slice, IpAuthHeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv4Slice,
    Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, SingleVlanSlice, TcpSlice, UdpSlice,
    ether_type, ip_number,
};
use lb_common::packet::{self, Parsed};
use lb_common::reason::Reason;

/// One of three outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// A segment or datagram to look at.
    Flow(Seen),
    /// Never ours.
    NotOurs(Reason),
    /// It contradicts itself.
    Malformed(Reason),
}

/// What is read from a segment or datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// TCP or UDP.
    pub protocol: u8,
    /// FIN, SYN, RST, PSH, ACK of TCP, as they stand in the header.
    pub flags: u8,
    /// Length of transport header and payload.
    pub length: usize,
    /// The transport checksum.
    pub checksum: u16,
}

impl Opinion {
    /// The reason that the program counts when the frame belongs to no service.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Flow(_) => Reason::NotAService,
            Self::NotOurs(reason) | Self::Malformed(reason) => *reason,
        }
    }
}

/// What the balancer says.
pub fn ours(frame: &[u8]) -> Opinion {
    match packet::parse(frame) {
        Parsed::NotOurs(reason) => Opinion::NotOurs(reason),
        Parsed::Malformed(reason) => Opinion::Malformed(reason),
        Parsed::Flow(packet) => Opinion::Flow(Seen {
            from: SocketAddr::new(packet.src.into(), u16::from_be(packet.src_port)),
            to: SocketAddr::new(packet.dst.into(), u16::from_be(packet.dst_port)),
            protocol: packet.protocol,
            flags: packet.tcp_flags & 0x1f,
            length: packet.length.into(),
            checksum: u16::from_be(packet.checksum),
        }),
    }
}

/// What `etherparse` says.
pub fn theirs(frame: &[u8]) -> Opinion {
    let Ok(ethernet) = Ethernet2Slice::from_slice_without_fcs(frame) else {
        return Opinion::Malformed(Reason::Truncated);
    };
    let (mut kind, mut payload) = (ethernet.ether_type(), ethernet.payload_slice());
    // 0x9100, which etherparse takes for a tag too, was never a standard.
    let is_tag = |kind| kind == EtherType::VLAN_TAGGED_FRAME || kind == EtherType::PROVIDER_BRIDGING;
    for _ in 0..2 {
        if is_tag(kind) {
            let Ok(tag) = SingleVlanSlice::from_slice(payload) else {
                return Opinion::Malformed(Reason::Truncated);
            };
            (kind, payload) = (tag.ether_type(), tag.payload_slice());
        }
    }
    match kind {
        ether_type::IPV4 => v4(payload),
        ether_type::IPV6 => v6(payload),
        kind if is_tag(kind) => Opinion::NotOurs(Reason::Vlan),
        _ => Opinion::NotOurs(Reason::NotIp),
    }
}

fn v4(bytes: &[u8]) -> Opinion {
    let header = match Ipv4HeaderSlice::from_slice(bytes) {
        Ok(header) => header,
        Err(ipv4::HeaderSliceError::Content(_)) => return Opinion::Malformed(Reason::MalformedIp),
        // The options are not all there: either the packet ends before its total length, or that is too short for them.
        Err(ipv4::HeaderSliceError::Len(e)) if e.required_len > 20 => {
            let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            let fits = total >= e.required_len;
            return Opinion::Malformed(if fits { Reason::Truncated } else { Reason::MalformedIp });
        }
        Err(ipv4::HeaderSliceError::Len(_)) => return Opinion::Malformed(Reason::Truncated),
    };
    let payload = match Ipv4Slice::from_slice(bytes) {
        Ok(whole) => Some(whole.payload().payload),
        Err(ipv4::SliceError::Len(e)) if e.layer == Layer::Ipv4Packet => {
            // Either the packet ends before its total length, or that is shorter than the header.
            let whole = bytes.len() >= header.total_len().into();
            return Opinion::Malformed(if whole { Reason::MalformedIp } else { Reason::Truncated });
        }
        // An authentication header that is not right: nobody looks into it.
        Err(_) => None,
    };
    let carried = usize::from(header.total_len()) - header.slice().len();
    let first = match part(header.fragments_offset().value(), header.more_fragments(), carried) {
        Ok(first) => first,
        Err(opinion) => return opinion,
    };
    let ends = (header.source_addr().into(), header.destination_addr().into());
    match (header.protocol(), payload) {
        (protocol @ (ip_number::TCP | ip_number::UDP), Some(payload)) if first => {
            first_of(ends, protocol, payload)
        }
        (ip_number::TCP, Some(payload)) => tcp(ends, payload),
        (ip_number::UDP, Some(payload)) => udp(ends, payload),
        (ip_number::ICMP, _) => Opinion::NotOurs(Reason::Icmp),
        _ => Opinion::NotOurs(Reason::OtherProtocol),
    }
}

fn v6(bytes: &[u8]) -> Opinion {
    let header = match Ipv6HeaderSlice::from_slice(bytes) {
        Ok(header) => header,
        // etherparse wants a whole header before it looks at the version, as we do.
        Err(ipv6::HeaderSliceError::Content(_)) => return Opinion::Malformed(Reason::MalformedIp),
        Err(ipv6::HeaderSliceError::Len(_)) => return Opinion::Malformed(Reason::Truncated),
    };
    // Of a length of 0 etherparse makes "as much as there is", for jumbograms, whose option would come first.
    let Some(payload) = bytes[40..].get(..header.payload_length().into()) else {
        return Opinion::Malformed(Reason::Truncated);
    };
    let (from, to) = (header.source_addr(), header.destination_addr());
    // RFC 4291, section 2.5.5.2: not an address of a packet.
    if from.to_ipv4_mapped().is_some() || to.to_ipv4_mapped().is_some() {
        return Opinion::Malformed(Reason::MalformedIp);
    }
    let (mut next, mut payload) = match extensions(header.next_header(), payload) {
        Ok(found) => found,
        Err(opinion) => return opinion,
    };
    let mut first = false;
    if next == ip_number::IPV6_FRAG {
        // Behind it the balancer looks past nothing.
        let Ok(fragment) = Ipv6FragmentHeaderSlice::from_slice(payload) else {
            return Opinion::Malformed(Reason::MalformedIp);
        };
        (next, payload) = (fragment.next_header(), &payload[8..]);
        first = match part(fragment.fragment_offset().value(), fragment.more_fragments(), payload.len()) {
            Ok(first) => first,
            Err(opinion) => return opinion,
        };
    }
    let ends = (from.into(), to.into());
    match next {
        ip_number::TCP | ip_number::UDP if first => first_of(ends, next, payload),
        ip_number::TCP => tcp(ends, payload),
        ip_number::UDP => udp(ends, payload),
        ip_number::IPV6_ICMP => Opinion::NotOurs(Reason::Icmp),
        ip_number::IPV6_FRAG => Opinion::NotOurs(Reason::Fragment),
        // What these encrypt or try out is a protocol of its own to the balancer.
        ip_number::ENCAP_SEC | ip_number::EXP0 | ip_number::EXP1 => Opinion::NotOurs(Reason::OtherProtocol),
        next if IpNumber::is_ipv6_ext_header_value(next) => Opinion::NotOurs(Reason::Ipv6Extension),
        _ => Opinion::NotOurs(Reason::OtherProtocol),
    }
}

/// Past up to eight headers that are looked past, in whatever order: which may come where is for their receivers to say.
fn extensions(mut next: IpNumber, mut bytes: &[u8]) -> Result<(IpNumber, &[u8]), Opinion> {
    let malformed = Opinion::Malformed(Reason::MalformedIp);
    for _ in 0..8 {
        let length = match next {
            ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_ROUTE | ip_number::IPV6_DEST_OPTIONS => {
                // A routing header that is cut off may still say that it has segments left.
                if next == ip_number::IPV6_ROUTE && bytes.len() >= 8 && bytes[3] != 0 {
                    return Err(Opinion::NotOurs(Reason::Ipv6Extension));
                }
                let Ok(header) = Ipv6RawExtHeaderSlice::from_slice(bytes) else { return Err(malformed) };
                next = header.next_header();
                header.slice().len()
            }
            ip_number::AUTH => {
                let Ok(header) = IpAuthHeaderSlice::from_slice(bytes) else { return Err(malformed) };
                next = header.next_header();
                header.slice().len()
            }
            _ => return Ok((next, bytes)),
        };
        bytes = &bytes[length..];
    }
    Err(Opinion::NotOurs(Reason::Ipv6Extension))
}

/// Whether this is the first fragment of several, rather than all of a datagram.
fn part(offset: u16, more: bool, carried: usize) -> Result<bool, Opinion> {
    let units = usize::from(offset);
    if units == 0 && !more {
        return Ok(false);
    }
    // RFC 8200, section 4.5: what is cut off elsewhere than between units, or makes too much, is discarded.
    if carried == 0 || more && !carried.is_multiple_of(8) || units * 8 + carried > 65535 {
        return Err(Opinion::Malformed(Reason::MalformedIp));
    }
    if units == 0 { Ok(true) } else { Err(Opinion::NotOurs(Reason::Fragment)) }
}

/// The first fragment of a segment or datagram: the rest of it is elsewhere, TCP's options perhaps too.
fn first_of((from, to): (IpAddr, IpAddr), protocol: IpNumber, payload: &[u8]) -> Opinion {
    let tcp = protocol == ip_number::TCP;
    if payload.len() < if tcp { 20 } else { 8 } {
        return Opinion::NotOurs(Reason::FragmentTiny);
    }
    let field = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    if tcp && payload[12] >> 4 < 5 || !tcp && field(4) < 8 {
        return Opinion::Malformed(Reason::MalformedTransport);
    }
    Opinion::Flow(Seen {
        from: SocketAddr::new(from, field(0)),
        to: SocketAddr::new(to, field(2)),
        protocol: protocol.0,
        flags: if tcp { payload[13] & 0x1f } else { 0 },
        length: if tcp { payload.len() } else { field(4).into() },
        checksum: field(if tcp { 16 } else { 6 }),
    })
}

/// The IP packet was whole, so a header that has no room contradicts it.
fn tcp((from, to): (IpAddr, IpAddr), payload: &[u8]) -> Opinion {
    let Ok(tcp) = TcpSlice::from_slice(payload) else {
        return Opinion::Malformed(Reason::MalformedTransport);
    };
    let flags = [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack()];
    Opinion::Flow(Seen {
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        protocol: ip_number::TCP.0,
        flags: (0..).zip(flags).map(|(bit, set)| u8::from(set) << bit).sum(),
        length: tcp.slice().len(),
        checksum: tcp.checksum(),
    })
}

fn udp((from, to): (IpAddr, IpAddr), payload: &[u8]) -> Opinion {
    match UdpSlice::from_slice(payload) {
        // A length of 0 is for jumbograms only (RFC 2675, section 4), which etherparse does not ask for.
        Ok(udp) if udp.length() != 0 => Opinion::Flow(Seen {
            from: SocketAddr::new(from, udp.source_port()),
            to: SocketAddr::new(to, udp.destination_port()),
            protocol: ip_number::UDP.0,
            flags: 0,
            length: udp.slice().len(),
            checksum: udp.checksum(),
        }),
        _ => Opinion::Malformed(Reason::MalformedTransport),
    }
}
