//! Why a packet left the program the way it did. Every exit counts exactly one: here, or with a backend.

use crate::named::named;

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Handed to the kernel, untouched.
    Pass,
    /// Sent out, rewritten.
    Forward,
    /// Made an answer to who sent it, and sent back.
    Answer,
    /// Discarded: it was ours and has nowhere to go.
    Drop,
}

impl Reason {
    /// Whether a backend's counters tell of the packet: then nothing else has to.
    #[inline(always)]
    pub const fn counted_by_backends(self) -> bool {
        matches!(self, Self::Forwarded | Self::Returned)
    }

    /// Whether the packet contradicts itself.
    pub const fn malformed(self) -> bool {
        matches!(self, Self::Truncated | Self::MalformedIp | Self::MalformedTransport)
    }

    /// Whether `lb_balance` leaves the packet to the program for what seldom comes.
    #[inline(always)]
    pub const fn detours(self) -> bool {
        matches!(self, Self::Vlan | Self::Ipv4Options | Self::Ipv6Extension | Self::Icmp | Self::Fragment)
    }
}

named! {
    /// Why a packet left the program the way it did.
    Reason;
    /// What happens to the packet.
    fate: Fate;

    /// Sent to a backend.
    Forwarded = 0, "forwarded", Forward;
    /// A backend's reply, sent to its client.
    Returned = 1, "returned", Forward;
    /// Not IPv4 or IPv6: ARP, LLDP and the like.
    NotIp = 2, "not-ip", Pass;
    /// Neither from a service nor to one.
    NotAService = 3, "not-a-service", Pass;
    /// ICMP or ICMPv6 that is neither an echo request to a service's address nor an error about one of its flows.
    Icmp = 4, "icmp", Pass;
    /// Neither TCP, UDP nor ICMP.
    OtherProtocol = 5, "other-protocol", Pass;
    /// A fragment of a datagram whose first one was not seen, or was not ours.
    Fragment = 6, "fragment", Pass;
    /// IPv4 with options, and no program that looks past them.
    Ipv4Options = 7, "ipv4-options", Pass;
    /// IPv6 with extension headers that are not looked past: more than seven, a station left in a routing header, mobility, host identity, shim6.
    Ipv6Extension = 8, "ipv6-extension", Pass;
    /// Carries more than two VLAN tags.
    Vlan = 9, "vlan", Pass;
    /// Too short for the headers it announces.
    Truncated = 10, "truncated", Pass;
    /// An IP header that contradicts itself.
    MalformedIp = 11, "malformed-ip", Pass;
    /// A TCP or UDP header that contradicts itself.
    MalformedTransport = 12, "malformed-transport", Pass;
    /// The service has no backend that could take it.
    NoBackend = 13, "no-backend", Drop;
    /// The MAC address of the backend's next hop is not known.
    NoNextHop = 14, "no-next-hop", Drop;
    /// The kernel's routing table refuses the client's address: unreachable, prohibit, blackhole.
    NoRoute = 15, "no-route", Drop;
    /// The MAC address of the client is not known yet; the agent is asked to resolve it.
    NoNeighbour = 16, "no-neighbour", Drop;
    /// A backend's packet that only the kernel could send on, which does not forward on this interface: sysctl net.ipv4.ip_forward, net.ipv6.conf.all.forwarding.
    ForwardingOff = 17, "forwarding-off", Pass;
    /// The checksum was left to hardware that is not there, and the packet is too long to finish it.
    Unfinished = 18, "unfinished-checksum", Drop;
    /// The interface it should leave through is not known to the program.
    NoDevice = 19, "no-device", Drop;
    /// A backend's packet to this machine itself, such as the answer to a health check; or to where no route leads, which the kernel does not tell apart.
    ToThisMachine = 20, "to-this-machine", Pass;
    /// With its outer header it would be larger than the way to the backend takes, and its sender was told (ICMP).
    ToldTooBig = 21, "told-too-big", Answer;
    /// With its outer header it would be larger than the way to the backend takes, and its sender was not told: too many were just now, or it is too short to quote.
    TooBig = 22, "too-big", Drop;
    /// There is no source address for an outer header of the backend's family.
    NoOuterSource = 23, "no-outer-source", Drop;
    /// The driver leaves no room for an outer header in front of the packet.
    NoHeadroom = 24, "no-headroom", Drop;
    /// The program that would go on with it is not there.
    NoProgram = 25, "no-program", Drop;
    /// An echo request to the service's address, sent back as its reply.
    EchoAnswered = 26, "echo-answered", Forward;
    /// An echo request to the service's address, one too many in this second.
    EchoLimited = 27, "echo-limited", Drop;
    /// An ICMP error about a reply of the service, sent to the backend that it is from.
    IcmpForwarded = 28, "icmp-forwarded", Forward;
    /// An ICMP error about what a backend was sent, sent to the client that it is from.
    IcmpReturned = 29, "icmp-returned", Forward;
    /// A first fragment that does not hold all of the transport header.
    FragmentTiny = 30, "fragment-tiny", Pass;
    /// A fragment of a service's datagram over bytes that the first one held already.
    FragmentOverlap = 31, "fragment-overlap", Drop;
}

const _: () = assert!(Reason::ALL.len() <= crate::abi::counter::REASON_SLOTS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_in_order() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(Reason::from_number(number as u32), Some(*reason));
            assert_eq!(Reason::ALL.iter().filter(|r| r.as_str() == reason.as_str()).count(), 1);
        }
        assert_eq!(Reason::from_number(Reason::ALL.len() as u32), None);
    }
}
