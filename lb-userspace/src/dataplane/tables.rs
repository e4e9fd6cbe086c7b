//! The arrays that the program reads, as typed verbs. Each verb owns the order of its stores.
//!
//! The same code works on mapped kernel memory and on the heap, so that tests and dry runs take the same way.
//! There is one writer: verbs that write take `&mut self`, and the pins' lock keeps other processes out.

mod backends;
pub mod grace;
mod ranges;
pub mod region;
mod reverse;
mod rings;
mod routes;
mod settings;
mod two_choice;

use lb_common::abi::{NeighbourEntry, ServiceEntry, VipEntry, limits};

use super::Sizes;
pub use backends::Backends;
pub use grace::Grace;
pub use ranges::{Ranges, RangesError};
pub use region::{OutOfRange, Region};
pub use reverse::Reverse;
pub use rings::Rings;
pub use routes::{Published, Routes, TooManyRoutes};
pub use settings::SettingsTable;
pub use two_choice::{Entry, Full, TwoChoice};

/// Every table that the agent writes.
#[derive(Debug)]
pub struct Tables {
    /// What listens where.
    pub services: TwoChoice<ServiceEntry>,
    /// Addresses that answer echo requests.
    pub vips: TwoChoice<VipEntry>,
    /// The way back from NAT backends.
    pub reverse: Reverse,
    /// Ranges of ports.
    pub ranges: Ranges,
    /// MAC addresses of on-link clients. Without an entry the program asks the kernel: a full table costs time only.
    pub neighbours: TwoChoice<NeighbourEntry>,
    /// Ring slots.
    pub rings: Rings,
    /// Backends.
    pub backends: Backends,
    /// Routes back to clients.
    pub routes: Routes,
    /// Words that steer the program.
    pub settings: SettingsTable,
    /// How to wait until no packet sees what was there before.
    pub grace: Grace,
}

impl Tables {
    /// Empty tables on the heap.
    pub fn in_memory(sizes: &Sizes) -> Self {
        let settings = SettingsTable::new(Region::on_heap("SETTINGS", 1));
        let filter = Region::on_heap("FILTER", 1);
        Self {
            services: TwoChoice::new(Region::on_heap("SERVICES", sizes.services), Grace::None),
            vips: TwoChoice::new(Region::on_heap("VIPS", sizes.services), Grace::None),
            reverse: Reverse::new(
                TwoChoice::new(Region::on_heap("REVERSE", sizes.reverse), Grace::None),
                filter.clone(),
            ),
            ranges: Ranges::new(
                TwoChoice::new(Region::on_heap("RANGES", sizes.ranges), Grace::None),
                filter,
                Grace::None,
            ),
            neighbours: TwoChoice::new(Region::on_heap("NEIGHBOURS", sizes.neighbours), Grace::None),
            rings: Rings::new(Region::on_heap("RINGS", sizes.ring_lines)),
            backends: Backends::new(Region::on_heap("BACKENDS", sizes.backends)),
            routes: Routes::new(Region::on_heap("ROUTES", limits::ROUTES), settings.share(), Grace::None),
            settings,
            grace: Grace::None,
        }
    }
}
