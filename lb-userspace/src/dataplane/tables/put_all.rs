//! Many entries for a two-choice table. What one insertion waits for, another can wait for at the same time: chains of
//! moves that have no place in common are carried out side by side, and share their grace periods.

use std::collections::HashSet;

use lb_common::table::insert;

use super::{Entry, Full, TwoChoice};

/// How far an entry has come.
enum Begun<T> {
    /// It is in the table.
    Done,
    /// This is left to do.
    Chain(Chain<T>),
    /// Others must be done first.
    Later,
    /// There is no place for it.
    Full,
}

/// Moves that make room for an entry, the next one last.
struct Chain<T> {
    moves: Vec<(u32, u32)>,
    place: u32,
    entry: T,
}

impl<T> Chain<T> {
    /// Every place that it reads or writes.
    fn places(&self) -> impl Iterator<Item = u32> + '_ {
        self.moves.iter().flat_map(|(from, to)| [*from, *to]).chain([self.place])
    }

    /// The place that is written next.
    fn next(&self) -> u32 {
        self.moves.last().map_or(self.place, |(_, to)| *to)
    }
}

impl<T: Entry> TwoChoice<T> {
    /// Puts entries like [`Self::put`], and lets those that must wait for readers wait together.
    ///
    /// # Errors
    /// There is no place for a new key; all that have one are in the table.
    pub fn put_all(&mut self, entries: &[T]) -> Result<(), Full> {
        let mut refused = false;
        let mut left: Vec<&T> = entries.iter().collect();
        while !left.is_empty() {
            // Places that the chains of this round read or write. The first entry never has to wait for the next round.
            let (mut taken, mut chains, mut later) = (HashSet::new(), Vec::new(), Vec::new());
            let mut waiting = HashSet::new();
            for entry in left {
                // Of two entries with the same key, the second is put second.
                let begun =
                    if waiting.contains(entry.key()) { Begun::Later } else { self.begin(entry, &taken) };
                match begun {
                    Begun::Done => {}
                    Begun::Chain(chain) => {
                        taken.extend(chain.places());
                        chains.push(chain);
                    }
                    Begun::Later => {
                        waiting.insert(entry.key());
                        later.push(entry);
                    }
                    Begun::Full => refused = true,
                }
            }
            self.finish(chains);
            left = later;
        }
        if refused { Err(self.full()) } else { Ok(()) }
    }

    /// Puts an entry if that needs no waiting, or says what is to be done.
    fn begin(&mut self, entry: &T, taken: &HashSet<u32>) -> Begun<T> {
        debug_assert!(entry.key().valid() && *entry.key() == entry.key().alone(), "a key as it is made");
        if let Some((place, old)) = self.find(entry.key()) {
            if taken.contains(&place) {
                return Begun::Later;
            }
            if old == *entry {
                return Begun::Done;
            }
            if T::IN_PLACE {
                self.write(place, entry);
                return Begun::Done;
            }
            self.clear(place);
            self.used -= 1;
            return Begun::Chain(Chain { moves: Vec::new(), place, entry: *entry });
        }
        let Some(plan) = insert(entry.key(), self.mask, |place| self.at(place).map(|e| *e.key())) else {
            // A chain that is carried out may make room.
            return if taken.is_empty() { Begun::Full } else { Begun::Later };
        };
        let mut moves: Vec<_> = plan.moves().collect();
        moves.reverse();
        let chain = Chain { moves, place: plan.place(), entry: *entry };
        if chain.places().any(|place| taken.contains(&place)) {
            return Begun::Later;
        }
        if chain.moves.is_empty() && !self.retired.contains(&chain.place) {
            self.fill(chain.place, entry);
            self.used += 1;
            return Begun::Done;
        }
        Begun::Chain(chain)
    }

    /// Carries out chains that have no place in common, all of them a step at a time.
    fn finish(&mut self, mut chains: Vec<Chain<T>>) {
        while !chains.is_empty() {
            if chains.iter().any(|chain| self.retired.contains(&chain.next())) {
                self.synchronize();
            }
            let mut copied = Vec::new();
            chains.retain_mut(|chain| match chain.moves.pop() {
                Some((from, to)) => {
                    if let Some(moving) = self.at(from) {
                        self.fill(to, &moving);
                        copied.push(from);
                    }
                    true
                }
                None => {
                    self.fill(chain.place, &chain.entry);
                    self.used += 1;
                    false
                }
            });
            if !copied.is_empty() {
                self.synchronize();
                copied.into_iter().for_each(|from| self.clear(from));
            }
        }
    }
}
