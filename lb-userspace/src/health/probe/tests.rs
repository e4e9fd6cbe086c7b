//! Against real servers on loopback: each answers in its own bad way.

use super::*;
use crate::model::{Check, HttpMethod};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn plan(kind: CheckKind) -> Plan {
    // Far more than a loopback needs, so that only what hangs times out.
    Plan { check: Arc::new(Check { timeout: Duration::from_secs(30), ..Check::new(kind) }), source: None }
}

fn hurried(kind: CheckKind) -> Plan {
    Plan { check: Arc::new(Check { timeout: Duration::from_millis(50), ..Check::new(kind) }), source: None }
}

fn http() -> CheckKind {
    CheckKind::http("/healthz?x=1")
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn try_once(address: SocketAddr, plan: &Plan) -> Result<Success, Failure> {
    Network.probe(&Target { service: "web".into(), backend: address }, plan).await
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// What a check makes of a server that reads the request and answers so. Also the request.
async fn answer(plan: Plan, parts: &'static [&'static [u8]]) -> (Result<Success, Failure>, String) {
    let (listener, address) = listener().await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        for part in parts {
            stream.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream.shutdown().await.unwrap();
        head
    };
    tokio::join!(try_once(address, &plan), server)
}

#[tokio::test]
async fn tcp_accepts_and_leaves_with_a_reset() {
    let (listener, address) = listener().await;
    assert_eq!(try_once(address, &plan(CheckKind::Tcp)).await, Ok(Success::Connected));
    let (mut stream, _) = listener.accept().await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn nobody_listens() {
    let (listener, address) = listener().await;
    drop(listener);
    for kind in [CheckKind::Tcp, http()] {
        let failure = try_once(address, &plan(kind)).await.unwrap_err();
        assert_eq!((&failure, failure.to_string().as_str()), (&Failure::Refused, "connection refused"));
    }
}

#[tokio::test]
async fn another_port_is_tried() {
    let (listener, address) = listener().await;
    let check = Check { port: Some(address.port()), ..Check::clone(&plan(CheckKind::Tcp).check) };
    let plan = Plan { check: Arc::new(check), source: None };
    let backend = SocketAddr::new(address.ip(), 1);
    assert_eq!(try_once(backend, &plan).await, Ok(Success::Connected));
    drop(listener);
}

#[tokio::test]
async fn tries_come_from_the_source() {
    let (listener, address) = listener().await;
    let source: IpAddr = "127.0.0.9".parse().unwrap();
    let plan = Plan { source: Some(source), ..plan(CheckKind::Tcp) };
    assert_eq!(try_once(address, &plan).await, Ok(Success::Connected));
    assert_eq!(listener.accept().await.unwrap().1.ip(), source);
    // A source that this machine does not have says nothing of the backend.
    let foreign = Plan { source: Some("192.0.2.1".parse().unwrap()), ..plan };
    let failure = try_once(address, &foreign).await.unwrap_err();
    assert!(!failure.is_backends(), "{failure}");
    assert!(failure.to_string().starts_with("cannot probe from this machine"), "{failure}");
}

#[tokio::test]
async fn http_answers() {
    let ok: &[&[u8]] = &[b"HTTP/1.1 204 No Content\r\n\r\n"];
    let (result, request) = answer(plan(http()), ok).await;
    assert_eq!(result, Ok(Success::Status(204)));
    let request = request.to_lowercase();
    assert!(request.starts_with("get /healthz?x=1 http/1.1\r\n"), "{request}");
    assert!(
        request.contains("\r\nhost: 127.0.0.1:") && request.contains("\r\nconnection: close\r\n"),
        "{request}"
    );

    let kind = CheckKind::Http {
        method: HttpMethod::Head,
        path: "/".into(),
        host: Some("example.org".into()),
        expect: (401, 401),
    };
    // An answer to HEAD has no body, whatever its length says.
    let (result, request) =
        answer(plan(kind.clone()), &[b"HTTP/1.1 401 No\r\nContent-Length: 99\r\n\r\n"]).await;
    assert_eq!(result, Ok(Success::Status(401)));
    assert!(request.starts_with("HEAD / ") && request.contains("example.org"), "{request}");
    let failure = answer(plan(kind), ok).await.0.unwrap_err();
    assert_eq!(failure.to_string(), "HTTP 204, expected 401");

    let unavailable: &[&[u8]] = &[b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"];
    let failure = answer(plan(http()), unavailable).await.0.unwrap_err();
    assert_eq!(failure.to_string(), "HTTP 503, expected 200-399");
}

#[tokio::test]
async fn http_answers_in_pieces() {
    let pieces: &[&[u8]] =
        &[b"HT", b"TP/1.1 200", b" OK\r\nTransfer-Encoding: chunked\r\n", b"\r\n2\r\n", b"ok\r\n0\r\n\r\n"];
    assert_eq!(answer(plan(http()), pieces).await.0, Ok(Success::Status(200)));
    // Without a length the end of the connection is the end of the body.
    assert_eq!(answer(plan(http()), &[b"HTTP/1.0 200 OK\r\n\r\n", b"ok"]).await.0, Ok(Success::Status(200)));
}

#[tokio::test]
async fn what_is_not_an_answer() {
    for garbage in [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x00\x02\x00\x00\r\n\r\n",
        b"HTTP/9 x\r\n\r\n",
    ] {
        let parts: &'static [&'static [u8]] = Box::leak(Box::new([garbage]));
        assert_eq!(answer(plan(http()), parts).await.0, Err(Failure::NotHttp), "{garbage:?}");
    }
    assert_eq!(answer(plan(http()), &[]).await.0, Err(Failure::Closed));
    assert_eq!(answer(plan(http()), &[b"HTTP/1.1 200 OK\r\n"]).await.0, Err(Failure::Closed));
    let half: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"];
    assert_eq!(answer(plan(http()), half).await.0, Err(Failure::Closed));
}

#[tokio::test]
async fn what_hangs_times_out() {
    // The kernel accepts for a server that never does.
    let (_listener, address) = listener().await;
    let failure = try_once(address, &hurried(http())).await.unwrap_err();
    assert_eq!(failure.to_string(), "timed out after 50ms");
    assert_eq!(try_once(address, &hurried(CheckKind::Tcp)).await, Ok(Success::Connected));

    // A server that says yes and never comes to an end.
    let (listener, address) = listener_with(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await;
    assert_eq!(try_once(address, &hurried(http())).await, Err(Failure::TimedOut(Duration::from_millis(50))));
    listener.abort();
}

#[tokio::test]
async fn a_body_without_end_is_enough_at_some_point() {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
    });
    assert_eq!(try_once(address, &plan(http())).await, Ok(Success::Status(200)));
    // The reset ends the server too.
    server.await.unwrap();
}

/// A server that says this and then keeps the connection.
async fn listener_with(text: &'static [u8]) -> (tokio::task::JoinHandle<()>, SocketAddr) {
    let (listener, address) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(text).await.unwrap();
        std::future::pending::<()>().await;
    });
    (server, address)
}
