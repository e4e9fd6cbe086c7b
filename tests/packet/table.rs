//! The table "packet → what happens" of the documents: every row is tried, and no row is missing.

use std::collections::BTreeMap;
use std::path::Path;

use lb_common::abi::names;
use lb_common::reason::{Fate, Reason};
use lb_tests::fragments;
use lb_tests::icmp::{Failure, Ping};

use crate::detours::{CUSTOMER, SERVICE, options, tag};
use crate::lab::{LOOPBACK, Lab, in_lab, served};
use crate::not_ours::{arp, carrying, fragment, ping};
use crate::ranges::RANGE;

/// Where the table stands, and what is around it.
const DOCUMENTS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];
const AROUND: [&str; 2] = ["<!-- packets: tests/packet/table.rs -->", "<!-- end of packets -->"];

/// Bytes of a datagram in each fragment, so that the first one holds a TCP header.
const SIZE: usize = 24;

/// A row: what it says, and frames of which it says so.
type Row = (&'static str, Vec<Vec<u8>>);

fn rows() -> Vec<Row> {
    let request = |name: &str| served(name).request().build();
    let both = |change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        ["tcp4-nat", "tcp6-nat", "udp4-l2", "udp6-l2"].map(|name| change(request(name))).to_vec()
    };
    let elsewhere = |name: &str| {
        let mut flow = served(name).request();
        flow.to.set_port(81);
        flow.build()
    };
    let cut = |mut frame: Vec<u8>| {
        frame.truncate(frame.len() - 1);
        frame
    };
    let fragment_of = |n: usize, size| {
        let part =
            |name| fragments::cut(&served(name).request().carrying(vec![7; 100]).build(), 5, size).remove(n);
        ["tcp4-nat", "udp4-nat", "tcp6-nat"].map(part).to_vec()
    };
    vec![
        ("TCP or UDP to a service", both(&|frame| frame)),
        (
            "TCP or UDP to any port of a service with several",
            [8000, 8500, 8999].map(|port| RANGE.at(&served("tcp4-nat"), port).request().build()).to_vec(),
        ),
        (
            "a reply of a NAT backend",
            ["tcp4-nat", "tcp6-nat"].map(|name| served(name).reply().build()).to_vec(),
        ),
        ("the same with up to two VLAN tags", both(&|frame| tag(frame, &[SERVICE, CUSTOMER]))),
        (
            "the same with IPv4 options or up to seven IPv6 extension headers",
            both(&|f| options(f, 10, &[0, 43, 60])),
        ),
        ("more than two VLAN tags", both(&|frame| tag(tag(frame, &[SERVICE, CUSTOMER]), &[SERVICE]))),
        (
            "IPv6 extension headers that are not looked past",
            vec![options(request("tcp6-nat"), 0, &[60; 8]), options(request("tcp6-nat"), 0, &[135])],
        ),
        (
            "a ping of a service's address",
            ["tcp4-nat", "tcp6-l2"]
                .map(|name| Ping::new(served(name).client.ip(), served(name).vip.ip()).build())
                .to_vec(),
        ),
        (
            "an ICMP error about a reply of a service",
            ["tcp4-nat", "tcp6-l2"]
                .map(|name| Failure::about(&served(name).request().answered()).build())
                .to_vec(),
        ),
        (
            "an ICMP error about what a NAT backend was sent",
            ["tcp4-nat", "udp6-nat"]
                .map(|name| Failure::about(&served(name).request_out(&served(name).request())).build())
                .to_vec(),
        ),
        ("other ICMP, ICMPv6", vec![ping(false), ping(true)]),
        ("the first fragment of a datagram to a service", fragment_of(0, SIZE)),
        ("the other fragments of it", fragment_of(1, SIZE)),
        (
            "a fragment before its first one, or of a datagram that is not ours",
            vec![fragment(100, false), fragment(100, true)],
        ),
        ("a fragment over bytes of its first one", fragment_of(1, 16)),
        (
            "a first fragment without a whole TCP header",
            vec![fragment_of(0, 16).remove(0), fragment_of(0, 8).remove(2)],
        ),
        ("another protocol, tunnels too", vec![carrying(false, 4), carrying(true, 47)]),
        ("TCP or UDP to another address or port", vec![elsewhere("tcp4-nat"), elsewhere("tcp6-nat")]),
        ("ARP, LLDP and the like", vec![arp(), tag(arp(), &[CUSTOMER])]),
        ("shorter than its headers say", both(&cut)),
    ]
}

/// Rows of a document's table: what happens, and the reason, by packet.
fn written(document: &str) -> BTreeMap<String, (String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = std::fs::read_to_string(&path).expect("a document of the repository");
    let [start, end] = AROUND;
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("{document} has no {start}"));
    let (table, _) = rest.split_once(end).unwrap_or_else(|| panic!("{document} has no {end}"));
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(2);
    let row = |line: &str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let [packet, happens, reason] = cells.try_into().expect("three cells");
        (packet, (happens, reason))
    };
    lines.map(row).collect()
}

/// Why the loaded program lets a frame leave, and what becomes of it.
fn tried(lab: &Lab<'_>, frame: &[u8]) -> Reason {
    let explained = lab.kernel.runner().explain(frame, LOOPBACK).expect("the kernel explains");
    // What it leaves is what later rows build on.
    lab.kernel.runner().run(names::BALANCE, frame, LOOPBACK, 1).expect("the kernel runs it");
    Reason::from_number(explained.report.reason).expect("a reason that is known")
}

#[test]
fn the_documents_say_what_happens_to_each_kind_of_packet() {
    let tables = DOCUMENTS.map(written);
    assert_eq!(tables[0], tables[1], "both documents say the same");
    let rows = rows();
    let named: Vec<_> = rows.iter().map(|(packet, _)| (*packet).to_owned()).collect();
    assert_eq!(tables[0].len(), named.len(), "rows: {:?}, tried: {named:?}", tables[0].keys());
    in_lab(|lab| {
        RANGE.serve(lab, &served("tcp4-nat"));
        for (packet, frames) in &rows {
            let Some((happens, reason)) = tables[0].get(*packet) else { panic!("no row says {packet:?}") };
            for frame in frames {
                let found = tried(lab, frame);
                assert_eq!(*reason, format!("`{}`", found.as_str()), "{packet}: {frame:02x?}");
                let first = match found.fate() {
                    Fate::Pass => "passed",
                    Fate::Forward => "sent",
                    Fate::Drop => "dropped",
                    Fate::Answer => "answered",
                };
                assert!(happens.starts_with(first), "{packet}: {happens:?}, but it is {first}");
            }
        }
    });
}
