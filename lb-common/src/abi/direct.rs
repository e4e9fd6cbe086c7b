//! Tables that the programs reach without a look-up: arrays of one value that holds all entries, so that an entry's address is
//! a constant and an offset (`BPF_PSEUDO_MAP_VALUE`, kernel 5.2). A look-up costs a dozen instructions, and to the compiler
//! it is a call, around which nearly everything that is known about the packet must be put on the stack.
//!
//! Not `RINGS`: before 6.6 a value has at most 4 MiB.

use super::{
    BackendEntry, Filter, NeighbourEntry, RangesEntry, ReverseEntry, RouteEntry, ServiceEntry, Settings,
    VipEntry, limits, names,
};
use core::mem::size_of;

/// One of these tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direct {
    /// The map, and the symbol by which programs name it.
    pub name: &'static str,
    /// Bytes of an entry.
    pub entry: u32,
    /// Entries, where nothing else is chosen.
    pub entries: u32,
}

const fn of<T>(name: &'static str, entries: u32) -> Direct {
    Direct { name, entry: size_of::<T>() as u32, entries }
}

/// All of them.
pub const ALL: [Direct; 9] = [
    of::<ServiceEntry>(names::SERVICES, limits::SERVICES),
    of::<BackendEntry>(names::BACKENDS, limits::BACKENDS),
    of::<ReverseEntry>(names::REVERSE, limits::REVERSE),
    of::<Filter>(names::FILTER, 1),
    of::<RouteEntry>(names::ROUTES, limits::ROUTES),
    of::<NeighbourEntry>(names::NEIGHBOURS, limits::NEIGHBOURS),
    of::<Settings>(names::SETTINGS, 1),
    of::<VipEntry>(names::VIPS, limits::SERVICES),
    of::<RangesEntry>(names::RANGES, limits::RANGES),
];

/// A number that programs hold in an instruction: what a table's size is, known when they are loaded. The object only names
/// it, as it names the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The symbol by which programs name it.
    pub symbol: &'static str,
    /// The table.
    pub table: &'static str,
    /// What is taken off the table's number of entries.
    pub less: u32,
}

/// All of them: sizes of the two-choice tables minus one, and the number of backends.
pub const SIZES: [Size; 6] = [
    Size { symbol: "SERVICE_MASK", table: names::SERVICES, less: 1 },
    Size { symbol: "REVERSE_MASK", table: names::REVERSE, less: 1 },
    Size { symbol: "NEIGHBOUR_MASK", table: names::NEIGHBOURS, less: 1 },
    Size { symbol: "VIP_MASK", table: names::VIPS, less: 1 },
    Size { symbol: "BACKEND_COUNT", table: names::BACKENDS, less: 0 },
    Size { symbol: "RANGES_MASK", table: names::RANGES, less: 1 },
];

/// The table of a map, if it is one of these.
pub fn table(map: &str) -> Option<Direct> {
    ALL.into_iter().find(|table| table.name == map)
}
