//! What seldom comes: frames with VLAN tags, IPv4 packets with options, IPv6 packets with extension headers, and services
//! that listen on ranges of ports. A program of its own looks at them, so that the others do not pay.

use crate::packet::Frame;
use crate::packet::locate::{self, Located};
use crate::packet::tags::Untagged;
use crate::pipeline::{self, Tables, Verdict};
use crate::reason::Reason;
use crate::wide;

/// Decides, rewrites, and counts, like [`pipeline::run`].
#[inline(always)]
pub fn run<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let verdict = decide(frame, tables);
    pipeline::finish(tables, verdict)
}

#[inline(always)]
fn decide<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let at = match Located::unpack(frame.locate()) {
        Ok(at) => at,
        Err(reason) => return Verdict::stop(0, Reason::from_number(reason).unwrap_or(Reason::Truncated)),
    };
    let mut frame = Untagged::new(frame, at.tags);
    let parsed = locate::parse(&frame, at);
    wide::flow(&mut frame, tables, parsed)
}
