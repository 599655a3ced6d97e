//! The paths of a scan: by itself, in the order of scores or ids, and for each row of what it is joined with.
//!
//! A round trip is the dearest thing there is, and an element on its way cheap: so a join to few rows asks Redis for
//! each of them, and a join to many reads all once and hashes it.
use std::ffi::c_void;

use pg_redis_cache_core::fdw::{Comparison, Kind, Role, Target};
use pgrx::{
    pg_guard,
    pg_sys::{self, NodeTag, Oid},
};

use super::{
    clauses::{self, Pushed},
    private::{Order, of_path},
    table::Table,
};
use crate::{compat, nodes};

/// The cost of a round trip, and of an element on its way, in the planner's units.
pub const ROUND_TRIP: f64 = 20.0;
const ELEMENT: f64 = 0.02;
/// What a row that is looked up by name costs more than one that a scan brings: measured, it takes two to three times as
/// long (bench, part fdw: the joins beside the scans).
const LOOKED_UP: f64 = 0.05;
/// How many elements a round trip brings.
const WINDOW: f64 = 1_000.0;

/// GetForeignPaths.
#[pg_guard]
pub unsafe extern "C-unwind" fn paths(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    relid: Oid,
) {
    let table = Table::open(relid);
    // SAFETY: the planner's own structures.
    unsafe {
        let own = pushed(root, relation, &table, (*relation).baserestrictinfo);
        let outer = (*relation).lateral_relids;
        let (rows, read) = ((*relation).rows, read(relation, &own));
        let none = std::ptr::null_mut();
        add(root, relation, rows, read, none, outer);
        if let Some((order, keys)) = order(root, relation, &table, &own) {
            let mut path = cost(relation, read);
            // ZRANGE finds its place by score, ZSCAN does not.
            path.1 *= 1.1;
            let path = compat::foreign_path(
                root,
                relation,
                rows,
                path.0,
                path.1,
                keys,
                outer,
                of_path(order, 0),
            );
            pg_sys::add_path(relation, path.cast());
        }
        for needed in outer_relations(root, relation, &table) {
            let info = pg_sys::get_baserel_parampathinfo(root, relation, needed);
            let mut all = own.clone();
            all.extend(pushed(root, relation, &table, (*info).ppi_clauses));
            let rows = if is_one_row(&table, &all) {
                1.0
            } else {
                (*info).ppi_rows
            };
            add(root, relation, rows, rows, none, (*info).ppi_req_outer);
        }
    }
}

/// How many elements come from Redis.
unsafe fn read(relation: *mut pg_sys::RelOptInfo, pushed: &[Pushed]) -> f64 {
    // SAFETY: the planner's own structure.
    unsafe {
        if pushed.is_empty() {
            (*relation).tuples
        } else {
            (*relation).rows
        }
    }
}

unsafe fn add(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    rows: f64,
    read: f64,
    keys: *mut pg_sys::List,
    outer: pg_sys::Relids,
) {
    // SAFETY: the planner's own structures.
    unsafe {
        let (startup, total) = cost(relation, read);
        let private = of_path(Order::None, 0);
        let path = compat::foreign_path(root, relation, rows, startup, total, keys, outer, private);
        pg_sys::add_path(relation, path.cast());
    }
}

/// What it costs until the first row, and until the last.
unsafe fn cost(relation: *mut pg_sys::RelOptInfo, read: f64) -> (f64, f64) {
    // SAFETY: the planner's own structure.
    let own = unsafe { &(*relation).baserestrictcost };
    let startup = ROUND_TRIP + own.startup;
    // SAFETY: a setting.
    let each = ELEMENT + unsafe { pg_sys::cpu_tuple_cost } + own.per_tuple;
    (
        startup,
        startup + read * each + (read / WINDOW).floor() * ROUND_TRIP,
    )
}

/// The cost of reading `rows` for one outer row, as one of `batch` for which Redis is asked at once.
///
/// # Safety
/// `relation` must be the planner's.
pub unsafe fn cost_in_batch(relation: *mut pg_sys::RelOptInfo, rows: f64, batch: f64) -> (f64, f64) {
    // SAFETY: as the caller promises.
    let (startup, total) = unsafe { cost(relation, rows) };
    let saved = ROUND_TRIP - ROUND_TRIP / batch;
    (startup - saved, total - saved + rows.max(1.0) * LOOKED_UP)
}

/// The order in which the query wants its rows, if that is the order of one zset's scores, or of one stream's ids:
/// then Redis can give it.
unsafe fn order(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    table: &Table,
    pushed: &[Pushed],
) -> Option<(Order, *mut pg_sys::List)> {
    // What is read by name has no order; by a pattern alone little may be wanted of what an order reads.
    let by_score = pushed.iter().any(|one| one.shape.target == Target::Score);
    let by_name = |one: &Pushed| {
        let is_point = matches!(one.shape.comparison, Comparison::Equal | Comparison::Any);
        one.shape.target == Target::Name && (is_point || table.options.kind == Kind::Zset && !by_score)
    };
    let score = table.layout.place(&Role::Score);
    let place = score.or_else(|| table.layout.place(&Role::Id))?;
    if table.layout.has_key() || pushed.iter().any(by_name) {
        return None;
    }
    // SAFETY: the planner's own structures.
    unsafe {
        let keys = (*root).query_pathkeys;
        let mut all = nodes::items::<pg_sys::PathKey>(keys);
        let (Some(key), None) = (all.next(), all.next()) else {
            return None;
        };
        let collation = (*(*key).pk_eclass).ec_collation;
        let family = match score {
            Some(place) => clauses::order_of_scores(table, place)?,
            None => clauses::order_of_ids(table, place, collation)?,
        };
        let mut attribute = place as i16 + 1;
        let has_column =
            nodes::items::<pg_sys::EquivalenceMember>((*(*key).pk_eclass).ec_members).any(|member| {
                is_column(
                    root,
                    relation,
                    (*key).pk_eclass,
                    member,
                    (&raw mut attribute).cast(),
                )
            });
        let order = if compat::is_ascending(key) {
            Order::Ascending
        } else {
            Order::Descending
        };
        (has_column && (*key).pk_opfamily == family).then_some((order, keys))
    }
}

/// Those of a list of restrictions that narrow what is read.
///
/// # Safety
/// As [`clauses::pushed`]; `restrictions` must be a list of `RestrictInfo`.
pub unsafe fn pushed(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    table: &Table,
    restrictions: *mut pg_sys::List,
) -> Vec<Pushed> {
    // SAFETY: as the caller promises.
    unsafe {
        nodes::items::<pg_sys::RestrictInfo>(restrictions)
            .filter_map(|restriction| clauses::pushed(root, relation, table, (*restriction).clause))
            .collect()
    }
}

/// Whether the conditions leave one row at most.
pub fn is_one_row(table: &Table, pushed: &[Pushed]) -> bool {
    let equal = |target| {
        pushed
            .iter()
            .any(|one| one.shape.target == target && one.shape.comparison == Comparison::Equal)
    };
    if let Some(mapping) = &table.mapping {
        return (0..mapping.parts).all(|part| equal(Target::Part(part)));
    }
    let one_key = !table.layout.has_key() || equal(Target::Key);
    one_key && (table.options.kind == Kind::String || equal(Target::Name) || equal(Target::Index))
}

/// The sets of relations whose rows, once known, narrow what is read: from join conditions as they stand, and from
/// those that follow from several equalities. (As postgres_fdw.c, postgresGetForeignPaths.)
unsafe fn outer_relations(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    table: &Table,
) -> Vec<pg_sys::Relids> {
    let mut found: Vec<pg_sys::Relids> = Vec::new();
    let mut consider = |restriction: *mut pg_sys::RestrictInfo| {
        // SAFETY: the planner's own structures.
        unsafe {
            if !pg_sys::join_clause_is_movable_to(restriction, relation)
                || clauses::pushed(root, relation, table, (*restriction).clause).is_none()
            {
                return;
            }
            let outer = pg_sys::bms_union((*restriction).clause_relids, (*relation).lateral_relids);
            let outer = pg_sys::bms_del_member(outer, (*relation).relid as i32);
            let known = found.iter().any(|known| pg_sys::bms_equal(*known, outer));
            if !known && pg_sys::bms_membership(outer) != pg_sys::BMS_Membership::BMS_EMPTY_SET {
                found.push(outer);
            }
        }
    };
    // SAFETY: the planner's own structures.
    unsafe {
        nodes::items::<pg_sys::RestrictInfo>((*relation).joininfo).for_each(&mut consider);
        if (*relation).has_eclass_joins {
            for (place, role) in table.layout.roles.iter().enumerate() {
                if !role.as_ref().is_some_and(is_looked_up) {
                    continue;
                }
                let mut attribute = place as i16 + 1;
                let implied = pg_sys::generate_implied_equalities_for_column(
                    root,
                    relation,
                    Some(is_column),
                    (&raw mut attribute).cast(),
                    (*relation).lateral_referencers,
                );
                nodes::items::<pg_sys::RestrictInfo>(implied).for_each(&mut consider);
            }
        }
    }
    found
}

/// Whether equality with a column of this role narrows what is read.
fn is_looked_up(role: &Role) -> bool {
    match role {
        Role::Key | Role::Field | Role::Member | Role::Id | Role::Score | Role::Index | Role::Part(_) => true,
        Role::Value | Role::Element | Role::Named(_) | Role::Property | Role::Ttl => false,
    }
}

/// Whether a member of an equivalence class is the column with that number.
#[pg_guard]
unsafe extern "C-unwind" fn is_column(
    _root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    _class: *mut pg_sys::EquivalenceClass,
    member: *mut pg_sys::EquivalenceMember,
    attribute: *mut c_void,
) -> bool {
    // SAFETY: called by `generate_implied_equalities_for_column` with what it was given.
    unsafe {
        let mut node = (*member).em_expr;
        while nodes::is_a(node, NodeTag::T_RelabelType) {
            node = (*node.cast::<pg_sys::RelabelType>()).arg;
        }
        nodes::is_a(node, NodeTag::T_Var) && {
            let variable = &*node.cast::<pg_sys::Var>();
            variable.varno as pg_sys::Index == (*relation).relid
                && variable.varattno == *attribute.cast::<i16>()
        }
    }
}
