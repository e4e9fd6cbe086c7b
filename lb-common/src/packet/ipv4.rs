//! IPv4 (RFC 791).

use core::hint::black_box;

use super::part::Part;
use super::transport::{self, Ends};
use super::{Frame, Parsed, eth, half, word};
use crate::addr::{Addr, Family, TCP, UDP};
use crate::reason::Reason;

/// Length of a header without options, bytes.
pub const LEN: usize = 20;
/// Where the transport header begins in a frame without tags and options.
pub const TRANSPORT: usize = eth::LEN + LEN;
/// ICMP's protocol number (RFC 792).
pub const ICMP: u8 = 1;

/// "More fragments" and the fragment offset: any of them set makes a fragment.
pub(crate) const FRAGMENT: u16 = (MORE | OFFSET).to_be();
/// "More fragments", once the field is in host order (RFC 791, section 3.1).
pub(super) const MORE: u16 = 0x2000;
/// The fragment offset, in units of 8 bytes, likewise.
pub(super) const OFFSET: u16 = 0x1fff;

/// Looks at a frame whose ethertype is IPv4; one with options goes another way.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Parsed {
    let Some(ip) = frame.at::<LEN>(eth::LEN) else { return Parsed::Malformed(Reason::Truncated) };
    if ip[0] != 0x45 {
        return unusual(ip[0]);
    }
    let total = u16::from_be(half(ip, 2));
    // Padding may follow (short frames are filled to 60 bytes), so the IP length counts, not the frame's.
    if (total as usize) < LEN || eth::LEN + total as usize > frame.len() {
        return Parsed::Malformed(if (total as usize) < LEN {
            Reason::MalformedIp
        } else {
            Reason::Truncated
        });
    }
    if half(ip, 6) & FRAGMENT != 0 {
        return Parsed::NotOurs(Reason::Fragment);
    }
    content(frame, ip, ip[9], TRANSPORT, total - LEN as u16, Part::WHOLE)
}

/// Looks at a packet whose header was looked at, and what follows it found.
#[inline(always)]
pub(super) fn parse_at<F: Frame + ?Sized>(
    frame: &F,
    protocol: u8,
    at: usize,
    length: u16,
    part: Part,
) -> Parsed {
    let Some(ip) = frame.at::<LEN>(eth::LEN) else { return Parsed::Malformed(Reason::Truncated) };
    content(frame, ip, protocol, at, length, part)
}

/// The addresses of a packet whose header was looked at.
#[inline(always)]
pub(super) fn ends<F: Frame + ?Sized>(frame: &F) -> Result<Ends, Reason> {
    frame.at::<LEN>(eth::LEN).map(ends_of).ok_or(Reason::Truncated)
}

#[inline(always)]
fn ends_of(ip: &[u8; LEN]) -> Ends {
    Ends { family: Family::V4, src: Addr::v4(word(ip, 12)), dst: Addr::v4(word(ip, 16)) }
}

#[inline(always)]
fn content<F: Frame + ?Sized>(
    frame: &F,
    ip: &[u8; LEN],
    protocol: u8,
    at: usize,
    length: u16,
    part: Part,
) -> Parsed {
    let ends = ends_of(ip);
    // One by one, and the others out of sight: of a `match` the compiler makes a search, in which these come last.
    if protocol == TCP {
        return transport::tcp(frame, ends, at, length, part);
    }
    if protocol == UDP {
        return transport::udp(frame, ends, at, length, part);
    }
    Parsed::NotOurs(if black_box(protocol) == ICMP { Reason::Icmp } else { Reason::OtherProtocol })
}

/// A first byte other than "version 4, five words".
#[cold]
const fn unusual(first: u8) -> Parsed {
    match first {
        0x46..=0x4f => Parsed::NotOurs(Reason::Ipv4Options),
        _ => Parsed::Malformed(Reason::MalformedIp),
    }
}
