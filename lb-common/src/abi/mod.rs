//! What crosses the border between the agent and the program: map values and keys, byte by byte.
//!
//! Every type here is proved by `zerocopy` to have no padding and to be valid for every bit pattern, and its size is
//! written down. Whole cache lines (64 bytes) are used where the hot path reads, so that an entry costs one miss.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod backend;
pub mod counter;
pub mod event;
pub mod explain;
pub mod flow;
pub mod limits;
pub mod names;
pub mod neighbour;
pub mod reverse;
pub mod ring;
pub mod route;
pub mod service;
pub mod settings;

pub use backend::BackendEntry;
pub use counter::{BackendCounters, ReasonCounters};
pub use event::Event;
pub use explain::Report;
pub use flow::{FlowKey, FlowValue};
pub use neighbour::NeighbourEntry;
pub use reverse::ReverseEntry;
pub use ring::RingLine;
pub use route::RouteEntry;
pub use service::ServiceEntry;
pub use settings::Settings;

/// Layout of everything in this module. A change of any type raises it; pins of another schema are migrated, never
/// reinterpreted: the number is part of the pin directory's name.
pub const SCHEMA: u32 = 1;

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
/// For services and the way back the word is `port (network order) | protocol << 16 | VALID << 24`; for neighbours it is
/// the interface. A word of zero means the entry is empty; writers store it last.
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
    pub addr: crate::addr::Addr,
    /// What makes the key exact and the entry valid; zero is empty.
    pub tag: u32,
}
abi!(Key, 20);

/// The bit of [`Key::tag`] that is set in every valid endpoint key.
pub const VALID: u32 = 1 << 24;

impl Key {
    /// The key of an endpoint. `port` is in network order, as it stands in a packet.
    #[inline(always)]
    pub const fn endpoint(addr: crate::addr::Addr, port: u16, protocol: u8) -> Self {
        Self { addr, tag: port as u32 | (protocol as u32) << 16 | VALID }
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
