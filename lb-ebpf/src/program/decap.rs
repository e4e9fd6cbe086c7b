//! The program of `lb decap`, with maps of its own.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use lb_common::abi::{DecapConfig, DecapCounts};
use lb_common::decap;

use super::frame::XdpFrame;

#[btf_map]
static DECAP: Array<DecapConfig, 1> = Array::new();
#[btf_map]
static DECAP_COUNTS: PerCpuArray<DecapCounts, 1> = PerCpuArray::new();

/// Takes packets out of others, for backends that have no tunnel device.
#[xdp]
fn lb_decap(ctx: XdpContext) -> u32 {
    let Some(config) = DECAP.get(0) else { return XDP_PASS };
    let outcome = decap::run(&mut XdpFrame::new(&ctx), config);
    if let Some(row) = DECAP_COUNTS.get_ptr_mut(0) {
        // SAFETY: the row is this CPU's own; an outcome is below its size (asserted in lb-common).
        unsafe { (*row).counts[outcome as usize] += 1 };
    }
    if outcome.dropped() { XDP_DROP } else { XDP_PASS }
}
