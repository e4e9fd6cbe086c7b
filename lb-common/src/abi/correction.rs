//! What rewriting an endpoint does to checksums: the same for every packet, so the agent works it out once.

use super::abi;
use crate::addr::Addr;
use crate::checksum::Delta;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Folded sums of `~old + new` (RFC 1624, section 3, equation 3), to be added to the complement of a checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Correction {
    /// Of the address: for IPv4's header, and for transport checksums that somebody else finishes.
    pub address: u16,
    /// Of address and port: for TCP and UDP.
    pub endpoint: u16,
}
abi!(Correction, 4);

impl Correction {
    /// For packets whose address and port become others. Ports are in network order; a new one of 0 keeps the packet's.
    pub fn new(old: (Addr, u16), new: (Addr, u16)) -> Self {
        let address = Delta::NONE.addr(&old.0, &new.0);
        let port = if new.1 == 0 { old.1 } else { new.1 };
        Self { address: address.folded(), endpoint: address.half(old.1, port).folded() }
    }
}
