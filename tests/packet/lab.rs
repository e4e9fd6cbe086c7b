//! The balancer that cases run on: eight services, each with one backend, all reached through one interface.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_common::abi::{RouteEntry, route};
use lb_common::slot::Slot;
use lb_tests::frame::{Flow, Macs};
use lb_tests::kernel::{FlowId, Kernel, Owner};
use lb_tests::require;
use lb_userspace::dataplane::interfaces::index_of;
use lb_userspace::lab::{Namespace, veth};
use lb_userspace::model::{
    Announce, Backend, Desired, EncapChecksum, Listen, Mode, OnDown, Ports, Protocol, Service, Tracking,
};
use lb_userspace::plan::NextHop;

/// The loopback's index in every namespace: packets come in there unless a test says otherwise.
pub(crate) const LOOPBACK: u32 = 1;
/// Next hop and source of what goes to clients.
pub(crate) const TO_CLIENT: Macs = [2, 0, 0, 0, 9, 9, 2, 0, 0, 0, 0, 2];
/// Slots of every ring.
const SLOTS: u32 = 251;

/// A service with one backend, and a client of it.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) name: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) mode: Mode,
    pub(crate) vip: SocketAddr,
    pub(crate) client: SocketAddr,
    pub(crate) backend: SocketAddr,
    /// Next hop to the backend.
    pub(crate) macs: Macs,
}

impl Served {
    /// The first packet of the client.
    pub(crate) fn request(&self) -> Flow {
        Flow::new(self.protocol.number(), self.client, self.vip)
    }

    /// What the backend should get of it.
    pub(crate) fn request_out(&self, request: &Flow) -> Flow {
        request.clone().sent_to(self.to_backend(), self.macs)
    }

    /// The backend's reply.
    pub(crate) fn reply(&self) -> Flow {
        Flow::new(self.protocol.number(), self.client, self.backend).answered()
    }

    /// What the client should get of it.
    pub(crate) fn reply_out(&self, reply: &Flow) -> Flow {
        reply.clone().sent_from(self.vip, TO_CLIENT)
    }

    fn to_backend(&self) -> SocketAddr {
        if self.mode == Mode::Nat { self.backend } else { self.vip }
    }

    fn model(&self) -> Service {
        Service {
            name: self.name.into(),
            listen: Listen {
                protocol: self.protocol,
                address: self.vip.ip(),
                ports: Ports::One(self.vip.port()),
            },
            mode: self.mode,
            check: None,
            on_down: OnDown::Rehash,
            announce: Announce::None,
            idle_timeout: Duration::from_mins(1),
            tracking: Tracking::Adaptive,
            encap_checksum: EncapChecksum::None,
            echo: true,
            ring_size: SLOTS,
            backends: BTreeMap::from([(self.backend, Backend::new(self.backend, 100))]),
        }
    }
}

/// Every service: both modes, both families, both protocols.
pub(crate) fn all() -> Vec<Served> {
    let name = |protocol, v6, mode| match (protocol, v6, mode) {
        (Protocol::Tcp, false, Mode::Nat) => "tcp4-nat",
        (Protocol::Tcp, true, Mode::Nat) => "tcp6-nat",
        (Protocol::Udp, false, Mode::Nat) => "udp4-nat",
        (Protocol::Udp, true, Mode::Nat) => "udp6-nat",
        (Protocol::Tcp, false, Mode::L2) => "tcp4-l2",
        (Protocol::Tcp, true, Mode::L2) => "tcp6-l2",
        (Protocol::Udp, false, Mode::L2) => "udp4-l2",
        (Protocol::Udp, true, Mode::L2) => "udp6-l2",
        _ => unreachable!("services begin in two modes"),
    };
    let mut all = Vec::new();
    for mode in [Mode::Nat, Mode::L2] {
        for v6 in [false, true] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let (port, backend_port, last) =
                    if mode == Mode::Nat { (80, 8080, 1) } else { (443, 443, 2) };
                let (vip, client, backend): (IpAddr, IpAddr, IpAddr) = if v6 {
                    let [vip, client] = ["2001:db8::80", "2001:db8:1::7"].map(address);
                    (vip, client, [0xfd00, 0, 0, 0, 0, 0, 0, last].into())
                } else {
                    (address("192.0.2.80"), address("198.51.100.7"), [10, 0, 0, last as u8].into())
                };
                all.push(Served {
                    name: name(protocol, v6, mode),
                    protocol,
                    mode,
                    vip: SocketAddr::new(vip, port),
                    client: SocketAddr::new(client, 5000),
                    backend: SocketAddr::new(backend, backend_port),
                    macs: hop(last as u8),
                });
            }
        }
    }
    all
}

/// The services in NAT mode: those that rewrite what checksums cover.
pub(crate) fn nat() -> impl Iterator<Item = Served> {
    all().into_iter().filter(|served| served.mode == Mode::Nat)
}

/// One service.
pub(crate) fn served(name: &str) -> Served {
    all().into_iter().find(|served| served.name == name).expect("a service of this name")
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// MACs on the way to a backend.
pub(crate) fn hop(last: u8) -> Macs {
    [2, 0, 0, 0, 1, last, 2, 0, 0, 0, 0, 2]
}

/// A loaded balancer in a namespace of its own.
pub(crate) struct Lab<'n> {
    pub(crate) kernel: Kernel,
    pub(crate) namespace: &'n Namespace,
    pub(crate) desired: Desired,
}

/// Runs a test on a fresh balancer that serves [`all`] through the loopback.
pub(crate) fn in_lab(test: impl FnOnce(&mut Lab<'_>) + Send) {
    if !require::root() {
        return;
    }
    let namespace = Namespace::create_unique("lbpkt").expect("a network namespace");
    let inside = || {
        let services =
            all().into_iter().map(|served| (served.name.to_owned(), served.model().into())).collect();
        let desired = Desired { services, ..Desired::default() };
        let mut lab = Lab { kernel: Kernel::open(), namespace: &namespace, desired };
        lab.behind(LOOPBACK);
        lab.kernel.tables.routes.publish(&[gateway(false)], &[gateway(true)]).expect("room for two routes");
        test(&mut lab);
    };
    namespace.run(inside).expect("the namespace can be entered");
}

/// The default route of a family.
pub(crate) fn gateway(v6: bool) -> RouteEntry {
    let (prefix, mask) = if v6 { ("::", "::") } else { ("0.0.0.0", "0.0.0.0") };
    RouteEntry { kind: route::kind::GATEWAY, macs: TO_CLIENT, ..way(prefix, mask) }
}

/// A route through the loopback that is to be asked for.
pub(crate) fn way(prefix: &str, mask: &str) -> RouteEntry {
    RouteEntry {
        prefix: address(prefix).into(),
        mask: address(mask).into(),
        kind: route::kind::ASK,
        ifindex: LOOPBACK,
        macs: [0; 12],
        mtu: 1500,
        reserved: [0; 2],
    }
}

impl Lab<'_> {
    /// Serves what is desired, every backend behind an interface.
    pub(crate) fn behind(&mut self, ifindex: u32) {
        for served in all() {
            self.kernel.hops.insert(served.backend.ip(), NextHop { macs: served.macs, ifindex, mtu: 1500 });
        }
        self.serve();
    }

    /// Serves what is desired now.
    pub(crate) fn serve(&mut self) {
        self.kernel.serve(&self.desired);
    }

    /// Changes what is desired of a service, and serves it.
    pub(crate) fn change(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        change(self.desired.service_mut(name).expect("a service of this name"));
        self.serve();
    }

    /// Changes every slot of a service, as the agent does when windows end.
    pub(crate) fn slots(&mut self, name: &str, change: impl Fn(Slot) -> Slot) {
        let service = self.kernel.service(name);
        for (index, word) in (0..).zip(self.kernel.tables.rings.read(service.ring, service.slots)) {
            let word = change(Slot(word)).0;
            self.kernel.tables.rings.write(service.ring, index, word).expect("a slot of the ring");
        }
    }

    /// The flow of a service's client from one of its ports, as the tables know it.
    pub(crate) fn id(&self, served: &Served, port: u16) -> FlowId {
        let service = self.kernel.service(served.name).id;
        FlowId { client: served.client.ip(), ports: [port, served.vip.port()], service }
    }

    /// The backend, as entries of flows name it.
    pub(crate) fn owner(&self, served: &Served) -> Owner {
        let (index, entry) = self.kernel.backend(served.name, served.backend.ip());
        (index, entry.generation)
    }

    /// Makes a pair of veths in this namespace, both up. Gives the index of the first.
    pub(crate) fn veth(&self, one: &str, other: &str) -> u32 {
        veth(self.namespace, one, self.namespace, other).expect("a pair of veths");
        index_of(one).expect("it was just made")
    }

    /// Lets frames leave through an interface.
    pub(crate) fn allow(&self, ifindex: u32) {
        let mut interfaces = self.kernel.dataplane.interfaces().expect("the devices are pinned");
        interfaces.allow_egress(ifindex).expect("an interface of this namespace");
    }
}
