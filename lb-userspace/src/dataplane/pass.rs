//! `lb pass`: a program that passes everything, for the far end of a veth. A veth takes frames from XDP only when a
//! program runs on its other end. No agent and no maps are needed.

use std::os::fd::AsFd;

use lb_common::abi::names;

use super::devices::Mode;
use super::interfaces::{AttachError, link, unlink};
use super::load::load_pass;
use super::pins::{self, Pins};

/// Attaches `lb_pass` in the driver. `false`: it was there already.
///
/// # Errors
/// See [`AttachError`]; the interface is then as it was.
pub fn attach(pins: &Pins, ifindex: u32, name: &str) -> Result<bool, AttachError> {
    let dir = pins.pass_links()?;
    pins::make_dir(&dir)?;
    for link in pins::links(&dir)? {
        if link.info.ifindex == ifindex {
            return Ok(false);
        }
    }
    let ebpf = load_pass().map_err(Box::new)?;
    let missing =
        || Box::new(super::OpenError::from(Box::new(super::load_error::LoadError::NoProgram(names::PASS))));
    let program = ebpf.program(names::PASS).ok_or_else(missing)?;
    let program = program.fd().map_err(Box::new)?;
    link(program.as_fd(), ifindex, name, Mode::Native, &dir)?;
    Ok(true)
}

/// Detaches it. `false`: it was not attached.
///
/// # Errors
/// The kernel or the file system refuses.
pub fn detach(pins: &Pins, ifindex: u32) -> Result<bool, AttachError> {
    let links = pins::links(&pins.pass_links()?)?;
    let Some(link) = links.iter().find(|link| link.info.ifindex == ifindex) else { return Ok(false) };
    unlink(link)?;
    Ok(true)
}

/// Interfaces that have it: index and name. Links of deleted interfaces are removed.
///
/// # Errors
/// The pins cannot be read.
pub fn attached(pins: &Pins) -> Result<Vec<(u32, String)>, AttachError> {
    let mut attached = Vec::new();
    for link in pins::links(&pins.pass_links()?)? {
        if link.info.ifindex == 0 {
            pins::remove(&link.path)?;
        } else {
            attached.push((link.ifindex, link.name));
        }
    }
    Ok(attached)
}
