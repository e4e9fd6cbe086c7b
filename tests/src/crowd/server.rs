//! A backend: answers each message with its name in front, and a health check as it is told to.

use lb_userspace::lab::Namespace;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

/// Port of connections of services in NAT mode.
pub const TRANSLATED: u16 = 8080;
/// Port of connections of services in L2 mode.
pub const DIRECT: u16 = 443;
/// Port of datagrams.
pub const DATAGRAMS: u16 = 5300;
/// Port of the health check, HTTP.
pub const HEALTH: u16 = 9000;

/// A server, on all addresses of its machine.
pub struct Server {
    healthy: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Server {
    /// Starts one and waits until it listens.
    ///
    /// # Panics
    ///
    /// It cannot listen.
    #[must_use]
    pub fn start(ns: &Namespace, name: u8) -> Self {
        let healthy = Arc::new(AtomicBool::new(true));
        let (stop, stopped) = oneshot::channel();
        let (ready, listening) = std::sync::mpsc::channel();
        let health = Arc::clone(&healthy);
        let thread = ns.spawn("server", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                ready.send(listen(name, health).await).unwrap();
                let _ = stopped.await;
            });
        });
        listening.recv().unwrap().unwrap();
        Self { healthy, stop: Some(stop), thread: Some(thread.unwrap()) }
    }

    /// Lets its health check fail or succeed; its connections live on.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }
}

impl Drop for Server {
    /// It dies: every socket is closed.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn listen(name: u8, healthy: Arc<AtomicBool>) -> io::Result<()> {
    for port in [TRANSLATED, DIRECT] {
        let listener = TcpListener::bind(("::", port)).await?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream, name));
            }
        });
    }
    let socket = UdpSocket::bind(("::", DATAGRAMS)).await?;
    tokio::spawn(async move {
        let mut message = [0; 9];
        loop {
            // An error belongs to an earlier answer.
            if let Ok((8, from)) = socket.recv_from(&mut message[1..]).await {
                message[0] = name;
                let _ = socket.send_to(&message, from).await;
            }
        }
    });
    let listener = TcpListener::bind(("::", HEALTH)).await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(check(stream, healthy.load(Ordering::Relaxed)));
        }
    });
    Ok(())
}

async fn echo(mut stream: TcpStream, name: u8) -> io::Result<()> {
    let mut message = [name; 9];
    loop {
        stream.read_exact(&mut message[1..]).await?;
        stream.write_all(&message).await?;
    }
}

async fn check(mut stream: TcpStream, healthy: bool) -> io::Result<()> {
    // A request is one segment: whatever of it comes first says that somebody asks.
    let mut request = [0; 1024];
    if stream.read(&mut request).await? == 0 {
        return Ok(());
    }
    let status = if healthy { "200 OK" } else { "503 Service Unavailable" };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await
}
