//! `NEIGHBOURS`: MAC addresses of on-link clients, a copy of the kernel's neighbour table that costs no helper call. This
//! machine's own addresses stand there too, without MAC addresses: what is sent to them is the kernel's.

use super::{Key, abi};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One neighbour: half a cache line of a two-choice table. `key.tag` is the interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NeighbourEntry {
    /// Address and interface. `key.tag` is written last.
    pub key: Key,
    /// MAC of the neighbour, then MAC of the interface; all zero: this machine itself.
    pub macs: [u8; 12],
}
abi!(NeighbourEntry, 32);
