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
    /// Whether there are none.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.0 | self.1 as u64 == 0
    }
}

/// Writes destination and source MAC addresses. `None`: no whole header.
#[inline(always)]
pub fn redirect<F: Frame + ?Sized>(frame: &mut F, Macs(first, last): Macs) -> Option<()> {
    let header = frame.at_mut::<12>(0)?;
    put_double(header, 0, first);
    put_word(header, 8, last);
    Some(())
}
