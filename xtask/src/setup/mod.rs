//! `cargo xtask setup`: from a Debian machine with cargo to one that builds, checks and tests everything.
//!
//! What is needed and why is a table in `needs`; what is there is found by `machine`; `install` adds the rest.
//! On a machine that has all, this only looks, in well under a second.

mod install;
mod machine;
mod needs;

use std::collections::BTreeSet;

use anyhow::{Result, bail};

pub(crate) use machine::{BPF_TARGET, bpf_clippy, component};
pub(crate) use needs::Group;

use crate::toolchain::Toolchain;
use machine::ThisMachine;
use needs::{Finding, Remedy, findings};

/// Installs what `groups` need and this machine lacks.
///
/// # Errors
/// When something could not be installed; the message names what to do by hand.
pub(crate) fn run(groups: &[Group]) -> Result<()> {
    // A wish that cannot be met is an error, not a reason to install something else.
    Toolchain::find("rustc".as_ref(), BPF_TARGET)?;
    install::repair()?;
    let missing = report(groups);
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages = BTreeSet::new();
    for finding in &missing {
        if let Remedy::Packages(names) = finding.need.remedy {
            packages.extend(names);
        }
    }
    if missing.iter().any(|finding| matches!(finding.need.remedy, Remedy::BpfLinker)) {
        packages.extend(needs::LINKER_PACKAGES);
    }
    if !packages.is_empty() {
        install::packages(&packages.into_iter().collect::<Vec<_>>(), &missing)?;
    }
    for finding in &missing {
        match finding.need.remedy {
            Remedy::Packages(_) => {}
            Remedy::BpfLinker => install::bpf_linker()?,
            Remedy::MountBpffs => install::bpffs()?,
        }
    }
    let still: Vec<_> = findings(&ThisMachine, groups).into_iter().filter(|f| f.there.is_none()).collect();
    if let Some(first) = still.first() {
        bail!(
            "{} is still not usable after the installation ({}); `cargo xtask setup --dry-run` shows what was looked for",
            first.need.name,
            first.need.why
        );
    }
    eprintln!("setup: done");
    Ok(())
}

/// Says what would be installed.
pub(crate) fn show() {
    report(&Group::ALL);
}

/// Says what is there and what is missing, on stderr like all progress: a task may print JSON. Returns the latter.
fn report(groups: &[Group]) -> Vec<Finding> {
    let found = findings(&ThisMachine, groups);
    for group in groups {
        let of_group = || found.iter().filter(|finding| finding.need.group == *group);
        let there: Vec<_> = of_group().filter_map(|finding| finding.there.as_deref()).collect();
        if !there.is_empty() {
            eprintln!("setup: to {group}, already there: {}", there.join(", "));
        }
        for finding in of_group().filter(|finding| finding.there.is_none()) {
            let Finding { need, .. } = finding;
            eprintln!("setup: to {group}, missing: {} ({}); comes from {}", need.name, need.why, need.remedy);
        }
    }
    let missing: Vec<_> = found.into_iter().filter(|finding| finding.there.is_none()).collect();
    if missing.is_empty() {
        eprintln!("setup: nothing to install");
    }
    missing
}
