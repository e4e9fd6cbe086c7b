//! The command line: parses, asks the agent through its API, prints. A file for each verb.

mod agent;
mod apply;
pub mod args;
mod attach;
mod backend;
mod decap;
mod demo;
mod doctor;
mod errors;
mod explain;
mod export;
mod generate;
mod offline;
mod output;
mod pass;
mod plan;
mod service;
mod stats;
mod status;

use crate::api::client::Client;
use crate::dataplane::pins::Pins;
use anyhow::{Context, Result};
use args::{Cli, Command};
use clap::{CommandFactory, FromArgMatches};
use output::Out;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// What a verb works with.
struct Session {
    client: Client,
    out: Out,
    /// What is left of an agent when none answers.
    pins: Pins,
}

/// Runs `lb` with the arguments of this process.
pub fn main() -> ExitCode {
    // Before parsing: it concerns help and the parser's errors too.
    let no_color = std::env::args_os().any(|argument| argument == "--no-color");
    let color = if no_color { clap::ColorChoice::Never } else { clap::ColorChoice::Auto };
    if no_color {
        // For verbs that draw by themselves.
        anstream::ColorChoice::Never.write_global();
    }
    let parsed =
        Cli::command().color(color).try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is nothing to report; help is no failure, wrong usage is 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => errors::report(&error, no_color),
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    log(&cli);
    let is_daemon = matches!(cli.command, Command::Agent(_) | Command::Demo(_));
    let mut builder = if is_daemon {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(dispatch(cli))
}

/// Messages go to stderr: what the agent does at level info, what the other verbs do only if asked.
fn log(cli: &Cli) {
    let usual = match (&cli.command, cli.global.verbose) {
        (Command::Agent(_), 0) | (_, 1) => "info",
        (_, 0) => "warn",
        (_, 2) => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::builder().with_env_var("LB_LOG").try_from_env().unwrap_or_else(|_| usual.into());
    let color = output::colors(cli.global.no_color) != anstream::ColorChoice::Never
        && std::env::var_os("NO_COLOR").is_none()
        && std::io::IsTerminal::is_terminal(&std::io::stderr());
    // Set already: by a test in the same process.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        .try_init();
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    let mut session = Session {
        client: Client::new(&cli.global.socket),
        out: Out::new(&cli.global),
        pins: Pins::new(&cli.global.pins),
    };
    let session = &mut session;
    match cli.command {
        Command::Demo(args) => demo::run(args).await?,
        Command::Agent(args) => agent::run(args, cli.global.socket, cli.global.pins).await?,
        Command::Attach(args) => attach::attach(session, args).await?,
        Command::Detach(args) => attach::detach(session, args).await?,
        Command::Service(command) => service::run(session, command).await?,
        Command::Backend(command) => backend::run(session, command).await?,
        Command::Apply(args) => apply::apply(session, args).await?,
        Command::Diff(args) => apply::diff(session, args).await?,
        Command::Export => export::run(session).await?,
        Command::Check(args) => apply::check(session, &args)?,
        Command::Status => status::run(session).await?,
        Command::Stats(args) => stats::run(session, args).await?,
        Command::Explain(args) => explain::run(session, args).await?,
        Command::Doctor(args) => return doctor::run(session, args).await,
        Command::Pass(args) => pass::run(session, &args)?,
        Command::Decap(args) => decap::run(session, args).await?,
        Command::Completions(args) => generate::completions(session, &args)?,
        Command::Man(args) => generate::man(session, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}
