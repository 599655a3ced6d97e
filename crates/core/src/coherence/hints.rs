//! Hints: which keys were filled a moment ago, so that a hot key is not filled at every read.
//!
//! A cell holds a tag of the key (24 bits of its hash) and a time (40 bits of milliseconds, which
//! wrap after 34 years), and a key's hint may stand in any of the four cells of its bucket. It is
//! advice and nothing rests on it: where more than four keys share a bucket the oldest hint gives
//! way, which costs a fill, and two keys that also share the tag, one in 16 million pairs, may keep
//! one of them from being filled for the interval asked about.
//!
//! A purge clears nothing here, and so needs no time and leaves the hints of other mappings: who asks after one
//! leaves out what is older (`within_ms`).
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

/// Cells to a bucket: half a cache line.
const BUCKET: usize = 4;

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
            .max(BUCKET)
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

    fn bucket(&self, hash: u64) -> &[AtomicU64] {
        // The mask is below the number of cells, a multiple of a bucket's: this cannot be out of bounds.
        let start = (hash & self.mask) as usize / BUCKET * BUCKET;
        &self.table.cells()[start..start + BUCKET]
    }

    /// Whether this very key was filled less than `within_ms` ago. `now_ms` is any clock that the
    /// processes share; if it goes back the answer is no.
    pub fn recently_filled(&self, hash: u64, now_ms: u64, within_ms: u64) -> bool {
        self.bucket(hash).iter().any(|cell| {
            let word = cell.load(Ordering::Relaxed);
            is_of(word, hash) && age(word, now_ms) < within_ms
        })
    }

    /// Notes that this key is about to be filled.
    pub fn set(&self, hash: u64, now_ms: u64) {
        let place = |cell: &&AtomicU64| {
            let word = cell.load(Ordering::Relaxed);
            if is_of(word, hash) {
                u64::MAX
            } else if word == NEVER {
                u64::MAX - 1
            } else {
                age(word, now_ms)
            }
        };
        if let Some(cell) = self.bucket(hash).iter().max_by_key(place) {
            cell.store(hash & !TIME_MASK | now_ms & TIME_MASK, Ordering::Relaxed);
        }
    }

    /// Forgets that this key was filled.
    pub fn clear(&self, hash: u64) {
        for cell in self.bucket(hash) {
            let word = cell.load(Ordering::Relaxed);
            if is_of(word, hash) {
                // If it fails somebody has just set another hint: that one is to stay, or is newer.
                let _ = cell.compare_exchange(word, NEVER, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}

/// Whether a cell holds a hint with this key's tag.
fn is_of(word: u64, hash: u64) -> bool {
    word != NEVER && word >> TIME_BITS == hash >> TIME_BITS
}

/// Milliseconds since the hint was set; a huge number if it is of the future.
fn age(word: u64, now_ms: u64) -> u64 {
    now_ms.wrapping_sub(word) & TIME_MASK
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

    #[test]
    fn the_oldest_hint_of_a_full_bucket_gives_way() {
        let hints = hints(4);
        let key = |tag: u64| (tag + 1) << TIME_BITS;
        (0..5).for_each(|tag| hints.set(key(tag), 100 + tag));
        assert!(!hints.recently_filled(key(0), 110, 1000));
        assert!((1..5).all(|tag| hints.recently_filled(key(tag), 110, 1000)));
    }

    proptest! {
        /// Against a map of the last hint of each tag: one bucket, and fewer tags than it has cells.
        #[test]
        fn a_yes_is_always_true(steps in prop::collection::vec((0u8..4, 0u64..8, 0u64..3, 0u64..50), 1..200)) {
            let hints = hints(4);
            let (mut last, mut now) = (HashMap::new(), 1);
            for (what, low, tag, pass) in steps {
                let hash = low | (tag + 1) << TIME_BITS;
                now += pass;
                match what {
                    0 => { hints.set(hash, now); last.insert(tag, now); }
                    1 => {
                        hints.clear(hash);
                        last.remove(&tag);
                    }
                    _ => {
                        let expected = last.get(&tag).is_some_and(|at| now - at < 40);
                        prop_assert_eq!(hints.recently_filled(hash, now, 40), expected);
                    }
                }
            }
        }
    }
}
