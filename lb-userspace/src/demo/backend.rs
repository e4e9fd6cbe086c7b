//! The servers behind the balancer: HTTP/1.1 and a datagram echo, on a thread in a backend's namespace.
//!
//! Stopping one closes its listeners and every connection it has, as the end of a process does. What it answers is
//! its name and what was sent, so that a client can tell who answered and whether the bytes are right.

use super::topology::{BACKEND_ECHO_PORT, BACKEND_WEB_PORT};
use crate::lab::Namespace;
use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::sync::oneshot;

/// Header that names the backend.
pub(super) const NAME_HEADER: &str = "x-backend";
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// Most bytes of a datagram.
const DATAGRAM: usize = 2048;

/// A server that runs. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Backend {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Backend {
    /// Starts one, called `name`, on addresses of its namespace. It accepts connections when this returns.
    ///
    /// # Errors
    ///
    /// Its ports are taken.
    pub(super) fn start(namespace: &Namespace, name: &str, addresses: &[IpAddr]) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, listening) = mpsc::channel();
        let (called, addresses) = (name.to_owned(), addresses.to_vec());
        let thread = namespace.spawn(name, move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error.into()))),
            };
            runtime.block_on(async {
                match serve(&called, &addresses).await {
                    Ok(()) => {
                        let _ = ready.send(Ok(()));
                        // Told to stop, or forgotten: both end it.
                        let _ = stopped.await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
            // The runtime ends here, and with it every task and every socket.
        })?;
        // Without a word, the thread could not enter the namespace: its own value says why.
        match listening.recv() {
            Ok(result) => result.with_context(|| format!("cannot start backend {name}"))?,
            Err(_) => return join(thread).and(Err(anyhow!("backend {name} ended before it listened"))),
        }
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("a backend of the demonstration panicked");
        }
    }
}

/// Starts the tasks on the current runtime.
async fn serve(name: &str, addresses: &[IpAddr]) -> Result<()> {
    let whole = format!("{name}\n");
    let header = name.to_owned();
    let router = Router::new()
        .route("/", get(async move || whole))
        .route("/healthz", get(async || "ok\n"))
        .route("/echo", post(async move |body: Bytes| ([(NAME_HEADER, header)], body)));
    for address in addresses {
        let listener = listen((*address, BACKEND_WEB_PORT).into())?;
        let router = router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let target = SocketAddr::from((*address, BACKEND_ECHO_PORT));
        let socket = UdpSocket::bind(target).await.with_context(|| format!("cannot receive on {target}"))?;
        let name = name.as_bytes().to_vec();
        tokio::spawn(async move { echo(&socket, &name).await });
    }
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A backend that comes back finds connections of its former life in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot listen on {address}"))?;
    Ok(socket.listen(BACKLOG)?)
}

/// Answers each datagram with the backend's name, a space, and what came.
async fn echo(socket: &UdpSocket, name: &[u8]) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // An error is a client's: an ICMP message for an answer that nobody waited for.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let answer = [name, b" ", &buffer[..length]].concat();
        let _ = socket.send_to(&answer, client).await;
    }
}
