//! Whether backends answer: probes, what their results mean, and when they are made.
//!
//! | module | what |
//! | --- | --- |
//! | [`machine`] | results in a row → up or down; pure |
//! | [`probe`] | one try, TCP or HTTP, with its timeout |
//! | [`schedule`] | many targets, each at its interval, changed while running |
//!
//! What follows from a backend's health (new rings, moved flows, addresses withdrawn) is not here.

mod http;
pub mod machine;
pub mod probe;
pub mod schedule;
mod tcp;

pub use machine::Machine;
pub use probe::{Failure, Network, Probe, Success};
pub use schedule::{Plan, Runner, Seen, Target, Transition, targets, targets_of};
