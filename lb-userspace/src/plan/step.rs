//! What the agent may do to the tables: data, so that a dry run prints it and a test compares it.

use crate::model::{Ports, shown};
use lb_common::abi::{BackendEntry, Key, ReverseEntry, ServiceEntry, VipEntry, ranges};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// One step. The name of the service that it is for comes first in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A row of counters begins at zero.
    ZeroReasons {
        /// For which service.
        service: String,
        /// The row.
        row: u32,
    },
    /// A row of backend counters begins at zero.
    ZeroCounters {
        /// For which service.
        service: String,
        /// The row.
        row: u32,
    },
    /// What a backend that is gone had counted is added to what its service remembers of such.
    KeepCounters {
        /// For which service.
        service: String,
        /// The backend's row.
        from: u32,
        /// The service's row.
        into: u32,
    },
    /// A backend's entry is written.
    Backend {
        /// For which service.
        service: String,
        /// Why, for people.
        why: Why,
        /// The backend: an entry that is cleared does not tell.
        address: SocketAddr,
        /// Index into `BACKENDS`.
        index: u32,
        /// What it holds from now on.
        entry: BackendEntry,
    },
    /// Slots of a ring are written.
    Slots {
        /// For which service.
        service: String,
        /// First line of the ring.
        ring: u32,
        /// Slot and word.
        words: Vec<(u32, u32)>,
        /// How many of them change the backend of new flows.
        moved: u32,
        /// Slots of the whole ring.
        slots: u32,
    },
    /// A service is placed or changed.
    Service {
        /// Its name.
        service: String,
        /// What it holds from now on.
        entry: ServiceEntry,
        /// Whether it is new.
        new: bool,
    },
    /// A service is taken out: packets for it are passed from here on.
    RemoveService {
        /// Its name, if it is known.
        service: Option<String>,
        /// Where it listened.
        key: Key,
    },
    /// Flows of a service are forgotten.
    ForgetFlows {
        /// Its name, if it is known.
        service: Option<String>,
        /// Its id.
        id: u32,
    },
    /// The way back from a NAT backend is written.
    Reverse {
        /// For which service.
        service: String,
        /// What it holds from now on.
        entry: ReverseEntry,
    },
    /// The way back from a NAT backend is taken out.
    RemoveReverse {
        /// For which service, if it is known.
        service: Option<String>,
        /// The backend.
        key: Key,
    },
    /// An address answers echo requests.
    Vip {
        /// For which service.
        service: String,
        /// What it holds from now on.
        entry: VipEntry,
    },
    /// An address answers echo requests no more.
    RemoveVip {
        /// For which service it did, if it is known.
        service: Option<String>,
        /// The address.
        key: Key,
    },
    /// The ranges of ports of an address come into force, at once.
    Ranges {
        /// The address, see [`Key::ranges`].
        key: Key,
        /// The ranges, in the order in which they are looked at; none: the address is taken out.
        list: Vec<u64>,
    },
    /// Everybody who may still read what was taken out is waited for.
    Grace,
}

/// Why a backend's entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was added.
    Added,
    /// It was removed.
    Removed,
    /// It takes new flows from here on.
    Up,
    /// It keeps its flows and takes no new ones.
    Draining,
    /// Nothing reaches it any more.
    Down,
    /// Its next hop changed.
    NextHop,
    /// Its place in the table changed.
    Moved,
}

/// A range of a list, for people.
fn range(word: u64) -> Ports {
    match ranges::ends(word) {
        (0, _) => Ports::Any,
        (first, last) => Ports::Range(first, last),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |service: &Option<String>| service.clone().unwrap_or_else(|| "(unknown)".into());
        match self {
            Self::ZeroReasons { service, .. } => write!(f, "{service}: its counters start at zero"),
            Self::KeepCounters { service, .. } => {
                write!(f, "{service}: what a backend that is gone had counted is kept")
            }
            Self::ZeroCounters { service, .. } => write!(f, "{service}: counters of a backend start at zero"),
            Self::Backend { service, why, address, .. } => {
                let what = match why {
                    Why::Added => "added",
                    Why::Removed => "removed",
                    Why::Up => "takes new flows",
                    Why::Draining => "keeps its flows, takes no new ones",
                    Why::Down => "is not reached any more",
                    Why::NextHop => "has a new next hop",
                    Why::Moved => "moves within the table",
                };
                write!(f, "{service}: backend {} {what}", shown(address))
            }
            Self::Slots { service, words, moved, slots, .. } => {
                let share = f64::from(*moved) * 100.0 / f64::from((*slots).max(1));
                write!(f, "{service}: {moved} of {slots} slots change hands ({share:.1} % of new flows)")?;
                match words.len() - *moved as usize {
                    0 => Ok(()),
                    others => write!(f, ", {others} more are settled"),
                }
            }
            Self::Service { service, new: true, .. } => write!(f, "{service}: service is added"),
            Self::Service { service, new: false, .. } => write!(f, "{service}: service is changed in place"),
            Self::RemoveService { service, .. } => write!(f, "{}: service is removed", name(service)),
            Self::ForgetFlows { service, .. } => write!(f, "{}: its flows are forgotten", name(service)),
            Self::Reverse { service, entry } => {
                write!(f, "{service}: replies of {} find their way back", IpAddr::from(entry.key.addr))
            }
            Self::RemoveReverse { service, key } => {
                write!(f, "{}: replies of {} are foreign from now on", name(service), IpAddr::from(key.addr))
            }
            Self::Vip { service, entry } => {
                write!(f, "{service}: pings of {} are answered", IpAddr::from(entry.key.addr))
            }
            Self::RemoveVip { service, key } => {
                write!(f, "{}: pings of {} are passed on", name(service), IpAddr::from(key.addr))
            }
            Self::Ranges { key, list } => {
                let what = if key.is_of_source() { "replies from" } else { "packets to" };
                write!(f, "{what} {}: ", IpAddr::from(key.addr))?;
                match list.as_slice() {
                    [] => f.write_str("no range of ports any more"),
                    list => {
                        let ranges: Vec<_> = list.iter().map(|word| range(*word).to_string()).collect();
                        write!(f, "ranges of ports are {}", ranges.join(", "))
                    }
                }
            }
            Self::Grace => write!(f, "packets under way are waited for"),
        }
    }
}
