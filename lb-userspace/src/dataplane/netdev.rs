//! What the kernel says about an interface, in the network namespace of this thread. (`/sys/class/net` would speak
//! about the namespace that it was mounted in.)

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::AsRawFd;
use std::thread;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkInfo, LinkMessage, LinkXdp};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    /// Bytes.
    pub(super) mtu: u32,
    /// `veth`, `vlan`, `bridge`, …; empty for hardware.
    pub(super) kind: String,
    /// Its driver; empty if it does not tell.
    pub(super) driver: String,
    /// Ids of XDP programs that are attached to it.
    pub(super) programs: Vec<u32>,
}

/// Asks about an interface. `None`: there is none.
pub(super) fn device(ifindex: u32) -> io::Result<Option<Device>> {
    let Some(message) = link(ifindex)? else { return Ok(None) };
    let mut device = Device::default();
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name = name,
            LinkAttribute::Mtu(mtu) => device.mtu = mtu,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        device.kind = kind.to_string();
                    }
                }
            }
            LinkAttribute::Xdp(attributes) => device.programs = programs(&attributes),
            _ => {}
        }
    }
    device.driver = driver(&device.name).unwrap_or_default();
    Ok(Some(device))
}

fn programs(attributes: &[LinkXdp]) -> Vec<u32> {
    let mut ids: Vec<u32> = attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
                Some(*id)
            }
            _ => None,
        })
        .filter(|id| *id != 0)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// One question over netlink. A thread of its own, because the caller may be inside a runtime; it inherits the namespace.
fn link(ifindex: u32) -> io::Result<Option<LinkMessage>> {
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            let found = handle.link().get().match_index(ifindex).execute().try_next().await;
            match found {
                Ok(message) => Ok(message),
                Err(rtnetlink::Error::NetlinkError(error))
                    if error.to_io().raw_os_error() == Some(libc::ENODEV) =>
                {
                    Ok(None)
                }
                Err(error) => Err(io::Error::other(error)),
            }
        })
    };
    thread::scope(|scope| scope.spawn(ask).join())
        .unwrap_or_else(|_| Err(io::Error::other("the netlink thread died")))
}

/// The driver's name, from `ETHTOOL_GDRVINFO`.
fn driver(name: &str) -> Option<String> {
    /// `ETHTOOL_GDRVINFO` of linux/ethtool.h.
    const GET_DRIVER: u32 = 3;
    /// `struct ethtool_drvinfo`.
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [u8; 32],
        rest: [u8; 160],
    }
    /// `struct ifreq`.
    #[repr(C)]
    struct Request {
        name: [c_char; libc::IFNAMSIZ],
        data: *mut DriverInfo,
        pad: [u8; 16],
    }
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let mut info = DriverInfo { command: GET_DRIVER, driver: [0; 32], rest: [0; 160] };
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: &raw mut info, pad: [0; 16] };
    for (to, from) in request.name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as c_char;
    }
    // SAFETY: the request is at least as long as `struct ifreq`, and its data what the command fills.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return None;
    }
    let end = info.driver.iter().position(|byte| *byte == 0).unwrap_or(info.driver.len());
    String::from_utf8(info.driver[..end].to_vec()).ok()
}

/// The index of an interface.
pub(super) fn index_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a C string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}
