//! What went wrong, said on stderr: what, and what to do about it. Decides the exit code.

use super::output::{Closed, How, colors};
use crate::api::failure::Failure;
use anstream::AutoStream;
use std::io::Write;
use std::process::ExitCode;

/// Says what went wrong and returns the exit code for it.
pub(super) fn report(error: &anyhow::Error, no_color: bool) -> ExitCode {
    if error.is::<Closed>() {
        return ExitCode::SUCCESS;
    }
    let mut text = format!("{} ", How::Bad.paint("error:"));
    let code = match error.downcast_ref::<Failure>() {
        Some(failure) => {
            text += &failure.message;
            for problem in &failure.problems {
                text += &format!(
                    "\n{}:{}:{}: {}\n  {}",
                    problem.file, problem.line, problem.column, problem.message, problem.remedy
                );
            }
            if !failure.remedy.is_empty() {
                text += &format!("\n  {}", failure.remedy);
            }
            failure.code.exit_code()
        }
        None => {
            text += &format!("{error:#}");
            1
        }
    };
    // Nobody could be told if this fails.
    let _ = writeln!(AutoStream::new(std::io::stderr(), colors(no_color)), "{text}");
    ExitCode::from(code)
}
