//! Addresses in the order they have on the wire.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv6 address, or an IPv4 address mapped into `::ffff:0:0/96` (RFC 4291, section 2.5.5.2).
///
/// Four words as they are loaded from a packet: network order in memory, never swapped in the kernel.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Addr([u32; 4]);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The words before a mapped IPv4 address.
const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

/// Two words that follow each other in memory, as one.
#[inline(always)]
pub(crate) const fn pair(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 32
    } else {
        (first as u64) << 32 | second as u64
    }
}

/// What [`pair`] was made of.
#[inline(always)]
const fn words(pair: u64) -> [u32; 2] {
    if cfg!(target_endian = "little") {
        [pair as u32, (pair >> 32) as u32]
    } else {
        [(pair >> 32) as u32, pair as u32]
    }
}

impl Addr {
    /// An IPv4 address from the word that stands in the packet.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([MAPPED[0], MAPPED[1], MAPPED[2], word])
    }

    /// An address from its four words, as they stand in the packet.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// Its four words, as they stand in the packet.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }

    /// An address from its halves, as they stand in the packet.
    #[inline(always)]
    pub const fn from_halves([first, last]: [u64; 2]) -> Self {
        let ([a, b], [c, d]) = (words(first), words(last));
        Self([a, b, c, d])
    }

    /// Both halves, as they stand in the packet.
    #[inline(always)]
    pub const fn halves(&self) -> [u64; 2] {
        [pair(self.0[0], self.0[1]), pair(self.0[2], self.0[3])]
    }

    /// Whether these halves are those of a mapped IPv4 address.
    #[inline(always)]
    pub(crate) const fn is_mapped([first, last]: [u64; 2]) -> bool {
        first == 0 && words(last)[0] == MAPPED[2]
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == MAPPED[0] && self.0[1] == MAPPED[1] && self.0[2] == MAPPED[2]
    }

    /// Which family it belongs to. Code that a packet runs through knows it already, see
    /// [`crate::packet::Packet::family`].
    #[inline(always)]
    pub const fn family(&self) -> Family {
        if self.is_v4() { Family::V4 } else { Family::V6 }
    }

    /// The last word: for IPv4, the address.
    #[inline(always)]
    pub const fn last(&self) -> u32 {
        self.0[3]
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        zerocopy::transmute!(octets)
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        let octets: [u8; 16] = zerocopy::transmute!(addr);
        if addr.is_v4() {
            Self::V4(Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]))
        } else {
            Self::V6(Ipv6Addr::from(octets))
        }
    }
}

/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_the_wire_and_back() {
        for text in ["192.0.2.1", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::", "::1", "fe80::1:2:3"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Addr::from(ip)), ip);
            assert_eq!(Addr::from(ip).is_v4(), ip.is_ipv4());
        }
    }

    #[test]
    fn a_word_from_a_packet_is_the_address() {
        let word = u32::from_ne_bytes([192, 0, 2, 1]);
        assert_eq!(IpAddr::from(Addr::v4(word)), IpAddr::from([192, 0, 2, 1]));
    }
}
