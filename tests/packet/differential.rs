//! The loaded programs against the same decision on the host: random packets, the same tables, the same everything.
//!
//! What differs can only be the compiler, the maps, the packet access or the helpers. Packets are valid ones of every
//! kind, most of them damaged afterwards; the sequence is the same in every run (`LB_TEST_SEED` takes another).

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{
    BackendEntry, FlowKey, FlowValue, Key, NeighbourEntry, RangesEntry, Report, ReverseEntry, RouteEntry,
    ServiceEntry, VipEntry, limits, names, route,
};
use lb_common::host::{self, HostTables};
use lb_common::pipeline;
use lb_common::reason::{Fate, Reason};
use lb_common::slot::Slot;
use lb_tests::fragments::cut;
use lb_tests::frame::{Flow, Kind, TCP, UDP};
use lb_tests::icmp::{Failure, Ping};
use lb_tests::kernel::{Moved, followed_to, owner};
use lb_tests::oracle;
use lb_userspace::dataplane::Tables;
use lb_userspace::dataplane::devices::Mode as Attached;
use lb_userspace::model::{Admin, Backend, Mode, Tracking};
use lb_userspace::plan::NextHop;
use nix::time::{ClockId, clock_gettime};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::case::{DROP, PASS, REDIRECT, TX};
use crate::lab::{LOOPBACK, Lab, Served, address, all, gateway, hop, in_lab, served, way};
use crate::not_ours::{arp, carrying, extension, fragment, options, ping, tagged};
use crate::ranges::{ANY, RANGE, SHIFTED, Wide};

const PACKETS: usize = 24_000;
/// The compiler of routes knows this net; one client of it is in the table of neighbours.
const ON_LINK: [(&str, &str); 2] =
    [("198.51.100.0", "255.255.255.240"), ("2001:db8:1::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0")];

/// Everything that the agent writes, as one value.
#[derive(Clone, Debug, PartialEq)]
struct Contents {
    services: Vec<ServiceEntry>,
    rings: Vec<Vec<u32>>,
    backends: Vec<BackendEntry>,
    reverse: Vec<ReverseEntry>,
    ranges: Vec<RangesEntry>,
    neighbours: Vec<NeighbourEntry>,
    vips: Vec<VipEntry>,
    routes: (Vec<RouteEntry>, Vec<RouteEntry>),
    settings: lb_common::abi::Settings,
}

impl Contents {
    fn of(tables: &Tables) -> Self {
        let services: Vec<_> = tables.services.iter().collect();
        Self {
            rings: services.iter().map(|service| tables.rings.read(service.ring, service.slots)).collect(),
            services,
            backends: (0..tables.backends.capacity())
                .filter_map(|index| tables.backends.get(index))
                .collect(),
            reverse: tables.reverse.iter().collect(),
            ranges: tables.ranges.iter().collect(),
            neighbours: tables.neighbours.iter().collect(),
            vips: tables.vips.iter().collect(),
            routes: tables.routes.in_force(),
            settings: tables.settings.get(),
        }
    }

    /// The same on the host.
    fn on_host(&self) -> HostTables {
        let mut host = HostTables { backends: self.backends.clone(), ..HostTables::default() };
        for (service, slots) in self.services.iter().zip(&self.rings) {
            host.put_service(*service);
            for (index, word) in (0..).zip(slots) {
                host.set_slot(service, index, *word);
            }
        }
        self.reverse.iter().for_each(|entry| host.put_reverse(*entry));
        self.ranges.iter().for_each(|entry| host.put_ranges(*entry));
        self.neighbours.iter().for_each(|entry| host.put_neighbour(*entry));
        self.vips.iter().for_each(|entry| host.put_vip(*entry));
        host.settings = self.settings;
        let first = (self.settings.routes & 1) * 2 * limits::ROUTES_PER_FAMILY;
        for (family, routes) in (0..).zip([&self.routes.0, &self.routes.1]) {
            let first = (first + family * limits::ROUTES_PER_FAMILY) as usize;
            host.routes[first..first + routes.len()].copy_from_slice(routes);
        }
        host
    }
}

/// Opens windows, asks for more and for less tracking, and leaves a backend without a next hop.
fn disturb(lab: &mut Lab<'_>) {
    for (n, name) in (3..).zip(["tcp4-nat", "tcp6-nat", "udp4-nat"]) {
        let old = lab.desired.services[name].backends.keys().next().copied().expect("a backend");
        let ip = if old.is_ipv4() { IpAddr::from([10, 0, 0, n]) } else { address("fd00::33") };
        lab.kernel.hops.insert(ip, NextHop { macs: hop(n), ifindex: LOOPBACK, mtu: 1500 });
        lab.change(name, |service| {
            let new = SocketAddr::new(ip, 8080);
            service.backends.insert(new, Backend::new(new, 100));
            if let Some(backend) = service.backends.get_mut(&old).filter(|_| n == 3) {
                backend.admin = Admin::Draining { until: None, remove: false };
            }
        });
    }
    // Some slots are settled already, as after a sweep.
    lab.slots("tcp6-nat", |slot| if slot.current() % 2 == 0 { slot.settle() } else { slot });
    lab.slots("udp4-nat", |slot| {
        if slot.settled() { slot } else { Slot::new(slot.current(), true, slot.previous()) }
    });
    lab.change("udp6-nat", |service| service.tracking = Tracking::Always);
    lab.change("udp4-l2", |service| service.tracking = Tracking::Never);
    let lost = SocketAddr::new(address("fd00::99"), 443);
    lab.change("tcp6-l2", |service| {
        service.backends.insert(lost, Backend::new(lost, 100));
    });
    lab.change("udp6-l2", |service| service.backends.clear());
    // Packets inside others: a narrow way, and a family that has no source.
    let [narrow, nowhere] = [(address("fd00::88"), 150), (address("10.0.0.99"), 1500)];
    for (ip, mtu) in [narrow, nowhere] {
        lab.kernel.hops.insert(ip, NextHop { macs: hop(88), ifindex: LOOPBACK, mtu });
    }
    lab.kernel
        .tables
        .settings
        .set_sources(None, Some("2001:db8:f::/64".parse().expect("a prefix")))
        .expect("settings");
    lab.change("tcp4-l2", |service| {
        let backend = SocketAddr::new(narrow.0, 443);
        (service.mode, service.backends) = (Mode::Gue, [(backend, Backend::new(backend, 100))].into());
    });
    lab.change("tcp6-l2", |service| {
        let backend = SocketAddr::new(nowhere.0, 443);
        service.mode = Mode::Ipip;
        service.backends.insert(backend, Backend::new(backend, 100));
    });

    let on_link =
        ON_LINK.map(|(prefix, mask)| RouteEntry { kind: route::kind::ON_LINK, ..way(prefix, mask) });
    let routes = [[on_link[0], gateway(false)], [on_link[1], gateway(true)]];
    lab.kernel.tables.routes.publish(&routes[0], &routes[1]).expect("room for the routes");
    for (wide, like) in wide() {
        wide.serve(lab, &like);
    }
    for known in ["198.51.100.7", "2001:db8:1::7"] {
        let key = Key::neighbour(address(known).into(), LOOPBACK).expect("a small index");
        let entry = NeighbourEntry { key, macs: [2, 0, 0, 0, 4, 4, 2, 0, 0, 0, 0, 2] };
        lab.kernel.tables.neighbours.put(&entry).expect("room for a neighbour");
    }
}

/// Services with several ports beside the others.
fn wide() -> [(Wide, Served); 4] {
    let beside = |wide: Wide, name, like| (Wide { name, ..wide }, served(like));
    [
        beside(RANGE, "range4", "tcp4-nat"),
        beside(SHIFTED, "shifted6", "udp6-nat"),
        beside(ANY, "any4", "udp4-l2"),
        beside(ANY, "any6", "tcp6-nat"),
    ]
}

/// A random packet.
fn packet(random: &mut StdRng, served: &[Served]) -> Vec<u8> {
    let mut frame = match random.random_range(0..28) {
        0 => arp(),
        1 => ping(random.random()),
        2 => extension([0, 43, 44, 51, 60, 135, 139, 140][random.random_range(0..8)]),
        3 => fragment(random.random_range(0..8192), random.random()),
        4 => options(random.random_range(1..=10)),
        5 => tagged(&[0x8100, 0x88a8, 0x8100][..random.random_range(1..=3)]),
        6 => carrying(random.random(), random.random()),
        7 => {
            let one = &served[random.random_range(0..served.len())];
            Ping::new(one.client.ip(), one.vip.ip()).build()
        }
        8..=10 => {
            let one = random.random_range(0..served.len());
            failure(random, &served[one])
        }
        11..15 => {
            let (wide, like) = &wide()[random.random_range(0..4)];
            // In the middle of ranges, at their ends, and beside them.
            let port = [7999, 8000, 8500, 8999, 9000, 9050, 9099, 9100][random.random_range(0..8)];
            let one = wide.at(like, port);
            if random.random_bool(0.25) { failure(random, &one) } else { of_a_flow(random, &one) }
        }
        _ => {
            let one = random.random_range(0..served.len());
            of_a_flow(random, &served[one])
        }
    };
    damage(random, &mut frame);
    frame
}

/// An error about a packet of a flow in one of the directions that it takes.
fn failure(random: &mut StdRng, served: &Served) -> Vec<u8> {
    let request = a_flow(random, served);
    let (client, vip) =
        if request.to == served.vip { (request.from, request.to) } else { (request.to, served.vip) };
    let flow = match random.random_range(0..4) {
        0 => Flow { from: client, to: served.backend, ..request },
        1 => Flow { from: client, to: vip, ..request },
        _ => Flow { from: vip, to: client, ..request },
    };
    let mut report = Failure::about(&flow).keeping(random.random_range(0..64));
    if random.random() {
        report.kind = [random.random_range(0..14), random.random_range(0..5)];
    }
    if random.random_bool(0.2) {
        report.from = flow.to.ip();
    }
    report.build()
}

/// A request, a reply, or a packet beside a service.
fn of_a_flow(random: &mut StdRng, served: &Served) -> Vec<u8> {
    let flow = a_flow(random, served);
    let frame = if random.random_bool(0.25) { oracle::unfinished(&flow) } else { flow.build() };
    if random.random_bool(0.2) { part(random, &frame) } else { frame }
}

fn a_flow(random: &mut StdRng, served: &Served) -> Flow {
    let last = random.random_range(0..24);
    let client = match served.client.ip() {
        IpAddr::V4(_) => IpAddr::from([198, 51, 100, last]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(last)]),
    };
    let served =
        Served { client: SocketAddr::new(client, random.random_range(5000..5032)), ..served.clone() };
    let mut flow: Flow = if random.random_bool(0.7) { served.request() } else { served.reply() };
    flow.kind = if random.random() { Kind::Syn } else { Kind::Data };
    flow.payload = (0..random.random_range(0..200)).map(|_| random.random()).collect();
    if random.random_bool(0.05) {
        flow.protocol = if flow.protocol == TCP { UDP } else { TCP };
    }
    flow
}

/// A fragment of it: so few identifications that some fragments find their first one.
fn part(random: &mut StdRng, frame: &[u8]) -> Vec<u8> {
    let size = [8, 24, 64][random.random_range(0..3)];
    let parts = cut(frame, random.random_range(0..2), size);
    let chosen = if random.random() { 0 } else { random.random_range(0..parts.len()) };
    parts[chosen].clone()
}

/// Pads, cuts and changes bytes; half of all packets stay as they are.
fn damage(random: &mut StdRng, frame: &mut Vec<u8>) {
    if random.random() {
        return;
    }
    match random.random_range(0..4) {
        0 => frame.resize(frame.len() + random.random_range(1..40), 0xaa),
        1 => frame.truncate(random.random_range(14..=frame.len())),
        _ => {
            for _ in 0..random.random_range(1..4) {
                // Headers are where the decisions are.
                let at = random.random_range(0..frame.len().min(80));
                frame[at] = if random.random() {
                    random.random()
                } else {
                    frame[at] ^ (1 << random.random_range(0..8))
                };
            }
        }
    }
}

/// The kernel's action for the host's verdict.
fn action(verdict: &pipeline::Verdict, ingress: u32) -> u32 {
    match verdict.reason.fate() {
        Fate::Pass => PASS,
        Fate::Drop => DROP,
        Fate::Answer => TX,
        Fate::Forward if verdict.egress == ingress => TX,
        Fate::Forward => REDIRECT,
    }
}

/// The clock that the programs read.
fn clock() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock that is always there");
    now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
}

/// What the host's decision has written.
fn moved(host: &HostTables) -> Moved {
    let reason = |((service, reason), count): (&(u32, Reason), &u64)| ((*service, *reason as usize), *count);
    let entries = |table: &HashMap<FlowKey, FlowValue>| {
        table.iter().map(|(key, value)| (key.into(), Some(owner(value)))).collect()
    };
    Moved {
        counters: host.counters.borrow().clone(),
        reasons: host.reasons.borrow().iter().map(reason).collect(),
        flows: entries(&host.flows.borrow()),
        embryos: entries(&host.embryos.borrow()),
        fragments: host
            .fragments
            .borrow()
            .iter()
            .map(|(key, value)| (key.into(), Some(followed_to(value))))
            .collect(),
    }
}

#[test]
fn the_loaded_programs_decide_as_the_host_does() {
    let seed =
        env::var("LB_TEST_SEED").map_or(20_240_607, |seed| seed.parse().expect("LB_TEST_SEED is a number"));
    println!("LB_TEST_SEED={seed}");
    in_lab(|lab| {
        let generic = lab.veth("in0", "in1");
        lab.allow(LOOPBACK);
        lab.kernel
            .dataplane
            .interfaces()
            .and_then(|mut interfaces| interfaces.devices().set_mode(generic, Attached::Generic))
            .expect("room for an interface");
        disturb(lab);
        let contents = Contents::of(&lab.kernel.tables);
        let mut host = contents.on_host();
        host.devices.insert(LOOPBACK);
        // This namespace forwards nothing, whatever the destination: what the compiled routes leave open.
        for last in 0..16 {
            for client in [
                IpAddr::from([198, 51, 100, last]),
                IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(last)]),
            ] {
                host.kernel.insert(client.into(), Err(Reason::ForwardingOff));
            }
        }

        let before = lab.kernel.snapshot();
        let mut random = StdRng::seed_from_u64(seed);
        let (served, mut seen) = (all(), BTreeMap::new());
        let runner = lab.kernel.runner();
        // The host's clock stands still, so nobody fills its bucket of answers again.
        let bucket = host.bucket.get();
        for n in 0..PACKETS {
            host.bucket.set(bucket);
            let frame = packet(&mut random, &served);
            let ingress = if random.random_bool(0.8) { LOOPBACK } else { generic };
            (host.ingress, host.generic) = (ingress, ingress == generic);
            let explained = runner.explain(&frame, ingress).expect("the kernel explains");
            let balanced = runner.run(names::BALANCE, &frame, ingress, 1).expect("the kernel runs it");

            host.now.set(clock());
            *host.report.borrow_mut() = Report::EMPTY;
            let mut out = frame.clone();
            let verdict = host::run(&mut out, &host);
            let action = action(&verdict, ingress);
            let what = || format!("packet {n} through {ingress}: {verdict:?}, came in as {frame:02x?}");
            assert_eq!(explained.report, *host.report.borrow(), "{}", what());
            assert_eq!((explained.action, &explained.frame), (action, &out), "explained, {}", what());
            assert_eq!((balanced.action, &balanced.frame), (action, &out), "balanced, {}", what());
            *seen.entry(verdict.reason).or_insert(0) += 1;
        }
        // Explaining was counted nowhere, or there would be twice as much.
        assert_eq!(lab.kernel.snapshot().since(&before), moved(&host));
        assert_eq!(Contents::of(&lab.kernel.tables), contents, "no program writes what is the agent's");
        println!("{seen:?}");
        assert_every_reason_but(&seen);
        assert!(host.flows.borrow().len() > 100 && !host.embryos.borrow().is_empty(), "windows were open");
    });
}

/// Random packets must reach what they can reach, or they test nothing.
fn assert_every_reason_but(seen: &BTreeMap<Reason, i32>) {
    // Those need other routes (see `way_back`), or another next hop; no frame that can be run is too long or has no room
    // in front; and no more answers are asked for than may be given in a second.
    let others = [
        // Pings are fewer than a bucket holds.
        Reason::EchoLimited,
        Reason::NoRoute,
        Reason::NoNeighbour,
        Reason::ToThisMachine,
        Reason::NoDevice,
        Reason::Unfinished,
        // Only without the program that looks past them.
        Reason::Ipv4Options,
        Reason::NoHeadroom,
        Reason::TooBig,
        Reason::NoProgram,
    ];
    for reason in Reason::ALL.iter().filter(|reason| !others.contains(reason)) {
        assert!(seen.contains_key(reason), "no packet was {reason:?}: {seen:?}");
    }
}
