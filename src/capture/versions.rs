//! Finding the version of a row that the current command has changed.
use std::ptr;

use pgrx::pg_sys;

use super::row::Row;

/// What has become of a version that a command's plan has seen.
pub enum Found {
    /// This transaction has updated or deleted it, or the version that it had become meanwhile: that one.
    Changed(Row),
    /// This transaction has not.
    Unchanged,
    /// It cannot be followed to its end.
    Gone,
}

/// Looks at versions of one relation, whatever their visibility.
pub struct Versions {
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Versions {
    /// # Safety
    /// The relation must stay open and locked while this lives.
    pub unsafe fn of(relation: pg_sys::Relation) -> Self {
        // SAFETY: as the caller promises. After an ERROR the slot goes with its memory context.
        let slot = unsafe { pg_sys::table_slot_create(relation, ptr::null_mut()) };
        Self { relation, slot }
    }

    /// Follows a row from `ctid` along its update chain (others may have updated it since the plan's snapshot) to the
    /// version whose xmax is ours, or to the last one.
    ///
    /// The row that is found stands until the next call.
    ///
    /// # Safety
    /// The version at `ctid` must be one that the running command's snapshot sees: then none of the chain that this
    /// transaction has changed, or that leads there, can have been removed.
    pub unsafe fn changed_by_us(&mut self, mut ctid: pg_sys::ItemPointerData) -> Found {
        // SAFETY: SnapshotAny shows every version that vacuum has left.
        unsafe {
            while pg_sys::table_tuple_fetch_row_version(
                self.relation,
                &raw mut ctid,
                &raw mut pg_sys::SnapshotAnyData,
                self.slot,
            ) {
                let header = header_of(self.slot);
                if changed_by_us(header) {
                    return Found::Changed(Row::of(self.slot));
                }
                let next = (*header).t_ctid;
                // HEAP_XMAX_INVALID: an updater that was rolled back leaves its link behind.
                if same_place(&next, &ctid) || is_elsewhere(&next) || !was_updated(header) {
                    return Found::Unchanged;
                }
                ctid = next;
            }
            Found::Gone
        }
    }
}

impl Drop for Versions {
    fn drop(&mut self) {
        // SAFETY: made by `of`; it holds no resource but its own memory and pins.
        unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
    }
}

/// The header of the tuple in a slot of a heap relation.
///
/// # Safety
/// `slot` must hold a heap tuple.
pub unsafe fn header_of(slot: *mut pg_sys::TupleTableSlot) -> pg_sys::HeapTupleHeader {
    // SAFETY: buffer slots begin as heap tuple slots do.
    unsafe { (*(*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple).t_data }
}

/// Whether this transaction has updated or deleted a version.
///
/// # Safety
/// `header` must be that of a tuple on a pinned page.
pub unsafe fn changed_by_us(header: pg_sys::HeapTupleHeader) -> bool {
    // SAFETY: as the caller promises.
    unsafe { updater(header).is_some_and(|xmax| pg_sys::TransactionIdIsCurrentTransactionId(xmax)) }
}

/// Whether another transaction has updated a version, and has committed that.
unsafe fn was_updated(header: pg_sys::HeapTupleHeader) -> bool {
    // SAFETY: as in `changed_by_us`.
    unsafe { updater(header).is_some_and(|xmax| pg_sys::TransactionIdDidCommit(xmax)) }
}

/// The transaction that updated or deleted a version, or tried to; a lock alone is none.
unsafe fn updater(header: pg_sys::HeapTupleHeader) -> Option<pg_sys::TransactionId> {
    // SAFETY: as in `changed_by_us`.
    unsafe {
        let mask = (*header).t_infomask as u32;
        if mask & (pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_LOCK_ONLY) != 0 {
            return None;
        }
        if mask & pg_sys::HEAP_XMAX_IS_MULTI != 0 {
            return Some(pg_sys::HeapTupleGetUpdateXid(header));
        }
        Some((*header).t_choice.t_heap.t_xmax)
    }
}

fn same_place(a: &pg_sys::ItemPointerData, b: &pg_sys::ItemPointerData) -> bool {
    a.ip_posid == b.ip_posid && a.ip_blkid.bi_hi == b.ip_blkid.bi_hi && a.ip_blkid.bi_lo == b.ip_blkid.bi_lo
}

/// Whether the row has gone to another partition (itemptr.h, `ItemPointerIndicatesMovedPartitions`).
fn is_elsewhere(ctid: &pg_sys::ItemPointerData) -> bool {
    const MOVED_PARTITIONS_OFFSET: u16 = 0xfffd;
    ctid.ip_posid == MOVED_PARTITIONS_OFFSET && ctid.ip_blkid.bi_hi == 0xffff && ctid.ip_blkid.bi_lo == 0xffff
}

/// The ctid in a row that a plan hands to its `ModifyTable`; `None` if there is none, as for a row of a MERGE that
/// matches nothing.
///
/// # Safety
/// `attribute` must be 0 or the junk column that ExecInitModifyTable found in the plan's target list.
pub unsafe fn ctid_of(
    plan_slot: *mut pg_sys::TupleTableSlot,
    attribute: pg_sys::AttrNumber,
) -> Option<pg_sys::ItemPointerData> {
    if attribute <= 0 {
        return None;
    }
    // SAFETY: as the caller promises.
    unsafe {
        if plan_slot.is_null() || (*plan_slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 {
            return None;
        }
        let row = Row::of(plan_slot);
        let datum = row.datum(attribute)?;
        Some(*datum.cast_mut_ptr::<pg_sys::ItemPointerData>())
    }
}
