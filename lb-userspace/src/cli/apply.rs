//! `lb apply`, `lb diff`, `lb check`: configuration files.

use super::Session;
use super::output::How;
use crate::api::failure::{Failure, ProblemView};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Arguments of `lb apply`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What the file does not name is removed; interfaces stay if it says nothing of them. A file with any problem is refused
as a whole.

Examples:
  lb apply -f lb.toml --dry-run
  lb export > lb.toml; $EDITOR lb.toml; lb apply -f lb.toml")]
pub struct ApplyArgs {
    /// The configuration; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    dry: super::args::DryRun,
}

/// Arguments of `lb diff`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "The same as `lb apply --dry-run`.\n\nExample:\n  lb diff -f lb.toml")]
pub struct DiffArgs {
    /// The configuration; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

/// Arguments of `lb check`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Needs no agent and no privileges.\n\nExample:\n  lb check /etc/lb.toml")]
pub struct CheckArgs {
    /// The configuration; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn apply(session: &mut Session, args: ApplyArgs) -> Result<()> {
    let (text, name) = read(&args.file)?;
    let plan = session.client.apply(text, &name, args.dry.dry_run).await?;
    session.print_plan(&plan)
}

pub(super) async fn diff(session: &mut Session, args: DiffArgs) -> Result<()> {
    let (text, name) = read(&args.file)?;
    let plan = session.client.apply(text, &name, true).await?;
    session.print_plan(&plan)
}

pub(super) fn check(session: &mut Session, args: &CheckArgs) -> Result<()> {
    let (text, name) = read(&args.file)?;
    let checked = match crate::config::check(&text, &name) {
        Ok(checked) => checked,
        Err(problems) => {
            let mut failure = Failure::from(problems);
            failure.message = failure.message.replace("; nothing of it is in force", "");
            failure.remedy.clear();
            return Err(failure.into());
        }
    };
    let services = checked.desired.services.len();
    let backends: usize = checked.desired.services.values().map(|service| service.backends.len()).sum();
    let warnings: Vec<_> = checked.warnings.into_iter().map(ProblemView::from).collect();
    let out = &mut session.out;
    if out.is_json() {
        return out.json(&json!({
            "file": name, "services": services, "backends": backends, "warnings": warnings,
        }));
    }
    for warning in &warnings {
        let ProblemView { file, line, column, message, remedy } = warning;
        out.line(format_args!(
            "{} {file}:{line}:{column}: {message}\n  {remedy}",
            How::Warning.paint("warning:")
        ))?;
    }
    out.line(format_args!("{name} is right; services: {services}, backends: {backends}"))
}

/// The text of a file, and what it is called in messages.
fn read(path: &Path) -> Result<(String, String)> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok((text, "<stdin>".into()));
    }
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new(
            crate::api::failure::FailureCode::NotFound,
            format!("there is no file {name}"),
            "`lb export > FILE` writes one to start from",
        ),
        _ => Failure::failed(format!("cannot read {name}: {error}"), ""),
    })?;
    Ok((text, name))
}
