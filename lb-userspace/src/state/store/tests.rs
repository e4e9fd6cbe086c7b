//! With real files: cut, damaged, missing, left over.

use super::*;
use crate::config::arbitrary::desired;
use crate::model::{Admin, Desired, Health};
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;

fn example() -> State {
    let text = "
[agent]
interfaces = ['eth0', { name = 'eth1', mode = 'native' }]
[[service]]
name = 'web'
listen = 'tcp://192.0.2.10:443'
check = 'http:/healthz'
[[service.backend]]
address = '10.0.0.1:8443'
[[service.backend]]
address = '10.0.0.2:8443'
draining = { until = '2030-01-01T00:00:00Z', remove = true }
";
    let (one, two) = ("10.0.0.1:8443".parse().unwrap(), "10.0.0.2:8443".parse().unwrap());
    let mut state = State::fresh();
    state.desired = crate::config::check(text, "example").unwrap().desired;
    state.health.insert("web".into(), [(one, Health::Up), (two, Health::Down)].into());
    state.announced.insert(("eth0".into(), "192.0.2.10".parse().unwrap()));
    state
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("lb"));
    (directory, store)
}

/// The state in a snapshot.
fn read(bytes: &[u8]) -> Result<State, String> {
    stored::parse(bytes)?.judge()
}

/// Names in the directory that begin so.
fn names(store: &Store, prefix: &str) -> Vec<String> {
    let names = fs::read_dir(&store.directory).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

#[test]
fn nothing_is_a_fresh_state_whose_seed_stays() {
    let (_directory, store) = store();
    let first = store.load().unwrap();
    assert_eq!((&first.state.desired, &first.note), (&Desired::default(), &None));
    assert_eq!(store.load().unwrap(), first);
}

#[test]
fn comes_back_whole_and_private() {
    let (_directory, store) = store();
    let state = example();
    store.save(&state).unwrap();
    assert_eq!(store.load().unwrap(), Loaded { state: state.clone(), note: None });
    let backends = &state.desired.services["web"].backends;
    assert!(
        backends
            .values()
            .any(|backend| matches!(backend.admin, Admin::Draining { until: Some(_), remove: true }))
    );
    assert_eq!(fs::metadata(store.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&store.directory).unwrap().permissions().mode() & 0o777, 0o700);
    store.save(&State { seed: 1, ..state.clone() }).unwrap();
    assert_eq!(read(&fs::read(store.backup_path()).unwrap()), Ok(state));
    assert_eq!(names(&store, "").len(), 2, "no temporary files are left");
}

#[test]
fn what_a_crash_left_behind_does_not_matter() {
    let (_directory, store) = store();
    let state = example();
    store.save(&state).unwrap();
    fs::write(store.directory.join("state.json.tmp"), "half").unwrap();
    fs::hard_link(store.path(), store.directory.join("state.json.bak.tmp")).unwrap();
    store.save(&State { seed: 1, ..state.clone() }).unwrap();
    assert_eq!(store.load().unwrap().state.seed, 1);
}

#[test]
fn cut_at_every_byte() {
    let (_directory, store) = store();
    let good = example();
    let latest = State { seed: good.seed.wrapping_add(1), ..good.clone() };
    store.save(&latest).unwrap();
    let whole = fs::read(store.path()).unwrap();
    // Without its last newline the file is whole.
    for length in 0..whole.len() - 1 {
        assert!(read(&whole[..length]).is_err(), "cut to {length} bytes");
    }
    assert_eq!(read(&whole[..whole.len() - 1]), Ok(latest.clone()));
    // Through the files, at a few lengths: each costs several syncs.
    for length in [0, 1, whole.len() / 2, whole.len() - 2] {
        store.save(&good).unwrap();
        store.save(&latest).unwrap();
        let before = names(&store, "state.json.broken-").len();
        fs::write(store.path(), &whole[..length]).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.state, good);
        let note = loaded.note.unwrap();
        assert!(note.contains("was broken") && note.contains("state.json.broken-"), "{note}");
        assert_eq!(names(&store, "state.json.broken-").len(), before + 1);
        assert_eq!(store.load().unwrap(), Loaded { state: good.clone(), note: None });
    }
}

#[test]
fn a_missing_file_with_a_good_one_beside_it() {
    let (_directory, store) = store();
    let state = example();
    store.save(&state).unwrap();
    fs::rename(store.path(), store.backup_path()).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.state, state);
    assert!(loaded.note.unwrap().contains("is gone"));
}

#[test]
fn a_later_schema_or_an_invalid_configuration_is_not_believed() {
    let (_directory, store) = store();
    let state = example();
    for (from, to, why) in [
        ("\"schema\":2", "\"schema\":3,\"what\":1", "schema 3"),
        ("\"10.0.0.1:8443\"}", "\"192.0.2.10:8443\"}", "own address"),
    ] {
        store.save(&state).unwrap();
        store.save(&state).unwrap();
        let text = fs::read_to_string(store.path()).unwrap();
        assert!(text.contains(from));
        fs::write(store.path(), text.replace(from, to)).unwrap();
        let note = store.load().unwrap().note.unwrap();
        assert!(note.contains(why), "{note}");
    }
}

#[test]
fn a_state_from_before_there_were_journals_is_read() {
    let (_directory, store) = store();
    let state = example();
    store.save(&state).unwrap();
    let text = fs::read_to_string(store.path()).unwrap();
    let name = text.split("\"journal\":").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let text = text.replace("\"schema\":2", "\"schema\":1").replace(&format!("\"journal\":{name},"), "");
    fs::write(store.path(), text).unwrap();
    assert_eq!(store.load().unwrap(), Loaded { state, note: None });
}

#[test]
fn two_broken_files_are_an_error_and_stay_where_they_are() {
    let (_directory, store) = store();
    store.save(&example()).unwrap();
    store.save(&example()).unwrap();
    fs::write(store.path(), "{").unwrap();
    fs::write(store.backup_path(), "").unwrap();
    let error = store.load().unwrap_err().to_string();
    assert!(error.contains("state.json is broken") && error.contains("mv "), "{error}");
    assert!(error.contains("state.json.bak is broken"), "{error}");
    assert_eq!(fs::read_to_string(store.path()).unwrap(), "{");
    fs::remove_file(store.backup_path()).unwrap();
    assert!(store.load().unwrap_err().to_string().contains("state.json.bak does not exist"));
}

#[test]
fn a_directory_that_cannot_be() {
    let (directory, _) = store();
    fs::write(directory.path().join("file"), "").unwrap();
    let error = Store::new(directory.path().join("file/lb")).save(&State::fresh()).unwrap_err().to_string();
    assert!(error.contains("cannot make"), "{error}");
}

proptest! {
    #[test]
    fn any_configuration_comes_back(desired in desired(), seed: u32) {
        let state = State { desired, seed, ..example() };
        prop_assert_eq!(read(&stored::write(&state, "name").unwrap()), Ok(state));
    }
}
