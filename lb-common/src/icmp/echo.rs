//! Echo: a request to a service's address comes back as its reply, by the way that it came.

use super::{CHECKSUM, outer};
use crate::abi::{Key, VipEntry};
use crate::addr::{Addr, Family};
use crate::checksum::Delta;
use crate::l2::{self, Macs};
use crate::packet::locate::Located;
use crate::packet::{Frame, double, eth, half, ipv4, ipv6, put_double, put_half, put_word, word};
use crate::pipeline::{Tables, Verdict};
use crate::reason::Reason;
use crate::table;

/// Time to live of a reply: what RFC 1700 ("IP time to live parameter") recommends, and Linux takes.
const TTL: u8 = 64;

/// Answers an echo request. `None`: it is not ours, or not to be answered.
#[inline(always)]
pub(super) fn answer<F: Frame + ?Sized, T: Tables>(
    frame: &mut F,
    tables: &T,
    at: Located,
    reply: u8,
) -> Option<Verdict> {
    // Options are to be answered with options (RFC 1122, section 3.2.2.6): the kernel can.
    let plain = if at.family == Family::V4 { ipv4::TRANSPORT } else { ipv6::TRANSPORT };
    if at.transport != plain {
        return None;
    }
    let [src, dst] = outer(frame, at.family)?;
    let vip = find(tables, &dst)?;
    let macs = frame.at::<12>(0)?;
    if src == dst || !is_one_host(at.family, &src) || (macs[0] | macs[6]) & 1 != 0 {
        return None;
    }
    if !tables.may_answer() {
        return Some(Verdict::stop(vip.service, Reason::EchoLimited));
    }
    turn(frame, at, reply)?;
    Some(Verdict { reason: Reason::EchoAnswered, service: vip.service, egress: tables.ingress() })
}

#[inline(always)]
fn find<'a, T: Tables>(tables: &'a T, addr: &Addr) -> Option<&'a VipEntry> {
    let key = Key::address(*addr);
    table::look((&key, table::hash(&key)), tables.vip_mask(), |place| tables.vip(place), |entry| &entry.key)
}

/// Whether an address may be that of one host that waits for a reply: nothing is sent to groups, to everybody, or to nobody
/// (RFC 1122, section 3.2.2.6, RFC 4443, section 4.2).
#[inline(always)]
fn is_one_host(family: Family, addr: &Addr) -> bool {
    if family == Family::V4 {
        // "This network", loopback, and from 224.0.0.0 on multicast, reserved and broadcast (RFC 6890, RFC 5771).
        let first = addr.last().to_ne_bytes()[0];
        return first != 0 && first != 127 && first < 224;
    }
    let [first, last] = addr.halves();
    let group = first.to_ne_bytes()[0] == 0xff;
    let special = first == 0 && u64::from_be(last) <= 1;
    !(group || special)
}

/// Makes a reply of a request: ends swapped, and the sums corrected, so that a wrong one stays wrong.
#[inline(always)]
fn turn<F: Frame + ?Sized>(frame: &mut F, at: Located, reply: u8) -> Option<()> {
    let icmp = frame.at_mut::<4>(at.transport)?;
    let old = half(icmp, 0);
    icmp[0] = reply;
    // Swapping both ends of ICMPv6's pseudo-header changes no sum.
    let delta = Delta::NONE.half(old, half(icmp, 0));
    put_half(icmp, CHECKSUM, delta.apply(half(icmp, CHECKSUM)));
    if at.family == Family::V4 {
        let ip = frame.at_mut::<{ ipv4::LEN }>(eth::LEN)?;
        let (src, dst) = (word(ip, 12), word(ip, 16));
        put_word(ip, 12, dst);
        put_word(ip, 16, src);
        let old = half(ip, 8);
        ip[8] = TTL;
        let delta = Delta::NONE.half(old, half(ip, 8));
        put_half(ip, 10, delta.apply(half(ip, 10)));
    } else {
        let ip = frame.at_mut::<{ ipv6::LEN }>(eth::LEN)?;
        ip[7] = TTL;
        let [a, b, c, d] = [double(ip, 8), double(ip, 16), double(ip, 24), double(ip, 32)];
        put_double(ip, 8, c);
        put_double(ip, 16, d);
        put_double(ip, 24, a);
        put_double(ip, 32, b);
    }
    let macs = Macs::from(frame.at::<12>(0)?);
    l2::redirect(frame, macs.swapped())
}
