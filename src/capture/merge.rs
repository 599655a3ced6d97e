//! Taking the rows that a MERGE changed, on the servers whose MERGE cannot return them (15 and 16).
//!
//! The plan below the `ModifyTable` hands it each pair of a source row and the target row that it matches, if any,
//! with that row's ctid. The tap notes these, and after the node has run looks at each version: those that this
//! transaction has changed are deleted from the cache. Rows that were inserted are not seen, and need not be. Where
//! an action or a trigger may change a key, the key that a row now has is not known: the mapping is purged.
use std::rc::Rc;

use pg_redis_cache_core::coherence::{Reason, tally::Change};
use pgrx::pg_sys::{self, CmdType, Oid};
use rustc_hash::FxHashMap;

use super::{
    modify::updates_may_change_keys,
    relations::{self, MappedRelation},
    row::{self, Row},
    taps::NodeFunction,
    versions::{Found, Versions, ctid_of},
};
use crate::{compat, gucs, xact};

/// The place of a version: the relation's Oid, block, offset.
type Place = (u32, u32, pg_sys::OffsetNumber);

/// The tap of a MERGE: of its `ModifyTable` node, and of the plan below.
pub struct MergeTap {
    /// The functions of the two nodes themselves.
    pub real: NodeFunction,
    pub real_below: NodeFunction,
    node: *mut pg_sys::ModifyTableState,
    target: Rc<MappedRelation>,
    matched: Vec<Place>,
    /// There were too many, and the mappings are to be purged.
    gave_up: bool,
}

impl MergeTap {
    /// The tap that a node needs, `None` if it needs none.
    ///
    /// # Safety
    /// `node` must be an initialised `ModifyTableState` that is about to run.
    pub unsafe fn new(node: *mut pg_sys::ModifyTableState) -> Option<Self> {
        // SAFETY: as the caller promises; ExecProcNodeReal was set by ExecInitNode.
        unsafe {
            if (*node).operation != CmdType::CMD_MERGE || compat::MERGE_RETURNS {
                return None;
            }
            let target = relations::lookup((*(*(*node).rootResultRelInfo).ri_RelationDesc).rd_id)?;
            if target.attached {
                return None;
            }
            if updates_may_change_keys(node) {
                target.purge(Reason::Key);
                return None;
            }
            Some(Self {
                real: (*node).ps.ExecProcNodeReal?,
                real_below: (*(*node).ps.lefttree).ExecProcNodeReal?,
                node,
                target,
                matched: Vec::new(),
                gave_up: false,
            })
        }
    }

    /// The node below.
    pub fn below(&self) -> *mut pg_sys::PlanState {
        // SAFETY: a ModifyTable has a plan below it.
        unsafe { (*self.node).ps.lefttree }
    }

    /// Whether that is one of the two nodes.
    pub fn is_of(&self, node: *mut pg_sys::PlanState) -> bool {
        self.node.cast() == node || self.below() == node
    }

    /// Notes the target row in what the plan below has returned, if there is one.
    ///
    /// # Safety
    /// `row` must be what the plan below has just returned.
    pub unsafe fn matches(&mut self, row: *mut pg_sys::TupleTableSlot) {
        if self.gave_up {
            return;
        }
        // SAFETY: the attributes are the junk columns that ExecInitModifyTable found in the plan's target list.
        unsafe {
            let first = (*self.node).resultRelInfo;
            let Some(ctid) = ctid_of(row, (*first).ri_RowIdAttNo) else {
                return;
            };
            let relid = match (*self.node).mt_resultOidAttno {
                attribute if attribute > 0 => match Row::of(row).datum(attribute as pg_sys::AttrNumber) {
                    Some(datum) => datum.value() as u32,
                    None => return,
                },
                _ => (*(*first).ri_RelationDesc).rd_id.to_u32(),
            };
            let bytes = (self.matched.len() + 1) * size_of::<Place>();
            if bytes > gucs::transaction_buffer() || self.matched.try_reserve(1).is_err() {
                self.gave_up = true;
                self.matched = Vec::new();
                return self.target.purge(Reason::Buffer);
            }
            let block = (u32::from(ctid.ip_blkid.bi_hi) << 16) | u32::from(ctid.ip_blkid.bi_lo);
            self.matched.push((relid, block, ctid.ip_posid));
        }
    }

    /// Captures what has become of the rows that matched.
    ///
    /// # Safety
    /// Must be called after the node has returned, in its statement.
    pub unsafe fn finish(&mut self) {
        let mut matched = std::mem::take(&mut self.matched);
        matched.sort_unstable();
        matched.dedup();
        // SAFETY: the node's result relations are open and locked.
        unsafe {
            let mut result_relations = FxHashMap::default();
            for index in 0..(*self.node).mt_nrels as usize {
                let relation = (*(*self.node).resultRelInfo.add(index)).ri_RelationDesc;
                result_relations.insert((*relation).rd_id, relation);
            }
            for of_one in matched.chunk_by(|a, b| a.0 == b.0) {
                let relid = Oid::from(of_one[0].0);
                let (Some(relation), Some(opened)) =
                    (relations::lookup(relid), result_relations.get(&relid).copied())
                else {
                    return self.target.purge(Reason::Statement);
                };
                capture(&relation, opened, of_one);
            }
        }
    }
}

unsafe fn capture(relation: &MappedRelation, opened: pg_sys::Relation, places: &[Place]) {
    // SAFETY: the statement's snapshot has seen these versions.
    unsafe {
        let mut versions = Versions::of(opened);
        for (_, block, offset) in places {
            let ctid = pg_sys::ItemPointerData {
                ip_blkid: pg_sys::BlockIdData {
                    bi_hi: (block >> 16) as u16,
                    bi_lo: *block as u16,
                },
                ip_posid: *offset,
            };
            match versions.changed_by_us(ctid) {
                Found::Changed(row) => {
                    xact::count(relation.relid, Change::Either);
                    row::capture_delete(relation, row);
                }
                Found::Unchanged => {}
                Found::Gone => relation.purge(Reason::Statement),
            }
        }
    }
}
