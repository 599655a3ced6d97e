//! Taking the rows that a `ModifyTable` node changed.
//!
//! Where the rows are was read in nodeModifyTable.c and proved by tests: after a row has been returned, the new
//! row is the `ecxt_scantuple` of the node's expression context, and its `tts_tableOid` names the partition;
//! the old row of an UPDATE is in `ri_oldTupleSlot` of the result relation that the node looked up last (or in
//! `ri_TrigOldSlot`, if BEFORE UPDATE row triggers made the server fetch it anew). A deleted row has been
//! cleared from its slot: a marked DELETE returns its key columns, any other is found again by its ctid.
use std::rc::Rc;

use pg_redis_cache_core::coherence::{Reason, tally::Change};
use pgrx::pg_sys::{self, CmdType, OnConflictAction};

use super::{
    relations::{self, MappedRelation},
    row::{self, Row},
    tap_all::{self, Count},
    taps::NodeFunction,
    versions::{Found, Versions, ctid_of},
};
use crate::{
    compat, nodes,
    xact::{self, completeness},
};

/// The tap of one `ModifyTable` node.
pub struct ModifyTap {
    /// The node's own function.
    pub real: NodeFunction,
    node: *mut pg_sys::ModifyTableState,
    /// The relation that the statement names.
    target: Option<Rc<MappedRelation>>,
    /// The partition that the last row belonged to.
    latest: Option<Rc<MappedRelation>>,
    /// The partition that the last upserted row was routed to.
    routed: Option<(pg_sys::Oid, *mut pg_sys::ResultRelInfo)>,
    marked: bool,
    /// An UPDATE may change key columns: the old row is looked at too.
    old_row_wanted: bool,
    /// An ON CONFLICT DO UPDATE may change key columns: the old row is nowhere to be found.
    upsert_changes_key: bool,
    /// Where the transaction's buffer stood before the node's call.
    position: xact::Position,
}

impl ModifyTap {
    /// The tap that a node needs, `None` if it needs none. A node that changes a mapped relation in a way
    /// that cannot be captured marks the mappings for a purge.
    ///
    /// # Safety
    /// `node` must be an initialised `ModifyTableState` that is about to run.
    pub unsafe fn new(node: *mut pg_sys::ModifyTableState, marked: Option<u64>) -> Option<Self> {
        // SAFETY: as the caller promises; ExecProcNodeReal was set by ExecInitNode.
        unsafe {
            let plan = (*node).ps.plan.cast::<pg_sys::ModifyTable>();
            let target = relations::lookup((*(*(*node).rootResultRelInfo).ri_RelationDesc).rd_id);
            let stale_mark = marked.is_some_and(|generation| generation != relations::generation());
            if let Some(relation) = &target {
                if (*plan).onConflictAction != OnConflictAction::ONCONFLICT_NONE {
                    completeness::note_speculative(relation);
                }
                let returns = (*node).operation != CmdType::CMD_MERGE || compat::MERGE_RETURNS;
                let uncapturable = stale_mark
                    || (marked.is_none()
                        && !relation.attached
                        && returns
                        && (*plan).returningLists.is_null()
                        && !is_plain_insert(plan));
                if uncapturable {
                    relation.purge(Reason::Statement);
                }
            }
            let captures = target.as_ref().is_some_and(|relation| {
                !stale_mark
                    && !relation.attached
                    && !(*plan).returningLists.is_null()
                    && wants(plan, relation)
            });
            if marked.is_none() && !captures {
                return None;
            }
            let upsert_changes_key = captures
                && (*plan).onConflictAction == OnConflictAction::ONCONFLICT_UPDATE
                && target
                    .as_ref()
                    .is_some_and(|relation| relation.key_may_change(nodes::integers((*plan).onConflictCols)));
            tap_all::count(Count::ModifyTaps);
            Some(Self {
                real: (*node).ps.ExecProcNodeReal?,
                node,
                old_row_wanted: captures && updates_may_change_keys(node),
                target: if captures { target } else { None },
                latest: None,
                routed: None,
                marked: marked.is_some(),
                upsert_changes_key,
                position: xact::Position::default(),
            })
        }
    }

    /// Whether the statement itself returns no rows.
    pub fn eats_rows(&self) -> bool {
        self.marked
    }

    /// The node that this tap stands before.
    pub fn node(&self) -> *mut pg_sys::PlanState {
        // SAFETY: every plan state begins with a PlanState.
        unsafe { &raw mut (*self.node).ps }
    }

    /// Notes where the transaction's buffer stands.
    pub fn before(&mut self) {
        self.position = xact::position();
    }

    /// Captures the row that the node has just returned in `returned`.
    ///
    /// # Safety
    /// Must be called after each row that the node returns, before anything else touches its slots.
    pub unsafe fn after(&mut self, returned: *mut pg_sys::TupleTableSlot) {
        // SAFETY: the node has RETURNING projections, so it has an expression context.
        unsafe {
            let Some(target) = self.target.clone() else { return };
            tap_all::count(Count::ChangedRows);
            match compat::returned_action(self.node) {
                CmdType::CMD_DELETE if (*self.node).operation == CmdType::CMD_MERGE => {
                    self.deleted_by_merge(&target)
                }
                CmdType::CMD_DELETE if self.marked => self.deleted_by_mark(&target, returned),
                CmdType::CMD_DELETE => self.deleted_by_ctid(&target),
                CmdType::CMD_INSERT => self.inserted(&target),
                _ => self.updated(),
            }
        }
    }

    unsafe fn new_slot(&self) -> *mut pg_sys::TupleTableSlot {
        // SAFETY: as in `after`.
        unsafe { (*(*self.node).ps.ps_ExprContext).ecxt_scantuple }
    }

    unsafe fn result_relation(&self) -> *mut pg_sys::ResultRelInfo {
        // SAFETY: ExecModifyTable keeps the index of the relation that the row came from.
        unsafe {
            (*self.node)
                .resultRelInfo
                .add((*self.node).mt_lastResultIndex as usize)
        }
    }

    /// The mapped relation of a row, which may live in any partition of the target.
    fn relation_of(&mut self, relid: pg_sys::Oid) -> Option<Rc<MappedRelation>> {
        if let Some(latest) = self.latest.as_ref().filter(|latest| latest.relid == relid) {
            return Some(Rc::clone(latest));
        }
        let relation = match &self.target {
            Some(target) if target.relid == relid => Some(Rc::clone(target)),
            _ => relations::lookup(relid),
        };
        if relation.is_none() {
            // A partition that is not known to belong to its table: nothing can be said of the row.
            self.target.as_ref()?.purge(Reason::Statement);
        }
        self.latest = relation;
        self.latest.clone()
    }

    unsafe fn updated(&mut self) {
        // SAFETY: as in `after`.
        unsafe {
            let slot = self.new_slot();
            let source = self.result_relation();
            let source_id = (*(*source).ri_RelationDesc).rd_id;
            if source_id == (*slot).tts_tableOid {
                xact::count(source_id, Change::Update);
            } else {
                xact::count(source_id, Change::Delete);
                xact::count((*slot).tts_tableOid, Change::Insert);
            }
            let Some(relation) = self.relation_of((*slot).tts_tableOid) else {
                return;
            };
            if self.old_row_wanted {
                let old = old_slot(source);
                let old_relation = self.relation_of(source_id);
                match old_relation {
                    Some(old_relation) if is_filled(old) => {
                        row::capture_update(
                            &old_relation,
                            Row::of(old),
                            &relation,
                            Row::of(slot),
                            self.position,
                        );
                    }
                    _ => relation.purge(Reason::Key),
                }
            } else {
                row::capture_set(&relation, Row::of(slot), self.position);
            }
        }
    }

    unsafe fn inserted(&mut self, target: &Rc<MappedRelation>) {
        // SAFETY: as in `after`.
        unsafe {
            let slot = self.new_slot();
            let Some(relation) = self.relation_of((*slot).tts_tableOid) else {
                return;
            };
            let updated = self.took_update_path(slot);
            let change = if updated { Change::Update } else { Change::Insert };
            xact::count((*slot).tts_tableOid, change);
            if updated {
                if self.upsert_changes_key || has_before_update_trigger(self.routed_to((*slot).tts_tableOid))
                {
                    target.purge(Reason::Key);
                }
                row::capture_set(&relation, Row::of(slot), self.position);
            } else {
                row::capture_insert(&relation, Row::of(slot), self.position);
            }
        }
    }

    /// Whether an upsert updated: its row is then the projection of the partition's DO UPDATE SET.
    unsafe fn took_update_path(&mut self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        // SAFETY: ri_onConflict is null or valid.
        unsafe {
            let plan = (*self.node).ps.plan.cast::<pg_sys::ModifyTable>();
            if (*plan).onConflictAction != OnConflictAction::ONCONFLICT_UPDATE {
                return false;
            }
            let conflict = (*self.routed_to((*slot).tts_tableOid)).ri_onConflict;
            !conflict.is_null() && (*conflict).oc_ProjSlot == slot
        }
    }

    /// The result relation of the partition that tuple routing chose for an inserted row.
    unsafe fn routed_to(&mut self, relid: pg_sys::Oid) -> *mut pg_sys::ResultRelInfo {
        // SAFETY: es_tuple_routing_result_relations lists ResultRelInfos.
        unsafe {
            let root = (*self.node).rootResultRelInfo;
            if (*(*root).ri_RelationDesc).rd_id == relid {
                return root;
            }
            if let Some((_, result)) = self.routed.filter(|(latest, _)| *latest == relid) {
                return result;
            }
            // The list is the whole statement's: another node may have routed to the same partition.
            let estate = (*self.node).ps.state;
            let result = nodes::items::<pg_sys::ResultRelInfo>((*estate).es_tuple_routing_result_relations)
                .find(|result| {
                    (*(**result).ri_RelationDesc).rd_id == relid && (**result).ri_RootResultRelInfo == root
                })
                .unwrap_or(root);
            self.routed = Some((relid, result));
            result
        }
    }

    unsafe fn deleted_by_mark(&mut self, target: &Rc<MappedRelation>, returned: *mut pg_sys::TupleTableSlot) {
        // SAFETY: the returned slot holds the target's key columns in the order in which they were asked for.
        unsafe {
            xact::count((*(*self.result_relation()).ri_RelationDesc).rd_id, Change::Delete);
            row::capture_delete_of_keys(target, Row::of(returned))
        }
    }

    /// MERGE leaves the deleted row in its slot (`ExecMergeMatched`).
    unsafe fn deleted_by_merge(&mut self, target: &Rc<MappedRelation>) {
        // SAFETY: as in `after`.
        unsafe {
            let source = self.result_relation();
            let source_id = (*(*source).ri_RelationDesc).rd_id;
            xact::count(source_id, Change::Delete);
            let old = self.new_slot();
            match self.relation_of(source_id) {
                Some(relation) if is_filled(old) => row::capture_delete(&relation, Row::of(old)),
                _ => target.purge(Reason::Key),
            }
        }
    }

    unsafe fn deleted_by_ctid(&mut self, target: &Rc<MappedRelation>) {
        // SAFETY: the plan slot of the row is still in place as the outer tuple.
        unsafe {
            let source = self.result_relation();
            xact::count((*(*source).ri_RelationDesc).rd_id, Change::Delete);
            let relation = self.relation_of((*(*source).ri_RelationDesc).rd_id);
            let plan_slot = (*(*self.node).ps.ps_ExprContext).ecxt_outertuple;
            let (Some(relation), Some(ctid)) = (relation, ctid_of(plan_slot, (*source).ri_RowIdAttNo)) else {
                target.purge(Reason::Key);
                return;
            };
            let mut versions = Versions::of((*source).ri_RelationDesc);
            match versions.changed_by_us(ctid) {
                Found::Changed(row) => row::capture_delete(&relation, row),
                Found::Unchanged | Found::Gone => relation.purge(Reason::Key),
            }
        }
    }
}

/// An INSERT that was not marked because no mapping stores new rows: it needs no capture.
unsafe fn is_plain_insert(plan: *const pg_sys::ModifyTable) -> bool {
    // SAFETY: the caller has a valid plan.
    unsafe {
        (*plan).operation == CmdType::CMD_INSERT
            && (*plan).onConflictAction != OnConflictAction::ONCONFLICT_UPDATE
    }
}

unsafe fn wants(plan: *const pg_sys::ModifyTable, relation: &MappedRelation) -> bool {
    // SAFETY: the caller has a valid plan.
    unsafe { !is_plain_insert(plan) || relation.stores_inserts() }
}

/// Whether an UPDATE, or an UPDATE action of a MERGE, can change a key.
///
/// # Safety
/// `node` must be an initialised `ModifyTableState`.
pub unsafe fn updates_may_change_keys(node: *mut pg_sys::ModifyTableState) -> bool {
    // SAFETY: there are mt_nrels result relations, and as many lists of updated columns, or of actions.
    unsafe {
        let results = (0..(*node).mt_nrels as usize).map(|index| (*node).resultRelInfo.add(index));
        match (*node).operation {
            CmdType::CMD_UPDATE => results
                .zip(nodes::items::<pg_sys::List>(compat::update_columns(node)))
                .any(|(result, columns)| key_may_change(result, columns)),
            CmdType::CMD_MERGE => results
                .zip(nodes::items::<pg_sys::List>(compat::merge_actions(node)))
                .any(|(result, actions)| {
                    nodes::items::<pg_sys::MergeAction>(actions)
                        .filter(|action| (**action).commandType == CmdType::CMD_UPDATE)
                        .any(|action| key_may_change(result, (*action).updateColnos))
                }),
            _ => false,
        }
    }
}

/// Whether an UPDATE of these columns may change a key of a result relation: by its SET list, by a trigger, or
/// through a generated key column.
unsafe fn key_may_change(result: *const pg_sys::ResultRelInfo, columns: *mut pg_sys::List) -> bool {
    // SAFETY: the caller has an open result relation.
    unsafe {
        let Some(relation) = relations::lookup((*(*result).ri_RelationDesc).rd_id) else {
            return true;
        };
        has_before_update_trigger(result) || relation.key_may_change(nodes::integers(columns))
    }
}

unsafe fn has_before_update_trigger(result: *const pg_sys::ResultRelInfo) -> bool {
    // SAFETY: ri_TrigDesc is null or valid.
    unsafe {
        let triggers = (*result).ri_TrigDesc;
        !triggers.is_null() && (*triggers).trig_update_before_row
    }
}

unsafe fn old_slot(source: *mut pg_sys::ResultRelInfo) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: as in `ModifyTap::after`.
    unsafe {
        if has_before_update_trigger(source) {
            (*source).ri_TrigOldSlot
        } else {
            (*source).ri_oldTupleSlot
        }
    }
}

unsafe fn is_filled(slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: null or a valid slot.
    unsafe { !slot.is_null() && (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 == 0 }
}
