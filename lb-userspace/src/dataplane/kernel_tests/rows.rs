//! Flow entries and counters as the agent reads and removes them.

use std::collections::BTreeSet;

use lb_common::abi::{FlowKey, FlowValue};
use lb_common::addr::Addr;

use super::super::counters::Counters;
use super::super::flows::{FlowTable, Flows};
use super::Rig;

fn key(n: u32) -> FlowKey {
    FlowKey { client: Addr::v4(n), ports: [1, 2], service: 3 }
}

fn held(flows: &mut Flows) -> BTreeSet<u32> {
    let mut held = BTreeSet::new();
    flows
        .for_each(|key, value| {
            assert_eq!(value.backend, key.client.last() + 1);
            held.insert(key.client.last());
        })
        .unwrap();
    held
}

#[test]
fn flows_are_read_and_removed_with_batches_and_without() {
    let rig = Rig::new();
    let dataplane = rig.opened();
    for (table, count, batches) in [(FlowTable::Established, 3000, true), (FlowTable::Embryonic, 500, false)]
    {
        let mut flows = Flows::open(dataplane.maps(), table).unwrap();
        flows.batches = batches;
        assert_eq!(held(&mut flows), BTreeSet::new());
        for n in 0..count {
            flows.insert(&key(n), &FlowValue { backend: n + 1, ..FlowValue::default() }).unwrap();
        }
        let all: BTreeSet<u32> = (0..count).collect();
        assert_eq!(held(&mut flows), all);
        assert_eq!(flows.get(&key(7)).unwrap().map(|v| v.backend), Some(8));

        // Some of them are not there, at either end and amid.
        let doomed: Vec<FlowKey> = [count + 1, count + 2]
            .into_iter()
            .chain((0..count).step_by(2))
            .chain([count + 3])
            .chain((1..count).step_by(4))
            .map(key)
            .collect();
        flows.delete(&doomed).unwrap();
        let kept: BTreeSet<u32> = all.into_iter().filter(|n| n % 2 != 0 && n % 4 != 1).collect();
        assert_eq!(held(&mut flows), kept);
        assert_eq!(flows.get(&key(0)).unwrap(), None);
        assert_eq!(flows.batches, batches, "this kernel has them");
    }
}

#[test]
fn rows_end_where_the_table_ends() {
    let rig = Rig::new();
    let dataplane = rig.opened();
    let mut counters = Counters::open(dataplane.maps()).unwrap();
    assert_eq!((counters.backend_rows(), counters.reason_rows()), (64, 16));
    assert!(counters.backend(63).is_ok() && counters.backend(64).is_err());
    assert!(counters.clear_reasons(15).is_ok() && counters.clear_reasons(16).is_err());
}
