//! The programs of `cargo xtask bench`: a wrapper that makes each run of BPF_PROG_RUN a fresh packet, and the floors
//! that results are measured in. Never part of `lb`.
//!
//! Built only with the feature `bench`; on the host an empty program, as the other binary of this package.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod measure;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
