//! The network of the demonstration: seven namespaces, six veth pairs, a bridge.
//!
//! ```text
//! client eth0 ── front lb back ── lb switch b1…b4 ── eth0 b1…b4
//! ```
//!
//! The client is on the balancer's front segment, so the balancer itself answers ARP and neighbour discovery for the
//! service addresses. The backends' default route is the balancer, as `nat` mode needs. Checksum offload stays as the
//! kernel has it. What the far ends of the attached interfaces need is `lb pass`, run by [`super::story`].

use crate::lab::{Namespace, veth};
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Backends.
pub(super) const BACKENDS: usize = 4;
/// Port of the web service.
pub(super) const WEB_PORT: u16 = 80;
/// Port of the UDP service.
pub(super) const ECHO_PORT: u16 = 7;
/// Port where backends serve HTTP: another one than the service's, which shows that ports are rewritten.
pub(super) const BACKEND_WEB_PORT: u16 = 8080;
/// Port where backends echo datagrams.
pub(super) const BACKEND_ECHO_PORT: u16 = 7007;
/// Service address, IPv4 (RFC 5737).
pub(super) const VIP4: &str = "192.0.2.10";
/// Service address, IPv6 (RFC 3849).
pub(super) const VIP6: &str = "2001:db8::10";
/// Interface of the balancer towards the client.
pub(super) const FRONT: &str = "front";
/// Interface of the balancer towards the backends.
pub(super) const BACK: &str = "back";
/// Interface of the client and of each backend.
pub(super) const UPLINK: &str = "eth0";
/// Port of the switch towards the balancer.
pub(super) const SWITCH_PORT: &str = "lb";

const CLIENT: [&str; 2] = ["192.0.2.2/24", "2001:db8::2/64"];
const BALANCER_FRONT: [&str; 2] = ["192.0.2.1/24", "2001:db8::1/64"];
const BALANCER_BACK: [&str; 2] = ["10.11.0.1/24", "fd00:11::1/64"];
const BALANCER: [&str; 2] = ["10.11.0.1", "fd00:11::1"];
const BRIDGE: &str = "br0";

/// The namespaces. Dropping it removes them, with the processes in them.
#[derive(Debug)]
pub(super) struct Network {
    /// Sends the traffic.
    pub(super) client: Namespace,
    /// Where the agent runs.
    pub(super) balancer: Namespace,
    /// A bridge between the balancer and the backends.
    pub(super) switch: Namespace,
    /// `b1` to `b4`.
    pub(super) backends: Vec<Namespace>,
}

/// Name of a backend: `b1` is number 0.
pub(super) fn backend_name(backend: usize) -> String {
    format!("b{}", backend + 1)
}

/// Addresses of a backend, IPv4 first: `10.11.0.11` and `fd00:11::11` for `b1`.
pub(super) fn backend_addresses(backend: usize) -> [IpAddr; 2] {
    // There are four: the digits of the last group read the same in both families.
    let digits = [(11, 0x11), (12, 0x12), (13, 0x13), (14, 0x14)];
    let (v4, v6) = digits[backend % digits.len()];
    [Ipv4Addr::new(10, 11, 0, v4).into(), Ipv6Addr::new(0xfd00, 0x11, 0, 0, 0, 0, 0, v6).into()]
}

impl Network {
    /// Builds it. Names begin with `prefix` and a dash.
    ///
    /// # Errors
    ///
    /// Not root, or one of the names is taken.
    pub(super) fn build(prefix: &str) -> Result<Self> {
        let make = |name: &str| Namespace::create(&format!("{prefix}-{name}"));
        let network = Self {
            client: make("client")?,
            balancer: make("lb")?,
            switch: make("switch")?,
            backends: (0..BACKENDS).map(|backend| make(&backend_name(backend))).collect::<Result<_>>()?,
        };
        network.balancer.forward()?;
        network.front()?;
        network.back()?;
        Ok(network)
    }

    fn front(&self) -> Result<()> {
        veth(&self.client, UPLINK, &self.balancer, FRONT)?;
        for (client, balancer) in CLIENT.into_iter().zip(BALANCER_FRONT) {
            self.client.address(UPLINK, client)?;
            self.balancer.address(FRONT, balancer)?;
        }
        Ok(())
    }

    fn back(&self) -> Result<()> {
        self.switch.bridge(BRIDGE)?;
        self.switch.up(BRIDGE)?;
        veth(&self.balancer, BACK, &self.switch, SWITCH_PORT)?;
        self.switch.bridge_port(BRIDGE, SWITCH_PORT)?;
        for address in BALANCER_BACK {
            self.balancer.address(BACK, address)?;
        }
        for (number, backend) in self.backends.iter().enumerate() {
            let port = backend_name(number);
            veth(backend, UPLINK, &self.switch, &port)?;
            self.switch.bridge_port(BRIDGE, &port)?;
            for (address, length) in backend_addresses(number).into_iter().zip([24, 64]) {
                backend.address(UPLINK, &format!("{address}/{length}"))?;
            }
            for gateway in BALANCER {
                backend.route("default", gateway)?;
            }
        }
        Ok(())
    }

    /// Every namespace.
    pub(super) fn all(&self) -> impl Iterator<Item = &Namespace> {
        [&self.client, &self.balancer, &self.switch].into_iter().chain(&self.backends)
    }

    /// Packets that any of them dropped for a wrong checksum.
    ///
    /// # Errors
    ///
    /// The kernel's counters cannot be read.
    pub(super) fn checksum_errors(&self) -> Result<u64> {
        self.all().map(Namespace::checksum_errors).sum()
    }

    /// Lets the namespaces stay when this value is dropped.
    pub(super) fn keep(&mut self) {
        for namespace in
            [&mut self.client, &mut self.balancer, &mut self.switch].into_iter().chain(&mut self.backends)
        {
            namespace.keep();
        }
    }
}
