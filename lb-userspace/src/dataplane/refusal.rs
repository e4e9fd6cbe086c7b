//! Why an interface does not take a program in its driver: the link API gives a number, people need a sentence.

use std::io;

use super::netdev::Device;

/// Frames of a veth without fragments support: a page less headroom and the kernel's own data (veth.c).
const VETH_MTU: u32 = 3506;

/// What a refusal of native mode means, and what to do about it.
pub(super) fn sentence(error: &io::Error, device: &Device) -> String {
    let Device { name, mtu, kind, driver, .. } = device;
    let what = if driver.is_empty() { kind } else { driver };
    match error.raw_os_error() {
        Some(libc::ERANGE | libc::EMSGSIZE) if kind == "veth" => format!(
            "the other end of this veth has an MTU that is too large for XDP in the driver ({VETH_MTU} bytes at most, \
             the check looks at the other end): `ip link set dev PEER mtu 1500`"
        ),
        Some(libc::ERANGE | libc::EMSGSIZE) => format!(
            "the MTU of {mtu} bytes is too large for XDP in the driver {what}: `ip link set dev {name} mtu 1500`"
        ),
        Some(libc::ENOSPC) if kind == "veth" => {
            "this veth has fewer receive queues than its other end has transmit \
             queues: create both with the same `numrxqueues` and `numtxqueues`"
                .into()
        }
        Some(libc::ENOSPC | libc::ENOMEM | libc::EBUSY) => format!(
            "the driver {what} has no queues left for XDP: `ethtool -L {name} combined N` with half the channels"
        ),
        Some(libc::EOPNOTSUPP | libc::EINVAL) if driver == "virtio_net" => format!(
            "virtio_net cannot run XDP while the host does large receive or checksum offload: \
             `ethtool -K {name} lro off gro-hw off rx off`; where they are [fixed], only the host can (one queue pair \
             more than CPUs is needed too)"
        ),
        Some(libc::EOPNOTSUPP) if kind == "vlan" => {
            format!(
                "a VLAN interface has no driver to run XDP in: attach to the interface below {name}, tags are understood"
            )
        }
        Some(libc::EOPNOTSUPP) if what.is_empty() => format!("{name} has no driver that can run XDP"),
        Some(libc::EOPNOTSUPP) => format!(
            "the driver {what} does not run XDP, or an offload is in its way: `ethtool -K {name} lro off`"
        ),
        _ => format!("the driver {what} refuses: {error}; the kernel's log may say why (`dmesg | tail`)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(errno: i32, kind: &str, driver: &str) -> String {
        let device = Device {
            name: "eth0".into(),
            mtu: 9000,
            kind: kind.into(),
            driver: driver.into(),
            ..Device::default()
        };
        sentence(&io::Error::from_raw_os_error(errno), &device)
    }

    #[test]
    fn each_refusal_names_a_remedy() {
        assert!(said(libc::ERANGE, "veth", "veth").contains("dev PEER mtu"));
        assert!(
            said(libc::ERANGE, "", "ena")
                .contains("MTU of 9000 bytes is too large for XDP in the driver ena")
        );
        assert!(
            said(libc::EOPNOTSUPP, "vlan", "802.1Q VLAN Support")
                .contains("attach to the interface below eth0")
        );
        assert!(said(libc::EOPNOTSUPP, "", "virtio_net").contains("ethtool -K eth0"));
        assert!(said(libc::EOPNOTSUPP, "", "").contains("no driver"));
        assert!(said(libc::EIO, "", "i40e").contains("i40e refuses"));
    }
}
