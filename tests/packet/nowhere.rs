//! Packets for a service that has nowhere to send them: dropped, with the reason.

use std::net::SocketAddr;

use lb_common::reason::Reason;
use lb_tests::frame::Flow;
use lb_userspace::model::{Admin, Check, CheckKind, Health, OnDown, Protocol};

use crate::case::{forwarded, passed, refused};
use crate::lab::{Lab, all, in_lab};

/// Every service's first packet is dropped for a reason.
fn all_dropped(lab: &mut Lab<'_>, reason: Reason) {
    for served in all() {
        lab.flow(format!("{}: dropped", served.name), &served.request()).expect(refused(&served, reason));
        lab.flow(format!("{}: later packets too", served.name), &served.request().data())
            .expect(refused(&served, reason));
    }
}

#[test]
fn without_backends() {
    in_lab(|lab| {
        for served in all() {
            lab.change(served.name, |service| service.backends.clear());
        }
        all_dropped(lab, Reason::NoBackend);
    });
}

#[test]
fn with_backends_that_are_down() {
    in_lab(|lab| {
        for served in all() {
            lab.kernel.health.entry(served.name.into()).or_default().insert(served.backend, Health::Down);
            lab.change(served.name, |service| service.check = Some(Check::new(CheckKind::Tcp)));
        }
        all_dropped(lab, Reason::NoBackend);
    });
}

#[test]
fn backends_that_are_kept_when_down_keep_only_what_they_have() {
    in_lab(|lab| {
        for served in all() {
            lab.kernel.health.entry(served.name.into()).or_default().insert(served.backend, Health::Up);
            lab.change(served.name, |service| {
                service.check = Some(Check::new(CheckKind::Tcp));
                service.on_down = OnDown::Keep;
            });
            lab.kernel.health.entry(served.name.into()).or_default().insert(served.backend, Health::Down);
        }
        lab.serve();
        for served in all() {
            let (request, id) = (served.request().data(), lab.id(&served, served.client.port()));
            let expected = forwarded(&served, &served.request_out(&request).build());
            // A datagram does not tell whether it is the first.
            let expected = if served.protocol == Protocol::Udp { expected.new_flow() } else { expected };
            let kept = lab.owner(&served);
            lab.flow(format!("{}: kept, and remembered", served.name), &request)
                .expect(expected.flow(id, Some(kept)));
            if served.protocol == Protocol::Tcp {
                let anew = Flow { from: SocketAddr::new(served.client.ip(), 5001), ..served.request() };
                lab.flow(format!("{}: takes no new flow", served.name), &anew)
                    .expect(refused(&served, Reason::NoBackend));
            }
        }
    });
}

#[test]
fn with_a_drain_that_has_ended() {
    in_lab(|lab| {
        for served in all() {
            lab.change(served.name, |service| {
                for backend in service.backends.values_mut() {
                    backend.admin = Admin::Draining { until: Some(0), remove: false };
                }
            });
        }
        all_dropped(lab, Reason::NoBackend);
    });
}

#[test]
fn with_a_next_hop_that_is_not_known() {
    in_lab(|lab| {
        let desired = std::mem::take(&mut lab.desired);
        lab.serve();
        lab.kernel.hops.clear();
        lab.desired = desired;
        lab.serve();
        all_dropped(lab, Reason::NoNextHop);
    });
}

#[test]
fn a_service_that_is_gone_is_nobodys() {
    in_lab(|lab| {
        let all = all();
        lab.desired.services.clear();
        lab.serve();
        for served in all {
            lab.flow(format!("{}: passed", served.name), &served.request())
                .expect(passed(Reason::NotAService));
            lab.flow(format!("{}: replies too", served.name), &served.reply())
                .expect(passed(Reason::NotAService));
        }
    });
}
