//! `lb explain`: what the loaded program would do with a frame, in words.

use super::core::Core;
use crate::api::failure::{Failure, FailureCode};
use crate::api::types::{ExplainRequest, ExplainView, FrameView};
use crate::dataplane::explain::{ExplainError, Explained, Explainer};
use crate::explain::decode;
use crate::model::shown;
use crate::net;
use lb_common::abi::explain::NONE;
use lb_common::packet::{self, Parsed};
use lb_common::reason::{Fate, Reason};
use lb_common::select::How;
use std::net::SocketAddr;

/// Asks the program.
pub(super) fn answer(core: &Core, request: &ExplainRequest) -> Result<ExplainView, Failure> {
    let frame = hex::decode(&request.frame).map_err(|error| {
        Failure::invalid(format!("the frame is not hexadecimal: {error}"), "give pairs of digits")
    })?;
    let (ifindex, interface) = interface(core, request.interface.as_deref(), &frame)?;
    let explainer = Explainer::open(core.dataplane.pins(), core.dataplane.maps())
        .map_err(|error| Failure::failed(error.to_string(), "see `lb status`"))?;
    let explained = explainer.explain(&frame, ifindex).map_err(|error| match error {
        ExplainError::Length(_) => Failure::invalid(error.to_string(), "give a whole Ethernet frame"),
        other => Failure::failed(other.to_string(), "see `lb status`"),
    })?;
    Ok(view(core, &frame, interface, &explained))
}

/// The interface that was named; else the attached one that such a packet arrives on: where its destination is
/// announced, or where the way to its source leads, if that is a backend; else the first.
fn interface(core: &Core, wanted: Option<&str>, frame: &[u8]) -> Result<(u32, String), Failure> {
    if let Some(name) = wanted {
        return net::index(name)
            .map(|ifindex| (ifindex, name.to_owned()))
            .map_err(|error| Failure::new(FailureCode::NotFound, error.to_string(), "see `lb status`"));
    }
    let attached = core.interfaces.attached();
    let likely = match packet::parse(frame) {
        Parsed::Flow(flow) => {
            let announced = core.announcer.placed_on(flow.dst.into()).next();
            announced.or_else(|| core.hops.known().get(&flow.src.into()).map(|hop| hop.ifindex))
        }
        _ => None,
    };
    let likely = likely.and_then(|ifindex| attached.get_key_value(&ifindex));
    let first = || attached.iter().min_by_key(|(_, name)| *name);
    likely.or_else(first).map(|(ifindex, name)| (*ifindex, name.clone())).ok_or_else(|| {
        Failure::failed(
            "no interface is attached, so no packet arrives",
            "lb attach IFACE, or name one with --iface",
        )
    })
}

fn view(core: &Core, before: &[u8], interface: String, explained: &Explained) -> ExplainView {
    let report = &explained.report;
    let reason = Reason::from_number(report.reason);
    let given = |number: u32| (number != NONE).then_some(number);
    let name = core.ids.iter().find(|(_, id)| **id == report.service).map(|(name, _)| name.clone());
    let service = name.as_ref().and_then(|name| core.state.desired.services.get(name));
    let egress = given(report.egress).and_then(|ifindex| core.interface_name(ifindex));
    let verdict = match reason.map(Reason::fate) {
        Some(Fate::Pass) => "pass",
        Some(Fate::Drop) => "drop",
        Some(Fate::Forward) if egress.as_ref() == Some(&interface) => "tx",
        Some(Fate::Forward) => "redirect",
        Some(Fate::Answer) => "tx",
        None => "unknown",
    };
    let frame = |bytes: &[u8]| FrameView { hex: hex::encode(bytes), decoded: decode::line(bytes) };
    ExplainView {
        verdict: verdict.into(),
        reason: reason.map_or_else(|| report.reason.to_string(), |r| r.as_str().to_owned()),
        description: reason.map_or_else(String::new, |r| r.describe().trim().to_owned()),
        interface,
        egress,
        mode: service.map(|s| s.mode.to_string()),
        slot: given(report.slot),
        backend: given(report.counters).and_then(|row| backend(core, report.service, row)),
        how: How::from_number(report.how).map(|how| how.as_str().to_owned()),
        service: name,
        before: frame(before),
        after: frame(&explained.frame),
    }
}

/// The backend that counts in a row: it is noted on the way there and on the way back.
fn backend(core: &Core, service: u32, row: u32) -> Option<String> {
    let entry = core.tables.services.iter().find(|entry| entry.id == service)?;
    let block = entry.backends..entry.backends + entry.capacity;
    let mut used = block.filter_map(|n| core.tables.backends.get(n)).filter(|b| b.generation != 0);
    let found = used.find(|b| b.counters == row)?;
    Some(shown(&SocketAddr::new(found.addr.into(), u16::from_be(found.port))))
}
