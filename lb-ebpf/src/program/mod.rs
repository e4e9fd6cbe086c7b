//! Entry points. Each makes a view of the packet and one of the maps, and lets `lb-common` decide.

mod decap;
mod frame;
mod maps;

use core::arch::asm;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use frame::XdpFrame;
use lb_common::pipeline::{Tables, Verdict};
use lb_common::reason::{Fate, Reason};
use lb_common::{detour, fragment, icmp, pipeline, wide, wrap};
use maps::{EXPLAINS, LIVE, Maps};

/// A program, or one and its twin for `lb_explain`: what decides. Inlined by hand: what grows past the compiler's patience would
/// become a function, and none but programs may make tail calls.
macro_rules! program {
    ($(#[$doc:meta])+ $name:ident, $dry:ident: $decide:path) => {
        program! { $(#[$doc])+ $name: LIVE, $decide }
        program! {
            #[doc = concat!("The same as `", stringify!($name), "`, for `lb_explain`.")]
            $dry: EXPLAINS, $decide
        }
    };
    ($(#[$doc:meta])+ $name:ident: $mode:ident, $decide:path) => {
        $(#[$doc])+
        #[xdp]
        #[inline(always)]
        fn $name(ctx: XdpContext) -> u32 {
            let maps = Maps::<$mode>::new(ctx.ctx);
            let verdict = $decide(&mut XdpFrame::new(&ctx), &maps);
            leave(&ctx, &maps, verdict)
        }
    };
}

program! {
    /// Balances. Attached to every interface that clients or backends are behind.
    lb_balance: LIVE, pipeline::run
}

/// Answers `lb explain` through BPF_PROG_RUN: the same decision, writing no table and no counter.
#[xdp]
#[inline(always)]
fn lb_explain(ctx: XdpContext) -> u32 {
    maps::clear_report();
    let maps = Maps::<EXPLAINS>::new(ctx.ctx);
    let verdict = pipeline::run(&mut XdpFrame::new(&ctx), &maps);
    leave(&ctx, &maps, verdict)
}

program! {
    /// Goes on with what seldom comes, see [`Stage::Detour`](lb_common::stage::Stage::Detour).
    lb_detour, lb_detour_dry: detour::run
}

program! {
    /// Puts packets into others, see [`Stage::Wrap`](lb_common::stage::Stage::Wrap).
    lb_wrap, lb_wrap_dry: wrap::run
}

program! {
    /// Tells who sends too much, see [`Stage::Answer`](lb_common::stage::Stage::Answer).
    lb_answer, lb_answer_dry: icmp::too_big::run
}

program! {
    /// Lets fragments follow each other, see [`Stage::Fragment`](lb_common::stage::Stage::Fragment).
    lb_fragment, lb_fragment_dry: fragment::run
}

program! {
    /// Looks for ranges of ports, see [`Stage::Wide`](lb_common::stage::Stage::Wide).
    lb_wide, lb_wide_dry: wide::run
}

/// Passes everything. A veth whose other end sends with XDP needs a program on it (`lb pass`).
#[xdp]
#[inline(always)]
fn lb_pass(_: XdpContext) -> u32 {
    XDP_PASS
}

/// What the kernel is told of a verdict.
#[inline(always)]
fn leave<const MODE: u32>(ctx: &XdpContext, maps: &Maps<MODE>, verdict: Verdict) -> u32 {
    // Asked first, by one comparison: most packets are forwarded.
    if matches!(verdict.reason, Reason::Forwarded | Reason::Returned) && verdict.egress == maps.ingress() {
        return XDP_TX;
    }
    match verdict.reason.fate() {
        Fate::Pass => XDP_PASS,
        Fate::Answer => XDP_TX,
        Fate::Drop => {
            if MODE == LIVE {
                // The agent reads the numbers. With the level at 0, as it is loaded unless it was asked for, the verifier
                // removes all of this.
                // The macro takes references. To the verdict itself they would keep it on the stack, and what LLVM writes there
                // at once the verifier does not always take.
                let (mut reason, service) = (verdict.reason as u64, verdict.service);
                // SAFETY: moves a register to itself.
                unsafe { asm!("{0} = {0}", inout(reg) reason, options(nomem, nostack, preserves_flags)) };
                debug!(ctx, "{} {} {}", reason as u32, service, maps.ingress());
            }
            XDP_DROP
        }
        Fate::Forward if verdict.egress == maps.ingress() => XDP_TX,
        // `Tables::send` has told the kernel where to.
        Fate::Forward => XDP_REDIRECT,
    }
}

/// A panic that can be reached is an endless loop, which the verifier refuses: the program cannot load with one.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
