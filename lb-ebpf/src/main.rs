//! The XDP programs of `lb`: pointers, maps and helpers around the decisions of `lb-common`.
//!
//! Built for the `bpf` target. On the host this is an empty program, so that `--workspace` commands work everywhere.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod program;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
