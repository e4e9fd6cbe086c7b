//! `SETTINGS`: words that steer the program at run time, and `INTERFACES`: how each interface is attached.

use super::abi;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The one entry of `SETTINGS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Generation of `ROUTES` that is in force: 0 or 1.
    pub routes: u32,
    /// Counts up with each new occupant of a `BACKENDS` entry; the agent's source of generations.
    pub generation: u32,
    /// Room for what comes.
    pub reserved: [u32; 14],
}
abi!(Settings, 64);

/// Values in `INTERFACES`, keyed by ifindex.
pub mod interface {
    /// The program runs in the driver: a packet leaves as it stands, checksums must be finished.
    pub const NATIVE: u32 = 1;
    /// The program runs on socket buffers: unfinished checksums are finished later by somebody else.
    pub const GENERIC: u32 = 2;
}
