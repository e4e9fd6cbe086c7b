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
    /// Index into the service's backends; bit 31 ([`CLOSING`]) is set when the client has sent a FIN or RST since it last
    /// sent data. Such an entry is used as any other, but forgotten after [`CLOSING_NS`] of silence: a RST that anybody
    /// may have sent takes away nothing at once.
    pub backend: u32,
    /// [`super::BackendEntry::generation`] when the entry was made; another one means the backend was replaced.
    pub generation: u32,
    /// When the entry was made, ns of the monotonic clock.
    pub made: u64,
    /// When a packet last used it, ns of the monotonic clock, to about a second.
    pub seen: u64,
}
abi!(FlowValue, 24);

/// Bit of [`FlowValue::backend`]: the client is closing its connection.
pub const CLOSING: u32 = 1 << 31;
/// How long a closing flow may be silent, ns: what TCP waits in TIME-WAIT on Linux (`TCP_TIMEWAIT_LEN`).
pub const CLOSING_NS: u64 = 60_000_000_000;

impl FlowValue {
    /// Index into the service's backends.
    #[inline(always)]
    pub const fn index(&self) -> u32 {
        self.backend & !CLOSING
    }

    /// Whether the client is closing the connection.
    #[inline(always)]
    pub const fn closing(&self) -> bool {
        self.backend & CLOSING != 0
    }

    /// The same flow, closing or not.
    #[inline(always)]
    #[must_use]
    pub const fn with_closing(self, closing: bool) -> Self {
        Self { backend: if closing { self.index() | CLOSING } else { self.index() }, ..self }
    }
}

/// How late the program's clock may be, ns: it may be read where it stood at the last tick, at 100 ticks a second at worst
/// (`CONFIG_HZ`).
pub const CLOCK_LAG_NS: u64 = 20_000_000;

/// An entry's `seen` is refreshed when it is older than this, ns: a store per second and flow, not per packet.
pub const REFRESH_NS: u64 = 1_000_000_000;
