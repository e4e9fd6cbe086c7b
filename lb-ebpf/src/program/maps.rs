//! The maps, and the verbs of [`Tables`] over them: the only place where map values are followed.

use core::arch::asm;

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, bpf_fib_lookup as FibLookup, xdp_md};
use aya_ebpf::btf_maps::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use lb_common::abi::{
    BackendCounters, BackendEntry, Event, Filter, FlowKey, FlowValue, FragmentKey, FragmentValue, Hand, Key,
    NeighbourEntry, ReasonCounters, Report, ReverseEntry, RingLine, RouteEntry, ServiceEntry, Settings,
    VipEntry, event, limits, settings,
};
use lb_common::addr::{Addr, Family};
use lb_common::icmp::limit;
use lb_common::pipeline::{Hop, Tables};
use lb_common::reason::Reason;
use lb_common::stage::Stage;
use lb_common::wide;

/// Written by the agent through `mmap`, read here.
const MAPPED: usize = BPF_F_MMAPABLE as usize;

/// Tables that are reached without a look-up, see [`direct`](lb_common::abi::direct): here only the first entry has a name, the
/// loader puts in where it lies.
mod direct {
    use lb_common::abi::{
        BackendEntry, Filter, NeighbourEntry, RangesEntry, ReverseEntry, RouteEntry, ServiceEntry, Settings,
        VipEntry,
    };

    unsafe extern "C" {
        pub(super) static mut SERVICES: ServiceEntry;
        pub(super) static mut BACKENDS: BackendEntry;
        pub(super) static mut REVERSE: ReverseEntry;
        pub(super) static mut FILTER: Filter;
        pub(super) static mut ROUTES: RouteEntry;
        pub(super) static mut NEIGHBOURS: NeighbourEntry;
        pub(super) static mut SETTINGS: Settings;
        pub(super) static mut VIPS: VipEntry;
        pub(super) static mut RANGES: RangesEntry;

        // Numbers ([`SIZES`](lb_common::abi::direct::SIZES)), in place of an address.
        pub(super) static SERVICE_MASK: u8;
        pub(super) static REVERSE_MASK: u8;
        pub(super) static NEIGHBOUR_MASK: u8;
        pub(super) static VIP_MASK: u8;
        pub(super) static BACKEND_COUNT: u8;
        pub(super) static RANGES_MASK: u8;
    }
}

/// A number that the loader puts into the instruction. The compiler takes it for an address, so for anything but 0.
macro_rules! number {
    ($name:ident) => {
        (&raw const direct::$name) as u32
    };
}

/// An entry of such a table. The verifier refuses an index that it does not know to be below the table's size.
macro_rules! entry {
    ($table:ident, $index:expr) => {{
        let first = &raw const direct::$table;
        // SAFETY: map values live as long as the program, and the verifier has proved the bounds.
        Some(unsafe { &*first.wrapping_add($index as usize) })
    }};
}

#[btf_map]
static RINGS: Array<RingLine, { limits::RING_LINES as usize }, MAPPED> = Array::new();
#[btf_map]
static FLOWS: LruHashMap<FlowKey, FlowValue, { limits::FLOWS as usize }> = LruHashMap::new();
#[btf_map]
static EMBRYONIC: LruHashMap<FlowKey, FlowValue, { limits::EMBRYONIC as usize }> = LruHashMap::new();
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue, { limits::FRAGMENTS as usize }> = LruHashMap::new();
#[btf_map]
static COUNTERS: PerCpuArray<BackendCounters, { limits::COUNTERS as usize }> = PerCpuArray::new();
#[btf_map]
static REASONS: PerCpuArray<ReasonCounters, { limits::REASONS as usize }> = PerCpuArray::new();
#[btf_map]
static EVENTS: RingBuf<Event, { limits::EVENTS as usize }> = RingBuf::new();
#[btf_map]
static DEVICES: DevMapHash<{ limits::INTERFACES as usize }> = DevMapHash::new();
#[btf_map]
static INTERFACES: HashMap<u32, u32, { limits::INTERFACES as usize }> = HashMap::new();
#[btf_map]
static EXPLAIN: Array<Report, 1, MAPPED> = Array::new();
/// The programs that go on, see [`Stage::place`]. Each build has its own.
#[btf_map]
static STAGES: ProgramArray<{ 2 * Stage::ALL.len() }> = ProgramArray::new();
/// What goes from one program to the next. Each build has its own, as the next.
#[btf_map]
static HAND: PerCpuArray<Hand, 1> = PerCpuArray::new();
/// The state of [`limit`] on each CPU.
#[btf_map]
static ANSWERS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Whether the kernel has `bpf_ktime_get_coarse_ns` (5.11), set by the agent when it loads: a constant to the verifier.
#[unsafe(no_mangle)]
static COARSE_CLOCK: Global<u32> = Global::new(0);

/// Writes tables and counters.
pub(super) const LIVE: u32 = 0;
/// Writes only the report.
pub(super) const EXPLAINS: u32 = 1;

/// The address families of `bpf_fib_lookup`.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Answers of `bpf_fib_lookup` (include/uapi/linux/bpf.h).
mod fib {
    pub(super) const SUCCESS: i64 = 0;
    pub(super) const NOT_FWDED: i64 = 4;
    pub(super) const FWD_DISABLED: i64 = 5;
    pub(super) const NO_NEIGH: i64 = 7;
}

/// The maps as seen by one run of a program.
pub(super) struct Maps<const MODE: u32> {
    ctx: *mut xdp_md,
}

impl<const MODE: u32> Maps<MODE> {
    #[inline(always)]
    pub(super) fn new(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }
}

/// Forgets the last answer.
#[inline(always)]
pub(super) fn clear_report() {
    if let Some(report) = EXPLAIN.get_ptr_mut(0) {
        // SAFETY: a map value is valid for the whole run; one explanation runs at a time, the agent sees to it.
        unsafe { *report = Report::EMPTY };
    }
}

impl<const MODE: u32> Tables for Maps<MODE> {
    #[inline(always)]
    fn service(&self, place: u32) -> Option<&ServiceEntry> {
        entry!(SERVICES, place & self.service_mask())
    }
    #[inline(always)]
    fn service_mask(&self) -> u32 {
        number!(SERVICE_MASK)
    }
    #[inline(always)]
    fn ring_line(&self, line: u32) -> Option<&RingLine> {
        RINGS.get(line)
    }
    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&BackendEntry> {
        if index >= number!(BACKEND_COUNT) {
            return None;
        }
        let mut index = index;
        // Only now: LLVM would work out the address before the check, and the verifier then knows no bound of it.
        // SAFETY: moves a register to itself.
        unsafe { asm!("{0} = {0}", inout(reg) index, options(nomem, nostack, preserves_flags)) };
        entry!(BACKENDS, index)
    }
    #[inline(always)]
    fn reverse(&self, place: u32) -> Option<&ReverseEntry> {
        entry!(REVERSE, place & self.reverse_mask())
    }
    #[inline(always)]
    fn reverse_mask(&self) -> u32 {
        number!(REVERSE_MASK)
    }
    #[inline(always)]
    fn range(&self, key: &Key) -> Option<u16> {
        let [first, last] = key.addr.halves();
        wide::unpack(lb_range(first, last, key.tag))
    }
    #[inline(always)]
    fn filter(&self) -> Option<&Filter> {
        entry!(FILTER, 0)
    }
    #[inline(always)]
    fn route(&self, index: u32) -> Option<&RouteEntry> {
        entry!(ROUTES, index % limits::ROUTES)
    }
    #[inline(always)]
    fn neighbour(&self, place: u32) -> Option<&NeighbourEntry> {
        entry!(NEIGHBOURS, place & self.neighbour_mask())
    }
    #[inline(always)]
    fn neighbour_mask(&self) -> u32 {
        number!(NEIGHBOUR_MASK)
    }
    #[inline(always)]
    fn vip(&self, place: u32) -> Option<&VipEntry> {
        entry!(VIPS, place & self.vip_mask())
    }
    #[inline(always)]
    fn vip_mask(&self) -> u32 {
        number!(VIP_MASK)
    }
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        entry!(SETTINGS, 0)
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowValue> {
        // SAFETY: copied at once; an entry reused meanwhile gives a value whose generation does not match.
        unsafe { FLOWS.get(key) }.copied()
    }
    #[inline(always)]
    fn set_flow(&self, key: &FlowKey, value: &FlowValue) {
        if MODE == LIVE {
            // An LRU table makes room; a failure leaves the flow without an entry, which the ring then serves.
            let _ = FLOWS.insert(key, value, 0);
        }
    }
    #[inline(always)]
    fn touch_flow(&self, key: &FlowKey, now: u64) {
        if MODE == LIVE
            && let Some(value) = FLOWS.get_ptr_mut(key)
        {
            // SAFETY: the pointer was just given by the map; a store of one word races harmlessly.
            unsafe { (*value).seen = now };
        }
    }
    #[inline(always)]
    fn drop_flow(&self, key: &FlowKey) {
        if MODE == LIVE {
            let _ = FLOWS.remove(key);
        }
    }
    #[inline(always)]
    fn embryo(&self, key: &FlowKey) -> Option<FlowValue> {
        // SAFETY: as in `flow`.
        unsafe { EMBRYONIC.get(key) }.copied()
    }
    #[inline(always)]
    fn set_embryo(&self, key: &FlowKey, value: &FlowValue) {
        if MODE == LIVE {
            let _ = EMBRYONIC.insert(key, value, 0);
        }
    }
    #[inline(always)]
    fn drop_embryo(&self, key: &FlowKey) {
        if MODE == LIVE {
            let _ = EMBRYONIC.remove(key);
        }
    }
    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue> {
        // SAFETY: as in `flow`.
        unsafe { FRAGMENTS.get(key) }.copied()
    }
    #[inline(always)]
    fn set_fragment(&self, key: &FragmentKey, value: &FragmentValue) {
        if MODE == LIVE {
            let _ = FRAGMENTS.insert(key, value, 0);
        }
    }
    #[inline(always)]
    fn drop_fragment(&self, key: &FragmentKey) {
        if MODE == LIVE {
            let _ = FRAGMENTS.remove(key);
        }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // The time of the last tick is enough, and costs less.
        // SAFETY: both take nothing and always answer.
        unsafe { if COARSE_CLOCK.load() != 0 { bpf_ktime_get_coarse_ns() } else { bpf_ktime_get_ns() } }
    }
    #[inline(always)]
    fn ingress(&self) -> u32 {
        // Read where it is needed: it lies three pointers away, and packets that are not ours do not need it.
        // SAFETY: the context is the program's own.
        unsafe { (*self.ctx).ingress_ifindex }
    }
    #[inline(always)]
    fn checksums_finished_later(&self) -> bool {
        // SAFETY: read at once.
        unsafe { INTERFACES.get(self.ingress()) }.is_some_and(|how| *how == settings::interface::GENERIC)
    }

    #[inline(always)]
    fn ask_kernel(&self, family: Family, src: &Addr, dst: &Addr) -> Result<Hop, Reason> {
        ask(self.ctx, self.ingress(), family, src, dst, MODE == LIVE)
    }

    #[inline(always)]
    fn send(&self, ifindex: u32) -> bool {
        ifindex == self.ingress() || DEVICES.redirect(ifindex, 0).is_ok()
    }

    #[inline(always)]
    fn may_answer(&self) -> bool {
        let Some(bucket) = ANSWERS.get_ptr_mut(0) else { return false };
        // SAFETY: the bucket is this CPU's own.
        let Some(next) = limit::take(unsafe { *bucket }, self.now()) else { return false };
        if MODE == LIVE {
            // SAFETY: as above.
            unsafe { *bucket = next };
        }
        true
    }

    #[inline(always)]
    fn count(&self, service: u32, reason: Reason) {
        if MODE == LIVE
            && let Some(row) = REASONS.get_ptr_mut(service)
        {
            // SAFETY: the row is this CPU's own; a reason is below the size of the row (asserted in lb-common).
            unsafe { (*row).counts[reason as usize] += 1 };
        }
    }
    #[inline(always)]
    fn count_towards(&self, row: u32, bytes: u64, new: bool) {
        if MODE == LIVE
            && let Some(row) = COUNTERS.get_ptr_mut(row)
        {
            // SAFETY: the row is this CPU's own.
            unsafe {
                (*row).packets += 1;
                (*row).bytes += bytes;
                (*row).flows += new as u64;
            }
        }
    }
    #[inline(always)]
    fn count_back(&self, row: u32, bytes: u64) {
        if MODE == LIVE
            && let Some(row) = COUNTERS.get_ptr_mut(row)
        {
            // SAFETY: the row is this CPU's own.
            unsafe {
                (*row).back_packets += 1;
                (*row).back_bytes += bytes;
            }
        }
    }
    #[inline(always)]
    fn hand<R>(&self, with: impl FnOnce(&mut Hand) -> R) -> Option<R> {
        let hand = HAND.get_ptr_mut(0)?;
        // SAFETY: the entry is this CPU's own, and one program at a time runs there.
        Some(with(unsafe { &mut *hand }))
    }
    #[inline(always)]
    fn go_on(&self, stage: Stage) {
        // SAFETY: the context is the program's own. The place is a constant, so the kernel makes the call a jump.
        unsafe { STAGES.tail_call(&XdpContext::new(self.ctx), stage.place(MODE == EXPLAINS)) };
    }
    #[inline(always)]
    fn note(&self, write: impl FnOnce(&mut Report)) {
        if MODE == EXPLAINS
            && let Some(report) = EXPLAIN.get_ptr_mut(0)
        {
            // SAFETY: a map value is valid for the whole run; one explanation runs at a time, the agent sees to it.
            write(unsafe { &mut *report });
        }
    }
}

/// Looks for a port's range, see [`wide::look`]. A function that the verifier looks at once: its loop has many ends, after
/// each of which the rest of the program would be looked at.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_range(first: u64, last: u64, tag: u32) -> u64 {
    let key = Key { addr: Addr::from_halves([first, last]), tag };
    let mut word = wide::pack(wide::look(&key, number!(RANGES_MASK), |place| {
        entry!(RANGES, place & number!(RANGES_MASK))
    }));
    // What LLVM knows of the answer the verifier does not.
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) word, options(nomem, nostack, preserves_flags)) };
    word
}

/// A MAC address of `bpf_fib_lookup`, which lies at an even offset. Volatile: on the stack the verifier takes no larger
/// reads there, and LLVM would make them of smaller ones.
#[inline(always)]
fn pairs(mac: &[u8; 6]) -> [[u8; 2]; 3] {
    let start = mac.as_ptr().cast::<u16>();
    // SAFETY: three pairs of bytes lie there; the field's offset and the structure's alignment are even.
    let pair = |n: usize| unsafe { start.add(n).read_volatile() }.to_ne_bytes();
    [pair(0), pair(1), pair(2)]
}

/// Asks the kernel's routing and neighbour tables (`bpf_fib_lookup`, kernel 4.18).
#[inline(always)]
fn ask(
    ctx: *mut xdp_md,
    ingress: u32,
    family: Family,
    src: &Addr,
    dst: &Addr,
    wake: bool,
) -> Result<Hop, Reason> {
    // SAFETY: plain integers and unions of them: all zero is a value.
    let mut ask: FibLookup = unsafe { core::mem::zeroed() };
    ask.ifindex = ingress;
    if family == Family::V4 {
        ask.family = AF_INET;
        ask.__bindgen_anon_3.ipv4_src = src.last();
        ask.__bindgen_anon_4.ipv4_dst = dst.last();
    } else {
        ask.family = AF_INET6;
        ask.__bindgen_anon_3.ipv6_src = src.words();
        ask.__bindgen_anon_4.ipv6_dst = dst.words();
    }
    // SAFETY: `ctx` is the program's own and `ask` is as long as is said.
    let answer =
        unsafe { bpf_fib_lookup(ctx.cast(), (&raw mut ask).cast(), size_of::<FibLookup>() as i32, 0) };
    match answer {
        fib::SUCCESS => {
            let ([a, b, c], [d, e, f]) = (pairs(&ask.dmac), pairs(&ask.smac));
            let macs = [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1], e[0], e[1], f[0], f[1]];
            Ok(Hop { macs: (&macs).into(), ifindex: ask.ifindex })
        }
        fib::NOT_FWDED => Err(Reason::ToThisMachine),
        fib::FWD_DISABLED => Err(Reason::ForwardingOff),
        fib::NO_NEIGH => {
            if wake {
                // The kernel has put the gateway's address there, if there is one.
                // SAFETY: the field of the family that was asked for is the one that is set.
                let addr = unsafe {
                    if ask.family == AF_INET {
                        Addr::v4(ask.__bindgen_anon_4.ipv4_dst)
                    } else {
                        Addr::from_words(ask.__bindgen_anon_4.ipv6_dst)
                    }
                };
                let event = Event { kind: event::kind::NO_NEIGHBOUR, ifindex: ask.ifindex, addr };
                let _ = EVENTS.output(event, 0);
            }
            Err(Reason::NoNeighbour)
        }
        _ => Err(Reason::NoRoute),
    }
}
