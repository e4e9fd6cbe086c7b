//! The API's other end: one request a connection, over the agent's socket.

use super::failure::{Failure, FailureCode};
use super::types::{ExplainRequest, ExplainView, PlanView, ServiceView, StatsView, StatusView};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::path::PathBuf;
use tokio::net::UnixStream;

/// What stays as it is in a segment of a path: RFC 3986 section 3.3, less what has a meaning in queries.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':');

/// A client of the agent.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// One segment of a path, from any text.
pub fn segment(text: &str) -> String {
    match text {
        // Would be taken for directories.
        "." | ".." => text.replace('.', "%2E"),
        text => utf8_percent_encode(text, SEGMENT).to_string(),
    }
}

impl Client {
    /// A client of the agent on this socket. Connects with the first request.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Everything on one screen.
    ///
    /// # Errors
    ///
    /// See [`Self::send`].
    pub async fn status(&self) -> Result<StatusView, Failure> {
        self.get("/v1/status").await
    }

    /// Every service.
    ///
    /// # Errors
    ///
    /// See [`Self::send`].
    pub async fn services(&self) -> Result<Vec<ServiceView>, Failure> {
        self.get("/v1/services").await
    }

    /// One service.
    ///
    /// # Errors
    ///
    /// See [`Self::send`].
    pub async fn service(&self, name: &str) -> Result<ServiceView, Failure> {
        self.get(&format!("/v1/services/{}", segment(name))).await
    }

    /// What the kernel counted.
    ///
    /// # Errors
    ///
    /// See [`Self::send`].
    pub async fn stats(&self, service: Option<&str>) -> Result<StatsView, Failure> {
        match service {
            Some(name) => self.get(&format!("/v1/stats?service={}", segment(name))).await,
            None => self.get("/v1/stats").await,
        }
    }

    /// Asks for a change.
    ///
    /// # Errors
    ///
    /// See [`Self::send`].
    pub async fn change<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: &B,
        dry_run: bool,
    ) -> Result<PlanView, Failure> {
        let query = if dry_run { "?dry-run=true" } else { "" };
        let body = serde_json::to_vec(body).map_err(|error| Failure::failed(error.to_string(), ""))?;
        json(&self.send(method, &format!("{path}{query}"), "application/json", body).await?)
    }

    /// Puts a configuration in force.
    ///
    /// # Errors
    ///
    /// See [`Self::send`].
    pub async fn apply(&self, text: String, name: &str, dry_run: bool) -> Result<PlanView, Failure> {
        let path = format!("/v1/apply?dry-run={dry_run}&file={}", segment(name));
        json(&self.send(Method::POST, &path, "application/toml", text.into()).await?)
    }

    /// What is desired, as a configuration.
    ///
    /// # Errors
    ///
    /// See [`Self::send`].
    pub async fn export(&self) -> Result<String, Failure> {
        let body = self.send(Method::GET, "/v1/export", "application/json", Vec::new()).await?;
        String::from_utf8(body.into()).map_err(|_| unreadable("not text"))
    }

    /// Asks what the program would do with a frame.
    ///
    /// # Errors
    ///
    /// See [`Self::send`].
    pub async fn explain(&self, request: &ExplainRequest) -> Result<ExplainView, Failure> {
        let body = serde_json::to_vec(request).map_err(|error| Failure::failed(error.to_string(), ""))?;
        json(&self.send(Method::POST, "/v1/explain", "application/json", body).await?)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        json(&self.send(Method::GET, path, "application/json", Vec::new()).await?)
    }

    /// Sends a request and returns the body of the answer.
    ///
    /// # Errors
    ///
    /// What the agent refused, or that it cannot be reached.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.no_agent(&error))?;
        let lost = |error: hyper::Error| {
            Failure::failed(
                format!("the agent on {} did not answer: {error}", self.socket.display()),
                "see its log; `lb status` tells whether it is there",
            )
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "lb")
            .header("content-type", content_type)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::invalid(error.to_string(), "write it without special characters"))?;
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(lost)?.to_bytes();
        drop(sender);
        connection.abort();
        if status == StatusCode::OK { Ok(body) } else { Err(refusal(status, &body)) }
    }

    fn no_agent(&self, error: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::new(
                FailureCode::NoAgent,
                format!("no agent answers on {socket}: start one with `lb agent`"),
                "or say where it is with --socket",
            ),
            ErrorKind::PermissionDenied => Failure::failed(
                format!("no permission to use {socket}"),
                "run as root, or as a member of the socket's group",
            ),
            _ => Failure::failed(
                format!("cannot connect to {socket}: {error}"),
                "say where it is with --socket",
            ),
        }
    }
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(why: &str) -> Failure {
    Failure::failed(
        format!("the agent's answer is not understood: {why}"),
        "agent and command line may be of different versions: compare `lb status` and `lb --version`",
    )
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let code = match status.as_u16() {
            404 => FailureCode::NotFound,
            409 => FailureCode::Conflict,
            _ => FailureCode::Failed,
        };
        let text = String::from_utf8_lossy(body);
        Failure::new(code, format!("the agent answered {status}: {}", text.trim()), "see its log")
    })
}
