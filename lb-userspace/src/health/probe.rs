//! One try of a check, within its timeout, and what came of it in a few words.

use super::schedule::{Plan, Target};
use super::{http, tcp};
use crate::model::CheckKind;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Something that can try a target.
pub trait Probe: Send + Sync + 'static {
    /// Tries once. Never takes longer than the check's timeout by more than scheduling does.
    fn probe(&self, target: &Target, plan: &Plan) -> impl Future<Output = Result<Success, Failure>> + Send;
}

/// Tries targets over the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network;

/// A backend answered as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// The connection was accepted.
    Connected,
    /// An HTTP answer with this status.
    Status(u16),
}

/// It did not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// No answer, or not all of it, in time.
    #[error("timed out after {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// No way to the backend, or nobody answers at its address on the link.
    #[error("unreachable: {0}")]
    Unreachable(io::ErrorKind),
    /// It ended the connection before the answer was complete.
    #[error("connection closed in the middle of the answer")]
    Closed,
    /// What it sent is not HTTP.
    #[error("the answer is not HTTP")]
    NotHttp,
    /// An HTTP answer with a status that does not count as success.
    #[error("HTTP {status}, expected {}", Range(*.expect))]
    Status {
        /// What came.
        status: u16,
        /// What counts as success, inclusive.
        expect: (u16, u16),
    },
    /// Something else about the connection.
    #[error("connection failed: {0}")]
    Other(io::ErrorKind),
    /// The try could not be made from here: it says nothing about the backend.
    #[error("cannot probe from this machine: {0}")]
    Local(String),
}

/// A range of status codes.
struct Range((u16, u16));

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl fmt::Display for Success {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Status(status) => write!(f, "HTTP {status}"),
        }
    }
}

impl Failure {
    /// Whether it says something about the backend.
    pub const fn is_backends(&self) -> bool {
        !matches!(self, Self::Local(_))
    }

    /// What an error of a connection in use means.
    pub(super) fn of_connection(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Self::Refused,
            kind @ (Kind::HostUnreachable | Kind::NetworkUnreachable) => Self::Unreachable(kind),
            Kind::ConnectionReset | Kind::BrokenPipe | Kind::UnexpectedEof | Kind::ConnectionAborted => {
                Self::Closed
            }
            kind => Self::Other(kind),
        }
    }
}

impl Probe for Network {
    async fn probe(&self, target: &Target, plan: &Plan) -> Result<Success, Failure> {
        let check = &*plan.check;
        let backend = target.backend;
        let address = SocketAddr::new(backend.ip(), check.port.unwrap_or(backend.port()));
        let attempt = async {
            let stream = tcp::connect(address, plan.source).await?;
            match &check.kind {
                CheckKind::Tcp => Ok(Success::Connected),
                CheckKind::Http { method, path, host, expect } => {
                    let request = http::request(*method, path, host.as_deref(), address)?;
                    let status = http::exchange(stream, request).await?;
                    let (first, last) = *expect;
                    if (first..=last).contains(&status) {
                        Ok(Success::Status(status))
                    } else {
                        Err(Failure::Status { status, expect: *expect })
                    }
                }
            }
        };
        tokio::time::timeout(check.timeout, attempt).await.unwrap_or(Err(Failure::TimedOut(check.timeout)))
    }
}

#[cfg(test)]
mod tests;
