//! Carrying out the steps of a plan.

use crate::dataplane::Tables;
use crate::dataplane::tables::{Full, OutOfRange};
use crate::plan::Step;

/// A step could not be carried out. Those before it are; planning again finds what is left.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A two-choice table has no place.
    #[error(transparent)]
    Full(#[from] Full),
    /// A place that is not in the table: the plan was made for other tables.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

/// Carries out what concerns the tables. Counters and flows are somebody else's, see [`crate::agent`].
///
/// # Errors
/// At the first step that fails.
pub fn to_tables(tables: &mut Tables, steps: &[Step]) -> Result<(), ApplyError> {
    for step in steps {
        match step {
            Step::Backend { index, entry, .. } => {
                tables.backends.put(*index, entry)?;
                while tables.settings.get().generation < entry.generation {
                    tables.settings.next_generation()?;
                }
            }
            Step::Slots { ring, words, .. } => {
                for (index, word) in words {
                    tables.rings.write(*ring, *index, *word)?;
                }
            }
            Step::Service { entry, .. } => tables.services.put(entry)?,
            Step::RemoveService { key, .. } => {
                tables.services.remove(key);
            }
            Step::Reverse { entry, .. } => tables.reverse.put(entry)?,
            Step::RemoveReverse { key, .. } => {
                tables.reverse.remove(key);
            }
            Step::Grace => {}
            Step::ZeroReasons { .. }
            | Step::ZeroCounters { .. }
            | Step::KeepCounters { .. }
            | Step::ForgetFlows { .. } => {}
        }
    }
    Ok(())
}
