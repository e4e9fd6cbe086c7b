//! The packet tests as one file that runs without libraries, and which of them a guest leaves out.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::{cargo, text};

/// The packages of guests are for this one.
pub(super) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Tests that make no sense in a guest, and why.
pub(super) const LEFT_OUT: [(&str, &str); 4] = [
    ("captures::", "the captures of others are not in the guest"),
    ("flood::a_million_sources", "a million SYNs take too long in an emulator"),
    ("table::", "the documents are not in the guest"),
    ("verifier::programs_stay_within", "budgets are for one kernel"),
];

/// Builds them.
///
/// # Errors
/// When the build fails.
pub(super) fn build() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["test", "--package", "lb-tests", "--test", "packet", "--no-run", "--target", TARGET]);
    // Every byte of it is copied into the guest's memory.
    build.args(["--config", "profile.dev.debug=false", "--config", "profile.dev.strip=\"symbols\""]);
    build.args(["--message-format", "json-render-diagnostics"]);
    build.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    build.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    build.stderr(std::process::Stdio::inherit());
    let output = build.output().with_context(|| format!("cannot start `{}`", text(&build)))?;
    if !output.status.success() {
        bail!("the packet tests do not build: `{}` failed ({})", text(&build), output.status);
    }
    executable(&String::from_utf8_lossy(&output.stdout))
        .context("cargo built the packet tests and did not say where they are")
}

/// The file that cargo says it made, of messages in JSON.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tests = messages.filter(|message| message["target"]["name"] == "packet");
    tests.rev().find_map(|message| Some(message["executable"].as_str()?.into()))
}

/// What the tests are started with.
pub(super) fn arguments(filter: Option<&str>) -> Vec<String> {
    let skips = LEFT_OUT.iter().flat_map(|(test, _)| ["--skip", test]);
    filter.into_iter().chain(skips).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_the_packet_tests() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"lb"},"executable":"/a/lb"}
{"reason":"compiler-artifact","target":{"name":"packet"},"executable":"/a/packet-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some("/a/packet-1".into()));
        assert_eq!(executable("nonsense\n"), None);
    }

    #[test]
    fn what_is_left_out_is_left_out() {
        let arguments = arguments(Some("nat"));
        assert_eq!(arguments[0], "nat");
        assert_eq!(arguments.iter().filter(|argument| *argument == "--skip").count(), LEFT_OUT.len());
        assert!(arguments.iter().all(|argument| !argument.contains(char::is_whitespace)));
    }
}
