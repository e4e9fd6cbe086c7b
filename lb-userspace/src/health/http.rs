//! An HTTP/1.1 request on a connection, and the status of its answer (RFC 9112).

use super::Failure;
use crate::model::HttpMethod;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use tokio::net::TcpStream;

/// Bytes of a body that are read before the answer counts as complete.
const BODY_LIMIT: usize = 64 * 1024;
/// Bytes that the head of an answer may have.
const HEAD_LIMIT: usize = 16 * 1024;

/// The request of a check. `Host` is the backend's address if nothing else was said (RFC 9110, section 7.2).
pub(super) fn request(
    method: HttpMethod,
    path: &str,
    host: Option<&str>,
    address: SocketAddr,
) -> Result<Request<Empty<Bytes>>, Failure> {
    let builder = Request::builder()
        .method(match method {
            HttpMethod::Get => Method::GET,
            HttpMethod::Head => Method::HEAD,
        })
        .uri(path)
        .header(USER_AGENT, concat!("lb/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    let builder = match host {
        Some(host) => builder.header(HOST, host),
        None => builder.header(HOST, address.to_string()),
    };
    builder.body(Empty::new()).map_err(|error| Failure::Local(error.to_string()))
}

/// Sends it and reads the answer, its body up to a limit.
pub(super) async fn exchange(stream: TcpStream, request: Request<Empty<Bytes>>) -> Result<u16, Failure> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_LIMIT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failure(&error))?;
    let mut exchange = pin!(async move {
        let response = sender.send_request(request).await.map_err(|error| failure(&error))?;
        let status = response.status().as_u16();
        drain(response.into_body()).await?;
        Ok(status)
    });
    let mut connection = pin!(connection);
    // The connection may end first: the answer has been handed over by then, or the exchange learns why not.
    tokio::select! {
        biased;
        result = &mut exchange => result,
        _ = &mut connection => exchange.await,
    }
}

async fn drain(mut body: Incoming) -> Result<(), Failure> {
    let mut read = 0;
    while read < BODY_LIMIT && !body.is_end_stream() {
        match body.frame().await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(error)) => return Err(failure(&error)),
            None => break,
        }
    }
    Ok(())
}

fn failure(error: &hyper::Error) -> Failure {
    if error.is_parse() {
        return Failure::NotHttp;
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(error) => Failure::of_connection(error),
        None => Failure::Closed,
    }
}
