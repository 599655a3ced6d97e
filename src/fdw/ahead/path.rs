//! Planning a join with look-ahead.
use std::{
    cell::Cell,
    ffi::c_int,
    sync::atomic::{AtomicBool, Ordering},
};

use pg_redis_cache_core::fdw::{Comparison, Target};
use pgrx::{
    PgBox, pg_guard,
    pg_sys::{self, JoinType, NodeTag},
};

use super::{
    Number,
    node::{self, Static},
};
use crate::{
    compat,
    fdw::{
        clauses::Pushed,
        paths::{self, is_one_row},
        private::{self, Order},
        table::Table,
    },
    nodes,
};

/// What pull_var_clause is to return: variables, and what stands for an expression from below an outer join, which is
/// none of the columns here.
const EVERY_VARIABLE: c_int = (pg_sys::PVC_RECURSE_AGGREGATES
    | pg_sys::PVC_RECURSE_WINDOWFUNCS
    | pg_sys::PVC_INCLUDE_PLACEHOLDERS) as c_int;

type ForeignPaths =
    unsafe extern "C-unwind" fn(*mut pg_sys::PlannerInfo, *mut pg_sys::RelOptInfo, pg_sys::Oid);

static INSTALLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static BEFORE: Cell<pg_sys::set_join_pathlist_hook_type> = const { Cell::new(None) };
    static LAST: Cell<Number> = const { Cell::new(0) };
}

static METHODS: Static<pg_sys::CustomPathMethods> = Static(pg_sys::CustomPathMethods {
    CustomName: node::NAME.as_ptr(),
    PlanCustomPath: Some(plan),
    ReparameterizeCustomPathByChild: None,
});

/// Takes part in the planning of joins, from the first foreign table on that a backend meets.
pub fn install() {
    if !INSTALLED.swap(true, Ordering::Relaxed) {
        // SAFETY: the backend has one thread; whoever was there before is called first.
        unsafe {
            BEFORE.set(pg_sys::set_join_pathlist_hook);
            pg_sys::set_join_pathlist_hook = Some(join_paths);
            pg_sys::RegisterCustomScanMethods(node::methods());
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn join_paths(
    root: *mut pg_sys::PlannerInfo,
    join: *mut pg_sys::RelOptInfo,
    outer: *mut pg_sys::RelOptInfo,
    inner: *mut pg_sys::RelOptInfo,
    kind: JoinType::Type,
    extra: *mut pg_sys::JoinPathExtraData,
) {
    // SAFETY: called by the planner (joinpath.c, add_paths_to_joinrel).
    unsafe {
        if let Some(before) = BEFORE.get() {
            before(root, join, outer, inner, kind, extra);
        }
        let can_loop = matches!(
            kind,
            JoinType::JOIN_INNER | JoinType::JOIN_LEFT | JoinType::JOIN_SEMI | JoinType::JOIN_ANTI
        );
        if !can_loop || !is_ours(inner) || !(*inner).lateral_relids.is_null() {
            return;
        }
        let entry = *(*root).simple_rte_array.add((*inner).relid as usize);
        let table = Table::open((*entry).relid);
        if table.options.join_batch_size < 2 {
            return;
        }
        for parameters in nodes::items::<pg_sys::ParamPathInfo>((*inner).ppilist) {
            if pg_sys::bms_is_subset((*parameters).ppi_req_outer, (*outer).relids) {
                let sides = Sides {
                    root,
                    join,
                    outer,
                    inner,
                    kind,
                    extra,
                };
                sides.offer(&table, parameters);
            }
        }
    }
}

/// Whether a relation is a foreign table with our handler.
unsafe fn is_ours(relation: *mut pg_sys::RelOptInfo) -> bool {
    // SAFETY: the planner's own structures.
    unsafe {
        let routine = (*relation).fdwroutine;
        (*relation).reloptkind == pg_sys::RelOptKind::RELOPT_BASEREL
            && !routine.is_null()
            && (*routine)
                .GetForeignPaths
                .is_some_and(|function| std::ptr::fn_addr_eq(function, paths::paths as ForeignPaths))
    }
}

/// The two sides of a join that is being planned.
struct Sides {
    root: *mut pg_sys::PlannerInfo,
    join: *mut pg_sys::RelOptInfo,
    outer: *mut pg_sys::RelOptInfo,
    inner: *mut pg_sys::RelOptInfo,
    kind: JoinType::Type,
    extra: *mut pg_sys::JoinPathExtraData,
}

impl Sides {
    /// Offers a nested loop with look-ahead over each way to read the outer side.
    unsafe fn offer(&self, table: &Table, parameters: *mut pg_sys::ParamPathInfo) {
        // SAFETY: the planner's own structures.
        unsafe {
            let own = paths::pushed(self.root, self.inner, table, (*self.inner).baserestrictinfo);
            let of_join = paths::pushed(self.root, self.inner, table, (*parameters).ppi_clauses);
            let joining: Vec<Pushed> = of_join
                .iter()
                .filter(|one| joins(self.root, one))
                .copied()
                .collect();
            let mut all = own;
            all.extend(of_join);
            if !is_looked_up(table, &all, &joining) {
                return;
            }
            let rows = if is_one_row(table, &all) {
                1.0
            } else {
                (*parameters).ppi_rows
            };
            for path in nodes::items::<pg_sys::Path>((*self.outer).pathlist) {
                if (*path).param_info.is_null() && has_all(path, &joining) {
                    self.add(table, path, parameters, &joining, rows);
                }
            }
        }
    }

    unsafe fn add(
        &self,
        table: &Table,
        path: *mut pg_sys::Path,
        parameters: *mut pg_sys::ParamPathInfo,
        joining: &[Pushed],
        rows: f64,
    ) {
        let number = LAST.get().wrapping_add(1).max(1);
        LAST.set(number);
        // SAFETY: the planner's own structures.
        unsafe {
            let none = std::ptr::null_mut();
            let batch = (*path).rows.clamp(1.0, table.options.join_batch_size as f64);
            let (startup, total) = paths::cost_in_batch(self.inner, rows, batch);
            let private = private::of_path(Order::None, number);
            let required = (*parameters).ppi_req_outer;
            let inner = compat::foreign_path(
                self.root, self.inner, rows, startup, total, none, required, private,
            );
            let outer = custom_path(path, table, number, joining);
            let mut workspace = pg_sys::JoinCostWorkspace::default();
            pg_sys::initial_cost_nestloop(
                self.root,
                &raw mut workspace,
                self.kind,
                outer.cast(),
                inner.cast(),
                self.extra,
            );
            let joined = pg_sys::create_nestloop_path(
                self.root,
                self.join,
                self.kind,
                &raw mut workspace,
                self.extra,
                outer.cast(),
                inner.cast(),
                (*self.extra).restrictlist,
                (*path).pathkeys,
                none.cast(),
            );
            pg_sys::add_path(self.join, joined.cast());
        }
    }
}

/// Whether the operand of a condition comes from another table.
///
/// # Safety
/// `root` must be the planner's, and the condition one of its query.
pub unsafe fn joins(root: *mut pg_sys::PlannerInfo, pushed: &Pushed) -> bool {
    // SAFETY: as the caller promises.
    unsafe { !pg_sys::pull_varnos(root, pushed.operand.cast()).is_null() }
}

/// Whether such conditions find rows by their keys or names, so that many look-ups can be made at once.
fn is_looked_up(table: &Table, all: &[Pushed], joining: &[Pushed]) -> bool {
    let is_point = |one: &&Pushed| matches!(one.shape.comparison, Comparison::Equal | Comparison::Any);
    let by = |conditions: &[Pushed], target| {
        conditions
            .iter()
            .filter(is_point)
            .any(|one| one.shape.target == target)
    };
    // Look-ups that differ in more than names are not read together.
    let names = |target| {
        matches!(
            target,
            Target::Key | Target::Name | Target::Index | Target::Part(_)
        )
    };
    if !joining
        .iter()
        .all(|one| is_point(&one) && names(one.shape.target))
    {
        return false;
    }
    if let Some(mapping) = &table.mapping {
        let parts = || (0..mapping.parts).map(Target::Part);
        return parts().all(|part| by(all, part)) && parts().any(|part| by(joining, part));
    }
    let one_key = !table.layout.has_key() || by(all, Target::Key);
    one_key && !joining.is_empty()
}

/// Whether a path's rows have all that the operands are made of.
unsafe fn has_all(path: *mut pg_sys::Path, joining: &[Pushed]) -> bool {
    // SAFETY: the planner's own structures.
    unsafe {
        let columns = (*(*path).pathtarget).exprs;
        joining.iter().all(|one| {
            let needed = pg_sys::pull_var_clause(one.operand.cast(), EVERY_VARIABLE);
            nodes::items::<pg_sys::Expr>(needed)
                .all(|variable| same_variable(variable, nodes::items(columns)).is_some())
        })
    }
}

/// The path of the node that fetches ahead: rows, their order and cost are those of the path below it.
unsafe fn custom_path(
    below: *mut pg_sys::Path,
    table: &Table,
    number: Number,
    joining: &[Pushed],
) -> *mut pg_sys::CustomPath {
    let numbers = node::Plan {
        number,
        inner: table.relid,
        joins: joining
            .iter()
            .map(|one| (one.place, one.shape.comparison))
            .collect(),
    };
    let none = std::ptr::null_mut();
    let operands = joining.iter().fold(none, |list, one| {
        // SAFETY: a list in the planner's memory context.
        unsafe { pg_sys::lappend(list, one.operand.cast()) }
    });
    // SAFETY: the planner's own structures; a node of that tag.
    unsafe {
        let mut path = PgBox::<pg_sys::CustomPath>::alloc_node(NodeTag::T_CustomPath);
        path.path = *below;
        path.path.type_ = NodeTag::T_CustomPath;
        path.path.pathtype = NodeTag::T_CustomScan;
        path.path.parallel_aware = false;
        path.path.parallel_safe = false;
        path.path.total_cost += (*below).rows * pg_sys::cpu_tuple_cost;
        path.custom_paths = pg_sys::lappend(none, below.cast());
        path.custom_private =
            pg_sys::lappend(pg_sys::lappend(none, numbers.to_list().cast()), operands.cast());
        path.methods = &raw const METHODS.0;
        path.into_pg()
    }
}

/// PlanCustomPath.
#[pg_guard]
unsafe extern "C-unwind" fn plan(
    _root: *mut pg_sys::PlannerInfo,
    _relation: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::CustomPath,
    targets: *mut pg_sys::List,
    _clauses: *mut pg_sys::List,
    below: *mut pg_sys::List,
) -> *mut pg_sys::Plan {
    // SAFETY: a path of `custom_path`, and the plan of its one child, which has applied the relation's conditions.
    unsafe {
        let mut private = nodes::items::<pg_sys::List>((*path).custom_private);
        let none = std::ptr::null_mut();
        let (numbers, operands) = (private.next().unwrap_or(none), private.next().unwrap_or(none));
        let columns = nodes::items::<pg_sys::Plan>(below)
            .next()
            .map_or(none, |child| (*child).targetlist);
        let mut node = PgBox::<pg_sys::CustomScan>::alloc_node(NodeTag::T_CustomScan);
        node.scan.plan.targetlist = targets;
        node.custom_plans = below;
        node.custom_exprs = over_columns(operands, columns);
        node.custom_private = numbers;
        node.custom_scan_tlist = pg_sys::copyObjectImpl(columns.cast()).cast();
        node.methods = node::methods();
        node.into_pg().cast()
    }
}

/// Operands whose variables are those of the columns: in a join condition a variable may say of fewer outer joins that
/// they can make it NULL than the column does that it is found in (setrefs.c, set_join_references, NRM_SUBSET).
unsafe fn over_columns(operands: *mut pg_sys::List, columns: *mut pg_sys::List) -> *mut pg_sys::List {
    // SAFETY: a copy is changed; pull_var_clause returns the nodes themselves.
    unsafe {
        let operands: *mut pg_sys::List = pg_sys::copyObjectImpl(operands.cast()).cast();
        let columns = nodes::items::<pg_sys::TargetEntry>(columns);
        let columns: Vec<*mut pg_sys::Expr> = columns.map(|entry| (*entry).expr).collect();
        for variable in nodes::items::<pg_sys::Expr>(pg_sys::pull_var_clause(operands.cast(), EVERY_VARIABLE))
        {
            if let Some(column) = same_variable(variable, columns.iter().copied()) {
                compat::copy_nulling(column, variable.cast());
            }
        }
        operands
    }
}

/// Among the columns, the one that an expression is, if it is one.
unsafe fn same_variable(
    expression: *mut pg_sys::Expr,
    mut columns: impl Iterator<Item = *mut pg_sys::Expr>,
) -> Option<*mut pg_sys::Var> {
    // SAFETY: each node is looked at as what its tag says.
    unsafe {
        nodes::is_a(expression, NodeTag::T_Var).then_some(())?;
        let wanted = &*expression.cast::<pg_sys::Var>();
        let is_same = |column: &*mut pg_sys::Expr| {
            nodes::is_a(*column, NodeTag::T_Var) && {
                let column = &*column.cast::<pg_sys::Var>();
                column.varno == wanted.varno && column.varattno == wanted.varattno
            }
        };
        columns.find(is_same).map(|column| column.cast())
    }
}
