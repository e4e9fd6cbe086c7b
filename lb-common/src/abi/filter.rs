//! `FILTER`: a bit that spares most packets the look into `REVERSE`.
//!
//! A machine that balances also forwards, and answers, for others. Each of those packets would look for its source among
//! the backends, in a table larger than the nearest caches. This page of bits stays in them: a Bloom filter with one hash
//! (Bloom 1970), which the place in the table is made from too.

use super::abi;
use crate::addr::Addr;
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
    /// Bits of addresses that `RANGES` holds for destinations, and for sources, by [`Self::wide_bit`]. Without a bit in the
    /// first no service listens on a range, and nobody looks further.
    pub wide: [u64; 2],
}
abi!(Filter, 4112);

impl Filter {
    /// Nothing is held.
    pub const EMPTY: Self = Self { words: [0; WORDS], wide: [0; 2] };

    /// The bit of a hash.
    #[inline(always)]
    pub const fn bit(hash: u64) -> u32 {
        (hash >> (u64::BITS - BITS.ilog2())) as u32
    }

    /// The bit of an address in [`Self::wide`].
    #[inline(always)]
    pub const fn wide_bit(addr: &Addr) -> u32 {
        // The golden ratio: neighbours in a network get different bits.
        u32::from_be(addr.last()).wrapping_mul(0x9e37_79b1) >> 26
    }

    /// Whether a packet from and to these addresses may belong to a range of ports.
    #[inline(always)]
    pub const fn may_be_wide(&self, dst: &Addr, src: &Addr) -> bool {
        let [services, ways] = self.wide;
        services != 0 && (services >> Self::wide_bit(dst) | ways >> Self::wide_bit(src)) & 1 != 0
    }

    /// Whether a key with this hash may be held.
    #[inline(always)]
    pub const fn may_hold(&self, hash: u64) -> bool {
        let bit = Self::bit(hash);
        self.words[(bit / u64::BITS) as usize % WORDS] >> (bit % u64::BITS) & 1 != 0
    }
}
