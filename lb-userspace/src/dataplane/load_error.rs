//! Why the kernel does not take the programs, in words that help.

use std::fs;
use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::util::KernelVersion;
use caps::{CapSet, Capability};

use super::pins::PinsError;

/// Characters of the verifier's log that are kept: its end says what was refused.
const LOG_TAIL: usize = 4000;
/// What the programs need, oldest kernel last: the first line that fits names what is missing.
const NEEDS: [(u8, u8, &str); 4] = [
    (5, 5, "arrays that are mapped into memory"),
    (5, 8, "ring buffers"),
    (5, 9, "XDP links"),
    (5, 12, "atomic operations that return values"),
];

/// The kernel did not take the programs.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A right is missing.
    #[error("the kernel does not let lb load its programs: {reason}")]
    NotPermitted {
        /// What is missing and what to do.
        reason: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel lacks something.
    #[error("this kernel ({version}) has no {feature}: lb needs {needs} or later")]
    TooOld {
        /// The kernel.
        version: String,
        /// What it lacks.
        feature: &'static str,
        /// Where that came.
        needs: String,
    },
    /// The verifier refused.
    #[error(
        "the kernel's verifier refuses {program}: this is an error in lb, please report it with the kernel's version \
         and what follows\n{log}"
    )]
    Refused {
        /// The program.
        program: &'static str,
        /// The end of the verifier's log.
        log: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The object has no such program.
    #[error(
        "the eBPF object in this lb has no program {0}: build again, without LB_EBPF_OBJECT if it is set"
    )]
    NoProgram(&'static str),
    /// An attached interface keeps its old program.
    #[error(
        "cannot replace the program on {interface}; it keeps forwarding with the old one. If something else put \
         a program there, detach with `lb detach {interface}` and attach again"
    )]
    Replace {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something is wrong with the pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Anything else.
    #[error("cannot load the eBPF programs")]
    Other(#[source] Box<EbpfError>),
}

impl LoadError {
    /// An error from creating maps and reading the object.
    pub(super) fn new(error: EbpfError) -> Self {
        let errno = match &error {
            EbpfError::MapError(MapError::CreateError { io_error, .. }) => io_error.raw_os_error(),
            EbpfError::MapError(MapError::SyscallError(call)) => call.io_error.raw_os_error(),
            _ => None,
        };
        explain(errno).unwrap_or_else(|| Self::Other(Box::new(error)))
    }

    /// An error from loading a program.
    pub(super) fn of_program(program: &'static str, error: ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                let log = tail(&verifier_log.to_string());
                // With a log the verifier has spoken, even when it says EPERM or EINVAL.
                let known = if log.is_empty() { explain(io_error.raw_os_error()) } else { None };
                known.unwrap_or(Self::Refused { program, log, source: io_error })
            }
            other => Self::Other(Box::new(other.into())),
        }
    }
}

/// What an errno means on this machine, where that can be told.
fn explain(errno: Option<i32>) -> Option<LoadError> {
    let errno = errno?;
    match errno {
        libc::EPERM | libc::EACCES => Some(LoadError::NotPermitted {
            reason: missing_right(),
            source: io::Error::from_raw_os_error(errno),
        }),
        libc::EINVAL => too_old(KernelVersion::current().ok()?),
        _ => None,
    }
}

/// What is missing to this process.
fn missing_right() -> String {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(true);
    if !has(Capability::CAP_SYS_ADMIN) {
        let missing: Vec<String> = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON]
            .into_iter()
            .filter(|capability| !has(*capability))
            .map(|capability| capability.to_string())
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return format!(
                "{missing} missing (on kernels before 5.8, CAP_SYS_ADMIN). Run lb as root, or with \
                 AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON in its unit"
            );
        }
    }
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        return "the kernel is locked down (confidentiality): boot with lockdown=integrity or none".into();
    }
    "the rights are there, so a security module, seccomp or a user namespace stands in the way: \
     see `dmesg`, and in a container run it privileged"
        .into()
}

fn too_old(kernel: KernelVersion) -> Option<LoadError> {
    let code = kernel.code();
    let (major, minor, feature) =
        NEEDS.into_iter().find(|(major, minor, _)| code < KernelVersion::new(*major, *minor, 0).code())?;
    Some(LoadError::TooOld {
        version: format!("{}.{}", code >> 16, code >> 8 & 0xff),
        feature,
        needs: format!("{major}.{minor}"),
    })
}

/// The end of a text, from the start of a line.
fn tail(log: &str) -> String {
    let log = log.trim_end();
    let cut = log.len().saturating_sub(LOG_TAIL);
    if cut == 0 {
        return log.to_owned();
    }
    let start = log.as_bytes()[cut..].iter().position(|b| *b == b'\n').map_or(log.len(), |n| cut + n + 1);
    log.get(start..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_told_what_it_lacks() {
        let error = too_old(KernelVersion::new(5, 4, 0)).unwrap();
        assert_eq!(
            error.to_string(),
            "this kernel (5.4) has no arrays that are mapped into memory: lb needs 5.5 or later"
        );
        assert!(too_old(KernelVersion::new(5, 12, 0)).is_none());
    }

    #[test]
    fn the_end_of_a_log_starts_with_a_line() {
        let log = "0123456789\n".repeat(1000);
        let tail = tail(&log);
        assert!(tail.len() <= LOG_TAIL && tail.starts_with("0123456789\n"), "{tail}");
        assert_eq!(super::tail("short\n"), "short");
    }
}
