//! Thousands of connections that live long, from one thread, and servers that say their name: what must survive.
//!
//! Every connection sends a numbered message again and again. An answer with another number, from another backend than
//! the first, or none, breaks it. Datagrams may be lost, a few times in a row.

pub mod server;

use crate::agent::PATIENCE;
use lb_userspace::lab::{Namespace, wait};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Time between two messages of a connection, ms.
const PAUSE: std::ops::Range<u64> = 300..800;
/// Connections that are being opened at a time: listen queues are short.
const OPENING: usize = 200;
/// Lost datagrams in a row that break a flow, a second each.
const LOSSES: u32 = 3;

/// Which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// A connection.
    Tcp,
    /// Datagrams from one port.
    Udp,
}

/// Connections to one service.
#[derive(Clone, Debug)]
pub struct Group {
    /// The service.
    pub service: &'static str,
    /// TCP or UDP.
    pub over: Over,
    /// The client's address.
    pub from: IpAddr,
    /// The service's.
    pub to: SocketAddr,
    /// How many.
    pub count: usize,
}

/// A connection.
#[derive(Debug)]
pub struct Member {
    /// The service that it asks.
    pub service: &'static str,
    /// The backend that answered first.
    backend: OnceLock<u8>,
    answered: AtomicU64,
    broken: OnceLock<String>,
}

impl Member {
    /// The backend that answered first; 0: none has.
    pub fn backend(&self) -> u8 {
        self.backend.get().copied().unwrap_or_default()
    }

    /// Why it is broken, if it is.
    pub fn broken(&self) -> Option<&str> {
        self.broken.get().map(String::as_str)
    }

    /// Takes an answer: the backend's name, and the number that was sent.
    fn answer(&self, name: u8, number: u64, sent: u64) -> io::Result<()> {
        let first = *self.backend.get_or_init(|| name);
        if (name, number) != (first, sent) {
            return Err(io::Error::other(format!(
                "message {sent} to backend {first} was answered as {number} by {name}"
            )));
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// All of them.
pub struct Crowd {
    members: Vec<Arc<Member>>,
    stop: Arc<AtomicBool>,
}

impl Crowd {
    /// Opens every connection and waits until each has been answered.
    ///
    /// # Panics
    ///
    /// One has not.
    #[must_use]
    pub fn open(ns: &Namespace, groups: &[Group]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut work = Vec::new();
        for group in groups {
            for _ in 0..group.count {
                let member = Member {
                    service: group.service,
                    backend: OnceLock::new(),
                    answered: AtomicU64::new(0),
                    broken: OnceLock::new(),
                };
                work.push((Arc::new(member), group.clone()));
            }
        }
        let members: Vec<_> = work.iter().map(|(member, _)| Arc::clone(member)).collect();
        let stopped = Arc::clone(&stop);
        ns.spawn("crowd", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let opening = Arc::new(Semaphore::new(OPENING));
                let live = |(member, group)| tokio::spawn(live(member, group, Arc::clone(&opening)));
                let tasks: Vec<_> = work.into_iter().map(live).collect();
                while !stopped.load(Ordering::Relaxed) {
                    sleep(Duration::from_millis(50)).await;
                }
                tasks.iter().for_each(tokio::task::JoinHandle::abort);
            });
        })
        .unwrap();
        let this = Self { members, stop };
        this.again("each connection to be answered");
        assert!(this.broken().next().is_none(), "broken when opened: {:?}", this.broken().next());
        this
    }

    /// Every connection.
    #[must_use]
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Those that are broken.
    pub fn broken(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(Arc::as_ref).filter(|member| member.broken().is_some())
    }

    /// Waits until each connection that is not broken has been answered twice from now on: once is perhaps an answer
    /// that was already under way.
    ///
    /// # Panics
    ///
    /// One neither is nor breaks.
    #[track_caller]
    pub fn again(&self, what: &str) {
        let goals: Vec<u64> =
            self.members.iter().map(|member| member.answered.load(Ordering::Relaxed) + 2).collect();
        let silent = || {
            self.members.iter().zip(&goals).find(|(member, goal)| {
                member.broken().is_none() && member.answered.load(Ordering::Relaxed) < **goal
            })
        };
        let waited = wait::until(what, 2 * PATIENCE, || silent().is_none());
        waited.unwrap_or_else(|error| panic!("{error}: {:?}", silent()));
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn live(member: Arc<Member>, group: Group, opening: Arc<Semaphore>) {
    let lived = async {
        let permit = opening.acquire().await.map_err(io::Error::other)?;
        match group.over {
            Over::Tcp => {
                let stream = timeout(PATIENCE, connect(&group)).await.map_err(io::Error::other)??;
                drop(permit);
                converse(&member, stream).await
            }
            Over::Udp => {
                let socket = UdpSocket::bind((group.from, 0)).await?;
                socket.connect(group.to).await?;
                drop(permit);
                exchange(&member, &socket).await
            }
        }
    };
    let lived: io::Result<()> = lived.await;
    if let Err(error) = lived {
        let _ = member.broken.set(error.to_string());
    }
}

async fn connect(group: &Group) -> io::Result<TcpStream> {
    let socket = if group.to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((group.from, 0).into())?;
    let stream = socket.connect(group.to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn converse(member: &Member, mut stream: TcpStream) -> io::Result<()> {
    for sent in 1_u64.. {
        stream.write_all(&sent.to_be_bytes()).await?;
        let mut answer = [0; 9];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.map_err(io::Error::other)??;
        let [name, number @ ..] = answer;
        member.answer(name, u64::from_be_bytes(number), sent)?;
        pause().await;
    }
    Ok(())
}

async fn exchange(member: &Member, socket: &UdpSocket) -> io::Result<()> {
    let mut lost = 0;
    for sent in 1_u64.. {
        let mut answer = [0; 9];
        // An error is what became of an earlier datagram.
        let _ = socket.send(&sent.to_be_bytes()).await;
        loop {
            match timeout(Duration::from_secs(1), socket.recv(&mut answer)).await {
                Ok(Ok(9)) => {
                    lost = 0;
                    let [name, number @ ..] = answer;
                    let number = u64::from_be_bytes(number);
                    // One that was taken for lost.
                    let late = number < sent;
                    member.answer(name, if late { sent } else { number }, sent)?;
                    if !late {
                        break;
                    }
                }
                Ok(Ok(length)) => return Err(io::Error::other(format!("an answer of {length} bytes"))),
                Ok(Err(_)) | Err(_) if lost < LOSSES => {
                    lost += 1;
                    break;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::Error::other(format!("{LOSSES} datagrams had no answer"))),
            }
        }
        pause().await;
    }
    Ok(())
}

async fn pause() {
    sleep(Duration::from_millis(rand::random_range(PAUSE))).await;
}
