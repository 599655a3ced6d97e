//! `count(*)`: Redis knows how large its collections are, and how many scores are in a range.
//!
//! It is asked where that is exact: under no condition but such on keys and scores that a reading meets by itself,
//! whatever their operands turn out to be. Tables over mappings are read: SCAN finds more than a template's keys.
use pg_redis_cache_core::fdw::{
    Access, Comparison, Counting, Kind, Operand, Shape, Target, describe, exact, glob,
};
use pgrx::{
    pg_guard,
    pg_sys::{self, Datum, NodeTag, Oid},
};

use super::{
    cache,
    clauses::{self, Pushed},
    condition::Condition,
    connection::Figures,
    error, estimate,
    paths::ROUND_TRIP,
    pending,
    private::Planned,
    table::Table,
    values::Converter,
};
use crate::{compat, nodes};

/// What stands first in a plan's integers, where a scan's has its order.
const COUNT: i32 = -1;
/// The cost of a row that is counted, in the planner's units.
const ROW: f64 = 0.01;

/// GetForeignUpperPaths.
#[pg_guard]
pub unsafe extern "C-unwind" fn paths(
    root: *mut pg_sys::PlannerInfo,
    stage: pg_sys::UpperRelationKind::Type,
    input: *mut pg_sys::RelOptInfo,
    output: *mut pg_sys::RelOptInfo,
    _extra: *mut std::ffi::c_void,
) {
    // SAFETY: the planner's own structures.
    unsafe {
        if stage != pg_sys::UpperRelationKind::UPPERREL_GROUP_AGG
            || (*input).reloptkind != pg_sys::RelOptKind::RELOPT_BASEREL
            || !counts_all(root, stage)
        {
            return;
        }
        let entry = *(*root).simple_rte_array.add((*input).relid as usize);
        let relid = (*entry).relid;
        // A parent's rows are its children's, too.
        if (*entry).inh {
            return;
        }
        let table = Table::open(relid);
        let Some(conditions) = conditions(root, input, &table) else {
            return;
        };
        let (operands, numbers) = to_lists(relid, &conditions);
        let private = [numbers, operands]
            .into_iter()
            .fold(std::ptr::null_mut(), |list, part| {
                pg_sys::lappend(list, part.cast())
            });
        let rows = if table.layout.has_key() {
            (*input).rows
        } else {
            0.0
        };
        let target = (*root).upper_targets[stage as usize];
        let path = compat::foreign_upper_path(root, output, target, ROUND_TRIP + rows * ROW, private);
        pg_sys::add_path(output, path.cast());
    }
}

/// All of the relation's conditions, if Redis can count by them.
unsafe fn conditions(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    table: &Table,
) -> Option<Vec<Pushed>> {
    // One string may be none, or of another type, which is an ERROR: that takes a reading.
    let is_one_string = !table.layout.has_key() && table.options.kind == Kind::String;
    if table.mapping.is_some() || is_one_string {
        return None;
    }
    // SAFETY: the planner's own structures.
    let all: Option<Vec<Pushed>> = unsafe {
        nodes::items::<pg_sys::RestrictInfo>((*relation).baserestrictinfo)
            .map(|restriction| match (*restriction).pseudoconstant {
                true => None,
                false => clauses::pushed(root, relation, table, (*restriction).clause),
            })
            .collect()
    };
    let all = all?;
    let shapes: Vec<Shape> = all.iter().map(|one| one.shape).collect();
    let counts = exact::can_be(table.options.kind, &shapes)
        && all.iter().all(|one| {
            matches!(one.shape.target, Target::Key | Target::Score)
                && one.is_one_to_one
                // SAFETY: an expression of the query.
                && unsafe { is_exact(table, one) }
        });
    counts.then_some(all)
}

/// Whether a reading meets the condition by itself, whatever value the operand will have.
unsafe fn is_exact(table: &Table, condition: &Pushed) -> bool {
    // SAFETY: the expression's own type and value; within a transaction.
    unsafe {
        let type_id = pg_sys::getBaseType(pg_sys::exprType(condition.operand.cast()));
        let text = || {
            nodes::is_a(condition.operand, NodeTag::T_Const).then_some(())?;
            let constant = &*condition.operand.cast::<pg_sys::Const>();
            (!constant.constisnull).then_some(())?;
            let name = "operand".to_string();
            Some(Converter::new(name, constant.consttype, -1, table.bytes()).write(constant.constvalue))
        };
        match (condition.shape.target, condition.shape.comparison) {
            (_, Comparison::Like) => text().is_some_and(|like| glob::is_exact_like(&like)),
            (Target::Score, _) => {
                // All of these are doubles.
                let is_double = matches!(type_id, pg_sys::FLOAT8OID | pg_sys::INT2OID | pg_sys::INT4OID);
                is_double || text().is_some_and(|score| exact::is_score(&score))
            }
            _ => true,
        }
    }
}

/// The operands, and the integers by which [`Count::of`] reads them: the table, and for each its column's place and
/// the comparison.
fn to_lists(relid: Oid, conditions: &[Pushed]) -> (*mut pg_sys::List, *mut pg_sys::List) {
    let shapes = conditions
        .iter()
        .flat_map(|one| [one.place as i32, one.shape.comparison.number()]);
    let numbers = [COUNT, relid.to_u32() as i32].into_iter().chain(shapes);
    // SAFETY: lists of nodes and integers, in the current memory context.
    unsafe {
        let numbers = numbers.fold(std::ptr::null_mut(), |list, number| {
            pg_sys::lappend_int(list, number)
        });
        let operands = conditions.iter().fold(std::ptr::null_mut(), |list, one| {
            pg_sys::lappend(list, one.operand.cast())
        });
        (operands, numbers)
    }
}

/// Whether the query's groups are one, and all that is wanted of it is `count(*)`.
unsafe fn counts_all(root: *mut pg_sys::PlannerInfo, stage: pg_sys::UpperRelationKind::Type) -> bool {
    // SAFETY: the planner's own structures.
    unsafe {
        let query = &*(*root).parse;
        if !query.groupClause.is_null() || !query.groupingSets.is_null() || !query.havingQual.is_null() {
            return false;
        }
        let wanted = (*(*root).upper_targets[stage as usize]).exprs;
        let is_count = |node: *mut pg_sys::Expr| {
            nodes::is_a(node, NodeTag::T_Aggref) && {
                let aggregate = &*node.cast::<pg_sys::Aggref>();
                aggregate.aggfnoid.to_u32() == pg_sys::F_COUNT_
                    && aggregate.aggfilter.is_null()
                    && aggregate.agglevelsup == 0
            }
        };
        !wanted.is_null() && nodes::items::<pg_sys::Expr>(wanted).all(is_count)
    }
}

/// GetForeignPlan, for a path of [`paths`].
///
/// # Safety
/// `relation` must be the upper relation of the path.
pub unsafe fn plan(
    relation: *mut pg_sys::RelOptInfo,
    path: *mut pg_sys::ForeignPath,
    targets: *mut pg_sys::List,
    outer: *mut pg_sys::Plan,
) -> *mut pg_sys::ForeignScan {
    let none = std::ptr::null_mut();
    // SAFETY: the planner's own structures.
    unsafe {
        let row = pg_sys::add_to_flat_tlist(none, (*(*relation).reltarget).exprs);
        let mut private = nodes::items::<pg_sys::List>((*path).fdw_private);
        let numbers = private.next().unwrap_or(none);
        let operands = private.next().unwrap_or(none);
        pg_sys::make_foreignscan(targets, none, 0, operands, numbers, row, none, outer)
    }
}

/// The execution of such a plan.
pub struct Count {
    pub table: Table,
    user: Oid,
    /// With the places of their columns.
    conditions: Vec<(usize, Condition)>,
    columns: usize,
    done: bool,
    pub figures: Figures,
}

impl Count {
    /// If the plan is one that counts.
    ///
    /// # Safety
    /// `node` must be a foreign scan that is being started.
    pub unsafe fn of(node: *mut pg_sys::ForeignScanState) -> Option<Self> {
        // SAFETY: as the caller promises; the statement holds a lock on the table.
        unsafe {
            let plan = (*node).ss.ps.plan.cast::<pg_sys::ForeignScan>();
            let mut private = nodes::integers((*plan).fdw_private);
            (private.next() == Some(COUNT)).then_some(())?;
            let table = Table::open(Oid::from(private.next()? as u32));
            let mut conditions = Vec::new();
            for operand in nodes::items::<pg_sys::Expr>((*plan).fdw_exprs) {
                let planned = Planned {
                    place: private.next()? as usize,
                    comparison: Comparison::numbered(private.next()?)?,
                    joins: false,
                };
                let state = (&raw mut (*node).ss.ps).cast();
                conditions.push((planned.place, Condition::new(&table, planned, operand, state)?));
            }
            Some(Self {
                table,
                user: compat::scan_user(node),
                conditions,
                columns: nodes::items::<pg_sys::Node>((*plan).fdw_scan_tlist).count(),
                done: false,
                figures: Figures::default(),
            })
        }
    }

    /// The columns' places and the conditions on them, for EXPLAIN.
    pub fn shapes(&self) -> impl Iterator<Item = (usize, Shape)> {
        self.conditions
            .iter()
            .map(|(place, condition)| (*place, condition.shape))
    }

    /// The commands, for EXPLAIN.
    pub fn commands(&self) -> Vec<String> {
        let shapes: Vec<Shape> = self.shapes().map(|(_, shape)| shape).collect();
        describe::counting(self.table.options.kind, &self.table.layout, &shapes)
    }

    /// Counts again at the next row.
    pub fn restart(&mut self) {
        self.done = false;
    }

    /// Fills the slot with the one row, or leaves it empty behind that.
    ///
    /// # Safety
    /// `slot` must be the node's, just cleared, and `context` the node's own.
    pub unsafe fn next(&mut self, slot: *mut pg_sys::TupleTableSlot, context: *mut pg_sys::ExprContext) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let operands = self.conditions.iter_mut();
        // SAFETY: the expressions belong to the node whose context this is.
        let operands =
            operands.map(|(_, condition)| (condition.shape, unsafe { condition.evaluate(context) }));
        let operands = operands.collect();
        let count = Datum::from(self.ask(operands));
        // SAFETY: as the caller promises; each column is a bigint.
        unsafe {
            for column in 0..self.columns {
                *(*slot).tts_values.add(column) = count;
                *(*slot).tts_isnull.add(column) = false;
            }
            pg_sys::ExecStoreVirtualTuple(slot);
        }
    }

    fn ask(&mut self, operands: Vec<(Shape, Operand)>) -> i64 {
        pending::check_unchanged(&self.table);
        let kind = self.table.options.kind;
        let access = Access::new(kind, &self.table.layout.keys, operands);
        debug_assert!(access.exact && Counting::takes(&access.within));
        let mut counting = Counting::new(kind, !self.table.layout.has_key(), access);
        let mut line = cache::line_of(&self.table, self.user);
        let total = estimate::total(&mut counting, &mut line)
            .unwrap_or_else(|problem| error::unread(&self.table, &problem, &line.address()));
        self.figures.add(line.figures());
        i64::try_from(total).unwrap_or(i64::MAX)
    }
}
