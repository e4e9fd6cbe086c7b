//! The demonstration: a network of namespaces, an agent, real traffic, and everything that can go wrong.

mod backend;
mod client;
mod ledger;
mod topology;
mod view;
