//! What a test needs of the machine. Where it is required (`LB_TEST_REQUIRE=1`, or a CI), a test without it fails.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};

/// What loading programs, making namespaces and configuring links takes. CAP_BPF is part of the first one.
const NEEDED: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN];

/// Whether this thread may load programs and make namespaces. `false`: the test is to return, the reason was printed.
///
/// # Panics
/// Without the right, where tests are required.
#[must_use]
pub fn root() -> bool {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let missing: Vec<_> = NEEDED.into_iter().filter(|needed| !has(*needed)).collect();
    let reason = format!("it needs {missing:?} to load programs and make network namespaces: run it as root");
    judge(missing.is_empty(), required(|name| env::var(name).ok()), &reason)
}

/// Whether captures of others' traffic lie beside the repository, or where `LB_TEST_PCAP` says. Where they do.
///
/// # Panics
/// Without them, in a CI: there they are promised. A checkout alone is enough everywhere else.
#[must_use]
pub fn captures() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcap");
    let directory = env::var_os("LB_TEST_PCAP").map_or_else(beside, PathBuf::from);
    let ci = env::var("CI").is_ok_and(|value| value == "1" || value == "true");
    let reason = format!("there are no captures in {}: LB_TEST_PCAP may name others", directory.display());
    judge(directory.is_dir(), ci, &reason).then_some(directory)
}

/// Lets a test run, or says why it does not.
fn judge(met: bool, required: bool, reason: &str) -> bool {
    if !met {
        assert!(!required, "this test is required and cannot run: {reason}");
        // Past the capture of a test's output: a skip must be seen.
        let _ = std::io::stderr().write_all(format!("skipped: {reason}\n").as_bytes());
    }
    met
}

fn required(variable: impl Fn(&str) -> Option<String>) -> bool {
    let on = |name| variable(name).is_some_and(|value| value == "1" || value == "true");
    on("LB_TEST_REQUIRE") || on("CI")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ci_and_the_variable_require() {
        let set = |name: &'static str, value: &'static str| {
            required(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert!(set("LB_TEST_REQUIRE", "1") && set("CI", "true"));
        assert!(!set("LB_TEST_REQUIRE", "0") && !set("CI", "") && !set("HOME", "1"));
    }

    #[test]
    #[should_panic(expected = "cannot run: no reason")]
    fn what_is_required_does_not_pass_by_being_skipped() {
        judge(false, true, "no reason");
    }
}
