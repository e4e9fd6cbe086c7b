//! The programs that a packet may go through. `lb_balance` handles what comes often; what comes seldom, or costs code that
//! the rest should not carry, goes on in another one: a tail call, whose target lies in `STAGES`.

/// A program that goes on where another one stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Frames with VLAN tags, IPv4 options or IPv6 extension headers, and ICMP, see [`crate::detour`].
    Detour = 0,
    /// Packets that travel inside others, see [`crate::wrap`].
    Wrap = 1,
    /// Packets whose sender is told that they are too big, see [`crate::icmp::too_big`].
    Answer = 2,
    /// Fragments of datagrams, see [`crate::fragment`].
    Fragment = 3,
    /// What may belong to a range of ports, see [`crate::wide`].
    Wide = 4,
}

impl Stage {
    /// Every stage, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Detour, Self::Wrap, Self::Answer, Self::Fragment, Self::Wide];

    /// Its place in `STAGES`: those of the program that explains come behind those that balance.
    pub const fn place(self, explains: bool) -> u32 {
        self as u32 + if explains { Self::ALL.len() as u32 } else { 0 }
    }
}
