//! Puts on the machine what it lacks. Says each command before it runs it.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::machine::BPFFS;
use super::needs::Finding;
use crate::shell::{Elevation, as_root, cargo, elevation, program, run, succeeds, text};
use crate::toolchain::LINKER_AT_LEAST;

/// LLVM of [`super::needs::LINKER_PACKAGES`].
const LLVM: &str = "/usr/lib/llvm-22";
/// Debian asks this program before it starts the daemon of a package.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// In [`POLICY`], when it is ours.
const OURS: &str = "# Written by cargo xtask setup of lb while it installs packages.";

/// Installs Debian packages. Their daemons are not started.
///
/// # Errors
/// On other systems, without root's rights, or when apt fails; `missing` makes the message useful.
pub(super) fn packages(wanted: &[&str], missing: &[Finding]) -> Result<()> {
    if program("apt-get").is_none() {
        let list: Vec<_> = missing
            .iter()
            .map(|Finding { need, .. }| format!("    {}: {} (Debian: {})", need.name, need.why, need.remedy))
            .collect();
        bail!("this is not a Debian system: install by the means of yours, then repeat\n{}", list.join("\n"));
    }
    if matches!(elevation()?, Elevation::Impossible) {
        let names: Vec<_> = wanted.iter().filter_map(|names| names.split('|').next()).collect();
        bail!(
            "packages are missing, this is not root and there is no sudo. As root, run:\n    apt-get update && apt-get \
             install -y --no-install-recommends {}\nthen repeat this command",
            names.join(" ")
        );
    }
    step(&mut as_root(&["apt-get", "update", "-qq"])?).or_else(|error| {
        // One broken source does not matter when the others have what is needed.
        eprintln!("setup: {error:#}; trying with the lists that are there");
        anyhow::Ok(())
    })?;
    let names = wanted.iter().map(|names| available(names)).collect::<Result<Vec<_>>>()?;

    forbid_daemons()?;
    let mut words = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q"];
    words.extend(["--no-install-recommends", "-o", "Dpkg::Use-Pty=0"]);
    let names: Vec<_> = names.into_iter().map(version_on_offer).collect();
    if names.iter().any(|name| name.contains('=')) {
        words.push("--allow-downgrades");
    }
    words.extend(names.iter().map(String::as_str));
    let installed = step(&mut as_root(&words)?);
    repair()?;
    installed?;
    for daemon in ["nginx", "haproxy"] {
        if names.iter().any(|name| name.starts_with(daemon)) && Path::new("/run/systemd/system").is_dir() {
            eprintln!("setup: {daemon} is for tests and benches, which start it themselves: not at boot");
            step(&mut as_root(&["systemctl", "disable", "--quiet", daemon])?)?;
        }
    }
    Ok(())
}

/// The first of `a|b` that this release has.
fn available(names: &str) -> Result<&str> {
    names
        .split('|')
        .find(|name| succeeds(Command::new("apt-cache").args(["show", "--no-all-versions", name])))
        .with_context(|| {
            format!(
                "no package {} in the lists of this release: lb is built on Debian 12 with its security \
                 updates switched on",
                names.replace('|', " or ")
            )
        })
}

/// A package that is installed in a version that no source has any more is named with the one that they have: apt would
/// keep it and refuse what must match it.
fn version_on_offer(name: &str) -> String {
    let words = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).arg(name).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let offered = words("apt-cache", &["madison"]).unwrap_or_default();
    let installed = words("dpkg-query", &["--show", "--showformat", "${Version}"]).unwrap_or_default();
    pinned(name, installed.trim(), &offered)
}

/// `name`, or `name=version` where `madison`'s list of versions on offer, newest first, lacks the installed one.
fn pinned(name: &str, installed: &str, madison: &str) -> String {
    let mut versions = madison.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
    match versions.clone().next() {
        Some(newest) if !installed.is_empty() && !versions.any(|version| version == installed) => {
            format!("{name}={newest}")
        }
        _ => name.to_owned(),
    }
}

/// Packages do not start their daemons until [`repair`]. Rules that somebody else made stay theirs.
fn forbid_daemons() -> Result<()> {
    if Path::new(POLICY).exists() {
        return Ok(());
    }
    eprintln!("setup: daemons that come with packages are not started ({POLICY}, removed afterwards)");
    let script = format!("printf '%s\\n' '#!/bin/sh' '{OURS}' 'exit 101' > {POLICY} && chmod 755 {POLICY}");
    run(&mut as_root(&["sh", "-c", &script])?)
}

/// Lets packages start their daemons again, also after a run that was interrupted.
///
/// # Errors
/// Without root's rights.
pub(super) fn repair() -> Result<()> {
    if fs::read_to_string(POLICY).is_ok_and(|text| text.contains(OURS)) {
        run(&mut as_root(&["rm", "-f", POLICY])?)?;
    }
    Ok(())
}

/// Builds bpf-linker into cargo's bin directory.
pub(super) fn bpf_linker() -> Result<()> {
    eprintln!("setup: bpf-linker is built once, which takes a minute or two");
    let mut install = cargo();
    install.args(["install", "--locked", "bpf-linker", "--version", &LINKER_AT_LEAST.to_string()]);
    install.args(["--no-default-features", "--features", "llvm-22"]);
    for name in ["CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "RUSTFLAGS"] {
        install.env_remove(name);
    }
    if Path::new(LLVM).is_dir() {
        install.env("LLVM_PREFIX", LLVM);
    }
    step(&mut install)
}

/// Mounts the file system for pinned programs and maps.
pub(super) fn bpffs() -> Result<()> {
    step(&mut as_root(&["mount", "-t", "bpf", "bpf", BPFFS])?).context(
        "nothing can be pinned without it: the kernel needs CONFIG_BPF_SYSCALL, a container needs the right to mount",
    )
}

fn step(command: &mut Command) -> Result<()> {
    eprintln!("setup: {}", text(command));
    // Progress, like all that is said here: what a task prints, like the bench's JSON, stays alone.
    run(command.stdout(io::stderr()))
}

#[cfg(test)]
mod tests {
    use super::pinned;

    #[test]
    fn a_package_from_nowhere_is_asked_for_in_a_version_that_is_on_offer() {
        let madison = "tool | 1:7.2-2 | a source\ntool | 1:7.2-1 | another source\n";
        assert_eq!(pinned("tool", "1:10.0-1~bpo12", madison), "tool=1:7.2-2");
        assert_eq!(pinned("tool", "1:7.2-1", madison), "tool");
        assert_eq!(pinned("tool", "", madison), "tool");
        assert_eq!(pinned("tool", "1.0", ""), "tool");
    }
}
