//! The ways to many addresses at once.
//!
//! One address is asked for ([`Netlink::resolve`]): three questions. For many, the tables are read once and each address
//! is looked up in them as the kernel would, where that is certain: the main table decides alone, and the longest
//! prefix has one route with one path. For all other addresses the kernel is asked. What it has learnt of single
//! destinations (path MTU, redirects) is not in its tables, and not in these answers.

use super::links::Link;
use super::neighbours::Neighbour;
use super::nexthop::{Answer, Unresolved, decide};
use super::routes::{Kind, LOCAL_TABLE, MAIN_TABLE, Route, Via};
use super::{Error, Netlink};
use futures_util::{StreamExt, TryStreamExt, stream};
use ipnet::IpNet;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::slice;
use std::sync::Arc;

/// From so many addresses on, reading the tables is cheaper than asking for each.
const MANY: usize = 64;
/// Questions that are under way at once.
const AT_ONCE: usize = 64;

impl Netlink {
    /// The ways to addresses, in their order; like [`Self::resolve`]. Ways that are the same are shared.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub async fn resolve_all(&self, targets: &[IpAddr]) -> Result<Vec<Arc<Answer>>, Error> {
        if targets.len() >= MANY {
            return self.resolve_from_tables(targets).await;
        }
        let mut answers = Vec::with_capacity(targets.len());
        for target in targets {
            answers.push(Arc::new(self.resolve(*target).await?));
        }
        Ok(answers)
    }

    /// Probes neighbours, see [`Self::probe`], several at once.
    pub async fn probe_all(&self, neighbours: Vec<(u32, IpAddr)>) {
        let probe = async |(ifindex, neighbour)| {
            if let Err(error) = self.probe(ifindex, neighbour).await {
                tracing::debug!(%neighbour, %error, "cannot probe a neighbour");
            }
        };
        stream::iter(neighbours).for_each_concurrent(AT_ONCE, probe).await;
    }

    async fn resolve_from_tables(&self, targets: &[IpAddr]) -> Result<Vec<Arc<Answer>>, Error> {
        let mut tables = [const { None }; 2];
        for v6 in [false, true] {
            if targets.iter().any(|target| target.is_ipv6() == v6) && self.only_default_rules(v6).await? {
                tables[usize::from(v6)] = Some(RoutingTable::new(self.routes_of_tables(v6).await?));
            }
        }
        let table = |target: &IpAddr| tables[usize::from(target.is_ipv6())].as_ref();
        let found: Vec<Found> =
            targets.iter().map(|target| table(target).map_or(Found::Unsure, |t| t.find(*target))).collect();
        let unsure = targets.iter().zip(&found).filter(|(_, found)| **found == Found::Unsure);
        let questions = unsure.map(|(target, _)| self.lookup(*target)).collect::<Vec<_>>();
        let mut told = stream::iter(questions).buffered(AT_ONCE).try_collect::<Vec<_>>().await?.into_iter();

        let mut join = Join::new(self.links().await?, self.neighbours().await?);
        let answers = targets.iter().zip(found).map(|(target, found)| {
            let route = match found {
                Found::Route(route) => Ok(route),
                Found::Nothing => Err(Unresolved::NoRoute { target: *target }),
                // There are as many answers as questions.
                Found::Unsure => told.next().unwrap_or(Err(Unresolved::NoRoute { target: *target })),
            };
            join.answer(*target, route)
        });
        Ok(answers.collect())
    }
}

/// What a table says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Route(Route),
    Nothing,
    /// Only the kernel knows.
    Unsure,
}

/// Routes of a family, to be found by the longest prefix.
struct RoutingTable {
    /// `None`: several routes, or one that only the kernel can follow.
    routes: HashMap<IpNet, Option<Route>>,
    /// Lengths of prefixes, longest first.
    lengths: Vec<u8>,
    /// Addresses of this machine, and other tables that are looked at after the main one.
    others: Vec<IpNet>,
}

impl RoutingTable {
    fn new(all: Vec<(u32, Route)>) -> Self {
        let (mut routes, mut others) = (HashMap::new(), Vec::new());
        for (table, route) in all {
            match table {
                MAIN_TABLE => {
                    let certain = !route.multipath
                        && route.kind != Kind::Other
                        && (route.kind != Kind::Unicast || route.ifindex != 0);
                    // A second one for the same prefix: metrics and reachability decide.
                    routes
                        .entry(route.prefix)
                        .and_modify(|known| *known = None)
                        .or_insert(certain.then_some(route));
                }
                LOCAL_TABLE => others.push(route.prefix),
                // The default table is looked at last, tables without a rule never: to ask is always right.
                _ => others.push(route.prefix),
            }
        }
        let lengths: BTreeSet<u8> = routes.keys().map(IpNet::prefix_len).collect();
        Self { routes, lengths: lengths.into_iter().rev().collect(), others }
    }

    fn find(&self, target: IpAddr) -> Found {
        if self.others.iter().any(|prefix| prefix.contains(&target)) {
            return Found::Unsure;
        }
        let prefix = |length: &u8| IpNet::new(target, *length).ok().map(|net| net.trunc());
        match self.lengths.iter().filter_map(prefix).find_map(|prefix| self.routes.get(&prefix)) {
            Some(Some(route)) => Found::Route(*route),
            Some(None) => Found::Unsure,
            None => Found::Nothing,
        }
    }
}

/// Links and neighbours that routes are joined with, and the ways that came of it.
struct Join {
    links: HashMap<u32, Link>,
    neighbours: HashMap<(u32, IpAddr), Neighbour>,
    names: HashMap<u32, Arc<str>>,
    /// By interface, gateway and MTU of the route: what is behind the same gateway has the same way.
    through: HashMap<(u32, IpAddr, Option<u32>), Arc<Answer>>,
}

impl Join {
    fn new(links: Vec<Link>, neighbours: Vec<Neighbour>) -> Self {
        Self {
            names: links.iter().map(|link| (link.index, link.name.as_str().into())).collect(),
            links: links.into_iter().map(|link| (link.index, link)).collect(),
            neighbours: neighbours.into_iter().map(|entry| ((entry.ifindex, entry.address), entry)).collect(),
            through: HashMap::new(),
        }
    }

    fn answer(&mut self, target: IpAddr, route: Result<Route, Unresolved>) -> Arc<Answer> {
        let route = match route {
            Ok(route) => route,
            Err(reason) => return Arc::new(Err(reason)),
        };
        let (neighbour, shared) = match route.via {
            Via::Gateway(gateway) => (gateway, true),
            Via::OnLink => (target, false),
        };
        let key = (route.ifindex, neighbour, route.mtu);
        // A refusal names its target.
        if shared
            && route.kind == Kind::Unicast
            && let Some(known) = self.through.get(&key)
        {
            return Arc::clone(known);
        }
        let link = self.links.get(&route.ifindex).map_or(&[][..], slice::from_ref);
        let entry = self.neighbours.get(&(route.ifindex, neighbour)).map_or(&[][..], slice::from_ref);
        let mut answer = decide(target, &route, link, entry);
        if let Ok(hop) = &mut answer
            && let Some(name) = self.names.get(&hop.ifindex)
        {
            hop.interface = Arc::clone(name);
        }
        let answer = Arc::new(answer);
        if shared && answer.is_ok() {
            self.through.insert(key, Arc::clone(&answer));
        }
        answer
    }
}

#[cfg(test)]
#[path = "resolve_all_tests.rs"]
mod tests;
