//! The Ethernet header of the way out.

use crate::packet::{Frame, double, put_double, put_word, word};

/// Destination and source MAC address as words, as they lie in memory: bytes would be copied one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Macs(u64, u32);

impl From<&[u8; 12]> for Macs {
    #[inline(always)]
    fn from(bytes: &[u8; 12]) -> Self {
        Self(double(bytes, 0), word(bytes, 8))
    }
}

impl Macs {
    /// Destination and source, the other way round.
    #[inline(always)]
    #[must_use]
    pub const fn swapped(self) -> Self {
        let ([a, b, c, d, e, f, g, h], [i, j, k, l]) = (self.0.to_ne_bytes(), self.1.to_ne_bytes());
        Self(u64::from_ne_bytes([g, h, i, j, k, l, a, b]), u32::from_ne_bytes([c, d, e, f]))
    }

    /// Writes them to the start of a header.
    #[inline(always)]
    pub(crate) const fn write<const N: usize>(self, header: &mut [u8; N]) {
        put_double(header, 0, self.0);
        put_word(header, 8, self.1);
    }

    /// Whether there are none.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.0 | self.1 as u64 == 0
    }
}

/// Writes destination and source MAC addresses. `None`: no whole header.
#[inline(always)]
pub fn redirect<F: Frame + ?Sized>(frame: &mut F, macs: Macs) -> Option<()> {
    macs.write(frame.at_mut::<12>(0)?);
    Some(())
}
