//! Filling the cache from what a query reads.
//!
//! A fill is a promise that nothing newer is known, and rule 3 decides that later, with the slot's floor and
//! version. Here only what could never be right is left out: rows seen by a parallel worker, in recovery, under
//! a snapshot that is not a plain MVCC one, versions written by the own transaction, and everything in a
//! transaction that ran DDL or has changed rows of the same mapping.
use std::rc::Rc;

use pg_redis_cache_core::config::Fill;
use pgrx::pg_sys::{self, CmdType, NodeTag};

use super::{
    point,
    relations::{self, ActiveMapping, MappedRelation, Placed},
    row::{self, Key, Row},
    tap_all::{self, Count, TAP_ALL},
    taps::NodeFunction,
};
use crate::{gucs, shared::Shared, xact};

/// What one statement may fill, so that a scan of a large table neither takes much memory nor floods the ring.
const FILL_LIMIT: usize = 10_000;
const FILL_LIMIT_BYTES: usize = 4 * 1024 * 1024;
/// What an entry of the queue holds of a row beside key and value, at most (`ring::batch`).
const FILL_OVERHEAD: usize = 64;

/// Whether a query may fill at all.
///
/// # Safety
/// `query` must be a started query.
pub unsafe fn allowed(query: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        (*query).operation == CmdType::CMD_SELECT
            && gucs::FILL.get()
            && pg_sys::ParallelWorkerNumber < 0
            && snapshot_is_plain((*query).snapshot)
            && (TAP_ALL || fill_can_arrive())
    }
}

/// Whether what this transaction reads would be taken as a fill, and Redis be there to get it.
fn fill_can_arrive() -> bool {
    relations::list_is_published()
        && !xact::ran_ddl()
        // There is no worker, and so no connection, before recovery has finished.
        && Shared::get().is_some_and(|shared| shared.connected_anywhere())
}

unsafe fn snapshot_is_plain(snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: null or a valid snapshot.
    unsafe {
        !snapshot.is_null()
            && (*snapshot).snapshot_type == pg_sys::SnapshotType::SNAPSHOT_MVCC
            && !(*snapshot).takenDuringRecovery
    }
}

/// The tap of one scan node.
pub struct ScanTap {
    /// The node's own function.
    pub real: NodeFunction,
    relation: Rc<MappedRelation>,
    /// Which of the relation's mappings this scan fills: a bit for each of the first 64.
    fills: u64,
}

impl ScanTap {
    /// The tap that a node needs, if it is a scan of a mapped relation that fills a mapping.
    ///
    /// # Safety
    /// `node` must be an initialised plan state.
    pub unsafe fn new(node: *mut pg_sys::PlanState) -> Option<Self> {
        // SAFETY: the casts follow the tags.
        unsafe {
            match (*node).type_ {
                NodeTag::T_SeqScanState
                | NodeTag::T_IndexScanState
                | NodeTag::T_BitmapHeapScanState
                | NodeTag::T_TidScanState => {}
                _ => return None,
            }
            let scan = node.cast::<pg_sys::ScanState>();
            let opened = (*scan).ss_currentRelation;
            let relation = relations::lookup(opened.as_ref()?.rd_id)?;
            let mut filled = 0;
            for (index, placed) in relation.mappings.iter().take(64).enumerate() {
                let changed = !TAP_ALL && xact::has_changes(placed.mapping.index);
                let arrives = TAP_ALL || Shared::get().is_some_and(|shared| is_connected(shared, placed));
                if !changed && arrives && fills(placed, (*node).plan) {
                    filled |= 1 << index;
                }
            }
            if filled == 0 {
                return None;
            }
            tap_all::count(Count::ScanTaps);
            Some(Self {
                real: (*node).ExecProcNodeReal?,
                relation,
                fills: filled,
            })
        }
    }

    /// Takes the row that the scan has just returned.
    ///
    /// # Safety
    /// `node` must be this tap's node, right after it returned a row.
    pub unsafe fn after(&mut self, node: *mut pg_sys::ScanState, batch: &mut FillBatch) {
        // SAFETY: the scan slot holds the whole base row, whatever the node projects.
        unsafe {
            let slot = (*node).ss_ScanTupleSlot;
            if slot.is_null() || (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 {
                return;
            }
            tap_all::count(Count::ReadRows);
            for (index, placed) in self.relation.mappings.iter().take(64).enumerate() {
                if self.fills & (1 << index) != 0 {
                    batch.take(placed, slot, self.relation.last_attribute);
                }
            }
        }
    }
}

/// Whether the server that a mapping's fills go to is there.
fn is_connected(shared: Shared, placed: &Placed) -> bool {
    shared.connected(shared.server_of(placed.mapping.index))
}

unsafe fn fills(placed: &Placed, plan: *mut pg_sys::Plan) -> bool {
    match placed.mapping.definition.fill {
        Fill::Off => false,
        Fill::Any => true,
        // SAFETY: a scan node's plan.
        Fill::Point => unsafe { point::restricts_key(plan, placed) },
    }
}

/// The rows that a statement's scans found.
#[derive(Default)]
pub struct FillBatch {
    fills: Vec<xact::Fill>,
    bytes: Vec<u8>,
    /// The generation of the list before the first of them was read.
    generation: u64,
}

impl FillBatch {
    /// Called before the rows are read.
    pub fn begin(&mut self) {
        self.generation = relations::generation();
    }

    pub fn is_empty(&self) -> bool {
        self.fills.is_empty()
    }

    /// Forgets the rows. Little memory is kept for the next statement.
    pub fn clear(&mut self) {
        self.fills.clear();
        self.fills.shrink_to(64);
        self.bytes.clear();
        self.bytes.shrink_to(16 * 1024);
    }

    unsafe fn take(&mut self, placed: &Placed, slot: *mut pg_sys::TupleTableSlot, last: pg_sys::AttrNumber) {
        let Some(shared) = Shared::get() else { return };
        let mapping = placed.mapping.index;
        if self.fills.len() >= FILL_LIMIT || self.bytes.len() >= FILL_LIMIT_BYTES {
            shared.stats(mapping).fill_skipped();
            return;
        }
        row::with_scratch(|scratch| {
            // SAFETY: a filled slot of the relation.
            unsafe {
                let row = Row::of(slot);
                let Key::Good(hash) = row::encode_key(placed, row, scratch) else {
                    return;
                };
                let now = xact::now_ms();
                let age = shared.hint_age_ms(mapping, now, placed.mapping.refill_ms());
                if shared.hints().recently_filled(hash, now, age) {
                    shared.stats(mapping).fill_skipped();
                    return;
                }
                if !written_by_others(slot) {
                    return;
                }
                row.deform(last);
                if row::encode_value(placed, row, scratch, FILL_LIMIT_BYTES) {
                    self.add(&placed.mapping, hash, &scratch.key, &scratch.value);
                }
            }
        });
    }

    /// Takes a row of a query of our own, whatever the hints say, if its value has at most `largest` bytes.
    ///
    /// # Safety
    /// `slot` must hold a row of the query that `placed` was made for, and no version that the own transaction has
    /// written.
    pub unsafe fn take_selected(
        &mut self,
        placed: &Placed,
        slot: *mut pg_sys::TupleTableSlot,
        largest: usize,
    ) {
        row::with_scratch(|scratch| {
            // SAFETY: as the caller promises.
            unsafe {
                let row = Row::of(slot);
                let Key::Good(hash) = row::encode_key(placed, row, scratch) else {
                    return;
                };
                if row::encode_value(placed, row, scratch, largest) {
                    self.add(&placed.mapping, hash, &scratch.key, &scratch.value);
                }
            }
        });
    }

    /// About how large an entry of the queue the rows would make.
    pub fn entry_bytes(&self) -> usize {
        self.bytes.len() + self.fills.len() * FILL_OVERHEAD
    }

    /// Keeps a row. Without memory for it it is not filled.
    fn add(&mut self, mapping: &ActiveMapping, hash: u64, key: &[u8], value: &[u8]) {
        if self.bytes.try_reserve(key.len() + value.len()).is_err() || self.fills.try_reserve(1).is_err() {
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.fills.push(xact::Fill {
            mapping: mapping.index,
            fingerprint: mapping.fingerprint,
            hash,
            key: start..start + key.len(),
            value: start + key.len()..self.bytes.len(),
        });
    }

    /// Hands the rows to the worker, as far as rule 3 lets them pass. Returns how many did, `None` if the queue had
    /// no room for them.
    ///
    /// # Safety
    /// `snapshot` must be the plain MVCC snapshot under which the rows were read.
    pub unsafe fn send(&self, snapshot: pg_sys::Snapshot) -> Option<usize> {
        // SAFETY: as the caller promises.
        unsafe {
            let bounds = ((*snapshot).xmin, (*snapshot).xmax);
            xact::send_fills(&self.fills, &self.bytes, bounds, self.generation)
        }
    }
}

/// Whether the version in the slot was written by another transaction.
unsafe fn written_by_others(slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: the scans tapped here return heap tuples in buffer slots, which begin as heap tuple slots do.
    unsafe {
        let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
        if tuple.is_null() {
            return false;
        }
        let header = (*tuple).t_data;
        !pg_sys::TransactionIdIsCurrentTransactionId((*header).t_choice.t_heap.t_xmin)
    }
}
