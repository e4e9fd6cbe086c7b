//! A guest under qemu: started, listened to, and ended in time.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::console::Said;

/// Megabytes: the root file system is in memory too.
const MEMORY: &str = "1024";
/// How often one hears that a guest is still at work.
const BREATH: Duration = Duration::from_secs(60);

/// Boots `kernel` with `initramfs`, copies its console to `log`, and kills it after `limit`.
///
/// # Errors
/// When qemu cannot be started, or the log not be written.
pub(super) fn run(name: &str, kernel: &Path, initramfs: &Path, log: &Path, limit: Duration) -> Result<Said> {
    let mut qemu = Command::new("qemu-system-x86_64");
    // KVM is often not to be had where CI runs, or does not work nested: slow and sure.
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY]);
    qemu.args(["-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot", "-kernel"]).arg(kernel);
    // Older kernels measure the emulated timer while the host is busy, and give up on it.
    let arguments = "console=ttyS0 quiet panic=-1 no_timer_check rdinit=/init";
    qemu.arg("-initrd").arg(initramfs).args(["-append", arguments]);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut qemu = Killed(qemu.spawn().context("cannot start qemu-system-x86_64")?);
    let console = qemu.0.stdout.take().context("qemu without a console")?;
    let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;

    let (send, lines) = channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    let said = listen(name, &lines, log, limit);
    // The reader ends with the console, and the console with qemu.
    drop(qemu);
    let _ = reader.join();
    said
}

/// Reads lines until there are no more, or time is up.
fn listen(name: &str, lines: &Receiver<String>, mut log: File, limit: Duration) -> Result<Said> {
    let start = Instant::now();
    let mut said = Said::default();
    let mut last = String::new();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            said.trouble.push(format!("killed after {} s; last it said: {}", limit.as_secs(), last.trim()));
            return Ok(said);
        }
        match lines.recv_timeout(left.min(BREATH)) {
            Ok(line) => {
                writeln!(log, "{}", line.trim_end()).context("cannot write what the guest says")?;
                let before = (said.release.is_some(), said.loads, said.failed.len());
                said.line(&line);
                if before != (said.release.is_some(), said.loads, said.failed.len()) {
                    eprintln!("kernels: {name}: {}", line.trim());
                }
                if !line.trim().is_empty() {
                    last = line;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("kernels: {name}: {} s, still at work", start.elapsed().as_secs());
            }
            Err(RecvTimeoutError::Disconnected) => {
                if !said.ended {
                    said.trouble.push(format!("it stopped half way; last it said: {}", last.trim()));
                }
                return Ok(said);
            }
        }
    }
}

/// Does not outlive its owner.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
