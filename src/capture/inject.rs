//! Making a statement hand back the rows that it changes.
//!
//! A data-modifying statement on a mapped table that has no RETURNING of its own gets a marked one before it
//! is planned. `ModifyTable` then returns each affected row, the ones that tuple routing sends to another
//! partition included, and [`super::taps`] eats them. What the statement shows of itself stays as it was:
//! `hasReturning`, the node's rows and width are put back after planning, its target list after it is started.
use std::ffi::CString;

use pgrx::pg_sys::{self, CmdType, NodeTag};

use super::relations::{self, MappedRelation};
use crate::{compat, nodes};

/// What the marked target entries are called; the generation of the list follows.
const MARK: &str = "pg_redis_cache:";

/// Marks a query and the data-modifying queries in its WITH list. Returns whether any was marked.
///
/// # Safety
/// `query` must be a query tree about to be planned.
pub unsafe fn mark_query(query: *mut pg_sys::Query) -> bool {
    if !relations::any_mapped() {
        return false;
    }
    // SAFETY: a query tree's WITH list holds CommonTableExprs, whose queries are query trees.
    unsafe {
        let mut marked = mark_one(query);
        for cte in nodes::items::<pg_sys::CommonTableExpr>((*query).cteList) {
            if nodes::is_a((*cte).ctequery, NodeTag::T_Query) {
                marked |= mark_one((*cte).ctequery.cast());
            }
        }
        marked
    }
}

/// Undoes what planning made visible of the marks.
///
/// # Safety
/// `query` must be what [`mark_query`] marked and `statement` its plan.
pub unsafe fn finish_plan(query: *mut pg_sys::Query, statement: *mut pg_sys::PlannedStmt) {
    // SAFETY: as the caller promises.
    unsafe {
        if unmark(query) {
            (*statement).hasReturning = false;
        }
        for cte in nodes::items::<pg_sys::CommonTableExpr>((*query).cteList) {
            if nodes::is_a((*cte).ctequery, NodeTag::T_Query) {
                unmark((*cte).ctequery.cast());
            }
        }
        hide_rows((*statement).planTree);
        for plan in nodes::items::<pg_sys::Plan>((*statement).subplans) {
            hide_rows(plan);
        }
    }
}

/// Gives the `ModifyTable` nodes of a plan that is about to start, maybe for the second time, the target list that the
/// planner gave them (setrefs.c, `set_plan_refs`), of which [`hide_returning`] has deprived them. 18 makes the slot for
/// the returned rows from it; before, ExecInitModifyTable sets it itself. Does not raise.
///
/// # Safety
/// `statement` must be a plan.
pub unsafe fn show_returning(statement: *mut pg_sys::PlannedStmt) {
    unsafe fn show(plan: *mut pg_sys::Plan) {
        // SAFETY: a plan tree node; the cast follows the tag. returningLists holds target lists.
        unsafe {
            if nodes::is_a(plan, NodeTag::T_ModifyTable) && (*plan).targetlist.is_null() {
                let lists = (*plan.cast::<pg_sys::ModifyTable>()).returningLists;
                (*plan).targetlist = nodes::items(lists).next().unwrap_or(std::ptr::null_mut());
            }
        }
    }
    // SAFETY: as the caller promises; the nodes of a WITH list are at the top of sub-plans.
    unsafe {
        show((*statement).planTree);
        if (*statement).hasModifyingCTE {
            nodes::items((*statement).subplans).for_each(|plan| show(plan));
        }
    }
}

/// Hides from EXPLAIN VERBOSE what a marked `ModifyTable` that has been started returns.
///
/// # Safety
/// `node` must be an initialised `ModifyTableState`.
pub unsafe fn hide_returning(node: *mut pg_sys::ModifyTableState) {
    // SAFETY: as the caller promises. The executor looks at the list again only for EvalPlanQual, which makes the nodes of
    // a WITH list anew and does not run them (execMain.c, EvalPlanQualStart).
    unsafe { (*(*node).ps.plan).targetlist = std::ptr::null_mut() };
}

/// The generation of the list under which a `ModifyTable` was marked; `None` if it was not.
///
/// # Safety
/// `node` must be a valid `ModifyTable`.
pub unsafe fn marked_generation(node: *const pg_sys::ModifyTable) -> Option<u64> {
    // SAFETY: returningLists is a list of target lists.
    unsafe {
        let list = nodes::items::<pg_sys::List>((*node).returningLists).next()?;
        generation_of(list)
    }
}

unsafe fn generation_of(target_list: *mut pg_sys::List) -> Option<u64> {
    // SAFETY: a target list holds TargetEntries, whose name is null or a C string.
    unsafe {
        let entry = nodes::items::<pg_sys::TargetEntry>(target_list).next()?;
        let name = nodes::bytes((*entry).resname);
        std::str::from_utf8(name.strip_prefix(MARK.as_bytes())?)
            .ok()?
            .parse()
            .ok()
    }
}

unsafe fn mark_one(query: *mut pg_sys::Query) -> bool {
    // SAFETY: as in `mark_query`.
    unsafe {
        if !(*query).returningList.is_null() || (*query).resultRelation <= 0 {
            return false;
        }
        let Some(entry) =
            nodes::items::<pg_sys::RangeTblEntry>((*query).rtable).nth((*query).resultRelation as usize - 1)
        else {
            return false;
        };
        let Some(relation) = relations::lookup((*entry).relid) else {
            return false;
        };
        if relation.attached || !wants_rows(query, &relation) {
            return false;
        }
        (*query).returningList = if (*query).commandType == CmdType::CMD_DELETE {
            key_list((*query).resultRelation, &relation)
        } else {
            marker_list()
        };
        true
    }
}

/// Whether the changed rows are needed: a plain INSERT only where a mapping stores new rows.
unsafe fn wants_rows(query: *const pg_sys::Query, relation: &MappedRelation) -> bool {
    // SAFETY: onConflict is null or an OnConflictExpr.
    unsafe {
        match (*query).commandType {
            CmdType::CMD_UPDATE | CmdType::CMD_DELETE => true,
            CmdType::CMD_INSERT => {
                let conflict = (*query).onConflict;
                relation.stores_inserts()
                    || (!conflict.is_null()
                        && (*conflict).action == pg_sys::OnConflictAction::ONCONFLICT_UPDATE)
            }
            CmdType::CMD_MERGE => compat::MERGE_RETURNS,
            _ => false,
        }
    }
}

/// One constant: the new row itself is found in the node's slots.
fn marker_list() -> *mut pg_sys::List {
    // SAFETY: makes nodes in the current memory context, as the parser does.
    unsafe {
        let constant = pg_sys::makeNullConst(pg_sys::INT4OID, -1, pg_sys::InvalidOid);
        target_list([constant.cast::<pg_sys::Expr>()].into_iter())
    }
}

/// The key columns: the slot of a deleted row is cleared before the row is returned.
fn key_list(result_relation: i32, relation: &MappedRelation) -> *mut pg_sys::List {
    if relation.key_columns().next().is_none() {
        return marker_list();
    }
    // SAFETY: the columns are live columns of the result relation, as the relation cache has them.
    unsafe {
        target_list(relation.key_columns().map(|column| {
            pg_sys::makeVar(
                result_relation as _,
                column.attribute,
                column.type_id,
                column.type_modifier,
                column.collation,
                0,
            )
            .cast::<pg_sys::Expr>()
        }))
    }
}

unsafe fn target_list(expressions: impl Iterator<Item = *mut pg_sys::Expr>) -> *mut pg_sys::List {
    let name = CString::new(format!("{MARK}{}", relations::generation())).unwrap_or_default();
    let mut list = std::ptr::null_mut();
    for (position, expression) in expressions.enumerate() {
        // SAFETY: nodes are made in the current memory context.
        unsafe {
            let name = pg_sys::pstrdup(name.as_ptr());
            let entry = pg_sys::makeTargetEntry(expression, position as i16 + 1, name, false);
            list = pg_sys::lappend(list, entry.cast());
        }
    }
    list
}

unsafe fn unmark(query: *mut pg_sys::Query) -> bool {
    // SAFETY: as in `finish_plan`.
    unsafe {
        let marked = generation_of((*query).returningList).is_some();
        if marked {
            (*query).returningList = std::ptr::null_mut();
        }
        marked
    }
}

/// A `ModifyTable` without RETURNING is planned to return no rows (pathnode.c, `create_modifytable_path`).
unsafe fn hide_rows(plan: *mut pg_sys::Plan) {
    // SAFETY: a plan tree node; the cast follows the tag.
    unsafe {
        if nodes::is_a(plan, NodeTag::T_ModifyTable) && marked_generation(plan.cast()).is_some() {
            (*plan).plan_rows = 0.0;
            (*plan).plan_width = 0;
        }
    }
}
