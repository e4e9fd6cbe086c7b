//! ICMP errors about a flow find who sent the packet that they are about.

use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{FlowKey, FlowValue};
use lb_common::reason::Reason;
use lb_common::slot::Slot;
use lb_tests::frame::{Flow, Kind, UDP, put};
use lb_tests::icmp::Failure;
use lb_tests::oracle;
use lb_userspace::dataplane::flows::FlowTable;
use lb_userspace::model::{Admin, Backend, Mode};
use lb_userspace::plan::NextHop;

use crate::case::{Expected, passed, refused};
use crate::lab::{LOOPBACK, Lab, Served, TO_CLIENT, address, all, hop, in_lab, nat, served};

/// Changes what is embedded.
fn with(mut report: Failure, change: impl FnOnce(&mut Vec<u8>)) -> Failure {
    change(&mut report.about);
    report
}

/// Puts tags behind the MAC addresses.
pub(crate) fn tagged(mut frame: Vec<u8>, tags: usize) -> Vec<u8> {
    for _ in 0..tags {
        frame.splice(12..12, [0x81, 0, 0, 7]);
    }
    frame
}

/// What a service has sent to its client, as the client's side sees it.
pub(crate) fn seen_outside(served: &Served) -> Flow {
    Flow { from: served.vip, ..served.reply() }
}

/// What the backend had sent of it.
pub(crate) fn seen_inside(served: &Served) -> Flow {
    if served.mode == Mode::Nat { served.reply() } else { seen_outside(served) }
}

/// What a backend was sent of a client's packet.
pub(crate) fn sent(served: &Served) -> Flow {
    Flow { to: served.backend, ..served.request() }
}

pub(crate) fn forwarded(served: &Served, frame: &[u8]) -> Expected {
    refused(served, Reason::IcmpForwarded).leaving(frame)
}

pub(crate) fn returned(served: &Served, frame: &[u8]) -> Expected {
    refused(served, Reason::IcmpReturned).leaving(frame)
}

/// Every type that is an error about a packet, some codes, and what comes with it.
fn kinds(v6: bool) -> Vec<([u8; 2], [u8; 4])> {
    if v6 {
        vec![
            ([1, 0], [0; 4]),
            ([1, 4], [0; 4]),
            ([2, 0], 1280_u32.to_be_bytes()),
            ([3, 0], [0; 4]),
            ([4, 1], 6_u32.to_be_bytes()),
        ]
    } else {
        vec![
            ([3, 0], [0; 4]),
            ([3, 3], [0; 4]),
            ([3, 4], 1280_u32.to_be_bytes()),
            ([3, 13], [0; 4]),
            ([11, 0], [0; 4]),
            ([11, 1], [0; 4]),
            ([12, 0], [20, 0, 0, 0]),
        ]
    }
}

#[test]
fn errors_about_replies_reach_the_backend() {
    in_lab(|lab| {
        for served in all() {
            let (outside, inside) = (seen_outside(&served), seen_inside(&served));
            for (kind, rest) in kinds(outside.from.is_ipv6()) {
                for kept in [8, 9, 17, 18, 20, usize::MAX] {
                    for tags in 0..=2 {
                        let report = |flow: &Flow| {
                            Failure { kind, rest, ..Failure::about(flow) }.keeping(kept.min(60))
                        };
                        let out = report(&inside).half_of(&inside, &report(&outside));
                        let out = tagged(out.macs(served.macs).build(), tags);
                        let sentence = format!("{}: {kind:?}, {kept} bytes, {tags} tags", served.name);
                        lab.case(sentence, tagged(report(&outside).build(), tags))
                            .expect(forwarded(&served, &out));
                    }
                }
            }
        }
    });
}

#[test]
fn errors_about_what_a_backend_was_sent_reach_the_client() {
    in_lab(|lab| {
        for served in nat() {
            let (inside, outside) = (sent(&served), served.request());
            for (kind, rest) in kinds(inside.from.is_ipv6()) {
                for kept in [8, 17, 18, usize::MAX] {
                    for tags in [0, 1] {
                        let report = |flow: &Flow| {
                            Failure { kind, rest, ..Failure::about(flow) }.keeping(kept.min(60))
                        };
                        let sentence = format!("{}: {kind:?}, {kept} bytes, {tags} tags", served.name);
                        let out = report(&outside).half_of(&outside, &report(&inside)).macs(TO_CLIENT);
                        let of_backend = Failure { from: served.vip.ip(), ..out.clone() };
                        let out = tagged(out.build(), tags);
                        lab.case(format!("{sentence}, of a router"), tagged(report(&inside).build(), tags))
                            .expect(returned(&served, &out));
                        let own = Failure { from: served.backend.ip(), ..report(&inside) };
                        lab.case(format!("{sentence}, of the backend"), tagged(own.build(), tags))
                            .expect(returned(&served, &tagged(of_backend.build(), tags)));
                    }
                }
            }
        }
    });
}

/// Whatever was kept: passed when the ports are not there, delivered when they are, never anything else.
#[test]
fn embedded_packets_may_end_anywhere() {
    in_lab(|lab| {
        for served in all() {
            let (outside, inside) = (seen_outside(&served), seen_inside(&served));
            let whole = outside.build().len() - 14;
            let needed = outside.transport() - 14 + 8;
            for kept in 0..=whole {
                let cut = |flow: &Flow| with(Failure::about(flow), |about| about.truncate(kept));
                let frame = cut(&outside).build();
                let out = cut(&inside).half_of(&inside, &cut(&outside)).macs(served.macs).build();
                let expected = if kept < needed { passed(Reason::Icmp) } else { forwarded(&served, &out) };
                lab.case(format!("{}: {kept} of {whole} bytes", served.name), frame.clone())
                    .expect(expected.clone());
                // Padding is not what was kept.
                let [padded, out] = [frame, out].map(|frame| [&frame[..], &[0x45; 30]].concat());
                lab.case(format!("{}: {kept} of {whole} bytes, padded", served.name), padded)
                    .expect(if kept < needed { expected } else { expected.leaving(&out) });
            }
        }
    });
}

#[test]
fn frames_that_are_cut_are_passed() {
    in_lab(|lab| {
        for name in ["tcp4-nat", "udp6-nat"] {
            let frame = Failure::about(&seen_outside(&served(name))).build();
            for length in 14..frame.len() {
                lab.case(format!("{name}: {length} bytes"), &frame[..length])
                    .expect(passed(Reason::Truncated));
            }
        }
    });
}

#[test]
fn embedded_headers_may_be_longer() {
    in_lab(|lab| {
        for (name, kept) in [("tcp4-nat", 8), ("tcp4-nat", 40), ("udp4-nat", 20), ("tcp4-l2", 8)] {
            let served = served(name);
            for words in [1, 10] {
                let report = |flow: &Flow| {
                    with(Failure::about(flow).keeping(kept), |about| {
                        // No-operations (RFC 791, section 3.1).
                        about.splice(20..20, vec![1; words * 4]);
                        about[0] += words as u8;
                        let length = u16::from_be_bytes([about[2], about[3]]) + words as u16 * 4;
                        put(about, 2, length);
                        put(about, 10, 0);
                        let sum = !oracle::sum(&about[..20 + words * 4]);
                        put(about, 10, sum);
                    })
                };
                let out = report(&seen_inside(&served)).macs(served.macs).build();
                lab.case(format!("{name}: {words} words of options"), report(&seen_outside(&served)).build())
                    .expect(forwarded(&served, &out));
            }
        }
        for (name, kept) in [("tcp6-nat", 8), ("tcp6-nat", 40), ("udp6-nat", 20), ("udp6-l2", 8)] {
            let served = served(name);
            for (what, kinds, passes) in [
                ("hop-by-hop options", &[0][..], false),
                ("a first fragment", &[44], false),
                ("several headers", &[0, 60, 43, 44, 60], false),
                ("seven", &[60; 7], false),
                ("too many", &[60; 9], true),
                ("one that is not known", &[135], true),
            ] {
                let report = |flow: &Flow| {
                    with(Failure::about(flow).keeping(kept), |about| {
                        let last = about[6];
                        let follow = kinds[1..].iter().copied().chain([last]);
                        let headers: Vec<u8> = follow.flat_map(|next| [next, 0, 0, 0, 0, 0, 0, 0]).collect();
                        about[6] = kinds[0];
                        let length = u16::from_be_bytes([about[4], about[5]]) + headers.len() as u16;
                        put(about, 4, length);
                        about.splice(40..40, headers);
                    })
                };
                let out = report(&seen_inside(&served)).macs(served.macs).build();
                lab.case(format!("{name}: {what}"), report(&seen_outside(&served)).build())
                    .expect(if passes { passed(Reason::Icmp) } else { forwarded(&served, &out) });
            }
        }
    });
}

#[test]
fn what_no_flow_of_ours_explains_is_passed() {
    in_lab(|lab| {
        for served in nat() {
            let v6 = served.vip.is_ipv6();
            let outside = seen_outside(&served);
            let report = Failure::about(&outside);
            let other = address(if v6 { "2001:db8::81" } else { "192.0.2.81" });
            let port =
                |flow: &Flow, port| Flow { from: SocketAddr::new(flow.from.ip(), port), ..flow.clone() };
            let odd = |change: fn(&mut Vec<u8>)| with(report.clone(), change);
            let protocol = if v6 { 6 } else { 9 };
            let mut cases = vec![
                ("for somebody else", Failure { to: other, ..report.clone() }),
                (
                    "about somebody else",
                    Failure::about(&Flow { from: SocketAddr::new(other, 80), ..outside.clone() }),
                ),
                ("about another port", Failure::about(&port(&outside, 81))),
                ("about a request to the service", Failure::about(&served.request())),
                ("about another version", odd(|about| about[0] ^= 0x20)),
                ("about another protocol", with(report.clone(), |about| about[protocol] = 132)),
                ("about ICMP", with(report.clone(), |about| about[protocol] = if v6 { 58 } else { 1 })),
            ];
            if !v6 {
                cases.push(("about a later fragment", odd(|about| about[7] = 1)));
                cases.push(("about a header that is too short", odd(|about| about[0] = 0x44)));
            }
            for (what, report) in cases {
                lab.case(format!("{}: {what}", served.name), report.build()).expect(passed(Reason::Icmp));
            }
        }
        // Later fragments, and a destination that is not the last one.
        let report = Failure::about(&seen_outside(&served("udp6-nat")));
        for header in [[17, 0, 0, 8, 0, 0, 0, 1], [17, 0, 0, 1, 0, 0, 0, 0]] {
            let kind = if header[3] == 8 { 44 } else { 43 };
            let report = with(report.clone(), |about| {
                about[6] = kind;
                about.splice(40..40, header);
            });
            lab.case(format!("behind header {kind}"), report.build()).expect(passed(Reason::Icmp));
        }
    });
}

#[test]
fn a_first_fragment_has_ports() {
    in_lab(|lab| {
        let served = served("udp4-nat");
        let report = |flow: &Flow| {
            with(Failure::about(flow), |about| {
                about[6] = 0x20;
                put(about, 10, 0);
                let sum = !oracle::sum(&about[..20]);
                put(about, 10, sum);
            })
        };
        let out = report(&seen_inside(&served)).macs(served.macs).build();
        lab.case("more fragments", report(&seen_outside(&served)).build()).expect(forwarded(&served, &out));
    });
}

/// Embedded sums, and the error's own: what is right stays right, what is wrong as wrong, none at all none.
#[test]
fn odd_sums_inside() {
    in_lab(|lab| {
        for served in nat() {
            let at = seen_outside(&served).checksum_at() - 14;
            let udp = served.request().protocol == UDP;
            if udp {
                let none = |flow: &Flow| with(Failure::about(flow), |about| put(about, at, 0));
                let out = none(&seen_inside(&served)).macs(served.macs).build();
                lab.case(format!("{}: no checksum", served.name), none(&seen_outside(&served)).build())
                    .expect(forwarded(&served, &out));
            }
            // The sender left its checksum to hardware: what the router kept has the pseudo-header's sum, and that is
            // corrected as if it were one. The error's own checksum is right all the same.
            let unfinished = oracle::unfinished(&seen_outside(&served)).split_off(14);
            let report = Failure { about: unfinished, ..Failure::about(&seen_outside(&served)) };
            let ran = lab.kernel.runner().explain(&report.build(), LOOPBACK).expect("the kernel explains");
            check(&ran.frame);
            // A wrong one stays wrong by as much.
            let mut wrong = Failure::about(&seen_outside(&served)).build();
            let icmp = if served.vip.is_ipv4() { 36 } else { 56 };
            wrong[icmp] ^= 0x11;
            let ran = lab.kernel.runner().explain(&wrong, LOOPBACK).expect("the kernel explains").frame;
            let right = Failure::about(&seen_inside(&served)).macs(served.macs).build();
            let off = |is: &[u8], should: &[u8]| {
                let (is, should) = ([is[icmp], is[icmp + 1]], [should[icmp], should[icmp + 1]]);
                oracle::sum(&[is, (!u16::from_be_bytes(should)).to_be_bytes()].concat())
            };
            let before = off(&wrong, &Failure::about(&seen_outside(&served)).build());
            assert_eq!(off(&ran, &right), before, "{}", served.name);
        }
    });
}

/// Finds the checksums of an error right.
#[track_caller]
fn check(frame: &[u8]) {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let sliced = SlicedPacket::from_ethernet(frame).expect("etherparse reads the frame");
    match (sliced.net.expect("an IP header"), sliced.transport.expect("ICMP")) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            assert_eq!(oracle::sum(icmp.slice()), 0xffff);
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let header = ip.header();
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
        }
        _ => panic!("no ICMP"),
    }
}

/// The backend is the one that the flow is on, whatever the ring says now; and asking leaves no trace.
#[test]
fn an_error_goes_where_its_flow_is() {
    in_lab(|lab| {
        for name in ["tcp4-nat", "udp6-nat", "tcp6-l2"] {
            let old = served(name);
            let v6 = old.vip.is_ipv6();
            let ip = if v6 { address("fd00::33") } else { IpAddr::from([10, 0, 0, 33]) };
            let new =
                Served { backend: SocketAddr::new(ip, old.backend.port()), macs: hop(33), ..old.clone() };
            lab.kernel.hops.insert(ip, NextHop { macs: new.macs, ifindex: LOOPBACK, mtu: 1500 });
            // The old backend has had packets, so its slots get windows; it takes no new flows.
            lab.change(name, |service| {
                service.backends.insert(new.backend, Backend::new(new.backend, 100));
                if let Some(backend) = service.backends.get_mut(&old.backend) {
                    backend.admin = Admin::Draining { until: None, remove: false };
                }
            });
            let on = |lab: &mut Lab<'_>, what: &str, on: &Served| {
                let out = Failure::about(&seen_inside(on)).macs(on.macs).build();
                lab.case(format!("{name}: {what}"), Failure::about(&seen_outside(on)).build())
                    .expect(forwarded(on, &out));
            };
            on(lab, "a flow without an entry is on the previous backend", &old);
            let (key, owner) = (FlowKey::from(lab.id(&new, 5000)), lab.owner(&new));
            let value = FlowValue { backend: owner.0, generation: owner.1, made: 1, seen: 1 };
            lab.kernel.table(FlowTable::Embryonic).insert(&key, &value).expect("room");
            on(lab, "a flow of which only the first packet was seen", &new);
            lab.kernel.table(FlowTable::Embryonic).delete(&[key]).expect("it is there");
            lab.kernel.table(FlowTable::Established).insert(&key, &value).expect("room");
            on(lab, "a flow with an entry", &new);
            let stale = FlowValue { generation: owner.1 + 77, ..value };
            lab.kernel.table(FlowTable::Established).insert(&key, &stale).expect("room");
            on(lab, "an entry of a backend that is gone", &new);
            lab.kernel.table(FlowTable::Established).delete(&[key]).expect("it is there");
            lab.slots(name, Slot::settle);
            on(lab, "afterwards", &new);
        }
    });
}

#[test]
fn errors_that_lead_nowhere_are_told() {
    in_lab(|lab| {
        let l2 = served("tcp4-l2");
        let report = Failure::about(&seen_outside(&l2)).build();
        lab.kernel.hops.remove(&l2.backend.ip());
        lab.change("tcp4-l2", |service| {
            let lost = SocketAddr::new([10, 0, 0, 99].into(), 443);
            service.backends.clear();
            service.backends.insert(lost, Backend::new(lost, 100));
        });
        lab.case("a backend without a next hop", report.clone()).expect(refused(&l2, Reason::NoNextHop));
        lab.change("tcp4-l2", |service| service.backends.clear());
        lab.case("no backend", report).expect(refused(&l2, Reason::NoBackend));
        let nat = served("tcp4-nat");
        let report = Failure::about(&sent(&nat)).build();
        lab.kernel.tables.routes.publish(&[], &[]).expect("room for no routes");
        lab.case("no way to the client that is known", report).expect(refused(&nat, Reason::ForwardingOff));
    });
}

#[test]
fn whichever_packet_it_was_about() {
    in_lab(|lab| {
        for served in all().into_iter().filter(|served| served.request().protocol != UDP) {
            for kind in [Kind::Syn, Kind::Data, Kind::Fin, Kind::Rst] {
                let (outside, inside) =
                    (Flow { kind, ..seen_outside(&served) }, Flow { kind, ..seen_inside(&served) });
                let out = Failure::about(&inside).macs(served.macs).build();
                lab.case(format!("{}: {kind:?}", served.name), Failure::about(&outside).build())
                    .expect(forwarded(&served, &out));
            }
        }
    });
}
