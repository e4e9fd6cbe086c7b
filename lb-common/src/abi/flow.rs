//! `FLOWS` and `EMBRYONIC`: the exceptions to the ring.

use super::abi;
use crate::addr::Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A flow, as the client sends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey {
    /// The client's address.
    pub client: Addr,
    /// Source port, then destination port, both in network order, as they stand in the packet.
    pub ports: [u16; 2],
    /// [`super::ServiceEntry::id`]: stands for the service's address and the protocol.
    pub service: u32,
}
abi!(FlowKey, 24);

/// Where a flow goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowValue {
    /// Index into the service's backends.
    pub backend: u32,
    /// [`super::BackendEntry::generation`] when the entry was made; another one means the backend was replaced.
    pub generation: u32,
    /// When the entry was made, ns of the monotonic clock.
    pub made: u64,
    /// When a packet last used it, ns of the monotonic clock, to about a second.
    pub seen: u64,
}
abi!(FlowValue, 24);

/// An entry's `seen` is refreshed when it is older than this, ns: a store per second and flow, not per packet.
pub const REFRESH_NS: u64 = 1_000_000_000;
