//! `HAND`: what a program leaves for the one that goes on, on the same CPU and for the same packet.

use super::abi;
use crate::addr::{Addr, Family};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`Hand::how`].
pub mod how {
    /// A UDP header goes between the outer IP header and the packet.
    pub const GUE: u32 = 1 << 0;
    /// That header has a checksum.
    pub const CHECKSUM: u32 = 1 << 1;
    /// The flow is counted as new.
    pub const NEW: u32 = 1 << 2;
    /// Bytes of VLAN tags in front of the packet: 0, 4 or 8, shifted.
    pub const TAGS: u32 = 0xc << TAGS_SHIFT;
    /// How far they are shifted.
    pub const TAGS_SHIFT: u32 = 8;
}

/// The one entry of `HAND`, for each CPU: the backend that was chosen, as it stood in the table then.
///
/// Nothing can come between: programs run to their end with interrupts of the network kept out, tail calls and all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Hand {
    /// The backend's address.
    pub addr: Addr,
    /// MAC of the next hop, then ours.
    pub macs: [u8; 12],
    /// The interface that the packet leaves through; `Tables::send` has prepared it.
    pub egress: u32,
    /// Largest IP packet on the way to it, bytes.
    pub mtu: u32,
    /// The backend's row of `COUNTERS`.
    pub counters: u32,
    /// The service's id.
    pub service: u32,
    /// What the flow's packets have in common, see `Packet::entropy`.
    pub entropy: u32,
    /// How to go on, see [`how`].
    pub how: u32,
    /// Room for what comes.
    pub reserved: [u32; 3],
}
abi!(Hand, 64);

impl Hand {
    /// Bytes of VLAN tags in front of the packet.
    #[inline(always)]
    pub const fn tags(&self) -> usize {
        ((self.how & how::TAGS) >> how::TAGS_SHIFT) as usize
    }

    /// The family of the outer header.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        self.addr.family()
    }
}
