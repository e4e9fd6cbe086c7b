//! A small balancer that a few bytes describe: one service, two backends, one way back.

use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{
    BackendEntry, Correction, Key, NeighbourEntry, ReverseEntry, RouteEntry, ServiceEntry, limits, route,
    service,
};
use lb_common::addr::Family;
use lb_common::host::HostTables;
use lb_common::pipeline::Hop;
use lb_common::slot::Slot;

pub use crate::frame::Macs;
use crate::frame::{TCP, UDP};

/// Bytes that describe it.
pub const BYTES: usize = 4;
/// The service's number.
pub const SERVICE: u32 = 1;
/// The first backend's row of counters; that of the second follows.
pub const ROW: u32 = 20;
/// The first backend's place.
const BACKENDS: u32 = 16;
/// MACs on the way to a backend, but for the last byte of the first, which is its number.
const TO_BACKEND: Macs = [2, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 2];
/// MACs on the way to clients.
pub const TO_CLIENT: Macs = [2, 0, 0, 0, 9, 9, 2, 0, 0, 0, 0, 2];
const SLOTS: u32 = 31;

/// What the frame is made into before it comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// It stays as it is.
    Nowhere,
    /// A packet to the service.
    Service,
    /// A packet of the first backend.
    Backend,
}

/// The balancer, and what is known of it.
pub struct World {
    /// What the program sees.
    pub tables: HostTables,
    /// Where the service listens.
    pub vip: SocketAddr,
    /// Its backends.
    pub backends: [SocketAddr; 2],
    /// The one client that is known to the kernel and, if there is a table, to the table of neighbours.
    pub client: IpAddr,
    /// Every other client is behind a gateway.
    pub gateway: bool,
    /// TCP or UDP.
    pub protocol: u8,
    /// Mode `nat`, else `l2`.
    pub nat: bool,
    /// What the frame is made into.
    pub aim: Aim,
    /// The frame's checksums are made right.
    pub finish: bool,
}

impl World {
    /// Reads a description: the balancer, its backends, its slots, and what becomes of the frame.
    pub fn new([kind, states, slots, frame]: [u8; BYTES]) -> Self {
        let set = |byte: u8, bit: u8| byte >> bit & 1 != 0;
        // Bit 3: generic mode; 4 and 5: tracking; 6 and 7: the route.
        let (v6, udp, nat) = (set(kind, 0), set(kind, 1), set(kind, 2));
        let protocol = if udp { UDP } else { TCP };
        let (vip, client, backends): (IpAddr, IpAddr, [IpAddr; 2]) = if v6 {
            let net = |last| [0xfd00, 0, 0, 0, 0, 0, 0, last].into();
            let public = |net, last| [0x2001, 0xdb8, net, 0, 0, 0, 0, last].into();
            (public(0, 0x80), public(1, 7), [net(1), net(2)])
        } else {
            ([192, 0, 2, 80].into(), [198, 51, 100, 7].into(), [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()])
        };
        let vip = SocketAddr::new(vip, 80);
        let backends = backends.map(|ip| SocketAddr::new(ip, if nat { 8080 } else { 80 }));
        let mut world = Self {
            tables: HostTables { generic: set(kind, 3), ..HostTables::default() },
            vip,
            backends,
            client,
            gateway: u32::from(kind >> 6) == route::kind::GATEWAY,
            protocol,
            nat,
            aim: match frame & 3 {
                1 => Aim::Service,
                2 => Aim::Backend,
                _ => Aim::Nowhere,
            },
            finish: set(frame, 2),
        };
        let mode = if nat { service::flags::NAT } else { service::flags::L2 };
        let tracking = u32::from(kind >> 4 & 3) << 8;
        // `always` and `never` at once is no configuration.
        let tracking = if tracking == 0x300 { 0 } else { tracking };
        let entry = world.serve(mode | tracking, states);
        world.slots(&entry, slots);
        world.routes(if v6 { Family::V6 } else { Family::V4 }, u32::from(kind >> 6));
        world
    }

    fn serve(&mut self, flags: u32, states: u8) -> ServiceEntry {
        let key = key_of(self.vip, self.protocol);
        let entry = ServiceEntry {
            key,
            id: SERVICE,
            ring: 4,
            slots: SLOTS,
            backends: BACKENDS,
            capacity: 2,
            seed: 99,
            flags,
            sum: key.sum(),
            pad: 0,
            past: 19,
            ports: [0; 2],
        };
        self.tables.put_service(entry);
        for (n, backend) in (0..).zip(self.backends) {
            let (service, own) = (endpoint(self.vip), endpoint(backend));
            self.tables.backends[Self::place(n)] = BackendEntry {
                addr: own.0,
                macs: Self::to_backend(n),
                // The second is behind an interface that only some of these balancers may send through.
                ifindex: n + 1,
                port: own.1,
                // Three bits each: reachable, selectable, resolved.
                flags: u16::from(states >> (3 * n) & 7),
                generation: 10 + n,
                counters: ROW + n,
                mtu: 1500,
                correction: Correction::new(service, own),
                reserved: [0; 3],
            };
            if self.nat {
                let key = key_of(backend, self.protocol);
                let correction = Correction::new(own, service);
                self.tables.put_reverse(ReverseEntry {
                    key,
                    service: SERVICE,
                    counters: ROW + n,
                    vip: service.0,
                    port: service.1,
                    sum: key.sum(),
                    correction,
                    first: 0,
                    pad: 0,
                    reserved: [0; 2],
                });
            }
        }
        if states >> 6 & 1 != 0 {
            self.tables.devices.insert(2);
        }
        entry
    }

    /// A backend's place in `BACKENDS`.
    pub const fn place(n: u32) -> usize {
        (BACKENDS + n) as usize
    }

    /// Which backend a frame was sent to.
    ///
    /// # Panics
    /// When it is none.
    pub fn backend_of(out: &[u8]) -> u32 {
        let n = u32::from(out[5]);
        assert!(n < 2, "sent to nobody: {:02x?}", &out[..12]);
        n
    }

    /// MACs on the way to a backend.
    pub fn to_backend(n: u32) -> Macs {
        let mut macs = TO_BACKEND;
        macs[5] = n as u8;
        macs
    }

    /// Every slot alike: two bits each for its backend and the one before, and whether it is tracked.
    fn slots(&mut self, service: &ServiceEntry, slots: u8) {
        let backend = |bits: u8| if bits & 3 < 2 { u16::from(bits & 3) } else { lb_common::slot::NONE };
        let slot = Slot::new(backend(slots), slots >> 4 & 1 != 0, backend(slots >> 2));
        for index in 0..SLOTS {
            self.tables.set_slot(service, index, slot.0);
        }
    }

    /// Whether there is a way back to a client.
    pub fn knows_way(&self, client: IpAddr) -> bool {
        self.gateway || client == self.client
    }

    /// One route for everything, of any kind; and the client, for those that say no more than where to look.
    fn routes(&mut self, family: Family, kind: u32) {
        const { assert!(route::kind::ASK == 3, "two bits hold every kind") };
        let hop = Hop { macs: (&TO_CLIENT).into(), ifindex: 1 };
        self.tables.kernel.insert(self.client.into(), Ok(hop));
        let key = Key::neighbour(self.client.into(), 1).expect("a small index");
        self.tables.put_neighbour(NeighbourEntry { key, macs: TO_CLIENT });
        let any = IpAddr::from([0, 0, 0, 0]);
        let any = if family == Family::V6 { IpAddr::from([0_u16; 8]) } else { any };
        self.tables.routes[(family as u32 * limits::ROUTES_PER_FAMILY) as usize] = RouteEntry {
            prefix: any.into(),
            mask: any.into(),
            kind,
            ifindex: 1,
            macs: TO_CLIENT,
            mtu: 1500,
            reserved: [0; 2],
        };
    }
}

fn endpoint(at: SocketAddr) -> (lb_common::addr::Addr, u16) {
    (at.ip().into(), at.port().to_be())
}

fn key_of(at: SocketAddr, protocol: u8) -> Key {
    let (addr, port) = endpoint(at);
    Key::endpoint(addr, port, protocol)
}
