//! How many rows a LIMIT above a scan wants of it: a hint, by which no more is asked for at first.
//!
//! PostgreSQL's own Limit node stays in the plan and counts; whoever wants more rows after all gets them. So nothing
//! depends on the number, and it may be a parameter that has its value when the plan runs.
use pgrx::pg_sys::{self, NodeTag};

use super::explain;
use crate::nodes;

/// What a plan keeps in its `fdw_exprs` behind the operands of conditions: LIMIT, and OFFSET if there is one.
///
/// Empty if rows of the scan are not handed on one by one to a LIMIT, in the order that the scan has.
///
/// # Safety
/// `root`, `relation` and `path` must be those of the planner for one table.
pub unsafe fn of_query(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::ForeignPath,
) -> Vec<*mut pg_sys::Node> {
    // SAFETY: the planner's own structures.
    unsafe {
        let query = &*(*root).parse;
        let takes_all = !query.groupClause.is_null()
            || !query.groupingSets.is_null()
            || !query.distinctClause.is_null()
            || !query.havingQual.is_null()
            || query.hasAggs
            || query.hasWindowFuncs;
        let bounds: Vec<*mut pg_sys::Node> = [query.limitCount, query.limitOffset]
            .into_iter()
            .filter(|bound| !bound.is_null())
            .collect();
        let is_known = |bound: &*mut pg_sys::Node| {
            !pg_sys::contain_subplans(*bound)
                && !pg_sys::contain_volatile_functions(*bound)
                && !pg_sys::contain_var_clause(*bound)
        };
        let alone = pg_sys::bms_equal((*root).all_baserels, (*relation).relids);
        let as_wanted = pg_sys::pathkeys_contained_in((*root).sort_pathkeys, (*path).path.pathkeys);
        if query.limitCount.is_null() || takes_all || !alone || !as_wanted || !bounds.iter().all(is_known) {
            return Vec::new();
        }
        bounds
    }
}

/// The expressions of [`of_query`], ready to be evaluated.
pub struct Bound(Vec<*mut pg_sys::ExprState>);

impl Bound {
    /// None if there are no expressions.
    ///
    /// # Safety
    /// `bounds` must be of the plan of `node`, which is being started.
    pub unsafe fn new(
        bounds: impl Iterator<Item = *mut pg_sys::Expr>,
        node: *mut pg_sys::ForeignScanState,
    ) -> Option<Self> {
        let states: Vec<_> = bounds
            // SAFETY: as the caller promises.
            .map(|bound| unsafe { pg_sys::ExecInitExpr(bound, (&raw mut (*node).ss.ps).cast()) })
            .collect();
        (!states.is_empty()).then_some(Self(states))
    }

    /// How many rows are wanted; none if that is all, or the Limit node will refuse the value.
    ///
    /// # Safety
    /// `context` must be the node's.
    pub unsafe fn rows(&self, context: *mut pg_sys::ExprContext) -> Option<usize> {
        let mut rows = 0usize;
        for (place, state) in self.0.iter().enumerate() {
            let mut null = false;
            // SAFETY: the expressions belong to the node whose context this is. Both are bigints (parse_clause.c,
            // transformLimitClause).
            let value = unsafe { pg_sys::ExecEvalExpr(*state, context, &raw mut null) };
            match (null, usize::try_from(value.value() as i64)) {
                (false, Ok(value)) => rows = rows.saturating_add(value),
                // OFFSET NULL skips nothing.
                (true, _) if place > 0 => {}
                _ => return None,
            }
        }
        Some(rows.max(1))
    }
}

/// For EXPLAIN: the expressions as SQL.
///
/// # Safety
/// `bounds` must be of the plan of a node that was started, and `explain` EXPLAIN's own state.
pub unsafe fn describe(bounds: &[*mut pg_sys::Expr], context: *mut pg_sys::List) -> String {
    let texts: Vec<String> = bounds
        .iter()
        .map(|bound| {
            // SAFETY: as the caller promises.
            unsafe {
                if nodes::is_a(*bound, NodeTag::T_Const) && !(*bound.cast::<pg_sys::Const>()).constisnull {
                    return ((*bound.cast::<pg_sys::Const>()).constvalue.value() as i64).to_string();
                }
                explain::deparsed(bound.cast(), context)
            }
        })
        .collect();
    texts.join(" OFFSET ")
}
