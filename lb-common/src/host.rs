//! The maps as vectors: the shipped decision without a kernel, for tests, models and fuzzing.

use crate::abi::{
    BackendCounters, BackendEntry, Filter, FlowKey, FlowValue, FragmentKey, FragmentValue, Hand, Key,
    NeighbourEntry, RangesEntry, Report, ReverseEntry, RingLine, RouteEntry, ServiceEntry, Settings,
    VipEntry, limits, tag,
};
use crate::addr::{Addr, Family};
use crate::packet::Frame;
use crate::pipeline::{self, Hop, Tables, Verdict};
use crate::reason::Reason;
use crate::stage::Stage;
use crate::{detour, fragment, icmp, table, wide, wrap};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::vec;
use std::vec::Vec;

/// A packet's way through all programs.
pub fn run<F: Frame + ?Sized>(frame: &mut F, tables: &HostTables) -> Verdict {
    let mut verdict = pipeline::run(frame, tables);
    while let Some(stage) = tables.next.take() {
        verdict = match stage {
            Stage::Detour => detour::run(frame, tables),
            Stage::Wrap => wrap::run(frame, tables),
            Stage::Answer => icmp::too_big::run(frame, tables),
            Stage::Fragment => fragment::run(frame, tables),
            Stage::Wide => wide::run(frame, tables),
        };
    }
    verdict
}

/// Tables of a machine that does not exist. Fields are what the maps of the same name hold.
pub struct HostTables {
    /// `SERVICES`, a power of two long.
    pub services: Vec<ServiceEntry>,
    /// `RINGS`.
    pub rings: Vec<RingLine>,
    /// `BACKENDS`.
    pub backends: Vec<BackendEntry>,
    /// `REVERSE`, a power of two long.
    pub reverse: Vec<ReverseEntry>,
    /// `RANGES`, a power of two long.
    pub ranges: Vec<RangesEntry>,
    /// `FILTER`.
    pub filter: Filter,
    /// `ROUTES`.
    pub routes: Vec<RouteEntry>,
    /// `NEIGHBOURS`, a power of two long.
    pub neighbours: Vec<NeighbourEntry>,
    /// `SETTINGS`.
    pub settings: Settings,
    /// `VIPS`, a power of two long.
    pub vips: Vec<VipEntry>,
    /// `FLOWS`.
    pub flows: RefCell<HashMap<FlowKey, FlowValue>>,
    /// `EMBRYONIC`.
    pub embryos: RefCell<HashMap<FlowKey, FlowValue>>,
    /// `FRAGMENTS`.
    pub fragments: RefCell<HashMap<FragmentKey, FragmentValue>>,
    /// `COUNTERS`, only rows that were touched.
    pub counters: RefCell<BTreeMap<u32, BackendCounters>>,
    /// `REASONS`, only counts that were touched.
    pub reasons: RefCell<BTreeMap<(u32, Reason), u64>>,
    /// `DEVICES`.
    pub devices: BTreeSet<u32>,
    /// What the kernel answers when it is asked for a way, by destination.
    pub kernel: HashMap<Addr, Result<Hop, Reason>>,
    /// The state of [`icmp::limit`].
    pub bucket: Cell<u64>,
    /// The clock, ns.
    pub now: Cell<u64>,
    /// The interface that packets come in through.
    pub ingress: u32,
    /// Whether that interface is attached in generic mode.
    pub generic: bool,
    /// The last packet's report.
    pub report: RefCell<Report>,
    /// `HAND`.
    pub hand: RefCell<Hand>,
    /// The program that the packet goes to next.
    pub next: Cell<Option<Stage>>,
}

impl Default for HostTables {
    fn default() -> Self {
        Self {
            services: vec![ServiceEntry::default(); 64],
            rings: vec![RingLine::default(); 256],
            backends: vec![BackendEntry::default(); 256],
            reverse: vec![ReverseEntry::default(); 256],
            ranges: vec![RangesEntry::default(); 64],
            filter: Filter::EMPTY,
            routes: vec![RouteEntry::default(); limits::ROUTES as usize],
            neighbours: vec![NeighbourEntry::default(); 64],
            settings: Settings::default(),
            vips: vec![VipEntry::default(); 64],
            flows: RefCell::default(),
            embryos: RefCell::default(),
            fragments: RefCell::default(),
            counters: RefCell::default(),
            reasons: RefCell::default(),
            devices: BTreeSet::new(),
            kernel: HashMap::new(),
            bucket: Cell::new(0),
            now: Cell::new(1),
            ingress: 1,
            generic: false,
            report: RefCell::new(Report::EMPTY),
            hand: RefCell::default(),
            next: Cell::new(None),
        }
    }
}

impl HostTables {
    /// Places a service.
    ///
    /// # Panics
    /// When the table is full.
    pub fn put_service(&mut self, entry: ServiceEntry) {
        let mask = self.service_mask();
        put(&mut self.services, mask, entry, |e| &e.key, |e| &mut e.key);
    }

    /// Places a NAT backend for the way back.
    ///
    /// # Panics
    /// When the table is full.
    pub fn put_reverse(&mut self, entry: ReverseEntry) {
        let mask = self.reverse_mask();
        put(&mut self.reverse, mask, entry, |e| &e.key, |e| &mut e.key);
        let bit = Filter::bit(table::hash(&entry.key));
        self.filter.words[(bit / u64::BITS) as usize] |= 1 << (bit % u64::BITS);
    }

    /// Places the ranges of an address.
    ///
    /// # Panics
    /// When the table is full.
    pub fn put_ranges(&mut self, entry: RangesEntry) {
        let mask = self.ranges.len() as u32 - 1;
        put(&mut self.ranges, mask, entry, |e| &e.key, |e| &mut e.key);
        self.filter.wide[entry.key.is_of_source() as usize] |= 1 << Filter::wide_bit(&entry.key.addr);
    }

    /// Places a neighbour.
    ///
    /// # Panics
    /// When the table is full.
    pub fn put_neighbour(&mut self, entry: NeighbourEntry) {
        let mask = self.neighbour_mask();
        put(&mut self.neighbours, mask, entry, |e| &e.key, |e| &mut e.key);
    }

    /// Places an address that answers echo requests.
    ///
    /// # Panics
    /// When the table is full.
    pub fn put_vip(&mut self, entry: VipEntry) {
        let mask = self.vip_mask();
        put(&mut self.vips, mask, entry, |e| &e.key, |e| &mut e.key);
    }

    /// Writes a slot of a ring.
    pub fn set_slot(&mut self, service: &ServiceEntry, index: u32, word: u32) {
        let line = (service.ring + index / crate::abi::ring::SLOTS_PER_LINE) as usize;
        self.rings[line].slots[(index % crate::abi::ring::SLOTS_PER_LINE) as usize] = word;
    }
}

fn put<T: Copy>(
    entries: &mut [T],
    mask: u32,
    entry: T,
    key: impl Fn(&T) -> &Key,
    key_mut: impl Fn(&mut T) -> &mut Key,
) {
    let at = |entries: &[T], place: u32| Some(key(&entries[place as usize]).alone()).filter(Key::valid);
    let write = |entries: &mut [T], place: u32, entry: T| {
        let there = &mut entries[place as usize];
        let more = key(there).tag & tag::MORE;
        *there = entry;
        key_mut(there).tag |= more;
    };
    let wanted = *key(&entry);
    if let Some(place) = table::places(&wanted, mask).into_iter().find(|p| at(entries, *p) == Some(wanted)) {
        write(entries, place, entry);
        return;
    }
    let plan = table::insert(&wanted, mask, |place| at(entries, place)).expect("the table is full");
    for (from, to) in plan.moves() {
        let mut moving = entries[from as usize];
        key_mut(&mut moving).tag &= !tag::MORE;
        let first = table::places(key(&moving), mask)[0];
        if first != to {
            key_mut(&mut entries[first as usize]).tag |= tag::MORE;
        }
        write(entries, to, moving);
    }
    let first = table::places(&wanted, mask)[0];
    if first != plan.place() {
        key_mut(&mut entries[first as usize]).tag |= tag::MORE;
    }
    write(entries, plan.place(), entry);
}

impl Tables for HostTables {
    fn service(&self, place: u32) -> Option<&ServiceEntry> {
        self.services.get(place as usize)
    }
    fn service_mask(&self) -> u32 {
        self.services.len() as u32 - 1
    }
    fn ring_line(&self, line: u32) -> Option<&RingLine> {
        self.rings.get(line as usize)
    }
    fn backend(&self, index: u32) -> Option<&BackendEntry> {
        self.backends.get(index as usize)
    }
    fn reverse(&self, place: u32) -> Option<&ReverseEntry> {
        self.reverse.get(place as usize)
    }
    fn reverse_mask(&self) -> u32 {
        self.reverse.len() as u32 - 1
    }
    fn range(&self, key: &Key) -> Option<u16> {
        wide::look(key, self.ranges.len() as u32 - 1, |place| self.ranges.get(place as usize))
    }
    fn filter(&self) -> Option<&Filter> {
        Some(&self.filter)
    }
    fn route(&self, index: u32) -> Option<&RouteEntry> {
        self.routes.get(index as usize)
    }
    fn neighbour(&self, place: u32) -> Option<&NeighbourEntry> {
        self.neighbours.get(place as usize)
    }
    fn neighbour_mask(&self) -> u32 {
        self.neighbours.len() as u32 - 1
    }
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }
    fn vip(&self, place: u32) -> Option<&VipEntry> {
        self.vips.get(place as usize)
    }
    fn vip_mask(&self) -> u32 {
        self.vips.len() as u32 - 1
    }
    fn flow(&self, key: &FlowKey) -> Option<FlowValue> {
        self.flows.borrow().get(key).copied()
    }
    fn set_flow(&self, key: &FlowKey, value: &FlowValue) {
        self.flows.borrow_mut().insert(*key, *value);
    }
    fn touch_flow(&self, key: &FlowKey, now: u64) {
        if let Some(value) = self.flows.borrow_mut().get_mut(key) {
            value.seen = now;
        }
    }
    fn drop_flow(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
    }
    fn embryo(&self, key: &FlowKey) -> Option<FlowValue> {
        self.embryos.borrow().get(key).copied()
    }
    fn set_embryo(&self, key: &FlowKey, value: &FlowValue) {
        self.embryos.borrow_mut().insert(*key, *value);
    }
    fn drop_embryo(&self, key: &FlowKey) {
        self.embryos.borrow_mut().remove(key);
    }
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue> {
        self.fragments.borrow().get(key).copied()
    }
    fn set_fragment(&self, key: &FragmentKey, value: &FragmentValue) {
        self.fragments.borrow_mut().insert(*key, *value);
    }
    fn drop_fragment(&self, key: &FragmentKey) {
        self.fragments.borrow_mut().remove(key);
    }
    fn now(&self) -> u64 {
        self.now.get()
    }
    fn ingress(&self) -> u32 {
        self.ingress
    }
    fn checksums_finished_later(&self) -> bool {
        self.generic
    }
    fn ask_kernel(&self, _: Family, _: &Addr, dst: &Addr) -> Result<Hop, Reason> {
        self.kernel.get(dst).copied().unwrap_or(Err(Reason::NoRoute))
    }
    fn send(&self, ifindex: u32) -> bool {
        ifindex == self.ingress || self.devices.contains(&ifindex)
    }
    fn may_answer(&self) -> bool {
        let taken = icmp::limit::take(self.bucket.get(), self.now.get());
        self.bucket.set(taken.unwrap_or(self.bucket.get()));
        taken.is_some()
    }
    fn count(&self, service: u32, reason: Reason) {
        *self.reasons.borrow_mut().entry((service, reason)).or_default() += 1;
    }
    fn count_towards(&self, row: u32, bytes: u64, new: bool) {
        let mut counters = self.counters.borrow_mut();
        let row = counters.entry(row).or_default();
        row.packets += 1;
        row.bytes += bytes;
        row.flows += u64::from(new);
    }
    fn count_back(&self, row: u32, bytes: u64) {
        let mut counters = self.counters.borrow_mut();
        let row = counters.entry(row).or_default();
        row.back_packets += 1;
        row.back_bytes += bytes;
    }
    fn hand<R>(&self, with: impl FnOnce(&mut Hand) -> R) -> Option<R> {
        Some(with(&mut self.hand.borrow_mut()))
    }
    fn go_on(&self, stage: Stage) {
        self.next.set(Some(stage));
    }
    fn went_on(&self) -> bool {
        self.next.get().is_some()
    }
    fn note(&self, write: impl FnOnce(&mut Report)) {
        write(&mut self.report.borrow_mut());
    }
}
