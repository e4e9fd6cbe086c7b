//! `EXPLAIN`: the answer of the program that explains.

use super::abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Nothing stands in this field of a [`Report`].
pub const NONE: u32 = u32::MAX;

/// How a packet was decided. Fields that were not reached hold [`NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Report {
    /// Number of the [`crate::reason::Reason`].
    pub reason: u32,
    /// [`super::ServiceEntry::id`], or 0 for no service.
    pub service: u32,
    /// Slot of the ring.
    pub slot: u32,
    /// The slot's word, see [`crate::slot::Slot`].
    pub word: u32,
    /// Index into the service's backends.
    pub backend: u32,
    /// How the backend was chosen, see [`crate::select::How`].
    pub how: u32,
    /// Row of `COUNTERS`, set also on the way back.
    pub counters: u32,
    /// Interface that the packet leaves through.
    pub egress: u32,
}
abi!(Report, 32);

impl Report {
    /// A report in which nothing was reached.
    pub const EMPTY: Self = Self {
        reason: NONE,
        service: 0,
        slot: NONE,
        word: NONE,
        backend: NONE,
        how: NONE,
        counters: NONE,
        egress: NONE,
    };
}
