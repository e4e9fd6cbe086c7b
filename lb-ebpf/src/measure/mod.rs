//! Entry points: four wrappers, one for each family and direction, and the floors.

mod floors;
mod shared;
mod wrapper;

use aya_ebpf::bindings::xdp_action::XDP_TX;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// Packets of clients, IPv4.
#[xdp]
fn client4(ctx: XdpContext) -> u32 {
    wrapper::run::<false, false>(&ctx)
}

/// Packets of clients, IPv6.
#[xdp]
fn client6(ctx: XdpContext) -> u32 {
    wrapper::run::<true, false>(&ctx)
}

/// Packets of backends, IPv4.
#[xdp]
fn backend4(ctx: XdpContext) -> u32 {
    wrapper::run::<false, true>(&ctx)
}

/// Packets of backends, IPv6.
#[xdp]
fn backend6(ctx: XdpContext) -> u32 {
    wrapper::run::<true, true>(&ctx)
}

/// Returns at once: what the wrapper itself costs.
#[xdp]
fn floor_return(_: XdpContext) -> u32 {
    XDP_TX
}

/// Swaps the MAC addresses.
#[xdp]
fn floor_macs(ctx: XdpContext) -> u32 {
    floors::swap_macs(&ctx)
}

/// Puts an IPv4 header in front, without a lookup.
#[xdp]
fn floor_encap4(ctx: XdpContext) -> u32 {
    floors::encapsulate4(&ctx)
}

/// Puts an IPv6 header in front, without a lookup.
#[xdp]
fn floor_encap6(ctx: XdpContext) -> u32 {
    floors::encapsulate6(&ctx)
}

/// Rewrites destination, port and checksums of an IPv4 packet, without a lookup.
#[xdp]
fn floor_nat4(ctx: XdpContext) -> u32 {
    floors::rewrite4(&ctx)
}

/// Rewrites destination, port and checksum of an IPv6 packet, without a lookup.
#[xdp]
fn floor_nat6(ctx: XdpContext) -> u32 {
    floors::rewrite6(&ctx)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
