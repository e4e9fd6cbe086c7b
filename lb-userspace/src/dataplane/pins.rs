//! Where things are pinned, and who may write there.
//!
//! ```text
//! <pins>/                      locked by the one writer
//!   v3/                        the schema, see lb_common::abi::SCHEMA
//!     maps/<NAME>
//!     programs/<build>/<name>  one directory a build, see object::build
//!     links/<ifindex>@<name>   dots of the name as %2e: the file system takes none
//! <pins>-pass/<namespace>/<ifindex>@<name>  links of `lb pass`: indexes repeat in every network namespace
//! <pins>-decap/<namespace>/…                the same of `lb decap`, with maps in <ifindex>-maps
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lb_common::abi::{SCHEMA, names};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::sys;

/// Where pins are unless told otherwise.
pub const DEFAULT: &str = "/sys/fs/bpf/lb";
/// Where the BPF file system belongs.
const MOUNT_POINT: &str = "/sys/fs/bpf";

/// A failure around the pins.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// There is no BPF file system and it could not be mounted.
    #[error(
        "{MOUNT_POINT} has no BPF file system and it cannot be mounted: run `mount -t bpf bpf {MOUNT_POINT}` as root \
         (in a container, mount the host's there)"
    )]
    Mount(#[source] io::Error),
    /// The directory lies elsewhere.
    #[error("{} is not on a BPF file system: choose a directory under {MOUNT_POINT}", .0.display())]
    NotBpffs(PathBuf),
    /// Somebody else writes there.
    #[error("another lb uses {}: stop it (`systemctl stop lb`), or choose another --pins directory", .0.display())]
    Locked(PathBuf),
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl PinsError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// The directory of one balancer.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

/// A pinned link.
#[derive(Debug)]
pub(super) struct PinnedLink {
    pub(super) path: PathBuf,
    /// The interface that it was made for.
    pub(super) ifindex: u32,
    /// That interface's name then.
    pub(super) name: String,
    pub(super) fd: OwnedFd,
    pub(super) info: sys::LinkInfo,
}

/// Keeps other writers out as long as it lives. The directory itself is locked: whoever sees the pins sees the lock.
#[derive(Debug)]
pub struct PinsLock(#[expect(dead_code, reason = "held, never looked at")] Flock<File>);

impl Pins {
    /// Pins under `root`; nothing is touched.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn schema(&self) -> PathBuf {
        self.root.join(format!("v{SCHEMA}"))
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.schema().join("maps").join(name)
    }

    pub(super) fn programs(&self) -> PathBuf {
        self.schema().join("programs")
    }

    pub(super) fn links(&self) -> PathBuf {
        self.schema().join("links")
    }

    /// Where links of `lb pass` on interfaces of this thread's network namespace are pinned: an index means another
    /// interface in the next one.
    pub(super) fn pass_links(&self) -> Result<PathBuf, PinsError> {
        let namespace = Path::new("/proc/thread-self/ns/net");
        let inode = fs::metadata(namespace).map_err(PinsError::io("look at", namespace))?.ino();
        Ok(self.pass_root().join(inode.to_string()))
    }

    /// The same for `lb decap`.
    pub(super) fn decap_links(&self) -> Result<PathBuf, PinsError> {
        let inode = self.pass_links()?;
        Ok(self.beside("-decap").join(inode.file_name().unwrap_or_default()))
    }

    /// Where links of `lb pass` are pinned: beside the balancer's, they do not belong to it.
    pub(super) fn pass_root(&self) -> PathBuf {
        self.beside("-pass")
    }

    fn beside(&self, what: &str) -> PathBuf {
        let mut name = self.root.file_name().map_or_else(|| OsString::from("lb"), ToOwned::to_owned);
        name.push(what);
        self.root.with_file_name(name)
    }

    /// Makes the directories, mounting the BPF file system where it is missing, and keeps other writers out.
    ///
    /// # Errors
    /// The file system is not there, the directory cannot be made, or somebody holds the lock.
    pub fn prepare(&self) -> Result<PinsLock, PinsError> {
        make_dir(&self.root)?;
        let lock = self.lock()?;
        for dir in [self.schema().join("maps"), self.programs(), self.links()] {
            make_dir(&dir)?;
        }
        Ok(lock)
    }

    /// Keeps other writers out of a directory that exists.
    ///
    /// # Errors
    /// It does not exist, or somebody holds the lock.
    pub fn lock(&self) -> Result<PinsLock, PinsError> {
        let dir = File::open(&self.root).map_err(PinsError::io("open", &self.root))?;
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(PinsLock(lock)),
            Err((_, nix::Error::EWOULDBLOCK)) => Err(PinsError::Locked(self.root.clone())),
            Err((_, errno)) => Err(PinsError::io("lock", &self.root)(errno.into())),
        }
    }

    /// What lies in the directory and is not ours: left alone.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn unknown(&self) -> Result<Vec<PathBuf>, PinsError> {
        let schema = self.schema();
        let mut unknown = Vec::new();
        for path in list(&self.root)? {
            if path != schema {
                unknown.push(path);
            }
        }
        for path in list(&schema)? {
            if ![schema.join("maps"), self.programs(), self.links()].contains(&path) {
                unknown.push(path);
            }
        }
        for path in list(&schema.join("maps"))? {
            if !names::MAPS.iter().any(|name| self.map(name) == path) {
                unknown.push(path);
            }
        }
        for path in list(&self.links())? {
            if parse_link(&path).is_none() {
                unknown.push(path);
            }
        }
        Ok(unknown)
    }
}

/// Makes a directory on a BPF file system, with its parents.
pub(super) fn make_dir(dir: &Path) -> Result<(), PinsError> {
    if !on_bpffs(dir) {
        if !dir.starts_with(MOUNT_POINT) {
            return Err(PinsError::NotBpffs(dir.to_owned()));
        }
        let none: Option<&str> = None;
        mount(Some("bpf"), MOUNT_POINT, Some("bpf"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none)
            .map_err(|errno| PinsError::Mount(errno.into()))?;
    }
    fs::create_dir_all(dir).map_err(PinsError::io("make", dir))
}

/// Whether the nearest directory that exists lies on a BPF file system.
fn on_bpffs(dir: &Path) -> bool {
    dir.ancestors().find_map(|dir| statfs(dir).ok()).is_some_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

/// What lies in a directory, in order; nothing if it does not exist.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, PinsError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(PinsError::io("read", dir)(error)),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(PinsError::io("read", dir))?;
    paths.sort();
    Ok(paths)
}

/// The file name of a link's pin.
pub(super) fn link_name(ifindex: u32, name: &str) -> String {
    format!("{ifindex}@{}", name.replace('%', "%25").replace('.', "%2e"))
}

fn parse_link(path: &Path) -> Option<(u32, String)> {
    let (ifindex, name) = path.file_name()?.to_str()?.split_once('@')?;
    Some((ifindex.parse().ok()?, name.replace("%2e", ".").replace("%25", "%")))
}

/// The links that are pinned in a directory. Other files in it are passed over.
pub(super) fn links(dir: &Path) -> Result<Vec<PinnedLink>, PinsError> {
    let mut links = Vec::new();
    for path in list(dir)? {
        let Some((ifindex, name)) = parse_link(&path) else { continue };
        let fd = sys::open_pin(&path).map_err(PinsError::io("open", &path))?;
        let info =
            sys::link_info(std::os::fd::AsFd::as_fd(&fd)).map_err(PinsError::io("ask about", &path))?;
        links.push(PinnedLink { path, ifindex, name, fd, info });
    }
    Ok(links)
}

pub(super) fn remove(path: &Path) -> Result<(), PinsError> {
    fs::remove_file(path).map_err(PinsError::io("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_survive_the_way_to_a_pin_and_back() {
        for name in ["eth0", "eth0.100", "a%2eb", "wg%", "x@y"] {
            let file = link_name(7, name);
            assert!(!file.contains('.'), "{file}");
            assert_eq!(parse_link(Path::new(&file)), Some((7, name.to_owned())));
        }
        assert_eq!(parse_link(Path::new("eth0")), None);
        assert_eq!(parse_link(Path::new("x@eth0")), None);
    }

    #[test]
    fn a_directory_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Pins::new(dir.path().join("pins")).prepare().unwrap_err();
        assert!(matches!(error, PinsError::NotBpffs(_)), "{error}");
    }
}
