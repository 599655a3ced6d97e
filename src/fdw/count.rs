//! `count(*)` of a whole collection under one key: Redis knows it.
use pg_redis_cache_core::fdw::{Commands, Kind, Reply};
use pgrx::{
    pg_guard,
    pg_sys::{self, Datum, NodeTag, Oid},
};

use super::{cache, error, paths::ROUND_TRIP, pending, table::Table};
use crate::{compat, nodes};

/// What stands first in a plan's integers, where a scan's has its order.
const COUNT: i32 = -1;

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
            || !(*input).baserestrictinfo.is_null()
            || !counts_all(root, stage)
        {
            return;
        }
        let entry = *(*root).simple_rte_array.add((*input).relid as usize);
        let relid = (*entry).relid;
        // A parent's rows are its children's, too.
        if (*entry).inh || command(&Table::open(relid)).is_none() {
            return;
        }
        let private = [COUNT, relid.to_u32() as i32]
            .into_iter()
            .fold(std::ptr::null_mut(), |list, number| {
                pg_sys::lappend_int(list, number)
            });
        let target = (*root).upper_targets[stage as usize];
        let path = compat::foreign_upper_path(root, output, target, ROUND_TRIP, private);
        pg_sys::add_path(output, path.cast());
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

/// The command that counts a table's rows; none if it takes more than one.
fn command(table: &Table) -> Option<&'static str> {
    if table.mapping.is_some() || table.layout.has_key() {
        return None;
    }
    match table.options.kind {
        Kind::String => None,
        Kind::Hash => Some("HLEN"),
        Kind::List => Some("LLEN"),
        Kind::Set => Some("SCARD"),
        Kind::Zset => Some("ZCARD"),
        Kind::Stream => Some("XLEN"),
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
        pg_sys::make_foreignscan(targets, none, 0, none, (*path).fdw_private, row, none, outer)
    }
}

/// The execution of such a plan.
pub struct Count {
    pub table: Table,
    user: Oid,
    columns: usize,
    done: bool,
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
            Some(Self {
                table: Table::open(Oid::from(private.next()? as u32)),
                user: compat::scan_user(node),
                columns: nodes::items::<pg_sys::Node>((*plan).fdw_scan_tlist).count(),
                done: false,
            })
        }
    }

    /// The command, for EXPLAIN.
    pub fn command(&self) -> &'static str {
        command(&self.table).unwrap_or_default()
    }

    /// Counts again at the next row.
    pub fn restart(&mut self) {
        self.done = false;
    }

    /// Fills the slot with the one row, or leaves it empty behind that.
    ///
    /// # Safety
    /// `slot` must be the node's, just cleared.
    pub unsafe fn next(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let count = Datum::from(self.ask());
        // SAFETY: as the caller promises; each column is a bigint.
        unsafe {
            for column in 0..self.columns {
                *(*slot).tts_values.add(column) = count;
                *(*slot).tts_isnull.add(column) = false;
            }
            pg_sys::ExecStoreVirtualTuple(slot);
        }
    }

    fn ask(&self) -> i64 {
        pending::check_unchanged(&self.table);
        let mut line = cache::line(self.table.server, self.user, self.table.options.database);
        let key = self.table.one_key();
        let mut commands = Commands::default();
        commands.push(&[self.command().as_bytes(), &key]);
        line.send(&commands);
        match line.receive() {
            Reply::Integer(count) => count,
            Reply::Error(text) if text.starts_with("WRONGTYPE") => {
                error::wrong_type(&key, self.table.options.kind)
            }
            Reply::Error(text) => error::refused(&text),
            _ => error::garbled(&line.address()),
        }
    }
}
