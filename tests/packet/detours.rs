//! VLAN tags, IPv4 options and IPv6 extension headers: what is in front of the transport header stays as it is, and the
//! packet goes where it would go without.

use lb_common::abi::names;
use lb_common::reason::Reason;
use lb_tests::frame::{Flow, Kind, put};
use lb_tests::oracle;
use lb_userspace::model::Protocol;

use crate::case::{PASS, forwarded, passed, returned};
use crate::lab::{LOOPBACK, all, in_lab, nat, served};

/// A way to dress a frame, and how it is told.
pub(crate) type Dress = (&'static str, fn(Vec<u8>) -> Vec<u8>);

pub(crate) const CUSTOMER: u16 = 0x8100;
pub(crate) const SERVICE: u16 = 0x88a8;

/// Puts tags behind the MAC addresses: priority 5, and a VLAN each.
pub(crate) fn tag(mut frame: Vec<u8>, tags: &[u16]) -> Vec<u8> {
    for (vlan, tag) in (7..7 + tags.len() as u8).zip(tags).rev() {
        let [a, b] = tag.to_be_bytes();
        frame.splice(12..12, [a, b, 0xa0, vlan]);
    }
    frame
}

fn is_v6(frame: &[u8]) -> bool {
    frame[12..14] == [0x86, 0xdd]
}

/// Puts words of options behind an IPv4 header (RFC 791, section 3.1: 1 is no operation), extension headers of eight bytes
/// behind an IPv6 header (RFC 8200, section 4: the first byte is the next header, the rest padding).
pub(crate) fn options(mut frame: Vec<u8>, words: usize, headers: &[u8]) -> Vec<u8> {
    if is_v6(&frame) {
        let mut next = frame[20];
        for kind in headers.iter().rev() {
            frame.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
            // Of a routing header the fourth byte says how many stations are left.
            frame[57] = if *kind == 43 { 0 } else { 4 };
            // An authentication header counts words without two.
            if *kind == 51 {
                frame.splice(62..62, [0; 8]);
                frame[55] = 2;
            }
            next = *kind;
        }
        frame[20] = next;
        let length = (frame.len() - 54) as u16;
        put(&mut frame, 18, length);
    } else {
        frame.splice(34..34, std::iter::repeat_n(1, words * 4));
        frame[14] += words as u8;
        let length = (frame.len() - 14) as u16;
        put(&mut frame, 16, length);
        put(&mut frame, 24, 0);
        let sum = !oracle::sum(&frame[14..34 + words * 4]);
        put(&mut frame, 24, sum);
    }
    frame
}

pub(crate) const DRESSES: [Dress; 9] = [
    ("a tag", |frame| tag(frame, &[CUSTOMER])),
    ("a tag of a provider", |frame| tag(frame, &[SERVICE])),
    ("two tags", |frame| tag(frame, &[SERVICE, CUSTOMER])),
    ("two tags of customers", |frame| tag(frame, &[CUSTOMER, CUSTOMER])),
    ("a word of options, or one header", |frame| options(frame, 1, &[0])),
    ("ten words of options, or four headers", |frame| options(frame, 10, &[0, 43, 51, 60])),
    ("seven headers", |frame| options(frame, 3, &[60; 7])),
    ("a tag and options", |frame| tag(options(frame, 2, &[60]), &[CUSTOMER])),
    ("two tags and options", |frame| tag(options(frame, 5, &[0, 60]), &[SERVICE, CUSTOMER])),
];

#[test]
fn whatever_is_in_front_requests_find_their_backend() {
    in_lab(|lab| {
        for served in all() {
            for (what, dress) in DRESSES {
                for kind in [Kind::Syn, Kind::Data] {
                    let request = Flow { kind, ..served.request() };
                    let out = served.request_out(&request).build();
                    oracle::check(&out);
                    let expected = forwarded(&served, &dress(out));
                    let opens = kind == Kind::Syn && served.protocol == Protocol::Tcp;
                    let expected = if opens { expected.new_flow() } else { expected };
                    lab.case(format!("{}: {what}, {kind:?}", served.name), dress(request.build()))
                        .expect(expected);
                }
            }
        }
    });
}

#[test]
fn and_replies_their_client() {
    in_lab(|lab| {
        for served in nat() {
            for (what, dress) in DRESSES {
                let reply = served.reply();
                let out = served.reply_out(&reply).build();
                oracle::check(&out);
                lab.case(format!("{}: {what}", served.name), dress(reply.build()))
                    .expect(returned(&served, &dress(out)));
            }
        }
    });
}

#[test]
fn unfinished_checksums_are_finished_behind_whatever_is_in_front() {
    in_lab(|lab| {
        for served in all() {
            for (what, dress) in DRESSES {
                let request = served.request().data().carrying(vec![7; 301]);
                let out = served.request_out(&request).build();
                let expected = forwarded(&served, &dress(out));
                lab.case(format!("{}: {what}", served.name), dress(oracle::unfinished(&request)))
                    .expect(expected);
            }
        }
    });
}

#[test]
fn padding_behind_tags_is_not_payload() {
    in_lab(|lab| {
        for served in all() {
            let pad = |mut frame: Vec<u8>| {
                frame.extend([0xaa; 13]);
                frame
            };
            let request = served.request().data();
            let out = pad(tag(served.request_out(&request).build(), &[CUSTOMER]));
            lab.case(format!("{}: padding goes along", served.name), pad(tag(request.build(), &[CUSTOMER])))
                .expect(forwarded(&served, &out));
        }
    });
}

#[test]
fn what_is_not_ours_is_passed_whatever_is_in_front() {
    in_lab(|lab| {
        let stranger = |name: &str| {
            let mut flow = served(name).request();
            flow.to.set_port(81);
            flow.build()
        };
        for (what, dress) in DRESSES {
            for name in ["tcp4-nat", "tcp6-nat", "udp4-l2", "udp6-l2"] {
                lab.case(format!("{name}: {what}"), dress(stranger(name)))
                    .expect(passed(Reason::NotAService));
            }
        }
        let request = || served("tcp4-nat").request().build();
        lab.case("three tags", tag(tag(request(), &[CUSTOMER]), &[CUSTOMER; 2])).expect(passed(Reason::Vlan));
        let mut arp = tag(request(), &[CUSTOMER]);
        put(&mut arp, 16, 0x0806);
        lab.case("tagged ARP", arp).expect(passed(Reason::NotIp));
    });
}

#[test]
fn headers_that_are_not_looked_past_are_passed() {
    in_lab(|lab| {
        let request = || served("tcp6-nat").request().build();
        for (what, kind) in [("mobility", 135), ("host identity", 139), ("shim6", 140)] {
            lab.case(what, options(request(), 0, &[kind])).expect(passed(Reason::Ipv6Extension));
        }
        lab.case("eight headers", options(request(), 0, &[60; 8])).expect(passed(Reason::Ipv6Extension));
        let mut routed = options(request(), 0, &[43]);
        routed[57] = 1;
        lab.case("a station is left", routed).expect(passed(Reason::Ipv6Extension));
        let mut long = options(request(), 0, &[60]);
        long[55] = 20;
        lab.case("a header longer than the packet", long).expect(passed(Reason::MalformedIp));
        let mut empty = options(request(), 0, &[51]);
        empty[55] = 0;
        lab.case("an authentication header of nothing", empty).expect(passed(Reason::MalformedIp));
    });
}

#[test]
fn cut_anywhere_they_are_passed_as_they_are() {
    in_lab(|lab| {
        for name in ["tcp4-nat", "tcp6-nat", "udp4-l2", "udp6-l2"] {
            for (what, dress) in DRESSES {
                let whole = dress(served(name).request().build());
                for length in 14..whole.len() {
                    let cut = &whole[..length];
                    let ran = lab.kernel.runner().run(names::BALANCE, cut, LOOPBACK, 1);
                    let ran = ran.expect("the kernel runs it");
                    assert_eq!((ran.action, &ran.frame[..]), (PASS, cut), "{name}: {what}, {length} bytes");
                }
            }
        }
    });
}
