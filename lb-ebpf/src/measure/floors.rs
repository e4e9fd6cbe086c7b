//! The least that balancing may cost: the bytes that change, and nothing that finds out which.

use core::arch::asm;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_TX};
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::programs::XdpContext;
use lb_common::checksum::{Delta, fold};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;

/// `N` bytes from the start of the packet.
#[inline(always)]
fn head<const N: usize>(ctx: &XdpContext) -> Option<&mut [u8; N]> {
    let start = ctx.data();
    if start + N > ctx.data_end() {
        return None;
    }
    // SAFETY: the length was just checked and nobody else has the packet.
    Some(unsafe { &mut *(start as *mut [u8; N]) })
}

#[inline(always)]
fn half<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Words of 16 and 32 bits.
trait Word {
    fn wide(self) -> u64;
    fn narrow(wide: u64) -> Self;
}

impl Word for u16 {
    #[inline(always)]
    fn wide(self) -> u64 {
        self as u64
    }
    #[inline(always)]
    fn narrow(wide: u64) -> Self {
        wide as u16
    }
}

impl Word for u32 {
    #[inline(always)]
    fn wide(self) -> u64 {
        self as u64
    }
    #[inline(always)]
    fn narrow(wide: u64) -> Self {
        wide as u32
    }
}

/// Writes a word that LLVM does not know: of constants it would make calls, that write byte by byte.
#[inline(always)]
fn put<T: Word, const N: usize>(bytes: &mut [u8; N], at: usize, value: T) {
    let mut value = value.wide();
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags)) };
    let place = (&raw mut bytes[at..at + size_of::<T>()]).cast::<T>();
    // SAFETY: the slice has room for a `T`.
    unsafe { place.write_unaligned(T::narrow(value)) }
}

/// A header as words: bytes would be copied one by one.
const fn words<const N: usize, const W: usize>(bytes: [u8; N]) -> [u32; W] {
    let mut words = [0; W];
    let mut n = 0;
    while n < W {
        let at = n * 4;
        words[n] = u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        n += 1;
    }
    words
}

#[inline(always)]
fn put_words<const N: usize, const W: usize>(bytes: &mut [u8; N], at: usize, words: [u32; W]) {
    for n in 0..W {
        put(bytes, at + n * 4, words[n]);
    }
}

/// 02:00:00:00:00:02, then 02:00:00:00:00:01.
const MACS: [u32; 3] = words([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);

#[inline(always)]
pub(super) fn swap_macs(ctx: &XdpContext) -> u32 {
    let Some(head) = head::<ETHERNET>(ctx) else { return XDP_ABORTED };
    let (a, b, c, d) = (word(head, 0), half(head, 4), word(head, 6), half(head, 10));
    put(head, 0, c);
    put(head, 4, d);
    put(head, 6, a);
    put(head, 10, b);
    XDP_TX
}

/// Makes room in front.
#[inline(always)]
fn grow(ctx: &XdpContext, by: usize) -> bool {
    // SAFETY: the context is the program's own; pointers into the packet are read after this.
    unsafe { bpf_xdp_adjust_head(ctx.ctx, -(by as i32)) == 0 }
}

#[inline(always)]
pub(super) fn encapsulate4(ctx: &XdpContext) -> u32 {
    // Version, length, TTL 64, IP in IP (RFC 2003), two addresses.
    const HEADER: [u8; IPV4] = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 4, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    const SUM: u64 = {
        let mut sum = 0;
        let mut n = 0;
        while n < IPV4 {
            sum += u16::from_ne_bytes([HEADER[n], HEADER[n + 1]]) as u64;
            n += 2;
        }
        sum
    };
    if !grow(ctx, IPV4) {
        return XDP_ABORTED;
    }
    let Some(head) = head::<{ ETHERNET + IPV4 + IPV4 }>(ctx) else { return XDP_ABORTED };
    let total = (u16::from_be(half(head, ETHERNET + IPV4 + 2)) + IPV4 as u16).to_be();
    put_words(head, 0, MACS);
    put(head, 12, 0x0800_u16.to_be());
    put_words(head, ETHERNET, const { words::<IPV4, 5>(HEADER) });
    put(head, ETHERNET + 2, total);
    put(head, ETHERNET + 10, !fold(SUM + total as u64));
    XDP_TX
}

#[inline(always)]
pub(super) fn encapsulate6(ctx: &XdpContext) -> u32 {
    // Next header 41 (RFC 2473), hop limit 64, two addresses.
    const HEADER: [u8; IPV6] = [
        0x60, 0, 0, 0, 0, 0, 41, 64, 0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xfd, 0, 0, 0, 0, 0,
        0, 1, 0, 0, 0, 0, 0, 0, 0, 2,
    ];
    if !grow(ctx, IPV6) {
        return XDP_ABORTED;
    }
    let Some(head) = head::<{ ETHERNET + IPV6 + IPV6 }>(ctx) else { return XDP_ABORTED };
    let length = (u16::from_be(half(head, ETHERNET + IPV6 + 4)) + IPV6 as u16).to_be();
    put_words(head, 0, MACS);
    put(head, 12, 0x86dd_u16.to_be());
    put_words(head, ETHERNET, const { words::<IPV6, 10>(HEADER) });
    put(head, ETHERNET + 4, length);
    XDP_TX
}

const PORT: u16 = 8080_u16.to_be();

#[inline(always)]
pub(super) fn rewrite4(ctx: &XdpContext) -> u32 {
    const BACKEND: u32 = u32::from_ne_bytes([10, 0, 0, 2]);
    let Some(head) = head::<{ ETHERNET + IPV4 + TCP }>(ctx) else { return XDP_ABORTED };
    let address = Delta::NONE.word(word(head, 30), BACKEND);
    let ip = address.apply(half(head, 24));
    let tcp = address.half(half(head, 36), PORT).apply(half(head, 50));
    put_words(head, 0, MACS);
    put(head, 24, ip);
    put(head, 30, BACKEND);
    put(head, 36, PORT);
    put(head, 50, tcp);
    XDP_TX
}

#[inline(always)]
pub(super) fn rewrite6(ctx: &XdpContext) -> u32 {
    const BACKEND: [u32; 4] = [u32::from_ne_bytes([0xfd, 0, 0, 0]), 0, 0, u32::from_ne_bytes([0, 0, 0, 2])];
    let Some(head) = head::<{ ETHERNET + IPV6 + TCP }>(ctx) else { return XDP_ABORTED };
    let mut change = Delta::NONE;
    for n in 0..4 {
        change = change.word(word(head, 38 + n * 4), BACKEND[n]);
    }
    let tcp = change.half(half(head, 56), PORT).apply(half(head, 70));
    put_words(head, 0, MACS);
    for n in 0..4 {
        put(head, 38 + n * 4, BACKEND[n]);
    }
    put(head, 56, PORT);
    put(head, 70, tcp);
    XDP_TX
}
