//! What the suites of this package share: frames with an oracle that does not use the code under test, the loaded data
//! plane, networks of namespaces with real programs in them, and `lb` as users run it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed, and the panic says where")]

pub mod agent;
pub mod bpf;
pub mod crowd;
pub mod dissector;
pub mod flows;
pub mod fragments;
pub mod frame;
pub mod gue;
pub mod icmp;
pub mod kernel;
pub mod lan;
pub mod measured;
pub mod model;
pub mod nginx;
pub mod oracle;
pub mod programs;
pub mod require;
pub mod rings;
pub mod routed;
pub mod segment;
pub mod topo;
