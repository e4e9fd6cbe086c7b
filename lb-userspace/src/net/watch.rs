//! Changes of the kernel's network configuration, as they happen: neighbours, links, addresses, routes.
//!
//! The socket is read only when somebody waits, so a burst waits in the kernel's buffer and not in this process's
//! memory. When that buffer overflows the kernel drops messages and says so (ENOBUFS): then all that can be said is
//! [`Change::Resync`], and the listener reads the tables again.

use super::links::Link;
use super::neighbours::Neighbour;
use super::{Error, routes};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Room for changes that nobody has read yet, bytes: some thousand neighbours.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Larger than any message of the kernel (32 KiB since Linux 4.9).
const DATAGRAM: usize = 64 << 10;
/// A burst is over when nothing came for so long…
const QUIET: Duration = Duration::from_millis(5);
/// …and is reported after so long even if it is not over.
const LONGEST_BURST: Duration = Duration::from_millis(50);

/// A change. Of several changes of one thing in a burst only the last one is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Changes were missed: read everything again.
    Resync,
    /// An interface is new or different.
    Link(Link),
    /// An interface is gone.
    LinkGone {
        /// Its index.
        ifindex: u32,
        /// Its name.
        name: String,
    },
    /// An address was put on an interface, or changed.
    Address {
        /// Interface.
        ifindex: u32,
        /// Address.
        address: IpAddr,
    },
    /// An address was taken from an interface.
    AddressGone {
        /// Interface.
        ifindex: u32,
        /// Address.
        address: IpAddr,
    },
    /// Routes of this family changed, in a table other than `local`, or the rules that choose a table.
    Routes {
        /// IPv6; else IPv4.
        v6: bool,
    },
    /// A neighbour is new or different.
    Neighbour(Neighbour),
    /// A neighbour is gone.
    NeighbourGone {
        /// Interface.
        ifindex: u32,
        /// Address.
        address: IpAddr,
    },
}

/// What a change is about: a later one replaces an earlier one. The order is the order of reports: links first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Link(u32),
    Address(u32, IpAddr),
    Routes(bool),
    Neighbour(u32, IpAddr),
}

impl Change {
    fn subject(&self) -> Option<Subject> {
        Some(match self {
            Self::Resync => return None,
            Self::Link(link) => Subject::Link(link.index),
            Self::LinkGone { ifindex, .. } => Subject::Link(*ifindex),
            Self::Address { ifindex, address } | Self::AddressGone { ifindex, address } => {
                Subject::Address(*ifindex, *address)
            }
            Self::Routes { v6 } => Subject::Routes(*v6),
            Self::Neighbour(neighbour) => Subject::Neighbour(neighbour.ifindex, neighbour.address),
            Self::NeighbourGone { ifindex, address } => Subject::Neighbour(*ifindex, *address),
        })
    }
}

/// A subscription to changes in the network namespace of the thread that opened it.
pub struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
    burst: Burst,
}

#[derive(Default)]
struct Burst {
    changes: BTreeMap<Subject, Change>,
    missed: bool,
}

impl Burst {
    fn add(&mut self, change: Change) {
        match change.subject() {
            Some(subject) => drop(self.changes.insert(subject, change)),
            None => self.missed = true,
        }
    }

    fn is_empty(&self) -> bool {
        !self.missed && self.changes.is_empty()
    }

    /// Takes what has come together. Whoever reads everything again needs no single changes.
    fn take(&mut self) -> Vec<Change> {
        let changes = std::mem::take(&mut self.changes);
        if std::mem::take(&mut self.missed) { vec![Change::Resync] } else { changes.into_values().collect() }
    }
}

impl Watch {
    /// Subscribes. Read the tables after this, not before: then nothing falls between the two.
    ///
    /// # Errors
    ///
    /// No netlink socket can be opened.
    pub fn open() -> Result<Self, Error> {
        Self::with_buffer(RECEIVE_BUFFER)
    }

    fn with_buffer(bytes: usize) -> Result<Self, Error> {
        let failed = |error| Error::kernel("listen to changes of the network configuration", error);
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(failed)?;
        let inner = socket.socket_mut();
        // Best effort: the kernel's limit (net.core.rmem_max) may be lower, and an overflow is handled.
        let _ = inner.set_rx_buf_sz(i32::try_from(bytes).unwrap_or(i32::MAX));
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ];
        // Group numbers count from one, bits from zero (netlink(7), nl_groups).
        let mask = groups.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
        inner.bind(&SocketAddr::new(0, mask)).map_err(failed)?;
        // Next hop objects (Linux 5.3) change routes without a word about the routes. The library does not parse them,
        // so they come out as a resync. Best effort: an older kernel has none.
        let _ = inner.add_membership(MulticastGroup::Nexthop as u32);
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM), burst: Burst::default() })
    }

    /// Waits for changes and returns a burst of them together, never an empty one. May be dropped while it waits
    /// (`select!`) without losing any.
    ///
    /// # Errors
    ///
    /// The socket failed for good.
    pub async fn next(&mut self) -> Result<Vec<Change>, Error> {
        while self.burst.is_empty() {
            self.receive().await?;
        }
        let deadline = Instant::now() + LONGEST_BURST;
        while Instant::now() < deadline {
            match timeout_at((Instant::now() + QUIET).min(deadline), self.receive()).await {
                Ok(received) => received?,
                Err(_) => break,
            }
        }
        Ok(self.burst.take())
    }

    /// The changes as a stream, burst by burst; it ends after an error.
    pub fn stream(self) -> impl futures_util::Stream<Item = Result<Vec<Change>, Error>> {
        futures_util::stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            let burst = watch.next().await;
            let rest = burst.is_ok().then_some(watch);
            Some((burst, rest))
        })
    }

    /// Reads one datagram into the burst.
    async fn receive(&mut self) -> Result<(), Error> {
        self.buffer.clear();
        match self.socket.recv_from(&mut self.buffer).await {
            Ok(_) => parse(&self.buffer, &mut self.burst),
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                self.burst.add(Change::Resync)
            }
            Err(error) => return Err(Error::kernel("read changes of the network configuration", error)),
        }
        Ok(())
    }
}

/// Adds what a datagram of netlink messages says. What cannot be parsed may have been a change.
fn parse(mut datagram: &[u8], burst: &mut Burst) {
    while let Some(length) = datagram.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes) as usize) {
        let Some(bytes) = datagram.get(..length) else { return burst.add(Change::Resync) };
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => {
                if let Some(change) = change(&message) {
                    burst.add(change);
                }
            }
            Ok(NetlinkPayload::Overrun(_)) | Err(_) => burst.add(Change::Resync),
            Ok(_) => {}
        }
        // Messages are aligned to four bytes; the last one need not be padded.
        datagram = datagram.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
    }
}

fn change(message: &RouteNetlinkMessage) -> Option<Change> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(Change::Link(Link::from_message(link))),
        RouteNetlinkMessage::DelLink(link) => {
            let link = Link::from_message(link);
            Some(Change::LinkGone { ifindex: link.index, name: link.name })
        }
        RouteNetlinkMessage::NewAddress(message) => {
            address(message).map(|(ifindex, address)| Change::Address { ifindex, address })
        }
        RouteNetlinkMessage::DelAddress(message) => {
            address(message).map(|(ifindex, address)| Change::AddressGone { ifindex, address })
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            routes::family_of_change(route).map(|v6| Change::Routes { v6 })
        }
        RouteNetlinkMessage::NewRule(rule) | RouteNetlinkMessage::DelRule(rule) => {
            routes::family_of_rule(rule).map(|v6| Change::Routes { v6 })
        }
        RouteNetlinkMessage::NewNeighbour(message) => Neighbour::from_message(message).map(Change::Neighbour),
        RouteNetlinkMessage::DelNeighbour(message) => Neighbour::from_message(message)
            .map(|gone| Change::NeighbourGone { ifindex: gone.ifindex, address: gone.address }),
        _ => None,
    }
}

/// Interface and address of a message. `IFA_LOCAL` is the own address, `IFA_ADDRESS` may be that of a far end.
pub(super) fn address(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    Some((message.header.index, find(true).or_else(|| find(false))?))
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
