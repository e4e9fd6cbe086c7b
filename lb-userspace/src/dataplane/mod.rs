//! The kernel's side of the agent: programs, maps, interfaces. The only place that knows aya.
//!
//! Everything here is synchronous except events. What should stand in the tables is decided elsewhere; this module
//! knows how to write it so that a packet never meets a half-written entry.

pub mod sizes;
pub mod tables;

pub use sizes::Sizes;
pub use tables::Tables;
