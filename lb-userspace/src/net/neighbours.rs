//! The kernel's neighbour table (ARP, RFC 826; neighbour discovery, RFC 4861): reading it, and making the kernel
//! resolve an address. Changes are reported by [`super::watch`].

use super::{Error, Netlink, kernel_error};
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as Nud,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use std::fmt;
use std::net::IpAddr;

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface that it is on.
    pub ifindex: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address, if the kernel has one; see [`Self::usable`].
    pub mac: Option<[u8; 6]>,
    /// What the kernel thinks of the entry.
    pub state: State,
}

/// State of an entry, as the kernel's `NUD_*` (RFC 4861, section 7.3.2, with Linux' additions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No entry, or one that nothing has been tried for.
    #[default]
    Absent,
    /// Being resolved for the first time.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Not confirmed lately, used all the same.
    Stale,
    /// About to be probed.
    Delay,
    /// Being probed.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no resolution: set by a device or by hand, never probed.
    NoArp,
    /// Set by hand.
    Permanent,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "absent",
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Stale => "stale",
            Self::Delay => "delay",
            Self::Probe => "probe",
            Self::Failed => "failed",
            Self::NoArp => "noarp",
            Self::Permanent => "permanent",
        })
    }
}

impl State {
    /// Whether the MAC address of an entry in this state may be used (the kernel's `NUD_VALID`).
    #[must_use]
    pub fn valid(self) -> bool {
        !matches!(self, Self::Absent | Self::Incomplete | Self::Failed)
    }

    fn from_kernel(state: Nud) -> Self {
        match state {
            Nud::Incomplete => Self::Incomplete,
            Nud::Reachable => Self::Reachable,
            Nud::Stale => Self::Stale,
            Nud::Delay => Self::Delay,
            Nud::Probe => Self::Probe,
            Nud::Failed => Self::Failed,
            Nud::Noarp => Self::NoArp,
            Nud::Permanent => Self::Permanent,
            _ => Self::Absent,
        }
    }
}

impl Neighbour {
    /// The MAC address that frames may be sent to now.
    #[must_use]
    pub fn usable(&self) -> Option<[u8; 6]> {
        self.mac.filter(|mac| self.state.valid() && *mac != [0; 6])
    }

    /// What a neighbour message says; `None` for bridge and proxy entries, and addresses that are not IP.
    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        if message.header.flags.contains(NeighbourFlags::Proxy) {
            return None;
        }
        let (mut address, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    address = Some(IpAddr::V4(*v4))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    address = Some(IpAddr::V6(*v6))
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
                _ => {}
            }
        }
        let state = State::from_kernel(message.header.state);
        Some(Self { ifindex: message.header.ifindex, address: address?, mac, state })
    }
}

impl Netlink {
    /// Every entry, IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, Error> {
        let request = self.handle.neighbours().get();
        let messages: Vec<_> =
            request.execute().try_collect().await.map_err(kernel_error("list neighbours"))?;
        Ok(messages.iter().filter_map(Neighbour::from_message).collect())
    }

    /// The entry of one address on an interface; `None`: there is none.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn neighbour(&self, ifindex: u32, address: IpAddr) -> Result<Option<Neighbour>, Error> {
        let request = RouteNetlinkMessage::GetNeighbour(message(ifindex, address));
        match self.ask(request, NLM_F_REQUEST, &format!("look up the neighbour {address}")).await {
            Ok(Some(RouteNetlinkMessage::NewNeighbour(answer))) => Ok(Neighbour::from_message(&answer)),
            Ok(_) => Ok(None),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel resolve an address now, or check an entry that it has: it sends an ARP request or a
    /// neighbour solicitation. The outcome shows in the table, and in [`super::watch`]. Entries that are never probed
    /// (permanent, noarp) are left alone.
    ///
    /// An entry with a MAC address is checked at that address first (RFC 4861, section 7.3.3). If the neighbour moved
    /// to another one without announcing it, the entry becomes [`State::Failed`] after three tries, a second apart;
    /// probing it again then asks everybody on the link.
    ///
    /// # Errors
    ///
    /// No such interface, or no privilege.
    pub async fn probe(&self, ifindex: u32, address: IpAddr) -> Result<(), Error> {
        let action = format!("resolve the neighbour {address}");
        let state = self.neighbour(ifindex, address).await?.map_or(State::Absent, |entry| entry.state);
        let mut message = message(ifindex, address);
        if matches!(state, State::Permanent | State::NoArp) {
            return Ok(());
        }
        if state.valid() {
            // NTF_USE only makes a stale entry wait five seconds (delay_first_probe_time); setting the state probes now.
            message.header.state = Nud::Probe;
            let request = RouteNetlinkMessage::NewNeighbour(message.clone());
            match self.ask(request, NLM_F_REQUEST | NLM_F_ACK | NLM_F_REPLACE, &action).await {
                // The entry was lost meanwhile: resolve it like any other.
                Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::ENOENT)) => {}
                other => return other.map(drop),
            }
        }
        // As if a packet were sent (neigh_add() in net/core/neighbour.c): absent and failed entries are solicited at once.
        message.header.state = Nud::None;
        message.header.flags = NeighbourFlags::Use;
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.ask(RouteNetlinkMessage::NewNeighbour(message), flags, &action).await.map(drop)
    }

    /// Sends one request and returns the message that answers it, if it is not a mere acknowledgement.
    pub(super) async fn ask(
        &self,
        request: RouteNetlinkMessage,
        flags: u16,
        action: &str,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        let mut request = NetlinkMessage::from(request);
        request.header.flags = flags;
        let mut answers = self.handle.clone().request(request).map_err(kernel_error(action))?;
        let mut answer = None;
        while let Some(message) = answers.next().await {
            match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(Error::kernel(action, error.to_io()));
                }
                NetlinkPayload::InnerMessage(inner) => answer = Some(inner),
                _ => {}
            }
        }
        Ok(answer)
    }
}

fn message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}
