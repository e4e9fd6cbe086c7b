//! When no agent answers: counters, explanations and detaching from what it left pinned. Names of services are not
//! pinned, so they are called by where they listen.

use super::Session;
use crate::api::failure::{Failure, FailureCode};
use crate::api::types::{
    BackendStatsView, CountersView, ExplainRequest, ExplainView, FrameView, PlanView, ServiceStatsView,
    StatsView,
};
use crate::dataplane::offline::Offline;
use crate::explain::decode;
use crate::model::{Listen, Mode, Ports, Protocol, shown};
use crate::net;
use anyhow::Result;
use lb_common::abi::counter::REASON_SLOTS;
use lb_common::abi::explain::NONE;
use lb_common::abi::service::flags::{GUE, IPIP, L2};
use lb_common::abi::{BackendCounters, BackendEntry, ServiceEntry, names};
use lb_common::addr::TCP;
use lb_common::reason::{Fate, Reason};
use lb_common::select::How;
use std::collections::BTreeMap;
use std::net::SocketAddr;

impl Session {
    /// What was counted: by the agent, or from the maps it left.
    pub(super) async fn stats(&self, service: Option<&str>) -> Result<StatsView> {
        match self.client.stats(service).await {
            Err(failure) if failure.code == FailureCode::NoAgent && self.has_pins() => {
                self.pinned_stats(service)
            }
            answer => Ok(answer?),
        }
    }

    /// What becomes of a packet: from the agent, or from the program it left.
    pub(super) async fn explain(&self, request: &ExplainRequest) -> Result<ExplainView> {
        match self.client.explain(request).await {
            Err(failure) if failure.code == FailureCode::NoAgent && self.has_pins() => {
                self.pinned_explain(request)
            }
            answer => Ok(answer?),
        }
    }

    /// An agent has left something.
    pub(super) fn has_pins(&self) -> bool {
        self.pins.map(names::SERVICES).exists()
    }

    fn pinned_stats(&self, only: Option<&str>) -> Result<StatsView> {
        let offline = Offline::open(self.pins.clone())?;
        let counters = offline.counters()?;
        let backends = offline.maps().backends()?;
        let mut services = Vec::new();
        for entry in offline.maps().services()? {
            let name = listener(&entry);
            if only.is_some_and(|only| only != name) {
                continue;
            }
            let mut total = counters_view(counters.backend(entry.past)?);
            let mut views = Vec::new();
            for backend in block(&backends, &entry).iter().filter(|backend| backend.generation != 0) {
                let counted = counters_view(counters.backend(backend.counters)?);
                total += counted;
                views.push(BackendStatsView { address: address(backend), counters: counted });
            }
            let reasons = reasons_view(&counters.service(entry.id, total.packets, total.back_packets)?);
            services.push(ServiceStatsView { name, id: entry.id, counters: total, backends: views, reasons });
        }
        if let (Some(only), true) = (only, services.is_empty()) {
            let message = format!("no agent runs to tell which service is {only:?}");
            let remedy = "without one, say where it listens, like tcp://192.0.2.10:443; or run `lb agent`";
            return Err(Failure::new(FailureCode::NotFound, message, remedy).into());
        }
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(StatsView { services, reasons: reasons_view(&counters.reasons(0)?) })
    }

    fn pinned_explain(&self, request: &ExplainRequest) -> Result<ExplainView> {
        let offline = Offline::open(self.pins.clone())?;
        let (ifindex, interface) = match &request.interface {
            Some(name) => (net::index(name)?, name.clone()),
            None => {
                let attached = offline.interfaces()?.0.attached()?.attached;
                let named = attached.into_iter().map(|interface| (interface.ifindex, interface.name));
                named.min_by(|a, b| a.1.cmp(&b.1)).ok_or_else(|| {
                    Failure::failed(
                        "no interface is attached, so no packet arrives",
                        "name one with --iface, or attach one with `lb attach IFACE`",
                    )
                })?
            }
        };
        let before = hex::decode(&request.frame)?;
        let explained = offline.explainer()?.explain(&before, ifindex)?;
        let report = &explained.report;
        let given = |number: u32| (number != NONE).then_some(number);
        let service = offline.maps().services()?.into_iter().find(|entry| entry.id == report.service);
        let backends = offline.maps().backends()?;
        let backend = service
            .as_ref()
            .zip(given(report.backend))
            .and_then(|(entry, index)| block(&backends, entry).get(index as usize).map(address));
        let egress = given(report.egress).and_then(|index| nix::net::if_::if_indextoname(index).ok());
        let reason = Reason::from_number(report.reason);
        let verdict = match reason.map(Reason::fate) {
            Some(Fate::Pass) => "pass",
            Some(Fate::Drop) => "drop",
            Some(Fate::Forward) if report.egress == ifindex => "tx",
            Some(Fate::Forward) => "redirect",
            Some(Fate::Answer) => "tx",
            None => "unknown",
        };
        let frame = |bytes: &[u8]| FrameView { hex: hex::encode(bytes), decoded: decode::line(bytes) };
        let mode = |entry: &ServiceEntry| {
            let modes = [(L2, Mode::L2), (IPIP, Mode::Ipip), (GUE, Mode::Gue)];
            let found = modes.into_iter().find(|(flag, _)| entry.flags & flag != 0);
            found.map_or(Mode::Nat, |(_, mode)| mode).as_str()
        };
        Ok(ExplainView {
            verdict: verdict.into(),
            reason: reason.map_or_else(|| report.reason.to_string(), |reason| reason.as_str().into()),
            description: reason.map_or("", |reason| reason.describe().trim()).into(),
            interface,
            egress: egress.map(|name| name.to_string_lossy().into_owned()),
            mode: service.as_ref().map(|entry| mode(entry).into()),
            service: service.as_ref().map(listener),
            slot: given(report.slot),
            backend,
            how: How::from_number(report.how).map(|how| how.as_str().into()),
            before: frame(&before),
            after: frame(&explained.frame),
        })
    }

    /// Detaches interfaces that an agent has left attached; none named: all.
    pub(super) fn detach_pinned(&self, names: &[String], dry_run: bool) -> Result<Vec<PlanView>> {
        let offline = Offline::open(self.pins.clone())?;
        let (mut interfaces, _lock) = offline.interfaces()?;
        let attached = interfaces.attached()?.attached;
        let missing = names.iter().find(|name| !attached.iter().any(|interface| interface.name == **name));
        if let Some(missing) = missing {
            let message = format!("interface {missing} is not attached");
            return Err(Failure::new(FailureCode::NotFound, message, "see `bpftool net`").into());
        }
        let mut plans = Vec::new();
        for interface in attached {
            if !names.is_empty() && !names.contains(&interface.name) {
                continue;
            }
            let changed = dry_run || interfaces.detach(interface.ifindex)?;
            let message = format!("interface {} detached; no agent runs", interface.name);
            plans.push(PlanView {
                changed,
                dry_run,
                steps: vec![message.clone()],
                message,
                ..PlanView::default()
            });
        }
        if plans.is_empty() {
            plans.push(PlanView {
                dry_run,
                message: "nothing changed: it is already so".into(),
                ..PlanView::default()
            });
        }
        Ok(plans)
    }
}

/// The entries of a service.
fn block<'a>(backends: &'a [BackendEntry], service: &ServiceEntry) -> &'a [BackendEntry] {
    let first = service.backends as usize;
    backends.get(first..first.saturating_add(service.capacity as usize)).unwrap_or_default()
}

fn listener(entry: &ServiceEntry) -> String {
    let protocol = if entry.key.protocol() == TCP { Protocol::Tcp } else { Protocol::Udp };
    let ports = match entry.ports.map(u16::from_be) {
        _ if !entry.key.is_wide() => Ports::One(u16::from_be(entry.key.port())),
        [0, _] => Ports::Any,
        [first, last] => Ports::Range(first, last),
    };
    Listen { protocol, address: entry.key.addr.into(), ports }.to_string()
}

fn address(backend: &BackendEntry) -> String {
    shown(&SocketAddr::new(backend.addr.into(), u16::from_be(backend.port)))
}

fn counters_view(counted: BackendCounters) -> CountersView {
    let BackendCounters { packets, bytes, flows, back_packets, back_bytes, .. } = counted;
    CountersView { packets, bytes, flows, back_packets, back_bytes }
}

fn reasons_view(counts: &[u64; REASON_SLOTS]) -> BTreeMap<String, u64> {
    let counted = Reason::ALL.iter().map(|reason| (reason.as_str().to_owned(), counts[*reason as usize]));
    counted.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::abi::Key;
    use std::net::IpAddr;

    #[test]
    fn entries_are_told_as_people_write_them() {
        let ip: IpAddr = "2001:db8::10".parse().unwrap();
        let key = Key::endpoint(ip.into(), 443_u16.to_be(), TCP);
        let entry = ServiceEntry { key, backends: 1, capacity: 2, ..ServiceEntry::default() };
        assert_eq!(listener(&entry), "tcp://[2001:db8::10]:443");
        let (key, ports) = (Key::wide(ip.into(), 7, TCP), [8000, 8999].map(u16::to_be));
        let range = ServiceEntry { key, ports, ..ServiceEntry::default() };
        assert_eq!(listener(&range), "tcp://[2001:db8::10]:8000-8999");
        let any = ServiceEntry { ports: [0, u16::MAX], ..range };
        assert_eq!(listener(&any), "tcp://[2001:db8::10]:*");
        let ip: IpAddr = "10.0.0.11".parse().unwrap();
        let backend = BackendEntry { addr: ip.into(), port: 8443_u16.to_be(), ..BackendEntry::default() };
        assert_eq!(address(&backend), "10.0.0.11:8443");
        assert_eq!(address(&BackendEntry { port: 0, ..backend }), "10.0.0.11");
        assert_eq!(block(&[BackendEntry::default(), backend, backend, backend], &entry).len(), 2);
        assert!(block(&[backend], &entry).is_empty(), "a table that is too short");
    }
}
