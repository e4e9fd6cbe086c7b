//! Balancers in every state, with a packet each. What the four bytes say: `lb_fuzz::world`.

use std::collections::BTreeSet;

use lb_common::host;
use lb_common::reason::Reason;
use lb_fuzz::dissector::ours;
use lb_fuzz::frame::{Flow, Kind, TCP, UDP};
use lb_fuzz::oracle;
use lb_fuzz::world::World;

use crate::Seeds;
use crate::packets::{FLOWS, answer, error, extended, options, reply, request, tagged, with};

/// Bits of the first byte.
const V6: u8 = 1;
const DATAGRAMS: u8 = 1 << 1;
const NAT: u8 = 1 << 2;
const GENERIC: u8 = 1 << 3;
const ALWAYS: u8 = 1 << 4;
const NEVER: u8 = 1 << 5;
const GATEWAY: u8 = 1 << 6;
const ON_LINK: u8 = 2 << 6;
const ASK: u8 = 3 << 6;

/// Of the second: both backends are well, and the second one's interface is known.
const WELL: u8 = 0b0111_1111;
const NO_DEVICE: u8 = 0b0011_1111;
const NO_NEXT_HOP: u8 = 0b0101_1011;
const DOWN: u8 = 0b0110_0100;
/// The first one drains: it keeps its flows.
const DRAINING: u8 = 0b0111_1101;

/// Of the third: the slots' backend, and the one before.
const FIRST: u8 = 0b0000;
const SECOND: u8 = 0b0101;
const WINDOW: u8 = 0b1_0001;
const NOBODY: u8 = 0b1010;

/// Of the fourth.
const AS_IT_IS: u8 = 0;
const TO_SERVICE: u8 = 0b101;
const FROM_BACKEND: u8 = 0b110;

pub(crate) fn all() -> Seeds {
    let mut all = Seeds::new();
    let mut add = |name: String, [kind, states, slots, frame]: [u8; 4], packet: Vec<u8>| {
        let input = [&[kind, states, slots, frame][..], &packet].concat();
        assert!(all.insert(name.clone(), input).is_none(), "{name}");
    };
    for (name, v6, protocol) in FLOWS {
        let flow = if v6 { V6 } else { 0 } | if protocol == UDP { DATAGRAMS } else { 0 };
        let (request, reply) = (request(v6, protocol), reply(v6, protocol));
        let dress = |frame: Vec<u8>| {
            tagged(if v6 { extended(frame, &[0, 60]) } else { options(frame, 3) }, &[0x8100])
        };
        let kind = flow | NAT | GATEWAY;
        let mut put = |what: &str, kind, packet| {
            add(format!("{name}-{what}"), [kind, WELL, FIRST, AS_IT_IS], packet);
        };
        put("nat", kind, request.build());
        put("nat-dressed", kind, dress(request.build()));
        put("nat-unfinished", kind, oracle::unfinished(&request));
        put("nat-unfinished-generic", kind | GENERIC, oracle::unfinished(&request));
        put("l2", flow | GATEWAY, request.build());
        put("l2-unfinished", flow | GATEWAY, oracle::unfinished(&request));
        put("reply", kind, reply.build());
        put("reply-dressed", kind, dress(reply.build()));
        put("icmp-error", kind, error(&answer(v6, protocol), "mtu", 1000));
        let odd = request.carrying(*b"odd").data();
        if protocol == UDP {
            add(
                format!("{name}-aimed-at-the-service"),
                [kind, WELL, FIRST, TO_SERVICE],
                odd.answered().build(),
            );
        } else {
            add(format!("{name}-aimed-from-a-backend"), [kind, WELL, FIRST, FROM_BACKEND], odd.build());
        }
    }
    states(&mut add);
    all
}

/// An error about each flow: from a router and from the backend itself, with as little of the packet as is promised and with
/// more. What the four bytes behind a balancer's say: `lb_fuzz::embedded`.
pub(crate) fn errors() -> Seeds {
    let mut all = Seeds::new();
    for (n, (name, v6, protocol)) in (0..).zip(FLOWS) {
        let kind = NAT | GATEWAY | if v6 { V6 } else { 0 } | if protocol == UDP { DATAGRAMS } else { 0 };
        let promised = if v6 { 48 } else { 28 };
        for (what, flow) in [("request", request(v6, protocol)), ("reply", reply(v6, protocol))] {
            for (who, own) in [("a-router", 0), ("the-end", 1)] {
                for (much, kept) in [("little", promised), ("more", promised + 12)] {
                    let packet = flow.clone().carrying([7; 40]).build();
                    let input = [&[kind, WELL, FIRST, AS_IT_IS, n, own, 0, kept][..], &packet].concat();
                    all.insert(format!("{name}-{what}-by-{who}-{much}"), input);
                }
            }
        }
    }
    all
}

/// What depends on the balancer more than on the packet.
fn states(add: &mut impl FnMut(String, [u8; 4], Vec<u8>)) {
    let (syn, data) = (request(false, TCP).build(), request(false, TCP).data().build());
    let fin = Flow { kind: Kind::Fin, ..request(false, TCP) }.build();
    let way = reply(false, TCP).build();
    let stranger = Flow { to: ([203, 0, 113, 9], 5000).into(), ..reply(false, TCP) }.build();
    let [udp4, udp6] = [(false, 40), (true, 60)].map(|(v6, at)| with(request(v6, UDP).build(), at, 0));
    let kind = NAT | GATEWAY;
    for (name, balancer, packet) in [
        ("second-backend", [kind, WELL, SECOND], &syn),
        ("window-syn", [kind, WELL, WINDOW], &syn),
        ("window-data", [kind, WELL, WINDOW], &data),
        ("window-fin", [kind, WELL, WINDOW], &fin),
        ("draining-syn", [kind, DRAINING, FIRST], &syn),
        ("draining-data", [kind, DRAINING, WINDOW], &data),
        ("always-syn", [kind | ALWAYS, WELL, FIRST], &syn),
        ("always-data", [kind | ALWAYS, WELL, FIRST], &data),
        ("never-data", [kind | NEVER, WELL, WINDOW], &data),
        ("nobody", [kind, WELL, NOBODY], &syn),
        ("down", [kind, DOWN, FIRST], &syn),
        ("no-next-hop", [kind, NO_NEXT_HOP, FIRST], &syn),
        ("no-device", [kind, NO_DEVICE, SECOND], &syn),
        ("reply-on-link", [NAT | ON_LINK, WELL, FIRST], &way),
        ("reply-by-the-kernel", [NAT | ASK, WELL, FIRST], &way),
        ("reply-without-routes", [NAT, WELL, FIRST], &way),
        ("reply-to-a-stranger", [NAT, WELL, FIRST], &stranger),
        ("reply-with-direct-return", [GATEWAY, WELL, FIRST], &way),
        ("another-protocol", [kind | DATAGRAMS, WELL, FIRST], &syn),
        ("another-family", [kind | V6, WELL, FIRST], &syn),
        ("no-checksum-udp4-nat", [kind | DATAGRAMS, WELL, FIRST], &udp4),
        ("no-checksum-udp4-l2", [DATAGRAMS, WELL, FIRST], &udp4),
        ("no-checksum-udp6-nat", [kind | V6 | DATAGRAMS, WELL, FIRST], &udp6),
        ("no-checksum-udp6-l2", [V6 | DATAGRAMS, WELL, FIRST], &udp6),
        ("fragment", [kind, WELL, FIRST], &with(data.clone(), 20, 0x2000)),
        ("wrong-checksum", [kind, WELL, FIRST], &with(data.clone(), 50, 0x1234)),
        ("cut", [kind, WELL, FIRST], &data[..50].to_vec()),
        ("three-tags", [kind, WELL, FIRST], &tagged(syn.clone(), &[0x8100; 3])),
        ("arp", [kind, WELL, FIRST], &with(syn.clone(), 12, 0x0806)),
    ] {
        let [kind, states, slots] = balancer;
        add(name.to_owned(), [kind, states, slots, AS_IT_IS], packet.clone());
    }
}

/// Inputs that reach less than everything that can be reached test less than they seem to.
#[test]
fn packets_leave_for_every_reason() {
    let mut seen = BTreeSet::new();
    for input in all().values() {
        let (description, packet) = input.split_first_chunk().expect("a balancer's description");
        let world = World::new(*description);
        seen.insert(host::run(&mut packet.to_vec()[..], &world.tables).reason);
    }
    for packet in crate::packets::all().values() {
        seen.insert(ours(packet).reason());
    }
    let others = [
        // Where the program that looks past options is missing.
        Reason::Ipv4Options,
        // What only a kernel says, and what no packet is long enough for on the host.
        Reason::NoNeighbour,
        Reason::ForwardingOff,
        Reason::ToThisMachine,
        Reason::Unfinished,
        // These balancers put no packet into another one, and answer no pings.
        Reason::ToldTooBig,
        Reason::TooBig,
        Reason::NoOuterSource,
        Reason::NoHeadroom,
        Reason::NoProgram,
        Reason::EchoAnswered,
        Reason::EchoLimited,
        Reason::IcmpReturned,
        // Nor do they see more than one part of a datagram.
        Reason::FragmentTiny,
        Reason::FragmentOverlap,
    ];
    let missing: Vec<_> =
        Reason::ALL.iter().filter(|reason| !seen.contains(reason) && !others.contains(reason)).collect();
    assert!(missing.is_empty(), "no packet is {missing:?}");
}
