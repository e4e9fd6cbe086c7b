//! The ways from client to backends that are compared. Each is set up before its turn and taken down after it.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lb_userspace::lab::{Namespace, wait};
use serde::Serialize;

use crate::load::Load;
use crate::network::{BACKENDS, ECHO, INTERFACES, LB_VIP, Network, PREFIX, VIP, WEB};
use crate::servers::{PATIENCE, Process, nginx};

/// Where BPF things are pinned.
const PINS: &str = "/sys/fs/bpf";
/// Where Debian has the module of nginx; where it is not, it is part of nginx.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
/// Answers in a row that make a way ready.
const IN_A_ROW: u32 = 8;

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// The client asks the backends by their addresses: the kernel forwards.
    Forwarding,
    /// The same with `lb pass` at the four ends where `lb` has a program: what native XDP costs here by itself.
    ForwardingXdp,
    /// `lb`, native XDP, `nat`.
    Lb,
    /// Destination NAT by nftables.
    Nftables,
    /// HAProxy, TCP mode.
    Haproxy,
    /// nginx, `stream`.
    NginxStream,
}

impl Way {
    /// All, in the order of a round.
    pub(crate) const ALL: [Self; 6] =
        [Self::Forwarding, Self::ForwardingXdp, Self::Lb, Self::Nftables, Self::Haproxy, Self::NginxStream];

    /// Whether it can carry a load: HAProxy knows no UDP.
    pub(crate) fn carries(self, load: Load) -> bool {
        !(self == Self::Haproxy && load == Load::Udp)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forwarding => "plain forwarding",
            Self::ForwardingXdp => "plain forwarding, lb pass",
            Self::Lb => "lb",
            Self::Nftables => "nftables DNAT",
            Self::Haproxy => "HAProxy",
            Self::NginxStream => "nginx stream",
        })
    }
}

/// A way that is set up. Dropping it takes it down; the processes first.
pub(crate) struct Turn<'a> {
    /// What the client asks.
    pub(crate) targets: Vec<Ipv4Addr>,
    process: Option<Process>,
    /// The way's process is a balancer, not something that only manages one.
    in_the_way: bool,
    way: Way,
    network: &'a Network,
}

impl<'a> Turn<'a> {
    /// Sets it up, and waits until everything is answered.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) fn start(way: Way, network: &'a Network, lb: &Path, home: &Path) -> Result<Self> {
        let targets = match way {
            Way::Forwarding | Way::ForwardingXdp => BACKENDS.to_vec(),
            Way::Lb => vec![LB_VIP],
            Way::Nftables | Way::Haproxy | Way::NginxStream => vec![VIP],
        };
        let in_the_way = matches!(way, Way::Haproxy | Way::NginxStream);
        let mut this = Self { targets, process: None, in_the_way, way, network };
        let log = home.join("way.log");
        match way {
            Way::Forwarding => {}
            Way::ForwardingXdp => {
                for (machine, link) in network.ends() {
                    pass(lb, machine, link)?;
                }
            }
            Way::Lb => this.process = Some(start_lb(network, lb, home, &log)?),
            Way::Nftables => nftables(&network.balancer, home)?,
            Way::Haproxy => this.process = Some(haproxy(&network.balancer, home, &log)?),
            Way::NginxStream => this.process = Some(nginx_stream(&network.balancer, home)?),
        }
        this.answered(&log).with_context(|| format!("{way} is not ready"))?;
        Ok(this)
    }

    /// The processes that carry the traffic.
    pub(crate) fn group(&self) -> Option<u32> {
        self.process.as_ref().filter(|_| self.in_the_way).map(Process::group)
    }

    /// Waits until every target answers again and again: neighbours are known, the last backend is in.
    fn answered(&mut self, log: &Path) -> Result<()> {
        let (client, targets, udp) = (&self.network.client, &self.targets, self.way.carries(Load::Udp));
        let mut row = 0;
        let answers = || {
            let all = client.run(|| targets.iter().all(|target| answers(*target, udp)));
            row = if all.unwrap_or(false) { row + 1 } else { 0 };
            row >= IN_A_ROW
        };
        match &mut self.process {
            Some(process) => process.until("answers", log, answers),
            None => wait::until("answers", PATIENCE, answers).map_err(Into::into),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.process = None;
        if self.way == Way::Nftables
            && let Err(error) = self.network.balancer.output("nft", &["flush", "ruleset"])
        {
            eprintln!("{error:#}");
        }
        if let Err(error) = remove_pins() {
            eprintln!("{error:#}");
        }
    }
}

/// Removes all pins of this program, and with them the programs from their interfaces.
///
/// # Errors
/// They cannot be removed.
pub(crate) fn remove_pins() -> Result<()> {
    for entry in fs::read_dir(PINS).with_context(|| format!("cannot read {PINS}"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether a target accepts a connection, and answers a datagram.
fn answers(target: Ipv4Addr, udp: bool) -> bool {
    let timeout = Duration::from_millis(500);
    let tcp = TcpStream::connect_timeout(&(target, WEB).into(), timeout).is_ok();
    let echo = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((target, ECHO))?;
        socket.set_read_timeout(Some(timeout))?;
        socket.send(b"ready?")?;
        socket.recv(&mut [0; 16])
    };
    tcp && (!udp || echo().is_ok())
}

fn pins(machine: &Namespace) -> PathBuf {
    // Indexes of interfaces repeat in other namespaces, so each has its own directory.
    Path::new(PINS).join(format!("{}-ends", machine.name()))
}

/// `lb pass`: lets frames through, and makes the driver take redirected ones.
fn pass(lb: &Path, machine: &Namespace, link: &str) -> Result<()> {
    run(machine, lb, &["pass", link, "--pins", &pins(machine).display().to_string()])
}

fn run(machine: &Namespace, lb: &Path, arguments: &[&str]) -> Result<()> {
    machine.output(&lb.display().to_string(), arguments).map(drop)
}

fn start_lb(network: &Network, lb: &Path, home: &Path, log: &Path) -> Result<Process> {
    // Nothing from an earlier turn.
    let fresh = tempfile::tempdir_in(home)?.keep();
    let [socket, state] = ["lb.sock", "state"].map(|name| fresh.join(name).display().to_string());
    let balancer = &network.balancer;
    let pinned = format!("{PINS}/{PREFIX}");
    let mut command = balancer.command(lb);
    command.args(["agent", "--socket", &socket, "--state", &state, "--pins", &pinned]);
    let mut agent = Process::start(command, log)?;
    let tool = |arguments: &[&str]| run(balancer, lb, &[&["--socket", &socket], arguments].concat());
    agent.until("the agent to answer", log, || tool(&["status"]).is_ok())?;
    let [front, back] = INTERFACES;
    tool(&["attach", front, back, "--mode", "native"])?;
    pass(lb, &network.client, "eth0")?;
    pass(lb, &network.switch, "lb")?;
    for (name, scheme, port) in [("web", "tcp", WEB), ("echo", "udp", ECHO)] {
        let listen = format!("{scheme}://{LB_VIP}:{port}");
        let [first, second] = BACKENDS.map(|backend| backend.to_string());
        tool(&[
            "service",
            "add",
            name,
            &listen,
            "--check",
            "none",
            "--backend",
            &first,
            "--backend",
            &second,
        ])?;
    }
    Ok(agent)
}

fn nftables(machine: &Namespace, home: &Path) -> Result<()> {
    let [first, second] = BACKENDS;
    let rules = format!(
        "table ip peers {{
            chain prerouting {{
                type nat hook prerouting priority dstnat; policy accept;
                ip daddr {VIP} tcp dport {WEB} dnat to numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }}
                ip daddr {VIP} udp dport {ECHO} dnat to numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }}
            }}
        }}"
    );
    let file = home.join("nat.nft");
    fs::write(&file, rules)?;
    machine.output("nft", &["-f", &file.display().to_string()]).map(drop)
}

fn haproxy(machine: &Namespace, home: &Path, log: &Path) -> Result<Process> {
    let [first, second] = BACKENDS;
    let threads = std::thread::available_parallelism()?;
    let file = home.join("haproxy.cfg");
    fs::write(
        &file,
        format!(
            "global
    nbthread {threads}
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen web
    bind {VIP}:{WEB} backlog 4096
    balance roundrobin
    server b1 {first}:{WEB}
    server b2 {second}:{WEB}
"
        ),
    )?;
    let mut command = machine.command("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    Process::start(command, log)
}

fn nginx_stream(machine: &Namespace, home: &Path) -> Result<Process> {
    let module = Path::new(STREAM_MODULE);
    let module = if module.exists() { format!("load_module {STREAM_MODULE};") } else { String::new() };
    let [first, second] = BACKENDS;
    let threads = std::thread::available_parallelism()?;
    let blocks = format!(
        "{module} worker_processes {threads}; events {{ worker_connections 4096; }}
        stream {{
            access_log off;
            upstream web {{ server {first}:{WEB}; server {second}:{WEB}; }}
            upstream echo {{ server {first}:{ECHO}; server {second}:{ECHO}; }}
            server {{ listen {VIP}:{WEB} reuseport backlog=4096; proxy_pass web; }}
            server {{ listen {VIP}:{ECHO} udp reuseport; proxy_pass echo; proxy_timeout 10s; }}
        }}"
    );
    nginx(machine, home, "stream", &blocks)
}
