//! The clients: long-lived connections, a steady rate of short ones, and datagrams, from the client's namespace.
//!
//! Every answer is checked: the right bytes, and on a connection always from the same backend. What goes wrong is
//! written into the [`Ledger`], never repeated in silence: TCP may retransmit, a client may not.

use super::backend::NAME_HEADER;
use super::ledger::{Family, Ledger, What};
use super::topology::{BACKENDS, backend_name};
use crate::lab::Namespace;
use anyhow::{Context, Result, anyhow, bail, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long a client waits for an answer. TCP repeats a first packet after a second (RFC 6298, section 2.1).
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a long-lived client waits before it opens its next connection.
const REOPEN: Duration = Duration::from_millis(100);
/// Over how long the connections of a retired backend end.
const RETIREMENT: Duration = Duration::from_millis(1000);
/// Bytes of most requests and answers.
const SMALL: usize = 96;
/// Bytes of every eighth: several segments, in both directions.
const LARGE: usize = 8 * 1024;

/// What is sent, and where to.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// Addresses of the web service, one or more, used in turn.
    pub(super) web: Vec<SocketAddr>,
    /// Addresses of the datagram service; none: no datagrams.
    pub(super) echo: Vec<SocketAddr>,
    /// Long-lived connections.
    pub(super) connections: usize,
    /// From one request on a connection to the next.
    pub(super) every: Duration,
    /// Short connections a second.
    pub(super) short_rate: u32,
    /// Datagrams a second, each from another port.
    pub(super) datagram_rate: u32,
}

/// What the story tells the clients.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    stop: bool,
    /// Connections on this backend end in their own time.
    retire: Option<usize>,
}

/// Traffic that flows. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Traffic {
    orders: watch::Sender<Orders>,
    thread: Option<JoinHandle<Result<Result<()>>>>,
}

impl Traffic {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub(super) fn start(namespace: &Namespace, load: Load, ledger: Arc<Ledger>) -> Result<Self> {
        let (orders, told) = watch::channel(Orders::default());
        let thread = namespace.spawn("clients", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(load, ledger, told));
            Ok(())
        })?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// Connections on this backend end one after the other, between two requests, and are opened again.
    pub(super) fn retire(&self, backend: Option<usize>) {
        self.orders.send_modify(|orders| orders.retire = backend);
    }

    /// Ends it: requests that are under way are answered first.
    ///
    /// # Errors
    ///
    /// It never started, because the namespace could not be entered.
    pub(super) fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.orders.send_modify(|orders| orders.stop = true);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended?,
            Some(Err(_)) => bail!("the clients panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!("{error:#}");
        }
    }
}

async fn run(load: Load, ledger: Arc<Ledger>, mut told: watch::Receiver<Orders>) {
    let mut tasks = JoinSet::new();
    for number in 0..load.connections {
        let Some(target) = load.web.get(number % load.web.len().max(1)).copied() else { break };
        let client = Client { target, ledger: Arc::clone(&ledger) };
        // Spread, so that the requests of all of them do not come at once.
        let offset = load.every * u32::try_from(number).unwrap_or(0)
            / u32::try_from(load.connections).unwrap_or(1).max(1);
        tasks.spawn(client.stay(load.every, offset, number, told.clone()));
    }
    let mut short = pace(load.short_rate);
    let mut datagram = pace(load.datagram_rate);
    let (mut shorts, mut datagrams) = (load.web.iter().cycle(), load.echo.iter().cycle());
    loop {
        tokio::select! {
            biased;
            // The sender is gone: the story ended without a word.
            stopped = told.wait_for(|orders| orders.stop) => { drop(stopped); break }
            _ = short.tick(), if load.short_rate > 0 => if let Some(target) = shorts.next() {
                tasks.spawn(Client { target: *target, ledger: Arc::clone(&ledger) }.visit());
            },
            _ = datagram.tick(), if load.datagram_rate > 0 => if let Some(target) = datagrams.next() {
                tasks.spawn(ask(*target, Arc::clone(&ledger)));
            },
            // Those that ended leave, so that the set stays small.
            Some(_) = tasks.join_next() => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}

fn pace(rate: u32) -> tokio::time::Interval {
    let mut interval = interval(Duration::from_secs(1) / rate.max(1));
    // A busy machine gets fewer requests, not bursts of them.
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// A client of one address.
struct Client {
    target: SocketAddr,
    ledger: Arc<Ledger>,
}

/// An open connection, and who is at its end.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    backend: usize,
}

impl Client {
    fn family(&self) -> Family {
        family(self.target)
    }

    /// Connects and asks once. A failure is in the ledger.
    async fn open(&self) -> Option<Connection> {
        let began = Instant::now();
        let opened = timeout(PATIENCE, async {
            let stream = TcpStream::connect(self.target).await?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            // Its end is seen by the next request.
            tokio::spawn(connection);
            let (backend, bytes) = exchange(&mut sender, 0).await?;
            Ok::<_, anyhow::Error>((Connection { sender, backend }, bytes))
        })
        .await;
        match flatten(opened) {
            Ok((connection, bytes)) => {
                self.ledger.opened(connection.backend, self.family(), began);
                self.ledger.answered(connection.backend, bytes, began.elapsed());
                Some(connection)
            }
            Err(error) => {
                self.ledger.lost(What::Attempt, None, self.family(), began, format!("{error:#}"));
                None
            }
        }
    }

    /// A short connection.
    async fn visit(self) {
        self.open().await;
    }

    /// A long-lived connection, and another one when it ends, until the traffic ends.
    async fn stay(self, every: Duration, offset: Duration, number: usize, mut told: watch::Receiver<Orders>) {
        sleep(offset).await;
        while !told.borrow().stop {
            if let Some(mut connection) = self.open().await {
                self.ledger.stays(connection.backend);
                self.talk(&mut connection, every, number, &mut told).await;
                self.ledger.ends(connection.backend);
            }
            // A client without patience would count one outage many times.
            let _ = timeout(REOPEN, told.wait_for(|orders| orders.stop)).await;
        }
    }

    /// Asks again and again, until the connection breaks or is no longer wanted.
    async fn talk(
        &self,
        connection: &mut Connection,
        every: Duration,
        number: usize,
        told: &mut watch::Receiver<Orders>,
    ) {
        let mut retires: Option<Instant> = None;
        for request in 1_usize.. {
            let _ = timeout(every, told.wait_for(|orders| orders.stop)).await;
            let orders = *told.borrow();
            if orders.stop {
                return;
            }
            retires = match (orders.retire, retires) {
                (Some(backend), None) if backend == connection.backend => {
                    // Not all at once: each in its own time.
                    let share = u32::try_from(number * 7 % 50).unwrap_or(0);
                    Some(Instant::now() + RETIREMENT * share / 50)
                }
                (_, retires) => retires,
            };
            if retires.is_some_and(|at| at <= Instant::now()) {
                return;
            }
            let began = Instant::now();
            match flatten(timeout(PATIENCE, exchange(&mut connection.sender, request)).await) {
                Ok((backend, bytes)) if backend == connection.backend => {
                    self.ledger.answered(backend, bytes, began.elapsed());
                }
                Ok((backend, _)) => {
                    let why = format!("answered by {} on the same connection", backend_name(backend));
                    self.ledger.lost(What::Answer, Some(connection.backend), self.family(), began, why);
                }
                Err(error) => {
                    let what = if error.is::<Wrong>() { What::Answer } else { What::Connection };
                    let why = format!("{error:#}");
                    self.ledger.lost(what, Some(connection.backend), self.family(), began, why);
                    return;
                }
            }
        }
    }
}

/// An answer that came, and is not right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Wrong(String);

fn flatten<T>(result: Result<Result<T>, tokio::time::error::Elapsed>) -> Result<T> {
    result.unwrap_or_else(|_| Err(anyhow!("no answer in {} s", PATIENCE.as_secs())))
}

/// Sends bytes and wants them back. Who answered, and how many bytes.
async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: usize) -> Result<(usize, usize)> {
    let sent = Bytes::from(payload(request));
    sender.ready().await?;
    let question = Request::builder()
        .method(Method::POST)
        .uri("/echo")
        .header(hyper::header::HOST, "web.example")
        .body(Full::new(sent.clone()))?;
    let answer = sender.send_request(question).await?;
    ensure!(answer.status().is_success(), Wrong(format!("status {}", answer.status())));
    let name = answer.headers().get(NAME_HEADER).map(|name| name.as_bytes().to_vec());
    let backend = name.as_deref().and_then(backend_number);
    let backend = backend.context(Wrong("nobody's answer: no backend's name in it".to_owned()))?;
    let got = answer.into_body().collect().await?.to_bytes();
    ensure!(got == sent, Wrong(format!("{} bytes sent, others came back", sent.len())));
    Ok((backend, got.len()))
}

fn payload(request: usize) -> Vec<u8> {
    let length = if request % 8 == 7 { LARGE } else { SMALL };
    // Of a period that is prime to every power of two: a segment that is missing or twice there does not fit.
    (0..length).map(|position| ((position * 31 + request * 7) % 251) as u8).collect()
}

fn backend_number(name: &[u8]) -> Option<usize> {
    (0..BACKENDS).find(|backend| backend_name(*backend).as_bytes() == name)
}

fn family(target: SocketAddr) -> Family {
    if target.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// A datagram from a new port, and its answer.
async fn ask(target: SocketAddr, ledger: Arc<Ledger>) {
    let began = Instant::now();
    let asked = timeout(PATIENCE, async {
        let any: IpAddr =
            if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        // Connected: an answer from another address than the service's does not arrive.
        socket.connect(target).await?;
        let sent = payload(1);
        socket.send(&sent).await?;
        let mut buffer = vec![0; 2048];
        let length = socket.recv(&mut buffer).await?;
        let (name, echoed) = buffer[..length].split_at_checked(3).context("a short answer")?;
        ensure!(
            backend_number(&name[..2]).is_some() && echoed == sent,
            Wrong("other bytes came back".into())
        );
        Ok(())
    })
    .await;
    match flatten(asked) {
        Ok(()) => ledger.echoed(),
        Err(error) => {
            let what = if error.is::<Wrong>() { What::Answer } else { What::Datagram };
            ledger.lost(what, None, family(target), began, format!("{error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::backend::Backend;
    use crate::demo::topology::{BACKEND_ECHO_PORT, BACKEND_WEB_PORT, Network, backend_addresses};
    use crate::lab::wait;

    const LONG: Duration = Duration::from_secs(20);

    /// Without a balancer: straight to the backends' addresses, forwarded by the kernel of the balancer's namespace.
    #[test]
    fn clients_see_answers_and_the_death_of_a_backend() {
        let network = Network::build(&format!("lbd{}", std::process::id())).unwrap();
        network.client.route("default", "192.0.2.1").unwrap();
        network.client.route("default", "2001:db8::1").unwrap();
        let mut backends: Vec<_> = (0..2)
            .map(|number| {
                let name = backend_name(number);
                Backend::start(&network.backends[number], &name, &backend_addresses(number)).unwrap()
            })
            .collect();
        let ledger = Arc::new(Ledger::default());
        ledger.phase("both");
        let targets = |port: u16| {
            let at = |number| backend_addresses(number).into_iter();
            at(0).chain(at(1)).map(|address| SocketAddr::new(address, port)).collect::<Vec<_>>()
        };
        let load = Load {
            web: targets(BACKEND_WEB_PORT),
            echo: targets(BACKEND_ECHO_PORT),
            connections: 8,
            every: Duration::from_millis(10),
            short_rate: 50,
            datagram_rate: 50,
        };
        let traffic = Traffic::start(&network.client, load, Arc::clone(&ledger)).unwrap();
        let busy = || {
            let books = ledger.snapshot();
            books.open == [4, 4, 0, 0]
                && books.phases[0].datagrams > 8
                && books.opened.iter().sum::<u64>() > 16
                && books.answered[..2].iter().all(|answered| *answered > 100)
        };
        wait::until("traffic to both backends", LONG, busy).unwrap();
        assert_eq!(ledger.snapshot().losses.len(), 0, "{:?}", ledger.snapshot().losses);

        traffic.retire(Some(0));
        let opened = ledger.snapshot().opened[0];
        wait::until("connections that end and are opened again", LONG, || {
            ledger.snapshot().opened[0] > opened + 8
        })
        .unwrap();
        traffic.retire(None);
        assert_eq!(ledger.snapshot().losses.len(), 0, "an end by intent is no loss");

        drop(backends.pop());
        let died = || {
            let lost = ledger.snapshot().losses;
            let on_it = |loss: &&crate::demo::ledger::Loss| loss.what == What::Connection;
            lost.iter().filter(on_it).count() == 4
                && lost.iter().any(|loss| loss.what == What::Attempt)
                && lost.iter().any(|loss| loss.what == What::Datagram)
        };
        wait::until("losses on the backend that died, and only there", LONG, died).unwrap();
        traffic.stop().unwrap();
        let books = ledger.snapshot();
        assert_eq!(books.open, [0; BACKENDS]);
        let elsewhere = books.losses.iter().filter(|loss| loss.backend.is_some_and(|backend| backend != 1));
        assert_eq!(elsewhere.count(), 0, "{:?}", books.losses);
        assert_eq!(network.checksum_errors().unwrap(), 0);
    }
}
