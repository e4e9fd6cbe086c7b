//! A balancer with one arm: it sends packets back out of the interface that they came in by (`XDP_TX`).
//!
//! ```text
//!  client ── router ──┐          ┌── lb
//!  .1.2    .1.1 .2.1  ├─ bridge ─┼── backend 1  .2.11
//!  neighbour .2.9 ────┘          └── backend 2  .2.12
//! ```
//!
//! Everything right of the router is one segment, 10.0.2.0/24 and fd00:2::/64. The ports of the bridge are veths whose
//! other ends run XDP or get frames from it: they have the pass program. Every offload is as it comes.

use crate::agent::{Balancer, Ran, binary};
use crate::topo::{self, BACKENDS, Family, machine};
use lb_userspace::lab::{Namespace, veth};
use std::path::PathBuf;
use std::sync::Arc;

/// The balancer's interface.
pub const ARM: &str = "eth0";

/// How replies get back, and so how backends are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Through the balancer: it is the backends' gateway.
    Balancer,
    /// Directly: the VIPs lie on the backends' loopback, their gateway is the router.
    Direct,
}

/// The network.
pub struct Lan {
    /// The balancer. First, so that it ends before its namespace does.
    pub lb: Balancer,
    /// Behind the router.
    pub client: Arc<Namespace>,
    /// Between client and segment.
    pub router: Arc<Namespace>,
    /// On the segment, knowing nothing but its own address.
    pub neighbour: Arc<Namespace>,
    /// The backends.
    pub backends: [Arc<Namespace>; BACKENDS],
    switch: Arc<Namespace>,
    pass: PathBuf,
}

impl Lan {
    /// Makes the network, starts an agent and attaches it.
    ///
    /// # Panics
    ///
    /// It cannot be made.
    #[must_use]
    pub fn attached(way: Return) -> Self {
        let [client, router, switch, neighbour, lb] =
            ["client", "router", "switch", "near", "lb"].map(machine);
        let backends = ["b1", "b2"].map(machine);
        switch.bridge("br0").unwrap();
        veth(&client, "eth0", &router, "c0").unwrap();
        let pass = PathBuf::from(format!("/sys/fs/bpf/{}", switch.name()));
        let ends = [
            (&router, "l0"),
            (&neighbour, "eth0"),
            (&lb, ARM),
            (&backends[0], "eth0"),
            (&backends[1], "eth0"),
        ];
        for (number, (ns, link)) in ends.into_iter().enumerate() {
            let port = format!("p{number}");
            veth(ns, link, &switch, &port).unwrap();
            switch.bridge_port("br0", &port).unwrap();
        }
        router.forward().unwrap();
        lb.forward().unwrap();
        let address = |ns: &Namespace, link: &str, network: u8, host: &str| {
            ns.address(link, &format!("10.0.{network}.{host}/24")).unwrap();
            ns.address(link, &format!("fd00:{network}::{host}/64")).unwrap();
        };
        address(&client, "eth0", 1, "2");
        address(&router, "c0", 1, "1");
        address(&router, "l0", 2, "1");
        address(&lb, ARM, 2, "2");
        address(&neighbour, "eth0", 2, "9");
        let gateway = |ns: &Namespace, network: u8, host: &str| {
            ns.route("default", &format!("10.0.{network}.{host}")).unwrap();
            ns.route("default", &format!("fd00:{network}::{host}")).unwrap();
        };
        gateway(&client, 1, "1");
        gateway(&lb, 2, "1");
        for (number, backend) in backends.iter().enumerate() {
            // An address that is on a loopback is nobody else's business on the segment.
            backend.sysctl("net.ipv4.conf.all.arp_ignore", "1").unwrap();
            backend.sysctl("net.ipv4.conf.all.arp_announce", "2").unwrap();
            address(backend, "eth0", 2, ["11", "12"][number]);
            match way {
                Return::Balancer => gateway(backend, 2, "2"),
                Return::Direct => {
                    gateway(backend, 2, "1");
                    for vip in Family::BOTH.map(Self::vip) {
                        let length = if vip.contains(':') { 128 } else { 32 };
                        backend.address("lo", &format!("{vip}/{length}")).unwrap();
                    }
                }
            }
        }
        let mut this = Self { lb: Balancer::new(lb), client, router, neighbour, backends, switch, pass };
        this.pass_on_ports(5);
        this.lb.start();
        this.lb.ok(&["attach", ARM]);
        this
    }

    /// As people do it: by `lb pass`, which needs no agent.
    fn pass_on_ports(&self, count: usize) {
        for port in (0..count).map(|number| format!("p{number}")) {
            let mut command = self.switch.command(binary());
            let ran = Ran::of(command.args(["pass", &port, "--pins"]).arg(&self.pass));
            assert_eq!(ran.code, 0, "{}", ran.stderr);
        }
    }

    /// The VIP: an address of the segment.
    #[must_use]
    pub fn vip(family: Family) -> &'static str {
        family.pick("10.0.2.100", "fd00:2::100")
    }

    /// A backend's address.
    #[must_use]
    pub fn backend(family: Family, number: usize) -> &'static str {
        family.pick(["10.0.2.11", "10.0.2.12"][number], ["fd00:2::11", "fd00:2::12"][number])
    }

    /// Adds a service on port 80 with all backends at port 80, and waits until they are ready.
    #[track_caller]
    pub fn add_service(&self, name: &str, family: Family, options: &[&str]) {
        let listen = format!("tcp://{}", family.socket(Self::vip(family), 80));
        let backends: [String; BACKENDS] =
            std::array::from_fn(|number| family.socket(Self::backend(family, number), 80));
        let mut arguments = vec!["service", "add", name, &listen];
        for backend in &backends {
            arguments.extend(["--backend", backend]);
        }
        arguments.extend(options);
        self.lb.ok(&arguments);
        self.lb.until_ready(name);
    }

    /// See [`topo::assert_clean`].
    #[track_caller]
    pub fn assert_clean(&self, allowed: &[&str]) {
        let machines = [&self.client, &self.router, &self.neighbour, &self.lb.ns];
        topo::assert_clean(machines.into_iter().chain(&self.backends), &self.lb, allowed);
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // Links go with their pins.
        let _ = std::fs::remove_dir_all(format!("{}-pass", self.pass.display()));
    }
}
