//! Transport checksums: absent, complete, unfinished, and those that look like something else.

use lb_common::abi::names;
use lb_tests::frame::{Flow, get, put};
use lb_tests::oracle;
use lb_userspace::dataplane::devices::Mode as Attached;
use lb_userspace::model::Protocol;

use crate::case::{TX, forwarded, returned};
use crate::lab::{LOOPBACK, Lab, Served, all, in_lab, nat, served};

/// Payloads around every step in which the program sums: nothing, odd ends, 64, 512 and whole segments.
const LENGTHS: [usize; 20] =
    [0, 1, 2, 3, 4, 5, 43, 44, 45, 63, 64, 65, 491, 492, 493, 511, 512, 513, 1459, 1460];

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + 3) as u8).collect()
}

/// The next packet is seen as by a program that runs on socket buffers.
fn generic(lab: &Lab<'_>) {
    let mut interfaces = lab.kernel.dataplane.interfaces().expect("the devices are pinned");
    interfaces.devices().set_mode(LOOPBACK, Attached::Generic).expect("room for an interface");
}

/// Both directions of a service, as the balancer gets them and as they should leave.
fn directions(served: &Served, payload: &[u8]) -> Vec<(Flow, Flow)> {
    let request = served.request().data().carrying(payload);
    let mut both = vec![(request.clone(), served.request_out(&request))];
    if served.name.ends_with("nat") {
        let reply = served.reply().carrying(payload);
        both.push((reply.clone(), served.reply_out(&reply)));
    }
    both
}

#[test]
fn unfinished_checksums_are_finished_in_native_mode() {
    in_lab(|lab| {
        for served in all() {
            for length in LENGTHS {
                for (n, (packet, out)) in directions(&served, &bytes(length)).into_iter().enumerate() {
                    let out = out.build();
                    oracle::check(&out);
                    let expected = if n == 0 { forwarded(&served, &out) } else { returned(&served, &out) };
                    lab.case(
                        format!("{}: {length} bytes get their checksum", served.name),
                        oracle::unfinished(&packet),
                    )
                    .expect(expected);
                }
            }
        }
    });
}

#[test]
fn segments_of_every_length_are_finished() {
    in_lab(|lab| {
        let runner = lab.kernel.runner();
        for served in nat() {
            for length in (0..=1460).chain([2047, 2048, 3000, 3200]) {
                let request = served.request().data().carrying(bytes(length));
                let ran = runner.run(names::BALANCE, &oracle::unfinished(&request), LOOPBACK, 1);
                let ran = ran.expect("the kernel runs it");
                let out = served.request_out(&request).build();
                assert_eq!((ran.action, ran.frame), (TX, out), "{}: {length} bytes", served.name);
            }
        }
    });
}

#[test]
fn unfinished_checksums_stay_unfinished_in_generic_mode() {
    in_lab(|lab| {
        generic(lab);
        for served in all() {
            for length in [0, 1, 512, 1460] {
                for (n, (packet, out)) in directions(&served, &bytes(length)).into_iter().enumerate() {
                    // What the sender would have left for the rewritten packet.
                    let out = oracle::unfinished(&out);
                    let expected = if n == 0 { forwarded(&served, &out) } else { returned(&served, &out) };
                    lab.case(
                        format!("{}: {length} bytes are finished by somebody else", served.name),
                        oracle::unfinished(&packet),
                    )
                    .expect(expected);
                }
            }
        }
    });
}

#[test]
fn complete_checksums_are_updated_in_generic_mode() {
    in_lab(|lab| {
        generic(lab);
        for served in all() {
            for (n, (packet, out)) in directions(&served, b"complete").into_iter().enumerate() {
                let out = out.build();
                let expected = if n == 0 { forwarded(&served, &out) } else { returned(&served, &out) };
                lab.flow(format!("{}: a complete checksum is updated", served.name), &packet)
                    .expect(expected);
            }
        }
    });
}

#[test]
fn a_complete_checksum_that_looks_unfinished_is_not_finished_again() {
    in_lab(|lab| {
        for mode in ["native", "generic"] {
            for served in all() {
                let request = served.request().data().carrying(*b"payload, even..!");
                let length = request.build().len() - request.transport();
                let (request, frame) = oracle::with_checksum(&request, oracle::pseudo(&request, length));
                oracle::check(&frame);
                assert_eq!(
                    frame,
                    oracle::unfinished(&request),
                    "by chance it is what an unfinished one looks like"
                );
                let out = served.request_out(&request).build();
                lab.case(format!("{}: complete by chance, {mode} mode", served.name), frame)
                    .expect(forwarded(&served, &out));
            }
            generic(lab);
        }
    });
}

#[test]
fn datagrams_without_a_checksum_stay_without() {
    in_lab(|lab| {
        let served = served("udp4-nat");
        for (n, (packet, out)) in directions(&served, b"no checksum").into_iter().enumerate() {
            let without = |flow: &Flow| {
                let mut frame = flow.build();
                put(&mut frame, flow.checksum_at(), 0);
                frame
            };
            let out = without(&out);
            let expected = if n == 0 { forwarded(&served, &out) } else { returned(&served, &out) };
            lab.case("zero says that there is no checksum (RFC 768)", without(&packet)).expect(expected);
        }
    });
}

#[test]
fn a_result_of_zero_is_sent_as_the_protocol_wants_it() {
    in_lab(|lab| {
        for served in nat() {
            // Zero is all ones in ones' complement: the payload that makes one makes the other.
            let request = served.request().data().carrying(*b"even");
            let (out, _) = oracle::with_checksum(&served.request_out(&request), 0xffff);
            let request = request.carrying(out.payload.clone());
            let frame = out.build();
            let zero = if served.protocol == Protocol::Udp { 0xffff } else { 0 };
            assert_eq!(get(&frame, out.checksum_at()), zero);
            lab.flow(format!("{}: a complete checksum becomes zero", served.name), &request)
                .expect(forwarded(&served, &frame));
            lab.case(format!("{}: an unfinished one is zero", served.name), oracle::unfinished(&request))
                .expect(forwarded(&served, &frame));
        }
    });
}

#[test]
fn a_checksum_of_all_ones_is_updated() {
    in_lab(|lab| {
        for served in nat().filter(|served| served.protocol == Protocol::Udp) {
            let (request, frame) = oracle::with_checksum(&served.request().carrying(*b"even"), 0xffff);
            assert_eq!(frame, request.build());
            let out = served.request_out(&request).build();
            lab.case(format!("{}: all ones stand for zero", served.name), frame)
                .expect(forwarded(&served, &out));
        }
    });
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    in_lab(|lab| {
        for served in nat() {
            let request = served.request().data();
            // The same error before and after: a receiver must see that the packet was damaged on the way.
            let damage = |flow: &Flow| {
                let mut frame = flow.build();
                let last = frame.len() - 1;
                frame[last] ^= 0x40;
                frame
            };
            let out = damage(&served.request_out(&request));
            lab.case(format!("{}: damage is not hidden", served.name), damage(&request))
                .expect(forwarded(&served, &out));
        }
    });
}
