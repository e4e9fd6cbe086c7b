//! `RINGS`: slots in cache lines. An element of an array map is padded to 8 bytes, so a slot is never an element.

use super::abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Slots in a line.
pub const SLOTS_PER_LINE: u32 = 16;

/// Sixteen slots, see [`crate::slot::Slot`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RingLine {
    /// The slots; each is read and written as one word.
    pub slots: [u32; SLOTS_PER_LINE as usize],
}
abi!(RingLine, 64);

/// Lines that a ring of `slots` occupies.
pub const fn lines(slots: u32) -> u32 {
    slots.div_ceil(SLOTS_PER_LINE)
}
