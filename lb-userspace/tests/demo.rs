//! `lb demo` as people run it: it ends well, and nothing is left, however it ends. Needs root.
//!
//! One test, because only one demonstration can run at a time.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly")]

use lb_userspace::lab::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
    command.arg("demo").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a demonstration could leave: namespaces, pins, files.
fn traces() -> Vec<String> {
    let directories = ["/run/netns", "/sys/fs/bpf", "/run"];
    let names = directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten();
    let names = names.map(|entry| entry.unwrap().path().display().to_string());
    names.filter(|name| name.contains("/lb-demo")).collect()
}

/// Starts one and waits until its agent runs.
fn started() -> Child {
    let child = demo(&["--quick"]).spawn().unwrap();
    let running = || std::fs::exists("/run/lb-demo/lb.sock").unwrap();
    wait::until("the agent's socket", LONG, running).unwrap();
    child
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn the_demonstration_loses_nothing_and_leaves_nothing() {
    let output = demo(&["--quick"]).output().unwrap();
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{error}");
    assert!(text.contains("✓ Nothing was lost but what was on the stopped backend."), "{text}");
    assert!(!text.contains('\x1b'), "colours or cursor movements in a pipe:\n{text}");
    assert_eq!(traces(), Vec::<String>::new());

    let first = started();
    let second = demo(&["--quick"]).output().unwrap();
    assert!(!second.status.success());
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(error.contains("another `lb demo` is running"), "{error}");
    send(&first, Signal::SIGINT);
    let output = first.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    assert_eq!(traces(), Vec::<String>::new());

    let mut killed = started();
    send(&killed, Signal::SIGKILL);
    killed.wait().unwrap();
    assert_ne!(traces(), Vec::<String>::new(), "nobody can clean up after SIGKILL");
    assert!(demo(&["--clean"]).status().unwrap().success());
    assert_eq!(traces(), Vec::<String>::new());
}
