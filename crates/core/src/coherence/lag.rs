//! Lag: how long after its commit a change was in Redis, as a histogram in shared memory.
//!
//! Microseconds in buckets on a logarithmic scale, eight to each power of two: a quantile is at most
//! 12.5 % too high and never too low, up to 2^40 µs (12 days), beyond which all is one bucket. The
//! worker records and anybody reads. Readers see single counts, not one moment: while it is being
//! recorded, a sum may be a few behind.

use super::table::{BadLayout, Shared, Table};
use std::alloc::Layout;
use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets to a power of two, as a power of two.
const SUB_BITS: u32 = 3;
/// Lags of 2^40 µs and more share the last bucket.
const MAX_BITS: u32 = 40;
const BUCKETS: usize = ((MAX_BITS - SUB_BITS + 1) << SUB_BITS) as usize;

#[repr(C)]
struct Extremes {
    last: AtomicU64,
    max: AtomicU64,
}

// SAFETY: made of atomics alone.
unsafe impl Shared for Extremes {}

/// A handle on the histogram. All values are microseconds.
#[derive(Clone, Copy)]
pub struct Lag {
    table: Table<Extremes, AtomicU64>,
}

impl Lag {
    /// The memory for the histogram.
    pub fn layout() -> Result<Layout, BadLayout> {
        Table::<Extremes, AtomicU64>::layout(BUCKETS)
    }

    /// Makes an empty histogram.
    ///
    /// # Safety
    /// `mem` is valid for `layout()`, nobody else uses it yet, and it outlives every handle.
    pub unsafe fn init_in_place(mem: *mut u8) -> Result<Lag, BadLayout> {
        // SAFETY: the caller's promise, for the same layout.
        let table = unsafe { Table::init_in_place(mem, BUCKETS)? };
        Ok(Lag { table })
    }

    /// A handle on the histogram that `init_in_place` made at `mem`.
    ///
    /// # Safety
    /// `mem` holds a histogram and outlives every handle.
    pub unsafe fn attach(mem: *mut u8) -> Lag {
        // SAFETY: the caller's promise.
        let table = unsafe { Table::attach(mem) };
        Lag { table }
    }

    /// Counts one change that took `micros`.
    pub fn record(&self, micros: u64) {
        let Extremes { last, max } = self.table.head();
        self.table.cells()[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        last.store(micros, Ordering::Relaxed);
        max.fetch_max(micros, Ordering::Relaxed);
    }

    /// How many changes were counted.
    pub fn count(&self) -> u64 {
        self.table
            .cells()
            .iter()
            .map(|cell| cell.load(Ordering::Relaxed))
            .sum()
    }

    /// The lag that a share `p` (0 to 1) of the changes did not exceed: the upper end of its
    /// bucket, but never more than the maximum. `None` if nothing was counted.
    pub fn quantile(&self, p: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((count as f64 * p.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut below = 0;
        let reached = self.table.cells().iter().position(|cell| {
            below += cell.load(Ordering::Relaxed);
            below >= rank
        });
        reached.map(|index| upper_end(index).min(self.table.head().max.load(Ordering::Relaxed)))
    }

    /// The last change's lag, if there was one since the last reset.
    pub fn last(&self) -> Option<u64> {
        (self.count() > 0).then(|| self.table.head().last.load(Ordering::Relaxed))
    }

    /// The longest lag, if there was one since the last reset.
    pub fn max(&self) -> Option<u64> {
        (self.count() > 0).then(|| self.table.head().max.load(Ordering::Relaxed))
    }

    /// Forgets everything. What is recorded meanwhile may be forgotten or kept.
    pub fn reset(&self) {
        let Extremes { last, max } = self.table.head();
        self.table
            .cells()
            .iter()
            .chain([last, max])
            .for_each(|cell| cell.store(0, Ordering::Relaxed));
    }
}

/// The first buckets hold one value each; from 2^SUB_BITS on, a bucket is named by the position of
/// the highest bit and the SUB_BITS bits below it.
fn bucket(micros: u64) -> usize {
    let micros = micros.min((1 << MAX_BITS) - 1);
    if micros < 1 << SUB_BITS {
        return micros as usize;
    }
    let shift = micros.ilog2() - SUB_BITS;
    ((shift as usize) << SUB_BITS) + (micros >> shift) as usize
}

/// The highest value that falls into a bucket.
fn upper_end(index: usize) -> u64 {
    let index = index as u64;
    if index < 1 << SUB_BITS {
        return index;
    }
    let shift = (index >> SUB_BITS) - 1;
    let mantissa = (index & ((1 << SUB_BITS) - 1)) + (1 << SUB_BITS);
    if index as usize == BUCKETS - 1 {
        u64::MAX
    } else {
        ((mantissa + 1) << shift) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::OnHeap;
    use super::*;
    use proptest::prelude::*;

    fn lag() -> OnHeap<Lag> {
        OnHeap::new(Lag::layout().unwrap(), |mem| {
            // SAFETY: the memory is of the layout asked for, and lives as long as the handle.
            unsafe { Lag::init_in_place(mem) }.unwrap()
        })
    }

    #[test]
    fn buckets_are_adjacent_and_end_where_the_next_begins() {
        for index in 0..BUCKETS - 1 {
            assert_eq!(bucket(upper_end(index)), index);
            assert_eq!(bucket(upper_end(index) + 1), index + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn nothing_recorded_has_no_quantile() {
        let lag = lag();
        assert_eq!(
            (lag.quantile(0.5), lag.last(), lag.max(), lag.count()),
            (None, None, None, 0)
        );
        lag.record(u64::MAX);
        assert_eq!(
            (lag.quantile(0.5), lag.last(), lag.max()),
            (Some(u64::MAX), Some(u64::MAX), Some(u64::MAX))
        );
        lag.reset();
        assert_eq!(
            (lag.quantile(0.5), lag.last(), lag.max(), lag.count()),
            (None, None, None, 0)
        );
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_an_eighth_too_high(
            lags in prop::collection::vec(0u64..5_000_000, 1..300), p in 0.0f64..=1.0
        ) {
            let lag = lag();
            lags.iter().for_each(|micros| lag.record(*micros));
            let mut sorted = lags.clone();
            sorted.sort_unstable();
            let rank = ((sorted.len() as f64 * p).ceil() as usize).clamp(1, sorted.len());
            let (exact, found) = (sorted[rank - 1], lag.quantile(p).unwrap());
            prop_assert!(found >= exact && found <= exact + exact / 8, "{} for {}", found, exact);
            prop_assert_eq!(lag.max(), sorted.last().copied());
            prop_assert_eq!(lag.last(), lags.last().copied());
        }
    }
}
