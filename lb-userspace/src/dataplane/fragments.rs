//! `FRAGMENTS`: where the first fragments of datagrams went. The program writes and forgets entries itself; whoever looks
//! from outside is a test or somebody who wonders.

use aya::maps::{HashMap, MapData, MapError};
use lb_common::abi::{FragmentKey, FragmentValue, names};

use super::maps::{Maps, MapsError};

/// The table.
#[derive(Debug)]
pub struct Fragments {
    map: HashMap<MapData, FragmentKey, FragmentValue>,
}

impl Fragments {
    /// Opens the table.
    ///
    /// # Errors
    /// The map is missing or of another layout.
    pub fn open(maps: &Maps) -> Result<Self, MapsError> {
        Ok(Self { map: maps.typed(names::FRAGMENTS)? })
    }

    /// Every entry. Those that come or go meanwhile may be missed or seen twice.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn entries(&self) -> Result<Vec<(FragmentKey, FragmentValue)>, MapsError> {
        let mut all = Vec::new();
        for entry in self.map.iter() {
            match entry {
                Ok(entry) => all.push(entry),
                // Gone between the key and the value.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(MapsError::refused(names::FRAGMENTS)(error)),
            }
        }
        Ok(all)
    }

    /// Writes an entry, as the program would.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn insert(&mut self, key: &FragmentKey, value: &FragmentValue) -> Result<(), MapsError> {
        self.map.insert(key, value, 0).map_err(MapsError::refused(names::FRAGMENTS))
    }
}
