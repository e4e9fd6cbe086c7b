//! bpf(2) where a test must stand beside the product: somebody else's program on an interface, a table's raw bytes, and
//! a program that is run a million times.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// Pins an XDP program that passes everything and is called `stranger`, for `ip link set dev IFACE xdp pinned PATH`.
///
/// # Errors
///
/// The kernel refuses: no rights, or the path is not on a BPF file system.
pub fn pin_stranger(path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        code: u64,
        license: u64,
        log: [u64; 2],
        kernel: u32,
        flags: u32,
        name: [u8; 16],
    }
    // r0 = 2 (XDP_PASS); exit.
    let code: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
    let license = c"GPL";
    let mut load = Load {
        kind: BPF_PROG_TYPE_XDP,
        instructions: 2,
        code: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 2],
        kernel: 0,
        flags: 0,
        name: *b"stranger\0\0\0\0\0\0\0\0",
    };
    let program = bpf(BPF_PROG_LOAD, &mut load)?;
    object(BPF_OBJ_PIN, path, Some(&program))?;
    Ok(())
}

/// The bytes of a pinned array that may be mapped: as many as `length`, or as the array has.
///
/// # Errors
///
/// There is no such pin, or it cannot be mapped.
pub fn bytes(path: &Path, length: usize) -> io::Result<Vec<u8>> {
    let map = File::from(object(BPF_OBJ_GET, path, None)?);
    // SAFETY: a fresh mapping that nobody else knows of, read-only.
    let start = unsafe {
        libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, map.as_raw_fd(), 0)
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is `length` bytes long and lives until the line after; the agent writes words atomically,
    // and a test compares only what nobody writes.
    let copy = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) }.to_vec();
    // SAFETY: mapped above, and no reference to it is left.
    unsafe { libc::munmap(start, length) };
    Ok(copy)
}

/// A pinned program that stays open: a run takes a few microseconds, finding the program anew takes many more.
pub struct Program(OwnedFd);

impl Program {
    /// Opens a pin.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        object(BPF_OBJ_GET, path, None).map(Self)
    }

    /// Runs it once on a frame that comes in by the loopback of the calling thread's namespace, and returns its
    /// verdict. What leaves is in `out`, as much as has room.
    ///
    /// # Errors
    ///
    /// The kernel refuses: not an XDP program, or the frame has an impossible length.
    pub fn run(&self, frame: &[u8], out: &mut [u8]) -> io::Result<u32> {
        self.run_whole(frame, out).map(|(verdict, _)| verdict)
    }

    /// The same, and how long the frame is that leaves.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn run_whole(&self, frame: &[u8], out: &mut [u8]) -> io::Result<(u32, usize)> {
        /// What `union bpf_attr` has for this command, as of Linux 5.18.
        #[repr(C)]
        struct TestRun {
            program: u32,
            verdict: u32,
            in_length: u32,
            out_length: u32,
            input: u64,
            output: u64,
            repeat: u32,
            duration: u32,
            context_length: [u32; 2],
            context: [u64; 2],
            flags: u32,
            cpu: u32,
            batch: u32,
            padding: u32,
        }
        let mut run = TestRun {
            program: self.0.as_raw_fd().cast_unsigned(),
            verdict: 0,
            in_length: frame.len() as u32,
            out_length: out.len() as u32,
            input: frame.as_ptr() as u64,
            output: out.as_mut_ptr() as u64,
            repeat: 1,
            duration: 0,
            context_length: [0; 2],
            context: [0; 2],
            flags: 0,
            cpu: 0,
            batch: 0,
            padding: 0,
        };
        call(BPF_PROG_TEST_RUN, &mut run)?;
        Ok((run.verdict, run.out_length as usize))
    }
}

/// Pins a descriptor, or opens a pin.
fn object(command: libc::c_int, path: &Path, descriptor: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Object {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = descriptor.map_or(0, |fd| fd.as_raw_fd().cast_unsigned());
    let mut attributes = Object { path: path.as_ptr() as u64, fd, flags: 0 };
    match descriptor {
        None => bpf(command, &mut attributes),
        Some(descriptor) => {
            // Pinning returns 0, which is no descriptor of ours.
            call(command, &mut attributes)?;
            descriptor.try_clone()
        }
    }
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the kernel returned a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is what the command takes, of the size that is said, and what it points to lives.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
