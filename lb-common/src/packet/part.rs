//! Which part of a datagram a packet holds (RFC 791, section 3.2, RFC 8200, section 4.5).

use crate::reason::Reason;

/// Bytes in a unit of the fragment offset.
const UNIT: u32 = 8;
/// Longest datagram, bytes: what a length field can say.
const LONGEST: u32 = 0xffff;

/// Whether a packet is all of its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// All of it. So is an IPv6 packet with a fragment header that is neither followed nor preceded by others (RFC 6946).
    Whole = 0,
    /// The first fragment: the one with the transport header.
    First = 1,
    /// Another fragment.
    Later = 2,
}

impl Kind {
    /// What a fragment that carries `carried` bytes, from `start` units on, is.
    ///
    /// # Errors
    /// It cannot be part of any datagram: empty, of a length that does not fit the next one's offset, or reaching past
    /// the longest datagram (RFC 8200, section 4.5, has all of them discarded).
    #[inline(always)]
    pub const fn of(start: u16, more: bool, carried: u16) -> Result<Self, Reason> {
        if start == 0 && !more {
            return Ok(Self::Whole);
        }
        let end = start as u32 * UNIT + carried as u32;
        if carried == 0 || end > LONGEST || more && !(carried as u32).is_multiple_of(UNIT) {
            return Err(Reason::MalformedIp);
        }
        Ok(if start == 0 { Self::First } else { Self::Later })
    }
}

/// The part of a datagram that a packet holds, and what is known of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which one.
    pub kind: Kind,
    /// Of fragments: the datagram's identification, as it stands in the packet.
    pub id: u32,
    /// Of first fragments: how many bytes of the datagram they hold.
    pub end: u16,
    /// Of later fragments: they hold bytes that the first one held too.
    pub overlaps: bool,
    /// Of later fragments: index of the backend that the first one went to.
    pub backend: u32,
    /// Of later fragments: its generation.
    pub generation: u32,
}

impl Part {
    /// A whole packet.
    pub const WHOLE: Self =
        Self { kind: Kind::Whole, id: 0, end: 0, overlaps: false, backend: 0, generation: 0 };

    /// Whether it is all of its datagram.
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        matches!(self.kind, Kind::Whole)
    }

    /// Whether it is the first fragment of several.
    #[inline(always)]
    pub const fn is_first(&self) -> bool {
        matches!(self.kind, Kind::First)
    }

    /// Whether it has no transport header.
    #[inline(always)]
    pub const fn is_later(&self) -> bool {
        matches!(self.kind, Kind::Later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_that_cannot_be_are_told_apart() {
        use Kind::{First, Later, Whole};
        for (start, more, carried, kind) in [
            (0, false, 0, Ok(Whole)),
            (0, false, 13, Ok(Whole)),
            (0, true, 8, Ok(First)),
            (1, true, 1480, Ok(Later)),
            (1, false, 1, Ok(Later)),
            (8191, false, 7, Ok(Later)),
            (8191, false, 8, Err(Reason::MalformedIp)),
            (0, true, 0, Err(Reason::MalformedIp)),
            (5, false, 0, Err(Reason::MalformedIp)),
            (0, true, 9, Err(Reason::MalformedIp)),
            (3, true, 12, Err(Reason::MalformedIp)),
        ] {
            assert_eq!(Kind::of(start, more, carried), kind, "{start} {more} {carried}");
        }
    }
}
