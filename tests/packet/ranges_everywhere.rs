//! Ranges of ports behind tags, options and extension headers, in fragments, in ICMP errors, in pings, and inside other packets:
//! as with services on one port.

use std::net::SocketAddr;

use lb_common::reason::Reason;
use lb_tests::fragments::cut;
use lb_tests::icmp::{Failure, Ping};
use lb_tests::oracle;
use lb_userspace::model::Mode;

use crate::case::{forwarded, passed, refused, returned};
use crate::detours::{CUSTOMER, DRESSES, tag};
use crate::encap::{Varied, around, encapsulating, sent as leaves};
use crate::errors;
use crate::fragments::{BACK, SIZE, begin, id_of, large, request};
use crate::lab::{Served, TO_CLIENT, address, all};
use crate::ranges::{RANGE, SHIFTED, beside_each, opens};

/// One client of each range: backends without ports of their own, and such that begin elsewhere.
fn clients(like: &Served) -> Vec<Served> {
    let mut all = vec![RANGE.at(like, 8042)];
    if like.mode == Mode::Nat {
        all.push(SHIFTED.at(like, 9042));
    }
    all
}

#[test]
fn ranges_are_found_behind_whatever_is_in_front() {
    beside_each(&[&RANGE, &SHIFTED], |lab, like| {
        for served in clients(like) {
            for (what, dress) in DRESSES {
                let flow = served.request();
                let out = dress(served.request_out(&flow).build());
                lab.case(format!("{} {}: {what}", like.name, served.name), dress(flow.build()))
                    .expect(opens(&served, forwarded(&served, &out)));
                if like.mode == Mode::Nat {
                    let reply = served.reply();
                    let out = dress(served.reply_out(&reply).build());
                    lab.case(format!("{} {}: a reply, {what}", like.name, served.name), dress(reply.build()))
                        .expect(returned(&served, &out));
                }
            }
        }
        let beside = RANGE.at(like, 7999).request();
        lab.case(format!("{}: a tag, beside the range", like.name), tag(beside.build(), &[CUSTOMER]))
            .expect(passed(Reason::NotAService));
    });
}

#[test]
fn fragments_follow_the_first_one_to_a_range() {
    beside_each(&[&RANGE, &SHIFTED], |lab, like| {
        // Of IPv6 the protocol is no part of what a datagram is known by: each has an identification of its own.
        let before = all().iter().take_while(|other| other.name != like.name).count() as u32;
        for (id, served) in (90 + 2 * before..).zip(clients(like)) {
            let (sent, out) = request(&served, id);
            begin(lab, &served, "the first fragment of a range", &sent[0], &out[0]);
            for n in [2, 1] {
                lab.case(format!("{} {}: fragment {n}", like.name, served.name), sent[n].clone())
                    .expect(forwarded(&served, &out[n]));
            }
            if like.mode != Mode::Nat {
                continue;
            }
            let flow = large(served.reply());
            let (sent, out) = (cut(&flow.build(), id, SIZE), cut(&served.reply_out(&flow).build(), id, SIZE));
            lab.case(format!("{} {}: the first one of a reply", like.name, served.name), sent[0].clone())
                .expect(returned(&served, &out[0]).fragment(id_of(&sent[0]), Some(BACK)));
            for n in [2, 1] {
                lab.case(format!("{} {}: fragment {n} of it", like.name, served.name), sent[n].clone())
                    .expect(returned(&served, &out[n]));
            }
        }
    });
}

#[test]
fn errors_about_flows_of_a_range_find_both_ends() {
    beside_each(&[&RANGE, &SHIFTED], |lab, like| {
        for served in clients(like) {
            for (kept, tags) in [(8, 0), (18, 1), (60, 0), (60, 2)] {
                let sentence = format!("{} {}: {kept} bytes, {tags} tags", like.name, served.name);
                let (outside, inside) = (errors::seen_outside(&served), errors::seen_inside(&served));
                let report = |flow| Failure::about(flow).keeping(kept);
                let out = report(&inside).half_of(&inside, &report(&outside)).macs(served.macs);
                lab.case(
                    format!("{sentence}, about a reply"),
                    errors::tagged(report(&outside).build(), tags),
                )
                .expect(errors::forwarded(&served, &errors::tagged(out.build(), tags)));
                if like.mode != Mode::Nat {
                    continue;
                }
                let (inside, outside) = (errors::sent(&served), served.request());
                let out = report(&outside).half_of(&outside, &report(&inside)).macs(TO_CLIENT);
                lab.case(
                    format!("{sentence}, about a request"),
                    errors::tagged(report(&inside).build(), tags),
                )
                .expect(errors::returned(&served, &errors::tagged(out.build(), tags)));
            }
        }
        let beside = errors::seen_outside(&RANGE.at(like, 7999));
        lab.case(format!("{}: an error beside the range", like.name), Failure::about(&beside).build())
            .expect(passed(Reason::Icmp));
    });
}

#[test]
fn the_address_of_a_range_answers_pings() {
    beside_each(&[], |lab, like| {
        let ip = if like.vip.is_ipv6() { address("2001:db8::81") } else { address("192.0.2.81") };
        let here = Served { vip: SocketAddr::new(ip, 0), ..like.clone() };
        RANGE.serve(lab, &here);
        let ping = Ping::new(like.client.ip(), ip);
        lab.case(format!("{}: a ping", like.name), ping.build())
            .expect(refused(&RANGE.at(&here, 8000), Reason::EchoAnswered).leaving(&ping.answered().build()));
        lab.desired.services.remove(RANGE.name);
        lab.serve();
        lab.case(format!("{}: a ping of nobody", like.name), ping.build()).expect(passed(Reason::Icmp));
    });
}

#[test]
fn packets_to_a_range_travel_inside_others() {
    beside_each(&[&RANGE], |lab, like| {
        if like.mode == Mode::Nat {
            return;
        }
        for mode in [Mode::Ipip, Mode::Gue] {
            for v6 in [false, true] {
                let served = encapsulating(lab, &RANGE.at(like, 0), mode, v6);
                for port in [8000, 8999] {
                    let served = Served { vip: SocketAddr::new(like.vip.ip(), port), ..served.clone() };
                    let frame = served.request().data().build();
                    let out = around(&frame, &served, 0, Varied::of(&leaves(lab, &frame), mode, v6));
                    lab.case(format!("{} {mode}: port {port}", like.name), frame.clone())
                        .expect(forwarded(&served, &out));
                    lab.case(format!("{} {mode}: port {port}, a tag", like.name), tag(frame, &[CUSTOMER]))
                        .expect(forwarded(&served, &out));
                }
                let parts = cut(
                    &Served { vip: SocketAddr::new(like.vip.ip(), 8042), ..served.clone() }
                        .request()
                        .data()
                        .carrying(vec![7; 2000])
                        .build(),
                    u32::from(v6) + 2 * u32::from(mode == Mode::Gue),
                    800,
                );
                oracle::check(&lb_tests::fragments::join(&parts));
                let varied = Varied::of(&leaves(lab, &parts[0]), mode, v6);
                for part in parts {
                    let out = around(&part, &served, 0, varied);
                    lab.case(format!("{} {mode}: a fragment", like.name), part)
                        .expect(forwarded(&served, &out));
                }
            }
        }
    });
}
