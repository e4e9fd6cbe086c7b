//! `FILTER`: a bit that spares most packets the look into `REVERSE`.
//!
//! A machine that balances also forwards, and answers, for others. Each of those packets would look for its source among
//! the backends, in a table larger than the nearest caches. This page of bits stays in them: a Bloom filter with one hash
//! (Bloom 1970), which the place in the table is made from too.

use super::abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits. With a hundred backends one foreign packet in three hundred looks in vain, with ten thousand one in four.
pub const BITS: u32 = 1 << 15;
/// Words that they stand in.
pub const WORDS: usize = (BITS / u64::BITS) as usize;

/// The one entry of `FILTER`: bits of keys that `REVERSE` holds, by [`crate::table::hash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Filter {
    /// The bits.
    pub words: [u64; WORDS],
}
abi!(Filter, 4096);

impl Filter {
    /// Nothing is held.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// The bit of a hash.
    #[inline(always)]
    pub const fn bit(hash: u64) -> u32 {
        (hash >> (u64::BITS - BITS.ilog2())) as u32
    }

    /// Whether a key with this hash may be held.
    #[inline(always)]
    pub const fn may_hold(&self, hash: u64) -> bool {
        let bit = Self::bit(hash);
        self.words[(bit / u64::BITS) as usize % WORDS] >> (bit % u64::BITS) & 1 != 0
    }
}
