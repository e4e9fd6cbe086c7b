//! `lb explain`: runs a loaded program on a packet (BPF_PROG_RUN) and reads what it noted.

use std::fs::File;
use std::io;
use std::time::Duration;

use aya::TestRunOptions;
use aya::maps::{Array, MapData};
use aya::programs::{ProgramError, TestRun, Xdp};
use aya_obj::programs::XdpAttachType;
use lb_common::abi::{Report, names};
use nix::fcntl::{Flock, FlockArg};
use zerocopy::{Immutable, IntoBytes};

use super::maps::{Maps, MapsError};
use super::pins::{self, Pins, PinsError};

/// Room for headers that a program puts in front.
const HEADROOM: usize = 256;

/// A packet could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Nothing is loaded.
    #[error("no program is loaded under {0}: start `lb agent`, or name the right --pins")]
    NotLoaded(String),
    /// The frame is too short or too long for the kernel.
    #[error("a frame of {0} bytes cannot be run: it takes 14 to about 3500")]
    Length(usize),
    /// There is no such interface.
    #[error("there is no interface with index {0} in this network namespace: see `ip link`")]
    NoInterface(u32),
    /// Somebody else's answer cannot be kept out.
    #[error("cannot wait for other explanations")]
    Lock(#[source] io::Error),
    /// The kernel refuses.
    #[error("the kernel does not run {program} on this frame")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The answer cannot be read.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Something is wrong with the pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// `XDP_…`: 1 drop, 2 pass, 3 transmit, 4 redirect.
    pub action: u32,
    /// The frame as it would leave.
    pub frame: Vec<u8>,
    /// Mean time of a run.
    pub duration: Duration,
}

/// How a packet would be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// `XDP_…`, see [`Ran::action`].
    pub action: u32,
    /// What the program noted.
    pub report: Report,
    /// The frame as it would leave.
    pub frame: Vec<u8>,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Runs pinned programs.
pub struct Explainer<'d> {
    pins: &'d Pins,
    report: Array<MapData, Report>,
}

impl<'d> Explainer<'d> {
    /// Opens what is pinned; no agent is needed.
    ///
    /// # Errors
    /// The map is missing.
    pub fn open(pins: &'d Pins, maps: &Maps) -> Result<Self, MapsError> {
        Ok(Self { pins, report: maps.typed(names::EXPLAIN)? })
    }

    /// Explains a frame, from its destination MAC on, that comes in through an interface. Changes and counts nothing.
    ///
    /// # Errors
    /// Nothing is loaded, the frame has an impossible length, there is no such interface, or the kernel refuses.
    pub fn explain(&self, frame: &[u8], ifindex: u32) -> Result<Explained, ExplainError> {
        // The answer lies in one map: one question at a time, from whatever process.
        let dir = self.pins.programs();
        let dir = File::open(&dir).map_err(PinsError::io("open", &dir))?;
        let _lock = Flock::lock(dir, FlockArg::LockExclusive)
            .map_err(|(_, errno)| ExplainError::Lock(errno.into()))?;
        let ran = self.run(names::EXPLAIN_PROGRAM, frame, ifindex, 1)?;
        let report = self.report.get(&0, 0).map_err(MapsError::refused(names::EXPLAIN))?;
        Ok(Explained { action: ran.action, report, frame: ran.frame })
    }

    /// Runs a pinned program `repeat` times on one frame. Unlike [`Self::explain`], `lb_balance` counts and writes.
    ///
    /// # Errors
    /// As [`Self::explain`].
    pub fn run(
        &self,
        program: &'static str,
        frame: &[u8],
        ifindex: u32,
        repeat: u32,
    ) -> Result<Ran, ExplainError> {
        let loaded = self.program(program)?;
        let context = Context {
            data: 0,
            data_end: frame.len() as u32,
            data_meta: 0,
            ingress_ifindex: ifindex,
            rx_queue_index: 0,
            egress_ifindex: 0,
        };
        let mut out = vec![0; frame.len() + HEADROOM];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(context.as_bytes()),
            repeat,
            ..TestRunOptions::new()
        };
        let result =
            loaded.test_run(options).map_err(|error| failed(program, error, frame.len(), ifindex))?;
        out.truncate(result.data_size_out as usize);
        Ok(Ran { action: result.return_value, frame: out, duration: result.duration })
    }

    /// A program of the newest build.
    fn program(&self, name: &'static str) -> Result<Xdp, ExplainError> {
        for dir in pins::list(&self.pins.programs())? {
            if let Ok(program) = Xdp::from_pin(dir.join(name), XdpAttachType::Interface) {
                return Ok(program);
            }
        }
        Err(ExplainError::NotLoaded(self.pins.root().display().to_string()))
    }
}

fn failed(program: &'static str, error: ProgramError, len: usize, ifindex: u32) -> ExplainError {
    let errno = match &error {
        ProgramError::SyscallError(call) => call.io_error.raw_os_error(),
        _ => None,
    };
    match errno {
        Some(libc::ENODEV) => ExplainError::NoInterface(ifindex),
        Some(libc::EINVAL | libc::ENOSPC | libc::ENOMEM) => ExplainError::Length(len),
        _ => ExplainError::Run { program, source: Box::new(error) },
    }
}
