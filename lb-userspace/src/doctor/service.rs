//! The agent and what it says: is it there, are backends reachable.

use super::{Finding, Severity};
use crate::api::failure::Failure;
use crate::api::types::StatusView;
use std::net::IpAddr;

pub(super) fn examine(status: Result<&StatusView, &Failure>) -> Vec<Finding> {
    let status = match status {
        Ok(status) => status,
        Err(failure) => {
            return vec![Finding::new(Severity::Warning, "agent", &failure.message, &failure.remedy)];
        }
    };
    let agent = &status.agent;
    let mut findings = vec![Finding::ok("agent", format!("version {}, pid {}", agent.version, agent.pid))];
    for interface in &status.interfaces {
        if let Some(reason) = &interface.reason {
            let severity = if interface.mode.is_some() { Severity::Warning } else { Severity::Problem };
            let mode = interface.mode.as_deref().unwrap_or("not attached");
            findings.push(Finding {
                remedy: None,
                ..Finding::new(severity, &interface.name, format!("{mode}: {reason}"), "")
            });
        }
    }
    for service in &status.services {
        for backend in &service.backends {
            let Some(hop) = backend.next_hop.as_ref().filter(|hop| hop.state != "resolved") else { continue };
            let reason = hop.reason.as_deref().unwrap_or(&hop.state);
            let whole = backend.address.as_str();
            let alone = whole.parse::<IpAddr>().is_ok();
            let host = whole.rsplit_once(':').filter(|_| !alone).map_or(whole, |(host, _)| host);
            let host = host.trim_matches(['[', ']']);
            findings.push(Finding::new(
                Severity::Problem,
                &service.name,
                format!("no way to backend {}: {reason}", backend.address),
                format!("ip route get {host}; ip neigh show {host}"),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{BackendView, NextHopView, ServiceView};

    #[test]
    fn an_unreachable_backend_is_a_problem() {
        let hop =
            NextHopView { state: "failed".into(), reason: Some("no answer".into()), ..Default::default() };
        let backend =
            BackendView { address: "[2001:db8::1]:80".into(), next_hop: Some(hop), ..Default::default() };
        let service = ServiceView { name: "web".into(), backends: vec![backend], ..Default::default() };
        let findings = examine(Ok(&StatusView { services: vec![service], ..Default::default() }));
        assert_eq!(findings[1].severity, Severity::Problem);
        assert_eq!(
            findings[1].remedy.as_deref(),
            Some("ip route get 2001:db8::1; ip neigh show 2001:db8::1")
        );
    }
}
