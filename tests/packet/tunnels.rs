//! Receivers that are not ours: the kernel's own tunnel devices take out of outer packets what the program put there.
//!
//! Not every kernel has them. Guests (`cargo xtask kernels`) promise theirs, and set `LB_TEST_TUNNELS`.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use lb_tests::frame::UDP;
use lb_tests::gue;
use lb_userspace::lab::{Inside, Namespace, veth};
use lb_userspace::model::Mode;

use crate::encap::{SOURCES, encapsulating, sent};
use crate::lab::{Lab, Served, address, all, hop, in_lab};

/// Where packets of the mode `gue` go.
const PORT: u16 = 6080;
/// A datagram that has not come by then will not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A backend that knows only what the kernel has: a service's address on `lo`, and a tunnel device.
fn backend(lab: &Lab<'_>, served: &Served, mode: Mode, outer_v6: bool) -> anyhow::Result<Namespace> {
    let backend = Namespace::create_unique("lbtun")?;
    for key in ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter"] {
        // The way back to clients is somebody else's matter.
        backend.sysctl(key, "0")?;
    }
    veth(lab.namespace, "out", &backend, "eth0")?;
    backend.mac("eth0", hop(77)[..6].try_into()?)?;
    backend.up("lo")?;
    let (own, from) = if outer_v6 { ("fd00::77", SOURCES[1]) } else { ("10.0.0.77", SOURCES[0]) };
    backend.address("eth0", &format!("{own}/{}", if outer_v6 { 64 } else { 24 }))?;
    let vip = served.vip.ip();
    backend.address("lo", &format!("{vip}/{}", if vip.is_ipv4() { 32 } else { 128 }))?;
    let from = from.split('/').next().map_or_else(|| address(own), address);
    let inside = if vip.is_ipv4() { Inside::V4 } else { Inside::V6 };
    backend.tunnel("tunnel", [address(own), from], inside)?;
    if mode == Mode::Gue {
        backend.run(|| gue::open(PORT, outer_v6))??;
    }
    Ok(backend)
}

/// Whether this kernel must have tunnel devices.
fn promised() -> bool {
    std::env::var("LB_TEST_TUNNELS").is_ok_and(|value| value == "1")
}

#[test]
fn the_kernel_takes_packets_out_of_others() {
    in_lab(|lab| {
        for served in all().iter().filter(|served| served.mode == Mode::L2 && served.protocol.number() == UDP)
        {
            for mode in [Mode::Ipip, Mode::Gue] {
                for outer_v6 in [false, true] {
                    let served = encapsulating(lab, served, mode, outer_v6);
                    let name = format!("{} {mode}, outer {}", served.name, if outer_v6 { 6 } else { 4 });
                    match backend(lab, &served, mode, outer_v6) {
                        Ok(backend) => arrives(lab, &served, &backend, &name),
                        Err(error) if !promised() => eprintln!("skipped: {name}: {error:#}"),
                        Err(error) => panic!("{name}: {error:#}"),
                    }
                    let _ = lab.namespace.delete_link("out");
                }
            }
        }
    });
}

/// A datagram of the client comes to the service's address on the backend, from the client.
fn arrives(lab: &Lab<'_>, served: &Served, backend: &Namespace, name: &str) {
    let socket = backend.run(|| UdpSocket::bind(served.vip)).expect("the namespace can be entered");
    let socket = socket.expect("the service's address is on lo");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for n in 0..3_u8 {
        let content = vec![n; 100];
        let frame = sent(lab, &served.request().carrying(content.clone()).build());
        lab.namespace.send("out", &frame).expect("the link takes it");
        let mut buffer = [0; 2000];
        let (length, from): (usize, SocketAddr) =
            socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{name}: nothing came: {error}"));
        assert_eq!((&buffer[..length], from), (&content[..], served.client), "{name}");
    }
    assert_eq!(backend.checksum_errors().expect("counters"), 0, "{name}");
}
