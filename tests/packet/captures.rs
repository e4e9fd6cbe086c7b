//! Traffic that nobody here wrote: captures of real networks, and of attacks on dissectors.
//!
//! What the balancer makes of each packet, whole and cut, is compared with `etherparse`; then the loaded program gets
//! it, whose services no capture is about: it must come out as it came in, and be counted once. The captures are not
//! in this repository; see `require::captures`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lb_common::abi::counter::REASON_SLOTS;
use lb_common::abi::names;
use lb_common::reason::Reason;
use lb_tests::bpf::Program;
use lb_tests::dissector::{Opinion, ours, theirs};
use lb_tests::kernel::Moved;
use lb_tests::require;
use lb_userspace::explain::pcap::{self, NotEthernet};

use crate::case::PASS;
use crate::lab::{Lab, in_lab};

/// What the kernel runs a program on: a header, and as much as a page holds beside headroom and tailroom.
const RUNNABLE: std::ops::RangeInclusive<usize> = 14..=3520;
/// How far packets are cut byte by byte: behind the headers of TCP over IPv6.
const CUTS: usize = 80;
/// Fewer packets than this were not the captures that are meant.
const AT_LEAST: usize = 4000;

/// A packet, and where it is from.
struct Captured {
    file: String,
    number: u64,
    frame: Vec<u8>,
}

/// Every Ethernet frame of every capture. What is not Ethernet is told.
fn captured(directory: &Path) -> Vec<Captured> {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("a directory's entry").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"));
    paths.sort();
    let (mut all, mut others) = (Vec::new(), BTreeMap::new());
    for path in &paths {
        let file = path.file_name().expect("a file's name").to_string_lossy();
        let read = pcap::read(path, |packet| {
            all.push(Captured { file: file.to_string(), number: packet.number, frame: packet.frame });
            Ok(())
        });
        match read.map_err(|error| error.downcast::<NotEthernet>()) {
            Ok(()) => {}
            Err(Ok(NotEthernet(link))) => *others.entry(format!("{link:?}")).or_insert(0) += 1,
            Err(Err(error)) => panic!("{error:#}"),
        }
    }
    println!("{} packets of {} captures; not Ethernet: {others:?}", all.len(), paths.len());
    assert!(all.len() >= AT_LEAST, "these are not the captures that are meant");
    all
}

/// The packet and what is left of it when it ends sooner.
fn cuts(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..frame.len().min(CUTS)).map(|length| &frame[..length]).chain([frame])
}

#[test]
fn an_independent_dissector_agrees_about_every_captured_packet() {
    let Some(directory) = require::captures() else { return };
    let (mut seen, mut wrong) = (BTreeMap::new(), Vec::new());
    for Captured { file, number, frame } in captured(&directory) {
        for cut in cuts(&frame) {
            let (ours, theirs) = (ours(cut), theirs(cut));
            if ours != theirs {
                let length = (cut.len(), frame.len());
                wrong.push(format!(
                    "{file}, packet {number}, {length:?} bytes: {ours:?}, they say {theirs:?}"
                ));
            }
        }
        *seen.entry(ours(&frame).reason()).or_insert(0) += 1;
    }
    println!("{seen:?}");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    // Captures without one of these would prove less than they seem to.
    for reason in [
        Reason::NotIp,
        Reason::NotAService,
        Reason::Icmp,
        Reason::OtherProtocol,
        Reason::Ipv6Extension,
        Reason::Truncated,
        Reason::MalformedIp,
        Reason::MalformedTransport,
    ] {
        assert!(seen.contains_key(&reason), "no packet is {reason:?}");
    }
}

#[test]
fn captured_packets_are_passed_as_they_are() {
    let Some(directory) = require::captures() else { return };
    in_lab(|lab| {
        let before = lab.kernel.snapshot();
        let program = lab.kernel.program(names::BALANCE);
        let (mut whole, mut short, mut long, mut cut) = (0, 0, 0, 0);
        let mut moved = [0; REASON_SLOTS];
        let packets = captured(&directory);
        for Captured { file, number, frame } in &packets {
            let what = format!("{file}, packet {number}");
            match frame.len() {
                length if length < *RUNNABLE.start() => short += 1,
                length if length > *RUNNABLE.end() => long += 1,
                _ => whole += 1,
            }
            let cuts: Vec<_> =
                (*RUNNABLE.start()..frame.len().min(CUTS)).map(|length| &frame[..length]).collect();
            let longest = frame.get(..frame.len().min(*RUNNABLE.end()));
            let longest = longest.filter(|frame| frame.len() >= *RUNNABLE.start());
            cut += cuts.len();
            // Counted apart, so that two mistakes cannot make up for each other.
            for batch in [&cuts[..], longest.as_slice()] {
                let counted = pass_all(lab, &program, batch, &what);
                moved.iter_mut().zip(counted).for_each(|(sum, count)| *sum += count);
            }
        }
        println!(
            "{whole} packets ran whole, {long} as far as a page has room for, and cuts of them {cut} times; \
             {short} did not run: the kernel takes none shorter than an Ethernet header"
        );
        assert_eq!(whole + long + short, packets.len());
        assert!(whole >= AT_LEAST && cut >= 50 * AT_LEAST, "hardly anything ran");
        let expected = Reason::ALL.iter().fold(Moved::default(), |mut all, reason| {
            let count = moved[*reason as usize];
            if count > 0 {
                all.reasons.insert((0, *reason as usize), count);
            }
            all
        });
        assert_eq!(lab.kernel.snapshot().since(&before), expected, "and nothing else moved");
    });
}

/// Runs the program on frames, and gives what they were counted as: each once, as the host would.
fn pass_all(lab: &Lab<'_>, program: &Program, frames: &[&[u8]], what: &str) -> [u64; REASON_SLOTS] {
    let mut expected = [0; REASON_SLOTS];
    if frames.is_empty() {
        return expected;
    }
    let before = lab.kernel.reasons();
    for frame in frames {
        let mut out = vec![0; frame.len() + 256];
        let (verdict, length) = program
            .run_whole(frame, &mut out)
            .unwrap_or_else(|error| panic!("{what}, {} bytes: {error}", frame.len()));
        assert_eq!((verdict, &out[..length]), (PASS, *frame), "{what}, {} bytes", frame.len());
        expected[ours(frame).reason() as usize] += 1;
    }
    let after = lab.kernel.reasons();
    let counted = std::array::from_fn(|reason| after[reason] - before[reason]);
    assert_eq!(
        counted,
        expected,
        "{what}: {:?}",
        frames.iter().map(|frame| ours(frame)).collect::<Vec<Opinion>>()
    );
    counted
}
