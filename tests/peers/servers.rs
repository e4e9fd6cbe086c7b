//! What answers: nginx for HTTP, a thread for datagrams. The same during all ways.

use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_userspace::lab::{Namespace, wait};

use crate::network::{BACKENDS, ECHO, Network, WEB};

/// How long anything may take that is a matter of a moment.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How often an idle echo looks whether it is to end.
const IDLE: Duration = Duration::from_millis(100);
/// What is fetched, bytes: about what one small answer of an API has, and less than a packet.
pub(crate) const PAGE: usize = 1024;

/// A process that ends with this value, its children too.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it, with what it says in `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let program = command.get_program().to_string_lossy().into_owned();
        command
            .spawn()
            .map(Self)
            .with_context(|| format!("cannot start {program}: run `cargo xtask bench --peers`"))
    }

    /// Its process group, which is its own (see [`Namespace::command`]).
    pub(crate) fn group(&self) -> u32 {
        self.0.id()
    }

    /// Waits until `condition` holds; says what the process said if it ends before, or never comes to it.
    ///
    /// # Errors
    /// See above.
    pub(crate) fn until(
        &mut self,
        what: &str,
        log: &Path,
        mut condition: impl FnMut() -> bool,
    ) -> Result<()> {
        let said = || fs::read_to_string(log).unwrap_or_default();
        let ended = |child: &mut Child| child.try_wait().is_ok_and(|status| status.is_some());
        wait::until(what, PATIENCE, || ended(&mut self.0) || condition()).with_context(said)?;
        ensure!(!ended(&mut self.0), "waited for {what}, but the process ended:\n{}", said());
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The whole group: workers of nginx would outlive their master's SIGKILL.
        if let Ok(group) = i32::try_from(self.0.id()) {
            let _ = nix::sys::signal::killpg(
                nix::unistd::Pid::from_raw(group),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let _ = self.0.wait();
    }
}

/// nginx with a configuration of its own.
///
/// # Errors
/// It cannot be started.
pub(crate) fn nginx(machine: &Namespace, home: &Path, name: &str, blocks: &str) -> Result<Process> {
    let path = home.join(name);
    fs::create_dir_all(path.join("www"))?;
    fs::write(path.join("www/page"), vec![b'x'; PAGE])?;
    let file = path.join("nginx.conf");
    fs::write(&file, format!("daemon off; user root; pid {}/pid;\n{blocks}", path.display()))?;
    let mut command = machine.command("nginx");
    command.arg("-p").arg(&path).arg("-c").arg(&file).args(["-e", "stderr"]);
    Process::start(command, &path.join("log"))
}

/// Every server. Dropping it stops them.
pub(crate) struct Servers {
    _web: Vec<Process>,
    stop: Arc<AtomicBool>,
    echoes: Vec<JoinHandle<Result<()>>>,
}

impl Servers {
    /// Starts them, and waits until they answer.
    ///
    /// # Errors
    /// One does not.
    pub(crate) fn start(network: &Network, home: &Path) -> Result<Self> {
        let mut this = Self { _web: Vec::new(), stop: Arc::default(), echoes: Vec::new() };
        for (number, (machine, address)) in network.backends.iter().zip(BACKENDS).enumerate() {
            let name = format!("backend{number}");
            let blocks = format!(
                "worker_processes 1; events {{ worker_connections 4096; }}
                http {{
                    access_log off; keepalive_requests 1000000000; sendfile on; tcp_nopush on;
                    open_file_cache max=10;
                    server {{ listen {address}:{WEB} backlog=4096; root {}/www; }}
                }}",
                home.join(&name).display()
            );
            let mut server = nginx(machine, home, &name, &blocks)?;
            let answers = || machine.run(|| TcpStream::connect((address, WEB)).is_ok()).unwrap_or(false);
            server.until("nginx to listen", &home.join(&name).join("log"), answers)?;
            this._web.push(server);

            let socket = machine.run(|| UdpSocket::bind((address, ECHO)))??;
            socket.set_read_timeout(Some(IDLE))?;
            let stop = Arc::clone(&this.stop);
            this.echoes.push(std::thread::spawn(move || echo(&socket, &stop)));
        }
        Ok(this)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for echo in self.echoes.drain(..) {
            if let Ok(Err(error)) = echo.join() {
                eprintln!("an echo ended: {error:#}");
            }
        }
    }
}

/// Sends every datagram back until it is told to stop.
fn echo(socket: &UdpSocket, stop: &AtomicBool) -> Result<()> {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                socket.send_to(&buffer[..length], from)?;
            }
            Err(error) if crate::load::is_timeout(&error) => {}
            Err(error) => return Err(error).context("cannot receive datagrams"),
        }
    }
    Ok(())
}
