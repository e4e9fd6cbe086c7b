//! Frames: what comes to a balancer, and what nobody should send.

use std::net::{IpAddr, SocketAddr};

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4, icmpv6};
use lb_fuzz::frame::{Flow, Kind, TCP, UDP, get, put};
use lb_fuzz::oracle;

use crate::Seeds;

/// Tag of a customer (IEEE 802.1Q) and of a provider (IEEE 802.1ad).
const CUSTOMER: u16 = 0x8100;
const PROVIDER: u16 = 0x88a8;

/// Four kinds of flows, by name: whether IPv6, and the protocol.
pub(crate) const FLOWS: [(&str, bool, u8); 4] =
    [("tcp4", false, TCP), ("tcp6", true, TCP), ("udp4", false, UDP), ("udp6", true, UDP)];

fn ends(v6: bool) -> [SocketAddr; 3] {
    let public = |net, last| IpAddr::from([0x2001, 0xdb8, net, 0, 0, 0, 0, last]);
    let [client, vip, backend] = if v6 {
        [public(1, 7), public(0, 0x80), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])]
    } else {
        [IpAddr::from([198, 51, 100, 7]), IpAddr::from([192, 0, 2, 80]), IpAddr::from([10, 0, 0, 1])]
    };
    [(client, 5000).into(), (vip, 80).into(), (backend, 8080).into()]
}

/// A client's packet to the service.
pub(crate) fn request(v6: bool, protocol: u8) -> Flow {
    let [client, vip, _] = ends(v6);
    Flow::new(protocol, client, vip)
}

/// What the first backend answers.
pub(crate) fn reply(v6: bool, protocol: u8) -> Flow {
    let [client, _, backend] = ends(v6);
    Flow::new(protocol, backend, client).data()
}

fn is_v6(frame: &[u8]) -> bool {
    get(frame, 12) == 0x86dd
}

/// Behind tags.
pub(crate) fn tagged(mut frame: Vec<u8>, tags: &[u16]) -> Vec<u8> {
    for tag in tags.iter().rev() {
        let [a, b] = tag.to_be_bytes();
        frame.splice(12..12, [a, b, 0xa0, 7]);
    }
    frame
}

/// With words of IPv4 options: 1 is no operation (RFC 791, section 3.1).
pub(crate) fn options(mut frame: Vec<u8>, words: u8) -> Vec<u8> {
    frame.splice(34..34, vec![1; usize::from(words) * 4]);
    frame[14] += words;
    let length = (frame.len() - 14) as u16;
    put(&mut frame, 16, length);
    with_header_sum(frame)
}

/// With IPv6 extension headers (RFC 8200, section 4; RFC 4302, section 2).
pub(crate) fn extended(mut frame: Vec<u8>, kinds: &[u8]) -> Vec<u8> {
    for kind in kinds.iter().rev() {
        let next = frame[20];
        match kind {
            43 => drop(frame.splice(54..54, [next, 0, 0, 0, 0, 0, 0, 0])),
            44 => drop(frame.splice(54..54, [next, 0, 0, 1, 0, 0, 0, 9])),
            51 => drop(frame.splice(54..54, [next, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0])),
            _ => drop(frame.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0])),
        }
        frame[20] = *kind;
    }
    let length = (frame.len() - 54) as u16;
    put(&mut frame, 18, length);
    frame
}

fn with_header_sum(mut frame: Vec<u8>) -> Vec<u8> {
    put(&mut frame, 24, 0);
    let sum = !oracle::sum(&frame[14..14 + usize::from(frame[14] & 0xf) * 4]);
    put(&mut frame, 24, sum);
    frame
}

/// With a 16-bit field changed.
pub(crate) fn with(mut frame: Vec<u8>, at: usize, value: u16) -> Vec<u8> {
    put(&mut frame, at, value);
    if is_v6(&frame) || frame[14] >> 4 != 4 || frame[14] & 0xf < 5 { frame } else { with_header_sum(frame) }
}

/// An ICMP error about a packet, of which `length` bytes from its IP header on are sent back.
pub(crate) fn error(about: &[u8], kind: &str, length: usize) -> Vec<u8> {
    let packet = &about[14..about.len().min(14 + length)];
    let eth = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut frame = Vec::new();
    // From a router on the way, to whoever seems to have sent the packet.
    let written = if is_v6(about) {
        let router = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let icmp = match kind {
            "port" => Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port),
            "mtu" => Icmpv6Type::PacketTooBig { mtu: 1280 },
            _ => Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
        };
        let to = about[22..38].try_into().expect("an address");
        eth.ipv6(router, to, 64).icmpv6(icmp).write(&mut frame, packet)
    } else {
        let icmp = match kind {
            "port" => Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port),
            "mtu" => {
                let next_hop_mtu = 1280;
                Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu,
                })
            }
            _ => Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
        };
        let to = about[26..30].try_into().expect("an address");
        eth.ipv4([198, 51, 100, 1], to, 64).icmpv4(icmp).write(&mut frame, packet)
    };
    written.expect("an error that can be written");
    frame
}

/// A packet of the service to its client: what errors are about.
pub(crate) fn answer(v6: bool, protocol: u8) -> Vec<u8> {
    request(v6, protocol).answered().build()
}

pub(crate) fn all() -> Seeds {
    let mut all = Seeds::new();
    let mut add = |name: String, frame: Vec<u8>| assert!(all.insert(name.clone(), frame).is_none(), "{name}");
    for (name, v6, protocol) in FLOWS {
        let request = request(v6, protocol);
        let frame = request.build();
        let kinds = [("syn", Kind::Syn), ("data", Kind::Data), ("fin", Kind::Fin), ("rst", Kind::Rst)];
        for (kind, which) in if protocol == TCP { &kinds[..] } else { &[("datagram", Kind::Data)] } {
            add(format!("{name}-{kind}"), Flow { kind: *which, ..request.clone() }.build());
        }
        add(format!("{name}-unfinished"), oracle::unfinished(&request));
        if protocol == TCP {
            add(format!("{name}-padded"), [&frame[..], &[0xaa; 9]].concat());
            add(format!("{name}-cut"), frame[..frame.len() - 1].to_vec());
            add(format!("{name}-tagged"), tagged(frame.clone(), &[CUSTOMER]));
            add(format!("{name}-tagged-twice"), tagged(frame.clone(), &[PROVIDER, CUSTOMER]));
        } else {
            // Eight bytes of the transport header are all that RFC 792 promises.
            let shortest = if v6 { 48 } else { 28 };
            add(format!("icmp-short-{name}"), error(&answer(v6, protocol), "port", shortest));
            add(format!("{name}-reply"), reply(v6, protocol).build());
            add(format!("{name}-empty"), request.clone().carrying([]).build());
        }
        let dressed = if v6 { extended(frame.clone(), &[0, 60]) } else { options(frame.clone(), 3) };
        add(format!("{name}-dressed"), dressed.clone());
        add(format!("{name}-dressed-and-tagged"), tagged(dressed, &[CUSTOMER]));
        for kind in if protocol == TCP { &["port", "mtu", "time"][..] } else { &["port"] } {
            add(format!("icmp-{kind}-{name}"), error(&answer(v6, protocol), kind, 1000));
        }
    }
    contradictions(&mut add);
    others(&mut add);
    all
}

/// Headers that contradict themselves or what is around them.
fn contradictions(add: &mut impl FnMut(String, Vec<u8>)) {
    let [tcp4, tcp6, udp4, udp6] = FLOWS.map(|(_, v6, protocol)| request(v6, protocol).build());
    let mut put = |name: &str, frame| add(name.to_owned(), frame);
    put("ipv4-length-too-long", with(tcp4.clone(), 16, 1500));
    put("ipv4-length-too-short", with(tcp4.clone(), 16, 19));
    put("ipv4-header-too-short", with(tcp4.clone(), 14, 0x4400));
    put("ipv4-options-longer-than-the-packet", with(options(tcp4.clone(), 10), 16, 59));
    put("ipv4-of-version-6", with(tcp4.clone(), 14, 0x6500));
    put("ipv6-of-version-4", with(tcp6.clone(), 14, 0x4500));
    put("ipv6-length-too-long", with(tcp6.clone(), 18, 1500));
    put("ipv6-length-of-zero", with(tcp6.clone(), 18, 0));
    // RFC 4291, section 2.5.5.2.
    let mapped = [&tcp6[..22], &[0; 10], &[0xff, 0xff, 192, 0, 2, 1], &tcp6[38..]].concat();
    put("ipv6-mapped-address", mapped);
    put("ipv6-extension-longer-than-the-packet", with(extended(tcp6.clone(), &[60]), 54, 0x06ff));
    put("ipv6-authentication-of-nothing", with(extended(tcp6.clone(), &[51]), 54, 0x0600));
    put("ipv6-routing-with-stations-left", with(extended(tcp6.clone(), &[43]), 56, 0x0001));
    put("ipv6-seven-headers", extended(tcp6.clone(), &[60; 7]));
    put("ipv6-eight-headers", extended(tcp6.clone(), &[60; 8]));
    put("ipv6-every-header", extended(udp6.clone(), &[0, 43, 51, 60]));
    put("ipv6-mobility", extended(tcp6.clone(), &[135]));
    put("tcp-header-too-short", with(tcp4.clone(), 46, 0x4002));
    put("tcp-header-longer-than-the-segment", with(tcp4.clone(), 46, 0xf002));
    put("udp-length-of-zero", with(udp4.clone(), 38, 0));
    put("udp-length-too-short", with(udp4.clone(), 38, 7));
    put("udp-length-too-long", with(udp4.clone(), 38, 100));
    put("udp-shorter-than-its-packet", with(udp4.clone(), 38, 12));
    put("udp4-no-checksum", with(udp4, 40, 0));
    put("udp6-no-checksum", with(udp6, 60, 0));
    put("three-tags", tagged(tcp4.clone(), &[CUSTOMER; 3]));
    put("half-a-tag", tagged(tcp4, &[CUSTOMER])[..16].to_vec());
}

/// Fragments, other protocols, and what is no IP.
fn others(add: &mut impl FnMut(String, Vec<u8>)) {
    let [tcp4, tcp6, ..] = FLOWS.map(|(_, v6, protocol)| request(v6, protocol).build());
    let mut put = |name: &str, frame| add(name.to_owned(), frame);
    for (which, field) in [("first", 0x2000), ("middle", 0x2064), ("farthest", 0x1fff)] {
        put(&format!("ipv4-fragment-{which}"), with(tcp4.clone(), 20, field));
        // The offset lies three bits further up, and "more" is the lowest one (RFC 8200, section 4.5).
        let field = (field & 0x1fff) << 3 | u16::from(field & 0x2000 != 0);
        put(&format!("ipv6-fragment-{which}"), with(extended(tcp6.clone(), &[44]), 56, field));
    }
    put("ipv6-fragment-behind-options", extended(tcp6.clone(), &[0, 44]));
    put("ipv6-fragment-of-one", with(extended(tcp6.clone(), &[44]), 56, 0));
    put("ipv4-fragment-tagged", tagged(with(tcp4.clone(), 20, 0x2000), &[CUSTOMER]));
    for (name, protocol) in [("gre", 47), ("ip-in-ip", 4), ("authentication", 51)] {
        put(&format!("ipv4-{name}"), with(tcp4.clone(), 22, 0x4000 | protocol));
    }
    put("ipv6-no-next-header", with(tcp6.clone(), 20, 59 << 8 | 64));
    let eth = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut ping = Vec::new();
    eth.ipv4([198, 51, 100, 7], [192, 0, 2, 80], 64)
        .icmpv4_echo_request(1, 1)
        .write(&mut ping, b"ping")
        .expect("a ping");
    put("icmp-ping-4", ping);
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    put("arp", arp);
    put("zeros", vec![0; 60]);
    put("nothing", Vec::new());
    put("half-an-ethernet-header", tcp4[..13].to_vec());
}
