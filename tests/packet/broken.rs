//! Packets that contradict themselves, and packets that end too soon: passed, untouched, never an abort.

use lb_common::abi::names;
use lb_common::reason::Reason;
use lb_tests::frame::put;
use lb_tests::kernel::Moved;
use lb_userspace::model::Protocol;

use crate::case::{PASS, forwarded, passed};
use crate::lab::{LOOPBACK, all, in_lab, nat, served};
use crate::not_ours::{arp, carrying, extension, fragment, options, ping, tagged};

/// The shortest frame that the kernel runs a program on.
const SHORTEST: usize = 14;

/// Every kind of packet, with its reason when it is whole.
fn kinds() -> Vec<(String, Vec<u8>, Reason)> {
    let mut kinds = vec![
        ("fragment".into(), fragment(100, true), Reason::Fragment),
        ("options".into(), options(3), Reason::Forwarded),
        ("VLAN".into(), tagged(&[0x8100]), Reason::Forwarded),
        ("QinQ".into(), tagged(&[0x88a8, 0x8100]), Reason::Forwarded),
        ("ARP".into(), arp(), Reason::NotIp),
        ("ping".into(), ping(false), Reason::Icmp),
        ("IPv6 ping".into(), ping(true), Reason::Icmp),
        ("SCTP".into(), carrying(false, 132), Reason::OtherProtocol),
        ("IPv6 SCTP".into(), carrying(true, 132), Reason::OtherProtocol),
        ("IPv6 fragment".into(), extension(44), Reason::Fragment),
        ("IPv6 extension".into(), extension(0), Reason::Forwarded),
    ];
    for served in all() {
        kinds.push((format!("{} request", served.name), served.request().build(), Reason::Forwarded));
    }
    for served in nat() {
        kinds.push((format!("{} reply", served.name), served.reply().build(), Reason::Returned));
    }
    kinds
}

#[test]
fn a_packet_cut_anywhere_is_passed_as_it_is() {
    in_lab(|lab| {
        for (name, frame, whole) in kinds() {
            let before = lab.kernel.snapshot();
            let mut expected = Moved::default();
            for length in SHORTEST..frame.len() {
                let cut = &frame[..length];
                let runner = lab.kernel.runner();
                let explained = runner.explain(cut, LOOPBACK).expect("the kernel explains");
                let reason = Reason::from_number(explained.report.reason).expect("a reason");
                // What is ours is ours only as a whole; the rest may be known by its first bytes.
                let ours = matches!(whole, Reason::Forwarded | Reason::Returned);
                assert!(
                    reason == Reason::Truncated || (!ours && reason == whole),
                    "{name} cut to {length}: {reason:?}"
                );
                let ran = runner.run(names::BALANCE, cut, LOOPBACK, 1).expect("the kernel runs it");
                assert_eq!((ran.action, ran.frame.as_slice()), (PASS, cut), "{name} cut to {length}");
                expected = expected.reason(0, reason);
            }
            assert_eq!(lab.kernel.snapshot().since(&before), expected, "{name}");
        }
    });
}

#[test]
fn a_header_that_contradicts_itself_is_passed() {
    in_lab(|lab| {
        let v4 = served("tcp4-nat").request().build();
        let v6 = served("tcp6-nat").request().build();
        let changed = |frame: &[u8], at: usize, value: u8| {
            let mut frame = frame.to_vec();
            frame[at] = value;
            frame
        };
        let half = |frame: &[u8], at: usize, value: u16| {
            let mut frame = frame.to_vec();
            put(&mut frame, at, value);
            frame
        };
        for (name, frame) in [
            ("version 5", changed(&v4, 14, 0x55)),
            ("version 6 in an IPv4 frame", changed(&v4, 14, 0x65)),
            ("a header of four words", changed(&v4, 14, 0x44)),
            ("a header of no words", changed(&v4, 14, 0x40)),
            ("a total length of nothing", half(&v4, 16, 0)),
            ("a total length shorter than the header", half(&v4, 16, 19)),
            ("version 4 in an IPv6 frame", changed(&v6, 14, 0x40)),
            ("a mapped source", mapped(&v6, 22)),
            ("a mapped destination", mapped(&v6, 38)),
        ] {
            lab.case(name, frame).expect(passed(Reason::MalformedIp));
        }
        for (name, frame) in [
            ("an IPv4 length past the end", half(&v4, 16, v4.len() as u16 - 13)),
            ("the greatest IPv4 length", half(&v4, 16, 0xffff)),
            ("an IPv6 length past the end", half(&v6, 18, v6.len() as u16 - 53)),
            ("the greatest IPv6 length", half(&v6, 18, 0xffff)),
        ] {
            lab.case(name, frame).expect(passed(Reason::Truncated));
        }
        for (name, frame) in [
            ("no room for a TCP header", half(&v4, 16, 39)),
            ("nothing behind the IPv4 header", half(&v4, 16, 20)),
            ("a jumbogram", half(&v6, 18, 0)),
            ("no room for a TCP header in IPv6", half(&v6, 18, 19)),
            ("a TCP header of four words", changed(&v4, 46, 0x40)),
            ("a TCP header longer than its segment", changed(&v4, 46, 0xf0)),
        ] {
            lab.case(name, frame).expect(passed(Reason::MalformedTransport));
        }
        for served in all().iter().filter(|served| served.protocol == Protocol::Udp) {
            let flow = served.request();
            let (frame, length) = (flow.build(), flow.transport() + 4);
            let whole = (frame.len() - flow.transport()) as u16;
            for bad in [0, 7, whole + 1, 0xffff] {
                lab.case(format!("{}: a UDP length of {bad}", served.name), half(&frame, length, bad))
                    .expect(passed(Reason::MalformedTransport));
            }
        }
    });
}

/// The frame with `::ffff:0:0/96` before the last word of the address at an offset.
fn mapped(frame: &[u8], at: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    frame
}

#[test]
fn bytes_between_the_datagram_and_the_end_of_the_ip_packet_go_along() {
    in_lab(|lab| {
        for served in all().iter().filter(|served| served.protocol == Protocol::Udp) {
            let surplus = |mut frame: Vec<u8>| {
                let v4 = served.vip.is_ipv4();
                frame.extend([0xaa; 3]);
                let length = frame.len();
                if v4 {
                    put(&mut frame, 16, length as u16 - 14);
                    put(&mut frame, 24, 0);
                    let sum = !lb_tests::oracle::sum(&frame[14..34]);
                    put(&mut frame, 24, sum);
                } else {
                    put(&mut frame, 18, length as u16 - 54);
                }
                frame
            };
            let request = served.request();
            let out = surplus(served.request_out(&request).build());
            lab.case(format!("{}: UDP's own length counts", served.name), surplus(request.build()))
                .expect(forwarded(served, &out));
            let unfinished = surplus(lb_tests::oracle::unfinished(&request));
            lab.case(format!("{}: also for what is summed", served.name), unfinished)
                .expect(forwarded(served, &out));
        }
    });
}
