//! Where a packet to an address goes: the kernel's own route lookup, joined with links and neighbours.
//!
//! [`Netlink::resolve`] asks; [`decide`] draws the conclusion and does no I/O.

use super::links::Link;
use super::neighbours::{Neighbour, State};
use super::routes::{Kind, Route, Via};
use super::{Error, Netlink, format_mac};
use netlink_packet_route::route::RouteAttribute;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::NLM_F_REQUEST;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// The way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Interface that frames leave through.
    pub ifindex: u32,
    /// Its name; shared by the many ways through it.
    pub interface: Arc<str>,
    /// Its MAC address.
    pub source_mac: [u8; 6],
    /// The router on the way, if the address is not on the link; may be IPv6 for an IPv4 address (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// Whom frames are sent to: the gateway or the address itself.
    pub neighbour: IpAddr,
    /// MAC address of the neighbour; `None` while it is not known, see [`Self::ready`].
    pub mac: Option<[u8; 6]>,
    /// What the kernel thinks of the neighbour.
    pub state: State,
    /// Largest IP packet on the way, bytes: the route's if it has one, else the interface's.
    pub mtu: u32,
}

impl NextHop {
    /// The MAC address to send to, or why there is none.
    ///
    /// # Errors
    ///
    /// The neighbour is not resolved: [`Netlink::probe`] makes the kernel try.
    pub fn ready(&self) -> Result<[u8; 6], Unresolved> {
        let (neighbour, interface) = (self.neighbour, self.interface.to_string());
        self.mac.ok_or(match self.state {
            State::Failed => Unresolved::NeighbourFailed { neighbour, interface },
            _ => Unresolved::NeighbourPending { neighbour, interface },
        })
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.gateway.is_some() {
            write!(f, "via {} ", self.neighbour)?;
        }
        write!(f, "dev {} ", self.interface)?;
        match self.mac {
            Some(mac) => write!(f, "lladdr {} {}", format_mac(mac), self.state),
            None => write!(f, "{}", self.state),
        }
    }
}

/// Why frames cannot be sent to an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The routing table has nothing for it.
    #[error("there is no route to {target}: add one (ip route add)")]
    NoRoute {
        /// The address.
        target: IpAddr,
    },
    /// It is an address of this machine, which packets cannot be forwarded to.
    #[error("{target} is an address of this machine: a backend must be another machine or network namespace")]
    Local {
        /// The address.
        target: IpAddr,
    },
    /// A route drops it without a word.
    #[error("a blackhole route drops packets to {target}: see ip route get {target}")]
    Blackhole {
        /// The address.
        target: IpAddr,
    },
    /// A route says that it is unreachable.
    #[error("a route makes {target} unreachable: see ip route get {target}")]
    Unreachable {
        /// The address.
        target: IpAddr,
    },
    /// A route says that it is prohibited.
    #[error("a route prohibits packets to {target}: see ip route get {target}")]
    Prohibited {
        /// The address.
        target: IpAddr,
    },
    /// It is a broadcast, multicast or anycast address.
    #[error("{target} is not the address of one machine")]
    NotUnicast {
        /// The address.
        target: IpAddr,
    },
    /// The interface is down or has no carrier.
    #[error(
        "the way to {target} is interface {interface}, which is down: check the cable, or ip link set {interface} up"
    )]
    LinkDown {
        /// The address.
        target: IpAddr,
        /// The interface.
        interface: String,
    },
    /// The interface has no MAC addresses (a tunnel, for example).
    #[error("the way to {target} is interface {interface}, which is not Ethernet")]
    NotEthernet {
        /// The address.
        target: IpAddr,
        /// The interface.
        interface: String,
    },
    /// The interface of the route disappeared while it was looked at.
    #[error("the way to {target} is interface {ifindex}, which is gone")]
    LinkGone {
        /// The address.
        target: IpAddr,
        /// Index of the interface.
        ifindex: u32,
    },
    /// The neighbour did not answer.
    #[error(
        "{neighbour} does not answer ARP or neighbour discovery on {interface}: is it up and on this segment?"
    )]
    NeighbourFailed {
        /// The neighbour.
        neighbour: IpAddr,
        /// The interface.
        interface: String,
    },
    /// The neighbour's MAC address is not known yet.
    #[error("{neighbour} on {interface} is being resolved")]
    NeighbourPending {
        /// The neighbour.
        neighbour: IpAddr,
        /// The interface.
        interface: String,
    },
}

/// The outcome of a lookup: a way, whose neighbour may still be unresolved, or why there is none.
pub type Answer = Result<NextHop, Unresolved>;

/// Joins the route that the kernel chose for `target` with links and neighbours.
///
/// # Errors
///
/// The route leads nowhere that frames can be sent to.
pub fn decide(target: IpAddr, route: &Route, links: &[Link], neighbours: &[Neighbour]) -> Answer {
    match route.kind {
        Kind::Unicast => {}
        Kind::Local => return Err(Unresolved::Local { target }),
        Kind::Blackhole => return Err(Unresolved::Blackhole { target }),
        Kind::Unreachable => return Err(Unresolved::Unreachable { target }),
        Kind::Prohibit => return Err(Unresolved::Prohibited { target }),
        Kind::Other => return Err(Unresolved::NotUnicast { target }),
    }
    let Some(link) = links.iter().find(|link| link.index == route.ifindex) else {
        return Err(Unresolved::LinkGone { target, ifindex: route.ifindex });
    };
    let interface = link.name.clone();
    if !link.up || !link.carrier {
        return Err(Unresolved::LinkDown { target, interface });
    }
    if !link.ethernet {
        return Err(Unresolved::NotEthernet { target, interface });
    }
    let gateway = match route.via {
        Via::Gateway(gateway) => Some(gateway),
        Via::OnLink => None,
    };
    let neighbour = gateway.unwrap_or(target);
    let entry = neighbours.iter().find(|entry| entry.ifindex == link.index && entry.address == neighbour);
    Ok(NextHop {
        ifindex: link.index,
        interface: interface.into(),
        source_mac: link.mac,
        gateway,
        neighbour,
        mac: entry.and_then(Neighbour::usable),
        state: entry.map_or(State::Absent, |entry| entry.state),
        mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
    })
}

impl Netlink {
    /// The way to an address, by the kernel's routing decision for a packet of this machine. Resolves nothing by
    /// itself: see [`Self::probe`].
    ///
    /// # Errors
    ///
    /// The outer error: the kernel does not answer. The inner one: there is no way.
    pub async fn resolve(&self, target: IpAddr) -> Result<Answer, Error> {
        let route = match self.lookup(target).await? {
            Ok(route) => route,
            Err(reason) => return Ok(Err(reason)),
        };
        let links: Vec<_> = match self.link_by_index(route.ifindex).await {
            Ok(link) => vec![link],
            Err(Error::NoInterface { .. }) => vec![],
            Err(error) => return Err(error),
        };
        let neighbour = match route.via {
            Via::Gateway(gateway) => gateway,
            Via::OnLink => target,
        };
        let entry = match self.neighbour(route.ifindex, neighbour).await {
            // The interface went away, or never had neighbours: the links above tell.
            Err(error) if matches!(error.errno(), Some(Errno::ENODEV | Errno::EINVAL)) => None,
            other => other?,
        };
        Ok(decide(target, &route, &links, entry.as_slice()))
    }

    /// The kernel's route for one address. It answers refusing routes with an error number (`fib_props` in
    /// net/ipv4/fib_semantics.c, `ip6_rt_type_to_error` in net/ipv6/route.c).
    pub(super) async fn lookup(&self, target: IpAddr) -> Result<Result<Route, Unresolved>, Error> {
        let action = format!("look up the route to {target}");
        let mut message = RouteMessageBuilder::<IpAddr>::new().build();
        let (family, bits) = match target {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.header = Default::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = bits;
        message.attributes.push(RouteAttribute::Destination(target.into()));
        match self.ask(RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST, &action).await {
            Ok(Some(RouteNetlinkMessage::NewRoute(answer))) => {
                Ok(Route::from_message(&answer).ok_or(Unresolved::NoRoute { target }))
            }
            Ok(_) => Ok(Err(Unresolved::NoRoute { target })),
            Err(error) => Ok(Err(match error.errno() {
                // EAGAIN: a throw route with no table after it.
                Some(Errno::ENETUNREACH | Errno::EAGAIN) => Unresolved::NoRoute { target },
                Some(Errno::EHOSTUNREACH) => Unresolved::Unreachable { target },
                Some(Errno::EACCES) => Unresolved::Prohibited { target },
                Some(Errno::EINVAL) => Unresolved::Blackhole { target },
                _ => return Err(error),
            })),
        }
    }
}

#[cfg(test)]
#[path = "nexthop_tests.rs"]
mod tests;
