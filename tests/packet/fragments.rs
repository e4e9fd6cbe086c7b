//! Fragments: the first one of a datagram is balanced as any packet, the others go where it went. What is expected is the
//! rewritten datagram, built anew and cut at the same places.

use std::net::SocketAddr;

use lb_common::abi::{fragment, names};
use lb_common::reason::Reason;
use lb_tests::fragments::{cut, fragment as piece, join, read};
use lb_tests::frame::{Flow, UDP, get, put};
use lb_tests::kernel::{FragmentId, SIZES};
use lb_tests::oracle;
use lb_userspace::model::{Backend, Protocol};
use lb_userspace::plan::NextHop;

use crate::case::{TX, forwarded, passed, refused, returned};
use crate::detours::{CUSTOMER, SERVICE, options, tag};
use crate::lab::{LOOPBACK, Lab, Served, address, all, hop, in_lab, nat, served};

/// Owner of an entry that leads back to a client: no backend, no generation.
pub(crate) const BACK: (u32, u32) = (0x7fff, 0);
/// What the datagrams of most tests carry: three fragments.
const PAYLOAD: usize = 3000;
/// Bytes of a datagram in each fragment, as with an MTU of 1500.
pub(crate) const SIZE: usize = 1480;

pub(crate) fn large(flow: Flow) -> Flow {
    let payload: Vec<u8> = (0..PAYLOAD).map(|n| (n * 7) as u8).collect();
    flow.data().carrying(payload)
}

/// The key of a frame's datagram.
pub(crate) fn id_of(frame: &[u8]) -> FragmentId {
    let seen = read(frame);
    let [src, dst] = seen.ends;
    let protocol = if src.is_ipv4() { seen.protocol.into() } else { 0 };
    FragmentId { src, dst, id: seen.id, protocol }
}

/// A request and what its backend should get of it, in fragments.
pub(crate) fn request(served: &Served, id: u32) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let flow = large(served.request());
    (cut(&flow.build(), id, SIZE), cut(&served.request_out(&flow).build(), id, SIZE))
}

/// The client's first fragment goes to its backend, and is remembered.
pub(crate) fn begin(lab: &mut Lab<'_>, served: &Served, sentence: &str, sent: &[u8], out: &[u8]) {
    let owner = lab.owner(served);
    let expected = forwarded(served, out).fragment(id_of(sent), Some(owner));
    lab.case(format!("{}: {sentence}", served.name), sent).expect(expected);
}

#[test]
fn all_fragments_of_a_request_reach_its_backend() {
    in_lab(|lab| {
        for served in all() {
            let (sent, out) = request(&served, 0x1234_5678);
            assert_eq!((sent.len(), oracle::check(&join(&out))[1].port()), (3, served.backend.port()));
            begin(lab, &served, "the first fragment goes to a backend", &sent[0], &out[0]);
            for (n, (sent, out)) in sent.iter().zip(&out).enumerate().skip(1) {
                lab.case(format!("{}: fragment {n} follows", served.name), sent.clone())
                    .expect(forwarded(&served, out));
            }
            for (n, (sent, out)) in sent.iter().zip(&out).enumerate().rev() {
                lab.case(format!("{}: fragment {n} once more", served.name), sent.clone())
                    .expect(forwarded(&served, out));
            }
        }
    });
}

#[test]
fn all_fragments_of_a_reply_come_back_in_the_name_of_the_service() {
    in_lab(|lab| {
        for (id, served) in (77..).zip(nat()) {
            let flow = large(served.reply());
            let (sent, out) = (cut(&flow.build(), id, SIZE), cut(&served.reply_out(&flow).build(), id, SIZE));
            assert_eq!(oracle::check(&join(&out))[0], served.vip);
            let expected = returned(&served, &out[0]).fragment(id_of(&sent[0]), Some(BACK));
            lab.case(format!("{}: the first fragment of a reply", served.name), sent[0].clone())
                .expect(expected);
            // The middle one late.
            for n in [2, 1] {
                lab.case(format!("{}: fragment {n} of it", served.name), sent[n].clone())
                    .expect(returned(&served, &out[n]));
            }
        }
    });
}

#[test]
fn a_fragment_before_its_first_one_is_passed() {
    in_lab(|lab| {
        for (id, served) in (9..).zip(all()) {
            let (sent, out) = request(&served, id);
            for n in [1, 2] {
                lab.case(format!("{}: fragment {n} is early", served.name), sent[n].clone())
                    .expect(passed(Reason::Fragment));
            }
            begin(lab, &served, "the first one all the same", &sent[0], &out[0]);
            lab.case(format!("{}: what comes after it follows", served.name), sent[2].clone())
                .expect(forwarded(&served, &out[2]));
        }
    });
}

#[test]
fn only_fragments_of_the_same_datagram_follow() {
    in_lab(|lab| {
        for (id, served) in (9..).zip(all()) {
            let (sent, out) = request(&served, id);
            begin(lab, &served, "the first fragment", &sent[0], &out[0]);
            let (other, _) = request(&served, id + 100);
            lab.case(format!("{}: another identification", served.name), other[1].clone())
                .expect(passed(Reason::Fragment));
            let stranger = Served {
                client: SocketAddr::new(
                    address(if served.vip.is_ipv4() { "198.51.100.8" } else { "2001:db8:1::8" }),
                    5000,
                ),
                ..served.clone()
            };
            let (other, _) = request(&stranger, id);
            lab.case(format!("{}: another source", served.name), other[1].clone())
                .expect(passed(Reason::Fragment));
            if served.vip.is_ipv4() {
                let mut other = sent[1].clone();
                other[23] = if other[23] == UDP { 6 } else { UDP };
                put(&mut other, 24, 0);
                let sum = !oracle::sum(&other[14..34]);
                put(&mut other, 24, sum);
                lab.case(format!("{}: another protocol", served.name), other)
                    .expect(passed(Reason::Fragment));
            } else {
                // What the fragment header says of the protocol counts in the first one only.
                let (mut sent, mut out) = (sent[1].clone(), out[1].clone());
                (sent[54], out[54]) = (59, 59);
                lab.case(format!("{}: another next header is none", served.name), sent)
                    .expect(forwarded(&served, &out));
            }
        }
    });
}

/// Makes every entry so much older.
fn older(lab: &mut Lab<'_>, seconds: u64) {
    let fragments = lab.kernel.fragments();
    for (key, mut value) in fragments.entries().expect("fragments can be read") {
        value.seen = value.seen.wrapping_sub(seconds * 1_000_000_000);
        fragments.insert(&key, &value).expect("an entry that is there");
    }
}

#[test]
fn entries_are_followed_for_thirty_seconds() {
    in_lab(|lab| {
        for served in all() {
            let (sent, out) = request(&served, 9);
            begin(lab, &served, "the first fragment", &sent[0], &out[0]);
            older(lab, 25);
            lab.case(format!("{}: after 25 seconds", served.name), sent[1].clone())
                .expect(forwarded(&served, &out[1]));
            older(lab, 6);
            lab.case(format!("{}: after 31 seconds", served.name), sent[1].clone())
                .expect(passed(Reason::Fragment));
            let began = forwarded(&served, &out[0]);
            lab.case(format!("{}: a new one begins", served.name), sent[0].clone()).expect(began);
            lab.case(format!("{}: and is followed", served.name), sent[1].clone())
                .expect(forwarded(&served, &out[1]));
            assert_eq!(fragment::LIFETIME_NS, 30_000_000_000);
        }
    });
}

#[test]
fn many_datagrams_at_once_cost_no_flow_its_entry() {
    in_lab(|lab| {
        let served = served("udp4-nat");
        lab.change("tcp4-nat", |service| service.tracking = lb_userspace::model::Tracking::Always);
        let kept = crate::lab::served("tcp4-nat");
        for port in 6000..6100 {
            let flow = Flow { from: SocketAddr::new(kept.client.ip(), port), ..kept.request().data() };
            lab.kernel.runner().run(names::BALANCE, &flow.build(), LOOPBACK, 1).expect("the kernel runs it");
        }
        let before = lab.kernel.snapshot();
        assert_eq!(before.flows.len(), 100);
        let (sent, out) = request(&served, 0);
        let program = lab.kernel.program(names::BALANCE);
        let mut buffer = vec![0; sent[0].len()];
        let datagrams = 4 * SIZES.fragments;
        for id in 0..datagrams {
            let mut first = sent[0].clone();
            put(&mut first, 18, id as u16);
            assert_eq!(program.run(&first, &mut buffer).expect("the kernel runs it"), TX, "datagram {id}");
        }
        let after = lab.kernel.snapshot();
        let moved = after.since(&before);
        assert_eq!((moved.flows.len(), moved.embryos.len()), (0, 0));
        assert!(!moved.fragments.is_empty() && after.fragments.len() <= SIZES.fragments as usize);
        let numbered = |frame: &[u8], id: u32| {
            let mut frame = frame.to_vec();
            put(&mut frame, 18, id as u16);
            put(&mut frame, 24, 0);
            let sum = !oracle::sum(&frame[14..34]);
            put(&mut frame, 24, sum);
            frame
        };
        lab.case("a fragment of the last datagram follows", numbered(&sent[1], datagrams - 1))
            .expect(forwarded(&served, &numbered(&out[1], datagrams - 1)));
        lab.case("one of the first datagram has nothing to follow", numbered(&sent[1], 0))
            .expect(passed(Reason::Fragment));
    });
}

#[test]
fn what_is_not_ours_is_passed_with_all_that_follows() {
    in_lab(|lab| {
        for served in all() {
            let mut flow = large(served.request());
            flow.to.set_port(81);
            for (n, sent) in cut(&flow.build(), 9, SIZE).into_iter().enumerate() {
                let reason = if n == 0 { Reason::NotAService } else { Reason::Fragment };
                lab.case(format!("{}: fragment {n} to another port", served.name), sent)
                    .expect(passed(reason));
            }
            // The same identification for a service, then again for nobody: what it left is gone.
            let (sent, out) = request(&served, 9);
            begin(lab, &served, "a datagram for the service", &sent[0], &out[0]);
            let foreign = cut(&flow.build(), 9, SIZE);
            lab.case(format!("{}: the next one is not", served.name), foreign[0].clone())
                .expect(passed(Reason::NotAService).fragment(id_of(&foreign[0]), None));
            lab.case(format!("{}: nor what follows it", served.name), foreign[1].clone())
                .expect(passed(Reason::Fragment));
        }
        for v6 in [false, true] {
            let ping = crate::not_ours::ping(v6);
            let first = piece(&ping, 3, 0, true, &ping[if v6 { 54 } else { 34 }..][..8]);
            lab.case("a fragment of a ping", first).expect(passed(Reason::Icmp));
            lab.case("what follows it", piece(&ping, 3, 8, false, b"rest")).expect(passed(Reason::Fragment));
        }
    });
}

#[test]
fn first_fragments_without_a_whole_header_are_passed() {
    in_lab(|lab| {
        for served in all().iter().filter(|served| served.protocol == Protocol::Tcp) {
            let whole = large(served.request()).build();
            for size in [8, 16] {
                let sent = cut(&whole, 9, size);
                lab.case(format!("{}: {size} bytes of TCP", served.name), sent[0].clone())
                    .expect(passed(Reason::FragmentTiny));
                lab.case(format!("{}: what follows", served.name), sent[1].clone())
                    .expect(passed(Reason::Fragment));
            }
        }
        for served in all() {
            let flow = large(served.request());
            let (sent, out) = (cut(&flow.build(), 9, 24), cut(&served.request_out(&flow).build(), 9, 24));
            begin(lab, &served, "24 bytes are enough", &sent[0], &out[0]);
            lab.case(format!("{}: the second of many", served.name), sent[1].clone())
                .expect(forwarded(&served, &out[1]));
        }
    });
}

#[test]
fn fragments_over_the_first_one_are_dropped() {
    in_lab(|lab| {
        for served in all() {
            let whole = large(served.request()).build();
            let (sent, out) = request(&served, 9);
            begin(lab, &served, "the first fragment", &sent[0], &out[0]);
            for start in [8, 16, SIZE - 8] {
                lab.case(
                    format!("{}: bytes from {start}", served.name),
                    piece(&whole, 9, start, true, &[0; 64]),
                )
                .expect(refused(&served, Reason::FragmentOverlap));
            }
            lab.case(format!("{}: a last one inside", served.name), piece(&whole, 9, 8, false, &[0; 3]))
                .expect(refused(&served, Reason::FragmentOverlap));
            lab.case(format!("{}: behind it is right", served.name), sent[1].clone())
                .expect(forwarded(&served, &out[1]));
        }
        for served in nat() {
            let whole = large(served.reply()).build();
            let first = cut(&whole, 9, SIZE).remove(0);
            lab.kernel.runner().run(names::BALANCE, &first, LOOPBACK, 1).expect("the kernel runs it");
            lab.case(format!("{}: over a reply's first", served.name), piece(&whole, 9, 8, true, &[0; 64]))
                .expect(refused(&served, Reason::FragmentOverlap));
        }
    });
}

#[test]
fn fragments_that_cannot_be_are_passed() {
    in_lab(|lab| {
        for served in all() {
            let (sent, out) = request(&served, 9);
            begin(lab, &served, "the first fragment", &sent[0], &out[0]);
            let whole = large(served.request()).build();
            for (what, frame) in [
                ("empty", piece(&whole, 9, 1480, true, &[])),
                ("empty and the last", piece(&whole, 9, 1480, false, &[])),
                ("not a multiple of eight", piece(&whole, 9, 1480, true, &[0; 13])),
                ("past the longest datagram", piece(&whole, 9, 65528, false, &[0; 8])),
                ("a first one of nine bytes", piece(&whole, 9, 0, true, &[0; 9])),
            ] {
                lab.case(format!("{}: {what}", served.name), frame).expect(passed(Reason::MalformedIp));
            }
            let farthest = piece(&whole, 9, 65528, false, &[7; 7]);
            let out = piece(&served.request_out(&large(served.request())).build(), 9, 65528, false, &[7; 7]);
            lab.case(format!("{}: as far as can be", served.name), farthest).expect(forwarded(&served, &out));
        }
    });
}

#[test]
fn a_fragment_that_is_all_of_it_is_a_whole_packet() {
    in_lab(|lab| {
        for served in all().iter().filter(|served| !served.vip.is_ipv4()) {
            let flow = served.request().data();
            let alone = |whole: &[u8]| piece(whole, 9, 0, false, &whole[54..]);
            let out = alone(&served.request_out(&flow).build());
            lab.case(format!("{}: an atomic fragment", served.name), alone(&flow.build()))
                .expect(forwarded(served, &out));
            lab.case(
                format!("{}: one whose checksum is not finished", served.name),
                alone(&oracle::unfinished(&flow)),
            )
            .expect(forwarded(served, &out));
            if served.mode == lb_userspace::model::Mode::Nat {
                let reply = served.reply();
                let out = alone(&served.reply_out(&reply).build());
                lab.case(format!("{}: an atomic reply", served.name), alone(&reply.build()))
                    .expect(returned(served, &out));
            }
        }
    });
}

#[test]
fn checksums_of_first_fragments_are_corrected_and_never_finished() {
    in_lab(|lab| {
        for served in all() {
            let flow = large(served.request());
            let length = flow.build().len() - flow.transport();
            // Complete, and equal to what an unfinished one would be.
            let (flow, frame) = oracle::with_checksum(&flow, oracle::pseudo(&flow, length));
            let (sent, out) = (cut(&frame, 9, SIZE), cut(&served.request_out(&flow).build(), 9, SIZE));
            begin(lab, &served, "it looks unfinished and is not", &sent[0], &out[0]);
            oracle::check(&join(&out));
        }
        for served in all().iter().filter(|served| served.protocol == Protocol::Udp && served.vip.is_ipv4()) {
            let flow = large(served.request());
            let absent = |mut frame: Vec<u8>| {
                put(&mut frame, 40, 0);
                frame
            };
            let (sent, out) = (
                cut(&absent(flow.build()), 11, SIZE),
                cut(&absent(served.request_out(&flow).build()), 11, SIZE),
            );
            begin(lab, served, "without a checksum", &sent[0], &out[0]);
            assert_eq!(get(&out[0], 40), 0);
        }
    });
}

#[test]
fn tags_and_headers_in_front_stay() {
    in_lab(|lab| {
        for served in all() {
            let (sent, out) = request(&served, 9);
            let id = id_of(&sent[0]);
            let owner = lab.owner(&served);
            for (n, (what, dress)) in [
                ("a tag", (|f| tag(f, &[CUSTOMER])) as fn(Vec<u8>) -> Vec<u8>),
                ("two tags", |f| tag(f, &[SERVICE, CUSTOMER])),
                ("options", |f| options(f, 3, &[0, 60])),
                ("both", |f| tag(options(f, 10, &[0, 60, 43]), &[CUSTOMER])),
            ]
            .into_iter()
            .enumerate()
            {
                let mut expected = forwarded(&served, &dress(out[0].clone()));
                if n == 0 {
                    expected = expected.fragment(id, Some(owner));
                }
                lab.case(format!("{}: {what}, the first", served.name), dress(sent[0].clone()))
                    .expect(expected);
                for n in [1, 2] {
                    lab.case(format!("{}: {what}, fragment {n}", served.name), dress(sent[n].clone()))
                        .expect(forwarded(&served, &dress(out[n].clone())));
                }
            }
        }
        let served = served("udp6-nat");
        let (sent, _) = request(&served, 9);
        // Behind the fragment header nothing but the transport header is looked at.
        let mut inner = sent[0].clone();
        inner[54] = 60;
        lab.case("destination options behind the fragment header", inner)
            .expect(passed(Reason::Ipv6Extension).fragment(id_of(&sent[0]), None));
        let mut nested = sent[0].clone();
        nested[54] = 44;
        lab.case("a fragment of a fragment", nested).expect(passed(Reason::Fragment));
    });
}

#[test]
fn fragments_stay_together_while_backends_change() {
    in_lab(|lab| {
        for name in ["udp4-nat", "udp6-l2"] {
            let old = served(name);
            let (sent, out) = request(&old, 9);
            begin(lab, &old, "the first fragment", &sent[0], &out[0]);
            let v4 = old.vip.is_ipv4();
            let ip = address(if v4 { "10.0.0.3" } else { "fd00::3" });
            let new =
                Served { backend: SocketAddr::new(ip, old.backend.port()), macs: hop(3), ..old.clone() };
            lab.kernel.hops.insert(ip, NextHop { macs: new.macs, ifindex: LOOPBACK, mtu: 1500 });
            lab.change(name, |service| {
                service.backends.insert(new.backend, Backend::new(new.backend, 100));
                service.backends.remove(&old.backend);
            });
            // Its entry may be another's by now: the rest of the datagram would only confuse that one.
            lab.case(format!("{name}: the backend is gone"), sent[1].clone())
                .expect(refused(&old, Reason::NoBackend));
            let (_, out) = request(&new, 9);
            begin(lab, &new, "the next datagram goes to another one", &sent[0], &out[0]);
            lab.case(format!("{name}: and is followed"), sent[1].clone()).expect(forwarded(&new, &out[1]));
            lab.slots(name, |slot| lb_common::slot::Slot::new(0x7fff, false, slot.current()));
            lab.case(format!("{name}: whatever the ring says"), sent[2].clone())
                .expect(forwarded(&new, &out[2]));
            lab.desired.services.remove(name);
            lab.serve();
            lab.case(format!("{name}: without the service"), sent[2].clone())
                .expect(passed(Reason::NotAService));
        }
    });
}
