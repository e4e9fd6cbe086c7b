//! `cargo xtask bench`: what a packet costs, and what the control plane takes. With `--peers`: the same load through
//! `lb` and through others.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Group};
use crate::shell::{self, cargo, root};
use crate::test::with_runner;
use crate::toolchain::{Linker, Toolchain, bpf_target, flags};

/// Builds the bench's programs and tool, and runs them.
///
/// # Errors
/// When set-up or build fail, when nobody here can become root, or when the bench does.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    setup::run(&[Group::Build])?;
    let object = object()?;
    // The command line is measured too: how fast its agent starts, and what it needs.
    tool("lb-bench", |bench, lb| bench.arg("--object").arg(object).arg("--lb").arg(lb).args(arguments))
}

/// Builds the comparison with other balancers, and runs it.
///
/// # Errors
/// When set-up or build fail, when nobody here can become root, or when the comparison does.
pub(crate) fn peers(arguments: &[OsString]) -> Result<()> {
    setup::run(&[Group::Build, Group::Test, Group::Peers])?;
    tool("lb-peers", |peers, lb| peers.arg("--lb").arg(lb).args(arguments))
}

/// Builds `lb`, then builds `name` and runs it as root, with the arguments that `with` adds.
fn tool(name: &str, with: impl FnOnce(&mut Command, PathBuf) -> &mut Command) -> Result<()> {
    shell::run(cargo().args(["build", "--release", "--package", "lb-userspace", "--bin", "lb"]))?;
    let mut run = cargo();
    run.args(["run", "--quiet", "--release", "--package", "lb-tests", "--bin", name, "--"]);
    with(&mut run, target().join("release/lb"));
    with_runner(&mut run)?;
    shell::run(&mut run)
}

/// Where cargo builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Compiles `lb-ebpf` with its feature `bench`, as the build script of `lb-userspace` compiles it without.
fn object() -> Result<PathBuf> {
    let little_endian = cfg!(target_endian = "little");
    let triple = bpf_target(little_endian);
    let Linker::Usable(linker, _) = Linker::find() else {
        bail!("no bpf-linker that can be used: run `cargo xtask setup`");
    };
    let toolchain = Toolchain::find("rustc".as_ref(), triple)?;
    let toolchain = toolchain.with_context(|| format!("no compiler here can build for {triple}"))?;
    let mut flags = flags(std::env::consts::ARCH);
    flags.push(format!("-Clinker={}", linker.display()));
    // Beside the one of the product: its object must not be replaced by one with other features.
    let directory = target().join("ebpf-bench");
    let mut build = toolchain.cargo("build", triple);
    build
        .current_dir(root())
        .args(["--features", "bench", "--release", "--locked", "--target-dir"])
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .stdin(Stdio::null());
    shell::run(&mut build)?;
    Ok(directory.join(triple).join("release/lb-bench"))
}
