//! Where outer headers come from: what the operator gave, else an address of this machine.

use crate::model::{Service, Sources};
use ipnet::{Ipv4Net, Ipv6Net};
use lb_common::abi::Settings;
use lb_common::addr::Family;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the program writes. Addresses of attached interfaces come before others: packets leave through them.
pub(super) fn chosen(
    wanted: Sources,
    own: &[(u32, IpAddr)],
    attached: &BTreeMap<u32, String>,
) -> (Option<Ipv4Net>, Option<Ipv6Net>) {
    let mut own: Vec<_> = own.iter().filter(|(_, address)| reachable(*address)).collect();
    own.sort_by_key(|(ifindex, address)| (!attached.contains_key(ifindex), *ifindex, *address));
    let v4 = own.iter().find_map(|(_, address)| match address {
        IpAddr::V4(address) => Some(Ipv4Net::from(*address)),
        IpAddr::V6(_) => None,
    });
    let v6 = own.iter().find_map(|(_, address)| match address {
        IpAddr::V6(address) => Some(Ipv6Net::from(*address)),
        IpAddr::V4(_) => None,
    });
    (wanted.v4.or(v4), wanted.v6.or(v6))
}

/// Families of outer headers that a service needs and that there is no source for.
pub(super) fn missing(service: &Service, settings: &Settings) -> impl Iterator<Item = &'static str> {
    let needs = |v4: bool| {
        service.mode.encapsulates() && service.backends.keys().any(|address| address.is_ipv4() == v4)
    };
    [(needs(true), Family::V4, "IPv4"), (needs(false), Family::V6, "IPv6")]
        .into_iter()
        .filter(|(needed, family, _)| *needed && settings.outer_source(*family, 0).is_none())
        .map(|(.., name)| name)
}

/// Whether an address means something beyond its link.
fn reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_without_a_source_are_named() {
        use crate::config::check;
        let text = "[[service]]\nname = \"web\"\nlisten = \"tcp://192.0.2.10:80\"\nmode = \"gue\"\n\
                    [[service.backend]]\naddress = \"fd00::1\"\n[[service.backend]]\naddress = \"10.0.0.1\"\n";
        let mut service = Service::clone(&check(text, "lb.toml").unwrap().desired.services["web"]);
        let settings = Settings { source4: 1, ..Settings::default() };
        assert_eq!(missing(&service, &settings).collect::<Vec<_>>(), ["IPv6"]);
        service.mode = crate::model::Mode::L2;
        assert_eq!(missing(&service, &settings).count(), 0);
    }

    #[test]
    fn an_address_of_an_attached_interface_comes_first() {
        let own = [
            (1, ip("127.0.0.1")),
            (2, ip("198.51.100.1")),
            (3, ip("fe80::1")),
            (3, ip("192.0.2.9")),
            (3, ip("192.0.2.1")),
            (4, ip("2001:db8::1")),
        ];
        let attached = BTreeMap::from([(3, "eth1".to_owned())]);
        let (v4, v6) = chosen(Sources::default(), &own, &attached);
        assert_eq!(
            (v4, v6),
            (Some("192.0.2.1/32".parse().unwrap()), Some("2001:db8::1/128".parse().unwrap()))
        );
        let wanted = Sources { v4: Some("198.18.0.0/15".parse().unwrap()), v6: None };
        assert_eq!(chosen(wanted, &own, &attached), (wanted.v4, v6));
        assert_eq!(chosen(Sources::default(), &own[..1], &attached), (None, None));
    }
}
