//! `ROUTES`: the way back to clients, compiled from the kernel's routing table.
//!
//! The table holds two generations, each with [`super::limits::ROUTES_PER_FAMILY`] entries for IPv4 and as many for
//! IPv6, longest prefix first. The agent fills the idle generation and then flips [`super::Settings::routes`].

use super::abi;
use crate::addr::Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Values of [`RouteEntry::kind`].
pub mod kind {
    /// No route here or after here: ask the kernel.
    pub const END: u32 = 0;
    /// Through a gateway whose MAC stands in the entry.
    pub const GATEWAY: u32 = 1;
    /// The destination is on the link: look in `NEIGHBOURS`.
    pub const ON_LINK: u32 = 2;
    /// The kernel must be asked (several paths, an unresolved gateway, a route that cannot be compiled).
    pub const ASK: u32 = 3;
}

/// One route: a cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RouteEntry {
    /// The prefix, host bits zero.
    pub prefix: Addr,
    /// The mask, network order.
    pub mask: Addr,
    /// What to do, see [`kind`].
    pub kind: u32,
    /// Interface that the route leaves through.
    pub ifindex: u32,
    /// MAC of the gateway, then MAC of the interface.
    pub macs: [u8; 12],
    /// Largest IP packet on the way, bytes.
    pub mtu: u32,
    /// Room for what comes.
    pub reserved: [u32; 2],
}
abi!(RouteEntry, 64);
