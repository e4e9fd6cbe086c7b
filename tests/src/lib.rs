//! What the suites of this package share: networks of namespaces, real programs in them, and `lb` as users run it.

pub mod agent;
pub mod bpf;
pub mod flows;
pub mod lan;
pub mod nginx;
pub mod programs;
pub mod routed;
pub mod topo;
