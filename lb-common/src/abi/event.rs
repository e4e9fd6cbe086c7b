//! `EVENTS`: messages from the program to the agent.

use super::abi;
use crate::addr::Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Values of [`Event::kind`].
pub mod kind {
    /// The kernel has no neighbour entry for this address: resolve it.
    pub const NO_NEIGHBOUR: u32 = 1;
}

/// One message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// What happened, see [`kind`].
    pub kind: u32,
    /// The interface it is about.
    pub ifindex: u32,
    /// The address it is about.
    pub addr: Addr,
}
abi!(Event, 24);
