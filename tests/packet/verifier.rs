//! What the programs cost the verifier and the CPU's caches, against the budgets in `budgets.toml`.
//!
//! Budgets have some room: kernels count differently. A number past its budget is a decision, not an accident: either
//! the change is worth it and the budget is raised (`LB_UPDATE_BUDGETS=1`), or it is not.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use lb_common::abi::names;
use lb_tests::kernel::Kernel;
use lb_tests::require;
use lb_userspace::dataplane::load::switched_off;

/// Budget by name of the number, by name of the program.
type Budgets = BTreeMap<String, BTreeMap<String, u32>>;

/// What the kernel's verifier walks at most (`BPF_COMPLEXITY_LIMIT_INSNS`, include/linux/bpf.h).
const LIMIT: u32 = 1_000_000;
/// Room above what was measured, in percent, when budgets are written.
const ROOM: u32 = 10;

fn measured() -> Budgets {
    let costs = Kernel::open().dataplane.costs().expect("the kernel tells about its programs");
    let of = |cost: &lb_userspace::dataplane::costs::Cost| {
        let verified = cost.verified_instructions.expect("tests run on kernel 5.16 or later");
        BTreeMap::from([
            ("verified_instructions".to_owned(), verified),
            ("translated_bytes".to_owned(), cost.translated_bytes.expect("as above")),
            ("jited_bytes".to_owned(), cost.jited_bytes),
        ])
    };
    costs.iter().map(|cost| (cost.program.to_owned(), of(cost))).collect()
}

/// Each number beside its budget, and whether all are within.
fn compare(measured: &Budgets, budgets: &Budgets) -> (String, bool) {
    let mut table =
        format!("{:<12} {:<22} {:>9} {:>9} {:>6}\n", "program", "number", "measured", "budget", "used");
    let mut within = true;
    for (program, numbers) in measured {
        for (name, value) in numbers {
            let budget =
                budgets.get(program).and_then(|budgets| budgets.get(name)).copied().unwrap_or_default();
            let over = *value > budget;
            within &= !over;
            let used = u64::from(*value) * 100 / u64::from(budget.max(1));
            let mark = if over { "  <- over budget" } else { "" };
            // Writing to a string does not fail.
            let _ = writeln!(table, "{program:<12} {name:<22} {value:>9} {budget:>9} {used:>5}%{mark}");
        }
    }
    (table, within)
}

/// The file that these numbers make, with room.
fn file(measured: &Budgets) -> String {
    let mut text = String::from(
        "# What the programs may cost; tests/packet/verifier.rs compares. To write it anew:\n\
         # LB_UPDATE_BUDGETS=1 cargo test -p lb-tests --test packet verifier\n",
    );
    for (program, numbers) in measured {
        let _ = write!(text, "\n[{program}]\n");
        for (name, value) in numbers {
            let with_room = (value + value * ROOM / 100).next_multiple_of(10);
            let _ = writeln!(text, "{name} = {with_room}");
        }
    }
    text
}

/// Also the first thing that `cargo xtask kernels` runs on a kernel, and reads the marked lines of.
#[test]
fn the_kernel_takes_every_program() {
    if !require::root() {
        return;
    }
    let costs = Kernel::open().dataplane.costs().expect("the kernel tells about its programs");
    let loaded: Vec<_> = costs.iter().map(|cost| cost.program).collect();
    assert_eq!(loaded, names::PROGRAMS);
    for cost in &costs {
        if let Some(instructions) = cost.verified_instructions {
            println!("lb-guest: verified {} {instructions}", cost.program);
        }
    }
    for feature in switched_off() {
        println!("lb-guest: off {feature}");
    }
}

#[test]
fn programs_stay_within_their_budgets() {
    if !require::root() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("budgets.toml");
    let measured = measured();
    if env::var("LB_UPDATE_BUDGETS").is_ok_and(|value| value == "1") {
        fs::write(&path, file(&measured)).expect("the budgets can be written");
    }
    let budgets = fs::read_to_string(&path).expect("budgets.toml is part of the repository");
    let budgets: Budgets = toml::from_str(&budgets).expect("numbers by program");
    let (table, within) = compare(&measured, &budgets);
    println!("{table}");
    assert!(
        within,
        "\n{table}\nMake the program cheaper, or raise the budget and say why in the commit: \
         LB_UPDATE_BUDGETS=1 cargo test -p lb-tests --test packet verifier"
    );
    for (program, numbers) in &budgets {
        assert!(measured.contains_key(program), "budgets.toml names {program}, which is not loaded");
        let verified = numbers.get("verified_instructions").copied().unwrap_or_default();
        assert!(verified <= LIMIT / 2, "{program}: half of what the kernel allows is left to other kernels");
    }
}

#[test]
fn a_number_past_its_budget_is_named() {
    let one = |value| Budgets::from([("lb_x".into(), BTreeMap::from([("jited_bytes".into(), value)]))]);
    assert!(compare(&one(100), &one(100)).1);
    let (table, within) = compare(&one(101), &one(100));
    assert!(!within && table.contains("101       100   101%  <- over budget"), "{table}");
    assert!(!compare(&one(1), &Budgets::new()).1, "a program without a budget is over it");
    let written: Budgets = toml::from_str(&file(&one(1000))).expect("what is written can be read");
    assert_eq!(written, one(1100));
}
