//! Results in a row → health. No clock, no network.
//!
//! The first result decides; after that, `rise` successes in a row make a backend up and `fall` failures make it down.

use crate::model::Health;

/// The health of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    rise: u32,
    fall: u32,
    health: Health,
    last: Option<bool>,
    streak: u32,
}

impl Machine {
    /// A backend of which only `known` is known, from before a restart perhaps.
    pub const fn new(rise: u32, fall: u32, known: Health) -> Self {
        Self { rise, fall, health: known, last: None, streak: 0 }
    }

    /// Takes other thresholds. Health and results in a row stay; the next result is judged by the new ones.
    pub const fn configure(&mut self, rise: u32, fall: u32) {
        self.rise = rise;
        self.fall = fall;
    }

    /// What is known now.
    pub const fn health(&self) -> Health {
        self.health
    }

    /// How many results in a row were like the last one.
    pub const fn streak(&self) -> u32 {
        self.streak
    }

    /// Takes a result; the new health if it changed.
    pub fn observe(&mut self, success: bool) -> Option<Health> {
        if self.last == Some(success) {
            self.streak = self.streak.saturating_add(1);
        } else {
            self.last = Some(success);
            self.streak = 1;
        }
        let (reached, threshold) = if success { (Health::Up, self.rise) } else { (Health::Down, self.fall) };
        let decided = self.health == Health::Unknown || self.streak >= threshold;
        if !decided || self.health == reached {
            return None;
        }
        self.health = reached;
        Some(reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Health::{Down, Unknown, Up};
    use proptest::prelude::*;

    fn changes(machine: &mut Machine, results: &str) -> Vec<Option<Health>> {
        results.chars().map(|result| machine.observe(result == '+')).collect()
    }

    #[test]
    fn the_first_result_decides() {
        assert_eq!(Machine::new(2, 3, Unknown).observe(true), Some(Up));
        assert_eq!(Machine::new(2, 3, Unknown).observe(false), Some(Down));
    }

    #[test]
    fn rise_and_fall_count_results_in_a_row() {
        let mut machine = Machine::new(2, 3, Up);
        assert_eq!(changes(&mut machine, "--+--"), [None; 5]);
        assert_eq!(changes(&mut machine, "-"), [Some(Down)]);
        assert_eq!(machine.streak(), 3);
        assert_eq!(changes(&mut machine, "-+-++"), [None, None, None, None, Some(Up)]);
    }

    #[test]
    fn what_is_known_from_before_is_not_overthrown_by_one_result() {
        assert_eq!(Machine::new(2, 3, Down).observe(true), None);
        assert_eq!(Machine::new(2, 3, Up).observe(false), None);
    }

    #[test]
    fn other_thresholds_keep_what_is_known() {
        let mut machine = Machine::new(2, 5, Up);
        changes(&mut machine, "---");
        machine.configure(2, 3);
        assert_eq!((machine.health(), machine.streak()), (Up, 3));
        assert_eq!(machine.observe(false), Some(Down));
    }

    proptest! {
        /// Against a reference that looks at the whole history.
        #[test]
        fn agrees_with_the_history(rise in 1_u32..5, fall in 1_u32..5, results: Vec<bool>) {
            let mut machine = Machine::new(rise, fall, Unknown);
            let mut expected = Unknown;
            for end in 1..=results.len() {
                let history = &results[..end];
                let last = |count: u32, value: bool| {
                    history.len() >= count as usize && history.iter().rev().take(count as usize).all(|r| *r == value)
                };
                let before = expected;
                if end == 1 {
                    expected = if history[0] { Up } else { Down };
                } else if last(rise, true) {
                    expected = Up;
                } else if last(fall, false) {
                    expected = Down;
                }
                let change = machine.observe(results[end - 1]);
                prop_assert_eq!(change, (before != expected).then_some(expected));
                prop_assert_eq!(machine.health(), expected);
            }
        }
    }
}
