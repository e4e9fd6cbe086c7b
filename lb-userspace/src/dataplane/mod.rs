//! The kernel's side of the agent: programs, maps, interfaces. The only place that knows aya.
//!
//! Everything here is synchronous except events. What should stand in the tables is decided elsewhere; this module
//! knows how to write it so that a packet never meets a half-written entry.

pub mod costs;
pub mod counters;
pub mod decap;
pub mod devices;
mod direct;
pub mod drops;
pub mod events;
pub mod explain;
pub mod flows;
pub mod fragments;
pub mod interfaces;
pub mod layout;
pub mod load;
pub mod load_error;
pub mod maps;
mod netdev;
pub mod object;
pub mod offline;
pub mod pass;
pub mod pins;
mod refusal;
pub mod sizes;
mod sys;
pub mod tables;

pub use load::{Dataplane, OpenError, Opened, Options, Start};
pub use sizes::Sizes;
pub use tables::Tables;

#[cfg(test)]
mod kernel_tests;
