//! Inputs to start from, one of each kind, made by code so that they can be read. The corpus holds them as files, beside
//! what was found later; `LB_UPDATE_CORPUS=1` writes them again, as when a balancer's description has changed.

mod balancers;
mod configurations;
mod packets;

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

/// Inputs by their names.
type Seeds = BTreeMap<String, Vec<u8>>;

fn keep(target: &str, seeds: &Seeds) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    if env::var("LB_UPDATE_CORPUS").is_ok_and(|value| value == "1") {
        fs::create_dir_all(&folder).expect("a folder for the corpus");
        for (name, bytes) in seeds {
            fs::write(folder.join(name), bytes).expect("a file of the corpus");
        }
    }
    let differs = |name: &&String| fs::read(folder.join(name)).ok().as_ref() != seeds.get(*name);
    let stale: Vec<_> = seeds.keys().filter(differs).collect();
    assert!(stale.is_empty(), "corpus/{target} has others, LB_UPDATE_CORPUS=1 writes them: {stale:?}");
}

#[test]
fn packets_of_every_kind() {
    keep("parse", &packets::all());
}

#[test]
fn balancers_of_every_kind_with_a_packet_each() {
    keep("decide", &balancers::all());
}

#[test]
fn errors_about_every_flow() {
    keep("embedded", &balancers::errors());
}

#[test]
fn configurations_good_and_bad() {
    keep("config", &configurations::all());
}
