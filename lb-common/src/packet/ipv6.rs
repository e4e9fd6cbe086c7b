//! IPv6 (RFC 8200).

use core::hint::black_box;

use super::part::Part;
use super::transport::{self, Ends};
use super::{Frame, Parsed, double, eth, half};
use crate::addr::{Addr, Family, TCP, UDP};
use crate::reason::Reason;

/// Length of the header, bytes.
pub const LEN: usize = 40;
/// Where the transport header begins in a frame without tags and extension headers.
pub const TRANSPORT: usize = eth::LEN + LEN;
/// ICMPv6's next-header number (RFC 4443).
pub const ICMP: u8 = 58;
/// Next-header number of a fragment header (RFC 8200, section 4.5).
pub const FRAGMENT: u8 = 44;
/// Length of a fragment header, bytes.
pub const FRAGMENT_LEN: usize = 8;

/// Looks at a frame whose ethertype is IPv6; one with extension headers goes another way.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Parsed {
    let (ends, next, length) = match header(frame) {
        Ok(header) => header,
        Err(reason) => return Parsed::Malformed(reason),
    };
    transport(frame, ends, next, TRANSPORT, length, Part::WHOLE)
}

/// Looks at a packet whose headers were looked at, and what follows them found.
#[inline(always)]
pub(super) fn parse_at<F: Frame + ?Sized>(
    frame: &F,
    protocol: u8,
    at: usize,
    length: u16,
    part: Part,
) -> Parsed {
    match header(frame) {
        Ok((ends, ..)) => transport(frame, ends, protocol, at, length, part),
        Err(reason) => Parsed::Malformed(reason),
    }
}

/// The addresses of a packet whose header was looked at.
#[inline(always)]
pub(super) fn ends<F: Frame + ?Sized>(frame: &F) -> Result<Ends, Reason> {
    header(frame).map(|(ends, ..)| ends)
}

/// Addresses, next header, and the length of what follows.
#[inline(always)]
fn header<F: Frame + ?Sized>(frame: &F) -> Result<(Ends, u8, u16), Reason> {
    let Some(ip) = frame.at::<LEN>(eth::LEN) else { return Err(Reason::Truncated) };
    if ip[0] >> 4 != 6 {
        return Err(Reason::MalformedIp);
    }
    // A payload length of zero with a transport header would be a jumbogram (RFC 2675): the checks below refuse it.
    let length = u16::from_be(half(ip, 4));
    if TRANSPORT + length as usize > frame.len() {
        return Err(Reason::Truncated);
    }
    let [src, dst] = addresses(ip);
    // Addresses from ::ffff:0:0/96 never appear on the wire (RFC 4291, section 2.5.5.2, RFC 5735): here they would be
    // taken for IPv4.
    if Addr::is_mapped(src) || Addr::is_mapped(dst) {
        return Err(Reason::MalformedIp);
    }
    let ends = Ends { family: Family::V6, src: Addr::from_halves(src), dst: Addr::from_halves(dst) };
    Ok((ends, ip[6], length))
}

/// Source and destination, in halves.
#[inline(always)]
pub(super) const fn addresses(ip: &[u8; LEN]) -> [[u64; 2]; 2] {
    [[double(ip, 8), double(ip, 16)], [double(ip, 24), double(ip, 32)]]
}

#[inline(always)]
fn transport<F: Frame + ?Sized>(
    frame: &F,
    ends: Ends,
    next: u8,
    at: usize,
    length: u16,
    part: Part,
) -> Parsed {
    // One by one, and the others out of sight: of a `match` the compiler makes a search, in which these come last.
    if next == TCP {
        return transport::tcp(frame, ends, at, length, part);
    }
    if next == UDP {
        return transport::udp(frame, ends, at, length, part);
    }
    Parsed::NotOurs(unusual(black_box(next)))
}

/// Why a packet with this next header is not looked at.
const fn unusual(next: u8) -> Reason {
    match next {
        ICMP => Reason::Icmp,
        FRAGMENT => Reason::Fragment,
        // Hop-by-hop, routing, authentication, destination options, mobility, HIP, shim6 (RFC 7045, section 4).
        0 | 43 | 51 | 60 | 135 | 139 | 140 => Reason::Ipv6Extension,
        _ => Reason::OtherProtocol,
    }
}
