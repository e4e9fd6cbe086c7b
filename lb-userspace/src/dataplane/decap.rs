//! `lb decap`: a program that takes packets out of others, on backends that have no tunnel device. No agent is needed;
//! each interface has a program and maps of its own, which live as long as its pinned link.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, PerCpuArray};
use ipnet::IpNet;
use lb_common::abi::decap::{ADDRESSES, DecapSource, SOURCES, kinds};
use lb_common::abi::{DecapConfig, DecapCounts, names};
use lb_common::decap::Outcome;

use super::devices::Mode;
use super::interfaces::{AttachError, link, unlink};
use super::load::load_alone;
use super::load_error::LoadError;
use super::maps::MapsError;
use super::pins::{self, Pins, PinsError};
use super::sys;
use crate::model::AttachMode;

/// What is taken off, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Prefixes that balancers send from.
    pub sources: Vec<IpNet>,
    /// Addresses that they send to.
    pub addresses: Vec<IpAddr>,
    /// IP in IP.
    pub ipip: bool,
    /// UDP around IP, at this port.
    pub gue: Option<u16>,
}

/// Nothing was attached.
#[derive(Debug, thiserror::Error)]
pub enum DecapError {
    /// More than the program looks through.
    #[error("{count} {what} are too many: give at most {most}, with shorter prefixes or on fewer addresses")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// It is attached already, for others.
    #[error("{0} has it already, with other options: `lb decap {0} --detach` first")]
    OtherOptions(String),
    /// The interface, the program or the pins.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl From<PinsError> for DecapError {
    fn from(error: PinsError) -> Self {
        Self::Attach(error.into())
    }
}

impl From<MapsError> for DecapError {
    fn from(error: MapsError) -> Self {
        Self::Attach(error.into())
    }
}

/// What attaching came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// It was so already.
    pub already: bool,
    /// Why it does not run in the driver, when that was tried.
    pub fallback: Option<String>,
}

/// An interface that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its index.
    pub ifindex: u32,
    /// Its name when it was attached.
    pub interface: String,
    /// What is taken off.
    pub wanted: Wanted,
    /// How often each outcome was.
    pub counts: Vec<(Outcome, u64)>,
}

impl Wanted {
    fn config(&self) -> Result<DecapConfig, DecapError> {
        let mut config = DecapConfig::EMPTY;
        for (what, count, most) in
            [("prefixes", self.sources.len(), SOURCES), ("addresses", self.addresses.len(), ADDRESSES)]
        {
            if count > most {
                return Err(DecapError::TooMany { what, count, most });
            }
        }
        for (place, net) in config.sources.iter_mut().zip(&self.sources) {
            *place = source(net);
        }
        for (place, address) in config.addresses.iter_mut().zip(&self.addresses) {
            *place = (*address).into();
        }
        config.source_count = self.sources.len() as u32;
        config.address_count = self.addresses.len() as u32;
        config.kinds =
            if self.ipip { kinds::IPIP } else { 0 } | if self.gue.is_some() { kinds::GUE } else { 0 };
        config.port = self.gue.unwrap_or_default().to_be().into();
        Ok(config)
    }

    fn of(config: &DecapConfig) -> Self {
        let sources = config.sources.iter().take(config.source_count as usize).filter_map(prefix);
        let addresses = config.addresses.iter().take(config.address_count as usize);
        Self {
            sources: sources.collect(),
            addresses: addresses.map(|address| (*address).into()).collect(),
            ipip: config.kinds & kinds::IPIP != 0,
            gue: (config.kinds & kinds::GUE != 0).then_some(u16::from_be(config.port as u16)),
        }
    }
}

fn source(net: &IpNet) -> DecapSource {
    let ones = |bits: u32| u128::MAX.checked_shl(128 - bits).unwrap_or_default();
    // IPv4 lies behind 96 bits.
    let bits = u32::from(net.prefix_len()) + if net.addr().is_ipv4() { 96 } else { 0 };
    DecapSource { prefix: net.network().into(), mask: IpAddr::V6(ones(bits).into()).into() }
}

fn prefix(source: &DecapSource) -> Option<IpNet> {
    let bits: u32 = source.mask.words().iter().map(|word| word.count_ones()).sum();
    let bits = if source.prefix.is_v4() { bits.checked_sub(96)? } else { bits };
    IpNet::new(source.prefix.into(), bits as u8).ok()
}

/// Attaches it. Attaching twice alike changes nothing.
///
/// # Errors
/// See [`DecapError`]; the interface is then as it was.
pub fn attach(
    pins: &Pins,
    ifindex: u32,
    name: &str,
    mode: AttachMode,
    wanted: &Wanted,
) -> Result<Attached, DecapError> {
    let config = wanted.config()?;
    let dir = pins.decap_links()?;
    pins::make_dir(&dir)?;
    if pins::links(&dir)?.iter().any(|link| link.info.ifindex == ifindex) {
        return match configured(&maps_of(&dir, ifindex)) {
            Ok(found) if found == config => Ok(Attached { already: true, fallback: None }),
            _ => Err(DecapError::OtherOptions(name.to_owned())),
        };
    }
    let ebpf = loaded(&config).map_err(|error| AttachError::from(Box::new(error)))?;
    let maps = maps_of(&dir, ifindex);
    // Of an interface that is gone and had this index.
    remove_maps(&maps)?;
    pins::make_dir(&maps)?;
    let attached = pin_parts(&ebpf, &maps).and_then(|()| attach_as(&ebpf, ifindex, name, mode, &dir));
    if attached.is_err() {
        remove_maps(&maps)?;
    }
    Ok(Attached { already: false, fallback: attached? })
}

fn attach_as(
    ebpf: &Ebpf,
    ifindex: u32,
    name: &str,
    mode: AttachMode,
    dir: &Path,
) -> Result<Option<String>, AttachError> {
    let missing = || Box::new(super::OpenError::from(Box::new(LoadError::NoProgram(names::DECAP_PROGRAM))));
    let program = ebpf.program(names::DECAP_PROGRAM).ok_or_else(missing)?;
    let program = program.fd().map_err(Box::new)?.as_fd();
    match mode {
        AttachMode::Native => link(program, ifindex, name, Mode::Native, dir).map(|()| None),
        AttachMode::Generic => link(program, ifindex, name, Mode::Generic, dir).map(|()| None),
        AttachMode::Auto => match link(program, ifindex, name, Mode::Native, dir) {
            Err(AttachError::Refused { reason, .. }) => {
                link(program, ifindex, name, Mode::Generic, dir).map(|()| Some(reason))
            }
            other => other.map(|()| None),
        },
    }
}

fn loaded(config: &DecapConfig) -> Result<Ebpf, super::OpenError> {
    let mut ebpf = load_alone(names::DECAP_PROGRAM)?;
    let refused = MapsError::refused(names::DECAP);
    let map = ebpf.map_mut(names::DECAP).ok_or_else(|| Box::new(LoadError::NoProgram(names::DECAP)))?;
    let mut map = Array::<_, DecapConfig>::try_from(map).map_err(&refused)?;
    map.set(0, config, 0).map_err(&refused)?;
    Ok(ebpf)
}

/// Detaches it. `false`: it was not attached.
///
/// # Errors
/// The kernel or the file system refuses.
pub fn detach(pins: &Pins, ifindex: u32) -> Result<bool, DecapError> {
    let dir = pins.decap_links()?;
    let links = pins::links(&dir)?;
    let Some(link) = links.iter().find(|link| link.info.ifindex == ifindex) else { return Ok(false) };
    unlink(link)?;
    remove_maps(&maps_of(&dir, link.ifindex))?;
    Ok(true)
}

/// Interfaces that have it. What is left of deleted ones is removed.
///
/// # Errors
/// The pins cannot be read.
pub fn attached(pins: &Pins) -> Result<Vec<Attachment>, DecapError> {
    let dir = pins.decap_links()?;
    let mut attached = Vec::new();
    for link in pins::links(&dir)? {
        let maps = maps_of(&dir, link.ifindex);
        if link.info.ifindex == 0 {
            pins::remove(&link.path)?;
            remove_maps(&maps)?;
            continue;
        }
        let wanted = Wanted::of(&configured(&maps)?);
        attached.push(Attachment {
            ifindex: link.ifindex,
            interface: link.name,
            wanted,
            counts: counts(&maps)?,
        });
    }
    Ok(attached)
}

fn configured(maps: &Path) -> Result<DecapConfig, MapsError> {
    let refused = MapsError::refused(names::DECAP);
    let map = MapData::from_pin(maps.join(names::DECAP)).and_then(Map::from_map_data).map_err(&refused)?;
    Array::<_, DecapConfig>::try_from(map).map_err(&refused)?.get(&0, 0).map_err(&refused)
}

fn counts(maps: &Path) -> Result<Vec<(Outcome, u64)>, MapsError> {
    let refused = MapsError::refused(names::DECAP_COUNTS);
    let map =
        MapData::from_pin(maps.join(names::DECAP_COUNTS)).and_then(Map::from_map_data).map_err(&refused)?;
    let rows =
        PerCpuArray::<_, DecapCounts>::try_from(map).map_err(&refused)?.get(&0, 0).map_err(&refused)?;
    let count = |outcome: Outcome| rows.iter().map(|row| row.counts[outcome as usize]).sum();
    Ok(Outcome::ALL.iter().map(|outcome| (*outcome, count(*outcome))).collect())
}

/// Where the maps of an interface's program are pinned.
fn maps_of(dir: &Path, ifindex: u32) -> PathBuf {
    dir.join(format!("{ifindex}-maps"))
}

fn pin_parts(ebpf: &Ebpf, dir: &Path) -> Result<(), AttachError> {
    if let Some(program) = ebpf.program(names::DECAP_PROGRAM) {
        // For `bpftool`, and to be run on packets.
        let path = dir.join(names::DECAP_PROGRAM);
        let fd = program.fd().map_err(Box::new)?;
        sys::pin(fd.as_fd(), &path).map_err(PinsError::io("pin", &path))?;
    }
    for name in [names::DECAP, names::DECAP_COUNTS] {
        let path = dir.join(name);
        if let Some(Map::Array(map) | Map::PerCpuArray(map)) = ebpf.map(name) {
            sys::pin(map.fd().as_fd(), &path).map_err(PinsError::io("pin", &path))?;
        }
    }
    Ok(())
}

fn remove_maps(dir: &Path) -> Result<(), PinsError> {
    for pin in pins::list(dir)? {
        pins::remove(&pin)?;
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(PinsError::io("remove", dir)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::addr::Addr;

    #[test]
    fn what_is_wanted_comes_back() {
        let wanted = Wanted {
            sources: ["198.18.0.0/15", "10.0.0.1/32", "0.0.0.0/0", "2001:db8::/32", "::/0", "fd00::1/128"]
                .map(|text| text.parse().unwrap())
                .into(),
            addresses: vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
            ipip: true,
            gue: Some(6080),
        };
        let config = wanted.config().unwrap();
        assert_eq!(Wanted::of(&config), wanted);
        let address = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        assert!(config.owns(&address("fd00::9")) && !config.owns(&address("fd00::8")));
        let narrow = Wanted { sources: vec!["198.18.0.0/15".parse().unwrap()], ..wanted };
        let config = narrow.config().unwrap();
        assert!(config.trusts(&address("198.19.255.255")) && !config.trusts(&address("198.20.0.0")));
        assert!(!config.trusts(&address("2001:db8::1")), "a prefix of IPv4 covers no IPv6");
        let many = Wanted { addresses: vec!["10.0.0.9".parse().unwrap(); ADDRESSES + 1], ..narrow };
        assert!(many.config().unwrap_err().to_string().contains("too many"));
    }
}
