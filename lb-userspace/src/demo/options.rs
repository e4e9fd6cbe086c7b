//! What a demonstration is told.

/// Options of a demonstration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DemoOptions {
    /// The same story in less than 20 seconds.
    pub quick: bool,
    /// The network stays up afterwards.
    pub keep: bool,
    /// Only IPv4; neither this nor the next: both families.
    pub ipv4: bool,
    /// Only IPv6.
    pub ipv6: bool,
    /// Remove what an earlier one kept, and nothing else.
    pub clean: bool,
    /// Be the backends of one that was kept. Not for people: the demonstration starts itself with it.
    pub hold: bool,
}
