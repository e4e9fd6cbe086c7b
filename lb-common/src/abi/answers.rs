//! `ANSWERS`: how many packets each CPU made itself in this second.

use super::abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Answers of a CPU in a second: as many as Linux sends ICMP messages in all (`net.ipv4.icmp_msgs_per_sec`).
pub const A_SECOND: u64 = 1000;

/// The one entry of `ANSWERS`, for each CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Answers {
    /// The second of the monotonic clock.
    pub second: u64,
    /// Answers sent in it, and refused.
    pub sent: u64,
}
abi!(Answers, 16);
