//! The XDP programs. Built for the `bpf` target; on the host this is an empty program so that `--workspace` commands work.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}
