//! Ethernet II: destination, source, ethertype (IEEE 802.3, clause 3.2.6).

use super::{Frame, half};
use crate::reason::Reason;

/// Length of the header, bytes.
pub const LEN: usize = 14;
/// IPv4, as it lies in memory.
pub const IPV4: u16 = 0x0800_u16.to_be();
/// IPv6, as it lies in memory.
pub const IPV6: u16 = 0x86dd_u16.to_be();
/// A customer VLAN tag (IEEE 802.1Q), as it lies in memory.
pub const VLAN: u16 = 0x8100_u16.to_be();
/// A service VLAN tag (IEEE 802.1ad), as it lies in memory.
pub const SERVICE_VLAN: u16 = 0x88a8_u16.to_be();

/// What the frame carries, as it lies in memory; `None`: no whole header.
#[inline(always)]
pub fn ethertype<F: Frame + ?Sized>(frame: &F) -> Option<u16> {
    frame.at::<2>(LEN - 2).map(|field| half(field, 0))
}

/// Whether this ethertype is that of a tag.
#[inline(always)]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == SERVICE_VLAN
}

/// Why a frame that carries neither IPv4 nor IPv6 is not ours.
#[inline(always)]
pub const fn reason(ethertype: u16) -> Reason {
    if is_tag(ethertype) { Reason::Vlan } else { Reason::NotIp }
}
