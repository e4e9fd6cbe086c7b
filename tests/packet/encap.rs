//! Encapsulation: what leaves is built anew by `etherparse`, outer header by outer header.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header,
    Ipv6FlowLabel, Ipv6Header, UdpHeader, icmpv4, icmpv6,
};
use lb_common::abi::names;
use lb_common::reason::Reason;
use lb_tests::fragments::cut;
use lb_tests::frame::{FROM_CLIENT, Flow, Macs, get, put};
use lb_userspace::model::{Backend, EncapChecksum, Mode};
use lb_userspace::plan::NextHop;

use crate::case::{TX, forwarded, refused};
use crate::lab::{LOOPBACK, Lab, Served, address, all, hop, in_lab};

/// Where outer packets come from.
pub(crate) const SOURCES: [&str; 2] = ["192.0.2.250/32", "2001:db8::250/128"];
/// Bytes of the Ethernet header.
const ETH: usize = 14;
/// The way to every backend.
const MTU: u32 = 1500;

/// Serves a service in another mode, with one backend of a family.
pub(crate) fn encapsulating(lab: &mut Lab<'_>, served: &Served, mode: Mode, v6: bool) -> Served {
    let backend: IpAddr = if v6 { address("fd00::77") } else { address("10.0.0.77") };
    let backend = SocketAddr::new(backend, served.vip.port());
    let next = NextHop { macs: hop(77), ifindex: LOOPBACK, mtu: MTU };
    lab.kernel.hops.insert(backend.ip(), next);
    let [v4_source, v6_source] = SOURCES;
    let sources = (v4_source.parse().expect("a prefix"), v6_source.parse().expect("a prefix"));
    lab.kernel.tables.settings.set_sources(Some(sources.0), Some(sources.1)).expect("there are settings");
    lab.change(served.name, |service| {
        service.mode = mode;
        service.backends = [(backend, Backend::new(backend, 100))].into();
    });
    Served { mode, backend, macs: hop(77), ..served.clone() }
}

/// What varies between flows in outer headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Varied {
    label: u16,
    port: u16,
}

impl Varied {
    pub(crate) fn of(outer: &[u8], mode: Mode, v6: bool) -> Self {
        let udp = ETH + if v6 { 40 } else { 20 };
        Self {
            label: if v6 { get(outer, ETH + 2) } else { 0 },
            port: if mode == Mode::Gue { get(outer, udp) } else { 0 },
        }
    }
}

/// The frame around an inner one.
pub(crate) fn around(inner: &[u8], served: &Served, class: u8, varied: Varied) -> Vec<u8> {
    let packet = &inner[ETH..];
    let inside = if packet[0] >> 4 == 4 { IpNumber::IPV4 } else { IpNumber::IPV6 };
    let mut content = Vec::new();
    if served.mode == Mode::Gue {
        let udp = UdpHeader {
            source_port: varied.port,
            destination_port: 6080,
            length: (8 + packet.len()) as u16,
            checksum: 0,
        };
        udp.write(&mut content).expect("room");
    }
    content.extend(packet);
    let next = if served.mode == Mode::Gue { IpNumber::UDP } else { inside };
    let mut frame = Vec::new();
    match served.backend.ip() {
        IpAddr::V4(to) => {
            ethernet(served.macs, EtherType::IPV4).write(&mut frame).expect("room");
            let mut ip =
                Ipv4Header::new(content.len() as u16, 64, next, [192, 0, 2, 250], to.octets()).expect("fits");
            ip.dscp = (class >> 2).try_into().expect("six bits");
            ip.ecn = (class & 3).try_into().expect("two bits");
            ip.dont_fragment = true;
            ip.header_checksum = ip.calc_header_checksum();
            ip.write(&mut frame).expect("room");
        }
        IpAddr::V6(to) => {
            ethernet(served.macs, EtherType::IPV6).write(&mut frame).expect("room");
            let IpAddr::V6(from) = address("2001:db8::250") else { unreachable!("an IPv6 address") };
            let ip = Ipv6Header {
                traffic_class: class,
                flow_label: Ipv6FlowLabel::try_new(varied.label.into()).expect("twenty bits"),
                payload_length: content.len() as u16,
                next_header: next,
                hop_limit: 64,
                source: from.octets(),
                destination: to.octets(),
            };
            ip.write(&mut frame).expect("room");
        }
    }
    frame.extend(content);
    frame
}

fn ethernet(macs: Macs, ether_type: EtherType) -> Ethernet2Header {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = macs;
    Ethernet2Header { destination: [d0, d1, d2, d3, d4, d5], source: [s0, s1, s2, s3, s4, s5], ether_type }
}

/// What the balancer makes of a frame.
pub(crate) fn sent(lab: &Lab<'_>, frame: &[u8]) -> Vec<u8> {
    let ran = lab.kernel.runner().run(names::BALANCE, frame, LOOPBACK, 1).expect("the kernel runs it");
    assert_eq!(ran.action, TX);
    ran.frame
}

/// Every kind of outer header around every kind of packet.
fn every_pair(test: impl Fn(&mut Lab<'_>, &Served, bool) + Sync) {
    in_lab(|lab| {
        for served in all().iter().filter(|served| served.mode == Mode::L2) {
            for mode in [Mode::Ipip, Mode::Gue] {
                for v6 in [false, true] {
                    let served = encapsulating(lab, served, mode, v6);
                    test(lab, &served, v6);
                }
            }
        }
    });
}

#[test]
fn fragments_travel_whole_inside_others_as_one_flow() {
    every_pair(|lab, served, v6| {
        let parts = cut(&served.request().data().carrying(vec![7; 2000]).build(), 5, 800);
        let varied = Varied::of(&sent(lab, &parts[0]), served.mode, v6);
        for part in parts {
            let out = around(&part, served, 0, varied);
            lab.case(format!("{} {}: a fragment", served.name, served.mode), part)
                .expect(forwarded(served, &out));
        }
    });
}

#[test]
fn packets_travel_whole_inside_others() {
    every_pair(|lab, served, v6| {
        let request = served.request();
        let frame = request.build();
        let varied = Varied::of(&sent(lab, &frame), served.mode, v6);
        assert!(served.mode == Mode::Ipip || varied.port >= 0xc000, "a dynamic port: {varied:?}");
        let new = served.request().build();
        let out = around(&new, served, 0, varied);
        let sentence = format!("{} {} to {}", served.name, served.mode, served.backend);
        let expected = forwarded(served, &out);
        let expected = if served.name.starts_with("tcp") { expected.new_flow() } else { expected };
        lab.flow(format!("{sentence}: whole"), &request).expect(expected);
        // A later packet of the flow looks the same from outside.
        let later = served.request().data().carrying(vec![7; 700]);
        let out = around(&later.build(), served, 0, varied);
        lab.flow(format!("{sentence}: its flow stays together"), &later).expect(forwarded(served, &out));
    });
}

#[test]
fn padding_does_not_travel_as_part_of_the_packet() {
    every_pair(|lab, served, v6| {
        let mut flow = served.request().data().carrying(*b"");
        flow.macs = FROM_CLIENT;
        let mut frame = flow.build();
        let whole = frame.len();
        frame.extend([0; 20]);
        let out = sent(lab, &frame);
        let outer = around(&frame[..whole], served, 0, Varied::of(&out, served.mode, v6));
        assert_eq!(out[..outer.len()], outer, "lengths are those of the packet, not of the frame");
    });
}

#[test]
fn the_outer_header_has_the_class_of_the_inner_one() {
    every_pair(|lab, served, v6| {
        // Expedited forwarding, congestion experienced.
        let class = 46 << 2 | 3;
        let mut frame = served.request().data().build();
        if served.vip.is_ipv4() {
            frame[ETH + 1] = class;
            put(&mut frame, ETH + 10, 0);
            let right = !lb_tests::oracle::sum(&frame[ETH..ETH + 20]);
            put(&mut frame, ETH + 10, right);
        } else {
            put(&mut frame, ETH, 0x6000 | u16::from(class) << 4);
        }
        let varied = Varied::of(&sent(lab, &frame), served.mode, v6);
        let out = around(&frame, served, class, varied);
        lab.case("class", frame).expect(forwarded(served, &out));
    });
}

#[test]
fn flows_differ_from_outside() {
    in_lab(|lab| {
        for mode in [Mode::Ipip, Mode::Gue] {
            for v6 in [false, true] {
                let served = crate::lab::served("tcp4-l2");
                let served = encapsulating(lab, &served, mode, v6);
                let prefixes =
                    (Some("198.18.0.0/16".parse().unwrap()), Some("2001:db8:f::/64".parse().unwrap()));
                lab.kernel.tables.settings.set_sources(prefixes.0, prefixes.1).unwrap();
                let outside: BTreeSet<Vec<u8>> = (0..200)
                    .map(|n| {
                        let mut flow = served.request().data();
                        flow.from.set_port(10_000 + n);
                        let out = sent(lab, &flow.build());
                        let (source, prefix): (_, &[u8]) = if v6 {
                            (&out[ETH + 8..ETH + 24], &[0x20, 0x01, 0x0d, 0xb8, 0, 0x0f, 0, 0])
                        } else {
                            (&out[ETH + 12..ETH + 16], &[198, 18])
                        };
                        assert!(source.starts_with(prefix), "{source:?}");
                        if mode == Mode::Ipip {
                            source.to_vec()
                        } else {
                            get(&out, ETH + if v6 { 40 } else { 20 }).to_be_bytes().to_vec()
                        }
                    })
                    .collect();
                assert!(outside.len() > 190, "{mode}: {} of 200 differ", outside.len());
            }
        }
    });
}

/// What a client is told whose packet is too big.
fn told(served: &Served, frame: &[u8], mtu: u32) -> Vec<u8> {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = FROM_CLIENT;
    let back = [s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5];
    let quote = &frame[ETH..ETH + 128];
    let mut out = Vec::new();
    match (served.vip.ip(), served.client.ip()) {
        (IpAddr::V4(vip), IpAddr::V4(client)) => {
            ethernet(back, EtherType::IPV4).write(&mut out).expect("it can be written");
            let mut ip = Ipv4Header::new(136, 64, IpNumber::ICMP, vip.octets(), client.octets())
                .expect("it can be written");
            ip.header_checksum = ip.calc_header_checksum();
            ip.write(&mut out).expect("it can be written");
            let kind = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu as u16 };
            Icmpv4Header::with_checksum(Icmpv4Type::DestinationUnreachable(kind), quote)
                .write(&mut out)
                .expect("it can be written");
        }
        (IpAddr::V6(vip), IpAddr::V6(client)) => {
            ethernet(back, EtherType::IPV6).write(&mut out).expect("it can be written");
            let ip = Ipv6Header {
                payload_length: 136,
                next_header: IpNumber::IPV6_ICMP,
                hop_limit: 64,
                source: vip.octets(),
                destination: client.octets(),
                ..Ipv6Header::default()
            };
            ip.write(&mut out).expect("it can be written");
            let kind = Icmpv6Type::PacketTooBig { mtu };
            let header = Icmpv6Header::with_checksum(kind, vip.octets(), client.octets(), quote)
                .expect("it can be written");
            header.write(&mut out).expect("it can be written");
            let _: u8 = icmpv6::TYPE_PACKET_TOO_BIG;
        }
        _ => unreachable!("a service and its clients are of one family"),
    }
    out.extend(quote);
    out
}

#[test]
fn whoever_sends_too_much_is_told_how_much_fits() {
    every_pair(|lab, served, v6| {
        let overhead = if v6 { 40 } else { 20 } + if served.mode == Mode::Gue { 8 } else { 0 };
        let fits = MTU - overhead;
        let empty = served.request().data().carrying(*b"").build().len() - ETH;
        let of = |length: u32| served.request().data().carrying(vec![9; length as usize - empty]);
        let (largest, beyond): (Flow, Flow) = (of(fits), of(fits + 1));
        let sentence = format!("{} {} to {}", served.name, served.mode, served.backend);
        let out = sent(lab, &largest.build());
        assert_eq!(out.len() - ETH, MTU as usize, "{sentence}: the largest that fits");
        let frame = beyond.build();
        let answer = told(served, &frame, fits);
        lab.flow(format!("{sentence}: a byte more"), &beyond)
            .expect(refused(served, Reason::ToldTooBig).answered(&answer));
    });
}

#[test]
fn answers_are_limited() {
    in_lab(|lab| {
        let served = encapsulating(lab, &crate::lab::served("tcp4-l2"), Mode::Ipip, false);
        let frame = served.request().data().carrying(vec![9; 1460]).build();
        let before = lab.kernel.snapshot();
        let program = lab.kernel.program(names::BALANCE);
        let mut buffer = vec![0; 2048];
        let rounds = 5000;
        for _ in 0..rounds {
            program.run(&frame, &mut buffer).expect("the kernel runs it");
        }
        let moved = lab.kernel.snapshot().since(&before).reasons;
        let service = lab.kernel.service(served.name).id;
        let count = |reason: Reason| moved.get(&(service, reason as usize)).copied().unwrap_or_default();
        assert_eq!(count(Reason::ToldTooBig) + count(Reason::TooBig), rounds);
        // A thousand a second and CPU; the loop may see several seconds.
        assert!(count(Reason::ToldTooBig) >= 1000, "{moved:?}");
        assert!(count(Reason::TooBig) > 0, "{moved:?}");
    });
}

#[test]
fn without_a_source_nothing_is_sent() {
    every_pair(|lab, served, _| {
        lab.kernel.tables.settings.set_sources(None, None).expect("there are settings");
        lab.flow("no source", &served.request().data()).expect(refused(served, Reason::NoOuterSource));
    });
}

/// The frame behind VLAN tags.
fn tagged(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let tags: Vec<u8> = tags.iter().flat_map(|tag| [tag.to_be_bytes(), [0, 7]].concat()).collect();
    [&frame[..12], &tags, &frame[12..]].concat()
}

#[test]
fn tags_stay_behind_and_come_back_with_answers() {
    every_pair(|lab, served, v6| {
        for tags in [&[0x8100][..], &[0x88a8, 0x8100]] {
            let frame = served.request().data().carrying(vec![3; 301]).build();
            let out = sent(lab, &tagged(&frame, tags));
            let varied = Varied::of(&out, served.mode, v6);
            assert_eq!(out, around(&frame, served, 0, varied), "{} with {tags:x?}", served.name);

            let overhead = if v6 { 40 } else { 20 } + if served.mode == Mode::Gue { 8 } else { 0 };
            let large = served.request().data().carrying(vec![9; 1460]).build();
            let answer = tagged(&told(served, &large, MTU - overhead), tags);
            assert_eq!(sent(lab, &tagged(&large, tags)), answer, "{} with {tags:x?}", served.name);
        }
    });
}

#[test]
fn outer_checksums_are_right_where_they_are_asked_for() {
    every_pair(|lab, served, v6| {
        lab.change(served.name, |service| service.encap_checksum = EncapChecksum::Udp);
        for length in [0, 1, 2, 3, 511, 512, 1380] {
            let frame = served.request().data().carrying(vec![0xa5; length]).build();
            let mut out = sent(lab, &frame);
            let varied = Varied::of(&out, served.mode, v6);
            let (ip, addresses) = if v6 { (40, 8..40) } else { (20, 12..20) };
            if served.mode == Mode::Gue {
                let udp = &out[ETH + ip..];
                let pseudo = [&out[ETH..][addresses], &[0, 17], &(udp.len() as u16).to_be_bytes()].concat();
                assert_eq!(lb_tests::oracle::sum(&[&pseudo, udp].concat()), 0xffff, "{length} bytes");
                assert_ne!(get(&out, ETH + ip + 6), 0);
                put(&mut out, ETH + ip + 6, 0);
            }
            assert_eq!(out, around(&frame, served, 0, varied), "{length} bytes: nothing else differs");
        }
    });
}
