//! Where the transport header lies, whatever is in front of it: VLAN tags, IPv4 options, IPv6 extension headers. And which
//! fragment of a datagram this is.

use super::part::{Kind, Part};
use super::transport::Ends;
use super::{Frame, Packet, Parsed, eth, half, ipv4, ipv6, tags, word};
use crate::abi::counter::REASON_SLOTS;
use crate::addr::{Addr, Family};
use crate::reason::Reason;

/// Extension headers that are looked past; a packet with more is not ours.
pub(super) const EXTENSIONS: usize = 8;

/// Extension headers with a length of their own (RFC 8200, section 4.1, RFC 4302).
pub(super) mod extension {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const AUTHENTICATION: u8 = 51;
    pub(crate) const DESTINATION: u8 = 60;
}

/// Where things lie in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Bytes of VLAN tags between the MAC addresses and the ethertype: 0, 4 or 8. All other offsets are those of the frame
    /// without them.
    pub tags: usize,
    /// The family of the addresses.
    pub family: Family,
    /// What follows all headers: TCP, UDP, or something else.
    pub protocol: u8,
    /// Offset of what follows, bytes.
    pub transport: usize,
    /// Length of what follows, bytes.
    pub length: u16,
    /// Which part of its datagram this is.
    pub kind: Kind,
    /// Offset of an IPv6 fragment header, bytes; 0 if there is none.
    pub fragment: usize,
}

impl Located {
    /// All of it, or a reason, in one word: what a program's function can answer.
    #[inline(always)]
    pub const fn pack(found: Result<Self, Reason>) -> u64 {
        match found {
            Ok(at) => {
                at.transport as u64 & 0xffff
                    | (at.length as u64) << 16
                    | (at.protocol as u64) << 32
                    | (at.tags as u64 & 0xf) << 40
                    | (at.family as u64 & 1) << 44
                    | (at.kind as u64 & 3) << 45
                    | (at.fragment as u64 & 0x3fff) << 47
            }
            Err(reason) => 1 << 63 | reason as u64,
        }
    }

    /// What was packed. No value is too much for the bounds that a verifier wants to see.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Result<Self, u32> {
        if word >> 63 != 0 {
            // The verifier wants to see that it is an index.
            return Err(word as u32 & (REASON_SLOTS as u32 - 1));
        }
        Ok(Self {
            tags: (word >> 40) as usize & 0xc,
            family: if (word >> 44) & 1 == 0 { Family::V4 } else { Family::V6 },
            protocol: (word >> 32) as u8,
            transport: word as usize & 0x3fff,
            length: (word >> 16) as u16,
            kind: match (word >> 45) & 3 {
                0 => Kind::Whole,
                1 => Kind::First,
                _ => Kind::Later,
            },
            fragment: (word >> 47) as usize & 0x3fff,
        })
    }
}

/// Looks for the transport header.
///
/// # Errors
/// Why there is none that can be looked at: not ours, or malformed.
#[inline(always)]
pub fn locate<F: Frame + ?Sized>(frame: &F) -> Result<Located, Reason> {
    let tags = tags::count(frame)?;
    let network = eth::LEN + tags;
    match half(frame.far::<2>(network - 2).ok_or(Reason::Truncated)?, 0) {
        eth::IPV4 => in_ipv4(frame, network, tags),
        eth::IPV6 => in_ipv6(frame, network, tags),
        other => Err(eth::reason(other)),
    }
}

/// The same, asked of the frame: in the kernel a function that the verifier looks at once.
///
/// # Errors
/// See [`locate`].
#[inline(always)]
pub(crate) fn found<F: Frame + ?Sized>(frame: &F) -> Result<Located, Reason> {
    Located::unpack(frame.locate()).map_err(|number| Reason::from_number(number).unwrap_or(Reason::Truncated))
}

#[inline(always)]
fn in_ipv4<F: Frame + ?Sized>(frame: &F, network: usize, tags: usize) -> Result<Located, Reason> {
    let ip = frame.far::<{ ipv4::LEN }>(network).ok_or(Reason::Truncated)?;
    // Options (RFC 791, section 3.1) stay as they are.
    let len = (ip[0] & 0xf) as usize * 4;
    let total = u16::from_be(half(ip, 2));
    if ip[0] >> 4 != 4 || len < ipv4::LEN || (total as usize) < len {
        return Err(Reason::MalformedIp);
    }
    if network + total as usize > frame.len() {
        return Err(Reason::Truncated);
    }
    let (transport, length) = (eth::LEN + len, total - len as u16);
    // Three flags, then the offset: RFC 791, section 3.1.
    let field = u16::from_be(half(ip, 6));
    let kind = Kind::of(field & ipv4::OFFSET, field & ipv4::MORE != 0, length)?;
    Ok(Located { tags, family: Family::V4, protocol: ip[9], transport, length, kind, fragment: 0 })
}

#[inline(always)]
fn in_ipv6<F: Frame + ?Sized>(frame: &F, network: usize, tags: usize) -> Result<Located, Reason> {
    let ip = frame.far::<{ ipv6::LEN }>(network).ok_or(Reason::Truncated)?;
    if ip[0] >> 4 != 6 {
        return Err(Reason::MalformedIp);
    }
    let payload = u16::from_be(half(ip, 4)) as usize;
    if network + ipv6::LEN + payload > frame.len() {
        return Err(Reason::Truncated);
    }
    // Before the other headers are looked at, as without tags.
    if ipv6::addresses(ip).into_iter().any(Addr::is_mapped) {
        return Err(Reason::MalformedIp);
    }
    let (mut next, mut at) = (ip[6], 0);
    for _ in 0..EXTENSIONS {
        let unit = match next {
            extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION => 8,
            extension::AUTHENTICATION => 4,
            ipv6::FRAGMENT => return in_fragment(frame, tags, payload, at),
            _ => {
                let (transport, length) = (eth::LEN + ipv6::LEN + at, (payload - at) as u16);
                let (family, kind) = (Family::V6, Kind::Whole);
                return Ok(Located { tags, family, protocol: next, transport, length, kind, fragment: 0 });
            }
        };
        // Eight bytes at least: an authentication header of that length would hold nothing (RFC 4302, section 2).
        if at + 8 > payload {
            return Err(Reason::MalformedIp);
        }
        let start = frame.far::<8>(network + ipv6::LEN + at).ok_or(Reason::Truncated)?;
        // With segments left the destination is only the next station (RFC 8200, section 4.4).
        if next == extension::ROUTING && start[3] != 0 {
            return Err(Reason::Ipv6Extension);
        }
        next = start[0];
        // In units of 8 bytes without the first (RFC 8200, section 4.3), or of 4 bytes without the first two (RFC 4302,
        // section 2.2).
        at += if unit == 8 { (start[1] as usize + 1) * 8 } else { (start[1] as usize + 2) * 4 };
        if at > payload || (unit == 4 && start[1] == 0) {
            return Err(Reason::MalformedIp);
        }
        // Eight headers at their longest.
        if at > 0x3fff {
            return Err(Reason::Ipv6Extension);
        }
        at = frame.opaque(at);
    }
    Err(Reason::Ipv6Extension)
}

/// Behind a fragment header, `at` bytes behind the IPv6 header, comes the transport header: others that may stand there
/// (RFC 8200, section 4.1) are not looked past.
#[inline(always)]
fn in_fragment<F: Frame + ?Sized>(
    frame: &F,
    tags: usize,
    payload: usize,
    at: usize,
) -> Result<Located, Reason> {
    if at + ipv6::FRAGMENT_LEN > payload {
        return Err(Reason::MalformedIp);
    }
    let fragment = eth::LEN + ipv6::LEN + at;
    let header = frame.far::<{ ipv6::FRAGMENT_LEN }>(tags + fragment).ok_or(Reason::Truncated)?;
    let (transport, length) = (fragment + ipv6::FRAGMENT_LEN, (payload - at - ipv6::FRAGMENT_LEN) as u16);
    // The offset, two bits of nothing, and whether more follow: RFC 8200, section 4.5.
    let field = u16::from_be(half(header, 2));
    let kind = Kind::of(field >> 3, field & 1 != 0, length)?;
    Ok(Located { tags, family: Family::V6, protocol: header[0], transport, length, kind, fragment })
}

/// Looks at a packet whose transport header was found: whole, or the first fragment.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, at: Located) -> Parsed {
    let Some(part) = part(frame, at) else { return Parsed::Malformed(Reason::Truncated) };
    match at.family {
        Family::V4 => ipv4::parse_at(frame, at.protocol, at.transport, at.length, part),
        Family::V6 => ipv6::parse_at(frame, at.protocol, at.transport, at.length, part),
    }
}

/// A fragment without what a transport header says.
///
/// # Errors
/// It is not all there.
#[inline(always)]
pub(crate) fn bare<F: Frame + ?Sized>(frame: &F, at: Located) -> Result<Packet, Reason> {
    let part = part(frame, at).ok_or(Reason::Truncated)?;
    let Ends { family, src, dst } = match at.family {
        Family::V4 => ipv4::ends(frame)?,
        Family::V6 => ipv6::ends(frame)?,
    };
    Ok(Packet {
        family,
        src,
        dst,
        src_port: 0,
        dst_port: 0,
        protocol: at.protocol,
        tcp_flags: 0,
        transport: at.transport,
        length: at.length,
        checksum: 0,
        part,
    })
}

/// What a fragment says of itself.
#[inline(always)]
fn part<F: Frame + ?Sized>(frame: &F, at: Located) -> Option<Part> {
    if matches!(at.kind, Kind::Whole) {
        return Some(Part::WHOLE);
    }
    let id = match at.family {
        Family::V4 => half(frame.at::<2>(eth::LEN + 4)?, 0) as u32,
        Family::V6 => word(frame.at::<4>(at.fragment + 4)?, 0),
    };
    Some(Part { kind: at.kind, id, end: at.length, ..Part::WHOLE })
}

/// Where a fragment's bytes begin in its datagram.
#[inline(always)]
pub(crate) fn start<F: Frame + ?Sized>(frame: &F, at: Located) -> Option<u16> {
    Some(match at.family {
        Family::V4 => (u16::from_be(half(frame.at::<2>(eth::LEN + 6)?, 0)) & ipv4::OFFSET) << 3,
        // In units of 8 bytes and three bits higher: it stands there as bytes.
        Family::V6 => u16::from_be(half(frame.at::<2>(at.fragment + 2)?, 0)) & !7,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(
            tags in 0_usize..3, v6: bool, protocol: u8, transport in 34_usize..0x4000, length: u16,
            kind in 0_usize..3, fragment in 0_usize..0x4000,
        ) {
            let kind = [Kind::Whole, Kind::First, Kind::Later][kind];
            let family = if v6 { Family::V6 } else { Family::V4 };
            let at = Located { tags: tags * 4, family, protocol, transport, length, kind, fragment };
            prop_assert_eq!(Located::unpack(Located::pack(Ok(at))), Ok(at));
        }
    }

    #[test]
    fn so_do_reasons() {
        for reason in Reason::ALL {
            assert_eq!(Located::unpack(Located::pack(Err(*reason))), Err(*reason as u32));
        }
    }
}
