//! What is answered when something is refused: one shape for the API's errors, and what exit code it means.

use crate::config::{Code, Problem, Refusal};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A request that was not done. JSON of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Of which kind.
    pub code: FailureCode,
    /// What went wrong, in a sentence.
    pub message: String,
    /// What to do about it; may be empty.
    pub remedy: String,
    /// What is wrong in a configuration, place by place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemView>,
}

/// Kinds of failure: they decide the HTTP status and the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The request can never be right: 400.
    Invalid,
    /// What it names does not exist: 404.
    NotFound,
    /// It does not go together with what exists: 409.
    Conflict,
    /// The system could not do it: 500.
    Failed,
    /// Nobody is there to do it: 503. Said by clients, never by an agent.
    NoAgent,
}

impl FailureCode {
    /// HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Failed => 500,
            Self::NoAgent => 503,
        }
    }

    /// Exit code of the command line.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Invalid | Self::Failed | Self::NoAgent => 1,
            Self::NotFound => 3,
            Self::Conflict => 4,
        }
    }
}

/// Something that is wrong in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemView {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl From<Problem> for ProblemView {
    fn from(Problem { file, line, column, message, remedy }: Problem) -> Self {
        Self { file, line, column, message, remedy }
    }
}

impl Failure {
    /// A failure of some kind.
    pub fn new(code: FailureCode, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: remedy.into(), problems: Vec::new() }
    }

    /// The system could not do it.
    pub fn failed(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(FailureCode::Failed, message, remedy)
    }

    /// The request can never be right.
    pub fn invalid(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(FailureCode::Invalid, message, remedy)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Refusal> for Failure {
    fn from(Refusal { code, message, remedy }: Refusal) -> Self {
        let code = match code {
            Code::Invalid => FailureCode::Invalid,
            Code::Conflict => FailureCode::Conflict,
            Code::NotFound => FailureCode::NotFound,
        };
        Self::new(code, message, remedy)
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        let file = problems.first().map_or_else(String::new, |problem| problem.file.clone());
        let message = match problems.len() {
            1 => format!("{file} has a problem; nothing of it is in force"),
            count => format!("{file} has {count} problems; nothing of it is in force"),
        };
        let problems = problems.into_iter().map(ProblemView::from).collect();
        Self {
            problems,
            ..Self::invalid(message, "correct them and try again; `lb check FILE` needs no agent")
        }
    }
}
