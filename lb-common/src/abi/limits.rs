//! Every default capacity, once. Tables marked "at load" take another size from the agent's options.

/// Entries in one element of an array map that the hot path reads.
///
/// A look-up takes its index through memory, which costs more than all of its arithmetic if the index was just worked
/// out. So an element holds many entries: which element is known early, and where in it is arithmetic. No ring and no
/// service's backends lie across two elements. 4 MiB is the largest element that kernels before 6.6 take.
pub mod chunk {
    use super::super::{BackendEntry, ReverseEntry, RingLine, ServiceEntry, names};

    /// Entries of `SERVICES` in an element: 64 KiB.
    pub const SERVICES: u32 = 1024;
    /// Lines of `RINGS` in an element: 4 MiB, the largest ring.
    pub const RING_LINES: u32 = 65_536;
    /// Entries of `BACKENDS` in an element: 2 MiB, all that one service may have.
    pub const BACKENDS: u32 = 32_768;
    /// Entries of `REVERSE` in an element: 2 MiB.
    pub const REVERSE: u32 = 32_768;

    /// An element of `SERVICES`.
    pub type Services = [ServiceEntry; SERVICES as usize];
    /// An element of `RINGS`.
    pub type RingLines = [RingLine; RING_LINES as usize];
    /// An element of `BACKENDS`.
    pub type Backends = [BackendEntry; BACKENDS as usize];
    /// An element of `REVERSE`.
    pub type Reverse = [ReverseEntry; REVERSE as usize];

    /// Entries in an element of a map: one for most.
    pub fn of(map: &str) -> u32 {
        match map {
            names::SERVICES => SERVICES,
            names::RINGS => RING_LINES,
            names::BACKENDS => BACKENDS,
            names::REVERSE => REVERSE,
            _ => 1,
        }
    }
}

/// Entries of `SERVICES`, a power of two; a two-choice table is filled to two fifths. At load.
pub const SERVICES: u32 = chunk::SERVICES;
/// Lines of `RINGS`, sixteen slots each: 16 MiB. At load.
pub const RING_LINES: u32 = 4 * chunk::RING_LINES;
/// Entries of `BACKENDS`. At load.
pub const BACKENDS: u32 = chunk::BACKENDS;
/// Entries of `REVERSE`, a power of two. At load.
pub const REVERSE: u32 = chunk::REVERSE;
/// Routes of one family in one generation.
pub const ROUTES_PER_FAMILY: u32 = 16;
/// Entries of `ROUTES`: two generations of two families.
pub const ROUTES: u32 = 4 * ROUTES_PER_FAMILY;
/// Entries of `NEIGHBOURS`, a power of two. At load.
pub const NEIGHBOURS: u32 = 8192;
/// Entries of `FLOWS`. At load.
pub const FLOWS: u32 = 1 << 18;
/// Entries of `EMBRYONIC`. At load.
pub const EMBRYONIC: u32 = 1 << 16;
/// Rows of `COUNTERS`. At load.
pub const COUNTERS: u32 = 16_384;
/// Rows of `REASONS`: row 0 belongs to no service. At load.
pub const REASONS: u32 = 1024;
/// Bytes of `EVENTS`.
pub const EVENTS: u32 = 64 * 1024;
/// Interfaces known to the program.
pub const INTERFACES: u32 = 256;

/// Backends of one service: a slot has 15 bits for the index, and one value means none.
pub const BACKENDS_PER_SERVICE: u32 = 0x7fff;
