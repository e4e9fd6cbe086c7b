//! `lb completions`, `lb man`: made from the definition of the command line.

use super::Session;
use super::args::Cli;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;

/// Arguments of `lb completions`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  lb completions bash > /etc/bash_completion.d/lb
  lb completions zsh > /usr/local/share/zsh/site-functions/_lb
  lb completions fish > ~/.config/fish/completions/lb.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `lb man`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  lb man | man -l -\n  lb man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write a page for each verb into this directory instead
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(session: &mut Session, args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lb", &mut script);
    session.out.text(String::from_utf8_lossy(&script))
}

pub(super) fn man(session: &mut Session, args: &ManArgs) -> Result<()> {
    if let Some(directory) = &args.dir {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        clap_mangen::generate_to(Cli::command(), directory)
            .with_context(|| format!("cannot write into {}", directory.display()))?;
        return session.out.line(format_args!("pages written to {}", directory.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    session.out.text(String::from_utf8_lossy(&page))
}
