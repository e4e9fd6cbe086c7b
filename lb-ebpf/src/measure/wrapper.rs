//! The wrapper: BPF_PROG_RUN runs a program again on its own output, so each run first gets its packet anew.

use core::arch::asm;

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use lb_common::checksum::Delta;

use super::shared::{FRAME, State, Template, WORDS};

#[btf_map]
static TEMPLATE: Array<Template, 1> = Array::new();
#[btf_map]
static STATE: PerCpuArray<State, 1> = PerCpuArray::new();
/// The program under test. The index is a constant, so that the kernel makes the call a jump.
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();

/// Offsets in the frame: last word of source and destination address, source and destination port, checksums.
struct Places {
    src: usize,
    dst: usize,
    src_port: usize,
    dst_port: usize,
    tcp_checksum: usize,
}

const V4: Places = Places { src: 26, dst: 30, src_port: 34, dst_port: 36, tcp_checksum: 50 };
const V6: Places = Places { src: 34, dst: 50, src_port: 54, dst_port: 56, tcp_checksum: 70 };
const IP_CHECKSUM: usize = 24;

/// Makes the next packet and jumps to the target. Returns only if it cannot.
#[inline(always)]
pub(super) fn run<const IPV6: bool, const BACK: bool>(ctx: &XdpContext) -> u32 {
    // Undoes what the last run did to the head; called in every case, so that every target pays for it.
    let extra = (ctx.data_end() - ctx.data()) as i32 - FRAME as i32;
    // SAFETY: the context is the program's own; pointers into the packet are read after this.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, extra) } != 0 {
        return XDP_ABORTED;
    }
    let start = ctx.data();
    if start + FRAME > ctx.data_end() {
        return XDP_ABORTED;
    }
    let (Some(template), Some(state)) = (TEMPLATE.get(0), STATE.get_ptr_mut(0)) else { return XDP_ABORTED };
    for n in 0..WORDS {
        // SAFETY: the frame's length was checked. Volatile: a copy would be made a call, byte by byte.
        unsafe {
            ((start + n * 8) as *mut u64).write_volatile((&raw const template.words[n]).read_volatile())
        };
    }
    // SAFETY: the entry is this CPU's own.
    let random = unsafe {
        // Knuth's MMIX generator: its low bits visit every client once a period (Hull and Dobell 1962).
        (*state).random =
            (*state).random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state).random
    };
    let client = random as u32 & template.clients;
    let peer = (((random >> 32) * template.peers as u64) >> 32) as u32;
    let port = ((client ^ client >> 7) as u16 & 0x7fff).to_be();
    let (client, peer) = (client.to_be(), peer.to_be());

    let places = if IPV6 { V6 } else { V4 };
    let (client_at, port_at, peer_at) = if BACK {
        (places.dst, places.dst_port, places.src)
    } else {
        (places.src, places.src_port, places.dst)
    };
    // Bits that vary are zero in the template: to set them is to add them, and checksums change by as much.
    let addresses = Delta::NONE.word(u32::MAX, client).word(u32::MAX, peer);
    // SAFETY: all of it lies in the frame, whose length was checked.
    unsafe {
        edit(start + client_at, |word: u32| word | client);
        edit(start + peer_at, |word: u32| word | peer);
        edit(start + port_at, |half: u16| half | port);
        if !IPV6 {
            edit(start + IP_CHECKSUM, |sum: u16| addresses.apply(sum));
        }
        edit(start + places.tcp_checksum, |sum: u16| addresses.half(u16::MAX, port).apply(sum));
        // A locked operation waits until what was written has left the store buffer, and what it fetched decides where the
        // packet begins: so the target's reads come after it. Else they would stall where they do not fit one of the stores
        // above, which no packet from a driver does to it.
        let mut runs = 1_u64;
        let counter = &raw mut (*state).runs;
        asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) runs, in(reg) counter, options(nostack));
        if bpf_xdp_adjust_head(ctx.ctx, (runs >> 63) as i32) != 0 {
            return XDP_ABORTED;
        }
        // Comes back only if there is no target.
        TARGET.tail_call(ctx, 0);
    }
    XDP_ABORTED
}

/// # Safety
/// A `T` must lie there.
#[inline(always)]
unsafe fn edit<T>(at: usize, change: impl FnOnce(T) -> T) {
    let at = at as *mut T;
    // SAFETY: as promised; the machine reads words at any address where this is built so.
    unsafe { at.write_unaligned(change(at.read_unaligned())) }
}
