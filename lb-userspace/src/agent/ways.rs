//! The way back to clients: the kernel's routes and neighbours, copied to where the program finds them at no cost.

use crate::dataplane::Tables;
use crate::net::neighbours::Neighbour;
use crate::net::routes::{CompiledKind, CompiledRoute, Kind, Via};
use crate::net::watch::Change;
use crate::net::{self, Netlink};
use ipnet::IpNet;
use lb_common::abi::{Key, NeighbourEntry, RouteEntry, limits, route};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tokio::task::block_in_place;

/// Keeps the copies.
pub(crate) struct Ways {
    netlink: Netlink,
    /// MAC addresses of the interfaces that clients may be on.
    macs: BTreeMap<u32, [u8; 6]>,
    interfaces: BTreeSet<u32>,
    /// Whether neighbours had no room: the kernel is asked for them, packet by packet.
    overflow: bool,
    /// This machine's addresses and their interfaces.
    own: Vec<(u32, IpAddr)>,
}

impl Ways {
    pub(crate) fn new(netlink: Netlink) -> Self {
        Self { netlink, macs: BTreeMap::new(), interfaces: BTreeSet::new(), own: Vec::new(), overflow: false }
    }

    /// Interfaces that the compiled routes leave through.
    pub(crate) fn interfaces(&self) -> &BTreeSet<u32> {
        &self.interfaces
    }

    /// This machine's addresses, without those that it only announces.
    pub(crate) fn own(&self) -> &[(u32, IpAddr)] {
        &self.own
    }

    /// Copies everything anew.
    pub(crate) async fn refresh(&mut self, tables: &mut Tables) -> Result<(), net::Error> {
        self.routes(tables).await?;
        let neighbours = self.netlink.neighbours().await?;
        let own: Vec<NeighbourEntry> =
            self.netlink.addresses().await?.into_iter().filter_map(own_entry).collect();
        let others = neighbours.iter().filter_map(|n| self.entry(n));
        let present: BTreeSet<Key> = others.chain(own.iter().copied()).map(|e| e.key).collect();
        let gone: Vec<Key> =
            tables.neighbours.iter().map(|e| e.key).filter(|k| !present.contains(k)).collect();
        block_in_place(|| {
            for key in gone {
                tables.neighbours.remove(&key);
            }
            let entries: Vec<_> =
                own.iter().copied().chain(neighbours.iter().filter_map(|n| self.entry(n))).collect();
            self.put(tables, &entries);
        });
        self.ask_for_gateways(&neighbours).await
    }

    /// Resolves gateways that nobody has asked for yet. Until their MAC addresses are known, the first replies to the
    /// clients behind them are lost: over IPv6 a router's own solicitation does not tell the address that routes name.
    async fn ask_for_gateways(&self, neighbours: &[Neighbour]) -> Result<(), net::Error> {
        let known: BTreeSet<_> =
            neighbours.iter().filter(|n| n.usable().is_some()).map(|n| (n.ifindex, n.address)).collect();
        let routes = self.netlink.routes().await?;
        let gateways: BTreeSet<(u32, IpAddr)> = routes
            .iter()
            .filter(|route| route.kind == Kind::Unicast && route.ifindex != 0)
            .filter_map(|route| match route.via {
                Via::Gateway(gateway) => Some((route.ifindex, gateway)),
                Via::OnLink => None,
            })
            .collect();
        for (ifindex, gateway) in gateways.difference(&known) {
            if let Err(error) = self.netlink.probe(*ifindex, *gateway).await {
                tracing::debug!(%gateway, %error, "cannot resolve a gateway");
            }
        }
        Ok(())
    }

    /// Takes notice of changes.
    pub(crate) async fn changed(
        &mut self,
        changes: &[Change],
        tables: &mut Tables,
    ) -> Result<(), net::Error> {
        let widely = |change: &Change| {
            matches!(
                change,
                Change::Resync
                    | Change::Link(_)
                    | Change::LinkGone { .. }
                    | Change::Address { .. }
                    | Change::AddressGone { .. }
            )
        };
        if changes.iter().any(widely) {
            return self.refresh(tables).await;
        }
        // A place that was in use is written again only after a grace period, which blocks for milliseconds.
        block_in_place(|| {
            let mut entries = Vec::new();
            for change in changes {
                let gone = match change {
                    Change::Neighbour(neighbour) => match self.entry(neighbour) {
                        Some(entry) => {
                            entries.push(entry);
                            continue;
                        }
                        None => key(neighbour.ifindex, neighbour.address),
                    },
                    Change::NeighbourGone { ifindex, address } => key(*ifindex, *address),
                    _ => continue,
                };
                gone.map(|key| tables.neighbours.remove(&key));
            }
            self.put(tables, &entries);
        });
        // A gateway is a neighbour too, so its routes may have changed with it.
        self.routes(tables).await?;
        if changes.iter().any(|c| matches!(c, Change::Routes { .. } | Change::NeighbourGone { .. })) {
            self.ask_for_gateways(&self.netlink.neighbours().await?).await?;
        }
        Ok(())
    }

    async fn routes(&mut self, tables: &mut Tables) -> Result<(), net::Error> {
        self.macs = self.netlink.links().await?.into_iter().map(|link| (link.index, link.mac)).collect();
        self.own = self.netlink.addresses().await?;
        let limit = limits::ROUTES_PER_FAMILY as usize;
        let compiled = spare_this_machine(
            self.netlink.compiled_routes(limit).await?,
            &self.own.iter().map(|(_, address)| *address).collect::<Vec<_>>(),
            limit,
        );
        self.interfaces = compiled.iter().map(|r| r.ifindex).filter(|ifindex| *ifindex != 0).collect();
        let of = |v6: bool| -> Vec<RouteEntry> {
            compiled.iter().filter(|r| r.prefix.addr().is_ipv6() == v6).map(entry).collect()
        };
        if let Err(error) = tables.routes.publish(&of(false), &of(true)) {
            // `compile` keeps to the limit, so this is a bug; packets are answered by the kernel's own look-up.
            tracing::error!(%error, "cannot publish routes");
        }
        Ok(())
    }

    fn put(&mut self, tables: &mut Tables, entries: &[NeighbourEntry]) {
        if tables.neighbours.put_all(entries).is_err() && !self.overflow {
            tracing::warn!("the table of on-link clients is full: the kernel is asked for the others");
            self.overflow = true;
        }
    }

    fn entry(&self, neighbour: &Neighbour) -> Option<NeighbourEntry> {
        let (mac, own) = (neighbour.usable()?, self.macs.get(&neighbour.ifindex)?);
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&mac);
        macs[6..].copy_from_slice(own);
        Some(NeighbourEntry { key: key(neighbour.ifindex, neighbour.address)?, macs })
    }
}

/// Keeps packets to this machine's own addresses from being sent to a gateway: answers to health checks come to them.
///
/// An address on a network of ours is safe: it is nobody's neighbour, and then the kernel is asked. One that a gateway's
/// route covers, as on `lo`, gets a route that asks; if there is no room, the kernel is asked for the whole family.
fn spare_this_machine(compiled: Vec<CompiledRoute>, own: &[IpAddr], limit: usize) -> Vec<CompiledRoute> {
    let via_gateway = |address: &&IpAddr| {
        let covering = compiled.iter().find(|r| r.prefix.contains(*address));
        covering.is_some_and(|r| matches!(r.kind, CompiledKind::Gateway { .. }))
    };
    let ask =
        |prefix| CompiledRoute { prefix, kind: CompiledKind::Ask, ifindex: 0, source_mac: [0; 6], mtu: 0 };
    let asks: Vec<CompiledRoute> = own.iter().filter(via_gateway).map(|a| ask(IpNet::from(*a))).collect();
    let (v6, v4): (Vec<_>, Vec<_>) =
        asks.into_iter().chain(compiled).partition(|r| r.prefix.addr().is_ipv6());
    [v4, v6].into_iter().flat_map(|family| if family.len() > limit { Vec::new() } else { family }).collect()
}

/// The entry of an address of this machine: it has no MAC addresses.
fn own_entry((ifindex, address): (u32, IpAddr)) -> Option<NeighbourEntry> {
    Some(NeighbourEntry { key: key(ifindex, address)?, macs: [0; 12] })
}

fn key(ifindex: u32, address: IpAddr) -> Option<Key> {
    Key::neighbour(address.into(), ifindex)
}

fn entry(compiled: &CompiledRoute) -> RouteEntry {
    let (kind, mac) = match compiled.kind {
        CompiledKind::Gateway { mac } => (route::kind::GATEWAY, mac),
        CompiledKind::OnLink => (route::kind::ON_LINK, [0; 6]),
        CompiledKind::Ask => (route::kind::ASK, [0; 6]),
    };
    let mut macs = [0; 12];
    if kind == route::kind::GATEWAY {
        macs[..6].copy_from_slice(&mac);
        macs[6..].copy_from_slice(&compiled.source_mac);
    }
    let mask = match compiled.prefix {
        // Mapped addresses are compared by their last word alone; the words before it never differ.
        IpNet::V4(v4) => IpAddr::from(v4.netmask()),
        IpNet::V6(v6) => IpAddr::from(v6.netmask()),
    };
    RouteEntry {
        prefix: compiled.prefix.network().into(),
        mask: mask.into(),
        kind,
        ifindex: compiled.ifindex,
        macs,
        mtu: compiled.mtu,
        reserved: [0; 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_to_this_machine_are_not_sent_to_a_gateway() {
        let route = |prefix: &str, kind| CompiledRoute {
            prefix: prefix.parse().unwrap(),
            kind,
            ifindex: 4,
            source_mac: [2; 6],
            mtu: 1500,
        };
        let gateway = CompiledKind::Gateway { mac: [1; 6] };
        let compiled = vec![route("192.0.2.0/24", CompiledKind::OnLink), route("0.0.0.0/0", gateway)];
        let own: Vec<IpAddr> = ["192.0.2.1", "10.255.0.1", "2001:db8::1"].map(|a| a.parse().unwrap()).into();
        let spared = spare_this_machine(compiled.clone(), &own, 16);
        assert_eq!(spared.len(), 3);
        assert_eq!((spared[0].prefix, spared[0].kind), ("10.255.0.1/32".parse().unwrap(), CompiledKind::Ask));
        assert_eq!(spared[1..], compiled);
        assert_eq!(spare_this_machine(compiled, &own, 2), [], "no room: the kernel is asked for everything");
    }

    #[test]
    fn routes_are_compiled_to_what_the_program_compares() {
        let compiled = CompiledRoute {
            prefix: "198.51.100.0/24".parse().unwrap(),
            kind: CompiledKind::Gateway { mac: [1; 6] },
            ifindex: 4,
            source_mac: [2; 6],
            mtu: 1400,
        };
        let route = entry(&compiled);
        assert_eq!(IpAddr::from(route.prefix), IpAddr::from([198, 51, 100, 0]));
        assert_eq!(route.mask.last(), u32::from_ne_bytes([255, 255, 255, 0]));
        assert_eq!(route.macs, [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
        assert_eq!((route.kind, route.ifindex, route.mtu), (route::kind::GATEWAY, 4, 1400));
        let ask =
            entry(&CompiledRoute { kind: CompiledKind::Ask, prefix: "::/0".parse().unwrap(), ..compiled });
        assert_eq!((ask.kind, ask.macs), (route::kind::ASK, [0; 12]));
        assert!(!ask.prefix.is_v4());
    }
}
