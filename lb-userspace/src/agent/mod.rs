//! The agent.
pub mod apply;
