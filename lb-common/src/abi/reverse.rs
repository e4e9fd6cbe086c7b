//! `REVERSE`: from a NAT backend's endpoint to the service it answers for.

use super::{Key, abi};
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
    /// The service's port in network order.
    pub port: u16,
    /// Always zero.
    pub pad: u16,
    /// Room for what comes.
    pub reserved: [u32; 4],
}
abi!(ReverseEntry, 64);
