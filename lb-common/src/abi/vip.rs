//! `VIPS`: the addresses that services are reached at, for what knows no port: echo requests.

use super::{Key, abi};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address that answers echo requests. The service lies in the word that holds `key.tag`: both are written at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VipEntry {
    /// The address, see [`Key::address`].
    pub key: Key,
    /// Row of `REASONS` of the service that answers are counted for.
    pub service: u32,
}
abi!(VipEntry, 24);
