//! Internet checksums (RFC 1071) and their incremental update (RFC 1624).
//!
//! Words are summed as they lie in memory and results are stored the same way: RFC 1071, section 2(B), shows that the
//! sum does not depend on byte order, so nothing here swaps bytes. Sums are kept in 64 bits and folded once at the end;
//! a 32-bit word may be added whole, because 2^16 = 1 modulo 2^16 - 1.

use crate::addr::{Addr, Family};

/// Folds a sum into 16 bits with end-around carry.
///
/// Each half is added to the other at once: the upper half of the result is their sum, with the lower one's carry.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// Whether a sum folds to `checksum`, where 0 and 0xffff are the same.
///
/// 2^16 - 1 divides their difference then. Division by multiplication (Lemire, Kaser and Kurz 2019, section 3.3): half
/// the instructions of folding.
#[inline(always)]
pub const fn same(sum: u64, checksum: u16) -> bool {
    const DIVISOR: u64 = 0xffff;
    /// The inverse of the divisor modulo 2^64: (2^16 - 1) * -(1 + 2^16 + 2^32 + 2^48) = 1 - 2^64.
    const INVERSE: u64 = 0x0001_0001_0001_0001_u64.wrapping_neg();
    const { assert!(DIVISOR.wrapping_mul(INVERSE) == 1) };
    let difference = sum + (DIVISOR - checksum as u64);
    difference.wrapping_mul(INVERSE) <= u64::MAX / DIVISOR
}

/// Sum of the words of an address: one for IPv4, four for IPv6.
#[inline(always)]
const fn words(family: Family, addr: &Addr) -> u64 {
    match family {
        Family::V4 => addr.last() as u64,
        Family::V6 => four_words(addr),
    }
}

#[inline(always)]
const fn four_words(addr: &Addr) -> u64 {
    let [a, b] = addr.halves();
    (a as u32 as u64 + (a >> 32)) + (b as u32 as u64 + (b >> 32))
}

/// What replacing some words does to a checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Nothing replaced yet.
    pub const NONE: Self = Self(0);

    /// Replaces a 32-bit word that starts at an even offset.
    #[inline(always)]
    pub const fn word(self, old: u32, new: u32) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Replaces a 16-bit word.
    #[inline(always)]
    pub const fn half(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Replaces an address: one word for IPv4, four for IPv6.
    #[inline(always)]
    pub fn addr(self, old: &Addr, new: &Addr) -> Self {
        if old.is_v4() {
            return self.word(old.last(), new.last());
        }
        // The complements of all old words at once; their sum is at hand, for it was needed before.
        Self(self.0 + (4 * u32::MAX as u64 - four_words(old)) + four_words(new))
    }

    /// The same in 16 bits, for [`correct`].
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The updated checksum: `HC' = ~(~HC + ~m + m')`, RFC 1624, section 3, equation 3.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(!checksum as u64 + self.0)
    }
}

/// The checksum after a change that was folded before: `HC' = ~(~HC + ~m + m')`, RFC 1624, section 3, equation 3.
#[inline(always)]
pub const fn correct(checksum: u16, by: u16) -> u16 {
    !add(!checksum, by)
}

/// Adds with end-around carry: also the new value of a field that holds a plain sum, an unfinished checksum.
#[inline(always)]
pub const fn add(sum: u16, by: u16) -> u16 {
    let sum = sum as u32 + by as u32;
    (sum + (sum >> 16)) as u16
}

/// Sum of the pseudo-header: RFC 9293, section 3.1 (TCP), RFC 768 (UDP), RFC 8200, section 8.1 (IPv6).
///
/// `length` is that of the transport header and payload, host order.
#[inline(always)]
pub const fn pseudo(family: Family, src: &Addr, dst: &Addr, protocol: u8, length: u16) -> u64 {
    known(family, dst, protocol) + unknown(family, src, length)
}

/// The part of [`pseudo`] that is known before a packet comes: one address, and the protocol.
#[inline(always)]
pub const fn known(family: Family, addr: &Addr, protocol: u8) -> u64 {
    words(family, addr) + u16::to_be(protocol as u16) as u64
}

/// The rest of [`pseudo`]: the other address, and the length.
#[inline(always)]
pub const fn unknown(family: Family, addr: &Addr, length: u16) -> u64 {
    // The IPv6 pseudo-header has a 32-bit length; it sums up as in the IPv4 one.
    words(family, addr) + u16::to_be(length) as u64
}

/// Sum of bytes as 16-bit words in memory order; a last odd byte is padded with zero (RFC 1071, section 1).
pub fn sum(bytes: &[u8]) -> u64 {
    let mut sum = 0_u64;
    let mut pairs = bytes.chunks_exact(2);
    for pair in &mut pairs {
        sum += u16::from_ne_bytes([pair[0], pair[1]]) as u64;
    }
    if let [last] = pairs.remainder() {
        sum += u16::from_ne_bytes([*last, 0]) as u64;
    }
    sum
}

/// UDP sends an all-zero result as all ones: zero means "no checksum" (RFC 768).
#[inline(always)]
pub const fn udp(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of RFC 1071, section 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2.
    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)).to_be(), 0xddf2);
    }

    /// Folding, as RFC 1071 writes it in section 4.1.
    fn folded_step_by_step(mut sum: u64) -> u16 {
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn zero_and_all_ones_are_the_same_sum() {
        assert!(same(0, 0) && same(0, 0xffff) && same(0xffff, 0) && same(2 * 0xffff, 0xffff));
        assert!(!same(1, 0) && !same(0xfffe, 0xffff) && same(0x1_0000, 1));
    }

    /// The example of RFC 1624, section 4: HC = dd2f, m = 5555 becomes m' = 3285, HC' = 0000.
    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(Delta::NONE.half(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn fold_takes_the_largest_sums() {
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0), 0);
        assert_eq!(fold(0x1_0000), 1);
        assert_eq!(fold(0xffff_ffff), 0xffff);
    }

    proptest! {
        #[test]
        fn sums_are_folded_and_compared_at_once(sum in 0_u64..1 << 40, other: u16) {
            let folded = folded_step_by_step(sum);
            prop_assert_eq!(fold(sum), folded);
            prop_assert!(same(sum, folded));
            prop_assert_eq!(same(sum, other), other % 0xffff == folded % 0xffff);
        }

        /// Updating after any replacement gives what a full sum gives. The two zeros of ones' complement are one value.
        #[test]
        fn incremental_equals_full(mut bytes in proptest::collection::vec(any::<u8>(), 8..200), at in 0_usize..40, new in any::<u32>()) {
            if bytes.iter().all(|b| *b == 0) { bytes[0] = 1; }
            let at = (at * 2).min(bytes.len() - 4) & !1;
            let before = !fold(sum(&bytes));
            let old = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&new.to_ne_bytes());
            let full = !fold(sum(&bytes));
            let delta = Delta::NONE.word(old, new);
            let updated = delta.apply(before);
            prop_assert_eq!(correct(before, delta.folded()), updated);
            prop_assert!(updated == full || (updated == 0 && full == 0xffff) || (updated == 0xffff && full == 0));
            // What a receiver checks: the sum over everything with the checksum is all ones.
            prop_assert_eq!(fold(sum(&bytes) + updated as u64), 0xffff);
        }

        #[test]
        fn sums_can_be_split_at_even_offsets(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..150) {
            let at = (at * 2).min(bytes.len() & !1);
            prop_assert_eq!(fold(sum(&bytes)), fold(sum(&bytes[..at]) + sum(&bytes[at..])));
        }
    }
}
