//! The packet: the only place where packet pointers are followed.

use core::arch::asm;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use lb_common::addr::Family;
use lb_common::packet::Frame;
use lb_common::packet::embedded::{self, Embedded};
use lb_common::packet::locate::{self, Located};

/// Bytes that one call of the helper sums: its limit on kernels before 6.15 is 512.
const CHUNK: usize = 512;
/// Chunks that are summed at most: 12 KiB, more than any frame without fragments.
const MAX_CHUNKS: usize = 24;

/// A packet between `start` and `end`.
pub(super) struct XdpFrame {
    start: usize,
    end: usize,
    ctx: *mut xdp_md,
}

impl XdpFrame {
    #[inline(always)]
    pub(super) fn new(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end(), ctx: ctx.ctx }
    }

    /// Reads where the packet is: a helper may have moved it.
    #[inline(always)]
    fn read(&mut self) {
        *self = Self::new(&XdpContext::new(self.ctx));
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: the N bytes lie before the packet's end, which was just checked, as the verifier does too. Alignment
        // of bytes is 1.
        Some(unsafe { &*(at as *const [u8; N]) })
    }

    #[inline(always)]
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: as in `at`; the packet belongs to this run of the program alone.
        Some(unsafe { &mut *(at as *mut [u8; N]) })
    }

    #[inline(always)]
    fn opaque(&self, number: usize) -> usize {
        let mut number = number;
        // SAFETY: moves a register to itself.
        unsafe { asm!("{0} = {0}", inout(reg) number, options(nomem, nostack, preserves_flags)) };
        number & 0x3fff
    }

    #[inline(always)]
    fn far<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        bytes(self.start, self.end, offset)
    }

    #[inline(always)]
    fn far_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let at: *const [u8; N] = bytes(self.start, self.end, offset)?;
        // SAFETY: as in `at_mut`.
        Some(unsafe { &mut *at.cast_mut() })
    }

    #[inline(always)]
    fn locate(&self) -> u64 {
        // SAFETY: the context is the program's own.
        let mut word = unsafe { lb_locate(self.ctx) };
        // What LLVM knows of the answer the verifier does not.
        // SAFETY: moves a register to itself.
        unsafe { asm!("{0} = {0}", inout(reg) word, options(nomem, nostack, preserves_flags)) };
        word
    }

    #[inline(always)]
    fn grow(&mut self, by: usize) -> bool {
        // SAFETY: the context is the program's own; pointers into the packet are read anew below.
        let grown = unsafe { bpf_xdp_adjust_head(self.ctx, -(by as i32)) } == 0;
        self.read();
        grown
    }

    #[inline(always)]
    fn strip(&mut self, by: usize) -> bool {
        // SAFETY: as in `grow`.
        let stripped = unsafe { bpf_xdp_adjust_head(self.ctx, by as i32) } == 0;
        self.read();
        stripped
    }

    #[inline(always)]
    fn cut(&mut self, len: usize) -> bool {
        let mut there = self.len();
        // The difference of two pointers is taken whole: half of one the verifier refuses.
        // SAFETY: moves a register to itself.
        unsafe { asm!("{0} = {0}", inout(reg) there, options(nomem, nostack, preserves_flags)) };
        let by = len as i32 - there as i32;
        // SAFETY: as in `grow`.
        let cut = unsafe { bpf_xdp_adjust_tail(self.ctx, by) } == 0;
        self.read();
        cut
    }

    #[inline(always)]
    fn embedded(&self, start: usize, end: usize, family: Family) -> u64 {
        // SAFETY: the context is the program's own.
        let mut word = unsafe { lb_embedded(self.ctx, start as u32, end as u32, family as u32) };
        // As in `locate`.
        // SAFETY: moves a register to itself.
        unsafe { asm!("{0} = {0}", inout(reg) word, options(nomem, nostack, preserves_flags)) };
        word
    }

    #[inline(always)]
    fn sum(&self, offset: usize, len: usize) -> Option<u64> {
        // SAFETY: the context is the program's own.
        let sum = unsafe { lb_sum(self.ctx, offset as u32, len as u32) };
        // A sum is below 2^33; all ones says that there is none.
        if sum == u64::MAX { None } else { Some(sum) }
    }
}

/// Where the transport header lies, see [`locate`]. A function for the same reason as [`lb_sum`].
///
/// # Safety
/// `ctx` must be the program's.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn lb_locate(ctx: *mut xdp_md) -> u64 {
    // SAFETY: as promised.
    let frame = XdpFrame::new(&XdpContext::new(ctx));
    Located::pack(locate::locate(&frame))
}

/// Where things lie in an embedded packet, see [`embedded`]. A function for the same reason as [`lb_sum`].
///
/// # Safety
/// `ctx` must be the program's.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn lb_embedded(ctx: *mut xdp_md, start: u32, end: u32, family: u32) -> u64 {
    // SAFETY: as promised.
    let frame = XdpFrame::new(&XdpContext::new(ctx));
    let family = if family == Family::V4 as u32 { Family::V4 } else { Family::V6 };
    Embedded::pack(embedded::find(&frame, start as usize, end as usize, family))
}

/// Sums `len` bytes at `offset`; all ones if they are not all there or too many.
///
/// A function with a name that is seen from outside: such the verifier looks at once, not at each call (kernel 5.6), and
/// the hot path stays small.
///
/// # Safety
/// `ctx` must be the program's.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn lb_sum(ctx: *mut xdp_md, offset: u32, len: u32) -> u64 {
    // SAFETY: as promised.
    let ctx = XdpContext::new(ctx);
    let (start, end) = (ctx.data(), ctx.data_end());
    let stop = offset as usize + len as usize;
    let mut left = len as usize;
    let mut sum = 0_u32;
    // Each loop leaves `left` below its step, whatever round it ends in, so that the verifier's states meet there.
    macro_rules! sum_by {
        ($step:expr, at most $rounds:expr) => {
            for _ in 0..$rounds {
                if left < $step {
                    break;
                }
                let Some(next) = chunk::<{ $step }>(start, end, stop - left, sum) else { return u64::MAX };
                sum = next;
                left -= $step;
            }
            if left >= $step {
                return u64::MAX;
            }
        };
    }
    sum_by!(CHUNK, at most MAX_CHUNKS);
    sum_by!(64, at most 7);
    sum_by!(4, at most 15);
    let mut total = sum as u64;
    if left >= 2 {
        let Some(pair) = bytes::<2>(start, end, stop - left) else { return u64::MAX };
        total += u16::from_ne_bytes(*pair) as u64;
    }
    if left & 1 != 0 {
        let Some(last) = bytes::<1>(start, end, stop - 1) else { return u64::MAX };
        total += u16::from_ne_bytes([last[0], 0]) as u64;
    }
    total
}

/// Adds `N` bytes, a multiple of 4, to a sum.
#[inline(always)]
fn chunk<const N: usize>(start: usize, end: usize, at: usize, seed: u32) -> Option<u32> {
    let bytes = bytes::<N>(start, end, at)?;
    // SAFETY: `bytes` are N readable bytes; from a null source of size 0 the helper only adds (kernel 4.6).
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.as_ptr() as *mut u32, N as u32, seed) };
    Some(sum as u32)
}

#[inline(always)]
fn bytes<'a, const N: usize>(start: usize, end: usize, at: usize) -> Option<&'a [u8; N]> {
    // The verifier wants a bound on what is added to a packet pointer.
    let mut at = start + (at & 0x3fff);
    // One pointer for the check and for the access: LLVM would make it twice, and the verifier knows only the first.
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) at, options(nomem, nostack, preserves_flags)) };
    if at + N > end {
        return None;
    }
    // SAFETY: the N bytes lie before the packet's end, which was just checked.
    Some(unsafe { &*(at as *const [u8; N]) })
}
