//! `FLOWS` and `EMBRYONIC`: the exceptions to the ring. Hundreds of thousands of entries are read in batches.

use std::io;
use std::os::fd::AsFd;

use aya::maps::{HashMap, MapData, MapError};
use lb_common::abi::{FlowKey, FlowValue, names};
use zerocopy::{FromZeros, IntoBytes};

use super::maps::{Maps, MapsError};
use super::sys;

/// Entries that a batch starts with; it grows when a bucket holds more.
const BATCH: usize = 4096;

/// Which of both tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowTable {
    /// Flows that were seen more than once.
    Established,
    /// Flows of which only the first packet was seen.
    Embryonic,
}

impl FlowTable {
    fn name(self) -> &'static str {
        match self {
            Self::Established => names::FLOWS,
            Self::Embryonic => names::EMBRYONIC,
        }
    }
}

/// One of both tables.
#[derive(Debug)]
pub struct Flows {
    name: &'static str,
    map: MapData,
    typed: HashMap<MapData, FlowKey, FlowValue>,
    /// The kernel has batches for it (5.6).
    pub(super) batches: bool,
}

impl Flows {
    /// Opens a table.
    ///
    /// # Errors
    /// The map is missing or of another layout.
    pub fn open(maps: &Maps, table: FlowTable) -> Result<Self, MapsError> {
        let name = table.name();
        Ok(Self { name, map: maps.open(name)?, typed: maps.typed(name)?, batches: true })
    }

    /// Looks an entry up; does not count as a use of it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn get(&self, key: &FlowKey) -> Result<Option<FlowValue>, MapsError> {
        match self.typed.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(MapsError::refused(self.name)(error)),
        }
    }

    /// Calls `each` with every entry. Entries that come or go meanwhile may be missed or seen twice.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn for_each(&mut self, mut each: impl FnMut(&FlowKey, &FlowValue)) -> Result<(), MapsError> {
        if self.batches {
            match self.in_batches(&mut each) {
                Ok(()) => return Ok(()),
                Err(error) if sys::no_batches(&error) => self.batches = false,
                Err(source) => return Err(MapsError::Io { name: self.name, source }),
            }
        }
        for entry in self.typed.iter() {
            match entry {
                Ok((key, value)) => each(&key, &value),
                // Gone between the key and the value.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(MapsError::refused(self.name)(error)),
            }
        }
        Ok(())
    }

    fn in_batches(&self, each: &mut impl FnMut(&FlowKey, &FlowValue)) -> io::Result<()> {
        let mut keys = vec![FlowKey::new_zeroed(); BATCH];
        let mut values = vec![FlowValue::new_zeroed(); BATCH];
        let mut from = None;
        loop {
            let room = keys.len();
            // SAFETY: both have room for `room` entries of this map, whose layout was checked when it was opened.
            let copied = unsafe {
                sys::lookup_batch(
                    self.map.fd().as_fd(),
                    from.as_ref(),
                    keys.as_mut_bytes(),
                    values.as_mut_bytes(),
                    room,
                )
            };
            let copied = match copied {
                // A bucket holds more than that.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    keys.resize(room * 2, FlowKey::new_zeroed());
                    values.resize(room * 2, FlowValue::new_zeroed());
                    continue;
                }
                other => other?,
            };
            for (key, value) in keys.iter().zip(&values).take(copied.count) {
                each(key, value);
            }
            let Some(next) = copied.next else { return Ok(()) };
            from = Some(next);
        }
    }

    /// Deletes entries. Those that are gone already are no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn delete(&mut self, keys: &[FlowKey]) -> Result<(), MapsError> {
        let mut keys = keys;
        while self.batches && !keys.is_empty() {
            // SAFETY: `keys` holds as many keys of this map as is said.
            let deleted = unsafe { sys::delete_batch(self.map.fd().as_fd(), keys.as_bytes(), keys.len()) };
            match deleted {
                // It stopped at one that is not there.
                Ok(count) => keys = keys.get(count + 1..).unwrap_or_default(),
                Err(error) if sys::no_batches(&error) => self.batches = false,
                Err(source) => return Err(MapsError::Io { name: self.name, source }),
            }
        }
        for key in keys {
            match self.typed.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(MapsError::refused(self.name)(error)),
            }
        }
        Ok(())
    }

    /// Writes an entry, as the program would.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn insert(&mut self, key: &FlowKey, value: &FlowValue) -> Result<(), MapsError> {
        self.typed.insert(key, value, 0).map_err(MapsError::refused(self.name))
    }
}
