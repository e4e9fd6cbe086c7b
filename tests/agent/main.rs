//! The agent as a daemon: what it survives, what it refuses, and what it says. A file for each matter.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed, and the panic says where")]

mod interfaces;
mod refusals;
mod restart;
mod state;
mod verbs;
