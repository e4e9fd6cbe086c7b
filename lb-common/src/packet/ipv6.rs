//! IPv6 (RFC 8200).

use core::hint::black_box;

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

/// Looks at a frame whose ethertype is IPv6.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Parsed {
    let Some(ip) = frame.at::<LEN>(eth::LEN) else { return Parsed::Malformed(Reason::Truncated) };
    if ip[0] >> 4 != 6 {
        return Parsed::Malformed(Reason::MalformedIp);
    }
    // A payload length of zero with a transport header would be a jumbogram (RFC 2675): the checks below refuse it.
    let length = u16::from_be(half(ip, 4));
    if TRANSPORT + length as usize > frame.len() {
        return Parsed::Malformed(Reason::Truncated);
    }
    let [src, dst] = [[double(ip, 8), double(ip, 16)], [double(ip, 24), double(ip, 32)]];
    // Addresses from ::ffff:0:0/96 never appear on the wire (RFC 4291, section 2.5.5.2, RFC 5735): here they would be
    // taken for IPv4.
    if Addr::is_mapped(src) || Addr::is_mapped(dst) {
        return Parsed::Malformed(Reason::MalformedIp);
    }
    let ends = Ends { family: Family::V6, src: Addr::from_halves(src), dst: Addr::from_halves(dst) };
    // One by one, and the others out of sight: of a `match` the compiler makes a search, in which these come last.
    if ip[6] == TCP {
        return transport::tcp(frame, ends, TRANSPORT, length);
    }
    if ip[6] == UDP {
        return transport::udp(frame, ends, TRANSPORT, length);
    }
    Parsed::NotOurs(unusual(black_box(ip[6])))
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
