//! An array that readers in the kernel look at while it is written: mapped memory of a BPF array, or the heap.
//!
//! Every access is an atomic load or store of 64 bits; an entry is a whole number of such words. What must change
//! together lies in one word, or is made visible by the word that is stored last.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::abi::Plain;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// An index that is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{table} has {len} entries, there is no {index}: this is an error in lb, please report it")]
pub struct OutOfRange {
    /// The table.
    pub table: &'static str,
    /// What was asked for.
    pub index: u32,
    /// Entries of the table.
    pub len: u32,
}

/// `len` entries of `T`. Clones show the same memory.
#[derive(Clone, Debug)]
pub struct Region<T> {
    table: &'static str,
    len: u32,
    memory: Arc<Memory>,
    entry: PhantomData<fn() -> T>,
}

#[derive(Debug)]
enum Memory {
    Heap(Box<[AtomicU64]>),
    Mapped(Mapping),
}

/// What `mmap` gave; unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    base: NonNull<AtomicU64>,
    bytes: usize,
}

// SAFETY: the memory is shared with the kernel and reached through atomics only; unmapping needs no certain thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nobody borrows it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

impl Memory {
    fn words(&self) -> &[AtomicU64] {
        match self {
            Self::Heap(words) => words,
            // SAFETY: the mapping is page-aligned, `bytes` long, and lives as long as `self`.
            Self::Mapped(mapping) => unsafe {
                std::slice::from_raw_parts(mapping.base.as_ptr(), mapping.bytes / WORD)
            },
        }
    }
}

impl<T: Plain> Region<T> {
    /// 64-bit words of an entry. Fails to compile for an entry that is not a whole number of them.
    pub const WORDS: usize = {
        assert!(
            size_of::<T>().is_multiple_of(WORD),
            "an entry of a mapped array is a whole number of 64-bit words"
        );
        size_of::<T>() / WORD
    };

    /// Zeroed entries on the heap. `table` is the name for errors.
    pub fn on_heap(table: &'static str, len: u32) -> Self {
        let words = (0..len as usize * Self::WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { table, len, memory: Arc::new(Memory::Heap(words)), entry: PhantomData }
    }

    /// The memory of a BPF array with `BPF_F_MMAPABLE` (kernel 5.5), whose values must be `T` and which has `len` entries.
    ///
    /// # Errors
    /// What `mmap` says: EPERM for a frozen map, EINVAL when the map is shorter.
    pub fn of_map(table: &'static str, map: BorrowedFd<'_>, len: u32, writable: bool) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        let bytes = len as usize * Self::WORDS * WORD;
        let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new shared mapping at an address of the kernel's choice.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, map.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave the null page"))?;
        let memory = Arc::new(Memory::Mapped(Mapping { base, bytes }));
        Ok(Self { table, len, memory, entry: PhantomData })
    }

    /// The table's name.
    pub fn table(&self) -> &'static str {
        self.table
    }

    /// Entries.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy of an entry.
    pub fn get(&self, index: u32) -> Option<T> {
        let words = self.entry(index).ok()?;
        let mut value = T::new_zeroed();
        for (bytes, word) in value.as_mut_bytes().chunks_exact_mut(WORD).zip(words) {
            bytes.copy_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
        }
        Some(value)
    }

    /// One word of an entry.
    ///
    /// # Errors
    /// There is no such entry.
    pub fn word(&self, index: u32, word: usize) -> Result<u64, OutOfRange> {
        Ok(self.entry(index)?[word].load(Ordering::Acquire))
    }

    /// Stores the words of `value` that differ, in ascending order, `last` after all others.
    ///
    /// # Errors
    /// There is no such entry.
    pub fn write(&mut self, index: u32, value: &T, last: usize) -> Result<(), OutOfRange> {
        for word in (0..Self::WORDS).filter(|w| *w != last).chain([last]) {
            self.store(index, word, word_of(value, word))?;
        }
        Ok(())
    }

    /// Stores one word if it differs: everything written before is visible to whoever sees it.
    ///
    /// # Errors
    /// There is no such entry.
    pub fn store(&mut self, index: u32, word: usize, value: u64) -> Result<(), OutOfRange> {
        let cell = &self.entry(index)?[word];
        if cell.load(Ordering::Relaxed) != value {
            cell.store(value, Ordering::Release);
            #[cfg(test)]
            observe::stored();
        }
        Ok(())
    }

    fn entry(&self, index: u32) -> Result<&[AtomicU64], OutOfRange> {
        if index >= self.len {
            return Err(OutOfRange { table: self.table, index, len: self.len });
        }
        let first = index as usize * Self::WORDS;
        Ok(&self.memory.words()[first..first + Self::WORDS])
    }
}

/// The `n`th 64-bit word of a value, as it lies in memory.
pub(super) fn word_of<T: Plain>(value: &T, n: usize) -> u64 {
    let mut bytes = [0; WORD];
    bytes.copy_from_slice(&value.as_bytes()[n * WORD..(n + 1) * WORD]);
    u64::from_ne_bytes(bytes)
}

/// Lets a test look at the memory after every store.
#[cfg(test)]
pub(super) mod observe {
    use std::cell::RefCell;

    type Observer = Box<dyn FnMut()>;

    thread_local! {
        static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
    }

    /// Calls `observer` after each store of this thread while `work` runs.
    pub(crate) fn while_observed<R>(observer: impl FnMut() + 'static, work: impl FnOnce() -> R) -> R {
        OBSERVER.set(Some(Box::new(observer)));
        let result = work();
        OBSERVER.set(None);
        result
    }

    pub(super) fn stored() {
        OBSERVER.with_borrow_mut(|observer| {
            if let Some(observer) = observer {
                observer();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::abi::NeighbourEntry;

    #[test]
    fn entries_come_back_and_do_not_touch_their_neighbours() {
        let mut region = Region::<NeighbourEntry>::on_heap("NEIGHBOURS", 3);
        let mut entry = NeighbourEntry::default();
        entry.key.tag = 7;
        entry.macs = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        region.write(1, &entry, 2).unwrap();
        assert_eq!(region.get(1), Some(entry));
        assert_eq!(region.get(0), Some(NeighbourEntry::default()));
        assert_eq!(region.get(2), Some(NeighbourEntry::default()));
    }

    #[test]
    fn there_is_nothing_behind_the_end() {
        let mut region = Region::<NeighbourEntry>::on_heap("NEIGHBOURS", 3);
        assert_eq!(region.get(3), None);
        let error = region.store(3, 0, 1).unwrap_err();
        assert_eq!(error, OutOfRange { table: "NEIGHBOURS", index: 3, len: 3 });
    }
}
