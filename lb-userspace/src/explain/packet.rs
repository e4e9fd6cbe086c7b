//! A tuple → the frame that a client would send, with right lengths and checksums.

use crate::model::{InvalidText, Protocol};
use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep, TcpHeader, ip_number};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Locally administered addresses (IEEE 802, U/L bit): a frame's MACs play no part in the decision.
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BALANCER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Initial TTL and hop limit of Linux.
const TTL: u8 = 64;

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Flags of TCP.
    pub flags: Flags,
}

/// Flags of a TCP header (RFC 9293, section 3.1): `syn`, `syn,ack`, `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// The first packet of a connection.
    pub const SYN: Self = Self(0x02);

    const NAMES: [(&'static str, u8); 6] =
        [("fin", 0x01), ("syn", 0x02), ("rst", 0x04), ("psh", 0x08), ("ack", 0x10), ("urg", 0x20)];

    const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

impl FromStr for Flags {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        if text == "none" {
            return Ok(Self(0));
        }
        let mut flags = 0;
        for word in text.split([',', '+', '|']) {
            let known = Self::NAMES.iter().find(|(name, _)| word.trim().eq_ignore_ascii_case(name));
            flags |= known.map(|(_, bit)| bit).ok_or_else(|| InvalidText {
                message: format!("\"{word}\" is not a flag of TCP"),
                remedy: "write some of fin,syn,rst,psh,ack,urg, or none".into(),
            })?;
        }
        Ok(Self(flags))
    }
}

/// The Ethernet frame of a tuple, without payload.
///
/// # Errors
///
/// The two addresses are of different families.
pub fn frame(tuple: &Tuple) -> Result<Vec<u8>, InvalidText> {
    let start = PacketBuilder::ethernet2(CLIENT_MAC, BALANCER_MAC);
    let ip = match (tuple.source.ip(), tuple.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            start.ipv4(source.octets(), destination.octets(), TTL)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            start.ipv6(source.octets(), destination.octets(), TTL)
        }
        (source, destination) => {
            return Err(InvalidText {
                message: format!("no packet goes from {source} to {destination}"),
                remedy: "write two IPv4 or two IPv6 addresses".into(),
            });
        }
    };
    let (source, destination) = (tuple.source.port(), tuple.destination.port());
    let mut bytes = Vec::new();
    let written = match tuple.protocol {
        // Any sequence number and window: neither plays a part.
        Protocol::Tcp => {
            with_flags(ip.tcp(source, destination, 1, 64_240), tuple.flags).write(&mut bytes, &[])
        }
        Protocol::Udp => ip.udp(source, destination).write(&mut bytes, &[]),
    };
    written.map_err(|error| InvalidText {
        message: format!("the packet cannot be built: {error}"),
        remedy: "write another tuple".into(),
    })?;
    Ok(bytes)
}

fn with_flags(mut step: PacketBuilderStep<TcpHeader>, flags: Flags) -> PacketBuilderStep<TcpHeader> {
    for (name, bit) in Flags::NAMES {
        if flags.has(bit) {
            step = match name {
                "fin" => step.fin(),
                "syn" => step.syn(),
                "rst" => step.rst(),
                "psh" => step.psh(),
                "ack" => step.ack(1),
                _ => step.urg(0),
            };
        }
    }
    step
}

/// The protocol's name for a number of the IP header.
pub(super) fn protocol_name(number: IpNumber) -> String {
    match number {
        ip_number::TCP => "tcp".into(),
        ip_number::UDP => "udp".into(),
        ip_number::ICMP => "icmp".into(),
        ip_number::IPV6_ICMP => "icmpv6".into(),
        IpNumber(other) => format!("protocol {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    fn tuple(protocol: Protocol, source: &str, destination: &str) -> Tuple {
        Tuple {
            protocol,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            flags: Flags::SYN,
        }
    }

    #[test]
    fn a_frame_says_what_was_asked_and_its_checksums_are_right() {
        for (protocol, source, destination) in [
            (Protocol::Tcp, "198.51.100.7:40000", "192.0.2.10:443"),
            (Protocol::Udp, "198.51.100.7:40000", "192.0.2.10:53"),
            (Protocol::Tcp, "[2001:db8::7]:40000", "[2001:db8::10]:443"),
            (Protocol::Udp, "[2001:db8::7]:40000", "[2001:db8::10]:53"),
        ] {
            let bytes = frame(&tuple(protocol, source, destination)).unwrap();
            let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
            let expected: SocketAddr = destination.parse().unwrap();
            let address = match packet.net.unwrap() {
                NetSlice::Ipv4(ip) => IpAddr::from(ip.header().destination()),
                NetSlice::Ipv6(ip) => IpAddr::from(ip.header().destination()),
                NetSlice::Arp(_) => panic!("ARP"),
            };
            let port = match packet.transport.unwrap() {
                TransportSlice::Tcp(tcp) => tcp.destination_port(),
                TransportSlice::Udp(udp) => udp.destination_port(),
                other => panic!("{other:?}"),
            };
            assert_eq!(SocketAddr::new(address, port), expected);
            assert_eq!(folded_sum(&bytes[14..]), 0xffff, "{protocol:?} {source}");
        }
    }

    /// The sum over pseudo-header and segment: all ones if the checksum is right (RFC 1071, section 1).
    fn folded_sum(ip: &[u8]) -> u16 {
        let (header, addresses) = if ip[0] >> 4 == 4 { (20, 12..20) } else { (40, 8..40) };
        let protocol = if header == 20 { ip[9] } else { ip[6] };
        let segment = &ip[header..];
        let words = ip[addresses].chunks(2).chain(segment.chunks(2));
        let words = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
        let mut sum = u32::from(protocol) + segment.len() as u32 + words.sum::<u32>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn flags_are_those_that_were_asked_for() {
        let mut asked = tuple(Protocol::Tcp, "198.51.100.7:1", "192.0.2.10:2");
        for (text, byte) in [("syn", 0x02), ("syn,ack", 0x12), ("FIN+ACK", 0x11), ("rst", 0x04), ("none", 0)]
        {
            asked.flags = text.parse().unwrap();
            assert_eq!(frame(&asked).unwrap()[14 + 20 + 13], byte, "{text}");
        }
        assert!("sin".parse::<Flags>().unwrap_err().remedy.contains("syn"));
    }

    #[test]
    fn families_do_not_mix() {
        let mixed = tuple(Protocol::Tcp, "198.51.100.7:1", "[2001:db8::1]:2");
        assert!(frame(&mixed).unwrap_err().message.contains("no packet goes from"));
    }
}
