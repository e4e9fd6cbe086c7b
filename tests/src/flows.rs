//! Connections that live long, and a stream of short ones: what must survive while a balancer is changed.
//!
//! Both speak HTTP/1.1 to [`crate::nginx::Nginx`], whose `/id` says which backend answered: an answer from another
//! backend than before is as broken as none. A socket belongs to the namespace that it was made in, so any thread may
//! use it afterwards.

use crate::agent::PATIENCE;
use lb_userspace::lab::Namespace;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Connections that stay open.
#[derive(Default)]
pub struct Herd(Vec<(TcpStream, String)>);

impl Herd {
    /// Opens connections and asks each once.
    ///
    /// # Panics
    ///
    /// One cannot be opened, or gets no answer.
    #[track_caller]
    #[must_use]
    pub fn open(ns: &Namespace, target: &str, count: usize) -> Self {
        let target: SocketAddr = target.parse().unwrap();
        let connect = |_| {
            let mut stream = connect(target)?;
            ask(&mut stream)?;
            let name = answer(&mut stream)?;
            Ok((stream, name))
        };
        let opened: io::Result<Vec<_>> = ns.run(|| (0..count).map(connect).collect()).unwrap();
        Self(opened.unwrap_or_else(|error| panic!("a new connection to {target}: {error}")))
    }

    /// How many each backend has.
    #[must_use]
    pub fn shares(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for (_, name) in &self.0 {
            *shares.entry(name.clone()).or_default() += 1;
        }
        shares
    }

    /// Asks every connection again. Those that fail, or whose backend is another one, are closed and counted by the
    /// backend that they had.
    pub fn ask(&mut self) -> BTreeMap<String, usize> {
        let mut broken = BTreeMap::new();
        // First all questions, then all answers: as long as the slowest, not as their sum.
        let asked: Vec<_> =
            self.0.drain(..).map(|(mut stream, name)| (ask(&mut stream), stream, name)).collect();
        for (asked, mut stream, name) in asked {
            match asked.and_then(|()| answer(&mut stream)) {
                Ok(now) if now == name => self.0.push((stream, name)),
                _ => *broken.entry(name).or_default() += 1,
            }
        }
        broken
    }

    /// Asks every connection again and sees that none is broken.
    ///
    /// # Panics
    ///
    /// One is.
    #[track_caller]
    pub fn assert_whole(&mut self) {
        let before = self.0.len();
        let broken = self.ask();
        assert!(broken.is_empty(), "of {before} connections these are broken, by backend: {broken:?}");
    }

    /// Closes the connections of a backend.
    pub fn close(&mut self, backend: &str) {
        self.0.retain(|(_, name)| name != backend);
    }
}

/// One connection after another, each asked once, until it is told to end.
pub struct Stream {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<Vec<String>>>,
}

impl Stream {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// No thread can be started.
    #[must_use]
    pub fn start(ns: &Namespace, target: &str) -> Self {
        let target: SocketAddr = target.parse().unwrap();
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&answered));
        let work = move || {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let asked = connect(target).and_then(|mut stream| {
                    ask(&mut stream)?;
                    answer(&mut stream)
                });
                match asked {
                    Ok(_) => drop(counter.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => failures.push(error.to_string()),
                }
            }
            failures
        };
        Self { stop, answered, thread: ns.spawn("short connections", work).unwrap() }
    }

    /// How many were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until this many more are answered.
    #[track_caller]
    pub fn until_more(&self, count: u64) {
        let goal = self.answered() + count;
        lb_userspace::lab::wait::until("short connections", PATIENCE, || self.answered() >= goal).unwrap();
    }

    /// Ends it and returns why connections failed.
    #[must_use]
    pub fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap()
    }
}

/// Opens connections one after another, each closed at once, and returns which backend answered how often.
///
/// # Panics
///
/// One fails.
#[track_caller]
pub fn count(ns: &Namespace, target: &str, connections: usize) -> BTreeMap<String, usize> {
    let mut herd = Herd::default();
    let mut counted = BTreeMap::new();
    for _ in (0..connections).step_by(100) {
        herd = Herd::open(ns, target, 100);
        for (name, count) in herd.shares() {
            *counted.entry(name).or_default() += count;
        }
    }
    drop(herd);
    counted
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"GET /id HTTP/1.1\r\nHost: lb\r\n\r\n")
}

/// Reads one answer and returns its body.
fn answer(stream: &mut TcpStream) -> io::Result<String> {
    let (mut text, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(&buffer[..read]);
        if let Some(body) = body(&String::from_utf8_lossy(&text)) {
            return Ok(body);
        }
    }
}

/// The body of a complete answer.
fn body(text: &str) -> Option<String> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.parse().ok()?;
    body.get(..length).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::body;

    #[test]
    fn an_answer_is_complete_when_its_body_is() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r"), None);
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nb"), None);
        assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nb1").as_deref(), Some("b1"));
    }
}
