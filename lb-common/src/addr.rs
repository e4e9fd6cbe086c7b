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
pub struct Addr(pub [u32; 4]);

/// Third word of a mapped IPv4 address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Addr {
    /// An IPv4 address from the word that stands in the packet.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
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
