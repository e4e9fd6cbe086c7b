//! The packet that an ICMP error is about: its header, and as much of what follows as the reporter kept.
//!
//! Only 8 bytes of the transport header are promised (RFC 792); that is both ports, and a whole UDP header.

use super::locate::{EXTENSIONS, extension};
use super::{Frame, half, ipv4, ipv6, transport};
use crate::addr::{Family, TCP, UDP};

/// Bytes of an ICMP header, before the embedded packet (RFC 792, RFC 4443, section 2.1).
pub const ICMP_LEN: usize = 8;
/// Bytes of the transport header that are needed.
const TRANSPORT_LEN: usize = 8;
/// The fragment's place in its packet (RFC 791, section 3.1).
const OFFSET: u16 = 0x1fff_u16.to_be();
/// The same in a fragment header (RFC 8200, section 4.5).
const OFFSET_IPV6: u16 = 0xfff8_u16.to_be();

/// Where things lie in an embedded packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Bytes of its IP header, options and extension headers, after which the transport header lies.
    pub headers: usize,
    /// Whether the transport checksum was kept.
    pub checksum: bool,
}

impl Embedded {
    /// All of it, or nothing, in one word: what a program's function can answer.
    #[inline(always)]
    pub const fn pack(found: Option<Self>) -> u64 {
        match found {
            Some(at) => {
                at.headers as u64 & 0x3fff | (at.protocol as u64) << 16 | (at.checksum as u64) << 24 | 1 << 32
            }
            None => 0,
        }
    }

    /// What was packed.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Option<Self> {
        if word == 0 {
            return None;
        }
        Some(Self {
            protocol: (word >> 16) as u8,
            headers: word as usize & 0x3fff,
            checksum: (word >> 24) & 1 != 0,
        })
    }
}

/// Looks at the packet that lies between two offsets of a frame, of the family of the error about it (an error never
/// changes the family).
///
/// `None`: not TCP or UDP, not the first fragment, cut too short, or nothing that can be read.
#[inline(always)]
pub fn find<F: Frame + ?Sized>(frame: &F, start: usize, end: usize, family: Family) -> Option<Embedded> {
    // What the sender had sent may have been longer than what was kept, and what was kept may be followed by padding and
    // extensions of the error (RFC 4884, section 5).
    let (protocol, headers, length) = match family {
        Family::V4 => in_ipv4(frame, start, end)?,
        Family::V6 => in_ipv6(frame, start, end)?,
    };
    let kept = end.checked_sub(start + headers)?;
    if kept < TRANSPORT_LEN {
        return None;
    }
    let checksum = match protocol {
        TCP => transport::TCP_CHECKSUM + 2,
        UDP => transport::UDP_CHECKSUM + 2,
        _ => return None,
    };
    Some(Embedded { protocol, headers, checksum: checksum <= kept && checksum <= length })
}

/// Protocol, length of the header, and length of what followed it.
#[inline(always)]
fn in_ipv4<F: Frame + ?Sized>(frame: &F, start: usize, end: usize) -> Option<(u8, usize, usize)> {
    if start + ipv4::LEN > end {
        return None;
    }
    let ip = frame.far::<{ ipv4::LEN }>(start)?;
    let len = (ip[0] & 0xf) as usize * 4;
    if ip[0] >> 4 != 4 || len < ipv4::LEN || half(ip, 6) & OFFSET != 0 {
        return None;
    }
    Some((ip[9], len, (u16::from_be(half(ip, 2)) as usize).saturating_sub(len)))
}

#[inline(always)]
fn in_ipv6<F: Frame + ?Sized>(frame: &F, start: usize, end: usize) -> Option<(u8, usize, usize)> {
    if start + ipv6::LEN > end {
        return None;
    }
    let ip = frame.far::<{ ipv6::LEN }>(start)?;
    if ip[0] >> 4 != 6 {
        return None;
    }
    let (mut next, mut at) = (ip[6], ipv6::LEN);
    let length = ipv6::LEN + u16::from_be(half(ip, 4)) as usize;
    for _ in 0..EXTENSIONS {
        let unit = match next {
            extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION => 8,
            extension::AUTHENTICATION => 4,
            ipv6::FRAGMENT => 0,
            _ => return Some((next, at, length.saturating_sub(at))),
        };
        if start + at + 8 > end {
            return None;
        }
        let head = frame.far::<8>(start + at)?;
        // Stations to come: the destination is not the last one (RFC 8200, section 4.4).
        if next == extension::ROUTING && head[3] != 0 {
            return None;
        }
        if next == ipv6::FRAGMENT && half(head, 2) & OFFSET_IPV6 != 0 {
            return None;
        }
        next = head[0];
        // Units as in `locate`; a fragment header has no length of its own.
        at += match unit {
            8 => (head[1] as usize + 1) * 8,
            4 => (head[1] as usize + 2) * 4,
            _ => 8,
        };
        if at > 0x3fff {
            return None;
        }
        at = frame.opaque(at);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(protocol: u8, headers in 20_usize..0x4000, checksum: bool) {
            let at = Embedded { protocol, headers, checksum };
            prop_assert_eq!(Embedded::unpack(Embedded::pack(Some(at))), Some(at));
        }

        #[test]
        fn nothing_is_read_past_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..200), v6: bool, end in 0_usize..220) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = if v6 { 0x60 } else { 0x45 | (*first & 2) }; }
            if let Some(at) = find(&bytes[..], 0, end, family) {
                prop_assert!(at.headers + TRANSPORT_LEN <= end);
            }
        }
    }

    #[test]
    fn so_does_nothing() {
        assert_eq!(Embedded::unpack(Embedded::pack(None)), None);
    }
}
