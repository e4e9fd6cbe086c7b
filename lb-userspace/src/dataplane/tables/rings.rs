//! `RINGS`: slots, sixteen in a line. A slot is one word to its readers; a store of 64 bits carries its neighbour along.

use lb_common::abi::RingLine;
use lb_common::abi::ring::SLOTS_PER_LINE;

use super::region::{OutOfRange, Region};

/// Slots in a 64-bit word.
const PER_WORD: u32 = 2;

/// The slots of every service's ring. A ring starts at a line.
#[derive(Debug)]
pub struct Rings {
    lines: Region<RingLine>,
}

impl Rings {
    /// Rings in a region.
    pub fn new(lines: Region<RingLine>) -> Self {
        Self { lines }
    }

    /// Lines in all.
    pub fn lines(&self) -> u32 {
        self.lines.len()
    }

    /// The words of a ring of `slots` slots that starts at `first_line`; shorter where the table ends before it.
    pub fn read(&self, first_line: u32, slots: u32) -> Vec<u32> {
        let lines = (first_line..self.lines.len()).map_while(|line| self.lines.get(line));
        lines.flat_map(|line| line.slots).take(slots as usize).collect()
    }

    /// One slot's word.
    pub fn slot(&self, first_line: u32, index: u32) -> Option<u32> {
        let line = self.lines.get(first_line.checked_add(index / SLOTS_PER_LINE)?)?;
        Some(line.slots[(index % SLOTS_PER_LINE) as usize])
    }

    /// Sets one slot: one atomic store.
    ///
    /// # Errors
    /// The table ends before it.
    pub fn write(&mut self, first_line: u32, index: u32, slot: u32) -> Result<(), OutOfRange> {
        let line = first_line.saturating_add(index / SLOTS_PER_LINE);
        let word = (index % SLOTS_PER_LINE / PER_WORD) as usize;
        let mut pair = halves(self.lines.word(line, word)?);
        pair[(index % PER_WORD) as usize] = slot;
        self.lines.store(line, word, join(pair))
    }

    /// Sets a whole ring, slot after slot from its first. Slots behind the last one up to the line's end become zero.
    ///
    /// # Errors
    /// The table ends before the ring does: nothing was written.
    pub fn fill(&mut self, first_line: u32, slots: &[u32]) -> Result<(), OutOfRange> {
        let lines = slots.len().div_ceil(SLOTS_PER_LINE as usize) as u32;
        if let Some(last) = lines.checked_sub(1).map(|n| first_line.saturating_add(n))
            && last >= self.lines.len()
        {
            return Err(OutOfRange { table: self.lines.table(), index: last, len: self.lines.len() });
        }
        for (line, chunk) in (first_line..).zip(slots.chunks(SLOTS_PER_LINE as usize)) {
            for (word, pair) in chunk.chunks(PER_WORD as usize).enumerate() {
                self.lines.store(line, word, join([pair[0], pair.get(1).copied().unwrap_or(0)]))?;
            }
            for word in chunk.len().div_ceil(PER_WORD as usize)..Region::<RingLine>::WORDS {
                self.lines.store(line, word, 0)?;
            }
        }
        Ok(())
    }
}

/// The slots of a word, in the order of memory.
fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

fn join([first, second]: [u32; 2]) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings() -> Rings {
        Rings::new(Region::on_heap("RINGS", 8))
    }

    #[test]
    fn a_ring_that_ends_within_a_line_comes_back() {
        let mut rings = rings();
        let slots: Vec<u32> = (1..=35).collect();
        rings.fill(2, &slots).unwrap();
        assert_eq!(rings.read(2, 35), slots);
        assert_eq!(rings.slot(2, 34), Some(35));
        assert_eq!(rings.slot(2, 35), Some(0));
        assert!(rings.read(0, 32).iter().all(|slot| *slot == 0), "lines before the ring are untouched");
    }

    #[test]
    fn one_slot_changes_alone() {
        let mut rings = rings();
        rings.fill(0, &[7; 32]).unwrap();
        rings.write(0, 17, 9).unwrap();
        let mut expected = vec![7; 32];
        expected[17] = 9;
        assert_eq!(rings.read(0, 32), expected);
    }

    #[test]
    fn a_ring_that_does_not_fit_is_not_begun() {
        let mut rings = rings();
        assert_eq!(rings.fill(7, &[1; 17]).unwrap_err().index, 8);
        assert_eq!(rings.slot(7, 0), Some(0));
        assert!(rings.write(7, 16, 1).is_err());
        assert_eq!(rings.read(7, 100).len(), 16);
    }
}
