//! The way to backends and back to clients, as the kernel knows it, kept fresh.
//!
//! A backend's next hop is asked for when it is new and when routes or links change; what changes about its neighbour is
//! told by the kernel. The kernel forgets neighbours that it does not use itself, and XDP does not count as use: so
//! entries that are not confirmed are probed again and again.

use super::touched::Touched;
use crate::model::Desired;
use crate::net::neighbours::{Neighbour, State};
use crate::net::nexthop::Answer;
use crate::net::watch::Change;
use crate::net::{self, Netlink};
use crate::plan::NextHop;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a neighbour that was resolved once is confirmed.
const CONFIRM: Duration = Duration::from_secs(10);
/// How often one that is not resolved is tried.
const RETRY: Duration = Duration::from_secs(1);
/// Neighbours that are probed, and addresses without a way that are asked for again, in one go: the others wait for the
/// next one, so that the agent is never away for long.
const AT_ONCE: usize = 512;

/// Interface and address of a neighbour.
type Place = (u32, IpAddr);

/// What is known of the ways to backends.
pub(crate) struct Hops {
    netlink: Netlink,
    /// What the kernel last said, shared by backends behind the same gateway.
    answers: BTreeMap<IpAddr, Arc<Answer>>,
    known: BTreeMap<IpAddr, NextHop>,
    interfaces: BTreeSet<u32>,
    probed: BTreeMap<Place, Instant>,
    /// The last one of the last round of probes, and of questions.
    probed_last: Option<Place>,
    asked_last: Option<IpAddr>,
}

impl Hops {
    pub(crate) fn new(netlink: Netlink) -> Self {
        Self {
            netlink,
            answers: BTreeMap::new(),
            known: BTreeMap::new(),
            interfaces: BTreeSet::new(),
            probed: BTreeMap::new(),
            probed_last: None,
            asked_last: None,
        }
    }

    /// The next hops that packets can be sent to.
    pub(crate) fn known(&self) -> &BTreeMap<IpAddr, NextHop> {
        &self.known
    }

    /// What the kernel last said of the way to a backend.
    pub(crate) fn answer(&self, backend: IpAddr) -> Option<&Answer> {
        self.answers.get(&backend).map(AsRef::as_ref)
    }

    /// Interfaces that packets leave through on the way to backends.
    pub(crate) fn interfaces(&self) -> &BTreeSet<u32> {
        &self.interfaces
    }

    /// Asks for backends that are new, and probes their neighbours. Those that are gone are kept fresh until
    /// [`Self::forget`], which costs little and is of use if they come back.
    pub(crate) async fn follow(&mut self, desired: &Desired, touched: &Touched) -> Result<(), net::Error> {
        let services = desired.services.values().filter(|service| touched.has(&service.name));
        let wanted: BTreeSet<IpAddr> =
            services.flat_map(|service| service.backends.keys().map(|backend| backend.ip())).collect();
        let new: Vec<IpAddr> = wanted.into_iter().filter(|addr| !self.answers.contains_key(addr)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.ask(new.clone()).await?;
        let due = self.due(new.iter().filter_map(|addr| self.answers.get(addr)));
        self.probe(due).await;
        Ok(())
    }

    /// Forgets backends that are gone.
    pub(crate) fn forget(&mut self, desired: &Desired) {
        let backends = desired.services.values().flat_map(|service| service.backends.keys());
        let wanted: HashSet<IpAddr> = backends.map(|backend| backend.ip()).collect();
        if self.answers.keys().all(|addr| wanted.contains(addr)) {
            return;
        }
        self.answers.retain(|addr, _| wanted.contains(addr));
        self.known.retain(|addr, _| wanted.contains(addr));
        self.interfaces = self.known.values().map(|hop| hop.ifindex).collect();
    }

    /// Takes notice of changes. The backends whose next hop is another now.
    pub(crate) async fn changed(&mut self, changes: &[Change]) -> Result<BTreeSet<IpAddr>, net::Error> {
        let everything = changes.iter().any(|c| {
            matches!(
                c,
                Change::Resync
                    | Change::Link(_)
                    | Change::LinkGone { .. }
                    | Change::Routes { .. }
                    | Change::Address { .. }
                    | Change::AddressGone { .. }
            )
        });
        if everything {
            return self.ask(self.answers.keys().copied().collect()).await;
        }
        let neighbours: BTreeMap<Place, Option<&Neighbour>> = changes
            .iter()
            .filter_map(|c| match c {
                Change::Neighbour(n) => Some(((n.ifindex, n.address), Some(n))),
                Change::NeighbourGone { ifindex, address } => Some(((*ifindex, *address), None)),
                _ => None,
            })
            .collect();
        Ok(self.neighbours_changed(&neighbours))
    }

    /// Takes notice of what the kernel says of neighbours, `None` of one that is gone.
    fn neighbours_changed(&mut self, neighbours: &BTreeMap<Place, Option<&Neighbour>>) -> BTreeSet<IpAddr> {
        let mut elsewhere = Vec::new();
        // Backends behind a gateway share its answer, and go on doing so.
        let mut last: Option<(Arc<Answer>, Arc<Answer>)> = None;
        for (addr, answer) in &mut self.answers {
            let Ok(hop) = &**answer else { continue };
            let known = last.as_ref().filter(|(before, _)| Arc::ptr_eq(before, answer));
            let after = match known {
                Some((_, after)) => Arc::clone(after),
                None => {
                    let Some(entry) = neighbours.get(&(hop.ifindex, hop.neighbour)) else { continue };
                    let mut hop = hop.clone();
                    hop.mac = entry.and_then(Neighbour::usable);
                    hop.state = entry.map_or(State::Absent, |entry| entry.state);
                    Arc::new(Ok(hop))
                }
            };
            // Mostly it is only confirmed, or not confirmed lately.
            if after.as_ref().as_ref().is_ok_and(|after| after.mac != hop.mac) {
                elsewhere.push((*addr, Arc::clone(&after)));
            }
            let before = std::mem::replace(answer, Arc::clone(&after));
            last = Some((before, after));
        }
        self.take(elsewhere)
    }

    /// Probes neighbours that are unresolved or long unconfirmed, and looks again at ways that there were not. The
    /// backends whose next hop is another now.
    pub(crate) async fn keep_fresh(&mut self) -> Result<BTreeSet<IpAddr>, net::Error> {
        let without: BTreeSet<IpAddr> =
            self.answers.iter().filter(|(_, answer)| answer.is_err()).map(|(addr, _)| *addr).collect();
        let some = some_of(&without, &mut self.asked_last);
        let changed = self.ask(some).await?;
        self.probed.retain(|_, at| at.elapsed() < CONFIRM);
        let due = self.due(self.answers.values());
        self.probe(due).await;
        Ok(changed)
    }

    /// The neighbours on these ways that it is time to probe.
    fn due<'a>(&self, answers: impl Iterator<Item = &'a Arc<Answer>>) -> BTreeSet<Place> {
        let mut due = BTreeSet::new();
        let mut last: Option<&Arc<Answer>> = None;
        for answer in answers {
            // Many in a row are behind the same gateway.
            if last.is_some_and(|last| Arc::ptr_eq(last, answer)) {
                continue;
            }
            last = Some(answer);
            let Ok(hop) = &**answer else { continue };
            let age = self.probed.get(&(hop.ifindex, hop.neighbour)).map(Instant::elapsed);
            let wait = if hop.mac.is_some() { CONFIRM } else { RETRY };
            let settled = matches!(hop.state, State::Permanent | State::NoArp);
            if !settled && age.is_none_or(|age| age >= wait) {
                due.insert((hop.ifindex, hop.neighbour));
            }
        }
        due
    }

    async fn probe(&mut self, due: BTreeSet<Place>) {
        let due = some_of(&due, &mut self.probed_last);
        let now = Instant::now();
        self.probed.extend(due.iter().map(|place| (*place, now)));
        self.netlink.probe_all(due).await;
    }

    /// Asks again for next hops whose MAC address was not known. The backends whose next hop is another now.
    pub(crate) async fn look_again(&mut self) -> Result<BTreeSet<IpAddr>, net::Error> {
        let unresolved = |answer: &Answer| answer.as_ref().is_ok_and(|hop| hop.mac.is_none());
        let again =
            self.answers.iter().filter(|(_, answer)| unresolved(answer)).map(|(addr, _)| *addr).collect();
        self.ask(again).await
    }

    async fn ask(&mut self, backends: Vec<IpAddr>) -> Result<BTreeSet<IpAddr>, net::Error> {
        let answers = self.netlink.resolve_all(&backends).await?;
        Ok(self.take(backends.into_iter().zip(answers).collect()))
    }

    /// Notes answers. The backends whose next hop is another now.
    fn take(&mut self, answers: Vec<(IpAddr, Arc<Answer>)>) -> BTreeSet<IpAddr> {
        let mut changed = BTreeSet::new();
        let first = self.answers.is_empty();
        let mut known = Vec::new();
        for (backend, answer) in &answers {
            if let Ok(hop) = &**answer
                && let Some(mac) = hop.mac
            {
                let mut macs = [0; 12];
                macs[..6].copy_from_slice(&mac);
                macs[6..].copy_from_slice(&hop.source_mac);
                let hop = NextHop { macs, ifindex: hop.ifindex, mtu: hop.mtu };
                if self.known.get(backend) != Some(&hop) {
                    known.push((*backend, hop));
                    changed.insert(*backend);
                    self.interfaces.insert(hop.ifindex);
                }
            }
        }
        if first {
            // Built at once from what is sorted, the nodes of a map are full.
            self.answers = answers.into_iter().collect();
        } else {
            self.answers.extend(answers);
        }
        if self.known.is_empty() {
            self.known = known.into_iter().collect();
        } else {
            self.known.extend(known);
        }
        changed
    }
}

/// At most [`AT_ONCE`] of a set, going on behind the `last` one of the time before: in the end everybody has a turn.
fn some_of<T: Copy + Ord>(set: &BTreeSet<T>, last: &mut Option<T>) -> Vec<T> {
    let start = last.map_or(Bound::Unbounded, Bound::Excluded);
    let behind = set.range((start, Bound::Unbounded));
    let before = set.iter().take_while(|item| last.is_some_and(|last| **item <= last));
    let some: Vec<T> = behind.chain(before).take(AT_ONCE).copied().collect();
    if let Some(item) = some.last() {
        *last = Some(*item);
    }
    some
}

#[cfg(test)]
#[path = "hops_tests.rs"]
mod tests;
