//! Pings of a service's address are answered where they come in; all others are the kernel's.

use std::collections::BTreeSet;
use std::time::Instant;

use lb_common::abi::names;
use lb_common::icmp::limit;
use lb_common::reason::Reason;
use lb_tests::frame::{get, put};
use lb_tests::icmp::Ping;
use lb_tests::oracle;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::case::{DROP, Expected, TX, passed, refused};
use crate::lab::{LOOPBACK, Lab, Served, address, in_lab, served};

/// The service that an address is counted for: the first by name that listens there.
fn first(v6: bool) -> Served {
    served(if v6 { "tcp6-l2" } else { "tcp4-l2" })
}

/// The ping of a service's client.
fn of(served: &Served) -> Ping {
    Ping::new(served.client.ip(), served.vip.ip())
}

fn answered(served: &Served, frame: &[u8]) -> Expected {
    refused(served, Reason::EchoAnswered).leaving(frame)
}

impl Lab<'_> {
    #[track_caller]
    fn answers(&mut self, what: &str, ping: &Ping) {
        let (v6, out) = (ping.from.is_ipv6(), ping.answered().build());
        self.case(format!("{what}, IPv6 {v6}"), ping.build()).expect(answered(&first(v6), &out));
    }

    #[track_caller]
    fn passes(&mut self, what: &str, frame: Vec<u8>) {
        self.case(what, frame).expect(passed(Reason::Icmp));
    }
}

#[test]
fn pings_of_a_service_are_answered() {
    in_lab(|lab| {
        for v6 in [false, true] {
            let ping = of(&first(v6));
            lab.answers("a ping", &ping);
            for length in [0, 1, 2, 15, 56, 1400] {
                let payload = (0..length).map(|n| (n * 7) as u8).collect();
                lab.answers(&format!("{length} bytes of payload"), &Ping { payload, ..ping.clone() });
            }
            for tags in [vec![7], vec![100, 7]] {
                lab.answers(&format!("tags {tags:?}"), &Ping { tags, ..ping.clone() });
            }
            for ttl in [1, 64, 255] {
                lab.answers(&format!("time to live {ttl}"), &Ping { ttl, ..ping.clone() });
            }
            let mut padded = ping.build();
            padded.extend([0xaa; 9]);
            let mut out = ping.answered().build();
            out.extend([0xaa; 9]);
            lab.case("padding stays", padded).expect(answered(&first(v6), &out));
        }
    });
}

/// Every checksum that a request can carry: what was right is right afterwards, what was wrong is as wrong as before.
#[test]
fn wrong_checksums_stay_wrong() {
    in_lab(|lab| {
        for v6 in [false, true] {
            let ping = of(&first(v6));
            let (right, out) = (ping.build(), ping.answered().build());
            let at = ping.icmp() + 2;
            for sum in (0..=u16::MAX).step_by(509).chain([0, 1, 0xfffe, 0xffff, get(&right, at)]) {
                let (mut frame, mut expected) = (right.clone(), out.clone());
                put(&mut frame, at, sum);
                // As far off as it came, in ones' complement.
                let off = oracle::sum(&[sum.to_be_bytes(), (!get(&right, at)).to_be_bytes()].concat());
                let moved = oracle::sum(&[get(&out, at).to_be_bytes(), off.to_be_bytes()].concat());
                put(&mut expected, at, moved);
                let explained =
                    lab.kernel.runner().explain(&frame, LOOPBACK).expect("the kernel explains").frame;
                let got = get(&explained, at);
                assert!(
                    got == moved || [got, moved].iter().all(|sum| [0, 0xffff].contains(sum)),
                    "{sum:04x} became {got:04x}, not {moved:04x}"
                );
                put(&mut expected, at, got);
                assert_eq!(explained, expected);
            }
        }
    });
}

#[test]
fn what_is_no_ping_of_a_service_is_passed() {
    in_lab(|lab| {
        for v6 in [false, true] {
            let ping = of(&first(v6));
            let name = |what: &str| format!("{what}, IPv6 {v6}");
            let other = address(if v6 { "2001:db8::81" } else { "192.0.2.81" });
            lab.passes(&name("another address"), Ping { to: other, ..ping.clone() }.build());
            lab.passes(&name("a reply"), Ping { reply: true, ..ping.clone() }.build());
            lab.passes(&name("from the address itself"), Ping { from: ping.to, ..ping.clone() }.build());
            let nobody: &[&str] = if v6 {
                &["::", "::1", "ff02::1", "ff0e::7"]
            } else {
                &["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255"]
            };
            for from in nobody {
                lab.passes(
                    &name(&format!("from {from}")),
                    Ping { from: address(from), ..ping.clone() }.build(),
                );
            }
            for byte in [0, 6] {
                let mut macs = ping.macs;
                macs[byte] |= 1;
                lab.passes(&name("to or from a group of machines"), Ping { macs, ..ping.clone() }.build());
            }
            let mut code = ping.build();
            code[ping.icmp() + 1] = 1;
            lab.passes(&name("another code"), code);
            // Neighbour discovery, MLD, redirects, source quench, timestamps: all but requests and errors.
            let ours: &[u8] = if v6 { &[1, 2, 3, 4, 128] } else { &[3, 8, 11, 12] };
            for kind in (0..=u8::MAX).filter(|kind| !ours.contains(kind)) {
                let mut frame = ping.build();
                frame[ping.icmp()] = kind;
                lab.passes(&name(&format!("type {kind}")), frame);
            }
            let mut odd = ping.build();
            // A header of ICMP that is not whole.
            odd.truncate(ping.icmp() + 7);
            if v6 {
                put(&mut odd, 18, 7);
            } else {
                put(&mut odd, 16, 27);
            }
            lab.passes(&name("half a header"), odd);
        }
    });
}

#[test]
fn a_service_may_leave_pings_to_the_kernel() {
    in_lab(|lab| {
        for v6 in [false, true] {
            let ping = of(&first(v6));
            let names = ["tcp", "udp"].into_iter().flat_map(|protocol| {
                ["l2", "nat"].map(|mode| format!("{protocol}{}-{mode}", if v6 { 6 } else { 4 }))
            });
            for (n, name) in names.enumerate() {
                let (out, last) = (ping.answered().build(), n == 3);
                lab.change(&name, |service| service.echo = false);
                if last {
                    lab.passes("nobody answers", ping.build());
                } else {
                    let next = ["tcp4-nat", "udp4-l2", "udp4-nat", "tcp6-nat", "udp6-l2", "udp6-nat"];
                    let next = served(next[n + if v6 { 3 } else { 0 }]);
                    lab.case("the next service answers", ping.build()).expect(answered(&next, &out));
                }
            }
            lab.change(if v6 { "udp6-nat" } else { "udp4-nat" }, |service| service.echo = true);
            let back = served(if v6 { "udp6-nat" } else { "udp4-nat" });
            lab.case("again", ping.build()).expect(answered(&back, &ping.answered().build()));
        }
    });
}

#[test]
fn a_service_that_goes_takes_its_address_along() {
    in_lab(|lab| {
        let ping = of(&first(false));
        lab.answers("before", &ping);
        lab.desired.services.retain(|name, _| !name.contains('4'));
        lab.serve();
        lab.passes("afterwards", ping.build());
        lab.answers("the other family", &of(&first(true)));
    });
}

#[test]
fn no_more_than_so_many_are_answered() {
    in_lab(|lab| {
        let ping = of(&first(true)).build();
        // Each CPU has a bucket of its own: this thread stays on one.
        let mut one = CpuSet::new();
        one.set(sched_getcpu().expect("the kernel knows")).expect("a CPU");
        sched_setaffinity(Pid::from_raw(0), &one).expect("a thread may stay where it is");
        let before = lab.kernel.snapshot();
        let program = lab.kernel.program(names::BALANCE);
        let (began, runs, mut out) = (Instant::now(), 4 * limit::BURST, vec![0; ping.len()]);
        let actions: BTreeSet<_> =
            (0..runs).map(|_| program.run(&ping, &mut out).expect("the kernel runs it")).collect();
        let took = began.elapsed();
        assert_eq!(actions, BTreeSet::from([DROP, TX]));
        let service = lab.kernel.service(first(true).name).id;
        let moved = lab.kernel.snapshot().since(&before);
        let count = |reason: Reason| moved.reasons.get(&(service, reason as usize)).copied().unwrap_or(0);
        let (answered, limited) = (count(Reason::EchoAnswered), count(Reason::EchoLimited));
        assert_eq!(answered + limited, runs);
        // What came back meanwhile: in a slow machine's time more.
        let most = limit::BURST + (took.as_millis() as u64 + 20) * limit::PER_SECOND / 1000;
        assert!((limit::BURST..=most).contains(&answered), "{answered} of {runs} in {took:?}");
    });
}
