//! Ring sizes.

/// Sizes that a ring may have: primes, each about twice the one before, so that every backend's walk visits every slot
/// (Maglev, NSDI 2016, section 3.4).
pub const SIZES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65537, 131_071];

/// The size of a ring of which nothing was said: even to about 1 % with 160 backends.
pub const DEFAULT_SIZE: u32 = 16381;
