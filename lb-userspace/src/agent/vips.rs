//! Who answers for a service's address: this machine, on an attached interface, while the service is fit.
//!
//! A service is fit while a backend takes new flows. When it is not, its address is taken away, so that another
//! balancer, or nobody, answers ARP and neighbour discovery for it.

use crate::model::{Announce, Desired};
use crate::net::announce;
use crate::net::routes::{Kind, Route, Via};
use crate::net::vip::{Added, Removed, Vips};
use crate::net::{self, Netlink};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Rounds of announcements after an address arrived, and the time between them (RFC 5227, section 3: two or more; RFC
/// 4861, section 7.2.6: up to three).
const ROUNDS: u32 = 3;
const BETWEEN: Duration = Duration::from_millis(300);

/// Addresses on interfaces, and what became of those that could not be put there.
pub(crate) struct Announcer {
    netlink: Netlink,
    vips: Vips,
    /// Addresses that are ours and in place, by interface.
    placed: BTreeSet<(u32, IpAddr)>,
    failures: BTreeMap<IpAddr, String>,
}

impl Announcer {
    pub(crate) fn new(netlink: Netlink) -> Self {
        let vips = Vips::new(netlink.clone());
        Self { netlink, vips, placed: BTreeSet::new(), failures: BTreeMap::new() }
    }

    /// Finds the addresses that an agent before this one left on interfaces.
    pub(crate) async fn adopt(&mut self, interfaces: &BTreeMap<u32, String>) -> Result<(), net::Error> {
        for ifindex in interfaces.keys() {
            for address in self.vips.list_ours(*ifindex).await? {
                self.placed.insert((*ifindex, address));
            }
        }
        Ok(())
    }

    /// Interfaces that answer for an address now.
    pub(crate) fn placed_on(&self, address: IpAddr) -> impl Iterator<Item = u32> + '_ {
        self.placed.iter().filter(move |(_, placed)| *placed == address).map(|(ifindex, _)| *ifindex)
    }

    /// Every address in place and its interface.
    pub(crate) fn placed(&self) -> &BTreeSet<(u32, IpAddr)> {
        &self.placed
    }

    /// Why an address is not announced although it should be.
    pub(crate) fn failure(&self, address: IpAddr) -> Option<&str> {
        self.failures.get(&address).map(String::as_str)
    }

    /// Puts addresses where they should be and takes away the others.
    pub(crate) async fn reconcile(
        &mut self,
        desired: &Desired,
        fit: &BTreeSet<String>,
        attached: &BTreeMap<u32, String>,
    ) -> Result<(), net::Error> {
        let wanted: BTreeSet<IpAddr> = desired
            .services
            .values()
            .filter(|s| s.announce == Announce::Interface && fit.contains(&s.name))
            .map(|s| s.listen.address)
            .collect();
        let missing = |a: &Self| {
            let placed: BTreeSet<IpAddr> = a.placed.iter().map(|(_, address)| *address).collect();
            !wanted.is_subset(&placed)
        };
        let excess: Vec<(u32, IpAddr)> = self
            .placed
            .iter()
            .filter(|(ifindex, address)| !wanted.contains(address) || !attached.contains_key(ifindex))
            .copied()
            .collect();
        for (ifindex, address) in excess {
            match self.vips.remove(ifindex, address).await? {
                Removed::Removed | Removed::NotThere | Removed::Foreign => {
                    self.placed.remove(&(ifindex, address));
                }
            }
        }
        self.failures.retain(|address, _| wanted.contains(address));
        if !missing(self) {
            return Ok(());
        }
        let routes = self.netlink.routes().await?;
        for address in &wanted {
            if self.placed_on(*address).next().is_some() {
                continue;
            }
            match choose(*address, &routes, attached) {
                Some(ifindex) => self.place(ifindex, *address).await?,
                None => {
                    let message = format!(
                        "{address} is announced nowhere: no interface is attached; attach one (lb attach IFACE)"
                    );
                    self.failures.insert(*address, message);
                }
            }
        }
        Ok(())
    }

    async fn place(&mut self, ifindex: u32, address: IpAddr) -> Result<(), net::Error> {
        let added = match self.vips.add(ifindex, address).await {
            Ok(added) => added,
            Err(error) => {
                self.failures.insert(address, error.to_string());
                return Ok(());
            }
        };
        self.failures.remove(&address);
        // An address that was there before us stays when we go, and is announced by whoever put it there.
        if added == Added::Foreign {
            return Ok(());
        }
        self.placed.insert((ifindex, address));
        let link = self.netlink.link_by_index(ifindex).await?;
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                if round > 0 {
                    tokio::time::sleep(BETWEEN).await;
                }
                if let Err(error) = announce::announce(ifindex, link.mac, address) {
                    tracing::warn!(%address, %error, "cannot announce");
                }
            }
        });
        Ok(())
    }
}

/// The attached interface for an address: the one whose network it belongs to, else the one of the default route, else
/// the first by name.
fn choose(address: IpAddr, routes: &[Route], attached: &BTreeMap<u32, String>) -> Option<u32> {
    let usable = |route: &&Route| {
        route.kind == Kind::Unicast
            && attached.contains_key(&route.ifindex)
            && route.prefix.contains(&address)
    };
    let on_link = routes
        .iter()
        .filter(usable)
        .filter(|r| r.via == Via::OnLink && r.prefix.prefix_len() < r.prefix.max_prefix_len())
        .max_by_key(|r| r.prefix.prefix_len());
    let default = || routes.iter().filter(usable).find(|r| r.prefix.prefix_len() == 0);
    let first = || attached.iter().min_by_key(|(_, name)| *name).map(|(ifindex, _)| *ifindex);
    on_link.or_else(default).map(|r| r.ifindex).or_else(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str, ifindex: u32, via: Via) -> Route {
        let prefix = prefix.parse().unwrap();
        Route { prefix, via, ifindex, metric: 0, multipath: false, kind: Kind::Unicast, mtu: None }
    }

    #[test]
    fn the_network_decides_then_the_default_route_then_the_name() {
        let gateway = Via::Gateway([10, 0, 0, 1].into());
        let routes = [
            route("0.0.0.0/0", 3, gateway),
            route("192.0.2.0/24", 2, Via::OnLink),
            route("192.0.2.9/32", 3, Via::OnLink),
        ];
        let attached = BTreeMap::from([(2, "eth1".to_owned()), (3, "eth0".to_owned())]);
        assert_eq!(choose([192, 0, 2, 10].into(), &routes, &attached), Some(2));
        assert_eq!(choose([192, 0, 2, 9].into(), &routes, &attached), Some(2), "a host route is no network");
        assert_eq!(choose([203, 0, 113, 1].into(), &routes, &attached), Some(3));
        assert_eq!(choose([203, 0, 113, 1].into(), &[], &attached), Some(3), "eth0 comes first");
        assert_eq!(choose([203, 0, 113, 1].into(), &routes, &BTreeMap::new()), None);
    }
}
