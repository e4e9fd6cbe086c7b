//! The program `lb` as people run it, against the API over a real socket. In the agent's place stands a [`fake`] that
//! really applies changes, to a model instead of a kernel.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly")]

mod api;
mod errors;
mod fake;
mod verbs;
mod world;
