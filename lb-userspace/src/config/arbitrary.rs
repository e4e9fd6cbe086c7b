//! Arbitrary valid configurations, for property tests.

use crate::model::Sources;
use crate::model::{
    Admin, Announce, AttachMode, Backend, Check, CheckKind, Desired, EncapChecksum, HttpMethod, Listen, Mode,
    OnDown, Ports, Protocol, Service, Tracking,
};
use ipnet::{Ipv4Net, Ipv6Net};
use lb_common::maglev;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

fn check_kind() -> impl Strategy<Value = CheckKind> {
    let http = (
        select(HttpMethod::ALL),
        "/[a-z0-9/?=&%._~\"'\\\\]{0,12}",
        option::of("[a-z0-9.-]{1,12}(:[0-9]{1,4})?"),
        (100_u16..=599, 100_u16..=599),
    )
        .prop_map(|(method, path, host, (a, b))| CheckKind::Http {
            method,
            path,
            host,
            expect: (a.min(b), a.max(b)),
        });
    prop_oneof![Just(CheckKind::Tcp), http]
}

fn check() -> impl Strategy<Value = Check> {
    (check_kind(), 10_u64..100_000, 10_u64..100_000, 1_u32..=1000, 1_u32..=1000, option::of(1_u16..))
        .prop_map(|(kind, interval, timeout, rise, fall, port)| Check {
            kind,
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
            rise,
            fall,
            port,
        })
}

fn ports() -> impl Strategy<Value = Ports> {
    let range = (1_u16..=65_000, 1_u16..500).prop_map(|(first, more)| Ports::Range(first, first + more));
    prop_oneof![4 => (1_u16..).prop_map(Ports::One), 1 => range, 1 => Just(Ports::Any)]
}

/// The port of a backend in NAT mode. In a service with several ports each address has one answer.
fn own_port(ports: Ports, host: u8, port: u16) -> u16 {
    let first = u16::from(host);
    match ports {
        Ports::One(_) => port,
        Ports::Range(..) if host.is_multiple_of(2) && ports.at_backend(first).is_some() => first,
        Ports::Range(..) | Ports::Any => 0,
    }
}

fn admin() -> impl Strategy<Value = Admin> {
    // Until the year 9999, the last that the text can say.
    let until = option::of(0_u64..253_402_300_800);
    prop_oneof![
        3 => Just(Admin::Active),
        1 => (until, any::<bool>()).prop_map(|(until, remove)| Admin::Draining { until, remove }),
    ]
}

/// A service; `index` keeps names, listeners and backends of several apart.
fn service(index: u8) -> impl Strategy<Value = Service> {
    let words = (
        select(Protocol::ALL),
        select(Mode::ALL),
        select(OnDown::ALL),
        select(Announce::ALL),
        select(Tracking::ALL),
        (select(EncapChecksum::ALL), any::<bool>(), select(maglev::SIZES.as_slice())),
    );
    let backends = vec((1_u8..=250, 1_u16.., 0..=Backend::MAX_WEIGHT, admin()), 0..6);
    let name = "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}";
    (name, any::<bool>(), ports(), words, option::of(check()), 1_u64..86_400, backends).prop_map(
        move |(
            name,
            v6,
            ports,
            (protocol, mode, on_down, announce, tracking, (encap_checksum, echo, ring_size)),
            mut check,
            idle,
            backends,
        )| {
            let address = |net: u8, host: u8| -> IpAddr {
                if v6 {
                    Ipv6Addr::new(0x2001, 0xdb8, net.into(), index.into(), 0, 0, 0, host.into()).into()
                } else {
                    Ipv4Addr::new(10, net, index, host).into()
                }
            };
            if let Some(check) = check.as_mut().filter(|_| ports.is_wide()) {
                check.port.get_or_insert(80);
            }
            let backends = backends.into_iter().map(|(host, port, weight, admin)| {
                let port =
                    if mode.keeps_destination() { ports.backend_port() } else { own_port(ports, host, port) };
                let address = SocketAddr::new(address(1, host), port);
                (address, Backend { address, weight, admin })
            });
            Service {
                name: format!("{name}{index}"),
                listen: Listen { protocol, address: address(0, 1), ports },
                mode,
                check,
                on_down,
                announce,
                idle_timeout: Duration::from_secs(idle),
                tracking,
                encap_checksum,
                echo,
                ring_size,
                backends: backends.collect(),
            }
        },
    )
}

/// A valid configuration of a few services.
pub(crate) fn desired() -> impl Strategy<Value = Desired> {
    let interfaces = btree_map("[a-z][a-z0-9._-]{0,13}", select(AttachMode::ALL), 0..4);
    let services = (0..5).map(|index| option::of(service(index))).collect::<Vec<_>>();
    let sources = (option::of((any::<u32>(), 8_u8..=32)), option::of((any::<u128>(), 32_u8..=128)));
    let sources = sources.prop_map(|(v4, v6)| Sources {
        v4: v4.map(|(bits, len)| Ipv4Net::new_assert(bits.into(), len).trunc()),
        v6: v6.map(|(bits, len)| Ipv6Net::new_assert(bits.into(), len).trunc()),
    });
    (interfaces, sources, services).prop_map(|(interfaces, sources, services)| Desired {
        interfaces,
        sources,
        services: services
            .into_iter()
            .flatten()
            .map(|service| (service.name.clone(), service.into()))
            .collect(),
    })
}
