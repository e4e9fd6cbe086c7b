//! Running other programs: from the root of the workspace, as root where that is needed, with errors that name them.

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The cargo that started us, in the workspace's directory.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    // What `cargo run` said about xtask itself is not for the packages built next.
    for (name, _) in env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Runs `command` with its output shown as it comes.
///
/// # Errors
/// When it does not start or does not succeed; the message holds the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", text(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", text(command));
    }
    Ok(())
}

/// Whether `command` starts and succeeds; shows nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// `command` as one would type it: our cargo by its name, others by their path.
pub(crate) fn text(command: &Command) -> String {
    let ours = env::var_os("CARGO").is_some_and(|cargo| cargo == command.get_program());
    let mut words = vec![if ours { "cargo".into() } else { command.get_program().to_string_lossy() }];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

/// Puts `arguments` in front of which root's rights are needed: nothing for root, sudo for others.
///
/// # Errors
/// Without root and without sudo: the message says what to run as root.
pub(crate) fn as_root(arguments: &[&str]) -> Result<Command> {
    let mut words: Vec<&str> = match elevation()? {
        Elevation::None => Vec::new(),
        Elevation::Sudo(sudo) => sudo.to_vec(),
        Elevation::Impossible => bail!(
            "root's rights are needed and there is no sudo. As root, run:\n    {}\nthen repeat this command",
            arguments.join(" ")
        ),
    };
    words.extend(arguments);
    let (program, rest) = words.split_first().context("no command given")?;
    let mut command = Command::new(program);
    command.args(rest);
    Ok(command)
}

/// How to become root.
pub(crate) enum Elevation {
    /// We are.
    None,
    /// By this command and options; asks for the password only where somebody can type it.
    Sudo(&'static [&'static str]),
    /// Not at all.
    Impossible,
}

/// How this process becomes root.
///
/// # Errors
/// When sudo wants a password and nobody is there to type it.
pub(crate) fn elevation() -> Result<Elevation> {
    if geteuid().is_root() {
        return Ok(Elevation::None);
    }
    if program("sudo").is_none() {
        return Ok(Elevation::Impossible);
    }
    if io::stdin().is_terminal() {
        return Ok(Elevation::Sudo(&["sudo", "-E"]));
    }
    if !succeeds(Command::new("sudo").args(["-n", "true"])) {
        bail!("root's rights are needed, sudo wants a password and there is no terminal: run this as root");
    }
    Ok(Elevation::Sudo(&["sudo", "-n", "-E"]))
}

/// Where `name` is: on `PATH` or in the directories of administrators, which users often lack on theirs.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}
