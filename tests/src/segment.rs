//! Several balancers and backends on one segment, for both modes at once.
//!
//! ```text
//!  client ── router ──┐          ┌── balancers  .2.2, .2.3
//!  .1.2    .1.1 .2.1  ├─ bridge ─┤
//!  .1.3               ┘          └── backends   .2.11, .2.12, …
//! ```
//!
//! 10.0.N and fd00:N. The router sends 192.0.2.0/24 and 2001:db8::/64 to the first balancer. What was asked from the
//! client's .1.2 is answered through that balancer (NAT), what was asked from .1.3 directly (L2: [`DIRECT`] is on the
//! backends' loopback).

use crate::agent::{Balancer, Ran, binary};
use crate::topo::{self, Family, machine};
use lb_userspace::lab::{Namespace, veth};
use std::path::PathBuf;
use std::sync::Arc;

/// A balancer's interface.
pub const ARM: &str = "eth0";
/// VIP of services in NAT mode.
pub const TRANSLATED: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
/// VIP of services in L2 mode.
pub const DIRECT: [&str; 2] = ["192.0.2.11", "2001:db8::11"];
/// Addresses of the client: the one answered through the balancer, and the one answered directly.
pub const CLIENT: [[&str; 2]; 2] = [["10.0.1.2", "fd00:1::2"], ["10.0.1.3", "fd00:1::3"]];

/// The network.
pub struct Segment {
    /// The balancers. First, so that they end before their namespaces do.
    pub balancers: Vec<Balancer>,
    /// Behind the router.
    pub client: Arc<Namespace>,
    /// Between client and segment.
    pub router: Arc<Namespace>,
    /// The backends.
    pub backends: Vec<Arc<Namespace>>,
    switch: Arc<Namespace>,
}

impl Segment {
    /// Makes the network. No agent runs.
    ///
    /// # Panics
    ///
    /// It cannot be made.
    #[must_use]
    pub fn new(balancers: usize, backends: usize) -> Self {
        let [client, router, switch] = ["client", "router", "switch"].map(machine);
        let machines = |role: &str, count: usize| -> Vec<_> {
            (1..=count).map(|number| machine(&format!("{role}{number}"))).collect()
        };
        let (balancers, backends) = (machines("lb", balancers), machines("b", backends));
        switch.bridge("br0").unwrap();
        veth(&client, "eth0", &router, "eth0").unwrap();
        for (number, ns) in std::iter::once(&router).chain(&balancers).chain(&backends).enumerate() {
            let (port, link) = (format!("p{number}"), if number == 0 { "l0" } else { ARM });
            veth(ns, link, &switch, &port).unwrap();
            switch.bridge_port("br0", &port).unwrap();
            // A port takes what XDP sends back only if it has a program itself.
            let mut command = switch.command(binary());
            let ran = Ran::of(command.args(["pass", &port, "--pins"]).arg(pins(&switch)));
            assert_eq!(ran.code, 0, "{}", ran.stderr);
        }
        router.forward().unwrap();
        let address = |ns: &Namespace, link: &str, network: u8, host: usize| {
            ns.address(link, &format!("10.0.{network}.{host}/24")).unwrap();
            ns.address(link, &format!("fd00:{network}::{host}/64")).unwrap();
        };
        let gateway = |ns: &Namespace, network: u8, host: usize| {
            ns.route("default", &format!("10.0.{network}.{host}")).unwrap();
            ns.route("default", &format!("fd00:{network}::{host}")).unwrap();
        };
        address(&client, "eth0", 1, 2);
        address(&client, "eth0", 1, 3);
        address(&router, "eth0", 1, 1);
        address(&router, "l0", 2, 1);
        gateway(&client, 1, 1);
        for (number, balancer) in balancers.iter().enumerate() {
            balancer.forward().unwrap();
            address(balancer, ARM, 2, 2 + number);
            gateway(balancer, 2, 1);
        }
        for (number, backend) in backends.iter().enumerate() {
            // An address that is on a loopback is nobody else's business on the segment.
            backend.sysctl("net.ipv4.conf.all.arp_ignore", "1").unwrap();
            backend.sysctl("net.ipv4.conf.all.arp_announce", "2").unwrap();
            address(backend, ARM, 2, 11 + number);
            gateway(backend, 2, 2);
            for (vip, (to, via)) in DIRECT.iter().zip(CLIENT[1].iter().zip(["10.0.2.1", "fd00:2::1"])) {
                let length = if vip.contains(':') { 128 } else { 32 };
                backend.address("lo", &format!("{vip}/{length}")).unwrap();
                backend.route(&format!("{to}/{length}"), via).unwrap();
            }
        }
        router.route("192.0.2.0/24", "10.0.2.2").unwrap();
        router.route("2001:db8::/64", "fd00:2::2").unwrap();
        let balancers = balancers.into_iter().map(Balancer::new).collect();
        Self { balancers, client, router, backends, switch }
    }

    /// A backend's address.
    #[must_use]
    pub fn backend(family: Family, number: usize) -> String {
        let host = 11 + number;
        match family {
            Family::V4 => format!("10.0.2.{host}"),
            Family::V6 => format!("fd00:2::{host}"),
        }
    }

    /// See [`topo::assert_clean`].
    #[track_caller]
    pub fn assert_clean(&self, allowed: &[&str]) {
        for balancer in &self.balancers {
            let machines = [&self.client, &self.router, &balancer.ns].into_iter().chain(&self.backends);
            topo::assert_clean(machines, balancer, allowed);
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Links go with their pins.
        let _ = std::fs::remove_dir_all(format!("{}-pass", pins(&self.switch).display()));
    }
}

/// Where the switch's programs are pinned.
fn pins(switch: &Namespace) -> PathBuf {
    PathBuf::from(format!("/sys/fs/bpf/{}", switch.name()))
}
