//! Clients: curl and iperf3 as they are, and UDP in a few lines because neither speaks it request by request.

use crate::agent::{PATIENCE, Ran};
use lb_userspace::lab::{Namespace, wait};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes that look like nothing: a shifted or repeated piece does not go unnoticed.
#[must_use]
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64 (Marsaglia 2003): reproducible, which is all that is needed.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}

/// Runs curl and sees that it succeeds. Every transfer is bounded in time.
///
/// # Panics
///
/// It fails.
#[track_caller]
pub fn curl(ns: &Namespace, arguments: &[&str]) -> String {
    let mut command = ns.command("curl");
    let ran = Ran::of(command.args(["-sS", "--fail", "--max-time", "60", "--noproxy", "*"]).args(arguments));
    assert_eq!(ran.code, 0, "curl {} in {}: {}", arguments.join(" "), ns.name(), ran.stderr);
    ran.stdout
}

/// Fetches a page once, and tells whether it came.
#[must_use]
pub fn reaches(ns: &Namespace, url: &str) -> bool {
    let mut command = ns.command("curl");
    Ran::of(command.args(["-sS", "--fail", "--max-time", "3", "--noproxy", "*", url])).code == 0
}

/// An iperf3 server that ends with this value, or with the thread that started it.
pub struct Iperf(Child);

impl Iperf {
    /// Starts it and waits until it listens.
    ///
    /// # Panics
    ///
    /// It does not come up.
    #[must_use]
    pub fn serve(ns: &Namespace, address: &str, port: u16) -> Self {
        let port_text = port.to_string();
        let mut command = ns.command("iperf3");
        command.args(["-s", "-B", address, "-p", &port_text]).stdin(Stdio::null()).stdout(Stdio::null());
        let this =
            Self(command.spawn().unwrap_or_else(|error| panic!("iperf3: {error} (`cargo xtask setup`)")));
        // Not by connecting: a server of one test at a time would take that for one.
        let listening = format!(":{port:04X} 0000");
        wait::until("iperf3 to listen", PATIENCE, || {
            let read = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
            ns.run(|| ["tcp", "tcp6"].into_iter().any(|file| read(file).contains(&listening))).unwrap()
        })
        .unwrap();
        this
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs an iperf3 client and returns the bytes that arrived at the receiver.
///
/// # Panics
///
/// It fails.
#[track_caller]
pub fn iperf(ns: &Namespace, arguments: &[&str]) -> u64 {
    let ran = Ran::of(ns.command("iperf3").args(["-J", "--connect-timeout", "10000"]).args(arguments));
    assert_eq!(ran.code, 0, "iperf3 {} in {}: {}", arguments.join(" "), ns.name(), ran.stdout);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    report["end"]["sum_received"]["bytes"].as_u64().unwrap_or_else(|| panic!("{}", ran.stdout))
}

/// The longest datagram.
const LONGEST: usize = 65_535;

/// Answers datagrams with its name in front of what was asked, until the process ends.
pub struct Echo {
    /// Its name.
    pub name: &'static str,
    asked: Arc<AtomicU64>,
}

impl Echo {
    /// Starts one.
    ///
    /// # Panics
    ///
    /// It cannot listen.
    #[must_use]
    pub fn serve(ns: &Namespace, name: &'static str, at: &str) -> Self {
        let socket = ns.run(|| UdpSocket::bind(at)).unwrap().unwrap();
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut buffer = vec![0; LONGEST];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                counter.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(&[name.as_bytes(), &buffer[..length]].concat(), from);
            }
        });
        Self { name, asked }
    }

    /// How many datagrams it got.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Sends a datagram from a port of its own until it is answered, and returns the answer. UDP may lose; nobody says that
/// it does not.
///
/// # Panics
///
/// No answer comes.
#[track_caller]
pub fn ask(ns: &Namespace, target: &str, question: &[u8]) -> Vec<u8> {
    let target: SocketAddr = target.parse().unwrap();
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = ns.run(|| UdpSocket::bind(any)).unwrap().unwrap();
    socket.connect(target).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = vec![0; LONGEST];
    let mut answer = Vec::new();
    wait::until("an answer to a datagram", PATIENCE, || {
        socket.send(question).is_ok()
            && socket.recv(&mut buffer).is_ok_and(|length| {
                answer = buffer[..length].to_vec();
                true
            })
    })
    .unwrap();
    answer
}
