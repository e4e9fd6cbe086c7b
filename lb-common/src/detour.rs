//! What seldom comes: frames with VLAN tags, IPv4 packets with options, IPv6 packets with extension headers, ICMP. A program
//! of its own looks at them, so that the others do not pay. [Fragments](crate::fragment) it leaves to the next one.

use crate::icmp;
use crate::packet::Frame;
use crate::packet::locate;
use crate::packet::part::Kind;
use crate::packet::tags::Untagged;
use crate::pipeline::{self, Tables, Verdict};
use crate::reason::Reason;
use crate::stage::Stage;

/// Decides, rewrites, and counts, like [`pipeline::run`].
#[inline(always)]
pub fn run<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let verdict = decide(frame, tables);
    pipeline::finish(tables, verdict)
}

#[inline(always)]
fn decide<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let at = match locate::found(frame) {
        Ok(at) => at,
        Err(reason) => return Verdict::stop(0, reason),
    };
    if !matches!(at.kind, Kind::Whole) {
        tables.go_on(Stage::Fragment);
        return Verdict::stop(0, Reason::Fragment);
    }
    let mut frame = Untagged::new(frame, at.tags);
    if icmp::is_icmp(&at) {
        return icmp::decide(&mut frame, tables, at);
    }
    let parsed = locate::parse(&frame, at);
    pipeline::flow(&mut frame, tables, parsed)
}
