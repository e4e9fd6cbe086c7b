//! The kernel's routing table, and the part of it that is compiled for the way back to clients.
//!
//! [`compile`] is pure. Its result is a list to be searched from the top: the first prefix that contains an address is
//! the longest one, and what stands there is what the kernel would do, or "ask the kernel".

use super::links::Link;
use super::neighbours::Neighbour;
use super::{Error, Netlink, kernel_error};
use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteNextHopFlags, RouteType,
    RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;

/// `RT_TABLE_LOCAL` and `RT_TABLE_DEFAULT` of rtnetlink(7).
pub(super) const LOCAL_TABLE: u32 = 255;
const DEFAULT_TABLE: u32 = 253;
pub(super) const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// A route of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads, host bits zero.
    pub prefix: IpNet,
    /// Through whom. Of several paths, the first one.
    pub via: Via,
    /// Interface that it leaves through; 0 if it has none or several.
    pub ifindex: u32,
    /// Its metric: the lowest one wins among routes for the same prefix.
    pub metric: u32,
    /// Whether only the kernel can follow it: several paths, an encapsulation, a source prefix, a type of service, a
    /// path that is out of order.
    pub multipath: bool,
    /// What it does.
    pub kind: Kind,
    /// Largest IP packet, if the route sets one, bytes.
    pub mtu: Option<u32>,
}

/// Who gets the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A router.
    Gateway(IpAddr),
    /// The destination itself.
    OnLink,
}

/// What a route does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sends them on.
    Unicast,
    /// Delivers them here.
    Local,
    /// Drops them.
    Blackhole,
    /// Drops them and says so.
    Unreachable,
    /// Drops them and says that it is forbidden.
    Prohibit,
    /// Broadcast, multicast, anycast, throw.
    Other,
}

/// A prefix and what to do with packets to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompiledRoute {
    /// The prefix.
    pub prefix: IpNet,
    /// What to do.
    pub kind: CompiledKind,
    /// Interface that frames leave through; 0 for [`CompiledKind::Ask`].
    pub ifindex: u32,
    /// Its MAC address.
    pub source_mac: [u8; 6],
    /// Largest IP packet on the way, bytes.
    pub mtu: u32,
}

/// What to do with packets to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompiledKind {
    /// Send to the gateway with this MAC address.
    Gateway {
        /// Its MAC address.
        mac: [u8; 6],
    },
    /// Send to the destination itself.
    OnLink,
    /// Ask the kernel.
    Ask,
}

impl CompiledRoute {
    fn ask(prefix: IpNet) -> Self {
        Self { prefix, kind: CompiledKind::Ask, ifindex: 0, source_mac: [0; 6], mtu: 0 }
    }

    /// Whether both do the same, for whatever prefix.
    fn same_action(&self, other: &Self) -> bool {
        Self { prefix: self.prefix, ..*other } == *self
    }
}

/// Compiles routes into at most `limit` entries of each family, IPv4 first, longest prefix first. An address in no
/// entry is for the kernel, as is one in an [`CompiledKind::Ask`] entry.
///
/// Entries that change nothing are left out: a prefix whose next shorter one does the same. If there are still too
/// many, the longest ones stay and the last entry sends the rest to the kernel: what is left out is never longer than
/// what stays, so nothing that stays can answer for it.
#[must_use]
pub fn compile(
    routes: &[Route],
    neighbours: &[Neighbour],
    links: &[Link],
    limit: usize,
) -> Vec<CompiledRoute> {
    let surroundings = Surroundings::new(neighbours, links);
    let family = |everything: IpNet| {
        let routes =
            routes.iter().filter(|route| route.prefix.addr().is_ipv4() == everything.addr().is_ipv4());
        let compiled = best(routes).iter().map(|route| surroundings.compile(route)).collect();
        truncate(without_redundant(compiled), everything, limit)
    };
    [family(IpNet::V4(Ipv4Net::default())), family(IpNet::V6(Ipv6Net::default()))].concat()
}

/// The winner for every prefix, longest first. Winners that are not alone are left to the kernel.
fn best<'a>(routes: impl Iterator<Item = &'a Route>) -> Vec<Route> {
    let mut routes: Vec<_> = routes.copied().collect();
    routes.sort_by_key(|route| (std::cmp::Reverse(route.prefix.prefix_len()), route.prefix, route.metric));
    let same = |a: &Route, b: &Route| a.prefix == b.prefix;
    let winners = routes.chunk_by(same).map(|group| {
        let contested = group.get(1).is_some_and(|second| second.metric == group[0].metric);
        Route { multipath: group[0].multipath || contested, ..group[0] }
    });
    winners.collect()
}

/// Links and usable neighbours, to be found at once: a router's table may hold a million routes.
struct Surroundings<'a> {
    links: HashMap<u32, &'a Link>,
    macs: HashMap<(u32, IpAddr), [u8; 6]>,
}

impl<'a> Surroundings<'a> {
    fn new(neighbours: &[Neighbour], links: &'a [Link]) -> Self {
        let usable = |entry: &Neighbour| Some(((entry.ifindex, entry.address), entry.usable()?));
        let working = links.iter().filter(|link| link.ethernet && link.up && link.carrier);
        Self {
            links: working.map(|link| (link.index, link)).collect(),
            macs: neighbours.iter().filter_map(usable).collect(),
        }
    }

    /// What one route comes to.
    fn compile(&self, route: &Route) -> CompiledRoute {
        let compiled = || {
            let link = self.links.get(&route.ifindex)?;
            let kind = match route.via {
                _ if route.kind != Kind::Unicast || route.multipath => return None,
                Via::OnLink => CompiledKind::OnLink,
                Via::Gateway(gateway) => {
                    CompiledKind::Gateway { mac: *self.macs.get(&(link.index, gateway))? }
                }
            };
            let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
            Some(CompiledRoute { prefix: route.prefix, kind, ifindex: link.index, source_mac: link.mac, mtu })
        };
        compiled().unwrap_or_else(|| CompiledRoute::ask(route.prefix))
    }
}

/// Leaves out entries whose next shorter prefix does the same. Nothing at all does the same as asking.
fn without_redundant(mut routes: Vec<CompiledRoute>) -> Vec<CompiledRoute> {
    let all: HashMap<_, _> = routes.iter().map(|route| (route.prefix, *route)).collect();
    let parent = |prefix: IpNet| {
        let shorter = (0..prefix.prefix_len()).rev();
        shorter
            .filter_map(|length| IpNet::new(prefix.addr(), length).ok())
            .find_map(|net| all.get(&net.trunc()))
    };
    routes.retain(|route| {
        let same =
            parent(route.prefix).map_or(route.kind == CompiledKind::Ask, |parent| parent.same_action(route));
        !same
    });
    routes
}

fn truncate(mut routes: Vec<CompiledRoute>, everything: IpNet, limit: usize) -> Vec<CompiledRoute> {
    if routes.len() > limit {
        routes.truncate(limit.saturating_sub(1));
        if limit > 0 {
            routes.push(CompiledRoute::ask(everything));
        }
    }
    routes
}

impl Route {
    /// What a route message says; `None`: of a family that is not IP.
    pub(super) fn from_message(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let v6 = is_v6(header.address_family)?;
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let mut route = Self {
            prefix: IpNet::new(any, 0).ok()?,
            via: Via::OnLink,
            ifindex: 0,
            metric: 0,
            multipath: header.source_prefix_length != 0
                || header.tos != 0
                || out_of_order(header.flags.bits()),
            kind: kind(header.kind),
            mtu: None,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(to) => {
                    route.prefix = IpNet::new(address(to)?, header.destination_prefix_length).ok()?.trunc();
                }
                RouteAttribute::Gateway(gateway) => route.via = Via::Gateway(address(gateway)?),
                RouteAttribute::Via(RouteVia::Inet(gateway)) => route.via = Via::Gateway((*gateway).into()),
                RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.via = Via::Gateway((*gateway).into()),
                RouteAttribute::Oif(index) => route.ifindex = *index,
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::MultiPath(_) | RouteAttribute::Encap(_) => route.multipath = true,
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Some(route)
    }
}

/// Whether the flags of a route (`rtm_flags`) say that its only path is not usable now.
fn out_of_order(flags: u32) -> bool {
    flags & u32::from((RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown).bits()) != 0
}

fn kind(kind: RouteType) -> Kind {
    match kind {
        RouteType::Unicast => Kind::Unicast,
        RouteType::Local => Kind::Local,
        RouteType::BlackHole => Kind::Blackhole,
        RouteType::Unreachable => Kind::Unreachable,
        RouteType::Prohibit => Kind::Prohibit,
        _ => Kind::Other,
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn is_v6(family: AddressFamily) -> Option<bool> {
    match family {
        AddressFamily::Inet => Some(false),
        AddressFamily::Inet6 => Some(true),
        _ => None,
    }
}

pub(super) fn table(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or(message.header.table.into())
}

/// Whether a changed route is IPv6; `None`: one of the local table, which follows the addresses.
pub(super) fn family_of_change(message: &RouteMessage) -> Option<bool> {
    is_v6(message.header.address_family).filter(|_| table(message) != LOCAL_TABLE)
}

/// Whether a changed rule is IPv6: it decides which routes count.
pub(super) fn family_of_rule(message: &RuleMessage) -> Option<bool> {
    is_v6(message.header.family)
}

impl Netlink {
    /// The routes of the main table, IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for v6 in [false, true] {
            let all = self.routes_of_tables(v6).await?;
            routes.extend(all.into_iter().filter(|(table, _)| *table == MAIN_TABLE).map(|(_, route)| route));
        }
        Ok(routes)
    }

    /// The routes of all tables of a family, with their table.
    pub(super) async fn routes_of_tables(&self, v6: bool) -> Result<Vec<(u32, Route)>, Error> {
        let request = if v6 {
            RouteMessageBuilder::<Ipv6Addr>::new().build()
        } else {
            RouteMessageBuilder::<Ipv4Addr>::new().build()
        };
        let mut routes = Vec::new();
        let mut answers = pin!(self.handle.route().get(request).execute());
        while let Some(message) = answers.try_next().await.map_err(kernel_error("list routes"))? {
            routes.extend(Route::from_message(&message).map(|route| (table(&message), route)));
        }
        Ok(routes)
    }

    /// Whether the main table decides alone in a family: there are no rules but the kernel's own three (rules 0,
    /// 32766 and 32767 of ip-rule(8)).
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn only_default_rules(&self, v6: bool) -> Result<bool, Error> {
        let version = if v6 { IpVersion::V6 } else { IpVersion::V4 };
        let rules: Vec<_> = match self.handle.rule().get(version).execute().try_collect().await {
            Ok(rules) => rules,
            // A kernel without policy routing has no rules.
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EOPNOTSUPP => vec![],
            Err(error) => return Err(kernel_error("list routing rules")(error)),
        };
        Ok(rules.iter().all(is_default_rule))
    }

    /// The compiled way back to clients, see [`compile`]. A family with routing rules of its own is left to the
    /// kernel.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn compiled_routes(&self, limit: usize) -> Result<Vec<CompiledRoute>, Error> {
        let plain = [self.only_default_rules(false).await?, self.only_default_rules(true).await?];
        let mut routes = self.routes().await?;
        routes.retain(|route| plain[usize::from(route.prefix.addr().is_ipv6())]);
        Ok(compile(&routes, &self.neighbours().await?, &self.links().await?, limit))
    }
}

fn is_default_rule(rule: &RuleMessage) -> bool {
    let table = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let table = table.unwrap_or(rule.header.table.into());
    let selects = rule.attributes.iter().any(|attribute| {
        !matches!(
            attribute,
            RuleAttribute::Table(_)
                | RuleAttribute::Priority(_)
                | RuleAttribute::Protocol(_)
                | RuleAttribute::SuppressPrefixLen(u32::MAX)
        )
    });
    let everything = rule.header.dst_len == 0 && rule.header.src_len == 0 && rule.header.tos == 0;
    rule.header.action == RuleAction::ToTable
        && matches!(table, LOCAL_TABLE | MAIN_TABLE | DEFAULT_TABLE)
        && everything
        && !selects
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
