//! Interfaces: what the agent needs to attach to them and to send through them.

use super::{Error, Netlink, kernel_error};
use futures_util::TryStreamExt;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use nix::errno::Errno;

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Name, unique in its namespace at one time.
    pub name: String,
    /// Index, not reused for other interfaces in practice.
    pub index: u32,
    /// MAC address; zeros on loopback and on what is not Ethernet.
    pub mac: [u8; 6],
    /// Whether frames on it are Ethernet to some other machine: not loopback, not a tunnel without MAC addresses.
    pub ethernet: bool,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Set up by the administrator.
    pub up: bool,
    /// Has a carrier (a cable, or a peer that is up) and passes packets.
    pub carrier: bool,
    /// Kind of a virtual interface as `ip link add type` calls it (veth, bridge, vlan…); `None` for hardware.
    pub kind: Option<String>,
    /// The other end of a veth.
    pub peer: Option<Peer>,
    /// Index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// The XDP program on it.
    pub xdp: Option<XdpInfo>,
}

/// The other end of a veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its index, in its own namespace.
    pub index: u32,
    /// The identifier that this namespace has for the peer's namespace; `None`: the same namespace.
    pub namespace: Option<i32>,
}

/// An attached XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpInfo {
    /// Identifier of the program, as `bpftool prog show id` takes it; of the first one if there are several.
    pub prog_id: u32,
    /// How it is attached.
    pub mode: XdpMode,
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// On socket buffers.
    Generic,
    /// In the network card.
    Offloaded,
    /// In several modes at once.
    Several,
}

impl Netlink {
    /// Every interface, by index.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let messages: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(kernel_error("list interfaces"))?;
        let mut links: Vec<_> = messages.iter().map(Link::from_message).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The interface called `name`.
    ///
    /// # Errors
    ///
    /// There is none: the error names those there are.
    pub async fn link(&self, name: &str) -> Result<Link, Error> {
        let links = self.links().await?;
        let found = links.iter().find(|link| link.name == name).cloned();
        found.ok_or_else(|| missing(name, &links))
    }

    /// The interface with this index.
    ///
    /// # Errors
    ///
    /// There is none: the error names those there are.
    pub async fn link_by_index(&self, index: u32) -> Result<Link, Error> {
        let answer = self.handle.link().get().match_index(index).execute().try_next().await;
        match answer.map_err(kernel_error(format!("look up interface {index}"))) {
            Ok(Some(message)) => Ok(Link::from_message(&message)),
            Err(error) if error.errno() != Some(Errno::ENODEV) => Err(error),
            _ => Err(missing(&index.to_string(), &self.links().await?)),
        }
    }
}

fn missing(name: &str, links: &[Link]) -> Error {
    Error::NoInterface {
        name: name.to_owned(),
        present: links.iter().map(|link| link.name.clone()).collect(),
    }
}

impl Link {
    /// What an `RTM_NEWLINK` or `RTM_DELLINK` message says.
    pub(super) fn from_message(message: &LinkMessage) -> Self {
        let header = &message.header;
        let mut link = Self {
            index: header.index,
            ethernet: header.link_layer_type == LinkLayerType::Ether,
            up: header.flags.contains(LinkFlags::Up),
            // The operational state (RFC 2863) follows a carrier a little later: a loss shows in one flag at once, a
            // carrier whose queues are not open yet shows in the other.
            carrier: header.flags.contains(LinkFlags::LowerUp | LinkFlags::Running),
            ..Self::default()
        };
        let (mut lower, mut lower_namespace) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) if link.ethernet => {
                    link.mac = bytes.as_slice().try_into().unwrap_or_default();
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.master = Some(*index),
                LinkAttribute::Link(index) => lower = Some(*index),
                LinkAttribute::LinkNetNsId(id) => lower_namespace = Some(*id),
                LinkAttribute::LinkInfo(infos) => link.kind = infos.iter().find_map(kind),
                LinkAttribute::Xdp(attributes) => link.xdp = xdp(attributes),
                _ => {}
            }
        }
        // The same attribute names the interface below a VLAN or a tunnel.
        if link.kind.as_deref() == Some("veth") {
            link.peer = lower.map(|index| Peer { index, namespace: lower_namespace });
        }
        link
    }
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn xdp(attributes: &[LinkXdp]) -> Option<XdpInfo> {
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpMode::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(XdpMode::Offloaded),
        LinkXdp::Attached(XdpAttached::Multiple) => Some(XdpMode::Several),
        _ => None,
    })?;
    // With several programs the kernel gives one identifier a mode instead of a single one.
    let prog_id = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id)
        }
        _ => None,
    })?;
    Some(XdpInfo { prog_id, mode })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Namespace, veth};

    fn link(namespace: &Namespace, name: &str) -> Link {
        namespace.run_async(|| async { Netlink::open().unwrap().link(name).await.unwrap() }).unwrap()
    }

    #[test]
    fn a_veth_shows_its_peer_and_its_carrier() {
        let make = || Namespace::create_unique("lblinks").unwrap();
        let (one, two) = (make(), make());
        veth(&one, "a0", &two, "b0").unwrap();
        veth(&one, "c0", &one, "c1").unwrap();
        one.mac("a0", [2, 0, 0, 0, 0, 7]).unwrap();
        one.mtu("a0", 1400).unwrap();

        let (a, b) = (link(&one, "a0"), link(&two, "b0"));
        assert_eq!((a.mac, a.mtu, a.up, a.carrier, a.ethernet), ([2, 0, 0, 0, 0, 7], 1400, true, true, true));
        assert_eq!(a.kind.as_deref(), Some("veth"));
        assert_eq!(a.peer.unwrap().index, b.index);
        assert!(a.peer.unwrap().namespace.is_some());
        let (c, d) = (link(&one, "c0"), link(&one, "c1"));
        assert_eq!(c.peer, Some(Peer { index: d.index, namespace: None }));

        two.down("b0").unwrap();
        let a = link(&one, "a0");
        assert!(a.up && !a.carrier);
        assert!(!link(&two, "b0").up);
    }

    #[test]
    fn ports_know_their_bridge_and_loopback_is_not_ethernet() {
        let namespace = Namespace::create_unique("lblinks").unwrap();
        namespace.bridge("br0").unwrap();
        veth(&namespace, "p0", &namespace, "e0").unwrap();
        namespace.bridge_port("br0", "p0").unwrap();
        let bridge = link(&namespace, "br0");
        assert_eq!((bridge.kind.as_deref(), bridge.peer), (Some("bridge"), None));
        assert_eq!(link(&namespace, "p0").master, Some(bridge.index));
        let lo = link(&namespace, "lo");
        assert!(!lo.ethernet && lo.kind.is_none() && lo.mac == [0; 6]);
    }

    #[test]
    fn a_missing_interface_is_named_with_those_there_are() {
        let namespace = Namespace::create_unique("lblinks").unwrap();
        let error = |result: Result<Link, Error>| result.unwrap_err().to_string();
        let (by_name, by_index) = namespace
            .run_async(|| async {
                let netlink = Netlink::open().unwrap();
                (error(netlink.link("eth7").await), error(netlink.link_by_index(4321).await))
            })
            .unwrap();
        assert!(by_name.starts_with("no interface \"eth7\"; there are: lo"), "{by_name}");
        assert!(by_index.starts_with("no interface \"4321\"; there are: lo"), "{by_index}");
    }

    #[test]
    fn xdp_attributes_are_read() {
        let attached = |mode| LinkXdp::Attached(mode);
        assert_eq!(xdp(&[attached(XdpAttached::None)]), None);
        let native = [attached(XdpAttached::Driver), LinkXdp::ProgId(9), LinkXdp::DrvProgId(9)];
        assert_eq!(xdp(&native), Some(XdpInfo { prog_id: 9, mode: XdpMode::Native }));
        let several = [attached(XdpAttached::Multiple), LinkXdp::DrvProgId(3), LinkXdp::SkbProgId(4)];
        assert_eq!(xdp(&several), Some(XdpInfo { prog_id: 3, mode: XdpMode::Several }));
    }
}
