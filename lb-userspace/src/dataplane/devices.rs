//! `DEVICES` and `INTERFACES`: where frames may leave, and how each interface is attached.

use aya::maps::xdp::{DevMapHash, XdpMapError};
use aya::maps::{HashMap, MapData, MapError};
use lb_common::abi::{names, settings};

use super::maps::{Maps, MapsError};

/// How the program runs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// On socket buffers.
    Generic,
}

impl Mode {
    fn word(self) -> u32 {
        match self {
            Self::Native => settings::interface::NATIVE,
            Self::Generic => settings::interface::GENERIC,
        }
    }

    fn of(word: u32) -> Option<Self> {
        match word {
            settings::interface::NATIVE => Some(Self::Native),
            settings::interface::GENERIC => Some(Self::Generic),
            _ => None,
        }
    }
}

/// Both maps.
pub struct Devices {
    devices: DevMapHash<MapData>,
    interfaces: HashMap<MapData, u32, u32>,
}

impl Devices {
    /// Opens both.
    ///
    /// # Errors
    /// A map is missing or of another kind.
    pub fn open(maps: &Maps) -> Result<Self, MapsError> {
        Ok(Self { devices: maps.typed(names::DEVICES)?, interfaces: maps.typed(names::INTERFACES)? })
    }

    /// Lets frames leave through an interface.
    ///
    /// # Errors
    /// The kernel refuses: there is no such interface in this network namespace, or the map is full.
    pub fn allow(&mut self, ifindex: u32) -> Result<(), MapsError> {
        self.devices.insert(ifindex, ifindex, None, 0).map_err(|error| match error {
            XdpMapError::MapError(error) => MapsError::refused(names::DEVICES)(error),
            // No program was given.
            XdpMapError::ChainedProgramNotSupported => {
                MapsError::Io { name: names::DEVICES, source: std::io::ErrorKind::Unsupported.into() }
            }
        })
    }

    /// Interfaces that frames may leave through.
    pub fn allowed(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.devices.keys().filter_map(Result::ok).collect();
        all.sort_unstable();
        all
    }

    /// How an interface is attached, if it is.
    pub fn mode(&self, ifindex: u32) -> Option<Mode> {
        self.interfaces.get(&ifindex, 0).ok().and_then(Mode::of)
    }

    /// Notes how an interface is attached.
    ///
    /// # Errors
    /// The kernel refuses: the map is full.
    pub fn set_mode(&mut self, ifindex: u32, mode: Mode) -> Result<(), MapsError> {
        self.interfaces.insert(ifindex, mode.word(), 0).map_err(MapsError::refused(names::INTERFACES))
    }

    /// Forgets an interface. One that is not known is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget(&mut self, ifindex: u32) -> Result<(), MapsError> {
        gone(self.devices.remove(ifindex)).map_err(MapsError::refused(names::DEVICES))?;
        gone(self.interfaces.remove(&ifindex)).map_err(MapsError::refused(names::INTERFACES))
    }
}

/// What is not there need not be removed.
fn gone(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
