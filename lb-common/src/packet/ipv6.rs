//! IPv6 (RFC 8200).

use super::{Frame, Parsed, eth, half, transport, word};
use crate::addr::{Addr, TCP, UDP};
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
    let src = Addr([word(ip, 8), word(ip, 12), word(ip, 16), word(ip, 20)]);
    let dst = Addr([word(ip, 24), word(ip, 28), word(ip, 32), word(ip, 36)]);
    // Addresses from ::ffff:0:0/96 never appear on the wire (RFC 4291, section 2.5.5.2, RFC 5735): here they would be
    // taken for IPv4.
    if src.is_v4() || dst.is_v4() {
        return Parsed::Malformed(Reason::MalformedIp);
    }
    match ip[6] {
        TCP => transport::tcp(frame, src, dst, TRANSPORT, length),
        UDP => transport::udp(frame, src, dst, TRANSPORT, length),
        ICMP => Parsed::NotOurs(Reason::Icmp),
        FRAGMENT => Parsed::NotOurs(Reason::Fragment),
        // Hop-by-hop, routing, authentication, destination options, mobility, HIP, shim6 (RFC 7045, section 4).
        0 | 43 | 51 | 60 | 135 | 139 | 140 => Parsed::NotOurs(Reason::Ipv6Extension),
        _ => Parsed::NotOurs(Reason::OtherProtocol),
    }
}
