//! Connections to backends.

use super::Failure;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpSocket, TcpStream};

/// Connects, from `source` if one is given.
///
/// The connection ends with a reset (`SO_LINGER` of zero): ten thousand checks leave nothing in TIME_WAIT, and no port
/// used up.
pub(super) async fn connect(address: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, Failure> {
    let socket = prepare(address, source).map_err(|error| Failure::Local(error.to_string()))?;
    socket.connect(address).await.map_err(|error| match error.kind() {
        // No port left, or a firewall rule here.
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::PermissionDenied => {
            Failure::Local(error.to_string())
        }
        io::ErrorKind::ConnectionReset => Failure::Refused,
        // The kernel's own patience ends only if the check's is longer.
        _ => Failure::of_connection(&error),
    })
}

fn prepare(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_zero_linger()?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}
