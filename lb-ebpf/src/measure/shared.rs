//! What the bench tool and its programs share: included by both, by path, so that it depends on nothing.

/// Length of the frames that programs are measured with, bytes: headers of TCP over IPv6 and a little payload.
pub(crate) const FRAME: usize = 96;
/// The same in words.
pub(crate) const WORDS: usize = FRAME / 8;
/// The bit that every client's port has: the 15 below it vary.
pub(crate) const CLIENT_PORT: u16 = 0x8000;

/// The one entry of `TEMPLATE`: the frame that each run starts from, and what varies in it.
///
/// In the frame, the low bits of both addresses' last words that vary are zero, as are those of the client's port, and
/// its checksums are right as it stands.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Template {
    /// The frame, as it lies in memory.
    pub(crate) words: [u64; WORDS],
    /// Number of clients minus one; that number is a power of two, at most 2^22.
    pub(crate) clients: u32,
    /// Number of peers: services that clients send to, or backends that answer them.
    pub(crate) peers: u32,
}

/// The one entry of `STATE`, for each CPU.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct State {
    /// Runs that reached their target.
    pub(crate) runs: u64,
    /// State of the generator of clients.
    pub(crate) random: u64,
}
