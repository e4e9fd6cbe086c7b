//! nginx as a backend: nothing of the system's configuration, everything in a directory that goes with the test.

use crate::agent::PATIENCE;
use lb_userspace::lab::{Namespace, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// A web server in a namespace. It serves files (GET), takes uploads under `/up/` (PUT), and answers `/id` with its name.
pub struct Nginx {
    /// What `/id` answers.
    pub name: String,
    ns: Arc<Namespace>,
    listen: Vec<SocketAddr>,
    directory: TempDir,
    process: Option<Child>,
}

/// A line of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asked.
    pub client: String,
    /// Method and path.
    pub request: String,
    /// Status code.
    pub status: u16,
}

impl Nginx {
    /// Starts one that listens on these addresses, and waits until it does. It ends with the thread that calls this.
    ///
    /// # Panics
    ///
    /// It does not come up.
    #[must_use]
    pub fn start(ns: &Arc<Namespace>, name: &str, listen: &[String]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let listens: String = listen.iter().map(|address| format!("listen {address};")).collect();
        // A connection is never ended by its age or its requests: then tests know who ended it.
        let configuration = format!(
            "daemon off; user root; worker_processes 1; pid {path}/pid; error_log {path}/error.log;
            events {{ worker_connections 4096; }}
            http {{
                log_format seen '$remote_addr $status $request';
                access_log {path}/access.log seen;
                client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;
                uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
                keepalive_timeout 3600s; keepalive_requests 1000000; client_max_body_size 64m;
                server {{
                    {listens}
                    root {path}/www;
                    location = /id {{ return 200 '{name}'; }}
                    location /up/ {{ dav_methods PUT; create_full_put_path on; }}
                }}
            }}"
        );
        std::fs::create_dir(directory.path().join("www")).unwrap();
        std::fs::write(directory.path().join("nginx.conf"), configuration).unwrap();
        let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
        let mut this = Self { name: name.to_owned(), ns: Arc::clone(ns), listen, directory, process: None };
        this.resume();
        this
    }

    /// Starts it again after [`Self::stop`].
    pub fn resume(&mut self) {
        let mut command = self.ns.command("nginx");
        command.arg("-p").arg(self.directory.path()).arg("-c").arg(self.directory.path().join("nginx.conf"));
        command.args(["-e", "stderr"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process =
            Some(command.spawn().unwrap_or_else(|error| panic!("nginx: {error} (`cargo xtask setup`)")));
        for address in &self.listen {
            let answers = || self.ns.run(|| TcpStream::connect(address)).unwrap().is_ok();
            let waited = wait::until("nginx", PATIENCE, answers);
            waited.unwrap_or_else(|error| panic!("{error}: {}", self.read("error.log")));
        }
    }

    /// Ends it at once (SIGTERM is nginx's fast shutdown): its connections are closed.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Its worker ends with it.
            kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGTERM).unwrap();
            process.wait().unwrap();
        }
    }

    /// Puts a file at `/NAME`.
    pub fn put(&self, name: &str, content: &[u8]) {
        std::fs::write(self.www().join(name), content).unwrap();
    }

    /// Its root.
    #[must_use]
    pub fn www(&self) -> PathBuf {
        self.directory.path().join("www")
    }

    /// What it was asked, in order. A request is logged when it is answered, a little after the client has the answer:
    /// see [`until_served`].
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        let line = |line: &str| {
            let mut words = line.splitn(3, ' ').map(str::to_owned);
            let (client, status, request) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
            Some(Request { client, request, status })
        };
        self.read("access.log").lines().filter_map(line).collect()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(file)).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until several servers together have logged this many requests whose line contains `what`, and returns how
/// many each has.
///
/// # Panics
///
/// They never have.
#[track_caller]
pub fn until_served(servers: &[Nginx], what: &str, count: usize) -> Vec<usize> {
    let each = || -> Vec<usize> {
        let of = |server: &Nginx| server.requests().iter().filter(|r| r.request.contains(what)).count();
        servers.iter().map(of).collect()
    };
    let all = wait::until("the access logs", PATIENCE, || each().iter().sum::<usize>() >= count);
    all.unwrap_or_else(|error| panic!("{error}: {count} requests for {what}, not {:?}", each()));
    each()
}
