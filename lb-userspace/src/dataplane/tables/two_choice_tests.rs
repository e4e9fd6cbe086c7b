//! Random histories against a `HashMap`, with readers that are interrupted between any two of the writer's stores.

use super::super::region::observe::while_observed;
use super::*;
use lb_common::abi::Place;
use lb_common::addr::Addr;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;

const SIZE: u32 = 32;

/// A reader that was interrupted: what it holds must stay true until the next grace period.
enum Suspended {
    /// The key was not at its first place; it is about to look at the second.
    LookingAgain(Key),
    /// It found an entry and is reading it.
    Reading(u32, ServiceEntry),
}

#[derive(Default)]
struct Readers {
    /// Keys that no verb is removing or inserting.
    present: Vec<Key>,
    /// Keys whose entries are being changed: their words may differ.
    changing: HashSet<Key>,
    suspended: Vec<Suspended>,
}

thread_local! {
    static READERS: RefCell<Readers> = RefCell::default();
}

fn forget_suspended() {
    READERS.with_borrow_mut(|readers| readers.suspended.clear());
}

/// Resumes every interrupted reader, and interrupts new ones at each point where they can be.
fn look(view: &TwoChoice<ServiceEntry>) {
    READERS.with_borrow_mut(|readers| {
        for reader in &readers.suspended {
            match reader {
                Suspended::LookingAgain(key) => {
                    let second = view.at(places(key, view.mask)[1]);
                    assert_eq!(
                        second.map(|e| e.key),
                        Some(*key),
                        "a reader that looked at one place misses a key"
                    );
                }
                Suspended::Reading(_, entry) if readers.changing.contains(&entry.key) => {}
                Suspended::Reading(place, entry) => {
                    let mut now = view.region.get(*place).unwrap();
                    now.key = entry.key;
                    assert_eq!(now, *entry, "a reader's entry changes under it");
                }
            }
        }
        for key in readers.present.clone() {
            let (place, entry) = view.find(&key).expect("a key that is in the table is not found");
            readers.suspended.push(Suspended::Reading(place, entry));
            let first = view.region.get(places(&key, view.mask)[0]).unwrap();
            match first.key.holds(&key) {
                Place::Here => {}
                Place::Elsewhere => readers.suspended.push(Suspended::LookingAgain(key)),
                Place::Nowhere => {
                    panic!("a reader would not look at the second place of a key that is there")
                }
            }
        }
    });
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32, u32),
    PutAll(Vec<(u32, u32)>),
    Remove(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_u32..40, any::<u32>()).prop_map(|(key, ring)| Step::Put(key, ring)),
        1 => proptest::collection::vec((0_u32..40, any::<u32>()), 0..12).prop_map(Step::PutAll),
        3 => (0_u32..40).prop_map(Step::Remove),
    ];
    proptest::collection::vec(step, 1..120)
}

fn service(n: u32, ring: u32) -> ServiceEntry {
    let key = Key::endpoint(Addr::v4((0x0a00_0000 + n).to_be()), 80_u16.to_be(), 6);
    ServiceEntry { key, id: n, ring, slots: ring ^ n, ..ServiceEntry::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_reader_misses_a_key_or_reads_a_mixture(steps in steps()) {
        READERS.take();
        let region = Region::on_heap("SERVICES", SIZE);
        let mut table = TwoChoice::new(region.clone(), Grace::Told(forget_suspended));
        let mut model = HashMap::new();
        for step in steps {
            let keys: HashSet<Key> = match &step {
                Step::Put(n, _) | Step::Remove(n) => HashSet::from([service(*n, 0).key]),
                Step::PutAll(all) => all.iter().map(|(n, _)| service(*n, 0).key).collect(),
            };
            READERS.with_borrow_mut(|readers| {
                readers.present = model.keys().copied().collect();
                readers.changing.clone_from(&keys);
                if matches!(step, Step::Remove(_)) {
                    readers.present.retain(|present| !keys.contains(present));
                    // One that looks for a key while it is removed may find it or not.
                    readers.suspended.retain(|r| !matches!(r, Suspended::LookingAgain(k) if keys.contains(k)));
                }
            });
            let view = TwoChoice {
                region: region.clone(), mask: SIZE - 1, used: 0, grace: Grace::None, retired: HashSet::new(),
                displaced: HashMap::new(),
            };
            look(&view);
            let outcome = while_observed(move || look(&view), || match &step {
                Step::Put(n, ring) => table.put(&service(*n, *ring)).is_ok(),
                Step::PutAll(all) => {
                    table.put_all(&all.iter().map(|(n, ring)| service(*n, *ring)).collect::<Vec<_>>()).is_ok()
                }
                Step::Remove(n) => table.remove(&service(*n, 0).key),
            });
            let put = |n: &u32, ring: &u32| (service(*n, 0).key, service(*n, *ring));
            match &step {
                Step::Put(n, ring) if outcome => model.extend([put(n, ring)]),
                Step::PutAll(all) if outcome => model.extend(all.iter().map(|(n, ring)| put(n, ring))),
                Step::Put(..) => prop_assert!(keys.iter().all(|k| !model.contains_key(k)), "a key that has a place was refused"),
                // Of the new keys, some are in the table; what was there, is, with what was said last.
                Step::PutAll(all) => {
                    let put: HashMap<_, _> = all.iter().map(|(n, ring)| put(n, ring)).collect();
                    let found = |key: &Key| table.find(key).is_some();
                    prop_assert!(keys.iter().all(|k| found(k) || !model.contains_key(k)));
                    model.extend(put.into_iter().filter(|(key, _)| found(key)));
                }
                Step::Remove(n) => prop_assert_eq!(model.remove(&service(*n, 0).key).is_some(), outcome),
            }
            // Readers of the changed entry saw it change; later steps must leave it alone.
            READERS.with_borrow_mut(|readers| {
                readers.suspended.retain(|r| !matches!(r, Suspended::Reading(_, e) if keys.contains(&e.key)));
            });
            let held: HashMap<Key, ServiceEntry> = table.iter().map(|e| (e.key, e)).collect();
            prop_assert_eq!(&held, &model);
            prop_assert_eq!(table.used() as usize, model.len());
            for place in 0..SIZE {
                let displaced = |k: &&Key| {
                    places(k, SIZE - 1)[0] == place && table.find(k).is_some_and(|(at, _)| at != place)
                };
                let marked = region.get(place).unwrap().key.tag & tag::MORE != 0;
                prop_assert_eq!(marked, model.keys().any(|k| displaced(&k)), "the mark of place {}", place);
            }
        }
        // Whoever comes next finds the same.
        let adopted = TwoChoice::<ServiceEntry>::new(region, Grace::None);
        let held: HashMap<Key, ServiceEntry> = adopted.iter().map(|e| (e.key, e)).collect();
        prop_assert_eq!(held, model);
    }
}

thread_local! {
    static WAITS: RefCell<u32> = const { RefCell::new(0) };
}

#[test]
fn many_that_are_put_together_wait_together() {
    let count = || Grace::Told(|| WAITS.with_borrow_mut(|waits| *waits += 1));
    let size = 1 << 12;
    let entries: Vec<_> = (0..size * 2 / 5).map(|n| service(n, n)).collect();
    let mut one_by_one = TwoChoice::new(Region::on_heap("SERVICES", size), count());
    entries.iter().for_each(|entry| one_by_one.put(entry).unwrap());
    let alone = WAITS.take();
    let mut together = TwoChoice::new(Region::on_heap("SERVICES", size), count());
    together.put_all(&entries).unwrap();
    let shared = WAITS.take();
    assert!(alone > 100 && shared < alone / 5, "{alone} waits one by one, {shared} together");
    let sorted = |table: &TwoChoice<ServiceEntry>| {
        let mut all: Vec<_> = table.iter().collect();
        all.sort_by_key(|entry| entry.id);
        all
    };
    assert_eq!(sorted(&together), entries);
    assert_eq!(sorted(&one_by_one), entries);
    together.put_all(&entries).unwrap();
    assert_eq!(WAITS.take(), 0, "nothing to do is nothing to wait for");
    // More than there is room for: what has a place is there, and the table says that it is full.
    let too_many: Vec<_> = (0..size).map(|n| service(n, n)).collect();
    let full = together.put_all(&too_many).unwrap_err();
    assert_eq!(full.used, together.used());
    assert_eq!(together.iter().count() as u32, together.used());
    assert!(entries.iter().all(|entry| together.find(&entry.key).is_some()));
}

#[test]
fn neighbours_that_changed_wait_once() {
    let entry =
        |n: u32, mac| NeighbourEntry { key: Key::neighbour(Addr::v4(n), 3).unwrap(), macs: [mac; 12] };
    let mut table = TwoChoice::new(
        Region::on_heap("NEIGHBOURS", 256),
        Grace::Told(|| WAITS.with_borrow_mut(|w| *w += 1)),
    );
    let all = |mac| (0..50).map(|n| entry(n, mac)).collect::<Vec<_>>();
    table.put_all(&all(1)).unwrap();
    WAITS.take();
    table.put_all(&all(2)).unwrap();
    assert_eq!(WAITS.take(), 1);
    assert!(all(2).iter().all(|entry| table.find(&entry.key).is_some_and(|(_, found)| found == *entry)));
    assert_eq!(table.used(), 50);
}

#[test]
fn a_full_table_says_so_and_keeps_what_it_has() {
    let mut table = TwoChoice::new(Region::on_heap("SERVICES", 4), Grace::None);
    let mut held = Vec::new();
    let full = (0..100).find_map(|n| match table.put(&service(n, n)) {
        Ok(()) => {
            held.push(service(n, n));
            None
        }
        Err(full) => Some(full),
    });
    let full = full.expect("a hundred keys fit into four places");
    assert_eq!((full.table, full.len, full.used as usize), ("SERVICES", 4, held.len()));
    for entry in &held {
        assert_eq!(table.find(&entry.key).map(|(_, e)| e), Some(*entry));
    }
}

#[test]
fn a_key_that_a_dead_writer_left_in_both_places_is_left_in_one() {
    let entry = (0..).map(|n| service(n, 7)).find(|e| {
        let [first, second] = places(&e.key, SIZE - 1);
        first != second
    });
    let entry = entry.unwrap();
    let mut region = Region::on_heap("SERVICES", SIZE);
    for place in places(&entry.key, SIZE - 1) {
        region.write(place, &entry, TAG_WORD).unwrap();
    }
    let mut table = TwoChoice::new(region, Grace::None);
    assert_eq!((table.used(), table.iter().count()), (1, 1));
    assert!(table.remove(&entry.key));
    assert_eq!(table.find(&entry.key), None);
}

#[test]
fn a_neighbour_with_another_mac_is_absent_for_a_moment_and_never_mixed() {
    let key = Key::neighbour(Addr::v4(u32::from_ne_bytes([10, 0, 0, 9])), 3).unwrap();
    let [old, new] = [[1; 12], [2; 12]].map(|macs| NeighbourEntry { key, macs });
    let region = Region::on_heap("NEIGHBOURS", SIZE);
    let mut table = TwoChoice::new(region.clone(), Grace::None);
    table.put(&old).unwrap();
    let view = TwoChoice::<NeighbourEntry>::new(region, Grace::None);
    let look = move || {
        if let Some((_, seen)) = view.find(&key) {
            assert!(seen == old || seen == new, "{seen:?}");
        }
    };
    while_observed(look, || table.put(&new)).unwrap();
    assert_eq!(table.find(&key).map(|(_, e)| e), Some(new));
}
