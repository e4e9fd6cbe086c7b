//! The agent as a process: how fast it starts and changes, how much memory it takes, what health checks cost.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_common::addr::Addr;
use lb_userspace::dataplane::Sizes;
use lb_userspace::dataplane::maps::Maps;
use lb_userspace::dataplane::pins::Pins;
use lb_userspace::lab::{Namespace, veth, wait};
use lb_userspace::model::{Check, CheckKind, Desired, Health};
use lb_userspace::state::{State, Store};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::control::{LARGE, Values, milliseconds};
use crate::packets::BACKEND_PORT;
use crate::report::Spread;
use crate::world::{Pinned, Setup};

/// How long a start or a stop may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the agent is watched while it checks.
const WATCHED: Duration = Duration::from_secs(10);
/// Starts whose median counts.
const STARTS: usize = 5;
/// Changes that are asked for, and the time between them.
const CHANGES: usize = 40;
const BETWEEN: Duration = Duration::from_millis(70);

/// The balancer's machine, and one that all backends are on.
struct Site {
    balancer: Namespace,
    backends: Namespace,
}

impl Site {
    fn make() -> Result<Self> {
        let balancer = Namespace::create_unique("lb-bench")?;
        let backends = Namespace::create_unique("lb-bench")?;
        veth(&balancer, "lan0", &backends, "eth0")?;
        balancer.address("lan0", "192.168.7.1/24")?;
        backends.address("eth0", "192.168.7.2/24")?;
        // Through a gateway: on the link each backend would need a neighbour entry, and the kernel keeps about 1000.
        balancer.route("10.0.0.0/8", "192.168.7.2")?;
        backends.output("ip", &["route", "add", "local", "10.0.0.0/8", "dev", "lo"])?;
        Ok(Self { balancer, backends })
    }

    /// Accepts connections on every backend for the rest of the process' life, and counts them.
    fn listen(&self) -> Result<Arc<AtomicU64>> {
        let accepted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&accepted);
        let listener = self.backends.run(|| TcpListener::bind(("0.0.0.0", BACKEND_PORT)))??;
        thread::spawn(move || {
            for connection in listener.incoming() {
                drop(connection);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(accepted)
    }
}

/// Where an agent keeps its things.
struct Home {
    directory: tempfile::TempDir,
    pins: Pinned,
    sizes: Sizes,
}

impl Home {
    fn make(desired: Desired, sizes: Sizes) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let health = desired.services.values().map(|service| {
            (service.name.clone(), service.backends.keys().map(|backend| (*backend, Health::Up)).collect())
        });
        let state = State { health: health.collect(), desired, ..State::fresh() };
        Store::new(directory.path()).save(&state)?;
        Ok(Self { directory, pins: Pinned::fresh(), sizes })
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("lb.sock")
    }

    /// Starts an agent and waits until it answers. The milliseconds that took.
    fn start(&self, lb: &Path, balancer: &Namespace) -> Result<(Agent, f64)> {
        let mut command = balancer.command(lb);
        command.arg("agent").arg("--state").arg(self.directory.path()).arg("--pins").arg(self.pins.path());
        command.arg("--socket").arg(self.socket());
        for (table, entries) in self.sizes.by_name() {
            command.arg("--table").arg(format!("{table}={entries}"));
        }
        let log = fs::File::create(self.directory.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let start = Instant::now();
        let mut agent = Agent(command.spawn().with_context(|| format!("cannot start {}", lb.display()))?);
        let answers = || agent.0.try_wait().is_ok_and(|ended| ended.is_some()) || answers(&self.socket());
        wait::until("an answer of the agent", PATIENCE, answers)?;
        let took = milliseconds(start);
        let log = fs::read_to_string(self.directory.path().join("log"))?;
        ensure!(agent.0.try_wait()?.is_none(), "the agent ended:\n{log}");
        Ok((agent, took))
    }
}

/// Asks the agent for something, and waits for its status.
fn ask(socket: &Path, request: &str) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{request} HTTP/1.1\r\nHost: lb\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    ensure!(&status == b"HTTP/1.1 200", "{request}: {}", String::from_utf8_lossy(&status));
    Ok(stream)
}

/// Whether the agent serves requests: the socket is there earlier, but who asks has to wait.
fn answers(socket: &Path) -> bool {
    ask(socket, "GET /v1/services").is_ok()
}

/// The rest of an answer.
fn rest(mut stream: UnixStream) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// A running agent.
struct Agent(Child);

impl Agent {
    /// Its anonymous memory, MiB: tables are mapped from the kernel and are not counted there.
    fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib: f64 = line.and_then(|l| l.split_whitespace().next()).context("no RssAnon")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// CPU time that it has used, seconds.
    fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // Fields after the name in brackets begin with the third: proc_pid_stat(5).
        let rest = stat.rsplit_once(')').context("an unknown format of /proc/PID/stat")?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
        Ok(ticks / per_second as f64)
    }

    fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM)?;
        wait::until("the agent's end", PATIENCE, || self.0.try_wait().is_ok_and(|ended| ended.is_some()))?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures starts of an agent that adopts a thousand services with a hundred backends each, and its memory.
pub(crate) fn start(values: &mut Values, lb: &Path) -> Result<()> {
    let site = Site::make()?;
    let home = Home::make(LARGE.desired(), LARGE.sizes())?;
    let (first, fresh) = home.start(lb, &site.balancer)?;
    first.stop()?;
    let (mut times, mut memory) = (Vec::new(), 0.0);
    for _ in 0..STARTS {
        let (agent, took) = home.start(lb, &site.balancer)?;
        times.push(took);
        memory = agent.memory()?;
        agent.stop()?;
    }
    let (agent, _) = home.start(lb, &site.balancer)?;
    let begin = Instant::now();
    let bytes = rest(ask(&home.socket(), "GET /v1/services")?)?.len();
    ensure!(bytes > 1_000_000, "a list of all backends has {bytes} bytes");
    values.insert("all services of 1000 x 100 listed, ms".into(), milliseconds(begin));
    changes(values, &home, &agent)?;
    agent.stop()?;
    values.insert("agent start, 1000 x 100, tables empty, ms".into(), fresh);
    values.insert("agent start, 1000 x 100, tables adopted, ms".into(), Spread::of(times).median);
    values.insert("agent memory, 1000 x 100, MiB".into(), memory);
    Ok(())
}

/// Measures changes of one backend from an operator's request to the agent's answer: in between the state is saved, and
/// the kernel's tables hold the change, which is looked at after each.
fn changes(values: &mut Values, home: &Home, agent: &Agent) -> Result<()> {
    let (name, backend) = ("service-500", LARGE.family.backend(500, 0));
    let maps = Maps::new(Pins::new(home.pins.path()));
    let listen = Addr::from(LARGE.family.service(500));
    let installed = maps.services()?.into_iter().find(|entry| entry.key.addr == listen);
    let installed = installed.context("the kernel does not know the service")?;
    let block = installed.backends as usize..(installed.backends + installed.capacity) as usize;
    let selectable = || -> Result<bool> {
        let all = maps.backends()?;
        let entry = all[block.clone()].iter().find(|b| b.generation != 0 && b.addr == backend.ip().into());
        Ok(entry.context("the kernel does not know the backend")?.selectable())
    };
    let mut times = Vec::new();
    for round in 0..CHANGES {
        let drain = round % 2 == 0;
        let verb = if drain { "drain" } else { "undrain" };
        let begin = Instant::now();
        let answer =
            rest(ask(&home.socket(), &format!("POST /v1/services/{name}/backends/{backend}/{verb}"))?)?;
        times.push(milliseconds(begin));
        ensure!(selectable()? != drain, "the kernel does not see: {}", String::from_utf8_lossy(&answer));
        // Like an operator: the ticks of the agent, with all that it does in them, come in between.
        thread::sleep(BETWEEN);
    }
    let slowest = times.iter().copied().fold(0.0, f64::max);
    values.insert("one backend of 1000 x 100 changed by a request, ms".into(), Spread::of(times).median);
    values.insert("one backend of 1000 x 100 changed by a request, slowest, ms".into(), slowest);
    values.insert("agent memory, 1000 x 100, after lists and changes, MiB".into(), agent.memory()?);
    Ok(())
}

/// Measures what checking ten thousand backends every two seconds costs.
pub(crate) fn checks(values: &mut Values, lb: &Path) -> Result<()> {
    let site = Site::make()?;
    let accepted = site.listen()?;
    let setup = Setup { services: 100, ..LARGE };
    let mut desired = setup.desired();
    for service in desired.services.values_mut() {
        Arc::make_mut(service).check = Some(Check::new(CheckKind::Tcp));
    }
    let backends: usize = desired.services.values().map(|service| service.backends.len()).sum();
    let home = Home::make(desired, setup.sizes())?;
    let (agent, _) = home.start(lb, &site.balancer)?;
    let first_round = || accepted.load(Ordering::Relaxed) >= backends as u64;
    wait::until("a check of every backend", PATIENCE, first_round)?;
    let (begin, checks, cpu) = (Instant::now(), accepted.load(Ordering::Relaxed), agent.cpu()?);
    thread::sleep(WATCHED);
    let seconds = begin.elapsed().as_secs_f64();
    let checks = (accepted.load(Ordering::Relaxed) - checks) as f64 / seconds;
    let cpu = (agent.cpu()? - cpu) / seconds;
    agent.stop()?;
    values.insert("10000 TCP checks every 2 s, cores".into(), cpu);
    values.insert("10000 TCP checks every 2 s, checks a second".into(), checks);
    Ok(())
}
