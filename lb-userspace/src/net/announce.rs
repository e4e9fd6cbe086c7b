//! Telling the segment that an address is here: ARP announcements (RFC 5227, section 3) and unsolicited neighbour
//! advertisements (RFC 4861, section 7.2.6).
//!
//! Building frames is pure; [`announce`] sends one round. How often and how far apart is the caller's business:
//! [`ROUNDS`] rounds, [`SPACING`] apart, are what the RFCs ask for. Putting the address on an interface is in
//! [`super::vip`].

use super::Error;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// How often an address is announced: `MAX_NEIGHBOR_ADVERTISEMENT` (RFC 4861, section 10); RFC 5227 asks for two.
pub const ROUNDS: u32 = 3;
/// Time between rounds: `RetransTimer` (RFC 4861, section 10); RFC 5227 asks for two seconds or less.
pub const SPACING: Duration = Duration::from_secs(1);

const BROADCAST: [u8; 6] = [0xff; 6];
/// The MAC address of ff02::1, all nodes (RFC 2464, section 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;

/// The form of an ARP announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpForm {
    /// A request for the own address: what RFC 5227 says.
    Request,
    /// An unasked reply: what some switches and old hosts insist on.
    Reply,
}

/// An ARP announcement: Ethernet and ARP, 42 bytes.
#[must_use]
pub fn arp(mac: [u8; 6], address: Ipv4Addr, form: ArpForm) -> [u8; 42] {
    let (operation, target_mac) = match form {
        // The target's hardware address of a request means nothing and should be zero (RFC 5227, section 3).
        ArpForm::Request => (1, [0; 6]),
        ArpForm::Reply => (2, mac),
    };
    let mut frame = [0; 42];
    let parts: [&[u8]; 8] = [
        &BROADCAST,
        &mac,
        &[0x08, 0x06],
        // Ethernet, IPv4, lengths of their addresses.
        &[0, 1, 0x08, 0, 6, 4, 0, operation],
        &mac,
        &address.octets(),
        &target_mac,
        &address.octets(),
    ];
    fill(&mut frame, &parts);
    frame
}

/// An unsolicited neighbour advertisement to all nodes: Ethernet, IPv6 and ICMPv6, 86 bytes. The override flag makes
/// receivers replace what they have; `router` is whether this machine forwards IPv6 (a receiver that sees the flag go
/// drops the machine from its routers).
#[must_use]
pub fn advertisement(mac: [u8; 6], address: Ipv6Addr, router: bool) -> [u8; 86] {
    const LENGTH: u8 = 32;
    let flags = if router { 0xa0 } else { 0x20 };
    let mut message = [0; LENGTH as usize];
    // Type, code, checksum; flags; target; option "target link-layer address", one unit of eight bytes.
    fill(&mut message, &[&[136, 0, 0, 0, flags, 0, 0, 0], &address.octets(), &[2, 1], &mac]);
    let sum =
        checksum(&[&address.octets(), &ALL_NODES.octets(), &[0, 0, 0, LENGTH, 0, 0, 0, ICMPV6], &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = [0; 86];
    let parts: [&[u8]; 7] = [
        &ALL_NODES_MAC,
        &mac,
        &[0x86, 0xdd],
        // Version 6; payload length; next header; hop limit 255, without which receivers drop it.
        &[0x60, 0, 0, 0, 0, LENGTH, ICMPV6, 255],
        &address.octets(),
        &ALL_NODES.octets(),
        &message,
    ];
    fill(&mut frame, &parts);
    frame
}

fn fill(target: &mut [u8], parts: &[&[u8]]) {
    for (to, from) in target.iter_mut().zip(parts.iter().copied().flatten()) {
        *to = *from;
    }
}

/// The Internet checksum (RFC 1071) of parts of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let mut sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Sends one round of announcements of `address` out of an interface of this thread's network namespace.
///
/// # Errors
///
/// The interface is gone or down, or this process lacks `CAP_NET_RAW`.
pub fn announce(ifindex: u32, mac: [u8; 6], address: IpAddr) -> Result<(), Error> {
    match address {
        IpAddr::V4(address) => {
            send_frame(ifindex, &arp(mac, address, ArpForm::Request))?;
            send_frame(ifindex, &arp(mac, address, ArpForm::Reply))
        }
        IpAddr::V6(address) => send_frame(ifindex, &advertisement(mac, address, forwards_ipv6(ifindex))),
    }
}

/// Whether this machine is an IPv6 router on an interface. Unknown counts as no, as in the kernel without IPv6.
fn forwards_ipv6(ifindex: u32) -> bool {
    let Ok(name) = nix::net::if_::if_indextoname(ifindex) else { return false };
    let path = format!("/proc/sys/net/ipv6/conf/{}/forwarding", name.to_string_lossy());
    std::fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
}

/// Sends an Ethernet frame as it is (packet(7)).
pub(crate) fn send_frame(ifindex: u32, frame: &[u8]) -> Result<(), Error> {
    let action = || format!("send a frame through interface {ifindex}");
    // Protocol 0: a socket that receives nothing.
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|error| Error::kernel(action(), error))?;
    // SAFETY: all-zero bytes are a valid sockaddr_ll: it is made of integers.
    let mut target: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    target.sll_family = libc::AF_PACKET as u16;
    target.sll_ifindex = ifindex.cast_signed();
    target.sll_halen = 6;
    target.sll_addr[..6].copy_from_slice(frame.get(..6).unwrap_or(&BROADCAST));
    // SAFETY: the frame and the address live across the call, and their lengths are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const target).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    Errno::result(sent).map(drop).map_err(|error| Error::kernel(action(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv6Slice, NetSlice, SlicedPacket};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn an_arp_announcement_is_what_rfc_5227_says() {
        let request: Vec<u8> = [
            &[0xff; 6][..],
            &MAC,
            &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1],
            &MAC,
            &[192, 0, 2, 10],
            &[0; 6],
            &[192, 0, 2, 10],
        ]
        .concat();
        let address = Ipv4Addr::new(192, 0, 2, 10);
        assert_eq!(arp(MAC, address, ArpForm::Request)[..], request);
        let reply = arp(MAC, address, ArpForm::Reply);
        assert_eq!(reply[20..22], [0, 2]);
        assert_eq!((&reply[22..28], &reply[32..38]), (&MAC[..], &MAC[..]));
        assert_eq!((&reply[28..32], &reply[38..42]), (&request[28..32], &request[38..42]));
    }

    #[test]
    fn an_advertisement_parses_and_its_checksum_holds() {
        // Addresses of many ones make carries in both folds.
        for text in ["2001:db8::10", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "fe80::1"] {
            let address: Ipv6Addr = text.parse().unwrap();
            for router in [false, true] {
                let frame = advertisement(MAC, address, router);
                let packet = SlicedPacket::from_ethernet(&frame).unwrap();
                let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("not IPv6: {packet:?}") };
                assert_eq!(ip.header().source_addr(), address);
                assert_eq!(ip.header().destination_addr(), ALL_NODES);
                assert_eq!(ip.header().hop_limit(), 255);
                let icmp = Icmpv6Slice::from_slice(ip.payload().payload).unwrap();
                assert!(icmp.is_checksum_valid(address.octets(), ALL_NODES.octets()));
                let body = icmp.slice();
                assert_eq!((body[0], body[1]), (136, 0));
                assert_eq!(body[4], if router { 0xa0 } else { 0x20 }, "router, not solicited, override");
                assert_eq!(body[8..24], address.octets());
                assert_eq!((&body[24..26], &body[26..32]), (&[2, 1][..], &MAC[..]));
            }
        }
    }
}
