//! What is written through the mapped memory is what the program does.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use aya::maps::MapInfo;
use aya::util::nr_cpus;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY;
use etherparse::PacketBuilder;
use lb_common::abi::backend::flags::{REACHABLE, RESOLVED, SELECTABLE};
use lb_common::abi::service::flags::NAT;
use lb_common::abi::{
    BackendCounters, BackendEntry, Correction, Event, Key, ReverseEntry, ServiceEntry, event, explain, names,
};
use lb_common::addr::{Addr, TCP};
use lb_common::reason::Reason;
use lb_common::slot::Slot;

use super::super::counters::Counters;
use super::super::devices::Devices;
use super::super::events::Events;
use super::super::explain::{ExplainError, Explainer};
use super::super::{Dataplane, Tables, netdev};
use super::{Rig, in_namespace, ip, veth};

const CLIENT: [u8; 4] = [198, 51, 100, 7];
const VIP: [u8; 4] = [192, 0, 2, 10];
const BACKEND: [u8; 4] = [10, 9, 0, 7];
const LOOPBACK: u32 = 1;
/// `XDP_DROP`, `XDP_PASS`, `XDP_TX`.
const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;

fn frame(macs: [[u8; 6]; 2], from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs[1], macs[0])
        .ipv4(from.0, to.0, 64)
        .tcp(from.1, to.1, 1000, 4000)
        .syn()
        .write(&mut frame, b"hello")
        .unwrap();
    frame
}

fn addr(octets: [u8; 4]) -> Addr {
    IpAddr::from(Ipv4Addr::from(octets)).into()
}

/// One NAT service with one backend behind the interface.
fn serve(tables: &mut Tables, ifindex: u32) {
    let macs = [0x0a, 0, 0, 0, 0, 7, 0x0a, 0, 0, 0, 0, 1];
    let backend = BackendEntry {
        addr: addr(BACKEND),
        macs,
        ifindex,
        port: 8080_u16.to_be(),
        flags: REACHABLE | SELECTABLE | RESOLVED,
        generation: tables.settings.next_generation().unwrap(),
        counters: 5,
        mtu: 1500,
        correction: Correction::new((addr(VIP), 80_u16.to_be()), (addr(BACKEND), 8080_u16.to_be())),
        reserved: [0; 3],
    };
    tables.backends.put(3, &backend).unwrap();
    tables.rings.fill(2, &[Slot::settled_on(1).0; 31]).unwrap();
    let service = ServiceEntry {
        key: Key::endpoint(addr(VIP), 80_u16.to_be(), TCP),
        id: 4,
        ring: 2,
        slots: 31,
        backends: 2,
        capacity: 8,
        seed: 1,
        flags: NAT,
        sum: Key::endpoint(addr(VIP), 80_u16.to_be(), TCP).sum(),
        pad: 0,
        past: 6,
        ports: [0; 2],
    };
    tables.services.put(&service).unwrap();
    let reverse = ReverseEntry {
        key: Key::endpoint(addr(BACKEND), 8080_u16.to_be(), TCP),
        service: 4,
        counters: 5,
        vip: addr(VIP),
        port: 80_u16.to_be(),
        sum: Key::endpoint(addr(BACKEND), 8080_u16.to_be(), TCP).sum(),
        correction: Correction::new((addr(BACKEND), 8080_u16.to_be()), (addr(VIP), 80_u16.to_be())),
        ..ReverseEntry::default()
    };
    tables.reverse.put(&reverse).unwrap();
}

/// Keys and values.
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Everything in every map but the answer of `lb_explain`. Device maps have no batches and are looked at by their keys.
fn dump(dataplane: &Dataplane) -> (Vec<u32>, BTreeMap<&'static str, Entries>) {
    let apart = [names::EXPLAIN, names::EVENTS, names::DEVICES];
    let others = names::MAPS.into_iter().filter(|name| !apart.contains(name));
    let devices = Devices::open(dataplane.maps()).unwrap().allowed();
    (devices, others.map(|name| (name, entries(dataplane, name))).collect())
}

fn entries(dataplane: &Dataplane, name: &'static str) -> Entries {
    let map = dataplane.maps().open(name).unwrap();
    let info: MapInfo = map.info().unwrap();
    let key = info.key_size() as usize;
    let mut value = info.value_size() as usize;
    if info.map_type().unwrap() as u32 == BPF_MAP_TYPE_PERCPU_ARRAY as u32 {
        value = value.next_multiple_of(8) * nr_cpus().unwrap();
    }
    let room = info.max_entries() as usize;
    let (mut keys, mut values) = (vec![0; room * key], vec![0; room * value]);
    // SAFETY: both have room for every entry of the map.
    let copied =
        unsafe { super::super::sys::lookup_batch(map.fd().as_fd(), None, &mut keys, &mut values, room) };
    let copied = copied.unwrap_or_else(|error| panic!("{name}: {error}"));
    let pairs = keys.chunks(key).zip(values.chunks(value)).take(copied.count);
    let mut pairs: Vec<_> = pairs.map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    pairs.sort();
    pairs
}

#[test]
fn a_service_written_through_memory_balances() {
    let rig = Rig::new();
    in_namespace(|| {
        let dataplane = rig.opened();
        let mut tables = dataplane.tables().unwrap();
        serve(&mut tables, LOOPBACK);
        let packet = frame([[2; 6], [4; 6]], (CLIENT, 40000), (VIP, 80));
        let runner = Explainer::open(dataplane.pins(), dataplane.maps()).unwrap();
        let mut counters = Counters::open(dataplane.maps()).unwrap();

        let ran = runner.run(names::BALANCE, &packet, LOOPBACK, 1).unwrap();
        assert_eq!(ran.action, TX);
        let macs = [[0x0a, 0, 0, 0, 0, 7], [0x0a, 0, 0, 0, 0, 1]];
        assert_eq!(ran.frame, frame(macs, (CLIENT, 40000), (BACKEND, 8080)));

        let mut backends = vec![BackendCounters::default(); 64];
        backends[5] = BackendCounters {
            packets: 1,
            bytes: packet.len() as u64,
            flows: 1,
            ..BackendCounters::default()
        };
        assert_eq!(counters.backends().unwrap(), backends);
        for row in 0..counters.reason_rows() {
            assert_eq!(counters.reasons(row).unwrap(), [0; 64], "row {row}");
        }
        let mut expected = [0; 64];
        expected[Reason::Forwarded as usize] = 1;
        let service = tables.services.iter().next().unwrap();
        assert_eq!(counters.service(service.id, 1, 0).unwrap(), expected);
        // A backend that is gone leaves what it counted to its service.
        counters.keep_backend(5, service.past).unwrap();
        assert_eq!(counters.backend(5).unwrap(), BackendCounters::default());
        assert_eq!(counters.backend(service.past).unwrap(), backends[5]);
        counters.clear_backend(service.past).unwrap();
        counters.clear_reasons(4).unwrap();
        assert_eq!(counters.backends().unwrap(), [BackendCounters::default(); 64]);
        assert_eq!(counters.reasons(4).unwrap(), [0; 64]);

        let other = frame([[2; 6], [4; 6]], (CLIENT, 40000), (VIP, 81));
        let ran = runner.run(names::BALANCE, &other, LOOPBACK, 1).unwrap();
        assert_eq!((ran.action, ran.frame), (PASS, other));

        // What is taken back is served no more.
        tables.backends.set_flags(3, 0).unwrap();
        assert_eq!(runner.run(names::BALANCE, &packet, LOOPBACK, 1).unwrap().action, DROP);
        assert!(tables.services.remove(&Key::endpoint(addr(VIP), 80_u16.to_be(), TCP)));
        assert_eq!(runner.run(names::BALANCE, &packet, LOOPBACK, 1).unwrap().action, PASS);
    });
}

#[test]
fn an_explanation_tells_all_and_changes_nothing() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        let dataplane = rig.opened();
        serve(&mut dataplane.tables().unwrap(), index);
        let before = dump(&dataplane);
        assert_eq!(before.1[names::COUNTERS].len(), 64, "the dump sees the tables");
        let packet = frame([[2; 6], [4; 6]], (CLIENT, 40000), (VIP, 80));
        let explainer = Explainer::open(dataplane.pins(), dataplane.maps()).unwrap();
        let explained = explainer.explain(&packet, index).unwrap();
        assert_eq!(explained.action, TX);
        let report = explained.report;
        assert_eq!(report.reason, Reason::Forwarded as u32);
        assert_eq!((report.service, report.backend, report.counters, report.egress), (4, 1, 5, index));
        assert_eq!(report.word, Slot::settled_on(1).0);
        assert_eq!(explained.frame[30..34], BACKEND);

        let stranger = frame([[2; 6], [4; 6]], (CLIENT, 1), ([203, 0, 113, 1], 2));
        let explained = explainer.explain(&stranger, index).unwrap();
        assert_eq!((explained.action, explained.report.slot), (PASS, explain::NONE));
        assert_eq!(dump(&dataplane), before);

        assert!(matches!(explainer.explain(&packet, 4711), Err(ExplainError::NoInterface(4711))));
        assert!(matches!(explainer.explain(&[0; 5], index), Err(ExplainError::Length(5))));
    });
}

#[test]
fn an_unknown_neighbour_is_told_to_the_agent() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        ip("addr add 10.9.0.1/24 dev a0");
        // A namespace of its own: the file belongs to the one who opens it.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        assert!(netdev::device(index).unwrap().is_some());
        let dataplane = rig.opened();
        serve(&mut dataplane.tables().unwrap(), index);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let mut events = Events::open(dataplane.maps()).unwrap();
            let runner = Explainer::open(dataplane.pins(), dataplane.maps()).unwrap();
            for last in [9, 11] {
                let reply = frame([[2; 6], [4; 6]], (BACKEND, 8080), ([10, 9, 0, last], 40000));
                runner.run(names::BALANCE, &reply, index, 1).unwrap();
            }
            for last in [9, 11] {
                let expected =
                    Event { kind: event::kind::NO_NEIGHBOUR, ifindex: index, addr: addr([10, 9, 0, last]) };
                assert_eq!(events.next().await.unwrap(), expected);
            }
        });
    });
}
