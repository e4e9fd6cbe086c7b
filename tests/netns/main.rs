//! Real programs through networks of namespaces: what users would see. A file for each matter.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed, and the panic says where")]

mod announce;
mod changes;
mod churn;
mod encap;
mod fragments;
mod icmp;
mod neighbours;
mod pair;
mod ranges;
mod traffic;
mod transfer;
