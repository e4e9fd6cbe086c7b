//! Packets through the loaded programs (BPF_PROG_RUN): verdict, bytes, and exactly what moved in the maps.
//!
//! Every test loads the programs under pins of its own, in a network namespace of its own, and serves what the agent
//! would serve. A case is a sentence; its expected frame is built from scratch. Needs root.

mod case;
mod lab;

mod broken;
mod captures;
mod checksums;
mod consistency;
mod decap;
mod detours;
mod differential;
mod echo;
mod encap;
mod errors;
mod flood;
mod fragments;
mod model;
mod nat;
mod not_ours;
mod nowhere;
mod ranges;
mod ranges_everywhere;
mod table;
mod tunnels;
mod verifier;
mod way_back;
