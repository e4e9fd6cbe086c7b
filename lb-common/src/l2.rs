//! The Ethernet header of the way out.

use crate::packet::Frame;

/// Writes destination and source MAC addresses. `None`: no whole header.
#[inline(always)]
pub fn redirect<F: Frame + ?Sized>(frame: &mut F, macs: &[u8; 12]) -> Option<()> {
    *frame.at_mut::<12>(0)? = *macs;
    Some(())
}
