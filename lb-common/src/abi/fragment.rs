//! `FRAGMENTS`: where the first fragments of datagrams went, so that the others follow them.

use super::abi;
use crate::addr::Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A datagram, by what all of its fragments have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address; the family is in it.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// The identification as it stands in the packet; IPv4 has 16 bits of it.
    pub id: u32,
    /// IPv4's protocol (RFC 791, section 3.2). Zero for IPv6, whose fragments may differ in it (RFC 8200, section 4.5).
    pub protocol: u32,
}
abi!(FragmentKey, 40);

/// Where the first fragment went, and what only it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentValue {
    /// Source port, then destination port, both in network order: they tell the service, and which way the datagram goes.
    pub ports: [u16; 2],
    /// How many bytes of the datagram the first fragment held: others begin behind.
    pub end: u16,
    /// [`crate::addr::TCP`] or [`crate::addr::UDP`].
    pub protocol: u16,
    /// Index into the service's backends; [`crate::slot::NONE`] on the way back.
    pub backend: u32,
    /// [`super::BackendEntry::generation`] then; another one means the backend was replaced. 0 on the way back.
    pub generation: u32,
    /// When the first fragment came, ns of the monotonic clock.
    pub seen: u64,
}
abi!(FragmentValue, 24);

/// How long later fragments may follow, ns: so long Linux waits for them (`net.ipv4.ipfrag_time`). IPv4 identifications
/// come again sooner than one would like (RFC 4963), so not longer.
pub const LIFETIME_NS: u64 = 30_000_000_000;

impl FragmentValue {
    /// Whether it is too old to be followed.
    #[inline(always)]
    pub const fn expired(&self, now: u64) -> bool {
        // A clock that another CPU read a moment later must not make it old.
        now.saturating_sub(self.seen) > LIFETIME_NS
    }
}
