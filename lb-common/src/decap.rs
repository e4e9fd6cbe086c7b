//! Taking packets out of others (`lb decap`): what a backend does that has no tunnel device. The reverse of
//! [`crate::encap`], for whoever encapsulates alike.
//!
//! Packets of others are passed untouched: whose source is not trusted, who are for another address, whose outer header
//! has options or is in fragments. Those that are ours and cannot be opened are dropped.

use crate::abi::decap::{DecapConfig, kinds};
use crate::addr::{Addr, Family, UDP};
use crate::checksum::{self, Delta, fold};
use crate::encap::{IPV4_INSIDE, IPV6_INSIDE};
use crate::l2::{self, Macs};
use crate::named::named;
use crate::packet::transport::UDP_LEN;
use crate::packet::{Frame, double, eth, half, ipv4, ipv6, put_half, word};

/// The congestion field (RFC 3168, section 5).
mod ecn {
    pub(super) const MASK: u8 = 3;
    pub(super) const NOT_ECT: u8 = 0;
    pub(super) const ECT_1: u8 = 1;
    pub(super) const ECT_0: u8 = 2;
    pub(super) const CE: u8 = 3;
}

/// Who gets the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The kernel.
    Pass,
    /// Nobody.
    Drop,
}

named! {
    /// What became of a frame.
    Outcome;
    /// Who gets the frame.
    fate: Fate;

    /// Taken out of the packet around it.
    Opened = 0, "opened", Pass;
    /// No packet around another one, or not of a kind that is taken off.
    NotATunnel = 1, "not-a-tunnel", Pass;
    /// From somebody who is not trusted.
    ForeignSource = 2, "foreign-source", Pass;
    /// For an address that is not taken care of.
    OtherAddress = 3, "other-address", Pass;
    /// The outer packet is a fragment, or its header has options.
    Unusual = 4, "unusual", Pass;
    /// Headers that contradict themselves, or are cut short.
    Malformed = 5, "malformed", Drop;
    /// The checksum of the outer UDP header is wrong.
    BadChecksum = 6, "bad-checksum", Drop;
    /// The inner packet's time to live is over.
    Expired = 7, "expired", Drop;
    /// The way was congested, and the sender of the inner packet would not understand that.
    Congested = 8, "congested", Drop;
}

impl Outcome {
    /// Whether the frame is discarded; else the kernel gets it.
    #[inline(always)]
    pub const fn dropped(self) -> bool {
        matches!(self.fate(), Fate::Drop)
    }
}

const _: () = assert!(Outcome::ALL.len() <= crate::abi::decap::COUNTS);

/// Takes the packet out of the one around it, if that is ours.
#[inline(always)]
pub fn run<F: Frame + ?Sized>(frame: &mut F, config: &DecapConfig) -> Outcome {
    let done = match eth::ethertype(frame) {
        Some(eth::IPV4) => outer4(frame).and_then(|outer| open::<F, { ipv4::LEN }>(frame, config, &outer)),
        Some(eth::IPV6) => outer6(frame).and_then(|outer| open::<F, { ipv6::LEN }>(frame, config, &outer)),
        _ => Err(Outcome::NotATunnel),
    };
    match done {
        Ok(()) => Outcome::Opened,
        Err(outcome) => outcome,
    }
}

/// The outer header.
struct Outer {
    src: Addr,
    dst: Addr,
    protocol: u8,
    class: u8,
    /// Bytes behind it.
    length: usize,
}

#[inline(always)]
fn outer4<F: Frame + ?Sized>(frame: &F) -> Result<Outer, Outcome> {
    let ip = frame.at::<{ ipv4::LEN }>(eth::LEN).ok_or(Outcome::NotATunnel)?;
    if ![IPV4_INSIDE, IPV6_INSIDE, UDP].contains(&ip[9]) {
        return Err(Outcome::NotATunnel);
    }
    if ip[0] != 0x45 || half(ip, 6) & ipv4::FRAGMENT != 0 {
        return Err(Outcome::Unusual);
    }
    Ok(Outer {
        src: Addr::v4(word(ip, 12)),
        dst: Addr::v4(word(ip, 16)),
        protocol: ip[9],
        class: ip[1],
        length: (u16::from_be(half(ip, 2)) as usize).saturating_sub(ipv4::LEN),
    })
}

#[inline(always)]
fn outer6<F: Frame + ?Sized>(frame: &F) -> Result<Outer, Outcome> {
    let ip = frame.at::<{ ipv6::LEN }>(eth::LEN).ok_or(Outcome::NotATunnel)?;
    let addr = |at| Addr::from_halves([double(ip, at), double(ip, at + 8)]);
    if ip[0] >> 4 != 6 || ![IPV4_INSIDE, IPV6_INSIDE, UDP].contains(&ip[6]) {
        return Err(Outcome::NotATunnel);
    }
    Ok(Outer {
        src: addr(8),
        dst: addr(24),
        protocol: ip[6],
        class: (u16::from_be(half(ip, 0)) >> 4) as u8,
        length: u16::from_be(half(ip, 4)) as usize,
    })
}

/// `IP` is the length of the outer header, which tells its family.
#[inline(always)]
fn open<F: Frame + ?Sized, const IP: usize>(
    frame: &mut F,
    config: &DecapConfig,
    outer: &Outer,
) -> Result<(), Outcome> {
    let extra = if outer.protocol == UDP {
        if config.kinds & kinds::GUE == 0 {
            return Err(Outcome::NotATunnel);
        }
        let udp = frame.at::<UDP_LEN>(eth::LEN + IP).ok_or(Outcome::NotATunnel)?;
        if half(udp, 2) as u32 != config.port {
            return Err(Outcome::NotATunnel);
        }
        UDP_LEN
    } else {
        if config.kinds & kinds::IPIP == 0 {
            return Err(Outcome::NotATunnel);
        }
        0
    };
    if !config.owns(&outer.dst) {
        return Err(Outcome::OtherAddress);
    }
    if !config.trusts(&outer.src) {
        return Err(Outcome::ForeignSource);
    }
    // What the kernel would check, and never sees (RFC 1122, section 3.2.1.2).
    if IP == ipv4::LEN && frame.sum(eth::LEN, IP).is_none_or(|sum| fold(sum) != 0xffff) {
        return Err(Outcome::Malformed);
    }
    let end = eth::LEN + IP + outer.length;
    if outer.length < extra || end > frame.len() {
        return Err(Outcome::Malformed);
    }
    if extra != 0 {
        checked::<F, IP>(frame, outer)?;
    }
    let ethertype = inner(frame, outer, IP + extra, outer.length - extra)?;
    let macs = Macs::from(frame.at::<12>(0).ok_or(Outcome::Malformed)?);
    if !frame.strip(IP + extra) {
        return Err(Outcome::Malformed);
    }
    l2::redirect(frame, macs).ok_or(Outcome::Malformed)?;
    put_half(frame.at_mut::<2>(eth::LEN - 2).ok_or(Outcome::Malformed)?, 0, ethertype);
    Ok(())
}

/// Looks at the checksum of the outer UDP header, which may be missing (RFC 768; RFC 6935, section 5).
#[inline(always)]
fn checked<F: Frame + ?Sized, const IP: usize>(frame: &F, outer: &Outer) -> Result<(), Outcome> {
    let udp = frame.at::<UDP_LEN>(eth::LEN + IP).ok_or(Outcome::Malformed)?;
    let length = u16::from_be(half(udp, 4));
    if length as usize != outer.length {
        return Err(Outcome::Malformed);
    }
    if half(udp, 6) == 0 {
        return Ok(());
    }
    let family = if IP == ipv4::LEN { Family::V4 } else { Family::V6 };
    let pseudo = checksum::pseudo(family, &outer.src, &outer.dst, UDP, length);
    let sum = frame.sum(eth::LEN + IP, length as usize).ok_or(Outcome::BadChecksum)?;
    if fold(sum + pseudo) == 0xffff { Ok(()) } else { Err(Outcome::BadChecksum) }
}

/// Looks at the inner packet, of at most `length` bytes, and takes over what happened on the way. Gives its ethertype.
#[inline(always)]
fn inner<F: Frame + ?Sized>(
    frame: &mut F,
    outer: &Outer,
    extra: usize,
    length: usize,
) -> Result<u16, Outcome> {
    let at = eth::LEN + extra;
    let ip = frame.far_mut::<{ ipv4::LEN }>(at).ok_or(Outcome::Malformed)?;
    // GUE's variant 1: the version of IP tells what it is, and so that it is this variant.
    let v4 = match ip[0] >> 4 {
        4 if outer.protocol != IPV6_INSIDE => true,
        6 if outer.protocol != IPV4_INSIDE => false,
        _ => return Err(Outcome::Malformed),
    };
    let whole = if v4 { half(ip, 2) } else { half(ip, 4) };
    let whole = u16::from_be(whole) as usize + if v4 { 0 } else { ipv6::LEN };
    if whole > length || whole < if v4 { ipv4::LEN } else { ipv6::LEN } {
        return Err(Outcome::Malformed);
    }
    // Neither end of a tunnel counts as a hop for what it does with its own packets; what has no hop left, goes no further
    // (RFC 2003, section 3.1).
    if (if v4 { ip[8] } else { ip[7] }) == 0 {
        return Err(Outcome::Expired);
    }
    let class = if v4 { ip[1] } else { (u16::from_be(half(ip, 0)) >> 4) as u8 };
    let Some(new) = congestion(class, outer.class) else { return Err(Outcome::Congested) };
    if new != class {
        let old = half(ip, 0);
        if v4 {
            let first = u16::from_ne_bytes([ip[0], new]);
            put_half(ip, 0, first);
            put_half(ip, 10, Delta::NONE.half(old, first).apply(half(ip, 10)));
        } else {
            put_half(ip, 0, (u16::from_be(old) & 0xf00f | (new as u16) << 4).to_be());
        }
    }
    Ok(if v4 { eth::IPV4 } else { eth::IPV6 })
}

/// The class of what comes out (RFC 6040, section 4.2, figure 4). `None`: it must be dropped.
#[inline(always)]
const fn congestion(inner: u8, outer: u8) -> Option<u8> {
    let bits = match (inner & ecn::MASK, outer & ecn::MASK) {
        (ecn::NOT_ECT, ecn::CE) => return None,
        (ecn::NOT_ECT, _) => ecn::NOT_ECT,
        (_, ecn::CE) => ecn::CE,
        (ecn::ECT_0, ecn::ECT_1) => ecn::ECT_1,
        (inner, _) => inner,
    };
    Some(inner & !ecn::MASK | bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6040, figure 4, row by row: inner Not-ECT, ECT(0), ECT(1), CE; outer in the same order.
    #[test]
    fn congestion_is_taken_over() {
        let order = [ecn::NOT_ECT, ecn::ECT_0, ecn::ECT_1, ecn::CE];
        let figure = [
            [Some(0), Some(0), Some(0), None],
            [Some(ecn::ECT_0), Some(ecn::ECT_0), Some(ecn::ECT_1), Some(ecn::CE)],
            [Some(ecn::ECT_1), Some(ecn::ECT_1), Some(ecn::ECT_1), Some(ecn::CE)],
            [Some(ecn::CE); 4],
        ];
        for (inner, row) in order.into_iter().zip(figure) {
            for (outer, expected) in order.into_iter().zip(row) {
                // The rest of the class is the inner one's.
                let got = congestion(46 << 2 | inner, 10 << 2 | outer);
                assert_eq!(got, expected.map(|bits| 46 << 2 | bits), "{inner} in {outer}");
            }
        }
    }
}
