//! The agent's door: HTTP/1.1 with JSON on a Unix socket. The command line has no other one.
//!
//! | module | what |
//! | --- | --- |
//! | [`types`] | what is answered, as JSON |
//! | [`failure`] | what is answered when something is refused |
//! | [`control`] | what the agent does for the server |
//! | [`server`] | routes and socket |
//! | [`client`] | the other end |

pub mod client;
pub mod control;
pub mod failure;
mod routes;
pub mod server;
pub mod types;

/// Where the agent listens if nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/lb/lb.sock";
