//! The agent and the command line of `lb`.

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod health;
pub mod lab;
pub mod model;
pub mod net;
pub mod plan;
pub mod state;
