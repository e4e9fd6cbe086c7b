//! `lb decap`: packets that `etherparse` put into others come out as they were.

use std::fs;
use std::path::PathBuf;

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, UdpHeader};
use lb_common::abi::names;
use lb_common::decap::Outcome;
use lb_tests::bpf::Program;
use lb_tests::frame::{Flow, TCP, get, put};
use lb_tests::{oracle, require};
use lb_userspace::dataplane::decap::{self, Wanted};
use lb_userspace::dataplane::interfaces::index_of;
use lb_userspace::dataplane::pins::Pins;
use lb_userspace::lab::{Namespace, veth};
use lb_userspace::model::AttachMode;

use crate::case::{DROP, PASS};

const ETH: usize = 14;
/// A balancer and this machine.
const ENDS4: [[u8; 4]; 2] = [[198, 18, 3, 4], [10, 0, 0, 1]];
const ENDS6: [[u16; 8]; 2] = [[0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 9], [0xfd00, 0, 0, 0, 0, 0, 0, 1]];

/// What is around a packet.
#[derive(Clone, Copy, Debug)]
struct Outer {
    v6: bool,
    gue: bool,
    checksum: bool,
    class: u8,
}

impl Outer {
    fn around(self, inner: &[u8]) -> Vec<u8> {
        let packet = &inner[ETH..];
        let inside = if packet[0] >> 4 == 4 { IpNumber::IPV4 } else { IpNumber::IPV6 };
        let [from, to] = ENDS6.map(|words| std::net::Ipv6Addr::from(words).octets());
        let mut content = Vec::new();
        if self.gue {
            let mut udp = UdpHeader {
                source_port: 50_000,
                destination_port: 6080,
                length: (8 + packet.len()) as u16,
                checksum: 0,
            };
            if self.checksum {
                udp.checksum = if self.v6 {
                    udp.calc_checksum_ipv6_raw(from, to, packet).expect("fits")
                } else {
                    udp.calc_checksum_ipv4_raw(ENDS4[0], ENDS4[1], packet).expect("fits")
                };
            }
            udp.write(&mut content).expect("room");
        }
        content.extend(packet);
        let next = if self.gue { IpNumber::UDP } else { inside };
        let mut frame = Vec::new();
        let ethernet = Ethernet2Header {
            destination: inner[..6].try_into().expect("six bytes"),
            source: inner[6..12].try_into().expect("six bytes"),
            ether_type: if self.v6 { EtherType::IPV6 } else { EtherType::IPV4 },
        };
        ethernet.write(&mut frame).expect("room");
        if self.v6 {
            let ip = Ipv6Header {
                traffic_class: self.class,
                payload_length: content.len() as u16,
                next_header: next,
                hop_limit: 9,
                source: from,
                destination: to,
                ..Ipv6Header::default()
            };
            ip.write(&mut frame).expect("room");
        } else {
            let mut ip = Ipv4Header::new(content.len() as u16, 9, next, ENDS4[0], ENDS4[1]).expect("fits");
            ip.dscp = (self.class >> 2).try_into().expect("six bits");
            ip.ecn = (self.class & 3).try_into().expect("two bits");
            ip.header_checksum = ip.calc_header_checksum();
            ip.write(&mut frame).expect("room");
        }
        frame.extend(content);
        frame
    }
}

/// The program on an interface of its own, and what it counted.
struct Rig {
    pins: Pins,
    program: Program,
}

impl Rig {
    /// Runs a frame, and sees that exactly one outcome was counted: this one.
    #[track_caller]
    fn expect(&self, sentence: &str, frame: &[u8], outcome: Outcome, out: &[u8]) {
        let before = self.counts();
        let mut buffer = vec![0; 4096];
        let ran = self.program.run_whole(frame, &mut buffer).expect("the kernel runs it");
        let after = self.counts();
        let moved: Vec<_> = after.iter().zip(&before).filter(|(now, was)| now != was).collect();
        let named: Vec<_> = moved.iter().map(|(now, was)| (now.0, now.1 - was.1)).collect();
        assert_eq!(named, [(outcome, 1)], "{sentence}");
        let (action, length) = ran;
        assert_eq!(action, if outcome.dropped() { DROP } else { PASS }, "{sentence}");
        if !outcome.dropped() {
            assert_eq!(&buffer[..length], out, "{sentence}");
        }
    }

    fn counts(&self) -> Vec<(Outcome, u64)> {
        decap::attached(&self.pins).expect("pins can be read").remove(0).counts
    }
}

fn rig(wanted: &Wanted, test: impl FnOnce(&Rig) + Send) {
    if !require::root() {
        return;
    }
    let namespace = Namespace::create_unique("lbdec").expect("a network namespace");
    let root = PathBuf::from(format!("/sys/fs/bpf/{}", namespace.name()));
    let inside = || {
        // Else the ends of the pair look for neighbours, and the program counts what they send.
        namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1").expect("a new namespace has it");
        veth(&namespace, "d0", &namespace, "d1").expect("a pair of veths");
        let index = index_of("d0").expect("it was just made");
        let pins = Pins::new(&root);
        decap::attach(&pins, index, "d0", AttachMode::Native, wanted).expect("it attaches");
        let above = PathBuf::from(format!("{}-decap", root.display()));
        let place =
            fs::read_dir(&above).expect("pins").next().expect("a namespace").expect("its pins").path();
        let program = place.join(format!("{index}-maps")).join(names::DECAP_PROGRAM);
        let program = Program::open(&program).expect("the program is pinned");
        test(&Rig { pins: Pins::new(&root), program });
        assert!(decap::detach(&pins, index).expect("it detaches"));
        fs::remove_dir(&place).expect("nothing is left");
        fs::remove_dir(&above).expect("nothing is left");
    };
    namespace.run(inside).expect("the namespace can be entered");
}

fn wanted() -> Wanted {
    Wanted {
        sources: ["198.18.0.0/15", "2001:db8:f::/64"].map(|text| text.parse().expect("a prefix")).into(),
        addresses: vec![ENDS4[1].into(), ENDS6[1].into()],
        ipip: true,
        gue: Some(6080),
    }
}

/// Inner packets of both families.
fn inner() -> [Vec<u8>; 2] {
    [("198.51.100.7:5000", "192.0.2.80:80"), ("[2001:db8:1::7]:5000", "[2001:db8::80]:80")].map(
        |(from, to)| {
            let flow = Flow::new(TCP, from.parse().expect("a socket"), to.parse().expect("a socket"));
            flow.data().carrying(vec![0x5a; 1001]).build()
        },
    )
}

fn every_outer(test: impl Fn(Outer)) {
    for v6 in [false, true] {
        for (gue, checksum) in [(false, false), (true, false), (true, true)] {
            test(Outer { v6, gue, checksum, class: 0 });
        }
    }
}

#[test]
fn packets_come_out_as_they_were() {
    rig(&wanted(), |rig| {
        every_outer(|outer| {
            for inner in inner() {
                rig.expect(&format!("{outer:?}"), &outer.around(&inner), Outcome::Opened, &inner);
                let padded = [outer.around(&inner), vec![0; 20]].concat();
                let out = [inner.clone(), vec![0; 20]].concat();
                rig.expect("padding stays behind", &padded, Outcome::Opened, &out);
            }
        });
    });
}

#[test]
fn congestion_on_the_way_is_told() {
    rig(&wanted(), |rig| {
        every_outer(|outer| {
            let [mut v4, mut v6] = inner();
            let congested = Outer { class: 3, ..outer };
            for plain in [&v4, &v6] {
                rig.expect("not capable", &congested.around(plain), Outcome::Congested, plain);
            }
            let class = |frame: &mut Vec<u8>, class: u8| {
                if frame[ETH] >> 4 == 4 {
                    frame[ETH + 1] = class;
                    put(frame, ETH + 10, 0);
                    let right = !oracle::sum(&frame[ETH..ETH + 20]);
                    put(frame, ETH + 10, right);
                } else {
                    let label = get(frame, ETH) & 0xf00f;
                    put(frame, ETH, label | u16::from(class) << 4);
                }
            };
            for frame in [&mut v4, &mut v6] {
                class(frame, 46 << 2 | 2);
                let around = congested.around(frame);
                class(frame, 46 << 2 | 3);
                rig.expect("capable", &around, Outcome::Opened, frame);
            }
        });
    });
}

#[test]
fn what_is_not_ours_is_passed_as_it_is() {
    rig(&wanted(), |rig| {
        let [v4, v6] = inner();
        for frame in [&v4, &v6] {
            rig.expect("no tunnel", frame, Outcome::NotATunnel, frame);
        }
        rig.expect("no IP", &[0; 60], Outcome::NotATunnel, &[0; 60]);
        every_outer(|outer| {
            let changed = |at: [usize; 2], xor: u8| {
                let mut frame = outer.around(&v4);
                frame[at[usize::from(outer.v6)]] ^= xor;
                if !outer.v6 {
                    put(&mut frame, ETH + 10, 0);
                    let right = !oracle::sum(&frame[ETH..ETH + 20]);
                    put(&mut frame, ETH + 10, right);
                }
                frame
            };
            let source = changed([ETH + 12, ETH + 8], 8);
            rig.expect("another source", &source, Outcome::ForeignSource, &source);
            let address = changed([ETH + 19, ETH + 39], 2);
            rig.expect("another address", &address, Outcome::OtherAddress, &address);
            if !outer.v6 {
                let fragment = changed([ETH + 6, 0], 0x20);
                rig.expect("a fragment", &fragment, Outcome::Unusual, &fragment);
            }
            if outer.gue {
                let port = changed([ETH + 20 + 3, ETH + 40 + 3], 1);
                rig.expect("another port", &port, Outcome::NotATunnel, &port);
            }
        });
    });
}

#[test]
fn what_cannot_be_opened_is_dropped() {
    rig(&wanted(), |rig| {
        every_outer(|outer| {
            let extra = if outer.v6 { 40 } else { 20 } + if outer.gue { 8 } else { 0 };
            let changed = |at: usize, xor: u8| {
                let mut frame = Outer { checksum: false, ..outer }.around(&inner()[0]);
                frame[at] ^= xor;
                frame
            };
            rig.expect("no version", &changed(ETH + extra, 0x80), Outcome::Malformed, &[]);
            rig.expect("longer than it is", &changed(ETH + extra + 2, 0x20), Outcome::Malformed, &[]);
            let mut over = inner()[0].clone();
            over[ETH + 8] = 0;
            rig.expect("no hop left", &outer.around(&over), Outcome::Expired, &[]);
            if outer.checksum {
                let mut frame = outer.around(&inner()[0]);
                *frame.last_mut().expect("bytes") ^= 1;
                rig.expect("a wrong checksum", &frame, Outcome::BadChecksum, &[]);
            }
            let whole = outer.around(&inner()[0]);
            rig.expect("cut short", &whole[..whole.len() - 1], Outcome::Malformed, &[]);
        });
    });
}

#[test]
fn kinds_that_are_not_wanted_are_passed() {
    let inner = inner();
    let plain = Outer { v6: false, gue: false, checksum: false, class: 0 };
    let gue = Outer { gue: true, ..plain };
    for (wanted, opened, passed) in
        [(Wanted { gue: None, ..wanted() }, plain, gue), (Wanted { ipip: false, ..wanted() }, gue, plain)]
    {
        rig(&wanted, |rig| {
            rig.expect("wanted", &opened.around(&inner[0]), Outcome::Opened, &inner[0]);
            let frame = passed.around(&inner[0]);
            rig.expect("not wanted", &frame, Outcome::NotATunnel, &frame);
        });
    }
}
