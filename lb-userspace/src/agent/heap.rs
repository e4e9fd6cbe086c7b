//! Memory that the C library keeps after something large: given back a moment later, when nobody waits.

/// Looks until memory is given back: whoever asked for something large has read it by the second one.
const LATER: u8 = 2;

/// Whether something large was made.
#[derive(Debug, Default)]
pub(super) struct Heap {
    looks: u8,
}

impl Heap {
    /// Something as large as the whole configuration was made, and is thrown away soon.
    pub(super) fn large(&mut self) {
        self.looks = LATER;
    }

    /// Gives back what is free, if there may be much of it by now.
    pub(super) fn look(&mut self) {
        if self.looks == 1 {
            Self::give_back();
        }
        self.looks = self.looks.saturating_sub(1);
    }

    /// Gives back what is free.
    pub(super) fn give_back() {
        trim();
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: takes an integer, and locks what it works on.
    unsafe { libc::malloc_trim(0) };
}

/// Other libraries give back by themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
