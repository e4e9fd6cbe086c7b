//! ICMP messages, built from scratch by `etherparse` like [`crate::frame`], which is included by path beside this.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{PacketBuilder, PacketBuilderStep, VlanId};

use crate::frame::{FROM_CLIENT, Flow, Macs};

/// An echo request or reply, in words.
#[derive(Clone, Debug)]
pub struct Ping {
    /// MAC addresses.
    pub macs: Macs,
    /// VLAN tags.
    pub tags: Vec<u16>,
    /// Source.
    pub from: IpAddr,
    /// Destination, of the same family.
    pub to: IpAddr,
    /// Time to live.
    pub ttl: u8,
    /// Whether it is a reply.
    pub reply: bool,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Ping {
    /// A client's.
    pub fn new(from: IpAddr, to: IpAddr) -> Self {
        Self {
            macs: FROM_CLIENT,
            tags: Vec::new(),
            from,
            to,
            ttl: 57,
            reply: false,
            payload: b"abcdefghijklmnopqrstuvw".to_vec(),
        }
    }

    /// What it is answered with.
    #[must_use]
    pub fn answered(&self) -> Self {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = self.macs;
        let macs = [s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5];
        Self { macs, from: self.to, to: self.from, ttl: 64, reply: true, ..self.clone() }
    }

    /// The frame, every checksum complete.
    ///
    /// # Panics
    /// When the ends are of two families, or there are more than two tags.
    pub fn build(&self) -> Vec<u8> {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = self.macs;
        let eth = PacketBuilder::ethernet2([s0, s1, s2, s3, s4, s5], [d0, d1, d2, d3, d4, d5]);
        let id = |tag: u16| VlanId::try_new(tag).expect("12 bits");
        let mut frame = Vec::new();
        let written = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ip = match self.tags[..] {
                    [] => eth.ipv4(from.octets(), to.octets(), self.ttl),
                    [one] => eth.single_vlan(id(one)).ipv4(from.octets(), to.octets(), self.ttl),
                    [one, two] => {
                        eth.double_vlan(id(one), id(two)).ipv4(from.octets(), to.octets(), self.ttl)
                    }
                    _ => panic!("at most two tags"),
                };
                let icmp = if self.reply { ip.icmpv4_echo_reply(7, 3) } else { ip.icmpv4_echo_request(7, 3) };
                icmp.write(&mut frame, &self.payload)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let ip: PacketBuilderStep<etherparse::IpHeaders> = match self.tags[..] {
                    [] => eth.ipv6(from.octets(), to.octets(), self.ttl),
                    [one] => eth.single_vlan(id(one)).ipv6(from.octets(), to.octets(), self.ttl),
                    [one, two] => {
                        eth.double_vlan(id(one), id(two)).ipv6(from.octets(), to.octets(), self.ttl)
                    }
                    _ => panic!("at most two tags"),
                };
                let icmp = if self.reply { ip.icmpv6_echo_reply(7, 3) } else { ip.icmpv6_echo_request(7, 3) };
                icmp.write(&mut frame, &self.payload)
            }
            _ => panic!("a ping of two families"),
        };
        written.expect("a packet that can be written");
        frame
    }

    /// Offset of the ICMP header.
    pub fn icmp(&self) -> usize {
        14 + 4 * self.tags.len() + if self.from.is_ipv4() { 20 } else { 40 }
    }
}

/// An error, in words.
#[derive(Clone, Debug)]
pub struct Failure {
    /// MAC addresses.
    pub macs: Macs,
    /// Source.
    pub from: IpAddr,
    /// Destination, of the same family.
    pub to: IpAddr,
    /// Type and code.
    pub kind: [u8; 2],
    /// What follows the checksum: an MTU, a pointer.
    pub rest: [u8; 4],
    /// What is embedded.
    pub about: Vec<u8>,
}

impl Failure {
    /// A router's error, destination or port unreachable, about a packet that somebody sent.
    pub fn about(flow: &Flow) -> Self {
        let v6 = flow.from.is_ipv6();
        Self {
            macs: FROM_CLIENT,
            from: if v6 {
                Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into()
            } else {
                [203, 0, 113, 1].into()
            },
            to: flow.from.ip(),
            kind: if v6 { [1, 4] } else { [3, 3] },
            rest: [0; 4],
            about: flow.build().split_off(14),
        }
    }

    /// Only so many bytes of the transport header and what it carries are kept.
    #[must_use]
    pub fn keeping(mut self, bytes: usize) -> Self {
        let header = if self.to.is_ipv4() { 20 } else { 40 };
        self.about.truncate(header + bytes);
        self
    }

    /// Of a checksum that was cut in half nothing can be corrected: what is left of it stays as it was in `original`.
    #[must_use]
    pub fn half_of(mut self, flow: &Flow, original: &Self) -> Self {
        let half = flow.checksum_at() - 14;
        if self.about.len() == half + 1 {
            self.about[half] = original.about[half];
        }
        self
    }

    /// The same through a next hop.
    #[must_use]
    pub fn macs(mut self, macs: Macs) -> Self {
        self.macs = macs;
        self
    }

    /// The frame, every checksum complete.
    ///
    /// # Panics
    /// When the ends are of two families.
    pub fn build(&self) -> Vec<u8> {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = self.macs;
        let eth = PacketBuilder::ethernet2([s0, s1, s2, s3, s4, s5], [d0, d1, d2, d3, d4, d5]);
        let ([kind, code], mut frame) = (self.kind, Vec::new());
        let written = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ip = eth.ipv4(from.octets(), to.octets(), 61);
                ip.icmpv4_raw(kind, code, self.rest).write(&mut frame, &self.about)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let ip = eth.ipv6(from.octets(), to.octets(), 61);
                ip.icmpv6_raw(kind, code, self.rest).write(&mut frame, &self.about)
            }
            _ => panic!("an error of two families"),
        };
        written.expect("a packet that can be written");
        frame
    }
}
