//! `lb doctor`.

use super::Session;
use super::output::{How, state, table};
use crate::doctor::{Finding, Severity, examine};
use anyhow::Result;
use clap::Args;
use comfy_table::Cell;
use std::process::ExitCode;

/// Arguments of `lb doctor`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Without interfaces: those that are attached, or else every Ethernet interface. Exits 1 if it finds a problem.

Example:
  lb doctor eth0")]
pub struct DoctorArgs {
    /// Interfaces
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,
}

pub(super) async fn run(session: &mut Session, args: DoctorArgs) -> Result<ExitCode> {
    let status = session.client.status().await;
    let findings = examine(&args.interfaces, status.as_ref()).await?;
    let problems = findings.iter().filter(|finding| finding.severity == Severity::Problem).count();
    let out = &mut session.out;
    if out.is_json() {
        out.json(&findings)?;
    } else {
        let mut rows = table(&["", "SUBJECT", "FINDING"]);
        for Finding { severity, subject, finding, remedy } in &findings {
            let how = match severity {
                Severity::Ok => How::Good,
                Severity::Note => How::Plain,
                Severity::Warning => How::Warning,
                Severity::Problem => How::Bad,
            };
            let text = match remedy {
                Some(remedy) => format!("{finding}\n  {remedy}"),
                None => finding.clone(),
            };
            rows.add_row(vec![state(severity.as_str(), how), Cell::new(subject), Cell::new(text)]);
        }
        out.table(rows, 0)?;
        let warnings = findings.iter().filter(|finding| finding.severity == Severity::Warning).count();
        out.line(format_args!("problems: {problems}, warnings: {warnings}"))?;
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
