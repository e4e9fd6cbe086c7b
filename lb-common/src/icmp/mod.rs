//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo requests are answered for a service's address, errors about a flow find
//! the two ends of it. Everything else is passed: neighbour discovery, MLD, replies, redirects, source quench.

mod echo;
mod error;
pub mod limit;
pub mod too_big;

use crate::addr::{Addr, Family};
use crate::packet::embedded::ICMP_LEN;
use crate::packet::locate::Located;
use crate::packet::{Frame, double, eth, ipv4, ipv6, word};
use crate::pipeline::{Tables, Verdict};
use crate::reason::Reason;

/// Offset of the checksum in an ICMP header.
const CHECKSUM: usize = 2;

/// Types of ICMP (RFC 792).
mod v4 {
    pub(super) const ECHO_REPLY: u8 = 0;
    pub(super) const UNREACHABLE: u8 = 3;
    pub(super) const ECHO_REQUEST: u8 = 8;
    pub(super) const TIME_EXCEEDED: u8 = 11;
    pub(super) const PARAMETER_PROBLEM: u8 = 12;
}

/// Types of ICMPv6 (RFC 4443, section 2.1).
mod v6 {
    pub(super) const UNREACHABLE: u8 = 1;
    pub(super) const PARAMETER_PROBLEM: u8 = 4;
    pub(super) const ECHO_REQUEST: u8 = 128;
    pub(super) const ECHO_REPLY: u8 = 129;
}

/// What an ICMP message is to us.
enum Kind {
    /// A request that is answered with this type.
    Echo { reply: u8 },
    /// An error about another packet.
    Error,
}

impl Kind {
    #[inline(always)]
    const fn of(family: Family, kind: u8, code: u8) -> Option<Self> {
        match (family, kind) {
            (Family::V4, v4::ECHO_REQUEST) if code == 0 => Some(Self::Echo { reply: v4::ECHO_REPLY }),
            (Family::V6, v6::ECHO_REQUEST) if code == 0 => Some(Self::Echo { reply: v6::ECHO_REPLY }),
            (Family::V4, v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM)
            | (Family::V6, v6::UNREACHABLE..=v6::PARAMETER_PROBLEM) => Some(Self::Error),
            _ => None,
        }
    }
}

/// Whether this is what a family calls its ICMP.
#[inline(always)]
pub(crate) const fn is_icmp(at: &Located) -> bool {
    match at.family {
        Family::V4 => at.protocol == ipv4::ICMP,
        Family::V6 => at.protocol == ipv6::ICMP,
    }
}

/// Decides about an ICMP message.
#[inline(always)]
pub(crate) fn decide<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T, at: Located) -> Verdict {
    let verdict = if (at.length as usize) < ICMP_LEN { None } else { look(frame, tables, at) };
    verdict.unwrap_or(Verdict::stop(0, Reason::Icmp))
}

/// The same about what may belong to a range of ports.
#[inline(always)]
pub(crate) fn decide_wide<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T, at: Located) -> Verdict {
    error::deliver::<true, _, _>(frame, tables, at).unwrap_or(Verdict::stop(0, Reason::Icmp))
}

/// `None`: not ours.
#[inline(always)]
fn look<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T, at: Located) -> Option<Verdict> {
    let [kind, code] = *frame.at::<2>(at.transport)?;
    match Kind::of(at.family, kind, code)? {
        Kind::Echo { reply } => echo::answer(frame, tables, at, reply),
        Kind::Error => error::deliver::<false, _, _>(frame, tables, at),
    }
}

/// Source and destination of the packet whose IP header lies at an offset.
#[inline(always)]
fn ends<F: Frame + ?Sized>(frame: &F, family: Family, at: usize) -> Option<[Addr; 2]> {
    if family == Family::V4 {
        let ip = frame.at::<{ ipv4::LEN }>(at)?;
        return Some([Addr::v4(word(ip, 12)), Addr::v4(word(ip, 16))]);
    }
    let ip = frame.at::<{ ipv6::LEN }>(at)?;
    let [src, dst] = [[double(ip, 8), double(ip, 16)], [double(ip, 24), double(ip, 32)]];
    // As in `ipv6::parse`: they would be taken for IPv4.
    if Addr::is_mapped(src) || Addr::is_mapped(dst) {
        return None;
    }
    Some([Addr::from_halves(src), Addr::from_halves(dst)])
}

/// Source and destination of the frame.
#[inline(always)]
fn outer<F: Frame + ?Sized>(frame: &F, family: Family) -> Option<[Addr; 2]> {
    ends(frame, family, eth::LEN)
}
