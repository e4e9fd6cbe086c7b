//! Towards backends and back: which bytes change, and through which interface they leave.

use lb_common::reason::Reason;
use lb_tests::frame::Kind;
use lb_tests::oracle;
use lb_userspace::model::Protocol;

use crate::case::{forwarded, refused, returned};
use crate::lab::{all, in_lab, nat, served};

#[test]
fn requests_are_rewritten_towards_the_backend() {
    in_lab(|lab| {
        for served in all() {
            for kind in [Kind::Syn, Kind::Data] {
                let mut request = served.request();
                request.kind = kind;
                let out = served.request_out(&request).build();
                oracle::check(&out);
                let expected = forwarded(&served, &out);
                let opens = kind == Kind::Syn && served.protocol == Protocol::Tcp;
                let expected = if opens { expected.new_flow() } else { expected };
                lab.flow(format!("{}: a {kind:?} goes to its backend", served.name), &request)
                    .expect(expected);
            }
        }
    });
}

#[test]
fn replies_are_returned_in_the_name_of_the_service() {
    in_lab(|lab| {
        for served in nat() {
            let reply = served.reply();
            let out = served.reply_out(&reply).build();
            oracle::check(&out);
            lab.flow(format!("{}: a reply goes to its client", served.name), &reply)
                .expect(returned(&served, &out));
        }
    });
}

#[test]
fn packets_leave_through_the_interface_of_their_next_hop() {
    in_lab(|lab| {
        let out = lab.veth("out0", "out1");
        lab.behind(out);
        for served in all() {
            let request = served.request().data();
            let frame = served.request_out(&request).build();
            lab.flow(format!("{}: nothing leaves where it is not allowed", served.name), &request)
                .expect(refused(&served, Reason::NoDevice));
            lab.flow(format!("{}: but where it came in", served.name), &request)
                .from(out)
                .expect(forwarded(&served, &frame).through(out));
        }
        lab.allow(out);
        for served in all() {
            let request = served.request().data();
            let frame = served.request_out(&request).build();
            lab.flow(format!("{}: redirected where it is allowed", served.name), &request)
                .expect(forwarded(&served, &frame).through(out));
        }
        for served in nat() {
            let reply = served.reply();
            let frame = served.reply_out(&reply).build();
            lab.flow(
                format!("{}: a reply from elsewhere finds no device to its client", served.name),
                &reply,
            )
            .from(out)
            .expect(refused(&served, Reason::NoDevice));
            lab.flow(format!("{}: and does where it came in", served.name), &reply)
                .expect(returned(&served, &frame));
        }
    });
}

#[test]
fn padding_is_not_payload() {
    in_lab(|lab| {
        for served in all() {
            for padding in [1, 6, 26] {
                let request = served.request().data().carrying(*b"x");
                let pad = |mut frame: Vec<u8>| {
                    frame.extend(std::iter::repeat_n(0xaa, padding));
                    frame
                };
                let out = pad(served.request_out(&request).build());
                lab.case(
                    format!("{}: {padding} bytes of padding go along", served.name),
                    pad(request.build()),
                )
                .expect(forwarded(&served, &out));
            }
        }
    });
}

#[test]
fn tcp_options_and_flags_stay() {
    in_lab(|lab| {
        for name in ["tcp4-nat", "tcp6-nat"] {
            let served = served(name);
            let mut request = served.request().data().carrying(vec![1; 40]).build();
            let mut out = served.request_out(&served.request().data().carrying(vec![1; 40])).build();
            // The first eight bytes of the payload become options, FIN, PSH and URG are set: sums change alike.
            for (frame, flow) in [
                (&mut request, served.request().data()),
                (&mut out, served.request_out(&served.request().data())),
            ] {
                let at = flow.transport();
                frame[at + 12] = 0x70;
                frame[at + 13] |= 0x29;
                lb_tests::frame::put(frame, flow.checksum_at(), 0);
                let sum = oracle::sum(
                    &[&frame[at..], &oracle::pseudo(&flow, frame.len() - at).to_be_bytes()].concat(),
                );
                lb_tests::frame::put(frame, flow.checksum_at(), !sum);
                oracle::check(frame);
            }
            lab.case(format!("{name}: options and flags stay as they are"), request)
                .expect(forwarded(&served, &out));
        }
    });
}
