//! Putting a packet into another one: IP in IP (RFC 2003, RFC 2473, RFC 4213), and UDP around IP ("generic UDP
//! encapsulation", draft-ietf-intarea-gue, variant 1: the inner packet follows the UDP header at once).
//!
//! The inner packet stays as it came, so a backend answers its client directly.

use crate::abi::Settings;
use crate::addr::{Addr, Family, UDP};
use crate::checksum::{self, fold};
use crate::l2::Macs;
use crate::packet::transport::UDP_LEN;
use crate::packet::{Frame, eth, half, ipv4, ipv6, put_double, put_half, put_word};

/// What goes between the outer IP header and the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Ipip,
    /// A UDP header.
    Gue,
}

/// Why a packet cannot be put into another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no address of the outer family to send from.
    NoSource,
    /// It would be larger than the way to the backend takes.
    TooBig,
    /// There is no room for the headers in front of the frame.
    NoRoom,
}

/// The port that outer packets are sent to, network order: assigned to generic UDP encapsulation.
pub const GUE_PORT: u16 = 6080_u16.to_be();
/// Outer source ports begin here: the dynamic ones (RFC 6335, section 6).
const FIRST_SOURCE_PORT: u16 = 0xc000;
/// Hop limit of outer packets (RFC 1700).
const HOPS: u8 = 64;
/// IPv4's number as the content of another packet (RFC 2003).
pub(crate) const IPV4_INSIDE: u8 = 4;
/// IPv6's number as the content of another packet (RFC 2473).
pub(crate) const IPV6_INSIDE: u8 = 41;
/// "Don't fragment", as it lies in memory.
pub(crate) const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();

/// Bytes that encapsulation puts in front of the inner packet.
#[inline(always)]
pub const fn overhead(kind: Kind, outer: Family) -> u16 {
    let ip = match outer {
        Family::V4 => ipv4::LEN,
        Family::V6 => ipv6::LEN,
    };
    let udp = match kind {
        Kind::Ipip => 0,
        Kind::Gue => UDP_LEN,
    };
    (ip + udp) as u16
}

/// Where a packet is sent, in what.
#[derive(Clone, Copy, Debug)]
pub struct Outer<'a> {
    /// The kind of encapsulation.
    pub kind: Kind,
    /// The backend.
    pub dst: &'a Addr,
    /// The next hop's MAC address, and ours.
    pub macs: Macs,
    /// Largest IP packet on the way, bytes; 0: not known.
    pub mtu: u32,
    /// Whether a UDP header has a checksum.
    pub checksum: bool,
    /// All packets of a flow look alike from outside, those of others do not, so that receivers spread them over their
    /// queues.
    pub entropy: u32,
}

/// Puts the packet into another one, which has none of the `tags` bytes of VLAN tags that lie in front of it. Where it is
/// refused nothing was written.
#[inline(always)]
pub fn wrap<F: Frame + ?Sized>(
    frame: &mut F,
    tags: usize,
    outer: &Outer<'_>,
    settings: &Settings,
) -> Result<(), Refused> {
    match outer.dst.family() {
        Family::V4 => wrap_in::<F, { ipv4::LEN }>(frame, tags, outer, settings),
        Family::V6 => wrap_in::<F, { ipv6::LEN }>(frame, tags, outer, settings),
    }
}

/// `IP` is the length of the outer header, which tells its family.
#[inline(always)]
fn wrap_in<F: Frame + ?Sized, const IP: usize>(
    frame: &mut F,
    tags: usize,
    outer: &Outer<'_>,
    settings: &Settings,
) -> Result<(), Refused> {
    let v4 = IP == ipv4::LEN;
    let family = if v4 { Family::V4 } else { Family::V6 };
    let extra = overhead(outer.kind, family);
    let Some(Inner { family: inside, class, length }) = Inner::read(frame, tags) else {
        return Err(Refused::NoRoom);
    };
    let total = length + extra as u32;
    if (outer.mtu != 0 && total > outer.mtu) || total > u16::MAX as u32 {
        return Err(Refused::TooBig);
    }
    let src = settings.outer_source(family, if outer.kind == Kind::Ipip { outer.entropy } else { 0 });
    let Some(src) = src else { return Err(Refused::NoSource) };
    let summed = outer.kind == Kind::Gue && outer.checksum;
    let sum = if summed { frame.sum(eth::LEN + tags, length as usize).ok_or(Refused::NoRoom)? } else { 0 };
    // Tags give way first.
    if !frame.grow(extra as usize - tags) {
        return Err(Refused::NoRoom);
    }
    let inside = match inside {
        Family::V4 => IPV4_INSIDE,
        Family::V6 => IPV6_INSIDE,
    };
    let next = if outer.kind == Kind::Gue { UDP } else { inside };
    let head = frame.at_mut::<{ eth::LEN }>(0).ok_or(Refused::NoRoom)?;
    outer.macs.write(head);
    put_half(head, 12, if v4 { eth::IPV4 } else { eth::IPV6 });
    let ip = frame.at_mut::<IP>(eth::LEN).ok_or(Refused::NoRoom)?;
    if v4 {
        // Version and length, and the inner class: RFC 6040, section 4.1, copies the congestion field as it is.
        put_half(ip, 0, u16::from_ne_bytes([0x45, class]));
        put_half(ip, 2, (total as u16).to_be());
        // Never fragmented, so the identification says nothing (RFC 6864, section 4.1).
        put_half(ip, 4, 0);
        put_half(ip, 6, DONT_FRAGMENT);
        put_half(ip, 8, u16::from_ne_bytes([HOPS, next]));
        let known = u16::from_ne_bytes([0x45, class]) as u64
            + (total as u16).to_be() as u64
            + DONT_FRAGMENT as u64
            + u16::from_ne_bytes([HOPS, next]) as u64;
        put_half(ip, 10, !fold(known + src.last() as u64 + outer.dst.last() as u64));
        put_word(ip, 12, src.last());
        put_word(ip, 16, outer.dst.last());
    } else {
        put_half(ip, 0, (0x6000 | (class as u16) << 4).to_be());
        // The flow label is the flow's own (RFC 6437, section 2).
        put_half(ip, 2, outer.entropy as u16);
        put_half(ip, 4, (total as u16 - ipv6::LEN as u16).to_be());
        put_half(ip, 6, u16::from_ne_bytes([next, HOPS]));
        for (at, addr) in [(8, &src), (24, outer.dst)] {
            let [first, last] = addr.halves();
            put_double(ip, at, first);
            put_double(ip, at + 8, last);
        }
    }
    if outer.kind == Kind::Gue {
        let udp = frame.at_mut::<UDP_LEN>(eth::LEN + IP).ok_or(Refused::NoRoom)?;
        let port = FIRST_SOURCE_PORT | (outer.entropy as u16 & !FIRST_SOURCE_PORT);
        put_half(udp, 0, port.to_be());
        put_half(udp, 2, GUE_PORT);
        let content = total as u16 - IP as u16;
        put_half(udp, 4, content.to_be());
        // None unless asked for: the inner packet has its own (RFC 768; RFC 6935 and 6936 for IPv6).
        let checksum = if summed {
            let header = half(udp, 0) as u64 + half(udp, 2) as u64 + half(udp, 4) as u64;
            checksum::udp(!fold(sum + header + checksum::pseudo(family, &src, outer.dst, UDP, content)))
        } else {
            0
        };
        put_half(udp, 6, checksum);
    }
    Ok(())
}

/// What an outer header takes over from the inner one.
struct Inner {
    family: Family,
    /// DSCP and congestion field, as they stand in an IPv4 header.
    class: u8,
    /// Length of the IP packet, bytes: the frame may be longer (padding).
    length: u32,
}

impl Inner {
    /// `None`: no whole header.
    #[inline(always)]
    fn read<F: Frame + ?Sized>(frame: &F, tags: usize) -> Option<Self> {
        let ip = frame.far::<{ ipv4::LEN }>(eth::LEN + tags)?;
        // The version was looked at before.
        Some(if ip[0] >> 4 == 4 {
            Self { family: Family::V4, class: ip[1], length: u16::from_be(half(ip, 2)) as u32 }
        } else {
            Self {
                family: Family::V6,
                class: (u16::from_be(half(ip, 0)) >> 4) as u8,
                length: ipv6::LEN as u32 + u16::from_be(half(ip, 4)) as u32,
            }
        })
    }
}
