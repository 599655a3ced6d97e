//! Slots: rules 3 and 4, for each key.
//!
//! A key's hash picks its slot, in a table whose size is a power of two. Two keys may share a slot
//! and every rule stays right when they do: what happens to one only makes the other's writes
//! deletes, or drops its fills.
//!
//! The worker alone writes slots, and one at a time: a worker is started only after its predecessor
//! has ended. A restarted worker takes the entries that were not acknowledged once more, against
//! slots that have seen them already. That is safe: a version that has moved drops the fill, and an
//! `applied` that is ahead turns the write into a DEL.
//!
//! # Orderings
//!
//! Readers race with the worker, and two of a slot's words matter to them. The worker stores
//! `floor`, then `version` with Release; the reader loads `version` with Acquire, then `floor`.
//!
//! - A reader that notes the new version sees the raised floor, so the test refuses every snapshot
//!   that does not see the writer: its xid is at least their xmin.
//! - A reader that notes the old version may see either floor. Whatever the test says, a fill that
//!   carries the old version is dropped if the worker takes it after the write; and if it takes it
//!   before, the write overwrites it.
//! - Between the two stores: old version, raised floor. The test may refuse a snapshot, or admit
//!   one that sees the writer and whose fill is dropped in vain. Both cost a query, no more.
//!
//! In the opposite order, a reader between the stores would note the new version and pass the old
//! floor: stale for good. On either side the second access must not come first: a Release store
//! keeps what precedes it, an Acquire load what follows. `applied` and `seen` belong to the worker
//! alone; atomics only because they outlive it in shared memory.

use super::FillTicket;
use super::table::{BadLayout, Shared, Table};
use crate::ring::batch::Kind;
use std::alloc::Layout;
use std::sync::atomic::{AtomicU64, Ordering};

/// Two slots to a cache line.
#[repr(C)]
pub(super) struct Slot {
    /// Grows with each write taken.
    pub(super) version: AtomicU64,
    /// The highest xid of a write taken.
    pub(super) floor: AtomicU64,
    /// The highest number `s` (rule 2) of a write taken, or carried by a fill that was applied.
    pub(super) applied: AtomicU64,
    /// The highest snapshot xmax of a fill applied.
    pub(super) seen: AtomicU64,
}

// SAFETY: made of atomics alone.
unsafe impl Shared for Slot {}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Its value is stored.
    Set,
    /// Its key is deleted.
    Del,
}

/// What becomes of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FillVerdict {
    Apply,
    Drop(Dropped),
}

/// Why a fill is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// A write of this slot was taken since the fill's version was noted (rule 3).
    VersionMoved,
    /// The mapping lost something, or was purged or redefined, since its epoch was noted (rule 6).
    EpochMoved,
    /// A fill with a snapshot that may be newer was applied before (rule 4).
    OlderSnapshot,
}

/// A handle on the slots.
#[derive(Clone, Copy)]
pub struct Slots {
    table: Table<(), Slot>,
    mask: u64,
}

impl Slots {
    fn rounded(slots: usize) -> Result<usize, BadLayout> {
        slots
            .max(1)
            .checked_next_power_of_two()
            .ok_or(BadLayout { cells: slots })
    }

    /// The memory for `slots` slots, rounded up to a power of two.
    pub fn layout(slots: usize) -> Result<Layout, BadLayout> {
        Table::<(), Slot>::layout(Self::rounded(slots)?)
    }

    /// Makes fresh slots.
    ///
    /// # Safety
    /// `mem` is valid for `layout(slots)`, nobody else uses it yet, and it outlives every handle.
    pub unsafe fn init_in_place(mem: *mut u8, slots: usize) -> Result<Slots, BadLayout> {
        // SAFETY: the caller's promise, for the same layout.
        unsafe { Table::<(), Slot>::init_in_place(mem, Self::rounded(slots)?)? };
        // SAFETY: just initialised.
        Ok(unsafe { Self::attach(mem) })
    }

    /// A handle on the slots that `init_in_place` made at `mem`.
    ///
    /// # Safety
    /// `mem` holds slots and outlives every handle.
    pub unsafe fn attach(mem: *mut u8) -> Slots {
        // SAFETY: the caller's promise.
        let table = unsafe { Table::attach(mem) };
        let mask = table.cells().len() as u64 - 1;
        Slots { table, mask }
    }

    /// How many slots there are: a power of two.
    pub fn len(&self) -> usize {
        self.table.cells().len()
    }

    /// Never: there is at least one slot.
    pub fn is_empty(&self) -> bool {
        false
    }

    pub(super) fn slot(&self, hash: u64) -> &Slot {
        // The mask is below the number of cells: this cannot be out of bounds.
        &self.table.cells()[(hash & self.mask) as usize]
    }

    /// Rule 3, reader: the version to be noted, before [`Slots::admits`] is asked.
    pub fn note(&self, hash: u64) -> u64 {
        // Acquire: see the module. The test must not run ahead of it.
        self.slot(hash).version.load(Ordering::Acquire)
    }

    /// Rule 3, reader: whether a snapshot with this xmin sees every writer that was taken.
    pub fn admits(&self, hash: u64, xmin: u64) -> bool {
        self.slot(hash).floor.load(Ordering::Relaxed) < xmin
    }

    /// Rules 3, 4 and 6, worker: takes a write off the ring. `s` is its transaction's number and
    /// `epoch_current` says whether the epoch noted with it is the mapping's epoch still.
    pub fn take_write(&self, hash: u64, xid: u64, s: u64, epoch_current: bool, kind: Kind) -> Verdict {
        let slot = self.slot(hash);
        Self::raise_floor(slot, xid);
        Self::move_version(slot);
        let applied = slot.applied.load(Ordering::Relaxed);
        // Also for a DEL: a SET with a lower number that arrives later would otherwise bring back
        // the row that this one deleted.
        slot.applied.store(applied.max(s), Ordering::Relaxed);
        if kind == Kind::Set && applied <= s && epoch_current {
            Verdict::Set
        } else {
            Verdict::Del
        }
    }

    /// Rule 3, first of the two stores.
    pub(super) fn raise_floor(slot: &Slot, xid: u64) {
        if slot.floor.load(Ordering::Relaxed) < xid {
            slot.floor.store(xid, Ordering::Relaxed);
        }
    }

    /// Rule 3, second of the two stores.
    pub(super) fn move_version(slot: &Slot) {
        let version = slot.version.load(Ordering::Relaxed);
        // Release: see the module. The floor must be there before this is.
        slot.version.store(version + 1, Ordering::Release);
    }

    /// Worker: takes a DEL asked for by SQL. Whatever was read before it no longer fills: the user
    /// may have asked because of a change that nobody captured.
    pub fn take_invalidate(&self, hash: u64) {
        Self::move_version(self.slot(hash));
    }

    /// Rules 3 and 4, worker: takes the fills of one entry, all seen by one snapshot with these
    /// bounds; `s` as read after that snapshot was taken.
    pub fn take_fills(&self, s: u64, xmin: u64, xmax: u64) -> FillBatch<'_> {
        FillBatch {
            slots: self,
            s,
            xmin,
            xmax,
            applied: Vec::new(),
        }
    }

    /// Rule 5, worker: whether a fill that was applied once may be sent again after a lost
    /// connection. `epoch` is the mapping's epoch now.
    pub fn fill_still_holds(&self, hash: u64, ticket: FillTicket, epoch: u64) -> bool {
        self.slot(hash).version.load(Ordering::Relaxed) == ticket.version && ticket.epoch == epoch
    }
}

/// The fills of one entry while they are decided.
///
/// Those that are applied raise `seen` when the batch ends, not one by one: rows of one snapshot
/// cannot set each other back, and while any transaction is open its xmin is below its own xmax, so
/// that of two rows in one slot the second would always be dropped.
pub struct FillBatch<'a> {
    slots: &'a Slots,
    s: u64,
    xmin: u64,
    xmax: u64,
    applied: Vec<u64>,
}

impl FillBatch<'_> {
    /// Decides one fill. `epoch` is its mapping's epoch now.
    pub fn take(&mut self, hash: u64, ticket: FillTicket, epoch: u64) -> FillVerdict {
        let slot = self.slots.slot(hash);
        if slot.version.load(Ordering::Relaxed) != ticket.version {
            return FillVerdict::Drop(Dropped::VersionMoved);
        }
        if ticket.epoch != epoch {
            return FillVerdict::Drop(Dropped::EpochMoved);
        }
        if self.xmin < slot.seen.load(Ordering::Relaxed) {
            return FillVerdict::Drop(Dropped::OlderSnapshot);
        }
        // A visible writer whose callback is late has a number up to `s`: it then deletes.
        slot.applied.store(
            slot.applied.load(Ordering::Relaxed).max(self.s),
            Ordering::Relaxed,
        );
        self.applied.push(hash);
        FillVerdict::Apply
    }
}

impl Drop for FillBatch<'_> {
    fn drop(&mut self) {
        for &hash in &self.applied {
            let slot = self.slots.slot(hash);
            slot.seen.store(
                slot.seen.load(Ordering::Relaxed).max(self.xmax),
                Ordering::Relaxed,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::OnHeap;
    use super::*;

    fn slots(n: usize) -> OnHeap<Slots> {
        OnHeap::new(Slots::layout(n).unwrap(), |mem| {
            // SAFETY: the memory is of the layout asked for, and lives as long as the handle.
            unsafe { Slots::init_in_place(mem, n) }.unwrap()
        })
    }

    fn current(slots: &Slots, hash: u64) -> FillTicket {
        FillTicket {
            version: slots.note(hash),
            epoch: 0,
        }
    }

    #[test]
    fn the_number_of_slots_is_a_power_of_two_and_attach_finds_them() {
        for (asked, made) in [(0, 1), (1, 1), (3, 4), (1000, 1024)] {
            let slots = slots(asked);
            slots.take_write(7, 3, 1, true, Kind::Set);
            // SAFETY: slots were made there.
            let attached = unsafe { Slots::attach(slots.memory()) };
            assert_eq!(attached.len(), made);
            assert_eq!(attached.note(7), 1);
        }
        assert_eq!(size_of::<Slot>(), 32);
        assert_eq!(
            Slots::layout(usize::MAX).unwrap_err(),
            BadLayout { cells: usize::MAX }
        );
    }

    #[test]
    fn a_write_refuses_snapshots_that_do_not_see_it() {
        let slots = slots(1);
        slots.take_write(0, 10, 1, true, Kind::Set);
        assert!(!slots.admits(0, 10));
        assert!(slots.admits(0, 11));
    }

    #[test]
    fn a_write_behind_a_newer_one_deletes() {
        let slots = slots(1);
        assert_eq!(slots.take_write(0, 11, 2, true, Kind::Set), Verdict::Set);
        assert_eq!(slots.take_write(0, 10, 1, true, Kind::Set), Verdict::Del);
        assert_eq!(slots.take_write(0, 11, 2, true, Kind::Set), Verdict::Set);
    }

    #[test]
    fn a_write_behind_a_newer_delete_deletes() {
        let slots = slots(1);
        assert_eq!(slots.take_write(0, 11, 2, true, Kind::Del), Verdict::Del);
        assert_eq!(slots.take_write(0, 10, 1, true, Kind::Set), Verdict::Del);
    }

    #[test]
    fn a_write_of_an_old_epoch_deletes() {
        let slots = slots(1);
        assert_eq!(slots.take_write(0, 10, 1, false, Kind::Set), Verdict::Del);
    }

    #[test]
    fn a_fill_is_dropped_for_each_of_its_reasons() {
        let slots = slots(1);
        let old = current(&slots, 0);
        slots.take_write(0, 10, 1, true, Kind::Set);
        let now = current(&slots, 0);
        let mut fills = slots.take_fills(1, 11, 12);
        assert_eq!(fills.take(0, old, 0), FillVerdict::Drop(Dropped::VersionMoved));
        assert_eq!(fills.take(0, now, 1), FillVerdict::Drop(Dropped::EpochMoved));
        assert_eq!(fills.take(0, now, 0), FillVerdict::Apply);
        drop(fills);
        let mut older = slots.take_fills(1, 11, 13);
        assert_eq!(older.take(0, now, 0), FillVerdict::Drop(Dropped::OlderSnapshot));
        slots.take_invalidate(0);
        assert!(!slots.fill_still_holds(0, now, 0));
    }

    #[test]
    fn two_rows_of_one_snapshot_both_fill_in_one_slot() {
        let slots = slots(1);
        let ticket = current(&slots, 0);
        let mut fills = slots.take_fills(0, 5, 9);
        assert_eq!(fills.take(0, ticket, 0), FillVerdict::Apply);
        assert_eq!(fills.take(1, ticket, 0), FillVerdict::Apply);
    }

    #[test]
    fn a_fill_makes_a_late_write_delete() {
        let slots = slots(1);
        let ticket = current(&slots, 0);
        assert_eq!(slots.take_fills(2, 12, 12).take(0, ticket, 0), FillVerdict::Apply);
        assert_eq!(slots.take_write(0, 10, 1, true, Kind::Set), Verdict::Del);
    }
}
