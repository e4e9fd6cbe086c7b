//! Histories of changes, with the machine stopping at every byte.

use super::*;
use crate::config::arbitrary::desired;
use crate::model::Health;
use crate::state::Loaded;
use proptest::prelude::*;
use std::fs;

/// One history in a directory of its own.
struct Lab {
    directory: tempfile::TempDir,
    saved: Saved,
}

fn lab() -> Lab {
    let directory = tempfile::tempdir().unwrap();
    let saved = Saved::new(Store::new(directory.path()));
    Lab { directory, saved }
}

impl Lab {
    fn store(&self) -> Store {
        Store::new(self.directory.path())
    }

    fn load(&self) -> Loaded {
        self.store().load().unwrap()
    }

    fn journals(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.display().to_string().contains(".journal-")).collect()
    }

    /// The journal of the snapshot that is there.
    fn journal(&self) -> PathBuf {
        let name = self.store().name().unwrap();
        self.journals().into_iter().find(|path| path.display().to_string().ends_with(&name)).unwrap()
    }
}

fn state(desired: Desired) -> State {
    State { desired, seed: 7, ..State::fresh() }
}

fn with_services(count: u8) -> State {
    let service = |n: u8| {
        format!(
            "[[service]]\nname = 's{n}'\nlisten = 'tcp://192.0.2.{n}:80'\ncheck = 'tcp'\n[[service.backend]]\naddress = '10.0.0.{n}:80'\n"
        )
    };
    let text: String = (1..=count).map(service).collect();
    state(crate::config::check(&text, "example").unwrap().desired)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What was saved last is what is loaded, whatever came before.
    #[test]
    fn every_history_comes_back(history in proptest::collection::vec((desired(), 0_u8..4), 1..6)) {
        let mut lab = lab();
        let mut before = None;
        for (desired, what) in history {
            let mut next = state(desired);
            if let (0, Some(before)) = (what, &before) {
                // Only health changes.
                next = State::clone(before);
            }
            for service in next.desired.services.values() {
                let known = service.backends.keys().map(|backend| (*backend, Health::Down)).collect::<std::collections::BTreeMap<_, _>>();
                if what != 1 && !known.is_empty() {
                    next.health.insert(service.name.clone(), known);
                    lab.saved.health_changed(&service.name);
                }
            }
            if what == 2 {
                next.announced.insert(("eth0".into(), IpAddr::from([192, 0, 2, 1])));
            }
            if what == 3 {
                lab.saved.begin_anew();
            }
            lab.saved.save(&next).unwrap();
            prop_assert_eq!(lab.load(), Loaded { state: next.clone(), note: None });
            before = Some(next);
        }
        prop_assert!(lab.journals().len() <= 2);
    }
}

#[test]
fn a_change_costs_a_line_and_nothing_costs_nothing() {
    let mut lab = lab();
    lab.saved.save(&with_services(200)).unwrap();
    let snapshot = fs::read(lab.store().path()).unwrap();
    lab.saved.save(&with_services(200)).unwrap();
    let empty = fs::metadata(lab.journal()).unwrap().len();
    assert!(empty <= 17, "{empty}");
    lab.saved.save(&with_services(201)).unwrap();
    assert_eq!(fs::read(lab.store().path()).unwrap(), snapshot, "the snapshot stays");
    assert!(fs::metadata(lab.journal()).unwrap().len() < empty + 300);
    assert_eq!(lab.load().state, with_services(201));
}

#[test]
fn a_line_that_was_cut_was_never_saved() {
    let mut lab = lab();
    lab.saved.save(&with_services(1)).unwrap();
    lab.saved.save(&with_services(2)).unwrap();
    let two = fs::metadata(lab.journal()).unwrap().len() as usize;
    lab.saved.save(&with_services(3)).unwrap();
    let journal = lab.journal();
    let whole = fs::read(&journal).unwrap();
    for length in two..whole.len() {
        for rest in [&b""[..], b"\0\0\0"] {
            fs::write(&journal, [&whole[..length], rest].concat()).unwrap();
            assert_eq!(lab.load(), Loaded { state: with_services(2), note: None }, "cut to {length} bytes");
        }
    }
    fs::write(&journal, &whole).unwrap();
    assert_eq!(lab.load().state, with_services(3));
    // One in the middle that is broken is no cut.
    let mut broken = whole.clone();
    broken[two - 5] ^= 1;
    fs::write(&journal, broken).unwrap();
    let loaded = lab.load();
    assert_eq!(loaded.state, with_services(1));
    assert!(loaded.note.unwrap().contains("changes after it are missing"));
}

#[test]
fn a_snapshot_that_broke_costs_no_change_that_was_saved() {
    let mut lab = lab();
    lab.saved.save(&with_services(1)).unwrap();
    lab.saved.save(&with_services(2)).unwrap();
    lab.saved.begin_anew();
    lab.saved.save(&with_services(2)).unwrap();
    lab.saved.save(&with_services(4)).unwrap();
    fs::write(lab.store().path(), "{").unwrap();
    let loaded = lab.load();
    assert_eq!(loaded.state, with_services(4));
    assert!(loaded.note.unwrap().contains("was broken"));
    assert_eq!(lab.load(), Loaded { state: with_services(4), note: None });
}

#[test]
fn a_journal_that_cannot_be_written_is_not_believed() {
    let mut lab = lab();
    lab.saved.save(&with_services(1)).unwrap();
    // As if the disk were full: a file that refuses to be written.
    let open = lab.saved.open.as_mut().unwrap();
    open.file = File::open(&open.path).unwrap();
    let error = lab.saved.save(&with_services(2)).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains(".journal-"), "{error}");
    assert_eq!(lab.load().state, with_services(1));
    lab.saved.save(&with_services(3)).unwrap();
    assert_eq!(lab.load(), Loaded { state: with_services(3), note: None });
}

#[test]
fn a_long_journal_is_ended() {
    let mut lab = lab();
    lab.saved.save(&with_services(1)).unwrap();
    assert!(!lab.saved.is_long());
    lab.saved.open.as_mut().unwrap().length = LONG + 1;
    assert!(lab.saved.is_long());
    lab.saved.save(&with_services(2)).unwrap();
    assert!(lab.saved.is_long(), "a change that somebody waits for is appended");
    lab.saved.open.as_mut().unwrap().length = MUCH_TOO_LONG * LONG + 1;
    lab.saved.save(&with_services(3)).unwrap();
    assert!(!lab.saved.is_long());
    assert_eq!(lab.load().state, with_services(3));
}
