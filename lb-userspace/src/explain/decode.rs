//! A frame → the line that people read: who to whom, and what else of it matters to a balancer.

use super::packet::protocol_name;
use etherparse::{IpNumber, LinkSlice, NetSlice, SlicedPacket, TransportSlice};
use std::net::IpAddr;

/// Where packets inside UDP are sent to.
const GUE_PORT: u16 = u16::from_be(lb_common::encap::GUE_PORT);

/// Says what a frame is, in a line. Never fails: what cannot be read is said.
pub fn line(frame: &[u8]) -> String {
    match SlicedPacket::from_ethernet(frame) {
        Ok(packet) => described(&packet, frame.len()),
        Err(error) => format!("not readable: {error}, {} bytes", frame.len()),
    }
}

fn described(packet: &SlicedPacket<'_>, length: usize) -> String {
    let mut tail = vec![format!("{length} bytes")];
    if let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link {
        tail.push(format!("to {}", mac(ethernet.destination())));
    }
    let (source, destination, ttl, payload) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            (
                IpAddr::from(header.source_addr()),
                IpAddr::from(header.destination_addr()),
                header.ttl(),
                ip.payload(),
            )
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (
                IpAddr::from(header.source_addr()),
                IpAddr::from(header.destination_addr()),
                header.hop_limit(),
                ip.payload(),
            )
        }
        Some(NetSlice::Arp(_)) => return format!("arp, {}", tail.join(", ")),
        None => return format!("not IP, {}", tail.join(", ")),
    };
    tail.insert(0, format!("ttl {ttl}"));
    if packet.is_ip_payload_fragmented() {
        tail.push("a fragment".to_owned());
    }
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let flags = [
                (tcp.fin(), "fin"),
                (tcp.syn(), "syn"),
                (tcp.rst(), "rst"),
                (tcp.psh(), "psh"),
                (tcp.ack(), "ack"),
                (tcp.urg(), "urg"),
            ];
            let set: Vec<_> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
            let ends = (end(source, tcp.source_port()), end(destination, tcp.destination_port()));
            format!("tcp {} → {} [{}], {}", ends.0, ends.1, set.join(","), tail.join(", "))
        }
        Some(TransportSlice::Udp(udp)) => {
            let ends = (end(source, udp.source_port()), end(destination, udp.destination_port()));
            let inside = (udp.destination_port() == GUE_PORT).then(|| inside(udp.payload()));
            format!("udp {} → {}, {}{}", ends.0, ends.1, tail.join(", "), inside.unwrap_or_default())
        }
        _ => {
            let is_tunnel = matches!(payload.ip_number, IpNumber::IPV4 | IpNumber::IPV6);
            let inside = if is_tunnel { inside(payload.payload) } else { String::new() };
            let name = protocol_name(payload.ip_number);
            format!("{name} {source} → {destination}, {}{inside}", tail.join(", "))
        }
    }
}

/// What a packet carries that is around another one.
fn inside(packet: &[u8]) -> String {
    match SlicedPacket::from_ip(packet) {
        Ok(inner) => format!("; inside: {}", described(&inner, packet.len())),
        Err(_) => String::new(),
    }
}

fn end(address: IpAddr, port: u16) -> std::net::SocketAddr {
    std::net::SocketAddr::new(address, port)
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::packet::{Flags, Tuple, frame};
    use crate::model::Protocol;

    #[test]
    fn says_the_tuple() {
        let tuple = |protocol, source: &str, destination: &str| {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            line(&frame(&Tuple { protocol, source, destination, flags: Flags::SYN }).unwrap())
        };
        assert_eq!(
            tuple(Protocol::Tcp, "198.51.100.7:40000", "192.0.2.10:443"),
            "tcp 198.51.100.7:40000 → 192.0.2.10:443 [syn], ttl 64, 54 bytes, to 02:00:00:00:00:02"
        );
        assert_eq!(
            tuple(Protocol::Udp, "[2001:db8::7]:4", "[2001:db8::10]:53"),
            "udp [2001:db8::7]:4 → [2001:db8::10]:53, ttl 64, 62 bytes, to 02:00:00:00:00:02"
        );
    }

    #[test]
    fn says_so_if_there_is_no_tuple() {
        assert!(line(&[0; 5]).starts_with("not readable"));
        let mut unknown = [0; 60];
        unknown[12..14].copy_from_slice(&[0x88, 0xcc]);
        assert!(line(&unknown).starts_with("not IP, 60 bytes"));
    }

    #[test]
    fn packets_inside_others_are_seen() {
        use lb_common::encap::{Kind, Outer, wrap};
        let [client, vip] = ["198.51.100.7:40000", "192.0.2.10:443"].map(|text| text.parse().unwrap());
        let tuple = Tuple { protocol: Protocol::Tcp, source: client, destination: vip, flags: Flags::SYN };
        let settings = lb_common::abi::Settings { source4: 0x0100_000a, ..Default::default() };
        for (kind, start) in [(Kind::Ipip, "10.0.0.1 → 10.0.0.2"), (Kind::Gue, "→ 10.0.0.2:6080")] {
            let mut frame = frame(&tuple).unwrap();
            let dst = IpAddr::from([10, 0, 0, 2]).into();
            let macs = (&[2; 12]).into();
            let outer = Outer { kind, dst: &dst, macs, mtu: 1500, checksum: false, entropy: 7 };
            wrap(&mut frame, 0, &outer, &settings).unwrap();
            let line = line(&frame);
            let inside = "; inside: tcp 198.51.100.7:40000 → 192.0.2.10:443 [syn]";
            assert!(line.contains(start) && line.contains(inside), "{line}");
        }
    }
}
