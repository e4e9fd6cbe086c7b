//! What the operator asked for, checked: the only shape that [`crate::plan`] accepts.
//!
//! Text becomes [`crate::config::file`] (serde's shape), which [`mod@crate::config::check`] turns into these types. Nothing
//! here is invalid: a [`Desired`] can always be applied.

use ipnet::{Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

mod ports;
mod text;

pub use ports::Ports;
pub(crate) use text::closest;
pub use text::{InvalidText, parse_backend, shown};

/// Everything that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Interfaces to attach to, and how.
    pub interfaces: BTreeMap<String, AttachMode>,
    /// Where outer headers say they come from.
    pub sources: Sources,
    /// Services by name. Shared, so that a copy of it all costs as much as there are services, whatever their backends.
    pub services: BTreeMap<String, Arc<Service>>,
}

/// Source addresses of outer headers. Flows vary the bits behind the prefix, so that backends spread them over their
/// receive queues; without a prefix the agent takes an address of this machine, for all flows the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// For IPv4.
    pub v4: Option<Ipv4Net>,
    /// For IPv6.
    pub v6: Option<Ipv6Net>,
}

/// How to attach to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// Native if the driver can, else generic, said loudly.
    #[default]
    Auto,
    /// In the driver, or fail.
    Native,
    /// On socket buffers.
    Generic,
}

/// A protocol that is balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Where a service listens: `tcp://192.0.2.10:443`, `tcp://192.0.2.10:8000-8999`, `tcp://192.0.2.10:*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listen {
    /// Protocol.
    pub protocol: Protocol,
    /// Address: the VIP.
    pub address: IpAddr,
    /// Port or ports.
    pub ports: Ports,
}

/// How packets reach the backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Destination rewritten; replies through the balancer.
    #[default]
    Nat,
    /// MAC addresses rewritten; direct return.
    L2,
    /// Put into IP packets; direct return.
    Ipip,
    /// Put into UDP packets; direct return.
    Gue,
}

/// What happens to the flows of a backend that went down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They move to another backend at once.
    #[default]
    Rehash,
    /// They stay: the backend may come back.
    Keep,
}

/// Who answers ARP and neighbour discovery for a service's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Announce {
    /// This machine, on an attached interface, while the service is fit.
    #[default]
    Interface,
    /// Somebody else: routing, keepalived, a static entry.
    None,
}

/// Which flows have table entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracking {
    /// Only flows on slots that changed.
    #[default]
    Adaptive,
    /// Every flow.
    Always,
    /// None: one-packet protocols.
    Never,
}

/// Whether headers around packets have a checksum of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncapChecksum {
    /// No: the packet inside has its own (RFC 6935 and 6936).
    #[default]
    None,
    /// In outer UDP headers, over all that they carry.
    Udp,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name: letters, digits, `-`, `_`, `.`; at most 63 characters.
    pub name: String,
    /// Where it listens.
    pub listen: Listen,
    /// How packets reach the backends.
    pub mode: Mode,
    /// How backends are checked; `None`: they count as up.
    pub check: Option<Check>,
    /// What happens to flows of a dead backend.
    pub on_down: OnDown,
    /// Who answers for the address.
    pub announce: Announce,
    /// How long a silent flow is remembered.
    pub idle_timeout: Duration,
    /// Which flows have entries.
    pub tracking: Tracking,
    /// Whether outer headers have a checksum.
    pub encap_checksum: EncapChecksum,
    /// Whether echo requests to its address are answered for it.
    pub echo: bool,
    /// Slots of its ring: a prime of [`lb_common::maglev::SIZES`].
    pub ring_size: u32,
    /// Backends by address.
    pub backends: BTreeMap<SocketAddr, Backend>,
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens. In `l2` mode the port is the service's. Port 0: each packet keeps its own, as it may for services
    /// that listen on several; with another one, the first port of the range becomes this one, the next one the next.
    pub address: SocketAddr,
    /// Its share among the service's backends, 0 to 65535; 0 takes no new flows.
    pub weight: u32,
    /// What the operator wants of it.
    pub admin: Admin,
}

/// Administrative state of a backend. Health is another matter, see [`Health`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admin {
    /// Takes new flows when it is up.
    #[default]
    Active,
    /// Keeps its flows, takes no new ones.
    Draining {
        /// When the drain ends whatever is left, seconds since the Unix epoch; `None`: when the operator says so.
        until: Option<u64>,
        /// The backend is removed when the drain ends.
        remove: bool,
    },
}

/// What the checks say of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// No result yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

/// How backends are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is tried.
    pub kind: CheckKind,
    /// From the end of one try to the start of the next.
    pub interval: Duration,
    /// How long a try may take.
    pub timeout: Duration,
    /// Successes in a row that make a backend up.
    pub rise: u32,
    /// Failures in a row that make it down.
    pub fall: u32,
    /// Port that is tried, if not the backend's.
    pub port: Option<u16>,
}

/// What a check tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A TCP connection.
    Tcp,
    /// An HTTP/1.1 request.
    Http {
        /// `GET` or `HEAD`.
        method: HttpMethod,
        /// Path with query.
        path: String,
        /// `Host` header; `None`: the backend's address.
        host: Option<String>,
        /// Status codes that count as success, inclusive.
        expect: (u16, u16),
    },
}

/// Method of an HTTP check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpMethod {
    /// The usual one.
    #[default]
    Get,
    /// Without a body.
    Head,
}

impl Mode {
    /// Whether packets keep their destination, so that backends serve the service's own address and port.
    pub const fn keeps_destination(self) -> bool {
        !matches!(self, Self::Nat)
    }

    /// Whether packets travel inside others, which may be of the other family.
    pub const fn encapsulates(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }
}

impl Desired {
    /// Puts a service in the place of the one of its name, or among the others.
    pub fn put(&mut self, service: Service) {
        self.services.insert(service.name.clone(), Arc::new(service));
    }

    /// A service, to be changed: copies of the configuration keep the old one.
    pub fn service_mut(&mut self, name: &str) -> Option<&mut Service> {
        self.services.get_mut(name).map(Arc::make_mut)
    }

    /// Names of the services that are not the same in both: changed, only here or only there.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        // Services that were not touched are the same allocation, which `Arc` compares first.
        let here = self.services.iter().filter(|(name, service)| other.services.get(*name) != Some(service));
        let gone = other.services.keys().filter(|name| !self.services.contains_key(*name));
        here.map(|(name, _)| name.as_str()).chain(gone.map(String::as_str))
    }
}

impl Service {
    /// The backends that may take new flows, by what the operator wants; health is not looked at.
    pub fn active(&self) -> impl Iterator<Item = &Backend> {
        self.backends.values().filter(|backend| backend.admin == Admin::Active && backend.weight > 0)
    }
}

impl Admin {
    /// Whether the backend keeps its flows and takes no new ones.
    pub const fn is_draining(self) -> bool {
        matches!(self, Self::Draining { .. })
    }

    /// Whether a drain's deadline has passed at `now`, seconds since the Unix epoch.
    pub const fn has_expired(self, now: u64) -> bool {
        matches!(self, Self::Draining { until: Some(until), .. } if until <= now)
    }
}

impl Backend {
    /// Weight of a backend of which nothing was said: leaves room for smaller shares.
    pub const DEFAULT_WEIGHT: u32 = 100;
    /// The largest weight.
    pub const MAX_WEIGHT: u32 = 65_535;

    /// An active backend.
    pub const fn new(address: SocketAddr, weight: u32) -> Self {
        Self { address, weight, admin: Admin::Active }
    }
}

impl Protocol {
    /// Its number in the IP header (IANA, "Assigned Internet Protocol Numbers").
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// How long a silent flow is remembered if the operator said nothing.
    pub const fn default_idle_timeout(self) -> Duration {
        match self {
            Self::Tcp => Duration::from_mins(15),
            Self::Udp => Duration::from_secs(30),
        }
    }
}

impl Listen {
    /// Address and port, if it is one.
    pub const fn socket(&self) -> Option<SocketAddr> {
        match self.ports {
            Ports::One(port) => Some(SocketAddr::new(self.address, port)),
            Ports::Range(..) | Ports::Any => None,
        }
    }
}

impl Check {
    /// Time between tries if the operator said nothing.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
    /// Time a try may take if the operator said nothing.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
    /// Successes that make a backend up if the operator said nothing.
    pub const DEFAULT_RISE: u32 = 2;
    /// Failures that make it down if the operator said nothing.
    pub const DEFAULT_FALL: u32 = 3;
    /// Status codes that count as success if the operator said nothing.
    pub const DEFAULT_EXPECT: (u16, u16) = (200, 399);

    /// A check of which only the kind was said.
    pub const fn new(kind: CheckKind) -> Self {
        Self {
            kind,
            interval: Self::DEFAULT_INTERVAL,
            timeout: Self::DEFAULT_TIMEOUT,
            rise: Self::DEFAULT_RISE,
            fall: Self::DEFAULT_FALL,
            port: None,
        }
    }
}
