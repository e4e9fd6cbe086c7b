//! Routes and neighbours of a namespace.

use super::Namespace;
use super::links::parse_net;
use crate::net::{Error, Netlink, kernel_error};
use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use netlink_packet_route::neighbour::NeighbourState;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteMetric, RouteType};
use rtnetlink::{RouteMessageBuilder, RouteNextHopBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

type Builder = RouteMessageBuilder<IpAddr>;

impl Namespace {
    /// Adds or replaces a route through a gateway. `to` is a prefix, or `default` for the gateway's family.
    ///
    /// # Errors
    ///
    /// The gateway is not reachable through a link.
    pub fn route(&self, to: &str, gateway: &str) -> Result<()> {
        let gateway = parse_address(gateway)?;
        let route = start(to, gateway)?.gateway(gateway)?.build();
        self.add_route(route, format!("route {to} via {gateway}"))
    }

    /// As [`Self::route`], with the largest IP packet of the way, bytes.
    ///
    /// # Errors
    ///
    /// As [`Self::route`].
    pub fn route_mtu(&self, to: &str, gateway: &str, mtu: u32) -> Result<()> {
        let gateway = parse_address(gateway)?;
        let mut route = start(to, gateway)?.gateway(gateway)?.build();
        route.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        self.add_route(route, format!("route {to} via {gateway} mtu {mtu}"))
    }

    /// Adds or replaces a route whose destinations are on a link.
    ///
    /// # Errors
    ///
    /// The link does not exist, or `to` is no prefix.
    pub fn route_on_link(&self, to: &str, link: &str) -> Result<()> {
        let prefix = parse_net(to)?;
        let builder = Builder::new().destination_prefix(prefix.network(), prefix.prefix_len())?;
        self.configure(async |netlink| {
            let index = netlink.link(link).await?.index;
            add(netlink, builder.output_interface(index).build(), format!("route {to} dev {link}")).await
        })
    }

    /// Adds or replaces a route with several gateways, chosen by flow (ECMP).
    ///
    /// # Errors
    ///
    /// No gateway is given, or one is not reachable through a link.
    pub fn route_multipath(&self, to: &str, gateways: &[&str]) -> Result<()> {
        let gateways = gateways.iter().map(|gateway| parse_address(gateway)).collect::<Result<Vec<_>>>()?;
        let first = *gateways.first().context("a route needs a gateway")?;
        let hop = |gateway: &IpAddr| {
            let builder = if gateway.is_ipv4() {
                RouteNextHopBuilder::new_ipv4()
            } else {
                RouteNextHopBuilder::new_ipv6()
            };
            Ok(builder.via(*gateway)?.build())
        };
        let hops = gateways.iter().map(hop).collect::<Result<Vec<_>>>()?;
        let route = start(to, first)?.multipath(hops).build();
        self.add_route(route, format!("route {to} via {} gateways", gateways.len()))
    }

    /// Adds or replaces a route that refuses packets: blackhole, unreachable, prohibit or throw.
    ///
    /// # Errors
    ///
    /// `to` is no prefix.
    pub fn route_refuse(&self, to: &str, kind: RouteType) -> Result<()> {
        let prefix = parse_net(to)?;
        let route =
            Builder::new().destination_prefix(prefix.network(), prefix.prefix_len())?.kind(kind).build();
        self.add_route(route, format!("route {kind:?} {to}"))
    }

    /// Removes a route of any kind.
    ///
    /// # Errors
    ///
    /// There is none for exactly this prefix.
    pub fn delete_route(&self, to: &str) -> Result<()> {
        let prefix = parse_net(to)?;
        let mut route = Builder::new().destination_prefix(prefix.network(), prefix.prefix_len())?.build();
        route.header.kind = RouteType::Unspec;
        route.header.scope = netlink_packet_route::route::RouteScope::NoWhere;
        route.header.protocol = netlink_packet_route::route::RouteProtocol::Unspec;
        self.configure(async |netlink| {
            let what = format!("remove the route {to}");
            netlink.handle().route().del(route).execute().await.map_err(kernel_error(what))
        })
    }

    /// Adds or replaces a permanent neighbour.
    ///
    /// # Errors
    ///
    /// The link does not exist, or `address` is no address.
    pub fn neighbour(&self, link: &str, address: &str, mac: [u8; 6]) -> Result<()> {
        self.neighbour_in(link, address, mac, NeighbourState::Permanent)
    }

    /// Adds or replaces a neighbour in a state of its own: stale, reachable, noarp.
    ///
    /// # Errors
    ///
    /// As [`Self::neighbour`].
    pub fn neighbour_in(&self, link: &str, address: &str, mac: [u8; 6], state: NeighbourState) -> Result<()> {
        let address = parse_address(address)?;
        self.configure(async |netlink| {
            let index = netlink.link(link).await?.index;
            let request =
                netlink.handle().neighbours().add(index, address).link_layer_address(&mac).state(state);
            let what = format!("set the neighbour {address} on {link}");
            request.replace().execute().await.map_err(kernel_error(what))
        })
    }

    /// Removes a neighbour of any state.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn delete_neighbour(&self, link: &str, address: &str) -> Result<()> {
        let address = parse_address(address)?;
        self.configure(async |netlink| {
            let index = netlink.link(link).await?.index;
            let mut message = netlink.handle().neighbours().add(index, address);
            let message = std::mem::take(message.message_mut());
            let what = format!("remove the neighbour {address} on {link}");
            netlink.handle().neighbours().del(message).execute().await.map_err(kernel_error(what))
        })
    }

    fn add_route(&self, route: RouteMessage, what: String) -> Result<()> {
        self.configure(async |netlink| add(netlink, route, what).await)
    }
}

async fn add(netlink: &Netlink, route: RouteMessage, what: String) -> Result<(), Error> {
    netlink
        .handle()
        .route()
        .add(route)
        .replace()
        .execute()
        .await
        .map_err(kernel_error(format!("add the {what}")))
}

/// A route to `to`, where `default` is of the family of `gateway`.
fn start(to: &str, gateway: IpAddr) -> Result<Builder> {
    let prefix = match (to, gateway) {
        ("default", IpAddr::V4(_)) => IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0)?,
        ("default", IpAddr::V6(_)) => IpNet::new(Ipv6Addr::UNSPECIFIED.into(), 0)?,
        _ => parse_net(to)?,
    };
    ensure!(
        prefix.addr().is_ipv4() || gateway.is_ipv6(),
        "an IPv6 route needs an IPv6 gateway: {to} cannot go via {gateway}"
    );
    Ok(Builder::new().destination_prefix(prefix.network(), prefix.prefix_len())?)
}

fn parse_address(text: &str) -> Result<IpAddr> {
    text.parse().with_context(|| format!("\"{text}\" is not an IP address"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::veth;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn packets_cross_a_router() {
        let make = || Namespace::create_unique("lbroute").unwrap();
        let (client, router, server) = (make(), make(), make());
        veth(&client, "eth0", &router, "c0").unwrap();
        veth(&server, "eth0", &router, "s0").unwrap();
        router.forward().unwrap();
        for (namespace, link, address) in [
            (&client, "eth0", "10.1.0.2/24"),
            (&client, "eth0", "fd01::2/64"),
            (&router, "c0", "10.1.0.1/24"),
            (&router, "c0", "fd01::1/64"),
            (&router, "s0", "10.2.0.1/24"),
            (&router, "s0", "fd02::1/64"),
            (&server, "eth0", "10.2.0.2/24"),
            (&server, "eth0", "fd02::2/64"),
        ] {
            namespace.address(link, address).unwrap();
        }
        client.route("default", "10.1.0.1").unwrap();
        client.route("default", "fd01::1").unwrap();
        server.route("10.1.0.0/24", "10.2.0.1").unwrap();
        server.route("fd01::/64", "fd02::1").unwrap();
        for target in ["10.2.0.2:80", "[fd02::2]:80"] {
            let listener = server.run(|| TcpListener::bind(target)).unwrap().unwrap();
            client.run(|| TcpStream::connect(target)).unwrap().unwrap();
            drop(listener);
        }

        client.route_refuse("10.2.0.0/24", RouteType::Unreachable).unwrap();
        let refused = client.run(|| TcpStream::connect("10.2.0.2:80")).unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EHOSTUNREACH));
        client.delete_route("10.2.0.0/24").unwrap();
        let refused = client.run(|| TcpStream::connect("10.2.0.2:80")).unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ECONNREFUSED));
    }
}
