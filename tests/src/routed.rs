//! A balancer between networks: what arrives on one interface leaves by another (`XDP_REDIRECT`).
//!
//! ```text
//!  client ── router ── r0 lb b0 ── backend 1
//!  .1.2    .1.1 .2.1   .2.2  .3.1   .3.2
//!                         b1 ── backend 2
//!                         .4.1    .4.2
//! ```
//!
//! 10.x and fd0x: the third number is the network's. The router sends the VIPs 192.0.2.10 and 2001:db8::10 to the
//! balancer. A frame is redirected into a veth only if the far end polls: GRO is on there, every other offload is as it
//! comes.

use crate::agent::Balancer;
use crate::topo::{self, BACKENDS, Family, machine};
use lb_userspace::lab::{Namespace, veth};
use std::sync::Arc;

/// The balancer's interface towards the clients.
pub const FRONT: &str = "r0";
/// Its interfaces towards the backends.
pub const BACK: [&str; BACKENDS] = ["b0", "b1"];

/// The network.
pub struct Routed {
    /// The balancer. First, so that it ends before its namespace does.
    pub lb: Balancer,
    /// The client.
    pub client: Arc<Namespace>,
    /// Between client and balancer.
    pub router: Arc<Namespace>,
    /// The backends, each on a link of its own.
    pub backends: [Arc<Namespace>; BACKENDS],
}

impl Routed {
    /// Makes the network. No agent runs.
    ///
    /// # Panics
    ///
    /// It cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let [client, router, lb] = ["client", "router", "lb"].map(machine);
        let backends = ["b1", "b2"].map(machine);
        veth(&client, "eth0", &router, "c0").unwrap();
        veth(&router, "l0", &lb, FRONT).unwrap();
        for (backend, link) in backends.iter().zip(BACK) {
            veth(&lb, link, backend, "eth0").unwrap();
            backend.gro("eth0", true).unwrap();
        }
        router.gro("l0", true).unwrap();
        router.forward().unwrap();
        lb.forward().unwrap();
        let address = |ns: &Namespace, link: &str, network: u8, host: u8| {
            ns.address(link, &format!("10.0.{network}.{host}/24")).unwrap();
            ns.address(link, &format!("fd00:{network}::{host}/64")).unwrap();
        };
        address(&client, "eth0", 1, 2);
        address(&router, "c0", 1, 1);
        address(&router, "l0", 2, 1);
        address(&lb, FRONT, 2, 2);
        default_route(&client, 1, 1);
        default_route(&lb, 2, 1);
        for to in ["192.0.2.0/24", "10.0.3.0/24", "10.0.4.0/24"] {
            router.route(to, "10.0.2.2").unwrap();
        }
        for to in ["2001:db8::/64", "fd00:3::/64", "fd00:4::/64"] {
            router.route(to, "fd00:2::2").unwrap();
        }
        let this = Self { lb: Balancer::new(lb), client, router, backends };
        for number in 0..BACKENDS {
            this.address_backend_link(number);
            let backend = &this.backends[number];
            address(backend, "eth0", network(number), 2);
            default_route(backend, network(number), 1);
        }
        this
    }

    /// Makes the network, starts an agent and attaches it everywhere.
    #[must_use]
    pub fn attached(mode: &str) -> Self {
        let mut this = Self::new();
        this.lb.start();
        this.lb.ok(&["attach", FRONT, BACK[0], BACK[1], "--mode", mode]);
        this
    }

    /// Gives the balancer's end of a backend's link its addresses.
    pub fn address_backend_link(&self, number: usize) {
        let network = network(number);
        self.lb.ns.address(BACK[number], &format!("10.0.{network}.1/24")).unwrap();
        self.lb.ns.address(BACK[number], &format!("fd00:{network}::1/64")).unwrap();
    }

    /// The VIP.
    #[must_use]
    pub fn vip(family: Family) -> &'static str {
        family.pick("192.0.2.10", "2001:db8::10")
    }

    /// A backend's address.
    #[must_use]
    pub fn backend(family: Family, number: usize) -> &'static str {
        family.pick(["10.0.3.2", "10.0.4.2"][number], ["fd00:3::2", "fd00:4::2"][number])
    }

    /// The client's address.
    #[must_use]
    pub fn client_address(family: Family) -> &'static str {
        family.pick("10.0.1.2", "fd00:1::2")
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
        let machines = [&self.client, &self.router, &self.lb.ns].into_iter().chain(&self.backends);
        topo::assert_clean(machines, &self.lb, allowed);
    }
}

impl Default for Routed {
    fn default() -> Self {
        Self::new()
    }
}

/// The network of a backend.
fn network(number: usize) -> u8 {
    [3, 4][number]
}

fn default_route(ns: &Namespace, network: u8, host: u8) {
    ns.route("default", &format!("10.0.{network}.{host}")).unwrap();
    ns.route("default", &format!("fd00:{network}::{host}")).unwrap();
}
