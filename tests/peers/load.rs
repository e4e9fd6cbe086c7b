//! The load: wrk for HTTP, a closed loop of datagrams for UDP, and the processor time that passes meanwhile.
//!
//! Each load is a closed loop: a connection, or a datagram's socket, has one request under way. On a machine that all
//! share, that saturates the processors, and so throughput is the inverse of what a request costs everybody.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_userspace::lab::Namespace;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::cpu;
use crate::network::{ECHO, WEB};

/// Connections of wrk, by two threads; sockets of the datagram load, by one.
const CONNECTIONS: usize = 32;
/// Bytes of a datagram.
const DATAGRAM: usize = 64;
/// After which time a datagram counts as lost, and its socket sends another.
const LOST: Duration = Duration::from_millis(250);

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// A connection for each request.
    Short,
    /// Many requests in a connection.
    KeepAlive,
    /// Datagrams that are echoed.
    Udp,
}

impl Load {
    /// All.
    pub(crate) const ALL: [Self; 3] = [Self::Short, Self::KeepAlive, Self::Udp];
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "HTTP, a connection a request",
            Self::KeepAlive => "HTTP, keep-alive",
            Self::Udp => "UDP echo",
        })
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Median latency, µs.
    pub(crate) p50: f64,
    /// 99th percentile, µs.
    pub(crate) p99: f64,
    /// Processor time of the whole machine a request, µs.
    pub(crate) cpu: f64,
    /// Processor time of the balancer's own processes a request, µs; `None`: it has none.
    pub(crate) process: Option<f64>,
    /// Requests that failed, or datagrams that were lost.
    pub(crate) failed: u64,
    /// Share of the processors that went to processes of others, from 0 to 1.
    pub(crate) others: f64,
}

/// Latencies, and how many requests.
struct Counts {
    answered: u64,
    failed: u64,
    seconds: f64,
    p50: f64,
    p99: f64,
}

/// Puts a load on `targets` for `duration`. `group`: the process group of the balancer.
///
/// # Errors
/// A tool fails, or nothing is answered.
pub(crate) fn run(
    load: Load,
    client: &Namespace,
    targets: &[Ipv4Addr],
    duration: Duration,
    group: Option<u32>,
    home: &Path,
) -> Result<Sample> {
    let before = cpu::Reading::take(group)?;
    let counts = match load {
        Load::Short | Load::KeepAlive => wrk(load, client, targets, duration, home)?,
        Load::Udp => client.run(|| datagrams(targets, duration))??,
    };
    let used = cpu::Reading::take(group)?.since(before);
    ensure!(counts.answered > 0, "no request was answered ({load}, {targets:?})");
    let answered = counts.answered as f64;
    Ok(Sample {
        rate: answered / counts.seconds,
        p50: counts.p50,
        p99: counts.p99,
        cpu: used.machine.as_secs_f64() * 1e6 / answered,
        process: group.map(|_| used.group.as_secs_f64() * 1e6 / answered),
        failed: counts.failed,
        others: used.others,
    })
}

/// Each thread takes one of the targets; the result is one line of JSON.
const SCRIPT: &str = r#"
local targets, count = { TARGETS }, 0
function setup(thread)
  count = count + 1
  thread.addr = wrk.lookup(targets[(count - 1) % #targets + 1], PORT)[1]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.stderr:write(string.format(
    '{"answered":%d,"failed":%d,"micros":%d,"p50":%d,"p99":%d}',
    summary.requests, e.connect + e.read + e.write + e.status + e.timeout,
    summary.duration, latency:percentile(50), latency:percentile(99)))
end
"#;

#[derive(Deserialize)]
struct Wrk {
    answered: u64,
    failed: u64,
    micros: f64,
    p50: f64,
    p99: f64,
}

fn wrk(
    load: Load,
    client: &Namespace,
    targets: &[Ipv4Addr],
    duration: Duration,
    home: &Path,
) -> Result<Counts> {
    let list: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
    let script = home.join("wrk.lua");
    std::fs::write(&script, SCRIPT.replace("TARGETS", &list.join(",")).replace("PORT", &WEB.to_string()))?;
    let first = targets.first().context("nothing to ask")?;
    let mut command = client.command("wrk");
    command.args(["-t", "2", "-c", &CONNECTIONS.to_string(), "-d", &format!("{}s", duration.as_secs())]);
    command.arg("--latency").arg("-s").arg(&script);
    if load == Load::Short {
        command.args(["-H", "Connection: close"]);
    }
    let output = command.arg(format!("http://{first}:{WEB}/page")).output().context("cannot start wrk")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let shown = || format!("wrk ({}): {said}{}", output.status, String::from_utf8_lossy(&output.stdout));
    ensure!(output.status.success(), "{}", shown());
    let Wrk { answered, failed, micros, p50, p99 } = serde_json::from_str(&said).with_context(shown)?;
    Ok(Counts { answered, failed, seconds: micros / 1e6, p50, p99 })
}

/// A socket with one datagram under way.
struct Flow {
    socket: UdpSocket,
    sent: Instant,
    number: u64,
}

impl Flow {
    fn open(target: Ipv4Addr) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((target, ECHO))?;
        socket.set_nonblocking(true)?;
        let mut this = Self { socket, sent: Instant::now(), number: 0 };
        this.ask()?;
        Ok(this)
    }

    fn ask(&mut self) -> Result<()> {
        self.number += 1;
        let mut datagram = [0; DATAGRAM];
        datagram[..8].copy_from_slice(&self.number.to_ne_bytes());
        self.sent = Instant::now();
        self.socket.send(&datagram).context("cannot send a datagram")?;
        Ok(())
    }

    /// Whether the answer to the last datagram is there; answers to those that counted as lost are not counted.
    fn answered(&self) -> Result<bool> {
        let mut buffer = [0; DATAGRAM];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) if length == DATAGRAM && buffer[..8] == self.number.to_ne_bytes() => {
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return Ok(false),
                Err(error) => return Err(error).context("cannot receive a datagram"),
            }
        }
    }
}

/// Whether a read came to nothing because nothing was there.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn datagrams(targets: &[Ipv4Addr], duration: Duration) -> Result<Counts> {
    let choose = targets.iter().copied().cycle().take(CONNECTIONS);
    let mut flows = choose.map(Flow::open).collect::<Result<Vec<_>>>()?;
    let mut latencies = Vec::new();
    let mut failed = 0;
    let start = Instant::now();
    while start.elapsed() < duration {
        let ready: Vec<_> = {
            let mut wanted: Vec<_> =
                flows.iter().map(|flow| PollFd::new(flow.socket.as_fd(), PollFlags::POLLIN)).collect();
            poll(&mut wanted, PollTimeout::try_from(LOST).unwrap_or(PollTimeout::ZERO))?;
            wanted.iter().map(|one| one.any().unwrap_or(false)).collect()
        };
        for (flow, ready) in flows.iter_mut().zip(ready) {
            if ready && flow.answered()? {
                latencies.push(flow.sent.elapsed());
                flow.ask()?;
            } else if flow.sent.elapsed() > LOST {
                failed += 1;
                flow.ask()?;
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |percent: usize| {
        let index = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
        latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    };
    Ok(Counts { answered: latencies.len() as u64, failed, seconds, p50: at(50), p99: at(99) })
}
