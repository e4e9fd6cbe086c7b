//! The agent and the command line of `lb`.

pub mod lab;
pub mod model;
pub mod net;
