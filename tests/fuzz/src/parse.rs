//! Any bytes as a frame: an independent dissector agrees, and no cut makes something else of it.

use lb_common::reason::Reason;

use crate::dissector::{Opinion, ours, theirs};

/// Cuts behind this are seldom in a header, and each costs: only the last one is tried.
const HEADERS: usize = 160;

/// The bytes are a frame.
///
/// # Panics
/// When something does not hold.
pub fn parse(frame: &[u8]) {
    let whole = ours(frame);
    assert_eq!(whole, theirs(frame), "the dissector disagrees");
    for length in (0..frame.len().min(HEADERS)).chain(frame.len().saturating_sub(1)..frame.len()) {
        let cut = ours(&frame[..length]);
        let known = cut == whole || cut == Opinion::Malformed(Reason::Truncated);
        assert!(known, "cut to {length} it is {cut:?}, whole {whole:?}");
    }
}
