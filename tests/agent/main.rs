//! The agent as a daemon: what it survives, what it refuses, and what it says. A file for each matter.

mod interfaces;
mod refusals;
mod restart;
mod state;
mod verbs;
