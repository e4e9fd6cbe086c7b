//! The agent and the command line of `lb`.

pub mod config;
pub mod health;
pub mod model;
pub mod state;
