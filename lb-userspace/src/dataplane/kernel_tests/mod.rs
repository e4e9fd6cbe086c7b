//! The data plane against the real kernel. Needs root; every test has its own pins and its own network namespace.

mod attaching;
mod opening;
mod packets;
mod rows;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::{fs, process};

use nix::sched::{CloneFlags, unshare};

use super::pins::{self, Pins};
use super::{Dataplane, OpenError, Opened, Options, Sizes, sys};

/// A directory of pins that is removed, and whatever is attached through it detached.
struct Rig {
    options: Options,
}

impl Rig {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("/sys/fs/bpf/lb-test-{}-{n}", process::id()));
        let sizes = Sizes {
            services: 64,
            ring_lines: 256,
            backends: 64,
            reverse: 64,
            ranges: 16,
            neighbours: 64,
            flows: 8192,
            embryonic: 4096,
            fragments: 1024,
            counters: 64,
            reasons: 16,
        };
        Self { options: Options { pins, sizes, log_drops: false } }
    }

    fn open(&self) -> Result<Opened, OpenError> {
        Dataplane::open(&self.options)
    }

    fn opened(&self) -> Dataplane {
        self.open().expect("the data plane opens").dataplane
    }

    fn pins(&self) -> Pins {
        Pins::new(&self.options.pins)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let pins = self.pins();
        let pass = pins::list(&pins.pass_root()).unwrap_or_default();
        for dir in pass.into_iter().chain([pins.links()]) {
            for link in pins::links(&dir).unwrap_or_default() {
                let _ = sys::link_detach(std::os::fd::AsFd::as_fd(&link.fd));
            }
        }
        let _ = fs::remove_dir_all(pins.pass_root());
        let _ = fs::remove_dir_all(&self.options.pins);
    }
}

/// Runs `test` in a network namespace of its own, which ends with it.
fn in_namespace<R: Send>(test: impl FnOnce() -> R + Send) -> R {
    let alone = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
        test()
    };
    let result = thread::scope(|scope| scope.spawn(alone).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

/// A pair of veths, `a0` and `a1`. Gives the index of `a0`.
fn veth() -> u32 {
    ip("link add a0 type veth peer name a1");
    ip("link set a0 up");
    ip("link set a1 up");
    super::interfaces::index_of("a0").expect("it was just made")
}
