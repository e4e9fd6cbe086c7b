//! `COUNTERS` and `REASONS`: what the program counts, a row for each CPU.

use super::abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Reasons that have room in a row.
pub const REASON_SLOTS: usize = 64;

/// What a backend received and sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BackendCounters {
    /// Packets towards the backend.
    pub packets: u64,
    /// Bytes of the frames towards the backend.
    pub bytes: u64,
    /// New flows: TCP SYNs, and first packets of what has an entry.
    pub flows: u64,
    /// Packets from the backend to clients (NAT only: direct returns are not seen).
    pub back_packets: u64,
    /// Bytes of the frames from the backend to clients.
    pub back_bytes: u64,
    /// Room for what comes.
    pub reserved: [u64; 3],
}
abi!(BackendCounters, 64);

/// How many packets left for each [`crate::reason::Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReasonCounters {
    /// Indexed by the reason's number.
    pub counts: [u64; REASON_SLOTS],
}
abi!(ReasonCounters, 512);
