//! What is this frame? [`parse`] answers with one of three outcomes, over any [`Frame`].

pub mod embedded;
pub mod eth;
pub mod ipv4;
pub mod ipv6;
pub mod locate;
pub mod part;
pub mod tags;
pub mod transport;

use crate::abi::Key;
use crate::addr::{Addr, Family};
use crate::hash;
use crate::reason::Reason;
use part::Part;
use tags::Untagged;

/// A packet whose bytes can be reached with bounds checked: a slice on the host, `xdp_md` in the kernel.
///
/// A view of `N` bytes is checked once; what is read from it afterwards costs no check.
pub trait Frame {
    /// Length from the Ethernet header to the end, bytes.
    fn len(&self) -> usize;

    /// A number that nothing is known of, below 2^14: rounds of a search that go on with such are alike to the verifier, which
    /// then looks at one of them.
    #[inline(always)]
    fn opaque(&self, number: usize) -> usize {
        number & 0x3fff
    }

    /// What counts as its bytes: its length, and what a view leaves out.
    #[inline(always)]
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    /// Whether there is nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `N` bytes at `offset`, or `None` past the end.
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// `N` bytes at `offset` to write to, or `None` past the end.
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]>;

    /// [`Self::at`] for an offset that is not known when this is compiled.
    #[inline(always)]
    fn far<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.at(offset)
    }

    /// [`Self::at_mut`] for an offset that is not known when this is compiled.
    #[inline(always)]
    fn far_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.at_mut(offset)
    }

    /// [`locate::locate`], packed: in the kernel a function that the verifier looks at once.
    #[inline(always)]
    fn locate(&self) -> u64 {
        locate::Located::pack(locate::locate(self))
    }

    /// Whether there may be such tags.
    const TAGGED: bool = false;

    /// Bytes of VLAN tags that lie in front of what is seen, see [`tags::Untagged`].
    #[inline(always)]
    fn tags(&self) -> usize {
        0
    }

    /// Makes room for `by` bytes in front; offsets count from there on. `false`: there is none, and nothing changed. So it
    /// is with a frame that has its length, such as a slice.
    #[inline(always)]
    fn grow(&mut self, _by: usize) -> bool {
        false
    }

    /// Takes `by` bytes off the front. `false`: it cannot, and nothing changed.
    #[inline(always)]
    fn strip(&mut self, _by: usize) -> bool {
        false
    }

    /// Leaves the first `len` bytes. `false`: it cannot, and nothing changed.
    #[inline(always)]
    fn cut(&mut self, _len: usize) -> bool {
        false
    }

    /// [`embedded::find`], packed: as above.
    #[inline(always)]
    fn embedded(&self, start: usize, end: usize, family: Family) -> u64 {
        embedded::Embedded::pack(embedded::find(self, start, end, family))
    }

    /// The sum of `len` bytes from `offset` as [`crate::checksum::sum`] makes it; `None` past the end or when it is too
    /// much to sum.
    fn sum(&self, offset: usize, len: usize) -> Option<u64>;
}

impl Frame for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }

    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.get_mut(offset..)?.first_chunk_mut()
    }

    fn sum(&self, offset: usize, len: usize) -> Option<u64> {
        Some(crate::checksum::sum(self.get(offset..offset.checked_add(len)?)?))
    }
}

/// A frame that can grow, as one in the kernel: for tests and models.
#[cfg(any(test, feature = "host"))]
impl Frame for Vec<u8> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.as_slice().at(offset)
    }

    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.as_mut_slice().at_mut(offset)
    }

    fn grow(&mut self, by: usize) -> bool {
        self.splice(0..0, core::iter::repeat_n(0, by));
        true
    }

    fn strip(&mut self, by: usize) -> bool {
        let there = by <= self.as_slice().len();
        self.drain(..by.min(self.as_slice().len()));
        there
    }

    fn cut(&mut self, len: usize) -> bool {
        let there = len <= self.as_slice().len();
        self.truncate(len);
        there
    }

    fn sum(&self, offset: usize, len: usize) -> Option<u64> {
        self.as_slice().sum(offset, len)
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A TCP segment or UDP datagram that can be looked at.
    Flow(Packet),
    /// Something that is never ours.
    NotOurs(Reason),
    /// Something that contradicts itself.
    Malformed(Reason),
}

/// A TCP segment or UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The family of both addresses. Each family goes its own way through the program, on which this is a constant.
    pub family: Family,
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, network order.
    pub src_port: u16,
    /// Destination port, network order.
    pub dst_port: u16,
    /// [`crate::addr::TCP`] or [`crate::addr::UDP`].
    pub protocol: u8,
    /// TCP flags; 0 for UDP.
    pub tcp_flags: u8,
    /// Offset of the transport header, bytes from the start of the frame.
    pub transport: usize,
    /// Length of transport header and payload that the checksum covers, bytes.
    pub length: u16,
    /// The checksum field as it stands.
    pub checksum: u16,
    /// Which part of its datagram this is.
    pub part: Part,
}

impl Packet {
    /// What a service is found by.
    #[inline(always)]
    pub(crate) const fn destination(&self) -> Key {
        Key::endpoint_of(self.family, self.dst, self.dst_port, self.protocol)
    }

    /// What a backend that answers is found by.
    #[inline(always)]
    pub(crate) const fn source(&self) -> Key {
        Key::endpoint_of(self.family, self.src, self.src_port, self.protocol)
    }

    /// The hash of its flow.
    #[inline(always)]
    pub(crate) const fn hash(&self, seed: u64) -> u32 {
        hash::flow_of(self.family, &self.src, self.ports(), seed)
    }

    /// What its flow's packets have in common, for those who spread them: see [`hash::entropy_of`].
    #[inline(always)]
    pub(crate) const fn entropy(&self) -> u32 {
        hash::entropy_of(self.family, &self.src, self.ports())
    }

    /// Both ports as one word, as they stand in the packet.
    #[inline(always)]
    pub const fn ports(&self) -> u32 {
        let [a, b] = self.src_port.to_ne_bytes();
        let [c, d] = self.dst_port.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    /// Whether this opens a TCP connection.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        // UDP has no flags.
        self.tcp_flags & (transport::SYN | transport::ACK) == transport::SYN
    }

    /// Whether it says that its sender will send nothing more.
    #[inline(always)]
    pub const fn closes(&self) -> bool {
        self.tcp_flags & (transport::FIN | transport::RST) != 0
    }

    /// Whether it surely carries data.
    #[inline(always)]
    pub const fn pushes(&self) -> bool {
        self.tcp_flags & transport::PSH != 0
    }
}

/// Looks at a frame, as all programs together do.
pub fn parse(frame: &[u8]) -> Parsed {
    let seen = match eth::ethertype(frame) {
        None => Parsed::Malformed(Reason::Truncated),
        Some(eth::IPV4) => ipv4::parse(frame),
        Some(eth::IPV6) => ipv6::parse(frame),
        Some(other) => Parsed::NotOurs(eth::reason(other)),
    };
    match seen {
        Parsed::NotOurs(reason) if reason.detours() => match locate::locate(frame) {
            Ok(at) => {
                let mut seen = Seen(frame);
                let frame = Untagged::new(&mut seen, at.tags);
                // What its first fragment left is not looked for here.
                match locate::bare(&frame, at) {
                    Ok(bare) if bare.part.is_later() => Parsed::NotOurs(Reason::Fragment),
                    Ok(_) => locate::parse(&frame, at),
                    Err(reason) => Parsed::Malformed(reason),
                }
            }
            Err(reason) if reason.malformed() => Parsed::Malformed(reason),
            Err(reason) => Parsed::NotOurs(reason),
        },
        seen => seen,
    }
}

/// Bytes that are only looked at.
struct Seen<'a>(&'a [u8]);

impl Frame for Seen<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.0.at(offset)
    }

    fn at_mut<const N: usize>(&mut self, _: usize) -> Option<&mut [u8; N]> {
        None
    }

    fn sum(&self, offset: usize, len: usize) -> Option<u64> {
        self.0.sum(offset, len)
    }
}

/// Reads a 16-bit field in network order as it lies in memory.
///
/// As a whole: bytes put together one by one may stay so in the kernel's code.
#[inline(always)]
pub(crate) const fn half<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    match bytes.split_at(at).1.first_chunk() {
        Some(field) => u16::from_ne_bytes(*field),
        None => unreachable!(),
    }
}

/// Reads a 32-bit field in network order as it lies in memory.
#[inline(always)]
pub(crate) const fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    match bytes.split_at(at).1.first_chunk() {
        Some(field) => u32::from_ne_bytes(*field),
        None => unreachable!(),
    }
}

/// Reads a 64-bit field in network order as it lies in memory.
#[inline(always)]
pub(crate) const fn double<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    match bytes.split_at(at).1.first_chunk() {
        Some(field) => u64::from_ne_bytes(*field),
        None => unreachable!(),
    }
}

/// Writes a 16-bit field as it lies in memory.
#[inline(always)]
pub(crate) const fn put_half<const N: usize>(bytes: &mut [u8; N], at: usize, value: u16) {
    match bytes.split_at_mut(at).1.first_chunk_mut() {
        Some(field) => *field = value.to_ne_bytes(),
        None => unreachable!(),
    }
}

/// Writes a 32-bit field as it lies in memory.
#[inline(always)]
pub(crate) const fn put_word<const N: usize>(bytes: &mut [u8; N], at: usize, value: u32) {
    match bytes.split_at_mut(at).1.first_chunk_mut() {
        Some(field) => *field = value.to_ne_bytes(),
        None => unreachable!(),
    }
}

/// Writes a 64-bit field as it lies in memory.
#[inline(always)]
pub(crate) const fn put_double<const N: usize>(bytes: &mut [u8; N], at: usize, value: u64) {
    match bytes.split_at_mut(at).1.first_chunk_mut() {
        Some(field) => *field = value.to_ne_bytes(),
        None => unreachable!(),
    }
}
