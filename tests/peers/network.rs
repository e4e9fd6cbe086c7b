//! The network that every way is measured in, made once.
//!
//! ```text
//! client eth0 ── front lb back ── lb switch b1 b2 ── eth0 b1, b2
//! ```
//!
//! The balancer's machine routes between its two segments, and is the backends' gateway. Offloads are as they come.

use std::net::Ipv4Addr;

use anyhow::Result;
use lb_userspace::lab::{Namespace, veth};
use lb_userspace::net::features;

use crate::ways::Way;

/// Beginning of the names of namespaces, and of pins.
pub(crate) const PREFIX: &str = "lb-peers";
/// Where the service of `lb` is. It is nobody's address: the agent answers for it.
pub(crate) const LB_VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// Where the other balancers' services are: an address of the balancer's machine.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
/// Where backends are.
pub(crate) const BACKENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 11, 0, 11), Ipv4Addr::new(10, 11, 0, 12)];
/// Where they serve HTTP, and the service too.
pub(crate) const WEB: u16 = 80;
/// Where they echo datagrams, and the service too.
pub(crate) const ECHO: u16 = 7;
/// The balancer's interfaces.
pub(crate) const INTERFACES: [&str; 2] = ["front", "back"];

/// The client's address when the way of this number has its turn.
fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 2, 101)) + u32::try_from(number).unwrap_or(0))
}

/// The namespaces. Dropping it removes them, with the processes in them.
pub(crate) struct Network {
    pub(crate) client: Namespace,
    pub(crate) balancer: Namespace,
    pub(crate) switch: Namespace,
    pub(crate) backends: [Namespace; BACKENDS.len()],
}

impl Network {
    /// Makes it.
    ///
    /// # Errors
    /// Not root, or the names are taken.
    pub(crate) fn build() -> Result<Self> {
        let make = |name: &str| Namespace::create(&format!("{PREFIX}-{name}"));
        let this = Self {
            client: make("client")?,
            balancer: make("lb")?,
            switch: make("switch")?,
            backends: [make("b1")?, make("b2")?],
        };
        let Self { client, balancer, switch, backends } = &this;
        let [front, back] = INTERFACES;
        balancer.forward()?;
        veth(client, "eth0", balancer, front)?;
        for number in 0..Way::ALL.len() {
            client.address("eth0", &format!("{}/24", source(number)))?;
        }
        balancer.address(front, "192.0.2.1/24")?;
        balancer.address(front, &format!("{VIP}/32"))?;
        client.route("default", "192.0.2.1")?;
        switch.bridge("br0")?;
        switch.up("br0")?;
        // A switch has no firewall: where the kernel can pass bridged frames to one, it does so by default.
        for key in ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-arptables"] {
            if switch.read_sysctl(key).is_ok() {
                switch.sysctl(key, "0")?;
            }
        }
        veth(balancer, back, switch, "lb")?;
        switch.bridge_port("br0", "lb")?;
        balancer.address(back, "10.11.0.1/24")?;
        for ((backend, address), port) in backends.iter().zip(BACKENDS).zip(["b1", "b2"]) {
            veth(backend, "eth0", switch, port)?;
            switch.bridge_port("br0", port)?;
            backend.address("eth0", &format!("{address}/24"))?;
            backend.route("default", "10.11.0.1")?;
        }
        // Whoever opens many short connections to few addresses has this: the client, and proxies.
        for machine in [client, balancer] {
            machine.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
            machine.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
        }
        for machine in [balancer].into_iter().chain(backends) {
            machine.sysctl("net.core.somaxconn", "4096")?;
        }
        Ok(this)
    }

    /// Lets the client's packets come from the address of a way. Servers remember a closed connection for a minute
    /// (TIME-WAIT), and refuse a new one from the same port at first if it numbers its bytes and times in another way
    /// (RFC 6191), as a client does towards another address: ways would disturb each other.
    ///
    /// # Errors
    /// The kernel refuses the route.
    pub(crate) fn source(&self, number: usize) -> Result<()> {
        let source = source(number).to_string();
        let set = |route: &[&str]| {
            self.client.output("ip", &[&["route", "replace"], route, &["src", &source]].concat()).map(drop)
        };
        set(&["192.0.2.0/24", "dev", "eth0", "proto", "kernel", "scope", "link"])?;
        set(&["default", "via", "192.0.2.1"])
    }

    /// The ends of the balancer's two links, its own and the far ones.
    pub(crate) fn ends(&self) -> [(&Namespace, &'static str); 4] {
        let [front, back] = INTERFACES;
        [(&self.client, "eth0"), (&self.balancer, front), (&self.balancer, back), (&self.switch, "lb")]
    }

    /// Whether each of these offloads is on at the ends of the balancer's links: `lb` must leave them as they were.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn offloads(&self) -> Result<Vec<String>> {
        let mut on = Vec::new();
        for (machine, link) in self.ends() {
            let device = machine.run(|| features::device(link))??;
            let mut names: Vec<_> =
                device.features.iter().filter(|(_, f)| f.active).map(|(name, _)| name.as_str()).collect();
            names.sort_unstable();
            on.push(format!("{}: {}", machine.name(), names.join(" ")));
        }
        Ok(on)
    }
}
