//! How many echo requests are answered: a token bucket on each CPU, whose state is one number.
//!
//! The number is the time at which the bucket is full again, as in the generic cell rate algorithm (ITU-T I.371): taking a
//! token moves it on by the time that a token takes to come back.

/// Tokens that come back in a second.
pub const PER_SECOND: u64 = 1000;
/// Tokens of a full bucket.
pub const BURST: u64 = 1024;

/// The time in which a token comes back, ns.
const TOKEN_NS: u64 = 1_000_000_000 / PER_SECOND;

/// Takes a token at `now`, ns: the bucket's new state, or `None` when it is empty.
#[inline(always)]
pub const fn take(full_at: u64, now: u64) -> Option<u64> {
    let full_at = if full_at > now { full_at } else { now };
    // A clock that was set back finds an empty bucket at worst until it has caught up.
    if full_at - now > (BURST - 1) * TOKEN_NS { None } else { Some(full_at + TOKEN_NS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many tokens there are at once.
    fn drain(state: &mut u64, now: u64) -> u64 {
        let mut taken = 0;
        while let Some(next) = take(*state, now) {
            (*state, taken) = (next, taken + 1);
        }
        taken
    }

    #[test]
    fn a_bucket_holds_its_burst_and_fills_again() {
        let (mut state, start) = (0, 5_000_000_000);
        assert_eq!(drain(&mut state, start), BURST);
        assert_eq!(drain(&mut state, start + TOKEN_NS - 1), 0);
        assert_eq!(drain(&mut state, start + TOKEN_NS), 1);
        assert_eq!(drain(&mut state, start + 11 * TOKEN_NS), 10);
        assert_eq!(drain(&mut state, start + 1_000_000_000_000), BURST, "no more than the burst");
    }

    #[test]
    fn a_second_gives_so_many() {
        let mut state = 0;
        let taken: u64 = (0..=1_000_000).map(|n| drain(&mut state, n * 1000)).sum();
        assert_eq!(taken, BURST + PER_SECOND);
    }
}
