//! How large the tables are: chosen when they are created, afterwards the pinned ones decide.

use lb_common::abi::{limits, names};

/// Entries of every table whose size is an option. The defaults stand in [`lb_common::abi::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Entries of `SERVICES`, a power of two.
    pub services: u32,
    /// Lines of `RINGS`, sixteen slots each.
    pub ring_lines: u32,
    /// Entries of `BACKENDS`.
    pub backends: u32,
    /// Entries of `REVERSE`, a power of two.
    pub reverse: u32,
    /// Entries of `RANGES`, a power of two.
    pub ranges: u32,
    /// Entries of `NEIGHBOURS`, a power of two.
    pub neighbours: u32,
    /// Entries of `FLOWS`.
    pub flows: u32,
    /// Entries of `EMBRYONIC`.
    pub embryonic: u32,
    /// Entries of `FRAGMENTS`.
    pub fragments: u32,
    /// Rows of `COUNTERS`.
    pub counters: u32,
    /// Rows of `REASONS`.
    pub reasons: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            services: limits::SERVICES,
            ring_lines: limits::RING_LINES,
            backends: limits::BACKENDS,
            reverse: limits::REVERSE,
            ranges: limits::RANGES,
            neighbours: limits::NEIGHBOURS,
            flows: limits::FLOWS,
            embryonic: limits::EMBRYONIC,
            fragments: limits::FRAGMENTS,
            counters: limits::COUNTERS,
            reasons: limits::REASONS,
        }
    }
}

/// A size that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{table} cannot have {entries} entries: it takes {}", if *.two_choice { "a power of two, at least 2" } else { "at least 1" })]
pub struct BadSize {
    table: &'static str,
    entries: u32,
    two_choice: bool,
}

/// No table of this name has a size that may be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no table {0:?}; those with a size are: {known}", known = names_of_tables())]
pub struct UnknownTable(String);

fn names_of_tables() -> String {
    Sizes::default().by_name().map(|(name, _)| name).join(", ")
}

impl Sizes {
    /// Map names and their sizes.
    pub fn by_name(&self) -> [(&'static str, u32); 11] {
        [
            (names::SERVICES, self.services),
            (names::RINGS, self.ring_lines),
            (names::BACKENDS, self.backends),
            (names::REVERSE, self.reverse),
            (names::RANGES, self.ranges),
            (names::NEIGHBOURS, self.neighbours),
            (names::FLOWS, self.flows),
            (names::EMBRYONIC, self.embryonic),
            (names::FRAGMENTS, self.fragments),
            (names::COUNTERS, self.counters),
            (names::REASONS, self.reasons),
        ]
    }

    /// Sets the size of a table by the map's name.
    ///
    /// # Errors
    /// There is no table of that name whose size may be chosen; the message lists those there are.
    pub fn set(&mut self, table: &str, entries: u32) -> Result<(), UnknownTable> {
        let size = match table {
            names::SERVICES => &mut self.services,
            names::RINGS => &mut self.ring_lines,
            names::BACKENDS => &mut self.backends,
            names::REVERSE => &mut self.reverse,
            names::RANGES => &mut self.ranges,
            names::NEIGHBOURS => &mut self.neighbours,
            names::FLOWS => &mut self.flows,
            names::EMBRYONIC => &mut self.embryonic,
            names::FRAGMENTS => &mut self.fragments,
            names::COUNTERS => &mut self.counters,
            names::REASONS => &mut self.reasons,
            _ => return Err(UnknownTable(table.to_owned())),
        };
        *size = entries;
        Ok(())
    }

    /// Checks that tables of these sizes can be made.
    ///
    /// # Errors
    /// The first table whose size is impossible.
    pub fn check(&self) -> Result<(), BadSize> {
        for (table, entries) in self.by_name() {
            let two_choice = names::TWO_CHOICE.contains(&table);
            let good = if two_choice { entries.is_power_of_two() && entries >= 2 } else { entries >= 1 };
            if !good {
                return Err(BadSize { table, entries, two_choice });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_made() {
        assert_eq!(Sizes::default().check(), Ok(()));
    }

    #[test]
    fn every_table_is_set_by_its_name() {
        let mut sizes = Sizes::default();
        for (n, (table, _)) in Sizes::default().by_name().into_iter().enumerate() {
            sizes.set(table, n as u32 + 7).unwrap();
        }
        for (n, (table, entries)) in sizes.by_name().into_iter().enumerate() {
            assert_eq!(entries, n as u32 + 7, "{table}");
        }
        let error = sizes.set("ROUTES", 1).unwrap_err().to_string();
        assert!(error.contains("SERVICES, RINGS, BACKENDS"), "{error}");
    }

    #[test]
    fn an_impossible_size_is_named() {
        let error = Sizes { services: 1000, ..Sizes::default() }.check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "SERVICES cannot have 1000 entries: it takes a power of two, at least 2"
        );
        let error = Sizes { flows: 0, ..Sizes::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "FLOWS cannot have 0 entries: it takes at least 1");
    }
}
