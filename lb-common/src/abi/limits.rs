//! Every default capacity, once. Tables marked "at load" take another size from the agent's options.

/// Entries of `SERVICES`, a power of two; a two-choice table is filled to two fifths. At load.
pub const SERVICES: u32 = 1024;
/// Lines of `RINGS`, sixteen slots each: 16 MiB. At load.
pub const RING_LINES: u32 = 262_144;
/// Entries of `BACKENDS`. At load.
pub const BACKENDS: u32 = 32_768;
/// Entries of `REVERSE`, a power of two. At load.
pub const REVERSE: u32 = 32_768;
/// Entries of `RANGES`, a power of two. At load.
pub const RANGES: u32 = 2048;
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
/// Entries of `FRAGMENTS`. At load.
pub const FRAGMENTS: u32 = 1 << 14;
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
