//! Frames, built from scratch by `etherparse`: what is sent, and what is expected to come out.
//!
//! An expectation is the same [`Flow`] with other ends and other MAC addresses, built anew. Nothing of `lb-common` is
//! used here: the tests of that crate include this file, and `oracle`, by path.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;

/// TCP's protocol number (IANA, "Assigned Internet Protocol Numbers").
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;

/// Destination, then source, as they stand in a frame.
pub type Macs = [u8; 12];

/// MACs of a frame from a client to the balancer.
pub const FROM_CLIENT: Macs = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

/// Which packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP SYN; of UDP any datagram.
    Syn,
    /// A TCP segment with data; of UDP any datagram.
    Data,
    /// A TCP segment with FIN.
    Fin,
    /// A TCP segment with RST.
    Rst,
}

/// A packet of a flow, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// MAC addresses.
    pub macs: Macs,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Source.
    pub from: SocketAddr,
    /// Destination, of the same family.
    pub to: SocketAddr,
    /// Which packet.
    pub kind: Kind,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Flow {
    /// A client's first packet with a few bytes in it.
    pub fn new(protocol: u8, from: SocketAddr, to: SocketAddr) -> Self {
        Self { macs: FROM_CLIENT, protocol, from, to, kind: Kind::Syn, payload: b"hello, world".to_vec() }
    }

    /// The same with another payload.
    #[must_use]
    pub fn carrying(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// A later packet of the same flow.
    #[must_use]
    pub fn data(mut self) -> Self {
        self.kind = Kind::Data;
        self
    }

    /// The same to another destination, through a next hop.
    #[must_use]
    pub fn sent_to(mut self, to: SocketAddr, macs: Macs) -> Self {
        (self.to, self.macs) = (to, macs);
        self
    }

    /// The same from another source, through a next hop.
    #[must_use]
    pub fn sent_from(mut self, from: SocketAddr, macs: Macs) -> Self {
        (self.from, self.macs) = (from, macs);
        self
    }

    /// The answer of whoever got it.
    #[must_use]
    pub fn answered(&self) -> Self {
        let mut answer = Self::new(self.protocol, self.to, self.from).data();
        answer.payload = b"hello yourself".to_vec();
        answer
    }

    /// The frame, every checksum complete.
    ///
    /// # Panics
    /// When the ends are of two families.
    pub fn build(&self) -> Vec<u8> {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = self.macs;
        let eth = PacketBuilder::ethernet2([s0, s1, s2, s3, s4, s5], [d0, d1, d2, d3, d4, d5]);
        let ip = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => eth.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => eth.ipv6(from.octets(), to.octets(), 64),
            _ => panic!("a flow of two families"),
        };
        let mut frame = Vec::new();
        let written = match (self.protocol, self.kind) {
            (UDP, _) => ip.udp(self.from.port(), self.to.port()).write(&mut frame, &self.payload),
            (_, kind) => {
                let tcp = ip.tcp(self.from.port(), self.to.port(), 1000, 4096);
                let tcp = match kind {
                    Kind::Syn => tcp.syn(),
                    Kind::Data => tcp.ack(1).psh(),
                    Kind::Fin => tcp.ack(1).fin(),
                    Kind::Rst => tcp.rst(),
                };
                tcp.write(&mut frame, &self.payload)
            }
        };
        written.expect("a packet that can be written");
        frame
    }

    /// Offset of the transport header.
    pub fn transport(&self) -> usize {
        if self.from.is_ipv4() { 34 } else { 54 }
    }

    /// Offset of the transport checksum.
    pub fn checksum_at(&self) -> usize {
        self.transport() + if self.protocol == UDP { 6 } else { 16 }
    }
}

/// Puts a 16-bit field in network order.
pub fn put(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The 16-bit field in network order at an offset.
pub fn get(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}
