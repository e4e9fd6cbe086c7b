//! `cargo xtask demo`: from a fresh machine to a load balancer at work, in one command.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::setup::{self, Group};
use crate::shell::{self, cargo};
use crate::test::with_runner;

/// Sets up, builds, becomes `lb demo`.
///
/// The dev profile: it is there minutes earlier, and the eBPF programs are optimised in any profile.
///
/// # Errors
/// When set-up or build fail, or nobody here can become root.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    setup::run(&[Group::Build])?;
    let lb = ["--package", "lb-userspace", "--bin", "lb"];
    println!("demo: building; only the first time takes long");
    shell::run(cargo().arg("build").args(lb))?;
    let mut demo = cargo();
    demo.args(["run", "--quiet"]).args(lb).args(["--", "demo"]).args(arguments);
    with_runner(&mut demo)?;
    // Replaces this process, so that Ctrl-C reaches the demonstration alone and it can clean up.
    Err(demo.exec()).context("cannot start `lb demo`")
}
