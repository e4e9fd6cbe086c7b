//! One change of what is desired: pure, so that a dry run, the API and the command line all do the same.
//!
//! A change that is already so changes nothing and says so. A refused one says why and what to do; nothing of it is
//! done. Deadlines are points in time that the caller computes: there is no clock here.

use super::file::{self, File};
use super::finding::{Finding, Kind};
use crate::model::{AttachMode, Desired, InvalidText};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod apply;

pub use apply::{apply, replace};

/// What is to be changed. Addresses of backends may leave out the port if it is clear which one is meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// A service that is not there yet.
    AddService {
        /// The service.
        service: file::Service,
    },
    /// A service as a whole, new or not: `PUT /v1/services/NAME`.
    PutService {
        /// The service.
        service: file::Service,
    },
    /// Some options of a service.
    SetService {
        /// Its name.
        name: String,
        /// Options as on the command line, see [`SERVICE_OPTIONS`].
        set: BTreeMap<String, String>,
    },
    /// A service and its backends go.
    RemoveService {
        /// Its name.
        name: String,
    },
    /// A backend that is not there yet.
    AddBackend {
        /// Name of the service.
        service: String,
        /// The backend.
        backend: file::Backend,
    },
    /// The weight of a backend.
    SetBackend {
        /// Name of the service.
        service: String,
        /// The backend.
        address: String,
        /// Its new share, 0 to 65535.
        weight: i64,
    },
    /// A backend goes at once, and its flows with it. See [`Change::DrainBackend`] for the other way.
    RemoveBackend {
        /// Name of the service.
        service: String,
        /// The backend.
        address: String,
    },
    /// A backend takes no new flows.
    DrainBackend {
        /// Name of the service.
        service: String,
        /// The backend.
        address: String,
        /// When the drain ends whatever is left, seconds since the Unix epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
        /// The backend is removed when the drain ends.
        #[serde(default)]
        remove: bool,
    },
    /// A backend takes new flows again.
    UndrainBackend {
        /// Name of the service.
        service: String,
        /// The backend.
        address: String,
    },
    /// An interface is attached, or attached in another mode.
    Attach {
        /// Its name.
        interface: String,
        /// How.
        #[serde(default)]
        mode: AttachMode,
    },
    /// An interface is detached.
    Detach {
        /// Its name.
        interface: String,
    },
    /// Every interface is detached.
    DetachAll,
    /// Everything is replaced; interfaces only if the file names some.
    Apply {
        /// What takes its place.
        file: File,
    },
}

/// Keys of [`Change::SetService`].
pub const SERVICE_OPTIONS: [&str; 11] = [
    "listen",
    "mode",
    "scheduler",
    "on-down",
    "announce",
    "idle-timeout",
    "tracking",
    "encap-checksum",
    "echo",
    "ring-size",
    "check",
];

/// What a change led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Everything that is desired now.
    pub desired: Desired,
    /// Whether it differs from before.
    pub changed: bool,
    /// What happened, in a sentence for the operator.
    pub message: String,
    /// What works but is probably not what is wanted.
    pub warnings: Vec<String>,
}

/// Why a change was refused; decides the exit code and the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// It can never be right.
    Invalid,
    /// It does not go together with what exists.
    Conflict,
    /// What it names does not exist.
    NotFound,
}

/// A refused change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Of which kind.
    pub code: Code,
    /// Why.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Refusal {
    fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: remedy.into() }
    }
}

impl From<InvalidText> for Refusal {
    fn from(InvalidText { message, remedy }: InvalidText) -> Self {
        Self { code: Code::Invalid, message, remedy }
    }
}

impl From<Vec<Finding>> for Refusal {
    fn from(findings: Vec<Finding>) -> Self {
        let invalid = findings.iter().any(|finding| finding.kind == Kind::Invalid);
        let join = |part: fn(&Finding) -> &str| {
            let mut parts: Vec<_> = findings.iter().map(part).collect();
            parts.dedup();
            parts.join("; ")
        };
        Self {
            code: if invalid { Code::Invalid } else { Code::Conflict },
            message: join(|finding| &finding.message),
            remedy: join(|finding| &finding.remedy),
        }
    }
}

#[cfg(test)]
mod tests;
