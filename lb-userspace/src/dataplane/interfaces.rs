//! Attaching to interfaces: pinned links, so that traffic flows whoever lives or dies in userspace.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::programs::ProgramError;

use super::devices::{Devices, Mode};
use super::maps::{Maps, MapsError};
use super::netdev::{self, Device};
use super::pins::{self, Pins, PinsError};
use super::{refusal, sys};
use crate::model::AttachMode;

/// An interface was not attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else's program is there. Nothing was changed.
    #[error(
        "{interface} already has the XDP program {program}, which is not this lb's. Nothing was changed. \
         See `bpftool net show dev {interface}`; remove it with what attached it, or `ip link set dev {interface} xdp off`"
    )]
    Conflict {
        /// The interface.
        interface: String,
        /// Id and name of what is there.
        program: String,
    },
    /// It is attached in another mode.
    #[error("{interface} is attached in {has:?} mode: `lb detach {interface}`, then attach again")]
    OtherMode {
        /// The interface.
        interface: String,
        /// The mode that it has.
        has: Mode,
    },
    /// The pinned link belongs to an interface of the same index elsewhere.
    #[error(
        "these pins serve another network namespace, in which an interface has the index of {0}: \
         use another --pins directory, one for each namespace"
    )]
    OtherNamespace(String),
    /// There is no such interface.
    #[error("there is no interface {0} in this network namespace: see `ip link`")]
    NoInterface(String),
    /// It cannot be attached in this mode.
    #[error("cannot attach to {interface}: {reason}")]
    Refused {
        /// The interface.
        interface: String,
        /// Why, and what to do.
        reason: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Something is wrong with the pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Something is wrong with a map.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Something is wrong with the program.
    #[error("the pinned program cannot be used: start the agent again, which loads it anew")]
    Program(#[from] Box<ProgramError>),
    /// The kernel does not tell about its interfaces.
    #[error("cannot ask the kernel about {0}")]
    Netlink(String, #[source] io::Error),
    /// The programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] Box<super::OpenError>),
}

/// What attaching came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// How the program runs.
    pub mode: Mode,
    /// Why it does not run in the driver, when that was tried: a sentence with a remedy.
    pub fallback: Option<String>,
    /// It was attached before; nothing was changed.
    pub already: bool,
}

/// An interface that has or had our program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedInterface {
    /// Its index when it was attached.
    pub ifindex: u32,
    /// Its name when it was attached.
    pub name: String,
    /// How the program runs, if that is known.
    pub mode: Option<Mode>,
    /// Id of the program that runs.
    pub program: u32,
}

/// Every interface, as the pinned links tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments {
    /// Attached.
    pub attached: Vec<AttachedInterface>,
    /// Deleted while attached.
    pub vanished: Vec<AttachedInterface>,
}

/// The links of one balancer.
pub struct Interfaces<'d> {
    pins: &'d Pins,
    devices: Devices,
}

impl<'d> Interfaces<'d> {
    /// The links among these pins.
    ///
    /// # Errors
    /// A map is missing or of another kind.
    pub fn open(pins: &'d Pins, maps: &Maps) -> Result<Self, MapsError> {
        Ok(Self { pins, devices: Devices::open(maps)? })
    }

    /// The maps of interfaces.
    pub fn devices(&mut self) -> &mut Devices {
        &mut self.devices
    }

    /// Lets frames leave through an interface that nothing is attached to.
    ///
    /// # Errors
    /// There is no such interface, or the map is full.
    pub fn allow_egress(&mut self, ifindex: u32) -> Result<(), MapsError> {
        self.devices.allow(ifindex)
    }

    /// Attaches the program, `mode` permitting. Attaching twice changes nothing.
    ///
    /// # Errors
    /// See [`AttachError`]; the interface is then as it was.
    pub fn attach(
        &mut self,
        program: BorrowedFd<'_>,
        ifindex: u32,
        name: &str,
        mode: AttachMode,
    ) -> Result<Attached, AttachError> {
        if let Some(link) = self.link(ifindex)? {
            return self.already(&link, name, mode);
        }
        match mode {
            AttachMode::Native => self.attach_as(program, ifindex, name, Mode::Native, None),
            AttachMode::Generic => self.attach_as(program, ifindex, name, Mode::Generic, None),
            AttachMode::Auto => match self.attach_as(program, ifindex, name, Mode::Native, None) {
                Err(AttachError::Refused { reason, .. }) => {
                    self.attach_as(program, ifindex, name, Mode::Generic, Some(reason))
                }
                other => other,
            },
        }
    }

    fn already(
        &self,
        link: &pins::PinnedLink,
        name: &str,
        wanted: AttachMode,
    ) -> Result<Attached, AttachError> {
        if !look(link.ifindex, name)?.programs.contains(&link.info.program) {
            return Err(AttachError::OtherNamespace(name.to_owned()));
        }
        let has = self.devices.mode(link.ifindex).unwrap_or(Mode::Native);
        let other = matches!(
            (wanted, has),
            (AttachMode::Native, Mode::Generic) | (AttachMode::Generic, Mode::Native)
        );
        if other {
            return Err(AttachError::OtherMode { interface: link.name.clone(), has });
        }
        Ok(Attached { mode: has, fallback: None, already: true })
    }

    fn attach_as(
        &mut self,
        program: BorrowedFd<'_>,
        ifindex: u32,
        name: &str,
        mode: Mode,
        fallback: Option<String>,
    ) -> Result<Attached, AttachError> {
        // Before the first packet: it must know how it is seen, and may leave where it came from.
        let known = self.devices.allowed().contains(&ifindex);
        let ready = self.devices.set_mode(ifindex, mode).and_then(|()| self.devices.allow(ifindex));
        let done = match ready {
            Ok(()) => link(program, ifindex, name, mode, &self.pins.links()),
            // An interface that does not exist cannot be allowed.
            Err(error) => look(ifindex, name).and(Err(error.into())),
        };
        match done {
            Ok(()) => Ok(Attached { mode, fallback, already: false }),
            Err(error) => {
                self.devices.forget(ifindex)?;
                if known {
                    self.devices.allow(ifindex)?;
                }
                Err(error)
            }
        }
    }

    /// Detaches at once. `false`: it was not attached.
    ///
    /// # Errors
    /// The kernel or the file system refuses.
    pub fn detach(&mut self, ifindex: u32) -> Result<bool, AttachError> {
        let Some(link) = self.link(ifindex)? else { return Ok(false) };
        unlink(&link)?;
        self.devices.forget(ifindex)?;
        Ok(true)
    }

    /// What is attached. Links of deleted interfaces are removed and reported, once.
    ///
    /// # Errors
    /// The pins cannot be read.
    pub fn attached(&mut self) -> Result<Attachments, AttachError> {
        let mut all = Attachments::default();
        for link in pins::links(&self.pins.links())? {
            let interface = AttachedInterface {
                ifindex: link.ifindex,
                name: link.name.clone(),
                mode: self.devices.mode(link.ifindex),
                program: link.info.program,
            };
            if link.info.ifindex == 0 {
                pins::remove(&link.path)?;
                // Its index may belong to another interface by now; that one is not attached.
                if self.link(link.ifindex)?.is_none() {
                    self.devices.forget(link.ifindex)?;
                }
                all.vanished.push(interface);
            } else {
                all.attached.push(interface);
            }
        }
        Ok(all)
    }

    fn link(&self, ifindex: u32) -> Result<Option<pins::PinnedLink>, PinsError> {
        Ok(pins::links(&self.pins.links())?.into_iter().find(|link| link.info.ifindex == ifindex))
    }
}

impl super::Dataplane {
    /// The links of this balancer.
    ///
    /// # Errors
    /// A map cannot be opened.
    pub fn interfaces(&self) -> Result<Interfaces<'_>, MapsError> {
        Interfaces::open(&self.pins, &self.maps)
    }

    /// Attaches the balancing program to an interface.
    ///
    /// # Errors
    /// See [`AttachError`]; the interface is then as it was.
    pub fn attach(&self, ifindex: u32, name: &str, mode: AttachMode) -> Result<Attached, AttachError> {
        let program = self.balance.fd().map_err(Box::new)?.as_fd();
        self.interfaces()?.attach(program, ifindex, name, mode)
    }
}

/// Attaches and pins under `dir`; on any error nothing is attached.
pub(super) fn link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    name: &str,
    mode: Mode,
    dir: &Path,
) -> Result<(), AttachError> {
    let flags = match mode {
        Mode::Native => sys::DRIVER_MODE,
        Mode::Generic => sys::SKB_MODE,
    };
    match sys::link_create(program, ifindex, flags) {
        Ok(link) => {
            let path = dir.join(pins::link_name(ifindex, name));
            remove_stale(&path)?;
            sys::pin(link.as_fd(), &path).map_err(PinsError::io("pin", &path))?;
            Ok(())
        }
        Err(error) => Err(refused(error, ifindex, name)),
    }
}

/// A pin of the same name whose interface was deleted; this one got its index.
fn remove_stale(path: &Path) -> Result<(), PinsError> {
    let Ok(link) = sys::open_pin(path) else { return Ok(()) };
    match sys::link_info(link.as_fd()) {
        Ok(info) if info.ifindex == 0 => pins::remove(path),
        // Pinning will say that it is in the way.
        _ => Ok(()),
    }
}

fn look(ifindex: u32, name: &str) -> Result<Device, AttachError> {
    match netdev::device(ifindex) {
        Ok(Some(device)) => Ok(device),
        Ok(None) => Err(AttachError::NoInterface(name.to_owned())),
        Err(error) => Err(AttachError::Netlink(name.to_owned(), error)),
    }
}

pub(super) fn unlink(link: &pins::PinnedLink) -> Result<(), AttachError> {
    sys::link_detach(link.fd.as_fd()).map_err(|source| AttachError::Refused {
        interface: link.name.clone(),
        reason: "the kernel does not detach the link".into(),
        source,
    })?;
    Ok(pins::remove(&link.path)?)
}

fn refused(error: io::Error, ifindex: u32, name: &str) -> AttachError {
    let interface = name.to_owned();
    let device = match look(ifindex, name) {
        Ok(device) => device,
        Err(error) => return error,
    };
    if let Some(id) = device.programs.first() {
        let program = match sys::program_name(*id) {
            Some(name) => format!("{id} ({name})"),
            None => id.to_string(),
        };
        return AttachError::Conflict { interface, program };
    }
    AttachError::Refused { interface, reason: refusal::sentence(&error, &device), source: error }
}

/// The index of an interface in this network namespace.
///
/// # Errors
/// There is none of this name.
pub fn index_of(name: &str) -> Result<u32, AttachError> {
    netdev::index_of(name).ok_or_else(|| AttachError::NoInterface(name.to_owned()))
}
