//! `RANGES`: which ranges of ports there are at an address, for one protocol.
//!
//! An entry holds two lists, of which one is in force: the agent writes the idle one and then flips [`RangesEntry::bank`],
//! so that a packet sees the old ranges or the new ones. What a range belongs to lies in `SERVICES` or `REVERSE`, under a
//! key with [`super::tag::WIDE`] whose port is the range's first.

use super::{Key, abi};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Ranges of one address and protocol, every port being one of them.
pub const PER_ADDRESS: usize = 16;

/// Every port: what is looked at when no range holds one.
pub const ANY: u32 = 0xffff;

/// The ranges at an address, found by [`Key::ranges`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RangesEntry {
    /// Address and protocol. `key.tag` is written last, together with `bank`.
    pub key: Key,
    /// The list that is in force: 0 or 1.
    pub bank: u32,
    /// Two lists: `first << 16 | last` in the order in which they are looked at; 0 is no range.
    pub lists: [[u32; PER_ADDRESS]; 2],
    /// Room for what comes.
    pub reserved: [u32; 2],
}
abi!(RangesEntry, 160);

impl RangesEntry {
    /// The list that is in force.
    #[inline(always)]
    pub const fn list(&self) -> &[u32; PER_ADDRESS] {
        &self.lists[(self.bank & 1) as usize]
    }
}

/// A range as one word.
pub const fn word(first: u16, last: u16) -> u32 {
    (first as u32) << 16 | last as u32
}

/// First and last port of a word.
#[inline(always)]
pub const fn ends(word: u32) -> (u16, u16) {
    ((word >> 16) as u16, word as u16)
}
