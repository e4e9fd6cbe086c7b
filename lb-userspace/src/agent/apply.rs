//! Carrying out the steps of a plan.

use crate::dataplane::Tables;
use crate::dataplane::tables::{Full, OutOfRange, RangesError};
use crate::plan::Step;
use lb_common::abi::ReverseEntry;

/// A step could not be carried out. Those before it are; planning again finds what is left.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A two-choice table has no place.
    #[error(transparent)]
    Full(#[from] Full),
    /// A list of ranges cannot be written.
    #[error(transparent)]
    Ranges(#[from] RangesError),
    /// A place that is not in the table: the plan was made for other tables.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
}

/// Carries out what concerns the tables. Counters and flows are somebody else's, see [`crate::agent`].
///
/// # Errors
/// At the first step that fails.
pub fn to_tables(tables: &mut Tables, steps: &[Step]) -> Result<(), ApplyError> {
    stretches(steps).try_for_each(|stretch| one_stretch(tables, stretch))
}

/// Parts of a plan that take nothing away, and between them one by one the steps that do. What a stretch adds may be
/// written in any order that has slots and services after what they point to.
pub(crate) fn stretches(steps: &[Step]) -> impl Iterator<Item = &[Step]> {
    let takes = |step: &Step| {
        matches!(
            step,
            Step::RemoveService { .. }
                | Step::RemoveReverse { .. }
                | Step::RemoveVip { .. }
                | Step::Ranges { .. }
                | Step::ForgetFlows { .. }
                | Step::Grace
        )
    };
    steps.chunk_by(move |one, next| !takes(one) && !takes(next))
}

fn one_stretch(tables: &mut Tables, steps: &[Step]) -> Result<(), ApplyError> {
    // All at once, at the first of them: they share what waiting there is.
    let mut ways: Vec<ReverseEntry> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Reverse { entry, .. } => Some(*entry),
            _ => None,
        })
        .collect();
    let mut full = None;
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
            Step::Reverse { entry, .. } => {
                if !ways.is_empty() {
                    full = tables.reverse.put_all(&ways).err();
                    ways = Vec::new();
                }
                // Whoever comes before the first one that had no place is served.
                if let Some(full) = full
                    && tables.reverse.find(&entry.key) != Some(*entry)
                {
                    return Err(full.into());
                }
            }
            Step::RemoveReverse { key, .. } => {
                tables.reverse.remove(key);
            }
            Step::Vip { entry, .. } => tables.vips.put(entry)?,
            Step::RemoveVip { key, .. } => {
                tables.vips.remove(key);
            }
            Step::Ranges { key, list } => tables.ranges.set(key, list)?,
            Step::Grace => tables.grace.synchronize(),
            Step::ZeroReasons { .. }
            | Step::ZeroCounters { .. }
            | Step::KeepCounters { .. }
            | Step::ForgetFlows { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Sizes;
    use crate::dataplane::tables::Grace;
    use std::cell::Cell;

    thread_local! {
        static WAITS: Cell<u32> = const { Cell::new(0) };
    }

    #[test]
    fn a_step_that_waits_for_packets_waits() {
        let mut tables =
            Tables::in_memory(&Sizes { services: 2, reverse: 2, neighbours: 2, ..Sizes::default() });
        tables.grace = Grace::Told(|| WAITS.set(WAITS.get() + 1));
        to_tables(&mut tables, &[Step::Grace]).unwrap();
        assert_eq!(WAITS.get(), 1);
    }
}
