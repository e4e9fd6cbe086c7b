//! Links of a namespace and their addresses.

use super::{Namespace, wait};
use crate::net::announce::send_frame;
use crate::net::nexthop::Unresolved;
use crate::net::{Netlink, kernel_error};
use anyhow::{Context, Result};
use ipnet::IpNet;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{InfoData, InfoIpTunnel, InfoKind, InfoVeth};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Connects two namespaces with a veth pair: `a_end` in `a`, `b_end` in `b`. Both ends are up and pass packets.
///
/// # Errors
///
/// One of the names is taken in its namespace.
pub fn veth(a: &Namespace, a_end: &str, b: &Namespace, b_end: &str) -> Result<()> {
    let far = LinkUnspec::new_with_name(b_end).setns_by_fd(b.as_fd().as_raw_fd());
    let pair = LinkVeth::new(a_end, b_end).set_info_data(InfoData::Veth(InfoVeth::Peer(far.build()))).build();
    a.configure(async |netlink| {
        let what = format!("create the veth pair {a_end} and {b_end}");
        netlink.handle().link().add(pair).execute().await.map_err(kernel_error(what))
    })?;
    // Only now: an end that is set up before it has its peer is refused.
    a.up(a_end)?;
    b.up(b_end)?;
    // The kernel opens the queues behind a new carrier a little later, and drops what is sent before.
    a.wait_for_carrier(a_end)?;
    b.wait_for_carrier(b_end)
}

/// The family of packets in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How long the kernel may take to open a link or an address: it defers that by a second at most.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

impl Namespace {
    /// Makes a bridge, up, without spanning tree: its ports forward at once.
    ///
    /// # Errors
    ///
    /// The name is taken.
    pub fn bridge(&self, name: &str) -> Result<()> {
        self.configure(async |netlink| {
            let bridge = LinkBridge::new(name).build();
            let what = format!("create the bridge {name}");
            netlink.handle().link().add(bridge).execute().await.map_err(kernel_error(what))
        })
    }

    /// Makes a tunnel device of the kernel, up, between two addresses of one family: it takes packets of `inside` out of others.
    ///
    /// # Errors
    ///
    /// The name is taken, or the kernel has no such device.
    pub fn tunnel(&self, name: &str, [local, remote]: [IpAddr; 2], inside: Inside) -> Result<()> {
        let (kind, protocol) = match (local, inside) {
            (IpAddr::V4(_), Inside::V4) => (InfoKind::IpIp, IpProtocol::Ipip),
            (IpAddr::V4(_), Inside::V6) => (InfoKind::SitTun, IpProtocol::Ipv6),
            (IpAddr::V6(_), Inside::V4) => (InfoKind::Ip6Tnl, IpProtocol::Ipip),
            (IpAddr::V6(_), Inside::V6) => (InfoKind::Ip6Tnl, IpProtocol::Ipv6),
        };
        let ends = [InfoIpTunnel::Local(local), InfoIpTunnel::Remote(remote)];
        let tunnel = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind)
            .name(name.to_owned())
            .set_info_data(InfoData::IpTunnel([&ends[..], &[InfoIpTunnel::Protocol(protocol)]].concat()))
            .build();
        self.configure(async |netlink| {
            let what = format!("create the tunnel {name}");
            netlink.handle().link().add(tunnel).execute().await.map_err(kernel_error(what))
        })?;
        self.up(name)
    }

    /// Makes a link a port of a bridge.
    ///
    /// # Errors
    ///
    /// One of them does not exist.
    pub fn bridge_port(&self, bridge: &str, port: &str) -> Result<()> {
        self.configure(async |netlink| {
            let master = netlink.link(bridge).await?.index;
            change(netlink, port, &format!("make {port} a port of {bridge}"), |link| link.controller(master))
                .await
        })
    }

    /// Sets a link up.
    ///
    /// # Errors
    ///
    /// It does not exist.
    pub fn up(&self, link: &str) -> Result<()> {
        self.set(link, &format!("set {link} up"), LinkMessageBuilder::up)
    }

    /// Waits until a link passes packets: after its far end was set up again, for example.
    ///
    /// # Errors
    ///
    /// It does not exist, or has no carrier after ten seconds.
    pub fn wait_for_carrier(&self, link: &str) -> Result<()> {
        self.configure(async |netlink| {
            let index = netlink.link(link).await?.index;
            let carrier = async || netlink.link_by_index(index).await.is_ok_and(|link| link.carrier);
            Ok(wait::until_async(&format!("the carrier of {link}"), SETTLE_TIMEOUT, carrier).await)
        })?
        .with_context(|| format!("in network namespace {}", self.name()))
    }

    /// Sends an Ethernet frame out of a link as it is.
    ///
    /// # Errors
    ///
    /// The link does not exist, or does not take it.
    pub fn send(&self, link: &str, frame: &[u8]) -> Result<()> {
        self.run(|| Ok(send_frame(nix::net::if_::if_nametoindex(link)?, frame)?))?
    }

    /// Sets a link down: the far end of a veth loses its carrier.
    ///
    /// # Errors
    ///
    /// It does not exist.
    pub fn down(&self, link: &str) -> Result<()> {
        self.set(link, &format!("set {link} down"), LinkMessageBuilder::down)
    }

    /// Sets the largest IP packet of a link, bytes.
    ///
    /// # Errors
    ///
    /// It does not exist, or the driver refuses.
    pub fn mtu(&self, link: &str, mtu: u32) -> Result<()> {
        self.set(link, &format!("set the MTU of {link} to {mtu}"), |message| message.mtu(mtu))
    }

    /// Sets the MAC address of a link.
    ///
    /// # Errors
    ///
    /// It does not exist, or the driver refuses.
    pub fn mac(&self, link: &str, mac: [u8; 6]) -> Result<()> {
        let what = format!("set the MAC address of {link} to {}", crate::net::format_mac(mac));
        self.set(link, &what, |message| message.address(mac.to_vec()))
    }

    /// Removes a link, and with it the other end of a veth.
    ///
    /// # Errors
    ///
    /// It does not exist.
    pub fn delete_link(&self, link: &str) -> Result<()> {
        self.configure(async |netlink| {
            let index = netlink.link(link).await?.index;
            let what = format!("remove {link}");
            netlink.handle().link().del(index).execute().await.map_err(kernel_error(what))
        })
    }

    /// Adds an address with its prefix length, `10.0.0.1/24` or `fd00::1/64`, to a link that is up. It is usable when
    /// this returns: IPv6 without duplicate address detection.
    ///
    /// # Errors
    ///
    /// No such link, not an address, it is there already, or the link is down.
    pub fn address(&self, link: &str, address: &str) -> Result<()> {
        let net: IpNet = parse_net(address)?;
        self.configure(async |netlink| {
            let index = netlink.link(link).await?.index;
            let mut request = netlink.handle().address().add(index, net.addr(), net.prefix_len());
            if net.addr().is_ipv6() {
                request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            request.execute().await.map_err(kernel_error(format!("add {address} to {link}")))?;
            // The kernel makes an IPv6 address its own in a work queue, even without duplicate address detection.
            let own = async || matches!(netlink.resolve(net.addr()).await, Ok(Err(Unresolved::Local { .. })));
            Ok(wait::until_async(&format!("{address} to be in effect"), SETTLE_TIMEOUT, own).await)
        })?
        .with_context(|| format!("in network namespace {}", self.name()))
    }

    fn set(&self, link: &str, what: &str, edit: impl FnOnce(Builder) -> Builder + Send) -> Result<()> {
        self.configure(async |netlink| change(netlink, link, what, edit).await)
    }
}

type Builder = LinkMessageBuilder<LinkUnspec>;

async fn change(
    netlink: &Netlink,
    link: &str,
    what: &str,
    edit: impl FnOnce(Builder) -> Builder,
) -> Result<(), crate::net::Error> {
    let index = netlink.link(link).await?.index;
    let message = edit(LinkUnspec::new_with_index(index)).build();
    netlink.handle().link().change(message).execute().await.map_err(kernel_error(what))
}

/// An address with its prefix length.
pub(super) fn parse_net(text: &str) -> Result<IpNet> {
    text.parse()
        .with_context(|| format!("\"{text}\" is not an address with a prefix length, like 10.0.0.1/24"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn two_namespaces_talk_across_a_bridge() {
        let make = || Namespace::create_unique("lblink").unwrap();
        let (one, switch, two) = (make(), make(), make());
        switch.bridge("br0").unwrap();
        for (end, port, address) in [(&one, "p1", 1), (&two, "p2", 2)] {
            veth(end, "eth0", &switch, port).unwrap();
            switch.bridge_port("br0", port).unwrap();
            end.mtu("eth0", 1400).unwrap();
            end.address("eth0", &format!("10.8.0.{address}/24")).unwrap();
            end.address("eth0", &format!("fd08::{address}/64")).unwrap();
        }
        for target in ["10.8.0.2:80", "[fd08::2]:80"] {
            let listener = two.run(|| TcpListener::bind(target)).unwrap().unwrap();
            one.run(|| TcpStream::connect(target)).unwrap().unwrap();
            drop(listener);
        }
    }

    #[test]
    fn errors_name_the_link_and_the_namespace() {
        let namespace = Namespace::create_unique("lblink").unwrap();
        let error = format!("{:#}", namespace.up("eth7").unwrap_err());
        assert!(error.contains("no interface \"eth7\"; there are: lo"), "{error}");
        assert!(error.contains(namespace.name()), "{error}");
        let error = format!("{:#}", namespace.address("lo", "10.0.0.1").unwrap_err());
        assert!(error.contains("prefix length"), "{error}");
    }
}
