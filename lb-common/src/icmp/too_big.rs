//! "Too big": what a client is told whose packet does not fit where it must go (RFC 1191, RFC 8201). Without it the
//! connection hangs, for nobody else on the way knows what encapsulation adds.

use crate::addr::{Addr, Family};
use crate::checksum::{self, fold};
use crate::encap::DONT_FRAGMENT;
use crate::l2::{self, Macs};
use crate::packet::tags::Untagged;
use crate::packet::{Frame, double, eth, half, ipv4, ipv6, put_double, put_half, put_word, word};
use crate::pipeline::{self, Tables, Verdict};
use crate::reason::Reason;
use crate::wrap;

/// Length of an ICMP header with its four bytes of parameters.
const LEN: usize = 8;
/// Bytes of the refused packet that are quoted: enough for every sender to find its connection, whatever options and
/// extension headers there are. RFC 792 asks for 8 behind the header; RFC 4443, section 2.4, would like more.
const QUOTE: usize = 128;
/// The smallest packet that every IPv6 link takes (RFC 8200, section 5): nobody may be told less.
const LEAST_V6: u32 = 1280;
/// The same for IPv4 (RFC 791).
const LEAST_V4: u32 = 68;
/// Hop limit of the answer.
const HOPS: u8 = 64;

/// Answers a packet that [`crate::wrap`] refused, and counts.
#[inline(always)]
pub fn run<F: Frame + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let verdict = tables.hand(|hand| {
        let told = too_big(&mut Untagged::new(frame, hand.tags()), wrap::room(hand)).is_some();
        let reason = if told { Reason::ToldTooBig } else { Reason::TooBig };
        Verdict { reason, service: hand.service, egress: tables.ingress() }
    });
    pipeline::finish(tables, verdict.unwrap_or(Verdict::stop(0, Reason::NoProgram)))
}

/// Turns the frame into an answer to its sender: packets of at most `mtu` bytes. `None`: it is too short for that, or
/// there is no room in front; it may be spoilt then, and must be dropped.
#[inline(always)]
pub fn too_big<F: Frame + ?Sized>(frame: &mut F, mtu: u32) -> Option<()> {
    // The version was looked at before.
    if frame.at::<1>(eth::LEN)?[0] >> 4 == 4 {
        answer::<F, { ipv4::LEN }>(frame, mtu.max(LEAST_V4))
    } else {
        answer::<F, { ipv6::LEN }>(frame, mtu.max(LEAST_V6))
    }
}

/// `IP` is the length of the new header, which tells its family.
#[inline(always)]
fn answer<F: Frame + ?Sized, const IP: usize>(frame: &mut F, mtu: u32) -> Option<()> {
    let v4 = IP == ipv4::LEN;
    let back = Macs::from(frame.at::<12>(0)?).swapped();
    let quote = frame.at::<QUOTE>(eth::LEN)?;
    // From the service's address: the only one of ours that the client knows.
    let (src, dst) = if v4 {
        (Addr::v4(word(quote, 16)), Addr::v4(word(quote, 12)))
    } else {
        let addr = |at| Addr::from_halves([double(quote, at), double(quote, at + 8)]);
        (addr(24), addr(8))
    };
    let mut sum = frame.sum(eth::LEN, QUOTE)?;
    if !frame.grow(IP + LEN) || !frame.cut(eth::LEN + IP + LEN + QUOTE) {
        return None;
    }
    l2::redirect(frame, back)?;
    // Tags may lie between the two.
    put_half(frame.at_mut::<2>(eth::LEN - 2)?, 0, if v4 { eth::IPV4 } else { eth::IPV6 });
    let content = (LEN + QUOTE) as u16;
    let ip = frame.at_mut::<IP>(eth::LEN)?;
    if v4 {
        header4(ip, &src, &dst, content);
    } else {
        header6(ip, &src, &dst, content);
        sum += checksum::pseudo(Family::V6, &src, &dst, ipv6::ICMP, content);
    }
    let icmp = frame.at_mut::<LEN>(eth::LEN + IP)?;
    // Type 3 code 4 with the MTU in its last two bytes (RFC 1191, section 4), type 2 code 0 with it in all four (RFC 4443,
    // section 3.2).
    let (kind, parameter) = if v4 { ([3, 4], mtu.min(0xffff)) } else { ([2, 0], mtu) };
    put_half(icmp, 0, u16::from_ne_bytes(kind));
    put_word(icmp, 4, parameter.to_be());
    sum += half(icmp, 0) as u64 + half(icmp, 4) as u64 + half(icmp, 6) as u64;
    put_half(icmp, 2, !fold(sum));
    Some(())
}

#[inline(always)]
fn header4<const IP: usize>(ip: &mut [u8; IP], src: &Addr, dst: &Addr, content: u16) {
    put_half(ip, 0, 0x4500_u16.to_be());
    put_half(ip, 2, (ipv4::LEN as u16 + content).to_be());
    // Never fragmented, so the identification says nothing (RFC 6864, section 4.1).
    put_half(ip, 4, 0);
    put_half(ip, 6, DONT_FRAGMENT);
    put_half(ip, 8, u16::from_ne_bytes([HOPS, ipv4::ICMP]));
    let known = half(ip, 0) as u64 + half(ip, 2) as u64 + half(ip, 6) as u64 + half(ip, 8) as u64;
    put_half(ip, 10, !fold(known + src.last() as u64 + dst.last() as u64));
    put_word(ip, 12, src.last());
    put_word(ip, 16, dst.last());
}

#[inline(always)]
fn header6<const IP: usize>(ip: &mut [u8; IP], src: &Addr, dst: &Addr, content: u16) {
    put_word(ip, 0, 0x6000_0000_u32.to_be());
    put_half(ip, 4, content.to_be());
    put_half(ip, 6, u16::from_ne_bytes([ipv6::ICMP, HOPS]));
    for (at, addr) in [(8, src), (24, dst)] {
        let [first, last] = addr.halves();
        put_double(ip, at, first);
        put_double(ip, at + 8, last);
    }
}
