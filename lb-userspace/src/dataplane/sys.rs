//! `bpf(2)` commands that aya 0.14 does not offer: links with their interface, compare-and-replace, batches.
//!
//! aya's `attach` falls back to netlink on EINVAL, its links do not tell their interface, and its replacement does not
//! say what it expects to replace. Links are therefore made here.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::bpf_attach_type::BPF_XDP;
use aya_obj::generated::bpf_cmd::{self, *};
use aya_obj::generated::bpf_link_type::BPF_LINK_TYPE_XDP;

/// `BPF_F_REPLACE`: replace only the program that is named.
const REPLACE: u32 = 1 << 2;
/// `XDP_FLAGS_SKB_MODE`.
pub(super) const SKB_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`.
pub(super) const DRIVER_MODE: u32 = 1 << 2;

/// Calls `bpf(2)`. The kernel takes an `attr` that is shorter than its own as padded with zeros.
///
/// # Safety
/// `A` must be the command's part of `union bpf_attr`, and pointers in it must fit what the command does with them.
unsafe fn bpf<A>(command: bpf_cmd, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is valid for its size; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_mut(attr), size_of::<A>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Opens what is pinned at a path.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: the path is a C string that lives through the call.
    unsafe { bpf(BPF_OBJ_GET, &mut Object { path: path.as_ptr() as u64, fd: 0, flags: 0 }) }.map(owned)
}

/// Pins an object.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Object { path: path.as_ptr() as u64, fd: fd.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the path is a C string that lives through the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// What the kernel says about an XDP link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The program's id.
    pub(super) program: u32,
    /// The interface, 0 once it is gone.
    pub(super) ifindex: u32,
}

/// Asks about a link (kernel 5.9 for XDP).
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    /// The start of `struct bpf_link_info`.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        pad: u32,
        ifindex: u32,
        pad2: u32,
    }
    #[repr(C)]
    struct Query {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut info = Info::default();
    let mut query = Query {
        fd: link.as_raw_fd() as u32,
        len: size_of::<Info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes at most `len` bytes to `info`, which lives through the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut query) }?;
    if info.kind != BPF_LINK_TYPE_XDP as u32 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a link of type {}, not XDP", info.kind),
        ));
    }
    Ok(LinkInfo { program: info.program, ifindex: info.ifindex })
}

/// Attaches an XDP program; it stays as long as the link is open or pinned.
pub(super) fn link_create(program: BorrowedFd<'_>, ifindex: u32, mode: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        program: u32,
        ifindex: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr =
        Create { program: program.as_raw_fd() as u32, ifindex, attach_type: BPF_XDP as u32, flags: mode };
    // SAFETY: holds no pointers.
    unsafe { bpf(BPF_LINK_CREATE, &mut attr) }.map(owned)
}

/// Puts `new` in the place of `old`, atomically; fails with EPERM when the link has another program.
pub(super) fn link_update(link: BorrowedFd<'_>, new: BorrowedFd<'_>, old: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Update {
        link: u32,
        new: u32,
        flags: u32,
        old: u32,
    }
    let mut attr = Update {
        link: link.as_raw_fd() as u32,
        new: new.as_raw_fd() as u32,
        flags: REPLACE,
        old: old.as_raw_fd() as u32,
    };
    // SAFETY: holds no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// Detaches at once, whoever else holds the link (kernel 5.9). Dropping and unpinning do it some time later.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [link.as_raw_fd() as u32, 0];
    // SAFETY: holds no pointers.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// Opens a program by its id.
pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    // SAFETY: holds no pointers.
    unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) }.map(owned)
}

/// The name of a program, by its id.
pub(super) fn program_name(id: u32) -> Option<String> {
    let info = aya::programs::loaded_programs().filter_map(Result::ok).find(|info| info.id() == id)?;
    info.name_as_str().map(str::to_owned).filter(|name| !name.is_empty())
}

#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// Where a batch goes on: an index or a bucket number, and room for kernels that keep a key there.
pub(super) type Cursor = [u8; 64];

/// Entries of a map that were copied at once: keys and values one after the other, `count` of them.
pub(super) struct Copied {
    /// How many were copied.
    pub(super) count: usize,
    /// Where to go on; none at the end.
    pub(super) next: Option<Cursor>,
}

/// Copies entries to `keys` and `values`, which have room for `room` of them (kernel 5.6, per CPU 5.13).
///
/// # Safety
/// The buffers must have room for `room` keys and values of this map; a per-CPU value is as many values, each padded to
/// 8 bytes, as there are possible CPUs.
pub(super) unsafe fn lookup_batch(
    map: BorrowedFd<'_>,
    from: Option<&Cursor>,
    keys: &mut [u8],
    values: &mut [u8],
    room: usize,
) -> io::Result<Copied> {
    let mut next: Cursor = [0; 64];
    let mut attr = Batch {
        from: from.map_or(0, |cursor| cursor.as_ptr() as u64),
        to: next.as_mut_ptr() as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: room as u32,
        map: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the cursors live through the call; the buffers are the caller's promise.
    let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) };
    match result {
        Ok(_) => Ok(Copied { count: attr.count as usize, next: Some(next) }),
        // The end was reached; what came before it is there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(Copied { count: attr.count as usize, next: None })
        }
        Err(error) => Err(error),
    }
}

/// Deletes keys. Says how many were deleted before the first that was not there.
///
/// # Safety
/// `keys` must hold `count` keys of this map.
pub(super) unsafe fn delete_batch(map: BorrowedFd<'_>, keys: &[u8], count: usize) -> io::Result<usize> {
    let mut attr = Batch {
        from: 0,
        to: 0,
        keys: keys.as_ptr() as u64,
        values: 0,
        count: count as u32,
        map: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the keys are the caller's promise.
    match unsafe { bpf(BPF_MAP_DELETE_BATCH, &mut attr) } {
        Ok(_) => Ok(count),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(attr.count as usize),
        Err(error) => Err(error),
    }
}

/// The kernel has no batches for this map: kernels before 5.6, and 5.13 for rows of every CPU.
pub(super) fn no_batches(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | NOT_SUPPORTED))
}

/// ENOTSUPP, which `bpf(2)` gives and libc does not know.
const NOT_SUPPORTED: i32 = 524;
