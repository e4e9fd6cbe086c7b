//! What crosses the border between the agent and the program: map values and keys, byte by byte.
//!
//! Every type here is proved by `zerocopy` to have no padding and to be valid for every bit pattern, and its size is
//! written down. Whole cache lines (64 bytes) are used where the hot path reads, so that an entry costs one miss.

use crate::addr::{Addr, Family, pair};
use crate::checksum;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod backend;
pub mod correction;
pub mod counter;
pub mod decap;
pub mod direct;
pub mod event;
pub mod explain;
pub mod filter;
pub mod flow;
pub mod fragment;
pub mod hand;
pub mod limits;
pub mod names;
pub mod neighbour;
pub mod ranges;
pub mod reverse;
pub mod ring;
pub mod route;
pub mod service;
pub mod settings;
pub mod vip;

pub use backend::BackendEntry;
pub use correction::Correction;
pub use counter::{BackendCounters, ReasonCounters};
pub use decap::{DecapConfig, DecapCounts};
pub use event::Event;
pub use explain::Report;
pub use filter::Filter;
pub use flow::{FlowKey, FlowValue};
pub use fragment::{FragmentKey, FragmentValue};
pub use hand::Hand;
pub use neighbour::NeighbourEntry;
pub use ranges::RangesEntry;
pub use reverse::ReverseEntry;
pub use ring::RingLine;
pub use route::RouteEntry;
pub use service::ServiceEntry;
pub use settings::Settings;
pub use vip::VipEntry;

/// Layout of everything in this module. A change of any type raises it; pins of another schema are left alone, never
/// reinterpreted: the number is part of the pin directory's name.
pub const SCHEMA: u32 = 4;

/// Types that may lie in a map: plain old data without padding.
pub trait Plain: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + 'static {}

/// Declares that a type may cross the border and how large it is.
///
/// The bound on [`Plain`] is the proof; the implementation of aya's marker is the only `unsafe` of this crate.
macro_rules! abi {
    ($name:ty, $size:expr) => {
        const _: () = assert!(core::mem::size_of::<$name>() == $size);
        impl $crate::abi::Plain for $name {}
        // SAFETY: `Plain` demands zerocopy's proofs: no padding, no invalid bit patterns, no references; `Copy + 'static`.
        #[cfg(feature = "user")]
        #[allow(unsafe_code, reason = "aya's marker trait is unsafe; zerocopy proves what it asks for")]
        unsafe impl aya::Pod for $name {}
    };
}
pub(crate) use abi;

/// The key of a two-choice table: an address, and a word that makes it exact.
///
/// For services and the way back the word is `port (network order) | protocol << 16`; for neighbours it is the interface,
/// for addresses of services nothing.
/// Bits of [`tag`] are set beside: one in every valid key, one for the family, so that the last word of an IPv4 address
/// and the tag are the whole key, and one that belongs to the place and not to the key. Writers store the word last.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Key {
    /// IPv6 address, or IPv4 mapped into `::ffff:0:0/96`, in network order.
    pub addr: Addr,
    /// What makes the key exact, see [`tag`].
    pub tag: u32,
}
abi!(Key, 20);

/// Bits of [`Key::tag`].
pub mod tag {
    /// A service's id stands where the port does: what belongs to several ports. No packet's own key is such.
    pub const WIDE: u32 = 1 << 24;
    /// In `RANGES`: the ranges are those of backends that answer.
    pub const SOURCE: u32 = 1 << 25;
    /// Set in every valid key: without it a place is empty.
    pub const VALID: u32 = 1 << 29;
    /// The address is an IPv4 address.
    pub const V4: u32 = 1 << 30;
    /// Says something about the place: a key whose first place this is lies in its second one. Without it, a key that is
    /// not here is nowhere.
    pub const MORE: u32 = 1 << 31;
    /// What is left for an interface's index.
    pub const INDEX: u32 = VALID - 1;
}

/// What a place of a two-choice table holds for somebody who looks for a key there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The key.
    Here,
    /// Another key or none, and this key, if its first place is here, may lie in its second one.
    Elsewhere,
    /// Another key or none, and this key, if its first place is here, is not in the table.
    Nowhere,
}

impl Key {
    /// The key of an endpoint. `port` is in network order, as it stands in a packet.
    #[inline(always)]
    pub const fn endpoint(addr: Addr, port: u16, protocol: u8) -> Self {
        Self::endpoint_of(addr.family(), addr, port, protocol)
    }

    /// The same for an address whose family is known.
    #[inline(always)]
    pub(crate) const fn endpoint_of(family: Family, addr: Addr, port: u16, protocol: u8) -> Self {
        Self::new(family, addr, port as u32 | (protocol as u32) << 16)
    }

    /// The key of what belongs to several ports of a service. Ids above 16 bits have none.
    #[inline(always)]
    pub const fn wide(addr: Addr, service: u16, protocol: u8) -> Self {
        Self::endpoint(addr, 0, protocol).wide_of(service)
    }

    /// The same at the address of another key.
    #[inline(always)]
    pub(crate) const fn wide_of(self, service: u16) -> Self {
        Self { tag: self.with_port(service).tag | tag::WIDE, ..self }
    }

    /// The key of an address's ranges, see [`ranges`].
    #[inline(always)]
    pub const fn ranges(addr: Addr, protocol: u8) -> Self {
        Self::endpoint(addr, 0, protocol)
    }

    /// The same for what comes from there.
    #[inline(always)]
    #[must_use]
    pub const fn of_source(self) -> Self {
        Self { tag: self.tag | tag::SOURCE, ..self }
    }

    /// Whether it is such.
    pub const fn is_of_source(&self) -> bool {
        self.tag & tag::SOURCE != 0
    }

    /// Another port, in network order.
    #[inline(always)]
    pub(crate) const fn with_port(self, port: u16) -> Self {
        Self { tag: self.tag & !0xffff | port as u32, ..self }
    }

    /// Whether this is the key of several ports.
    #[inline(always)]
    pub const fn is_wide(&self) -> bool {
        self.tag & tag::WIDE != 0
    }

    /// The key of a neighbour. Indexes that leave no room for the other bits of [`tag`] have no key: no kernel gives them
    /// out before half a billion others.
    #[inline(always)]
    pub const fn neighbour(addr: Addr, ifindex: u32) -> Option<Self> {
        if ifindex <= tag::INDEX { Some(Self::new(addr.family(), addr, ifindex)) } else { None }
    }

    /// The key of an address alone.
    #[inline(always)]
    pub const fn address(addr: Addr) -> Self {
        Self::new(addr.family(), addr, 0)
    }

    #[inline(always)]
    const fn new(family: Family, addr: Addr, word: u32) -> Self {
        let family = match family {
            Family::V4 => tag::V4,
            Family::V6 => 0,
        };
        Self { addr, tag: word | tag::VALID | family }
    }

    /// What the endpoint adds to the sum of a pseudo-header: its address and the protocol, folded.
    pub fn sum(&self) -> u16 {
        checksum::fold(checksum::known(self.family(), &self.addr, self.protocol()))
    }

    /// The family of its address.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        if self.tag & tag::V4 != 0 { Family::V4 } else { Family::V6 }
    }

    /// Whether a key lies here.
    pub const fn valid(&self) -> bool {
        self.tag & tag::VALID != 0
    }

    /// The key alone, without what its place says.
    #[must_use]
    pub const fn alone(self) -> Self {
        Self { tag: self.tag & !tag::MORE, ..self }
    }

    /// The address's last word and the tag: all of an IPv4 key.
    #[inline(always)]
    pub(crate) const fn tail(&self) -> u64 {
        pair(self.addr.last(), self.tag)
    }

    /// [`Key::tail`] of a key in a table: both words at once.
    #[inline(always)]
    fn stored_tail(&self) -> u64 {
        let bytes: &[u8; size_of::<Self>()] = zerocopy::transmute_ref!(self);
        match bytes.last_chunk() {
            Some(tail) => u64::from_ne_bytes(*tail),
            None => unreachable!(),
        }
    }

    /// What this place says about a key that is looked for.
    #[inline(always)]
    pub fn holds(&self, wanted: &Self) -> Place {
        const MORE: u64 = pair(0, tag::MORE);
        let tail = self.stored_tail();
        let mut differs = (tail ^ wanted.tail()) & !MORE;
        // The family is in the tag: what else there is of an IPv4 address is known then.
        if matches!(wanted.family(), Family::V6) {
            let ([a, b], [c, d]) = (self.addr.halves(), wanted.addr.halves());
            differs |= (a ^ c) | (b ^ d);
        }
        if differs == 0 {
            Place::Here
        } else if tail & MORE != 0 {
            Place::Elsewhere
        } else {
            Place::Nowhere
        }
    }

    /// The port, in network order.
    pub const fn port(&self) -> u16 {
        self.tag as u16
    }

    /// The IP protocol number.
    pub const fn protocol(&self) -> u8 {
        (self.tag >> 16) as u8
    }
}
