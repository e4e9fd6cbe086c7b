//! Flows stay where they are while backends come and go: windows, embryonic flows, and what tables hold afterwards.

use std::net::SocketAddr;

use lb_common::abi::{FlowKey, FlowValue, flow};
use lb_common::slot::Slot;
use lb_tests::frame::Flow;
use lb_userspace::dataplane::flows::FlowTable;
use lb_userspace::model::{Admin, Backend, Tracking};
use lb_userspace::plan::NextHop;

use crate::case::forwarded;
use crate::lab::{LOOPBACK, Lab, Served, address, hop, in_lab, served};

/// A service in the middle of a change: its old backend drains, another one takes what is new.
pub(crate) struct Change {
    pub(crate) old: Served,
    pub(crate) new: Served,
}

/// Opens a window on every slot of a service.
pub(crate) fn open_window(lab: &mut Lab<'_>, name: &str) -> Change {
    let old = served(name);
    let v4 = old.vip.is_ipv4();
    let backend = SocketAddr::new(address(if v4 { "10.0.0.3" } else { "fd00::3" }), 8080);
    let new = Served { backend, macs: hop(3), ..old.clone() };
    lab.kernel.hops.insert(backend.ip(), NextHop { macs: new.macs, ifindex: LOOPBACK, mtu: 1500 });
    lab.change(name, |service| {
        service.backends.insert(backend, Backend::new(backend, 100));
        for leaving in service.backends.values_mut().filter(|b| b.address == old.backend) {
            leaving.admin = Admin::Draining { until: None, remove: false };
        }
    });
    let (was, is) = (lab.owner(&old).0 as u16, lab.owner(&new).0 as u16);
    lab.slots(name, |slot| {
        assert_eq!(slot, Slot::new(is, true, was), "the whole ring changes hands");
        slot
    });
    Change { old, new }
}

/// A packet from another port of the service's client.
pub(crate) fn from(served: &Served, port: u16) -> Flow {
    Flow { from: SocketAddr::new(served.client.ip(), port), ..served.request() }
}

pub(crate) fn out(served: &Served, flow: &Flow) -> Vec<u8> {
    served.request_out(flow).build()
}

#[test]
fn a_window_keeps_old_flows_and_moves_new_ones() {
    for name in ["tcp4-nat", "tcp6-nat"] {
        in_lab(|lab| {
            let Change { old, new } = open_window(lab, name);
            let (stays, goes) = (lab.owner(&old), lab.owner(&new));

            let (data, id) = (from(&old, 6000).data(), lab.id(&old, 6000));
            lab.flow("a segment in the middle of a connection stays, and is remembered", &data)
                .expect(forwarded(&old, &out(&old, &data)).flow(id, Some(stays)));
            lab.flow("the next one finds what was remembered", &data)
                .expect(forwarded(&old, &out(&old, &data)));

            let (syn, data, id) = (from(&new, 6001), from(&new, 6001).data(), lab.id(&new, 6001));
            lab.flow("a new connection goes to the new backend, and leaves only an embryo", &syn)
                .expect(forwarded(&new, &out(&new, &syn)).new_flow().embryo(id, Some(goes)));
            lab.flow("a repeated SYN goes there too", &syn)
                .expect(forwarded(&new, &out(&new, &syn)).new_flow());
            lab.flow("its second segment makes a flow of it", &data)
                .expect(forwarded(&new, &out(&new, &data)).embryo(id, None).flow(id, Some(goes)));
            lab.flow("a late repetition of the SYN changes nothing", &syn)
                .expect(forwarded(&new, &out(&new, &syn)).new_flow());

            let (syn, id) = (from(&new, 6000), lab.id(&new, 6000));
            lab.flow("a tuple that begins anew leaves the draining backend", &syn)
                .expect(forwarded(&new, &out(&new, &syn)).new_flow().flow(id, None).embryo(id, Some(goes)));
            let data = syn.data();
            lab.flow("and what it left behind does not lead astray", &data)
                .expect(forwarded(&new, &out(&new, &data)).embryo(id, None).flow(id, Some(goes)));
        });
    }
}

#[test]
fn a_closed_window_looks_entries_up_and_makes_none() {
    in_lab(|lab| {
        let Change { old, new } = open_window(lab, "tcp4-nat");
        let stays = lab.owner(&old);
        let (data, id) = (from(&old, 6000).data(), lab.id(&old, 6000));
        lab.flow("an old flow", &data).expect(forwarded(&old, &out(&old, &data)).flow(id, Some(stays)));

        lab.slots("tcp4-nat", Slot::settle);
        lab.flow("it stays when the window closes", &data).expect(forwarded(&old, &out(&old, &data)));
        let syn = from(&new, 6002);
        lab.flow("a new connection leaves nothing", &syn)
            .expect(forwarded(&new, &out(&new, &syn)).new_flow());
        let other = from(&new, 6003).data();
        lab.flow("nor does a segment of an unknown one", &other).expect(forwarded(&new, &out(&new, &other)));

        lab.slots("tcp4-nat", Slot::untrack);
        lab.flow("where nothing is tracked, nothing is looked up", &data)
            .expect(forwarded(&new, &out(&new, &data)));
    });
}

#[test]
fn entries_of_backends_that_are_gone_are_void() {
    in_lab(|lab| {
        let Change { old, new } = open_window(lab, "tcp4-nat");
        let (data, id) = (from(&old, 6000).data(), lab.id(&old, 6000));
        let (stays, goes) = (lab.owner(&old), lab.owner(&new));
        lab.flow("an old flow", &data).expect(forwarded(&old, &out(&old, &data)).flow(id, Some(stays)));
        lab.change("tcp4-nat", |service| {
            service.backends.remove(&old.backend);
        });
        let expected = forwarded(&new, &out(&new, &data)).flow(id, None);
        lab.slots("tcp4-nat", |slot| {
            assert_eq!(
                slot,
                Slot::new(goes.0 as u16, true, goes.0 as u16),
                "nobody can be on the old backend"
            );
            slot
        });
        lab.flow("its backend was removed: it moves at once", &data).expect(expected);

        lab.slots("tcp4-nat", Slot::settle);
        let stale = FlowValue { backend: goes.0, generation: goes.1 + 1, ..FlowValue::default() };
        let id = lab.id(&new, 6001);
        lab.kernel.table(FlowTable::Established).insert(&FlowKey::from(id), &stale).expect("room for a flow");
        let data = from(&new, 6001).data();
        lab.flow("an entry of another occupant of the place is dropped", &data)
            .expect(forwarded(&new, &out(&new, &data)).flow(id, None));
    });
}

#[test]
fn datagrams_have_no_beginning() {
    for name in ["udp4-nat", "udp6-nat"] {
        in_lab(|lab| {
            let Change { old, new } = open_window(lab, name);
            let stays = lab.owner(&old);
            let (datagram, id) = (from(&old, 6000), lab.id(&old, 6000));
            lab.flow("a datagram may belong to an old flow: it stays and is counted as one", &datagram)
                .expect(forwarded(&old, &out(&old, &datagram)).new_flow().flow(id, Some(stays)));
            lab.flow("the next one is not new", &datagram).expect(forwarded(&old, &out(&old, &datagram)));
            lab.slots(name, Slot::settle);
            lab.flow("it stays when the window closes", &datagram)
                .expect(forwarded(&old, &out(&old, &datagram)));
            let other = from(&new, 6001);
            lab.flow("others go where the ring says", &other)
                .expect(forwarded(&new, &out(&new, &other)).new_flow());
        });
    }
}

#[test]
fn tracking_may_be_always_or_never() {
    in_lab(|lab| {
        lab.change("tcp4-nat", |service| service.tracking = Tracking::Always);
        let served = served("tcp4-nat");
        let (owner, id) = (lab.owner(&served), lab.id(&served, 6000));
        let (syn, data) = (from(&served, 6000), from(&served, 6000).data());
        lab.flow("always: a SYN leaves an embryo on a settled slot", &syn)
            .expect(forwarded(&served, &out(&served, &syn)).new_flow().embryo(id, Some(owner)));
        lab.flow("always: data makes a flow of it", &data)
            .expect(forwarded(&served, &out(&served, &data)).embryo(id, None).flow(id, Some(owner)));

        lab.change("udp4-nat", |service| service.tracking = Tracking::Never);
        let Change { new, .. } = open_window(lab, "udp4-nat");
        let datagram = from(&new, 6000);
        lab.flow("never: not even in a window", &datagram).expect(forwarded(&new, &out(&new, &datagram)));
    });
}

#[test]
fn a_used_entry_is_seen() {
    in_lab(|lab| {
        let Change { old, .. } = open_window(lab, "tcp4-nat");
        let (stays, id) = (lab.owner(&old), lab.id(&old, 6000));
        let key = FlowKey::from(id);
        let ancient = FlowValue { backend: stays.0, generation: stays.1, made: 5, seen: 6 };
        lab.kernel.table(FlowTable::Established).insert(&key, &ancient).expect("room for a flow");
        let data = from(&old, 6000).data();
        lab.flow("an entry that nobody used for long", &data).expect(forwarded(&old, &out(&old, &data)));
        let entry = lab.kernel.table(FlowTable::Established).get(&key).expect("a table").expect("an entry");
        assert_eq!((entry.backend, entry.generation, entry.made), (stays.0, stays.1, 5));
        assert!(entry.seen > flow::REFRESH_NS, "seen {} ns after the boot", entry.seen);
    });
}
