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
                let end = End::of(self.slot);
                if end.is_ours() {
                    return Found::Changed(Row::of(self.slot));
                }
                // HEAP_XMAX_INVALID: an updater that was rolled back leaves its link behind.
                if same_place(&end.next, &ctid) || is_elsewhere(&end.next) || !end.was_updated() {
                    return Found::Unchanged;
                }
                ctid = end.next;
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

/// How a version ends: what its header says of that at one moment.
pub struct End {
    /// The transaction that updated or deleted it, or tried to; a lock alone is none.
    updater: Option<pg_sys::TransactionId>,
    /// The place of the next version, its own if there is none.
    next: pg_sys::ItemPointerData,
}

impl End {
    /// Reads the header under the buffer's lock: who locks or updates a version sets its infomask, xmax and ctid one
    /// after the other (heapam.c), and an xmax taken for a multixact that it is not yet cannot be looked up.
    ///
    /// # Safety
    /// `slot` must hold a heap tuple, whose page the caller has not locked.
    pub unsafe fn of(slot: *mut pg_sys::TupleTableSlot) -> Self {
        /// storage/bufmgr.h
        const BUFFER_LOCK_UNLOCK: i32 = 0;
        const BUFFER_LOCK_SHARE: i32 = 1;
        // SAFETY: buffer slots begin as heap tuple slots do; the pin is the slot's. The header is copied without the
        // data behind it.
        unsafe {
            let buffer = if (*slot).tts_ops == &raw const pg_sys::TTSOpsBufferHeapTuple {
                (*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).buffer
            } else {
                pg_sys::InvalidBuffer as pg_sys::Buffer
            };
            let header = (*(*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple).t_data;
            if buffer == pg_sys::InvalidBuffer as pg_sys::Buffer {
                return Self::in_header(header);
            }
            pg_sys::LockBuffer(buffer, BUFFER_LOCK_SHARE);
            let mut copy = std::mem::MaybeUninit::<pg_sys::HeapTupleHeaderData>::uninit();
            ptr::copy_nonoverlapping(
                header.cast::<u8>(),
                copy.as_mut_ptr().cast::<u8>(),
                std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_hoff),
            );
            pg_sys::LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
            Self::in_header(copy.as_mut_ptr())
        }
    }

    unsafe fn in_header(header: pg_sys::HeapTupleHeader) -> Self {
        // SAFETY: a header of which everything in front of t_hoff can be read, which nobody changes.
        unsafe {
            let mask = (*header).t_infomask as u32;
            let updater = if mask & (pg_sys::HEAP_XMAX_INVALID | pg_sys::HEAP_XMAX_LOCK_ONLY) != 0 {
                None
            } else if mask & pg_sys::HEAP_XMAX_IS_MULTI != 0 {
                Some(pg_sys::HeapTupleGetUpdateXid(header))
            } else {
                Some((*header).t_choice.t_heap.t_xmax)
            };
            Self {
                updater,
                next: (*header).t_ctid,
            }
        }
    }

    /// Whether this transaction has updated or deleted the version.
    pub fn is_ours(&self) -> bool {
        // SAFETY: a look at the transaction state.
        self.updater
            .is_some_and(|xmax| unsafe { pg_sys::TransactionIdIsCurrentTransactionId(xmax) })
    }

    /// Whether another transaction has updated the version, and has committed that.
    fn was_updated(&self) -> bool {
        // SAFETY: a look into the commit log.
        self.updater
            .is_some_and(|xmax| unsafe { pg_sys::TransactionIdDidCommit(xmax) })
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
