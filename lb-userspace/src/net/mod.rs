//! What the agent asks of, and tells, the kernel's network configuration: links, routes, neighbours, addresses,
//! offloads.
//!
//! Everything works in the network namespace of the calling thread: sockets belong to the namespace of the thread that
//! makes them. A [`Netlink`] is therefore opened on the thread that uses it. What is decided from the answers is in
//! pure functions ([`nexthop::decide`], [`routes::compile`]); programs and maps are not here.

mod addresses;
pub mod announce;
pub mod features;
pub mod links;
pub mod neighbours;
pub mod nexthop;
mod resolve_all;
pub mod routes;
pub mod vip;
pub mod watch;

use nix::errno::Errno;
use rtnetlink::Handle;
use std::io;

/// What the kernel answered, and to what.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request that the kernel refused.
    #[error("cannot {action}: {source}{}", remedy(source))]
    Kernel {
        /// What was tried, an infinitive.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An interface that does not exist in this network namespace.
    #[error("no interface \"{name}\"; there are: {}", present.join(", "))]
    NoInterface {
        /// What was asked for: a name, or an index in decimal.
        name: String,
        /// Those there are.
        present: Vec<String>,
    },
    /// A device that cannot do what was asked.
    #[error("{0}")]
    Unsupported(String),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => " (run it as root, or give it CAP_NET_ADMIN and CAP_NET_RAW)",
        _ => "",
    }
}

impl Error {
    /// The kernel's error number, if it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::NoInterface { .. } => Some(Errno::ENODEV),
            Self::Unsupported(_) => Some(Errno::EOPNOTSUPP),
        }
    }

    pub(crate) fn kernel(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Kernel { action: action.into(), source: source.into() }
    }
}

/// Says what was tried when rtnetlink fails: `.map_err(kernel_error("add the route"))`.
pub(crate) fn kernel_error(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |error| {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        };
        Error::kernel(action, source)
    }
}

/// A connection to the kernel's network configuration (rtnetlink(7)).
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a connection in the network namespace of this thread. Must be called in a tokio runtime, which serves
    /// the connection; with a current-thread runtime it all stays on this thread.
    ///
    /// # Errors
    ///
    /// No netlink socket can be opened.
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| Error::kernel("open a netlink socket", error))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The requests of the library underneath, for what has no method here.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// The index of an interface of this thread's network namespace.
///
/// # Errors
///
/// There is none of that name.
pub fn index(name: &str) -> Result<u32, Error> {
    nix::net::if_::if_nametoindex(name).map_err(|_| {
        let present = nix::net::if_::if_nameindex()
            .map(|all| all.iter().map(|link| link.name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        Error::NoInterface { name: name.to_owned(), present }
    })
}

/// The name of an interface in this thread's network namespace, if there is one with this index.
#[must_use]
pub fn name(index: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(index).ok()?;
    // An index that nobody has gives an empty name.
    Some(name.to_string_lossy().into_owned()).filter(|name| !name.is_empty())
}

/// A MAC address the way it is written: `02:00:00:00:00:01`.
#[must_use]
pub fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let error = Error::kernel("add 10.0.0.1 to eth0", Errno::EPERM);
        assert!(error.to_string().contains("cannot add 10.0.0.1 to eth0"));
        assert!(error.to_string().contains("CAP_NET_ADMIN"));
        assert_eq!(error.errno(), Some(Errno::EPERM));
        let error = index("no-such-if").unwrap_err().to_string();
        assert!(error.starts_with("no interface \"no-such-if\"; there are: lo"), "{error}");
    }

    #[test]
    fn macs_are_lower_case_with_colons() {
        assert_eq!(format_mac([2, 0, 0xab, 0, 0x0c, 1]), "02:00:ab:00:0c:01");
    }
}
