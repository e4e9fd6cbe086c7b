//! The pins without an agent, for `lb stats`, `lb explain` and `lb detach`: nothing is loaded and no table is written.

use lb_common::abi::names;

use super::counters::Counters;
use super::explain::Explainer;
use super::flows::{FlowTable, Flows};
use super::interfaces::{AttachError, Interfaces};
use super::maps::{Maps, MapsError};
use super::pins::{Pins, PinsLock};

/// What is pinned in a directory.
#[derive(Debug)]
pub struct Offline {
    pins: Pins,
    maps: Maps,
}

impl Offline {
    /// Opens what an agent has left.
    ///
    /// # Errors
    /// Nothing is pinned there.
    pub fn open(pins: Pins) -> Result<Self, MapsError> {
        let maps = Maps::new(pins.clone());
        for name in names::MAPS {
            maps.open(name)?;
        }
        Ok(Self { pins, maps })
    }

    /// The maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// What was counted.
    ///
    /// # Errors
    /// A map is of another layout.
    pub fn counters(&self) -> Result<Counters, MapsError> {
        Counters::open(&self.maps)
    }

    /// The flows that have entries.
    ///
    /// # Errors
    /// A map is of another layout.
    pub fn flows(&self, table: FlowTable) -> Result<Flows, MapsError> {
        Flows::open(&self.maps, table)
    }

    /// Runs the pinned programs.
    ///
    /// # Errors
    /// A map is of another layout.
    pub fn explainer(&self) -> Result<Explainer<'_>, MapsError> {
        Explainer::open(&self.pins, &self.maps)
    }

    /// The attached interfaces, to detach them. Fails while an agent runs: ask that one.
    ///
    /// # Errors
    /// An agent holds the lock, or a map is of another layout.
    pub fn interfaces(&self) -> Result<(Interfaces<'_>, PinsLock), AttachError> {
        let lock = self.pins.lock()?;
        Ok((Interfaces::open(&self.pins, &self.maps)?, lock))
    }
}
