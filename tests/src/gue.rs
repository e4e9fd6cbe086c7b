//! A port on which the kernel takes packets out of UDP datagrams (`fou`, as `ip fou add port PORT gue` does it). Nothing but
//! generic netlink configures it.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// `NLM_F_REQUEST | NLM_F_ACK`.
const ASK: u16 = 1 | 4;
/// The controller's family and its question for another one's number (include/uapi/linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// What `fou` understands (include/uapi/linux/fou.h).
const ADD: u8 = 1;
const PORT: u16 = 1;
const FAMILY: u16 = 2;
const KIND: u16 = 4;
const GUE: u8 = 2;

/// Opens it in the namespace of this thread, until that goes.
///
/// # Errors
/// The kernel has no `fou`, or the port is taken.
pub fn open(port: u16, v6: bool) -> io::Result<()> {
    let answer = ask(CONTROLLER, GET_FAMILY, &[(FAMILY_NAME, b"fou\0")])?;
    let id = attribute(&answer, FAMILY_ID).ok_or_else(|| io::Error::other("fou has no number"))?;
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
    ask(id, ADD, &[(PORT, &port.to_be_bytes()), (FAMILY, &[family]), (KIND, &[GUE])]).map(drop)
}

/// Sends a request, and returns what came back before the kernel said that it was carried out.
fn ask(family: u16, command: u8, attributes: &[(u16, &[u8])]) -> io::Result<Vec<u8>> {
    let mut body = vec![command, 1, 0, 0];
    for (kind, value) in attributes {
        body.extend((4 + value.len() as u16).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut request = (16 + body.len() as u32).to_ne_bytes().to_vec();
    request.extend(family.to_ne_bytes());
    request.extend(ASK.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric)?;
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = Vec::new();
    loop {
        let mut buffer = vec![0; 8192];
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        buffer.truncate(length);
        // An acknowledgement is an error of number 0 (RFC 3549, section 2.3.2.2).
        if buffer.len() >= 20 && u16::from_ne_bytes([buffer[4], buffer[5]]) == libc::NLMSG_ERROR as u16 {
            let error = i32::from_ne_bytes([buffer[16], buffer[17], buffer[18], buffer[19]]);
            return if error == 0 { Ok(answer) } else { Err(io::Error::from_raw_os_error(-error)) };
        }
        answer = buffer;
    }
}

/// An attribute of 16 bits of a generic message.
fn attribute(message: &[u8], wanted: u16) -> Option<u16> {
    let mut rest = message.get(20..)?;
    loop {
        let [length, kind] =
            [0, 2].map(|at| rest.get(at..at + 2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])));
        let length = usize::from(length?);
        if kind? == wanted {
            return rest.get(4..6).map(|pair| u16::from_ne_bytes([pair[0], pair[1]]));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}
