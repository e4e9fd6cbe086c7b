//! The agent and the command line of `lb`.

pub mod config;
pub mod health;
pub mod lab;
pub mod model;
pub mod net;
pub mod state;
