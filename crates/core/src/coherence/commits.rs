//! Commits: rule 2. The counter that numbers writing transactions before they are visible, and who
//! is between taking a number and having appended.
//!
//! Each backend has a cell, by its number, that holds the number it took, or 0. A cell is written by
//! its backend alone.
//!
//! Orderings: PostgreSQL makes a transaction visible under a lock that taking a snapshot needs too,
//! so whoever sees the transaction also sees what was stored here in its PRE_COMMIT. Release and
//! Acquire are asked for all the same; they cost nothing here, and the argument then needs no lock
//! of somebody else's once the value itself has been read.

use super::table::{BadLayout, Shared, Table};
use std::alloc::Layout;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counter, away from the cells of the first backends.
#[repr(C, align(64))]
struct Counter(AtomicU64);

// SAFETY: an atomic; the padding is never read.
unsafe impl Shared for Counter {}

/// A handle on the counter and the cells.
#[derive(Clone, Copy)]
pub struct Commits {
    table: Table<Counter, AtomicU64>,
}

impl Commits {
    /// The memory for `backends` cells.
    pub fn layout(backends: usize) -> Result<Layout, BadLayout> {
        Table::<Counter, AtomicU64>::layout(backends)
    }

    /// Makes a counter at 0 with nobody committing.
    ///
    /// # Safety
    /// `mem` is valid for `layout(backends)`, nobody else uses it yet, and it outlives every handle.
    pub unsafe fn init_in_place(mem: *mut u8, backends: usize) -> Result<Commits, BadLayout> {
        // SAFETY: the caller's promise, for the same layout.
        let table = unsafe { Table::init_in_place(mem, backends)? };
        Ok(Commits { table })
    }

    /// A handle on what `init_in_place` made at `mem`.
    ///
    /// # Safety
    /// `mem` holds commits and outlives every handle.
    pub unsafe fn attach(mem: *mut u8) -> Commits {
        // SAFETY: the caller's promise.
        let table = unsafe { Table::attach(mem) };
        Commits { table }
    }

    fn counter(&self) -> &AtomicU64 {
        &self.table.head().0
    }

    /// Rule 2, in PRE_COMMIT: takes the next number, and counts this backend as committing. `None`
    /// if there is no such cell: the caller then has to do without and purge.
    pub fn begin(&self, backend: usize) -> Option<u64> {
        let cell = self.table.cells().get(backend)?;
        let s = self.counter().fetch_add(1, Ordering::AcqRel) + 1;
        cell.store(s, Ordering::Release);
        Some(s)
    }

    /// Rule 2, once the transaction has appended, has declared its loss, or has aborted.
    pub fn end(&self, backend: usize) {
        if let Some(cell) = self.table.cells().get(backend) {
            // Release: the append comes before this.
            cell.store(0, Ordering::Release);
        }
    }

    /// The last number taken. A reader reads it after it has taken its snapshot, so that no
    /// transaction it sees has a higher one (rule 4).
    pub fn counter_now(&self) -> u64 {
        self.counter().load(Ordering::Acquire)
    }

    /// Whether every transaction with a number up to `s` has appended. With `s` as read by
    /// [`Commits::counter_now`] at its beginning, `wait()` waits for this and then for the ring as
    /// it stands: a transaction that was visible at its beginning had its number by then.
    pub fn all_done(&self, s: u64) -> bool {
        self.table.cells().iter().all(|cell| {
            let committing = cell.load(Ordering::Acquire);
            committing == 0 || committing > s
        })
    }

    /// Whether nobody is committing (rule 8).
    pub fn idle(&self) -> bool {
        self.all_done(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::OnHeap;
    use super::*;

    fn commits(n: usize) -> OnHeap<Commits> {
        OnHeap::new(Commits::layout(n).unwrap(), |mem| {
            // SAFETY: the memory is of the layout asked for, and lives as long as the handle.
            unsafe { Commits::init_in_place(mem, n) }.unwrap()
        })
    }

    #[test]
    fn numbers_grow_and_waiting_is_for_those_that_were_there() {
        let commits = commits(3);
        assert!(commits.idle());
        assert_eq!(commits.begin(0), Some(1));
        let now = commits.counter_now();
        assert_eq!(commits.begin(1), Some(2));
        assert!(!commits.all_done(now));
        commits.end(0);
        assert!(commits.all_done(now));
        assert!(!commits.idle());
        commits.end(1);
        assert!(commits.idle());
        assert_eq!(commits.begin(3), None);
        assert_eq!(commits.counter_now(), 2);
    }

    #[test]
    fn no_two_backends_get_one_number() {
        let commits = commits(4);
        let mut numbers: Vec<u64> = std::thread::scope(|scope| {
            let backends: Vec<_> = (0..4)
                .map(|backend| {
                    let commits = *commits;
                    scope.spawn(move || {
                        let take = |_| {
                            let s = commits.begin(backend).unwrap();
                            assert!(!commits.all_done(s));
                            commits.end(backend);
                            s
                        };
                        (0..100).map(take).collect::<Vec<_>>()
                    })
                })
                .collect();
            backends
                .into_iter()
                .flat_map(|backend| backend.join().unwrap())
                .collect()
        });
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=400).collect::<Vec<_>>());
    }
}
