//! An interface: driver, MTU, offloads, queues, the program on it, the far end of a veth.

use super::host::{reverse_path, sysctl};
use super::{Finding, Severity};
use crate::net::features::{self, Device, GRO, LRO, RX_VLAN};
use crate::net::links::{Link, XdpMode};
use anyhow::Result;

/// The largest MTU of a frame in one page, less headroom and what the kernel keeps at its end (veth.c, virtio_net.c).
const ONE_PAGE: u32 = 3506;

pub(super) fn examine(name: &str, links: &[Link]) -> Result<Vec<Finding>> {
    let Some(link) = links.iter().find(|link| link.name == name) else {
        let present: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
        return Err(crate::api::failure::Failure::new(
            crate::api::failure::FailureCode::NotFound,
            format!("there is no interface {name:?}"),
            format!("there are: {}", present.join(", ")),
        )
        .into());
    };
    let device = features::device(name).ok();
    // The far end can be seen only if it is in this namespace.
    let peer = link.peer.filter(|peer| peer.namespace.is_none());
    let peer = peer.and_then(|peer| links.iter().find(|link| link.index == peer.index));
    let peer_gro = peer.and_then(|peer| features::device(&peer.name).ok()).map(|device| device.active(GRO));
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let mut findings = judge(link, device.as_ref(), cpus);
    findings.extend(far_end(link, peer, peer_gro));
    findings.extend(reverse_path(name, sysctl(&format!("net/ipv4/conf/{name}/rp_filter")).as_deref()));
    Ok(findings)
}

fn judge(link: &Link, device: Option<&Device>, cpus: u32) -> Vec<Finding> {
    let name = link.name.as_str();
    let driver = device.map_or("unknown", |device| device.driver.as_str());
    let kind = link.kind.as_deref().unwrap_or("hardware");
    let mut findings = vec![Finding::ok(name, format!("driver {driver}, {kind}, MTU {}", link.mtu))];
    let mut add = |severity, finding: String, remedy: String| {
        findings.push(Finding::new(severity, name, finding, remedy));
    };
    if !link.ethernet {
        add(
            Severity::Problem,
            "frames on it are not Ethernet to another machine".into(),
            "attach to the interface that clients' packets arrive on".into(),
        );
    }
    if !link.up {
        add(Severity::Problem, "it is down".into(), format!("ip link set {name} up"));
    } else if !link.carrier {
        add(Severity::Problem, "it has no carrier".into(), "look at the cable, or at the other end".into());
    }
    if link.mtu > ONE_PAGE {
        add(
            Severity::Warning,
            format!("MTU {} is more than a page holds: many drivers then refuse native mode", link.mtu),
            format!("ip link set {name} mtu 1500, or attach with --mode generic"),
        );
    }
    if let Some(master) = link.master {
        add(
            Severity::Note,
            format!("it is a port of interface number {master}: what is balanced never gets there"),
            "that is right for packets of services; attach to the bridge or bond if it is not".into(),
        );
    }
    if let Some(device) = device {
        if device.active(LRO) {
            add(
                Severity::Warning,
                "large receive offload is on: it merges packets, and drivers refuse native mode".into(),
                format!("ethtool -K {name} lro off"),
            );
        }
        if device.active(RX_VLAN) && link.kind.is_none() {
            add(
                Severity::Note,
                "VLAN tags are taken out before the program sees a frame".into(),
                format!("ethtool -K {name} rxvlan off, if tagged packets arrive here"),
            );
        }
        let queues =
            device.queues.map(|queues| (queues.rx + queues.combined, queues.max_rx.max(queues.max_combined)));
        if let Some((used, most)) = queues.filter(|(used, most)| *used < cpus && used < most) {
            add(
                Severity::Warning,
                format!("{used} of {most} receive queues are used, on {cpus} CPUs"),
                format!("ethtool -L {name} combined {}", cpus.min(most)),
            );
        }
    }
    if link.xdp.is_some_and(|xdp| xdp.mode == XdpMode::Generic) {
        let merged = device.is_some_and(|device| device.active(GRO));
        // On socket buffers the program comes after GRO, and sees what a veth's sender left to segment: packets up to
        // 64 KiB, which are longer than the way out takes.
        if merged || link.peer.is_some() {
            findings.push(Finding::new(
                Severity::Warning,
                name,
                "generic mode meets packets that were merged, or not cut yet: they are lost when they are sent on",
                match link.peer {
                    Some(_) => format!("ethtool -K {name} gro off; at the other end ethtool -K IFACE tso off gso off"),
                    None => format!("ethtool -K {name} gro off"),
                },
            ));
        }
    }
    if let Some(xdp) = link.xdp {
        let how = match xdp.mode {
            XdpMode::Native => "native mode",
            XdpMode::Generic => "generic mode",
            _ => "another mode",
        };
        findings.push(Finding {
            remedy: Some(format!("bpftool prog show id {} tells which it is", xdp.prog_id)),
            ..Finding::ok(name, format!("an XDP program is attached, in {how}"))
        });
    }
    findings
}

/// A frame that is sent into a veth from XDP arrives only if the other end runs XDP, or has GRO (veth.c).
fn far_end(link: &Link, peer: Option<&Link>, gro: Option<bool>) -> Option<Finding> {
    link.peer?;
    let name = link.name.as_str();
    let Some(peer) = peer else {
        return Some(Finding::new(
            Severity::Note,
            name,
            "the other end is in another network namespace: it needs an XDP program, or GRO, to receive from here",
            "there: lb pass IFACE; for what is only redirected, ethtool -K IFACE gro on is enough",
        ));
    };
    if peer.xdp.is_some() {
        return Some(Finding::ok(name, format!("the other end, {}, runs an XDP program", peer.name)));
    }
    let severity = if gro == Some(true) { Severity::Note } else { Severity::Warning };
    Some(Finding::new(
        severity,
        name,
        format!(
            "the other end, {}, runs no XDP program: frames sent back to it in native mode are lost",
            peer.name
        ),
        format!("lb pass {}, or attach with --mode generic", peer.name),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::features::{Feature, Queues};
    use crate::net::links::{Peer, XdpInfo};

    fn link() -> Link {
        Link {
            name: "eth0".into(),
            index: 2,
            ethernet: true,
            mtu: 1500,
            up: true,
            carrier: true,
            ..Link::default()
        }
    }

    fn said(link: &Link, device: Option<&Device>) -> Vec<String> {
        judge(link, device, 4)
            .into_iter()
            .filter(|finding| finding.severity > Severity::Ok)
            .map(|finding| format!("{} | {}", finding.finding, finding.remedy.unwrap()))
            .collect()
    }

    #[test]
    fn a_good_interface_has_nothing_to_mend() {
        assert_eq!(said(&link(), None), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_found_with_its_remedy() {
        let down = said(&Link { up: false, ..link() }, None);
        assert!(down[0].contains("ip link set eth0 up"), "{down:?}");
        let jumbo = said(&Link { mtu: 9000, ..link() }, None);
        assert!(jumbo[0].contains("MTU 9000") && jumbo[0].contains("mtu 1500"), "{jumbo:?}");
        let on = Feature { active: true, changeable: true };
        let device = Device {
            features: [(LRO.to_owned(), on)].into(),
            queues: Some(Queues { combined: 1, max_combined: 8, ..Queues::default() }),
            ..Device::default()
        };
        let slow = said(&link(), Some(&device));
        assert!(slow[0].contains("lro off"), "{slow:?}");
        assert!(slow[1].contains("ethtool -L eth0 combined 4"), "{slow:?}");
    }

    #[test]
    fn generic_mode_wants_single_packets() {
        let xdp = Some(XdpInfo { prog_id: 1, mode: XdpMode::Generic });
        let on = Feature { active: true, changeable: true };
        let merging = Device { features: [(GRO.to_owned(), on)].into(), ..Device::default() };
        let card = said(&Link { xdp, ..link() }, Some(&merging));
        assert!(card[0].contains("ethtool -K eth0 gro off"), "{card:?}");
        assert_eq!(said(&Link { xdp, ..link() }, Some(&Device::default())), Vec::<String>::new());
        let peer = Some(Peer { index: 3, namespace: None });
        let veth = said(&Link { xdp, peer, ..link() }, None);
        assert!(veth[0].contains("tso off gso off"), "{veth:?}");
        let native = Some(XdpInfo { prog_id: 1, mode: XdpMode::Native });
        assert_eq!(said(&Link { xdp: native, ..link() }, Some(&merging)), Vec::<String>::new());
    }

    #[test]
    fn the_far_end_of_a_veth() {
        let near = Link { peer: Some(Peer { index: 3, namespace: None }), ..link() };
        let far = Link { name: "veth1".into(), index: 3, ..link() };
        assert_eq!(far_end(&link(), None, None), None);
        assert_eq!(far_end(&near, Some(&far), Some(false)).unwrap().severity, Severity::Warning);
        assert_eq!(far_end(&near, Some(&far), Some(true)).unwrap().severity, Severity::Note);
        let xdp = Some(XdpInfo { prog_id: 1, mode: XdpMode::Native });
        assert_eq!(far_end(&near, Some(&Link { xdp, ..far }), None).unwrap().severity, Severity::Ok);
        assert_eq!(far_end(&near, None, None).unwrap().severity, Severity::Note);
    }
}
