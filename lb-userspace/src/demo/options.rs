//! What a demonstration is told.

/// Options of a demonstration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DemoOptions {
    /// No pauses to read; fails if anything was lost.
    pub quick: bool,
    /// The network stays up afterwards.
    pub keep: bool,
    /// Clients and backends speak IPv6.
    pub ipv6: bool,
}
