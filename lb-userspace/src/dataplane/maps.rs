//! The pinned maps. Everyone who needs one opens it: a descriptor of its own costs nothing and has no owner to outlive.

use std::io;

use aya::maps::{Map, MapData, MapError};
use lb_common::abi::{
    BackendEntry, Filter, NeighbourEntry, Plain, RangesEntry, ReverseEntry, RingLine, RouteEntry,
    ServiceEntry, Settings, VipEntry, direct, names,
};
use std::os::fd::AsFd;

use super::pins::Pins;
use super::tables::{
    Backends, Grace, Ranges, Region, Reverse, Rings, Routes, SettingsTable, Tables, TwoChoice,
};

/// A map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// It is not there.
    #[error(
        "there is no map {name} in {pins}: nothing is loaded there, start `lb agent` or name the right --pins"
    )]
    Missing {
        /// The map.
        name: &'static str,
        /// The directory.
        pins: String,
    },
    /// The kernel refused.
    #[error("cannot use the map {name}")]
    Refused {
        /// The map.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// Its values have another size than this program's.
    #[error(
        "the map {name} has values of {found} bytes, this lb knows {known}: use the lb that the agent was started from"
    )]
    WrongValue {
        /// The map.
        name: &'static str,
        /// Bytes of a value.
        found: u32,
        /// Bytes that are right.
        known: usize,
    },
    /// It cannot be mapped into memory.
    #[error("cannot map {name} into memory (kernel 5.5 or later is needed)")]
    Mmap {
        /// The map.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused an access.
    #[error("cannot read or write the map {name}")]
    Io {
        /// The map.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl MapsError {
    pub(super) fn refused(name: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Refused { name, source: Box::new(source) }
    }
}

/// The maps in a directory of pins.
#[derive(Clone, Debug)]
pub struct Maps {
    pins: Pins,
}

impl Maps {
    /// The maps pinned there; each is opened when it is used.
    pub fn new(pins: Pins) -> Self {
        Self { pins }
    }

    /// Opens a map.
    ///
    /// # Errors
    /// It is not there, or may not be opened.
    pub fn open(&self, name: &'static str) -> Result<MapData, MapsError> {
        let path = self.pins.map(name);
        if !path.exists() {
            return Err(MapsError::Missing { name, pins: self.pins.root().display().to_string() });
        }
        MapData::from_pin(&path).map_err(MapsError::refused(name))
    }

    /// Opens a map as one of aya's types, which checks the sizes of keys and values.
    ///
    /// # Errors
    /// It is not there, may not be opened, or is of another kind.
    pub(super) fn typed<T>(&self, name: &'static str) -> Result<T, MapsError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        let map = Map::from_map_data(self.open(name)?).map_err(MapsError::refused(name))?;
        T::try_from(map).map_err(MapsError::refused(name))
    }

    /// A map's memory.
    fn region<T: Plain>(&self, name: &'static str, writable: bool) -> Result<Region<T>, MapsError> {
        let map = self.open(name)?;
        let info = map.info().map_err(MapsError::refused(name))?;
        let known = size_of::<T>() as u32;
        let entries = match direct::table(name) {
            Some(_) if info.max_entries() == 1 && info.value_size().is_multiple_of(known) => {
                info.value_size() / known
            }
            None if info.value_size() == known => info.max_entries(),
            _ => return Err(MapsError::WrongValue { name, found: info.value_size(), known: known as usize }),
        };
        Region::of_map(name, map.fd().as_fd(), entries, writable)
            .map_err(|source| MapsError::Mmap { name, source })
    }

    /// The tables. Only the one who holds the pins' lock may write them.
    ///
    /// # Errors
    /// A map is missing, of another layout, or cannot be mapped.
    pub(super) fn tables(&self) -> Result<Tables, MapsError> {
        let grace = || Grace::Kernel;
        let filter = self.region::<Filter>(names::FILTER, true)?;
        let settings = SettingsTable::new(self.region::<Settings>(names::SETTINGS, true)?);
        Ok(Tables {
            services: TwoChoice::new(self.region::<ServiceEntry>(names::SERVICES, true)?, grace()),
            vips: TwoChoice::new(self.region::<VipEntry>(names::VIPS, true)?, grace()),
            reverse: Reverse::new(
                TwoChoice::new(self.region::<ReverseEntry>(names::REVERSE, true)?, grace()),
                filter.clone(),
            ),
            ranges: Ranges::new(
                TwoChoice::new(self.region::<RangesEntry>(names::RANGES, true)?, grace()),
                filter,
                grace(),
            ),
            neighbours: TwoChoice::new(self.region::<NeighbourEntry>(names::NEIGHBOURS, true)?, grace()),
            rings: Rings::new(self.region::<RingLine>(names::RINGS, true)?),
            backends: Backends::new(self.region(names::BACKENDS, true)?),
            routes: Routes::new(self.region::<RouteEntry>(names::ROUTES, true)?, settings.share(), grace()),
            settings,
            grace: grace(),
        })
    }

    /// The services, to be read by those who do not hold the lock.
    ///
    /// # Errors
    /// The map is missing, of another layout, or cannot be mapped.
    pub fn services(&self) -> Result<Vec<ServiceEntry>, MapsError> {
        let region = self.region::<ServiceEntry>(names::SERVICES, false)?;
        Ok((0..region.len()).filter_map(|n| region.get(n)).filter(|entry| entry.key.valid()).collect())
    }

    /// Every entry of `BACKENDS`, to be read by those who do not hold the lock. Generation 0: not in use.
    ///
    /// # Errors
    /// The map is missing, of another layout, or cannot be mapped.
    pub fn backends(&self) -> Result<Vec<BackendEntry>, MapsError> {
        let region = self.region::<BackendEntry>(names::BACKENDS, false)?;
        Ok((0..region.len()).filter_map(|n| region.get(n)).collect())
    }
}
