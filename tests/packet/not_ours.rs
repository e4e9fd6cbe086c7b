//! What is not ours is passed to the kernel, untouched, with its reason.

use std::net::SocketAddr;

use etherparse::{
    ArpPacket, EtherType, IpFragOffset, IpHeaders, IpNumber, Ipv4Header, PacketBuilder, VlanId,
};
use lb_common::abi::names;
use lb_common::reason::Reason;
use lb_tests::frame::{Flow, TCP, UDP, put};
use lb_tests::oracle;
use lb_userspace::model::Ports;

use crate::case::{PASS, passed};
use crate::lab::{LOOPBACK, address, in_lab, nat, served};

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const LB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const CLIENT: [u8; 4] = [198, 51, 100, 7];
const VIP: [u8; 4] = [192, 0, 2, 80];

/// The service's IPv4 request behind another IP header.
fn ipv4(change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let mut header = Ipv4Header::new(0, 64, IpNumber::TCP, CLIENT, VIP).expect("an empty payload fits");
    change(&mut header);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, LB_MAC)
        .ip(IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default()))
        .tcp(5000, 80, 1000, 4096)
        .syn()
        .write(&mut frame, b"hell")
        .expect("a packet that can be written");
    frame
}

/// The request with another IPv4 protocol number or IPv6 next header; what follows are the bytes of the segment.
pub(crate) fn carrying(v6: bool, protocol: u8) -> Vec<u8> {
    let mut frame = served(if v6 { "tcp6-nat" } else { "tcp4-nat" }).request().build();
    if v6 {
        frame[20] = protocol;
    } else {
        frame[23] = protocol;
        put(&mut frame, 24, 0);
        let sum = !oracle::sum(&frame[14..34]);
        put(&mut frame, 24, sum);
    }
    frame
}

/// The IPv6 request behind an extension header of 8 bytes, the rest of which is padding (RFC 8200, section 4).
pub(crate) fn extension(kind: u8) -> Vec<u8> {
    let mut frame = served("tcp6-nat").request().build();
    let header = [TCP, 0, 1, 4, 0, 0, 0, 0];
    frame.splice(54..54, header);
    frame[20] = kind;
    let length = (frame.len() - 54) as u16;
    put(&mut frame, 18, length);
    frame
}

/// The request behind VLAN tags.
pub(crate) fn tagged(tags: &[u16]) -> Vec<u8> {
    let mut frame = served("tcp4-nat").request().build();
    for tag in tags.iter().rev() {
        let [a, b] = tag.to_be_bytes();
        frame.splice(12..12, [a, b, 0, 7]);
    }
    frame
}

/// A fragment of the request, of 24 bytes.
pub(crate) fn fragment(offset: u16, more: bool) -> Vec<u8> {
    ipv4(|header| {
        header.dont_fragment = false;
        header.more_fragments = more;
        header.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
    })
}

/// The request with so many words of IPv4 options.
pub(crate) fn options(words: usize) -> Vec<u8> {
    // No-operation is 1 (RFC 791, section 3.1).
    ipv4(|header| header.options = vec![1; words * 4].as_slice().try_into().expect("at most ten words"))
}

/// An ARP request for the VIP.
pub(crate) fn arp() -> Vec<u8> {
    let operation = etherparse::ArpOperation::REQUEST;
    let hardware = etherparse::ArpHardwareId::ETHERNET;
    let question = ArpPacket::new(hardware, EtherType::IPV4, operation, &CLIENT_MAC, &CLIENT, &[0; 6], &VIP);
    let mut frame = Vec::new();
    let question = question.expect("addresses of the right lengths");
    PacketBuilder::ethernet2(CLIENT_MAC, [0xff; 6])
        .arp(question)
        .write(&mut frame)
        .expect("it can be written");
    frame
}

/// A ping of another address than a service's.
pub(crate) fn ping(v6: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    let eth = PacketBuilder::ethernet2(CLIENT_MAC, LB_MAC);
    let written = if v6 {
        let octets = |text| match address(text) {
            std::net::IpAddr::V6(ip) => ip.octets(),
            std::net::IpAddr::V4(_) => unreachable!("IPv6"),
        };
        let ip = eth.ipv6(octets("2001:db8:1::7"), octets("2001:db8::81"), 64);
        ip.icmpv6_echo_request(1, 1).write(&mut frame, b"ping")
    } else {
        eth.ipv4(CLIENT, [192, 0, 2, 81], 64).icmpv4_echo_request(1, 1).write(&mut frame, b"ping")
    };
    written.expect("it can be written");
    frame
}

#[test]
fn other_ends_and_protocols_are_not_a_service() {
    in_lab(|lab| {
        for served in nat() {
            let request = served.request();
            let to = |address, port| Flow { to: SocketAddr::new(address, port), ..request.clone() };
            let elsewhere = served.client.ip();
            for (what, flow) in [
                ("another port", to(served.vip.ip(), 81)),
                ("another address", to(elsewhere, 80)),
                ("the backend itself", to(served.backend.ip(), 8080)),
            ] {
                lab.flow(format!("{}: {what}", served.name), &flow).expect(passed(Reason::NotAService));
            }
            let reply = served.reply();
            let from = |address, port| Flow { from: SocketAddr::new(address, port), ..reply.clone() };
            for (what, flow) in [
                ("a reply from another port", from(served.backend.ip(), 8081)),
                ("a reply from another machine", from(elsewhere, 8080)),
            ] {
                lab.flow(format!("{}: {what}", served.name), &flow).expect(passed(Reason::NotAService));
            }
        }
        let l2 = served("tcp4-l2");
        lab.flow("replies of L2 backends go their own way", &l2.reply()).expect(passed(Reason::NotAService));
        let wrong = Flow { protocol: UDP, ..l2.request() };
        lab.change("udp4-l2", |service| service.listen.ports = Ports::One(444));
        lab.flow("the other protocol of a port that is served", &wrong).expect(passed(Reason::NotAService));
    });
}

#[test]
fn other_protocols_are_passed() {
    in_lab(|lab| {
        lab.case("a ping", ping(false)).expect(passed(Reason::Icmp));
        lab.case("an IPv6 ping", ping(true)).expect(passed(Reason::Icmp));
        for (name, protocol) in [
            ("IGMP", 2),
            ("IP in IP", 4),
            ("IPv6 in IP", 41),
            ("GRE", 47),
            ("ESP", 50),
            ("SCTP", 132),
            ("UDP-Lite", 136),
            ("for experiments", 253),
        ] {
            for v6 in [false, true] {
                lab.case(format!("{name}, IPv6 {v6}"), carrying(v6, protocol))
                    .expect(passed(Reason::OtherProtocol));
            }
        }
        lab.case("AH over IPv4", carrying(false, 51)).expect(passed(Reason::OtherProtocol));
        lab.case("IPv6 without a next header", carrying(true, 59)).expect(passed(Reason::OtherProtocol));
        lab.case("ICMP in the wrong family", carrying(false, 58)).expect(passed(Reason::OtherProtocol));
    });
}

#[test]
fn other_ethertypes_are_passed() {
    in_lab(|lab| {
        lab.case("ARP", arp()).expect(passed(Reason::NotIp));
        lab.case("three tags", tagged(&[0x8100; 3])).expect(passed(Reason::Vlan));
        assert_eq!(tagged(&[0x8100]), single_vlan(), "tags are where etherparse puts them");
        for (name, ethertype) in [
            ("LLDP", 0x88cc),
            ("MPLS", 0x8847),
            ("PPPoE", 0x8864),
            ("old QinQ", 0x9100),
            ("IEEE 802.3", 0x0040),
        ] {
            let mut frame = served("tcp4-nat").request().build();
            put(&mut frame, 12, ethertype);
            lab.case(name, frame).expect(passed(Reason::NotIp));
        }
        lab.case("nothing but zeros", vec![0; 60]).expect(passed(Reason::NotIp));
    });
}

#[test]
fn lb_pass_passes_everything() {
    in_lab(|lab| {
        let before = lab.kernel.snapshot();
        let mut frames = vec![arp(), ping(false), ping(true), extension(0), fragment(0, true), vec![0; 14]];
        for served in nat() {
            frames.extend([served.request().build(), served.reply().build()]);
        }
        for frame in frames {
            let ran = lab.kernel.runner().run(names::PASS, &frame, LOOPBACK, 1).expect("the kernel runs it");
            assert_eq!((ran.action, ran.frame), (PASS, frame));
        }
        assert_eq!(lab.kernel.snapshot(), before);
    });
}

/// The tagged request, as `etherparse` builds it.
fn single_vlan() -> Vec<u8> {
    let request = served("tcp4-nat").request();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, LB_MAC)
        .single_vlan(VlanId::try_new(7).expect("12 bits"))
        .ipv4(CLIENT, VIP, 64)
        .tcp(5000, 80, 1000, 4096)
        .syn()
        .write(&mut frame, &request.payload)
        .expect("it can be written");
    frame
}
