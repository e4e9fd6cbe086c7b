//! VLAN tags (IEEE 802.1Q, 802.1ad): seen without them, a frame is one like others.

use super::{Frame, double, eth, half, put_double};
use crate::addr::Family;
use crate::reason::Reason;

/// Bytes of a tag: ethertype of the tag and its control field.
const TAG: usize = 4;
/// Where the first tag begins: after the MAC addresses.
const FIRST: usize = 12;

/// Bytes of tags: up to two of them.
///
/// # Errors
/// More tags are [`Reason::Vlan`], half ones [`Reason::Truncated`].
#[inline(always)]
pub fn count<F: Frame + ?Sized>(frame: &F) -> Result<usize, Reason> {
    for tags in [0, TAG, 2 * TAG] {
        if !eth::is_tag(half(frame.at::<2>(FIRST + tags).ok_or(Reason::Truncated)?, 0)) {
            return Ok(tags);
        }
    }
    Err(Reason::Vlan)
}

/// A frame without its tags, which stay where they are: everything behind the MAC addresses lies so much further.
pub struct Untagged<'a, F: ?Sized> {
    frame: &'a mut F,
    tags: usize,
}

impl<'a, F: Frame + ?Sized> Untagged<'a, F> {
    /// A view without so many bytes of tags.
    #[inline(always)]
    pub fn new(frame: &'a mut F, tags: usize) -> Self {
        Self { frame, tags }
    }

    #[inline(always)]
    fn place(&self, offset: usize) -> usize {
        if offset < FIRST { offset } else { offset + self.tags }
    }
}

/// A view may not reach from the addresses into what lies behind them.
const fn whole(offset: usize, len: usize) -> bool {
    offset >= FIRST || offset + len <= FIRST
}

impl<F: Frame + ?Sized> Frame for Untagged<'_, F> {
    const TAGGED: bool = true;

    #[inline(always)]
    fn len(&self) -> usize {
        self.frame.len() - self.tags
    }

    #[inline(always)]
    fn bytes(&self) -> u64 {
        self.frame.bytes()
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        if !whole(offset, N) {
            return None;
        }
        self.frame.far(self.place(offset))
    }

    #[inline(always)]
    fn at_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        if !whole(offset, N) {
            return None;
        }
        self.frame.far_mut(self.place(offset))
    }

    #[inline(always)]
    fn tags(&self) -> usize {
        self.tags
    }

    /// Tags move with the addresses in front of them.
    #[inline(always)]
    fn grow(&mut self, by: usize) -> bool {
        // All that there may be; what follows fewer of them is for the caller to write.
        let Some(tags) = self.frame.at::<{ 2 * TAG }>(FIRST).map(|tags| double(tags, 0)) else {
            return false;
        };
        if !self.frame.grow(by) {
            return false;
        }
        self.frame.at_mut::<{ 2 * TAG }>(FIRST).is_some_and(|field| {
            put_double(field, 0, tags);
            true
        })
    }

    #[inline(always)]
    fn cut(&mut self, len: usize) -> bool {
        self.frame.cut(len + self.tags)
    }

    #[inline(always)]
    fn embedded(&self, start: usize, end: usize, family: Family) -> u64 {
        self.frame.embedded(self.place(start), self.place(end), family)
    }

    #[inline(always)]
    fn sum(&self, offset: usize, len: usize) -> Option<u64> {
        self.frame.sum(self.place(offset), len)
    }
}
