//! What a test needs of the machine. Where it is required (`LB_TEST_REQUIRE=1`, or a CI), a test without it fails.

use std::env;
use std::io::Write;

use nix::unistd::Uid;

/// Whether this thread may load programs and make namespaces. `false`: the test is to return, the reason was printed.
///
/// # Panics
/// Without the right, where tests are required.
#[must_use]
pub fn root() -> bool {
    met(
        Uid::effective().is_root(),
        "root, to load programs and make network namespaces: run the tests with sudo",
    )
}

/// Whether a need is met; see [`root`].
fn met(met: bool, need: &str) -> bool {
    if !met {
        assert!(!required(), "this test needs {need}");
        // Past the capture of a test's output: a skip must be seen.
        let _ = writeln!(std::io::stderr(), "skipped: it needs {need}");
    }
    met
}

fn required() -> bool {
    let is = |name, values: &[&str]| env::var(name).is_ok_and(|value| values.contains(&value.as_str()));
    is("LB_TEST_REQUIRE", &["1"]) || is("CI", &["1", "true"])
}
