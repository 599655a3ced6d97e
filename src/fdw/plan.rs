//! Planning a scan: its size, and the plan. Redis is asked for the size alone, and only with `use_remote_estimate`.
use pg_redis_cache_core::fdw::{Kind, Shape, Target, exact, options::Keys};
use pgrx::{
    pg_guard,
    pg_sys::{self, Oid},
};

use super::{
    ahead::joins,
    bound, clauses, count, estimate,
    paths::{is_one_row, pushed},
    private::{self, Planned, Private},
    table::Table,
};
use crate::{compat, nodes};

/// How many rows a table has that ANALYZE has not seen. Rather too many than too few: a collection that is taken for a
/// large one is asked for what a join needs of it, which costs the round trips of its batches; one that is taken for a
/// small one is read whole, and may have millions.
const ROWS: f64 = 10_000.0;

/// GetForeignRelSize.
#[pg_guard]
pub unsafe extern "C-unwind" fn size(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    relid: Oid,
) {
    let table = Table::open(relid);
    // SAFETY: the planner's own structures; the table's statistics, -1 if there are none.
    unsafe {
        let known = (*relation).tuples;
        (*relation).tuples = match (&table.layout.keys, table.options.kind) {
            (Keys::One(_), Kind::String) => 1.0,
            _ => {
                let asked = table.options.remote_estimate.then(|| {
                    let user = compat::planned_user(root, relation);
                    estimate::rows(&table, user)
                });
                asked.flatten().unwrap_or(if known < 0.0 { ROWS } else { known })
            }
        };
        pg_sys::set_baserel_size_estimates(root, relation);
        let pushed = pushed(root, relation, &table, (*relation).baserestrictinfo);
        if is_one_row(&table, &pushed) {
            (*relation).rows = (*relation).rows.min(1.0);
        }
    }
}

/// GetForeignPlan.
#[pg_guard]
pub unsafe extern "C-unwind" fn plan(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    relid: Oid,
    path: *mut pg_sys::ForeignPath,
    targets: *mut pg_sys::List,
    clauses: *mut pg_sys::List,
    outer: *mut pg_sys::Plan,
) -> *mut pg_sys::ForeignScan {
    if relid == pg_sys::InvalidOid {
        // SAFETY: a relation above that of a table is that of a count.
        return unsafe { count::plan(relation, path, targets, outer) };
    }
    let table = Table::open(relid);
    // SAFETY: the planner's own structures; all lists are made of nodes that a plan can hold.
    unsafe {
        let mut operands = std::ptr::null_mut();
        let mut conditions = std::ptr::null_mut();
        let mut others = std::ptr::null_mut();
        let mut pushed = Vec::new();
        for restriction in nodes::items::<pg_sys::RestrictInfo>(clauses) {
            if (*restriction).pseudoconstant {
                continue;
            }
            if let Some(one) = clauses::pushed(root, relation, &table, (*restriction).clause) {
                operands = pg_sys::lappend(operands, one.operand.cast());
                conditions = pg_sys::lappend(conditions, (*restriction).clause.cast());
                pushed.push(one);
            } else {
                others = pg_sys::lappend(others, (*restriction).clause.cast());
            }
        }
        let shapes: Vec<Shape> = pushed.iter().map(|one| one.shape).collect();
        let trusted = can_be_exact(&table, &shapes) && pushed.iter().all(|one| one.is_one_to_one);
        if trusted && others.is_null() {
            for bound in bound::of_query(root, relation, path) {
                operands = pg_sys::lappend(operands, bound.cast());
            }
        }
        let (order, ahead) = private::from_path((*path).fdw_private);
        let planned = pushed.iter().map(|one| Planned {
            place: one.place,
            comparison: one.shape.comparison,
            joins: joins(root, one),
        });
        let private = Private {
            conditions: planned.collect(),
            order,
            ahead,
            trusted,
            needed: needed(relation, clauses, &table),
        };
        pg_sys::make_foreignscan(
            targets,
            if trusted {
                others
            } else {
                pg_sys::extract_actual_clauses(clauses, false)
            },
            (*relation).relid,
            operands,
            private.to_list(),
            std::ptr::null_mut(),
            // For EXPLAIN, which can only show what the planner has finished; for EvalPlanQual; and for readings that
            // turn out not to be exact.
            conditions,
            outer,
        )
    }
}

/// Whether a reading by such conditions may be exact; if not, the plan has to check them.
fn can_be_exact(table: &Table, shapes: &[Shape]) -> bool {
    match &table.mapping {
        // All key columns are known, or a SCAN finds more.
        Some(mapping) => {
            let is_known = |part| shapes.iter().any(|shape| shape.target == Target::Part(part));
            shapes.is_empty() || (0..mapping.parts).all(is_known)
        }
        None => exact::can_be(table.options.kind, shapes),
    }
}

/// Which columns' values the query needs.
unsafe fn needed(relation: *mut pg_sys::RelOptInfo, clauses: *mut pg_sys::List, table: &Table) -> Vec<usize> {
    let mut attributes: *mut pg_sys::Bitmapset = std::ptr::null_mut();
    // SAFETY: walks over expressions of the query; the set counts from the first system attribute.
    unsafe {
        let relid = (*relation).relid;
        pg_sys::pull_varattnos((*(*relation).reltarget).exprs.cast(), relid, &raw mut attributes);
        for restriction in nodes::items::<pg_sys::RestrictInfo>(clauses) {
            pg_sys::pull_varattnos((*restriction).clause.cast(), relid, &raw mut attributes);
        }
        let has = |number: i32| {
            pg_sys::bms_is_member(number - pg_sys::FirstLowInvalidHeapAttributeNumber, attributes)
        };
        let all = has(0);
        (0..table.columns.len())
            .filter(|place| table.columns[*place].is_some() && (all || has(*place as i32 + 1)))
            .collect()
    }
}
