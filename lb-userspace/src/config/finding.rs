//! What is wrong, where in the shape, and what to write instead.
//!
//! A finding knows its place by path, not by line: the same rules judge files, bodies of requests and single changes.
//! [`mod@super::check`] turns paths into lines.

use std::fmt;

/// A step into the shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A key of a table.
    Key(String),
    /// An element of an array, from 0.
    Index(usize),
}

/// A place in the shape: `service[0].backend[2].weight`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// The place `key` inside this one.
    pub fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// The element `index` of this one.
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It can never be right.
    Invalid,
    /// It does not go together with something else.
    Conflict,
    /// It works, but is probably not what is wanted.
    Warning,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub path: Path,
    /// How bad.
    pub kind: Kind,
    /// What, with the name of the service and backend.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn invalid(&mut self, path: Path, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(Kind::Invalid, path, message, remedy);
    }

    pub(super) fn conflict(&mut self, path: Path, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(Kind::Conflict, path, message, remedy);
    }

    pub(super) fn warn(&mut self, path: Path, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(Kind::Warning, path, message, remedy);
    }

    fn add(&mut self, kind: Kind, path: Path, message: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { path, kind, message: message.into(), remedy: remedy.into() });
    }

    /// The warnings, if there is nothing worse; else everything worse.
    pub(super) fn judge(self) -> Result<Vec<Finding>, Vec<Finding>> {
        let (warnings, errors): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|finding| finding.kind == Kind::Warning);
        if errors.is_empty() { Ok(warnings) } else { Err(errors) }
    }
}
