//! What the operator writes, from text to [`crate::model::Desired`] and back.
//!
//! Text, a JSON body and the state file share one shape ([`mod@file`]) and one set of rules. Nothing is half accepted: a
//! text with any error is refused, with all its errors. Nothing here looks at a clock, the kernel or a disk.
//!
//! | module | what |
//! | --- | --- |
//! | [`mod@file`] | the shape, as serde sees it |
//! | [`spec`] | a check in one line: `http:/healthz,interval=2s` |
//! | [`mod@check`] | text → [`crate::model::Desired`], every problem with its line |
//! | [`change`] | one change of what is desired: what the command line and the API ask for |
//! | [`mod@export`] | [`crate::model::Desired`] → text |

pub mod change;
pub mod check;
mod convert;
pub mod export;
pub mod file;
pub mod finding;
mod rules;
mod schema;
pub mod spec;

#[cfg(test)]
pub(crate) mod arbitrary;

pub use change::{Change, Code, Outcome, Refusal, apply};
pub use check::{Checked, Problem, check};
pub use export::export;
