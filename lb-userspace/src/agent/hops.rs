//! The way to backends and back to clients, as the kernel knows it, kept fresh.
//!
//! A backend's next hop is asked for when it is new, when routes or links change, and when its neighbour entry changes.
//! The kernel forgets neighbours that it does not use itself, and XDP does not count as use: so entries that are not
//! confirmed are probed again and again.

use crate::model::Desired;
use crate::net::neighbours::State;
use crate::net::nexthop::{NextHop as Answer, Unresolved};
use crate::net::watch::Change;
use crate::net::{self, Netlink};
use crate::plan::NextHop;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How often a neighbour that was resolved once is confirmed.
const CONFIRM: Duration = Duration::from_secs(10);
/// How often one that is not resolved is tried.
const RETRY: Duration = Duration::from_secs(1);

/// What is known of the ways to backends.
pub(crate) struct Hops {
    netlink: Netlink,
    answers: BTreeMap<IpAddr, Result<Answer, Unresolved>>,
    known: BTreeMap<IpAddr, NextHop>,
    probed: BTreeMap<(u32, IpAddr), Instant>,
}

impl Hops {
    pub(crate) fn new(netlink: Netlink) -> Self {
        Self { netlink, answers: BTreeMap::new(), known: BTreeMap::new(), probed: BTreeMap::new() }
    }

    /// The next hops that packets can be sent to.
    pub(crate) fn known(&self) -> &BTreeMap<IpAddr, NextHop> {
        &self.known
    }

    /// What the kernel last said of the way to a backend.
    pub(crate) fn answer(&self, backend: IpAddr) -> Option<&Result<Answer, Unresolved>> {
        self.answers.get(&backend)
    }

    /// Interfaces that packets leave through on the way to backends.
    pub(crate) fn interfaces(&self) -> BTreeSet<u32> {
        self.known.values().map(|hop| hop.ifindex).collect()
    }

    /// Asks for backends that are new, forgets those that are gone.
    pub(crate) async fn follow(&mut self, desired: &Desired) -> Result<(), net::Error> {
        let wanted: BTreeSet<IpAddr> =
            desired.services.values().flat_map(|s| s.backends.keys().map(|b| b.ip())).collect();
        self.answers.retain(|addr, _| wanted.contains(addr));
        self.known.retain(|addr, _| wanted.contains(addr));
        let new: Vec<IpAddr> = wanted.into_iter().filter(|addr| !self.answers.contains_key(addr)).collect();
        self.ask(new).await
    }

    /// Takes notice of changes; `true` if a next hop may have changed.
    pub(crate) async fn changed(&mut self, changes: &[Change]) -> Result<bool, net::Error> {
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
        let touched: BTreeSet<IpAddr> = changes
            .iter()
            .filter_map(|c| match c {
                Change::Neighbour(n) => Some(n.address),
                Change::NeighbourGone { address, .. } => Some(*address),
                _ => None,
            })
            .collect();
        let concerned: Vec<IpAddr> = self
            .answers
            .iter()
            .filter(|(addr, answer)| {
                let neighbour = answer.as_ref().map_or(**addr, |hop| hop.neighbour);
                everything || answer.is_err() || touched.contains(&neighbour)
            })
            .map(|(addr, _)| *addr)
            .collect();
        let any = !concerned.is_empty();
        self.ask(concerned).await?;
        Ok(any)
    }

    /// Probes neighbours that are unresolved or long unconfirmed, and looks again at ways that there were not.
    pub(crate) async fn keep_fresh(&mut self) -> Result<(), net::Error> {
        let without: Vec<IpAddr> =
            self.answers.iter().filter(|(_, a)| a.is_err()).map(|(addr, _)| *addr).collect();
        self.ask(without).await?;
        let due: BTreeSet<(u32, IpAddr)> = self
            .answers
            .values()
            .flatten()
            .filter(|hop| {
                let age = self.probed.get(&(hop.ifindex, hop.neighbour)).map(Instant::elapsed);
                let wait = if hop.mac.is_some() { CONFIRM } else { RETRY };
                let settled = matches!(hop.state, State::Permanent | State::NoArp);
                !settled && age.is_none_or(|age| age >= wait)
            })
            .map(|hop| (hop.ifindex, hop.neighbour))
            .collect();
        self.probed.retain(|_, at| at.elapsed() < CONFIRM);
        for (ifindex, neighbour) in due {
            self.probed.insert((ifindex, neighbour), Instant::now());
            if let Err(error) = self.netlink.probe(ifindex, neighbour).await {
                tracing::debug!(%neighbour, %error, "cannot probe a neighbour");
            }
        }
        Ok(())
    }

    /// Asks again for next hops whose MAC address was not known.
    pub(crate) async fn look_again(&mut self) -> Result<(), net::Error> {
        let unresolved =
            |answer: &Result<Answer, Unresolved>| answer.as_ref().is_ok_and(|hop| hop.mac.is_none());
        let again =
            self.answers.iter().filter(|(_, answer)| unresolved(answer)).map(|(addr, _)| *addr).collect();
        self.ask(again).await
    }

    async fn ask(&mut self, backends: Vec<IpAddr>) -> Result<(), net::Error> {
        for backend in backends {
            let answer = self.netlink.resolve(backend).await?;
            if let Ok(hop) = &answer
                && let Some(mac) = hop.mac
            {
                let mut macs = [0; 12];
                macs[..6].copy_from_slice(&mac);
                macs[6..].copy_from_slice(&hop.source_mac);
                self.known.insert(backend, NextHop { macs, ifindex: hop.ifindex, mtu: hop.mtu });
            }
            self.answers.insert(backend, answer);
        }
        Ok(())
    }
}
