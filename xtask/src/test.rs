//! `cargo xtask test`: every test, as root, on a machine that has what they need.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Group};
use crate::shell::{self, Elevation, cargo, elevation};

/// Tells tests that this machine is meant to be able to run them: what they lack is then a failure.
const REQUIRE: &str = "LB_TEST_REQUIRE";

/// Runs the tests whose name contains `filter`, all of them without one. Goes on after a failure.
///
/// # Errors
/// When set-up or build fail, or a test does.
pub(crate) fn run(filter: Option<&str>, arguments: &[OsString]) -> Result<()> {
    setup::run(&[Group::Build, Group::Test])?;
    let mut test = cargo();
    test.env(REQUIRE, "1").args(["test", "--workspace", "--no-fail-fast"]).args(filter);
    test.arg("--").args(arguments);
    with_runner(&mut test)?;
    shell::run(&mut test)
}

/// Makes `cargo` start programs as root, while it builds them as the user.
///
/// # Errors
/// When this process cannot become root.
pub(crate) fn with_runner(cargo: &mut Command) -> Result<()> {
    match elevation()? {
        Elevation::None => {}
        Elevation::Sudo(sudo) => {
            let target = host()?.to_uppercase().replace('-', "_");
            cargo.env(format!("CARGO_TARGET_{target}_RUNNER"), sudo.join(" "));
        }
        Elevation::Impossible => {
            bail!("loading programs needs root's rights and there is no sudo: run this as root")
        }
    }
    Ok(())
}

/// The triple that cargo builds for.
///
/// # Errors
/// When `rustc` does not say it.
pub(crate) fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start `rustc -vV`")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` does not say which host it is for")
}
