//! Layouts of maps: what a pinned map is against what the program needs.
//!
//! The kernel lets a program use a map of any layout, and writes past the end of smaller values: nothing may be adopted
//! unseen.

use std::fmt;
use std::path::{Path, PathBuf};

use aya::maps::{MapError, MapInfo};
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_DEVMAP_HASH};
use lb_common::abi::direct::Direct;
use lb_common::abi::names;

/// `struct bpf_devmap_val`: an interface and a program (kernel 5.8).
pub(super) const DEVMAP_VALUE: u32 = 8;
/// The kernel sets it on every device map (kernel 5.5); programs do not ask for it.
const READ_ONLY_FOR_PROGRAMS: u32 = 1 << 7;

/// `BPF_F_MMAPABLE` (kernel 5.5).
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// What a map is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `BPF_MAP_TYPE_…`.
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries.
    pub max_entries: u32,
    /// `BPF_F_…`.
    pub flags: u32,
}

impl Layout {
    /// A table that programs reach without a look-up, as if its entries were the map's.
    pub(super) const fn direct(table: Direct) -> Self {
        Self {
            kind: BPF_MAP_TYPE_ARRAY as u32,
            key_size: size_of::<u32>() as u32,
            value_size: table.entry,
            max_entries: table.entries,
            flags: BPF_F_MMAPABLE,
        }
    }

    /// The same of a map in the kernel: its one value holds all entries. Anything else stays as it is, and differs.
    pub(super) fn in_entries(self, table: Direct) -> Self {
        if self.max_entries != 1 || !self.value_size.is_multiple_of(table.entry) {
            return Self { max_entries: 0, ..self };
        }
        Self { value_size: table.entry, max_entries: self.value_size / table.entry, ..self }
    }

    /// The layout of a map in the kernel.
    ///
    /// # Errors
    /// The map's type is unknown to aya.
    pub fn of(info: &MapInfo) -> Result<Self, MapError> {
        let kind = info.map_type()? as u32;
        let mut flags = info.map_flags();
        if kind == BPF_MAP_TYPE_DEVMAP_HASH as u32 {
            flags &= !READ_ONLY_FOR_PROGRAMS;
        }
        Ok(Self {
            kind,
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
            flags,
        })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, key_size, value_size, max_entries, flags } = self;
        write!(
            f,
            "type {kind}, key {key_size} B, value {value_size} B, {max_entries} entries, flags {flags:#x}"
        )
    }
}

/// A pinned map that is not what the program needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "the pinned map {} is another one than this lb needs ({found}; needed: {needed}). Nothing was changed. \
     To migrate: take another --pins directory and move interfaces over one by one (`lb detach`, `lb attach`), \
     or stop the traffic, detach and remove the directory", path.display()
)]
pub struct WrongLayout {
    /// Where it is pinned.
    pub path: PathBuf,
    /// What it is.
    pub found: Layout,
    /// What it should be.
    pub needed: Layout,
}

/// Compares a pinned map with what is needed. The size of a table that may be chosen is not compared.
///
/// # Errors
/// They differ.
pub fn compare(
    name: &str,
    path: &Path,
    found: Layout,
    needed: Layout,
    sizable: bool,
) -> Result<(), Box<WrongLayout>> {
    let two_choice = names::TWO_CHOICE.contains(&name);
    let entries_fit = if sizable { found.max_entries } else { needed.max_entries };
    let same =
        found == Layout { max_entries: entries_fit, ..needed } && found.max_entries != 0 || found == needed;
    if same && (!two_choice || found.max_entries.is_power_of_two()) {
        return Ok(());
    }
    Err(Box::new(WrongLayout { path: path.to_owned(), found, needed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: Layout = Layout { kind: 2, key_size: 4, value_size: 64, max_entries: 1024, flags: 1024 };

    fn fits(found: Layout, sizable: bool) -> bool {
        compare(names::SERVICES, Path::new("/x"), found, NEEDED, sizable).is_ok()
    }

    #[test]
    fn a_table_without_look_ups_is_one_value() {
        let table = lb_common::abi::direct::table(names::BACKENDS).unwrap();
        let needed = Layout::direct(table);
        let in_kernel =
            |value_size, max_entries| Layout { value_size, max_entries, ..needed }.in_entries(table);
        let fits = |found| compare(table.name, Path::new("/x"), found, needed, true).is_ok();
        assert_eq!(in_kernel(table.entry * 100, 1).max_entries, 100);
        assert!(fits(in_kernel(table.entry * 100, 1)));
        assert!(!fits(in_kernel(table.entry, table.entries)), "an entry a value, as other tables are");
        assert!(!fits(in_kernel(table.entry * 100 + 8, 1)), "no whole number of entries");
        assert!(!fits(in_kernel(0, 1)), "none");
    }

    #[test]
    fn only_the_size_of_a_sizable_table_may_differ() {
        assert!(fits(NEEDED, false));
        assert!(fits(Layout { max_entries: 2048, ..NEEDED }, true));
        assert!(!fits(Layout { max_entries: 2048, ..NEEDED }, false));
        assert!(!fits(Layout { max_entries: 1000, ..NEEDED }, true), "no mask for 1000 entries");
        for other in [
            Layout { kind: 1, ..NEEDED },
            Layout { key_size: 8, ..NEEDED },
            Layout { value_size: 256, ..NEEDED },
            Layout { flags: 0, ..NEEDED },
        ] {
            assert!(!fits(other, true), "{other}");
        }
    }
}
