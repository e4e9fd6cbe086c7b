//! A named network namespace, and threads in it.

use super::netns;
use crate::net::Netlink;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

/// A network namespace with a name that `ip netns` shows.
///
/// Dropping one that was created here removes the name and kills (SIGKILL) the processes in it; threads of this
/// process that are in it go on, and the kernel keeps the namespace until the last of them ends. Dropping one that
/// was only [opened](Self::open) changes nothing.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    fd: Arc<OwnedFd>,
    owned: bool,
}

impl Namespace {
    /// Makes a namespace: loopback up, no IPv6 duplicate address detection, so that addresses work at once.
    ///
    /// # Errors
    ///
    /// The name is taken, or this process is not root.
    pub fn create(name: &str) -> Result<Self> {
        thread::scope(|scope| {
            scope.spawn(|| netns::create(name)).join().unwrap_or_else(|panic| resume_unwind(panic))
        })?;
        let mut namespace = Self::open(name)?;
        namespace.owned = true;
        for key in ["net.ipv6.conf.all.accept_dad", "net.ipv6.conf.default.accept_dad"] {
            namespace.sysctl(key, "0")?;
        }
        namespace.up("lo")?;
        Ok(namespace)
    }

    /// Makes a namespace named `PREFIX-PID-N`, which no other call in any process uses.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn create_unique(prefix: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::create(&format!("{prefix}-{}-{number}", std::process::id()))
    }

    /// Opens a namespace that exists, without owning it.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn open(name: &str) -> Result<Self> {
        let path = netns::path(name)?;
        let file = File::open(&path).with_context(|| {
            format!("no network namespace {name}: `ip netns list` shows those there are ({})", path.display())
        })?;
        Ok(Self { name: name.to_owned(), path, fd: Arc::new(file.into()), owned: false })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file: `/run/netns/NAME`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives up ownership: the namespace stays when this value is dropped, as `lb demo --keep` needs.
    pub fn keep(&mut self) {
        self.owned = false;
    }

    /// Runs `work` on a fresh thread inside and waits for its value. A panic of `work` goes on here.
    ///
    /// # Errors
    ///
    /// The namespace cannot be entered (needs root).
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| enter(self.fd.as_fd()).map(|()| work()));
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
        .with_context(|| format!("in network namespace {}", self.name))
    }

    /// As [`Self::run`], with a current-thread runtime around the future that `work` makes. Blocks the caller.
    ///
    /// # Errors
    ///
    /// As [`Self::run`], and when no runtime can be made.
    pub fn run_async<T: Send, F: Future<Output = T>>(&self, work: impl FnOnce() -> F + Send) -> Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(work()))
        })?
    }

    /// Starts a thread inside, called `name`. Its value is an error if the namespace could not be entered.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let fd = self.shared_fd();
        let thread = thread::Builder::new().name(name.to_owned());
        Ok(thread.spawn(move || enter(fd.as_fd()).map(|()| work()))?)
    }

    /// The descriptor, for what may outlive this value.
    pub(super) fn shared_fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Runs `work` inside with a netlink connection. The way every configuration method here works.
    pub(super) fn configure<T: Send>(
        &self,
        work: impl AsyncFnOnce(&Netlink) -> Result<T, crate::net::Error> + Send,
    ) -> Result<T> {
        self.run_async(|| async move { work(&Netlink::open()?).await })?
            .with_context(|| format!("in network namespace {}", self.name))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = netns::remove(&self.name)
        {
            tracing::warn!("network namespace {} stays: {error:#}", self.name);
        }
    }
}

/// Moves the calling thread into a network namespace.
fn enter(namespace: BorrowedFd<'_>) -> Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace (needs root)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn inode() -> PathBuf {
        std::fs::read_link("/proc/thread-self/ns/net").unwrap()
    }

    #[test]
    fn threads_run_inside_and_the_caller_stays_outside() {
        let outside = inode();
        let namespace = Namespace::create_unique("lbns").unwrap();
        let inside = namespace.run(inode).unwrap();
        assert_ne!(inside, outside);
        assert_eq!(namespace.run_async(|| async { inode() }).unwrap(), inside);
        assert_eq!(namespace.spawn("inside", inode).unwrap().join().unwrap().unwrap(), inside);
        assert_eq!(Namespace::open(namespace.name()).unwrap().run(inode).unwrap(), inside);
        assert_eq!(inode(), outside);
    }

    #[test]
    fn loopback_works_at_once() {
        let namespace = Namespace::create_unique("lbns").unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let connected = namespace.run(|| {
                let listener = TcpListener::bind(address)?;
                TcpStream::connect(listener.local_addr()?)
            });
            connected.unwrap().unwrap();
        }
    }

    #[test]
    fn names_end_with_their_owner() {
        let namespace = Namespace::create_unique("lbns").unwrap();
        let (name, path) = (namespace.name().to_owned(), namespace.path().to_owned());
        let taken = Namespace::create(&name).unwrap_err().to_string();
        assert!(taken.contains("exists already"), "{taken}");
        drop(Namespace::open(&name).unwrap());
        assert!(path.exists(), "a borrowed namespace was removed");
        drop(namespace);
        assert!(!path.exists());
        assert!(format!("{:#}", Namespace::open(&name).unwrap_err()).contains("ip netns list"));
    }

    #[test]
    fn panics_reach_the_caller() {
        let namespace = Namespace::create_unique("lbns").unwrap();
        let caught = std::panic::catch_unwind(|| namespace.run(|| panic!("from inside")));
        assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "from inside");
    }
}
