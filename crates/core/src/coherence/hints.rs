//! Hints: which keys were filled a moment ago, so that a hot key is not filled at every read.
//!
//! A cell holds a tag of the key (24 bits of its hash) and a time (40 bits of milliseconds, which
//! wrap after 34 years). It is advice and nothing rests on it: keys that fall on one cell overwrite
//! each other, which costs a fill, and two keys that also share the tag, one in 16 million pairs,
//! may keep one of them from being filled for the interval asked about.
//!
//! A backend sets the hint *before* it appends the fill, and the worker clears it when it drops the
//! fill or deletes the key: in the other order the hint could outlive the reason to clear it.
//!
//! Orderings are Relaxed throughout: a cell is one word, and nothing is read through it.

use super::table::{BadLayout, Table};
use std::alloc::Layout;
use std::sync::atomic::{AtomicU64, Ordering};

const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// No key was filled. A key with tag 0 at time 0 looks the same: it is then filled once more.
const NEVER: u64 = 0;

/// A handle on the hints.
#[derive(Clone, Copy)]
pub struct Hints {
    table: Table<(), AtomicU64>,
    mask: u64,
}

impl Hints {
    fn rounded(cells: usize) -> Result<usize, BadLayout> {
        cells
            .max(1)
            .checked_next_power_of_two()
            .ok_or(BadLayout { cells })
    }

    /// The memory for `cells` hints, rounded up to a power of two.
    pub fn layout(cells: usize) -> Result<Layout, BadLayout> {
        Table::<(), AtomicU64>::layout(Self::rounded(cells)?)
    }

    /// Makes a table without hints.
    ///
    /// # Safety
    /// `mem` is valid for `layout(cells)`, nobody else uses it yet, and it outlives every handle.
    pub unsafe fn init_in_place(mem: *mut u8, cells: usize) -> Result<Hints, BadLayout> {
        // SAFETY: the caller's promise, for the same layout.
        unsafe { Table::<(), AtomicU64>::init_in_place(mem, Self::rounded(cells)?)? };
        // SAFETY: just initialised.
        Ok(unsafe { Self::attach(mem) })
    }

    /// A handle on the table that `init_in_place` made at `mem`.
    ///
    /// # Safety
    /// `mem` holds hints and outlives every handle.
    pub unsafe fn attach(mem: *mut u8) -> Hints {
        // SAFETY: the caller's promise.
        let table: Table<(), AtomicU64> = unsafe { Table::attach(mem) };
        let mask = table.cells().len() as u64 - 1;
        Hints { table, mask }
    }

    fn cell(&self, hash: u64) -> &AtomicU64 {
        // The mask is below the number of cells: this cannot be out of bounds.
        &self.table.cells()[(hash & self.mask) as usize]
    }

    /// Whether this very key was filled less than `within_ms` ago. `now_ms` is any clock that the
    /// processes share; if it goes back the answer is no.
    pub fn recently_filled(&self, hash: u64, now_ms: u64, within_ms: u64) -> bool {
        let word = self.cell(hash).load(Ordering::Relaxed);
        let age = now_ms.wrapping_sub(word) & TIME_MASK;
        word != NEVER && word >> TIME_BITS == hash >> TIME_BITS && age < within_ms
    }

    /// Notes that this key is about to be filled.
    pub fn set(&self, hash: u64, now_ms: u64) {
        let word = hash & !TIME_MASK | now_ms & TIME_MASK;
        self.cell(hash).store(word, Ordering::Relaxed);
    }

    /// Forgets that this key was filled, unless the cell belongs to another key by now.
    pub fn clear(&self, hash: u64) {
        let cell = self.cell(hash);
        let word = cell.load(Ordering::Relaxed);
        if word >> TIME_BITS == hash >> TIME_BITS {
            // If it fails somebody has just set another hint: that one is to stay, or is newer.
            let _ = cell.compare_exchange(word, NEVER, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Forgets everything, as after a purge.
    pub fn clear_all(&self) {
        self.table
            .cells()
            .iter()
            .for_each(|cell| cell.store(NEVER, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::OnHeap;
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn hints(n: usize) -> OnHeap<Hints> {
        OnHeap::new(Hints::layout(n).unwrap(), |mem| {
            // SAFETY: the memory is of the layout asked for, and lives as long as the handle.
            unsafe { Hints::init_in_place(mem, n) }.unwrap()
        })
    }

    #[test]
    fn a_hint_holds_for_its_interval_and_its_key() {
        let hints = hints(16);
        let (key, same_cell) = (5 | 7 << TIME_BITS, 5 | 8 << TIME_BITS);
        assert!(!hints.recently_filled(key, 0, 1000));
        hints.set(key, 1000);
        assert!(hints.recently_filled(key, 1000, 1));
        assert!(hints.recently_filled(key, 1999, 1000));
        assert!(!hints.recently_filled(key, 2000, 1000));
        assert!(!hints.recently_filled(same_cell, 1000, 1000));
        hints.clear(same_cell);
        assert!(hints.recently_filled(key, 1000, 1000));
        hints.clear(key);
        assert!(!hints.recently_filled(key, 1000, 1000));
    }

    #[test]
    fn a_clock_that_goes_back_or_wraps_does_not_silence_a_key_for_ever() {
        let hints = hints(1);
        let key = 9 << TIME_BITS;
        hints.set(key, 5000);
        assert!(!hints.recently_filled(key, 4999, 1000));
        hints.set(key, (1 << TIME_BITS) - 1);
        assert!(hints.recently_filled(key, (1 << TIME_BITS) + 5, 1000));
    }

    proptest! {
        /// Against a map of the last hint of each cell: never a yes too many.
        #[test]
        fn a_yes_is_always_true(steps in prop::collection::vec((0u8..4, 0u64..8, 0u64..3, 0u64..50), 1..200)) {
            let hints = hints(4);
            let (mut last, mut now) = (HashMap::new(), 1);
            for (what, low, tag, pass) in steps {
                let hash = low | (tag + 1) << TIME_BITS;
                now += pass;
                match what {
                    0 => { hints.set(hash, now); last.insert(low % 4, (tag, now)); }
                    1 => {
                        hints.clear(hash);
                        if last.get(&(low % 4)).is_some_and(|(t, _)| *t == tag) { last.remove(&(low % 4)); }
                    }
                    _ => {
                        let expected = last.get(&(low % 4)).is_some_and(|(t, at)| *t == tag && now - at < 40);
                        prop_assert_eq!(hints.recently_filled(hash, now, 40), expected);
                    }
                }
            }
        }
    }
}
