//! Waiting until no packet can still be looking at what it found before.
//!
//! A program runs inside an RCU read section, so one grace period after a store every run has either seen it or ended.
//! `membarrier(2)` with `MEMBARRIER_CMD_GLOBAL` (kernel 4.3) is `synchronize_rcu()` for userspace.

use std::io;
use std::thread;
use std::time::Duration;

/// Far longer than any run of a program: where the kernel offers no wait.
const FALLBACK: Duration = Duration::from_millis(50);

/// How to wait for readers.
#[derive(Clone, Debug)]
pub enum Grace {
    /// Readers are programs in the kernel.
    Kernel,
    /// There are no readers.
    None,
    /// Readers are a test's.
    #[cfg(test)]
    Told(fn()),
}

impl Grace {
    /// Returns once every reader that ran when it was called has ended: 10 to 20 ms.
    pub fn synchronize(&self) {
        match self {
            Self::Kernel => {
                // With one CPU membarrier returns at once, and we may have interrupted a reader (threaded NAPI).
                if online_cpus() < 2 || membarrier().is_err() {
                    thread::sleep(FALLBACK);
                }
            }
            Self::None => {}
            #[cfg(test)]
            Self::Told(tell) => tell(),
        }
    }
}

/// Fails with EINVAL on kernels booted with `nohz_full`, and with ENOSYS where it is not built in.
fn membarrier() -> io::Result<()> {
    // SAFETY: takes three integers and touches no memory of ours.
    match unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn online_cpus() -> libc::c_long {
    // SAFETY: takes an integer and touches no memory of ours.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }
}
