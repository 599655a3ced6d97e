//! Gates: rules 6, 7 and 9, for each mapping.
//!
//! A gate counts the times that something of its mapping was lost, or became unknown, in `epoch`,
//! and the losses that a purge has made good in `purged_epoch`. While the second is behind the
//! first a purge is due. `floor` does for the mapping what a slot's floor does for a key: no
//! snapshot that might not see the lost writer may fill.
//!
//! What ends in `_locked` is called with the ring's lock held, in the same hold as the append that
//! it stands for: an entry behind it in the ring was appended by somebody who could know. Readers
//! take no lock. The orderings are those of [`slots`](super::slots), for the same reasons, with
//! `epoch` in the place of the version: fingerprint and floor first, the epoch last with Release;
//! a reader notes the epoch with Acquire, then tests the others.

use super::table::{BadLayout, Shared, Table};
use std::alloc::Layout;
use std::sync::atomic::{AtomicU64, Ordering};

#[repr(C)]
pub(super) struct Gate {
    pub(super) fingerprint: AtomicU64,
    pub(super) epoch: AtomicU64,
    pub(super) purged_epoch: AtomicU64,
    pub(super) floor: AtomicU64,
}

// SAFETY: made of atomics alone.
unsafe impl Shared for Gate {}

/// A handle on the gates of all mappings.
#[derive(Clone, Copy)]
pub struct Gates {
    table: Table<AtomicU64, Gate>,
}

impl Gates {
    /// The memory for `mappings` gates.
    pub fn layout(mappings: usize) -> Result<Layout, BadLayout> {
        Table::<AtomicU64, Gate>::layout(mappings)
    }

    /// Makes fresh gates: epoch 0, nothing lost, fingerprint 0.
    ///
    /// # Safety
    /// `mem` is valid for `layout(mappings)`, nobody else uses it yet, and it outlives every handle.
    pub unsafe fn init_in_place(mem: *mut u8, mappings: usize) -> Result<Gates, BadLayout> {
        // SAFETY: the caller's promise, for the same layout.
        let table = unsafe { Table::init_in_place(mem, mappings)? };
        Ok(Gates { table })
    }

    /// A handle on the gates that `init_in_place` made at `mem`.
    ///
    /// # Safety
    /// `mem` holds gates and outlives every handle.
    pub unsafe fn attach(mem: *mut u8) -> Gates {
        // SAFETY: the caller's promise.
        let table = unsafe { Table::attach(mem) };
        Gates { table }
    }

    /// How many gates there are.
    pub fn len(&self) -> usize {
        self.table.cells().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn gate(&self, mapping: u16) -> Option<&Gate> {
        self.table.cells().get(mapping as usize)
    }

    /// Rule 9: the hash of the mapping list that the worker has published; 0 before it has.
    pub fn list(&self) -> u64 {
        self.table.head().load(Ordering::Acquire)
    }

    /// Rule 9: publishes the hash of a mapping list, after its mappings' gates are set.
    pub fn publish_list_locked(&self, hash: u64) {
        self.table.head().store(hash, Ordering::Release);
    }

    /// The epoch now: noted by a reader before its tests (rule 3) and by a transaction in
    /// PRE_COMMIT (rule 2); compared with by the worker. A mapping that has no gate has an epoch
    /// that no other equals.
    pub fn note(&self, mapping: u16) -> u64 {
        // Acquire: see the module. The tests must not run ahead of it.
        self.gate(mapping)
            .map_or(u64::MAX, |gate| gate.epoch.load(Ordering::Acquire))
    }

    /// Rule 6, worker: whether an epoch noted earlier, if any was, is the mapping's epoch still.
    pub fn is_current(&self, mapping: u16, noted: Option<u64>) -> bool {
        self.gate(mapping)
            .is_some_and(|gate| Some(gate.epoch.load(Ordering::Acquire)) == noted)
    }

    /// Rule 9: whether the mapping is, in the published list, what this backend takes it for. Asked
    /// after the epoch is noted.
    pub fn is_defined_as(&self, mapping: u16, fingerprint: u64) -> bool {
        self.gate(mapping)
            .is_some_and(|gate| gate.fingerprint.load(Ordering::Relaxed) == fingerprint)
    }

    /// Rules 3 and 9, reader: whether a snapshot with this xmin sees every writer of this mapping
    /// that was lost, and reader and worker mean the same by it. Asked after the epoch is noted.
    pub fn admits(&self, mapping: u16, fingerprint: u64, xmin: u64) -> bool {
        self.is_defined_as(mapping, fingerprint)
            && self
                .gate(mapping)
                .is_some_and(|gate| gate.floor.load(Ordering::Relaxed) < xmin)
    }

    /// Rule 6: something that the transaction `xid` wrote will not arrive. A purge is then due.
    pub fn lose_locked(&self, mapping: u16, xid: u64) {
        let Some(gate) = self.gate(mapping) else { return };
        Self::raise_floor(gate, xid);
        Self::move_epoch(gate);
    }

    /// [`Gates::lose_locked`] for every mapping: what was lost cannot be told.
    pub fn lose_all_locked(&self, xid: u64) {
        (0..self.len()).for_each(|mapping| self.lose_locked(mapping as u16, xid));
    }

    /// Rule 9: the mapping is redefined, activated, or met for the first time. `xid` is the last
    /// one that was assigned. A purge is then due.
    pub fn define_locked(&self, mapping: u16, fingerprint: u64, xid: u64) {
        let Some(gate) = self.gate(mapping) else { return };
        gate.fingerprint.store(fingerprint, Ordering::Relaxed);
        Self::raise_floor(gate, xid);
        Self::move_epoch(gate);
    }

    /// Raises the floor without a loss: rule 9, for a prepared transaction that is not resolved.
    pub fn raise_floor_locked(&self, mapping: u16, xid: u64) {
        if let Some(gate) = self.gate(mapping) {
            Self::raise_floor(gate, xid);
        }
    }

    pub(super) fn raise_floor(gate: &Gate, xid: u64) {
        if gate.floor.load(Ordering::Relaxed) < xid {
            gate.floor.store(xid, Ordering::Relaxed);
        }
    }

    pub(super) fn move_epoch(gate: &Gate) {
        let epoch = gate.epoch.load(Ordering::Relaxed);
        // Release: see the module. The floor must be there before this is.
        gate.epoch.store(epoch + 1, Ordering::Release);
    }

    /// Rule 7: the epoch to purge for, if a purge is due. Read first of all: what was in the ring
    /// at this moment has to go through the lanes before the purge deletes anything.
    pub fn purge_due(&self, mapping: u16) -> Option<u64> {
        let gate = self.gate(mapping)?;
        let purged = gate.purged_epoch.load(Ordering::Acquire);
        let epoch = gate.epoch.load(Ordering::Acquire);
        (purged < epoch).then_some(epoch)
    }

    /// Whether what was lost up to this epoch has been purged.
    pub fn is_purged(&self, mapping: u16, epoch: u64) -> bool {
        self.gate(mapping)
            .is_some_and(|gate| gate.purged_epoch.load(Ordering::Acquire) >= epoch)
    }

    /// Rule 7: a purge is done that [`Gates::purge_due`] asked for with this epoch. Losses since
    /// then are still to be purged for.
    pub fn purged(&self, mapping: u16, epoch: u64) {
        if let Some(gate) = self.gate(mapping) {
            gate.purged_epoch.fetch_max(epoch, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::OnHeap;
    use super::*;

    fn gates(n: usize) -> OnHeap<Gates> {
        OnHeap::new(Gates::layout(n).unwrap(), |mem| {
            // SAFETY: the memory is of the layout asked for, and lives as long as the handle.
            unsafe { Gates::init_in_place(mem, n) }.unwrap()
        })
    }

    #[test]
    fn a_loss_asks_for_a_purge_and_a_loss_during_it_for_another() {
        let gates = gates(2);
        assert_eq!(gates.purge_due(1), None);
        gates.lose_locked(1, 10);
        let epoch = gates.purge_due(1).unwrap();
        gates.lose_locked(1, 11);
        gates.purged(1, epoch);
        assert_eq!(gates.purge_due(1), Some(2));
        gates.purged(1, 2);
        assert_eq!(gates.purge_due(1), None);
        assert_eq!(gates.purge_due(0), None);
    }

    #[test]
    fn a_loss_refuses_snapshots_that_do_not_see_it_and_notes_of_before() {
        let gates = gates(1);
        let noted = gates.note(0);
        assert!(gates.is_current(0, Some(noted)));
        gates.lose_locked(0, 10);
        gates.lose_locked(0, 5);
        assert!(!gates.is_current(0, Some(noted)));
        assert!(!gates.is_current(0, None));
        assert!(!gates.admits(0, 0, 10));
        assert!(gates.admits(0, 0, 11));
    }

    #[test]
    fn a_redefined_mapping_refuses_backends_that_know_the_old_one() {
        let gates = gates(1);
        gates.define_locked(0, 77, 10);
        gates.publish_list_locked(5);
        assert!(gates.admits(0, 77, 11));
        assert!(!gates.admits(0, 0, 11));
        assert_eq!(gates.purge_due(0), Some(1));
        assert_eq!(gates.list(), 5);
    }

    #[test]
    fn a_mapping_without_a_gate_admits_nothing() {
        let gates = gates(1);
        gates.lose_locked(9, 1);
        assert!(!gates.admits(9, 0, u64::MAX));
        assert!(!gates.is_current(9, Some(gates.note(9))));
        assert_eq!(gates.purge_due(9), None);
        gates.lose_all_locked(3);
        assert_eq!(gates.purge_due(0), Some(1));
    }
}
