//! `SERVICES`: what listens where, and how it is served.

use super::{Key, abi};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`ServiceEntry::flags`].
pub mod flags {
    /// Destination address and port are rewritten; replies come back through the balancer.
    pub const NAT: u32 = 1 << 0;
    /// MAC addresses are rewritten; replies go directly.
    pub const L2: u32 = 1 << 1;
    /// Packets are put into IP packets to the backend; replies go directly.
    pub const IPIP: u32 = 1 << 2;
    /// Packets are put into UDP packets to the backend; replies go directly.
    pub const GUE: u32 = 1 << 3;
    /// Packets are put into others.
    pub const ENCAPSULATES: u32 = IPIP | GUE;
    /// `tracking = always`: every flow has an entry.
    pub const TRACK_ALWAYS: u32 = 1 << 8;
    /// `tracking = never`: no slot is ever looked up.
    pub const TRACK_NEVER: u32 = 1 << 9;
    /// With [`GUE`]: outer UDP headers have a checksum.
    pub const ENCAP_CHECKSUM: u32 = 1 << 10;
}

/// One service: a cache line of a two-choice table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceEntry {
    /// Where it listens. `key.tag` is written last.
    pub key: Key,
    /// Row of `REASONS`, from 1; also the identity in flow keys. Never reused while flows may remain.
    pub id: u32,
    /// First line of its ring in `RINGS`.
    pub ring: u32,
    /// Slots of its ring.
    pub slots: u32,
    /// First of its entries in `BACKENDS`.
    pub backends: u32,
    /// How many entries of `BACKENDS` belong to it, used or not.
    pub capacity: u32,
    /// Seed of the flow hash, from the service's name and the cluster's seed.
    pub seed: u64,
    /// Mode and tracking, see [`flags`].
    pub flags: u32,
    /// [`Key::sum`] of its key: what is known beforehand of each packet's pseudo-header.
    pub sum: u16,
    /// Always zero.
    pub pad: u16,
    /// Row of `COUNTERS` that the agent adds to what backends had counted that are gone.
    pub past: u32,
    /// First and last port in network order if it listens on several: 0 and 65535 for every one.
    pub ports: [u16; 2],
}
abi!(ServiceEntry, 64);
