//! The programs that a packet may go through. `lb_balance` handles what comes often; what comes seldom, or costs code that
//! the rest should not carry, goes on in another one: a tail call, whose target lies in `STAGES`.

/// A program that goes on where another one stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Frames with VLAN tags, IPv4 options or IPv6 extension headers, and ranges of ports, see [`crate::detour`].
    Detour = 0,
}

impl Stage {
    /// Every stage, in the order of their numbers.
    pub const ALL: [Self; 1] = [Self::Detour];

    /// Its place in `STAGES`: those of the program that explains come behind those that balance.
    pub const fn place(self, explains: bool) -> u32 {
        self as u32 + if explains { Self::ALL.len() as u32 } else { 0 }
    }
}
