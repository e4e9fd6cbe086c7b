//! `DECAP`: whom the program that takes packets out of others does it for, and `DECAP_COUNTS`: what it did.

use super::abi;
use crate::addr::Addr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Prefixes that balancers send from, at most.
pub const SOURCES: usize = 16;
/// Addresses of this machine, at most.
pub const ADDRESSES: usize = 16;
/// Room for counts, a power of two.
pub const COUNTS: usize = 16;

/// Bits of [`DecapConfig::kinds`].
pub mod kinds {
    /// IP in IP.
    pub const IPIP: u32 = 1 << 0;
    /// UDP around IP.
    pub const GUE: u32 = 1 << 1;
}

/// A prefix that balancers send from. IPv4 is mapped into IPv6, its mask too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DecapSource {
    /// The prefix, zero behind it.
    pub prefix: Addr,
    /// Its mask.
    pub mask: Addr,
}
abi!(DecapSource, 32);

/// The one entry of `DECAP`, written before the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DecapConfig {
    /// Who may send.
    pub sources: [DecapSource; SOURCES],
    /// Where to.
    pub addresses: [Addr; ADDRESSES],
    /// How many of them are sources.
    pub source_count: u32,
    /// How many are addresses.
    pub address_count: u32,
    /// What is taken off, see [`kinds`].
    pub kinds: u32,
    /// UDP port of GUE, network order.
    pub port: u32,
}
abi!(DecapConfig, 784);

impl DecapConfig {
    /// Takes nothing off.
    pub const EMPTY: Self = Self {
        sources: [DecapSource { prefix: Addr::from_words([0; 4]), mask: Addr::from_words([0; 4]) }; SOURCES],
        addresses: [Addr::from_words([0; 4]); ADDRESSES],
        source_count: 0,
        address_count: 0,
        kinds: 0,
        port: 0,
    };

    /// Whether packets from here are opened.
    #[inline(always)]
    pub fn trusts(&self, addr: &Addr) -> bool {
        let [a, b] = addr.halves();
        (0..SOURCES).take_while(|n| *n < self.source_count as usize).any(|n| {
            let Some(source) = self.sources.get(n) else { return false };
            let ([c, d], [e, f]) = (source.mask.halves(), source.prefix.halves());
            // A prefix of IPv6 covers no IPv4, mapped or not.
            source.prefix.is_v4() == addr.is_v4() && ((a & c) ^ e) | ((b & d) ^ f) == 0
        })
    }

    /// Whether this is where balancers send to.
    #[inline(always)]
    pub fn owns(&self, addr: &Addr) -> bool {
        let [a, b] = addr.halves();
        (0..ADDRESSES).take_while(|n| *n < self.address_count as usize).any(|n| {
            let Some([c, d]) = self.addresses.get(n).map(Addr::halves) else { return false };
            (a ^ c) | (b ^ d) == 0
        })
    }
}

/// A row of `DECAP_COUNTS`, by the number of the [`crate::decap::Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DecapCounts {
    /// Packets.
    pub counts: [u64; COUNTS],
}
abi!(DecapCounts, 128);
