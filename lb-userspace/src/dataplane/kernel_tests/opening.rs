//! Opening, adopting, upgrading, refusing.

use std::fs;
use std::os::fd::AsFd;

use aya::maps::{HashMap, Map, MapData, MapInfo};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_HASH;
use lb_common::abi::{SCHEMA, names};

use super::super::load::KeptSize;
use super::super::load_error::LoadError;
use super::super::pins::PinsError;
use super::super::{Dataplane, OpenError, Options, Sizes, Start, object, pins, sys};
use super::{Rig, in_namespace, veth};
use crate::model::AttachMode;

fn map_ids(rig: &Rig) -> Vec<u32> {
    names::MAPS.iter().map(|name| MapInfo::from_pin(rig.pins().map(name)).unwrap().id()).collect()
}

fn program_id(rig: &Rig, name: &str) -> u32 {
    let dir = rig.pins().programs().join(object::build().unwrap());
    aya::programs::ProgramInfo::from_pin(dir.join(name)).unwrap().id()
}

#[test]
fn what_is_pinned_is_adopted_as_it_is() {
    let rig = Rig::new();
    let first = rig.open().unwrap();
    assert_eq!(first.start, Start::Fresh);
    first.dataplane.tables().unwrap().settings.next_generation().unwrap();
    let (maps, program) = (map_ids(&rig), program_id(&rig, names::BALANCE));
    drop(first);
    let second = rig.open().unwrap();
    assert_eq!(second.start, Start::Adopted);
    assert_eq!((map_ids(&rig), program_id(&rig, names::BALANCE)), (maps, program));
    assert_eq!(second.dataplane.tables().unwrap().settings.get().generation, 1);
}

#[test]
fn only_one_holds_the_pins() {
    let rig = Rig::new();
    let first = rig.opened();
    let error = rig.open().unwrap_err();
    assert!(matches!(error, OpenError::Pins(PinsError::Locked(_))), "{error}");
    assert!(error.to_string().contains("systemctl stop lb"), "{error}");
    drop(first);
    rig.opened();
}

#[test]
fn another_process_is_kept_out_too() {
    let rig = Rig::new();
    let _first = rig.opened();
    // Fails with 1 when it does not get the lock at once.
    let status =
        std::process::Command::new("flock").arg("--nonblock").arg(&rig.options.pins).arg("true").status();
    assert_eq!(status.unwrap().code(), Some(1));
}

#[test]
fn pinned_sizes_win_and_are_told() {
    let rig = Rig::new();
    drop(rig.opened());
    let sizes = Sizes { services: 256, ..rig.options.sizes };
    let opened = Dataplane::open(&Options { sizes, ..rig.options.clone() }).unwrap();
    assert_eq!(opened.kept_sizes, [KeptSize { table: names::SERVICES, asked: 256, has: 64 }]);
    assert_eq!(opened.start, Start::Adopted);
    assert_eq!(opened.dataplane.tables().unwrap().services.capacity(), 64);
}

#[test]
fn another_builds_program_is_replaced_on_its_link() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        rig.opened().attach(index, "a0", AttachMode::Native).unwrap();
        let old = program_id(&rig, names::BALANCE);
        let dir = rig.pins().programs();
        fs::rename(dir.join(object::build().unwrap()), dir.join("another")).unwrap();

        let opened = rig.open().unwrap();
        assert_eq!(opened.start, Start::Upgraded { links: 1 });
        let new = program_id(&rig, names::BALANCE);
        assert_ne!(new, old);
        let links = pins::links(&rig.pins().links()).unwrap();
        assert_eq!(links.len(), 1);
        assert_eq!(links[0].info, sys::LinkInfo { program: new, ifindex: index });
        assert_eq!(pins::list(&dir).unwrap().len(), 1, "the other build's programs are gone");
        drop(opened);
        assert_eq!(rig.open().unwrap().start, Start::Adopted);
    });
}

#[test]
fn programs_bound_to_lost_maps_are_loaded_anew() {
    let rig = Rig::new();
    drop(rig.opened());
    let old = program_id(&rig, names::BALANCE);
    fs::remove_file(rig.pins().map(names::SERVICES)).unwrap();
    let opened = rig.open().unwrap();
    assert_eq!(opened.start, Start::Upgraded { links: 0 });
    assert_ne!(program_id(&rig, names::BALANCE), old);
}

#[test]
fn a_map_of_another_layout_is_refused_and_left_alone() {
    let rig = Rig::new();
    drop(rig.pins().prepare().unwrap());
    let path = rig.pins().map(names::FLOWS);
    let wrong = aya_obj::Map::new_from_params(BPF_MAP_TYPE_HASH as u32, 4, 256, 8, 0);
    let map = MapData::create(wrong, "FLOWS", None).unwrap();
    map.pin(&path).unwrap();
    let mut map: HashMap<MapData, u32, [u8; 256]> = Map::from_map_data(map).unwrap().try_into().unwrap();
    map.insert(7, [9; 256], 0).unwrap();
    let id = MapInfo::from_pin(&path).unwrap().id();

    let error = rig.open().unwrap_err();
    assert!(matches!(error, OpenError::Layout(_)), "{error}");
    for part in ["FLOWS", "value 256 B", "Nothing was changed", "To migrate"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(MapInfo::from_pin(&path).unwrap().id(), id);
    assert_eq!(map.get(&7, 0).unwrap(), [9; 256]);
    assert_eq!(
        pins::list(&rig.options.pins.join(format!("v{SCHEMA}/maps"))).unwrap(),
        [path],
        "nothing was created"
    );
}

#[test]
fn unknown_pins_are_told_and_kept() {
    let rig = Rig::new();
    let dataplane = rig.opened();
    let stranger = rig.options.pins.join(format!("v{SCHEMA}/maps/STRANGER"));
    let map = dataplane.maps().open(names::SETTINGS).unwrap();
    map.pin(&stranger).unwrap();
    let other = rig.options.pins.join("v0");
    fs::create_dir(&other).unwrap();
    drop(dataplane);
    let opened = rig.open().unwrap();
    assert_eq!(opened.unknown, [other.clone(), stranger.clone()]);
    assert!(other.exists() && stranger.exists());
}

#[test]
fn a_link_is_replaced_only_if_it_has_the_expected_program() {
    let rig = Rig::new();
    in_namespace(|| {
        let index = veth();
        let dataplane = rig.opened();
        dataplane.attach(index, "a0", AttachMode::Native).unwrap();
        let [explain, balance] = [names::EXPLAIN_PROGRAM, names::BALANCE].map(|n| program_id(&rig, n));
        let [explain, balance] = [explain, balance].map(|id| sys::program_by_id(id).unwrap());
        let link = &pins::links(&rig.pins().links()).unwrap()[0];
        let error = sys::link_update(link.fd.as_fd(), explain.as_fd(), explain.as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        sys::link_update(link.fd.as_fd(), explain.as_fd(), balance.as_fd()).unwrap();
    });
}

#[test]
fn a_missing_right_is_named_and_nothing_is_left() {
    let (able, rig) = (Rig::new(), Rig::new());
    // What the kernel can is found out once in a process: with all rights.
    drop(able.opened());
    let open = || {
        // Of this thread only.
        caps::clear(None, caps::CapSet::Effective).unwrap();
        rig.open().map(drop)
    };
    let error = std::thread::scope(|scope| scope.spawn(open).join()).unwrap().unwrap_err();
    let OpenError::Load(load) = &error else { panic!("{error}") };
    assert!(matches!(**load, LoadError::NotPermitted { .. }), "{error}");
    assert!(error.to_string().contains("CAP_BPF, CAP_NET_ADMIN"), "{error}");
    assert_eq!(
        pins::list(&rig.options.pins.join(format!("v{SCHEMA}/maps"))).unwrap(),
        [] as [std::path::PathBuf; 0]
    );
    assert_eq!(rig.open().unwrap().start, Start::Fresh);
}
