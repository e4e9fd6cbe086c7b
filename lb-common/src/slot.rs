//! What a ring slot holds, and how the agent may change it.
//!
//! One invariant carries connection consistency: **a live flow that has no table entry is on its slot's `previous`
//! backend.** A slot is settled when `previous = current`. While it is not, its window is open: flows that are seen get
//! an entry ([`crate::select`]), and after the service's idle timeout every live flow has been seen or ended.

/// No backend.
pub const NONE: u16 = 0x7fff;

/// A slot: `current` in bits 0 to 14, `tracked` in bit 15, `previous` in bits 16 to 30. One word, so that readers see
/// one state or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u32);

const TRACKED: u32 = 1 << 15;
const INDEX: u32 = 0x7fff;

impl Slot {
    /// A slot of a service without backends.
    pub const EMPTY: Self = Self::new(NONE, false, NONE);

    /// A slot from its parts. Indexes above [`NONE`] are cut.
    pub const fn new(current: u16, tracked: bool, previous: u16) -> Self {
        Self((current as u32 & INDEX) | if tracked { TRACKED } else { 0 } | (previous as u32 & INDEX) << 16)
    }

    /// A settled, untracked slot.
    pub const fn settled_on(index: u16) -> Self {
        Self::new(index, false, index)
    }

    /// Where new flows go.
    #[inline(always)]
    pub const fn current(self) -> u16 {
        (self.0 & INDEX) as u16
    }

    /// Whether flows of this slot may have entries.
    #[inline(always)]
    pub const fn tracked(self) -> bool {
        self.0 & TRACKED != 0
    }

    /// Where live flows without an entry are.
    #[inline(always)]
    pub const fn previous(self) -> u16 {
        (self.0 >> 16 & INDEX) as u16
    }

    /// Whether the window is closed.
    #[inline(always)]
    pub const fn settled(self) -> bool {
        self.current() == self.previous()
    }

    /// The slot after a new ring gave it to `next`.
    ///
    /// `previous` stays: while the window is open by rule, and when it is closed because it equals `current`. A
    /// `previous` that nobody can be on any more (`reachable` says no) gives way. What had entries keeps being looked up.
    #[must_use]
    pub fn give_to(self, next: u16, reachable: impl Fn(u16) -> bool) -> Self {
        let keep = self.previous() != NONE && reachable(self.previous());
        let previous = if keep { self.previous() } else { next };
        Self::new(next, self.tracked() || previous != next, previous)
    }

    /// The slot after its window ended: flows not seen since it opened are dead by the idle timeout.
    #[must_use]
    pub const fn settle(self) -> Self {
        Self::new(self.current(), self.tracked(), self.current())
    }

    /// The slot after a sweep found no live entry for it. Only a settled slot may be untracked.
    #[must_use]
    pub const fn untrack(self) -> Self {
        if self.settled() { Self::settled_on(self.current()) } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_come_back(current in 0..=NONE, tracked: bool, previous in 0..=NONE) {
            let slot = Slot::new(current, tracked, previous);
            prop_assert_eq!((slot.current(), slot.tracked(), slot.previous()), (current, tracked, previous));
        }

        /// Whatever happens, an open window is tracked, and `previous` changes only when nobody can be on it.
        #[test]
        fn previous_stays_while_it_can_be_reached(steps in proptest::collection::vec((0_u16..6, 0_u16..64), 1..40)) {
            let mut slot = Slot::EMPTY;
            for (next, up) in steps {
                let reachable = |n: u16| n < 6 && up & (1 << n) != 0;
                let before = slot;
                slot = slot.give_to(next, reachable);
                prop_assert_eq!(slot.current(), next);
                prop_assert!(slot.settled() || slot.tracked());
                if before != Slot::EMPTY && reachable(before.previous()) {
                    prop_assert_eq!(slot.previous(), before.previous());
                }
            }
        }
    }

    #[test]
    fn a_first_backend_needs_no_window() {
        assert_eq!(Slot::EMPTY.give_to(3, |_| true), Slot::settled_on(3));
    }

    #[test]
    fn a_change_and_back_is_settled_but_still_tracked() {
        let slot = Slot::settled_on(1).give_to(2, |_| true);
        assert_eq!(slot, Slot::new(2, true, 1));
        let back = slot.give_to(1, |_| true);
        assert_eq!(back, Slot::new(1, true, 1));
        assert_eq!(back.untrack(), Slot::settled_on(1));
        assert_eq!(slot.untrack(), slot, "an open window is never untracked");
    }

    #[test]
    fn a_dead_backend_leaves_no_window() {
        assert_eq!(Slot::settled_on(1).give_to(2, |n| n != 1), Slot::settled_on(2));
    }
}
