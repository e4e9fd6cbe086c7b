//! `SETTINGS`: words that steer the program at run time, and `INTERFACES`: how each interface is attached.

use super::abi;
use crate::addr::{Addr, Family};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The one entry of `SETTINGS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Generation of `ROUTES` that is in force: 0 or 1.
    pub routes: u32,
    /// Counts up with each new occupant of a `BACKENDS` entry; the agent's source of generations.
    pub generation: u32,
    /// Source of outer IPv4 headers, network order; 0: there is none.
    pub source4: u32,
    /// Bits of it that flows vary, network order: zero in `source4`.
    pub varied4: u32,
    /// Source of outer IPv6 headers; all zero: there is none.
    pub source6: Addr,
    /// Bits of its last word that flows vary, network order: zero in `source6`.
    pub varied6: u32,
    /// Room for what comes.
    pub reserved: [u32; 7],
}
abi!(Settings, 64);

impl Settings {
    /// The source of an outer header for a flow. `None`: there is no address of this family.
    #[inline(always)]
    pub const fn outer_source(&self, family: Family, entropy: u32) -> Option<Addr> {
        // Its lower bits are the last of an address.
        let entropy = entropy.to_be();
        match family {
            Family::V4 if self.source4 == 0 => None,
            Family::V4 => Some(Addr::v4(self.source4 | (entropy & self.varied4))),
            Family::V6 => {
                let [a, b, c, d] = self.source6.words();
                if a | b | c | d == 0 {
                    None
                } else {
                    Some(Addr::from_words([a, b, c, d | (entropy & self.varied6)]))
                }
            }
        }
    }
}

/// Values in `INTERFACES`, keyed by ifindex.
pub mod interface {
    /// The program runs in the driver: a packet leaves as it stands, checksums must be finished.
    pub const NATIVE: u32 = 1;
    /// The program runs on socket buffers: unfinished checksums are finished later by somebody else.
    pub const GENERIC: u32 = 2;
}
