//! `BACKENDS`: where packets go.

use super::{Correction, abi};
use crate::addr::Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`BackendEntry::flags`].
pub mod flags {
    /// Not down and not removed: flows that are on it may stay.
    pub const REACHABLE: u16 = 1 << 0;
    /// Active and up: new flows may come.
    pub const SELECTABLE: u16 = 1 << 1;
    /// The next hop is known.
    pub const RESOLVED: u16 = 1 << 2;
}

/// One backend: a cache line. Bytes 16 to 27 are the start of the Ethernet header that goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BackendEntry {
    /// Its address.
    pub addr: Addr,
    /// MAC of the next hop, then MAC of the interface that it is reached through.
    pub macs: [u8; 12],
    /// Interface that it is reached through.
    pub ifindex: u32,
    /// Port in network order; 0 keeps the packet's.
    pub port: u16,
    /// State, see [`flags`]. Written last.
    pub flags: u16,
    /// Tells this occupant of the entry from earlier ones; never 0 in use.
    pub generation: u32,
    /// Row of `COUNTERS`: stays with the backend for its life.
    pub counters: u32,
    /// Largest IP packet on the way to it, bytes.
    pub mtu: u32,
    /// What rewriting from the service's endpoint to this one does to checksums.
    pub correction: Correction,
    /// Room for what comes.
    pub reserved: [u32; 3],
}
abi!(BackendEntry, 64);

impl BackendEntry {
    /// Whether flows that are on it may stay.
    #[inline(always)]
    pub const fn reachable(&self) -> bool {
        self.flags & flags::REACHABLE != 0
    }

    /// Whether it takes new flows.
    #[inline(always)]
    pub const fn selectable(&self) -> bool {
        self.flags & flags::SELECTABLE != 0
    }

    /// Whether its next hop is known.
    #[inline(always)]
    pub const fn resolved(&self) -> bool {
        self.flags & flags::RESOLVED != 0
    }
}
