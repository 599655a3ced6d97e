//! Which of a query's conditions Redis can be asked by.
//!
//! A condition counts if it compares one of the table's columns, by an operator whose meaning is known, with something
//! that does not depend on the row. What is asked for must not miss any row. Where an operand's text and the column's
//! value are one to one ([`Pushed::is_one_to_one`]) it can be exact, too.
use pg_redis_cache_core::fdw::{Comparison, Role, Shape, Target};
use pgrx::pg_sys::{self, NodeTag, Oid};

use super::{collation, table::Table};
use crate::nodes;

/// A condition that narrows what is read.
#[derive(Clone, Copy)]
pub struct Pushed {
    /// The column's place, from 0.
    pub place: usize,
    pub shape: Shape,
    /// What the column is compared with; for [`Comparison::Any`] an array.
    pub operand: *mut pg_sys::Expr,
    /// Whether whatever Redis finds by the operand's text has a value that meets the condition.
    pub is_one_to_one: bool,
}

/// Finds out whether a condition counts.
///
/// # Safety
/// `root` and `relation` must be those of the planner for that table, `clause` a condition on it.
pub unsafe fn pushed(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    table: &Table,
    clause: *mut pg_sys::Expr,
) -> Option<Pushed> {
    // SAFETY: each node is looked at as what its tag says.
    unsafe {
        let relid = (*relation).relid;
        if nodes::is_a(clause, NodeTag::T_OpExpr) {
            let expression = &*clause.cast::<pg_sys::OpExpr>();
            let (left, right) = two(expression.args)?;
            let of = |variable: *mut pg_sys::Expr, operand, operator| {
                let variable = variable_of(variable, relid)?;
                is_constant(root, relid, operand).then_some(())?;
                compared(table, variable, operator, expression.inputcollid, operand, false)
            };
            return of(left, right, expression.opno)
                .or_else(|| of(right, left, pg_sys::get_commutator(expression.opno)));
        }
        if nodes::is_a(clause, NodeTag::T_ScalarArrayOpExpr) {
            let expression = &*clause.cast::<pg_sys::ScalarArrayOpExpr>();
            let (left, right) = two(expression.args)?;
            let variable = variable_of(left, relid)?;
            (expression.useOr && is_constant(root, relid, right)).then_some(())?;
            return compared(
                table,
                variable,
                expression.opno,
                expression.inputcollid,
                right,
                true,
            );
        }
        None
    }
}

unsafe fn two(arguments: *mut pg_sys::List) -> Option<(*mut pg_sys::Expr, *mut pg_sys::Expr)> {
    // SAFETY: the arguments of an operator's expression.
    let mut arguments = unsafe { nodes::items::<pg_sys::Expr>(arguments) };
    Some((arguments.next()?, arguments.next()?))
}

/// The column, below what only changes a type's name.
unsafe fn variable_of(mut node: *mut pg_sys::Expr, relid: pg_sys::Index) -> Option<&'static pg_sys::Var> {
    // SAFETY: each node is looked at as what its tag says; it lives as long as the planning.
    unsafe {
        while nodes::is_a(node, NodeTag::T_RelabelType) {
            node = (*node.cast::<pg_sys::RelabelType>()).arg;
        }
        if !nodes::is_a(node, NodeTag::T_Var) {
            return None;
        }
        let variable = &*node.cast::<pg_sys::Var>();
        let own = variable.varno as pg_sys::Index == relid && variable.varlevelsup == 0;
        (own && variable.varattno > 0).then_some(variable)
    }
}

/// Whether an expression has one value for the whole scan.
unsafe fn is_constant(root: *mut pg_sys::PlannerInfo, relid: pg_sys::Index, node: *mut pg_sys::Expr) -> bool {
    // SAFETY: walks over an expression of the query.
    unsafe {
        let node = node.cast::<pg_sys::Node>();
        !pg_sys::bms_is_member(relid as i32, pg_sys::pull_varnos(root, node))
            && !pg_sys::contain_volatile_functions(node)
            && !pg_sys::contain_subplans(node)
    }
}

unsafe fn compared(
    table: &Table,
    variable: &pg_sys::Var,
    operator: Oid,
    collation: Oid,
    operand: *mut pg_sys::Expr,
    any: bool,
) -> Option<Pushed> {
    let place = variable.varattno as usize - 1;
    let target = match table.layout.role(place)? {
        Role::Key => Target::Key,
        Role::Field | Role::Member | Role::Id => Target::Name,
        Role::Score => Target::Score,
        Role::Index => Target::Index,
        Role::Part(part) => Target::Part(*part),
        Role::Value | Role::Element | Role::Named(_) | Role::Property | Role::Ttl => return None,
    };
    // SAFETY: catalog look-ups, and the type of an expression.
    let (base, operand_type) = unsafe {
        let operand_type = pg_sys::exprType(operand.cast());
        let single = if any {
            pg_sys::get_base_element_type(operand_type)
        } else {
            operand_type
        };
        (pg_sys::getBaseType(variable.vartype), pg_sys::getBaseType(single))
    };
    // SAFETY: catalog look-ups.
    let comparison = unsafe { comparison(base, operator, collation) }?;
    let comparison = match (comparison, any) {
        (Comparison::Equal, true) => Comparison::Any,
        (_, true) => return None,
        (comparison, false) => comparison,
    };
    let shape = Shape { target, comparison };
    let is_id = table.layout.role(place) == Some(&Role::Id);
    if is_id && comparison.is_range() && is_text(base) && !collation::has_order_of_digits(collation) {
        return None;
    }
    let same = match target {
        Target::Key | Target::Name => has_one_text(base, variable.vartypmod) && is_like(base, operand_type),
        // What the cache writes is always the type's own text.
        Target::Part(part) => {
            (has_one_text(base, -1) || has_one_canonical_text(base))
                && is_like(base, operand_type)
                && table
                    .mapping
                    .as_ref()?
                    .has_text_of(part, base, variable.vartypmod)
        }
        Target::Score => is_number(base, variable.vartypmod) && is_like(base, operand_type),
        Target::Index => is_integer(base) && is_integer(operand_type),
    };
    (same && shape.narrows(table.options.kind)).then_some(Pushed {
        place,
        shape,
        operand,
        is_one_to_one: is_one_to_one(target, base, operand_type),
    })
}

/// See [`Pushed::is_one_to_one`].
fn is_one_to_one(target: Target, base: Oid, operand: Oid) -> bool {
    match target {
        // These are asked for as numbers.
        Target::Score | Target::Index => true,
        _ if matches!(base, pg_sys::UUIDOID | pg_sys::BYTEAOID) => true,
        // A column cannot show what only a wider type has: that is an ERROR wherever the column is looked at.
        Target::Key | Target::Name if is_integer(base) => width(operand) <= width(base),
        _ if is_integer(base) => true,
        // Several texts of UTF-8 may be one text of another encoding.
        // SAFETY: reads a variable.
        _ => matches!(
            unsafe { pg_sys::GetDatabaseEncoding() } as u32,
            pg_sys::pg_enc::PG_UTF8 | pg_sys::pg_enc::PG_SQL_ASCII
        ),
    }
}

/// The bytes of an integer.
fn width(integer: Oid) -> usize {
    match integer {
        pg_sys::INT2OID => 2,
        pg_sys::INT4OID => 4,
        _ => 8,
    }
}

/// `text ~~ text` and `text ^@ text` (pg_operator.dat).
const TEXT_LIKE: u32 = pg_sys::OID_TEXT_LIKE_OP;
const TEXT_STARTS_WITH: u32 = 3877;

/// What an operator means on values of a type, by the operator family of its default B-tree class.
unsafe fn comparison(base: Oid, operator: Oid, collation: Oid) -> Option<Comparison> {
    // SAFETY: catalog look-ups.
    unsafe {
        let is_text = is_text(base);
        if is_text && collation != pg_sys::InvalidOid && !pg_sys::get_collation_isdeterministic(collation) {
            return None;
        }
        match operator.to_u32() {
            TEXT_LIKE if is_text => return Some(Comparison::Like),
            TEXT_STARTS_WITH if is_text => return Some(Comparison::Prefix),
            _ => {}
        }
        let entry = pg_sys::lookup_type_cache(base, pg_sys::TYPECACHE_BTREE_OPFAMILY as i32);
        match pg_sys::get_op_opfamily_strategy(operator, (*entry).btree_opf) as u32 {
            pg_sys::BTLessStrategyNumber => Some(Comparison::Less),
            pg_sys::BTLessEqualStrategyNumber => Some(Comparison::LessEqual),
            pg_sys::BTEqualStrategyNumber => Some(Comparison::Equal),
            pg_sys::BTGreaterEqualStrategyNumber => Some(Comparison::GreaterEqual),
            pg_sys::BTGreaterStrategyNumber => Some(Comparison::Greater),
            _ => None,
        }
    }
}

/// Whether equal values have one text, so that equality can be asked of Redis. (A text that PostgreSQL would not have
/// written, like 007 in an integer column, is found by a scan alone.)
fn has_one_text(base: Oid, modifier: i32) -> bool {
    match base {
        pg_sys::TEXTOID | pg_sys::BYTEAOID | pg_sys::UUIDOID => true,
        pg_sys::VARCHAROID => modifier < 0,
        // SAFETY: a catalog look-up.
        _ => is_integer(base) || unsafe { pg_sys::get_typtype(base) } as u8 == pg_sys::TYPTYPE_ENUM,
    }
}

/// The operator family by which a zset's column of scores has the order of the scores, if it has it.
pub fn order_of_scores(table: &Table, place: usize) -> Option<Oid> {
    let column = table.columns[place].as_ref()?;
    // SAFETY: catalog look-ups.
    unsafe {
        let base = pg_sys::getBaseType(column.type_id);
        let entry = pg_sys::lookup_type_cache(base, pg_sys::TYPECACHE_BTREE_OPFAMILY as i32);
        is_number(base, column.modifier).then_some((*entry).btree_opf)
    }
}

/// Further types whose equal values are written in one way, though others can be read.
fn has_one_canonical_text(base: Oid) -> bool {
    matches!(
        base,
        pg_sys::BOOLOID
            | pg_sys::OIDOID
            | pg_sys::DATEOID
            | pg_sys::TIMEOID
            | pg_sys::TIMESTAMPOID
            | pg_sys::TIMESTAMPTZOID
    )
}

/// The operator family by which a stream's column of ids has their order under that collation, if it has it.
pub fn order_of_ids(table: &Table, place: usize, collation: Oid) -> Option<Oid> {
    let column = table.columns[place].as_ref()?;
    // SAFETY: catalog look-ups.
    unsafe {
        let base = pg_sys::getBaseType(column.type_id);
        let is_whole = base == pg_sys::TEXTOID || (base == pg_sys::VARCHAROID && column.modifier < 0);
        let entry = pg_sys::lookup_type_cache(base, pg_sys::TYPECACHE_BTREE_OPFAMILY as i32);
        (is_whole && collation::has_order_of_ids(collation)).then_some((*entry).btree_opf)
    }
}

fn is_text(base: Oid) -> bool {
    matches!(base, pg_sys::TEXTOID | pg_sys::VARCHAROID)
}

fn is_integer(base: Oid) -> bool {
    matches!(base, pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID)
}

/// Whether a score is shown as the number that it is.
fn is_number(base: Oid, modifier: i32) -> bool {
    base == pg_sys::FLOAT8OID || is_integer(base) || (base == pg_sys::NUMERICOID && modifier < 0)
}

/// Whether values of the operand's type have the texts that those of the column's type have.
fn is_like(base: Oid, operand: Oid) -> bool {
    let is_text = |oid| matches!(oid, pg_sys::TEXTOID | pg_sys::VARCHAROID);
    base == operand || (is_text(base) && is_text(operand)) || (is_integer(base) && is_integer(operand))
}
