//! `REVERSE`: from a NAT backend's endpoint to the service it answers for.

use super::{Correction, Key, abi};
use crate::addr::Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One NAT backend, found by the source of its replies: a cache line of a two-choice table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReverseEntry {
    /// The backend's address, port and protocol. `key.tag` is written last.
    pub key: Key,
    /// Row of `REASONS` of the service.
    pub service: u32,
    /// Row of `COUNTERS` of the backend.
    pub counters: u32,
    /// The service's address: what the client sees as source.
    pub vip: Addr,
    /// The service's port in network order; the first of several, 0: the packet's stays.
    pub port: u16,
    /// [`Key::sum`] of its key: what is known beforehand of each packet's pseudo-header.
    pub sum: u16,
    /// What rewriting from the backend's endpoint to the service's does to checksums.
    pub correction: Correction,
    /// The first of several ports of the backend, in network order.
    pub first: u16,
    /// Always zero.
    pub pad: u16,
    /// Room for what comes.
    pub reserved: [u32; 2],
}
abi!(ReverseEntry, 64);
