//! `RANGES`: which ranges of ports there are at an address, for one protocol.
//!
//! An entry holds two lists, of which one is in force: the agent writes the idle one and then flips [`RangesEntry::bank`],
//! so that a packet sees the old ranges or the new ones. A range names its service; what belongs to it lies in `SERVICES`
//! or `REVERSE` under a key with [`super::tag::WIDE`] and the service's id, which stays when ranges change.

use super::{Key, abi};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ranges of one address and protocol, every port being one of them.
pub const PER_ADDRESS: usize = 16;

/// The ranges at an address, found by [`Key::ranges`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RangesEntry {
    /// Address and protocol. `key.tag` is written last, together with `bank`.
    pub key: Key,
    /// The list that is in force: 0 or 1.
    pub bank: u32,
    /// Two lists of [`word`]s in the order in which they are looked at; 0 is no range.
    pub lists: [[u64; PER_ADDRESS]; 2],
}
abi!(RangesEntry, 280);

impl RangesEntry {
    /// The list that is in force.
    #[inline(always)]
    pub const fn list(&self) -> &[u64; PER_ADDRESS] {
        &self.lists[(self.bank & 1) as usize]
    }
}

/// A range of a service as one word. Every port is from 0 to 65535.
pub const fn word(first: u16, last: u16, service: u32) -> u64 {
    (service as u64) << 32 | (first as u64) << 16 | last as u64
}

/// First and last port of a word.
#[inline(always)]
pub const fn ends(word: u64) -> (u16, u16) {
    ((word >> 16) as u16, word as u16)
}

/// The service of a word.
#[inline(always)]
pub const fn service(word: u64) -> u32 {
    (word >> 32) as u32
}
