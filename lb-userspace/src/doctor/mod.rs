//! What keeps this machine from balancing well, as data: each finding with its remedy.
//!
//! Facts are gathered from /proc, /sys, rtnetlink, ethtool and the agent's status; judging them is pure. Looks only:
//! nothing is changed, and without privileges less is seen.

mod host;
mod interface;
mod service;

use crate::api::failure::Failure;
use crate::api::types::StatusView;
use crate::net::Netlink;
use anyhow::Result;
use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Works, but slower or less surely than it could.
    Warning,
    /// Does not work.
    Problem,
}

impl Severity {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at: `kernel`, the name of an interface or service…
    pub subject: String,
    /// What was found.
    pub finding: String,
    /// What to do about it; a command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(subject: &str, finding: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, subject: subject.into(), finding: finding.into(), remedy: None }
    }

    fn new(severity: Severity, subject: &str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { severity, subject: subject.into(), finding: finding.into(), remedy }
    }
}

/// Looks at everything. Without names: the interfaces of the agent, or else every Ethernet interface that is up.
///
/// # Errors
///
/// An interface that was named does not exist, or the kernel cannot be asked.
pub async fn examine(interfaces: &[String], status: Result<&StatusView, &Failure>) -> Result<Vec<Finding>> {
    let links = Netlink::open()?.links().await?;
    let mut names = interfaces.to_vec();
    if let (true, Ok(status)) = (names.is_empty(), status) {
        names = status.interfaces.iter().map(|interface| interface.name.clone()).collect();
    }
    if names.is_empty() {
        names = links.iter().filter(|link| link.ethernet && link.up).map(|link| link.name.clone()).collect();
    }
    let mut findings = host::examine();
    for name in &names {
        findings.extend(interface::examine(name, &links)?);
    }
    findings.extend(service::examine(status));
    Ok(findings)
}
