//! Loading: adopt what is pinned, create what is missing, replace what is old. Nothing is touched before all is checked.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use aya::maps::{Map, MapInfo, ProgramArray};
use aya::programs::{ProgramError, ProgramType, Xdp};
use aya::sys::{BpfHelper, is_helper_supported};

use aya::{Ebpf, EbpfLoader};
use aya_obj::programs::XdpAttachType;
use lb_common::abi::names;

use super::layout::{self, Layout, WrongLayout};
use super::load_error::LoadError;
use super::maps::{Maps, MapsError};
use super::object;
use super::pins::{self, Pins, PinsError, PinsLock};
use super::sizes::{BadSize, Sizes};
use super::sys;

/// How often a load that a signal interrupted is tried.
const ATTEMPTS: u32 = 10;

/// What may be chosen when loading.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on a BPF file system.
    pub pins: PathBuf,
    /// Sizes of tables that do not exist yet.
    pub sizes: Sizes,
    /// The program tells of each packet that it drops, see [`super::drops`]. Without it there is no code for that.
    pub log_drops: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { pins: pins::DEFAULT.into(), sizes: Sizes::default(), log_drops: false }
    }
}

/// The data plane could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There are no programs to load.
    #[error(transparent)]
    Object(#[from] object::ObjectError),
    /// A size is impossible.
    #[error(transparent)]
    Size(#[from] BadSize),
    /// Something is wrong with the pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A pinned map is another one. Nothing was changed.
    #[error(transparent)]
    Layout(#[from] Box<WrongLayout>),
    /// What is pinned cannot be looked at.
    #[error("cannot look at {}", path.display())]
    Look {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// A map cannot be used.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The kernel did not take the programs.
    #[error(transparent)]
    Load(#[from] Box<LoadError>),
}

/// What was found when opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing was there.
    Fresh,
    /// This very build was there: nothing was loaded, nothing replaced.
    Adopted,
    /// Another build was there: so many attached interfaces got this one's program.
    Upgraded {
        /// Interfaces whose program was replaced.
        links: usize,
    },
}

/// A table that keeps the size it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptSize {
    /// The table.
    pub table: &'static str,
    /// The size that was asked for.
    pub asked: u32,
    /// The size that it has.
    pub has: u32,
}

/// The data plane, and what to tell about how it came to be.
#[derive(Debug)]
pub struct Opened {
    /// The data plane.
    pub dataplane: Dataplane,
    /// What was there before.
    pub start: Start,
    /// Files among the pins that are not ours; left alone.
    pub unknown: Vec<PathBuf>,
    /// Tables that were created with other sizes than asked for now.
    pub kept_sizes: Vec<KeptSize>,
}

/// The loaded programs and their maps, with the right to change them.
#[derive(Debug)]
pub struct Dataplane {
    pub(super) pins: Pins,
    pub(super) maps: Maps,
    pub(super) balance: Xdp,
    _lock: PinsLock,
}

impl Dataplane {
    /// Opens the data plane under a directory of pins: adopts it, or loads it.
    ///
    /// # Errors
    /// Another process holds it, a pinned map has another layout, or the kernel refuses. Pinned maps and links
    /// are then as they were.
    pub fn open(options: &Options) -> Result<Opened, OpenError> {
        options.sizes.check()?;
        let needed = object::layouts()?;
        let build = object::build()?;
        let pins = Pins::new(&options.pins);
        let lock = pins.prepare()?;
        let found = check_maps(&pins, &needed, &options.sizes)?;
        let unknown = pins.unknown()?;

        // With and without logs the programs differ: they are two builds.
        let dir = pins.programs().join(if options.log_drops { format!("{build}-logs") } else { build });
        let adopted = found.existing == names::MAPS.len() && programs_are_bound(&pins, &dir);
        if !adopted {
            load(&pins, &found, &dir, options.log_drops)?;
        }
        let balance_pin = dir.join(names::BALANCE);
        let balance = Xdp::from_pin(&balance_pin, XdpAttachType::Interface).map_err(look(&balance_pin))?;
        let links = upgrade_links(&pins, &balance).map_err(Box::new)?;
        remove_other_builds(&pins, &dir)?;
        let start = match (found.existing, adopted, links) {
            (0, _, 0) => Start::Fresh,
            (_, true, 0) => Start::Adopted,
            (_, _, links) => Start::Upgraded { links },
        };
        let maps = Maps::new(pins.clone());
        let dataplane = Self { pins, maps, balance, _lock: lock };
        Ok(Opened { dataplane, start, unknown, kept_sizes: found.kept })
    }

    /// The maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The directory of pins.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The tables, as they stand in the kernel. Take them once: they are the one writer's.
    ///
    /// # Errors
    /// A map cannot be mapped.
    pub fn tables(&self) -> Result<super::Tables, MapsError> {
        self.maps.tables()
    }
}

fn look<E: Into<aya::EbpfError>>(path: &std::path::Path) -> impl Fn(E) -> OpenError {
    move |error| OpenError::Look { path: path.to_owned(), source: Box::new(error.into()) }
}

/// The maps that are there, and the sizes of all.
struct Found {
    existing: usize,
    entries: BTreeMap<&'static str, u32>,
    missing: Vec<&'static str>,
    kept: Vec<KeptSize>,
}

/// Compares what is pinned with what is needed; the pinned sizes win.
fn check_maps(
    pins: &Pins,
    needed: &BTreeMap<&'static str, Layout>,
    sizes: &Sizes,
) -> Result<Found, OpenError> {
    let chosen = BTreeMap::from(sizes.by_name());
    let mut found = Found { existing: 0, entries: BTreeMap::new(), missing: Vec::new(), kept: Vec::new() };
    for (name, needed) in needed {
        let path = pins.map(name);
        let asked = chosen.get(name).copied();
        let entries = if path.exists() {
            let info = MapInfo::from_pin(&path).map_err(look(&path))?;
            let layout = Layout::of(&info).map_err(look(&path))?;
            layout::compare(name, &path, layout, *needed, asked.is_some())?;
            found.existing += 1;
            let has = layout.max_entries;
            if let Some(asked) = asked.filter(|asked| *asked != has) {
                found.kept.push(KeptSize { table: name, asked, has });
            }
            has
        } else {
            found.missing.push(name);
            asked.unwrap_or(needed.max_entries)
        };
        found.entries.insert(name, entries);
    }
    Ok(found)
}

/// Whether all programs of a build are pinned, and use no other maps of ours than the pinned ones.
fn programs_are_bound(pins: &Pins, dir: &std::path::Path) -> bool {
    let ids: Option<Vec<u32>> =
        names::MAPS.iter().map(|name| Some(MapInfo::from_pin(pins.map(name)).ok()?.id())).collect();
    let Some(ids) = ids else { return false };
    dir.join(names::STAGES).exists()
        && names::PROGRAMS.iter().all(|name| {
            let program = Xdp::from_pin(dir.join(name), XdpAttachType::Interface);
            let used = program.and_then(|program| program.info()?.map_ids());
            let Ok(used) = used else { return false };
            let foreign = used.unwrap_or_default().into_iter().filter(|id| !ids.contains(id));
            // What is left may only be the constants.
            foreign.into_iter().all(|id| {
                MapInfo::from_id(id)
                    .is_ok_and(|map| map.name_as_str().is_none_or(|n| !names::MAPS.contains(&n)))
            })
        })
}

/// Creates the missing maps, loads the programs and pins them. What it created is removed again if it fails.
fn load(pins: &Pins, found: &Found, dir: &std::path::Path, log_drops: bool) -> Result<(), OpenError> {
    let result = load_programs(pins, found, log_drops).and_then(|mut ebpf| pin_programs(&mut ebpf, dir));
    if result.is_err() {
        for name in &found.missing {
            // Those that had not come to be are not there.
            let _ = fs::remove_file(pins.map(name));
        }
    }
    result
}

fn load_programs(pins: &Pins, found: &Found, log_drops: bool) -> Result<Ebpf, OpenError> {
    let entries = |name| found.entries.get(name).copied().unwrap_or_default();
    let masks = names::TWO_CHOICE.map(|name| entries(name).wrapping_sub(1));
    let mut loader = EbpfLoader::new();
    for (name, entries) in &found.entries {
        loader.map_pin_path(name, pins.map(name)).map_max_entries(name, *entries);
    }
    let coarse_clock = u32::from(has_coarse_clock());
    let level: u8 = if log_drops { log::Level::Debug as u8 } else { 0 };
    loader
        .override_global(aya_log::LEVEL, &level, true)
        .override_global("COARSE_CLOCK", &coarse_clock, true)
        .override_global("SERVICE_MASK", &masks[0], true)
        .override_global("REVERSE_MASK", &masks[1], true)
        .override_global("NEIGHBOUR_MASK", &masks[2], true)
        .override_global("RANGES_MASK", &masks[3], true);
    let mut ebpf = loader.load(object::bytes()?).map_err(|e| Box::new(LoadError::new(e)))?;
    for name in names::PROGRAMS {
        load_one(&mut ebpf, name).map_err(Box::new)?;
    }
    fill_stages(&mut ebpf)?;
    Ok(ebpf)
}

/// Lets programs go on in others.
fn fill_stages(ebpf: &mut Ebpf) -> Result<(), OpenError> {
    let mut programs = Vec::new();
    for name in names::IN_STAGES {
        let program = ebpf.program(name).ok_or_else(|| Box::new(LoadError::NoProgram(name)))?;
        let fd = program.fd().map_err(|e| Box::new(LoadError::of_program(name, e)))?;
        programs.push(fd.try_clone().map_err(|e| Box::new(LoadError::of_program(name, e.into())))?);
    }
    let refused = MapsError::refused(names::STAGES);
    let map = ebpf.map_mut(names::STAGES).ok_or_else(|| Box::new(LoadError::NoProgram(names::STAGES)))?;
    let mut stages = ProgramArray::try_from(map).map_err(&refused)?;
    for (place, program) in (0..).zip(&programs) {
        stages.set(place, program, 0).map_err(&refused)?;
    }
    Ok(())
}

/// Whether programs may use the clock that is cheap to read. What cannot be found out is taken for missing.
fn has_coarse_clock() -> bool {
    is_helper_supported(ProgramType::Xdp, BpfHelper::BPF_FUNC_ktime_get_coarse_ns).unwrap_or(false)
}

/// What the programs do without on this kernel, for people.
pub fn switched_off() -> Vec<&'static str> {
    let coarse_clock = "the coarse clock (bpf_ktime_get_coarse_ns, 5.11): the exact one is read";
    if has_coarse_clock() { Vec::new() } else { vec![coarse_clock] }
}

fn load_one<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::NoProgram(name))?;
    let program: &mut Xdp = program.try_into().map_err(|e| LoadError::of_program(name, e))?;
    let mut attempts = ATTEMPTS;
    while let Err(error) = program.load() {
        attempts -= 1;
        if attempts == 0 || !was_interrupted(&error) {
            return Err(LoadError::of_program(name, error));
        }
    }
    Ok(program)
}

/// The verifier gives up with EAGAIN when a signal comes in.
fn was_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EAGAIN))
}

/// Loads only the program that passes everything, with the smallest maps: it uses none.
///
/// # Errors
/// There is no object, or the kernel refuses.
pub(super) fn load_pass() -> Result<Ebpf, OpenError> {
    let mut loader = EbpfLoader::new();
    for name in names::MAPS {
        loader.map_max_entries(name, 1);
    }
    let mut ebpf = loader.load(object::bytes()?).map_err(|e| Box::new(LoadError::new(e)))?;
    load_one(&mut ebpf, names::PASS).map_err(Box::new)?;
    Ok(ebpf)
}

fn pin_programs(ebpf: &mut Ebpf, dir: &std::path::Path) -> Result<(), OpenError> {
    pins::make_dir(dir)?;
    for stale in pins::list(dir)? {
        pins::remove(&stale)?;
    }
    let path = dir.join(names::STAGES);
    if let Some(Map::ProgramArray(stages)) = ebpf.map(names::STAGES) {
        // An array of programs that has no name is emptied.
        sys::pin(stages.fd().as_fd(), &path).map_err(PinsError::io("pin", &path))?;
    }
    for name in names::PROGRAMS {
        let path = dir.join(name);
        let program = ebpf.program(name).ok_or_else(|| Box::new(LoadError::NoProgram(name)))?;
        let fd = program.fd().map_err(|e| Box::new(LoadError::of_program(name, e)))?;
        sys::pin(fd.as_fd(), &path).map_err(PinsError::io("pin", &path))?;
    }
    Ok(())
}

/// Gives every attached interface this build's program. Says how many had another one.
fn upgrade_links(pins: &Pins, balance: &Xdp) -> Result<usize, LoadError> {
    let broken = |error| LoadError::of_program(names::BALANCE, error);
    let id = balance.info().map_err(broken)?.id();
    let new = balance.fd().map_err(broken)?;
    let mut upgraded = 0;
    for link in pins::links(&pins.links())? {
        if link.info.ifindex == 0 || link.info.program == id {
            continue;
        }
        let failed = |source| LoadError::Replace { interface: link.name.clone(), source };
        let old = sys::program_by_id(link.info.program).map_err(failed)?;
        sys::link_update(link.fd.as_fd(), new.as_fd(), old.as_fd()).map_err(failed)?;
        upgraded += 1;
    }
    Ok(upgraded)
}

/// Removes the programs of earlier builds. Those still in use elsewhere live on without a name.
fn remove_other_builds(pins: &Pins, keep: &std::path::Path) -> Result<(), PinsError> {
    for dir in pins::list(&pins.programs())? {
        if dir == keep {
            continue;
        }
        for pin in pins::list(&dir)? {
            pins::remove(&pin)?;
        }
        fs::remove_dir(&dir).map_err(PinsError::io("remove", &dir))?;
    }
    Ok(())
}
