//! `redis_fdw_handler()`: the callbacks of foreign tables.
use pgrx::{
    PgBox, pg_guard,
    pg_sys::{self, Datum, NodeTag},
};

use super::{ahead, analyze, count, explain, identity, import, modify, node, paths, plan, truncate};

/// The function that PostgreSQL calls.
///
/// # Safety
/// By the function manager alone.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn redis_fdw_handler(_call: pg_sys::FunctionCallInfo) -> Datum {
    ahead::install();
    // SAFETY: a node of that tag, in the caller's memory context.
    let mut routine = unsafe { PgBox::<pg_sys::FdwRoutine>::alloc_node(NodeTag::T_FdwRoutine) };
    routine.GetForeignRelSize = Some(plan::size);
    routine.GetForeignPaths = Some(paths::paths);
    routine.GetForeignPlan = Some(plan::plan);
    routine.GetForeignUpperPaths = Some(count::paths);
    routine.BeginForeignScan = Some(node::begin);
    routine.IterateForeignScan = Some(node::iterate);
    routine.ReScanForeignScan = Some(node::rescan);
    routine.EndForeignScan = Some(node::end);
    routine.AnalyzeForeignTable = Some(analyze::analyze);
    routine.AddForeignUpdateTargets = Some(identity::add_targets);
    routine.IsForeignRelUpdatable = Some(modify::updatable);
    routine.PlanForeignModify = Some(modify::plan);
    routine.BeginForeignModify = Some(modify::begin);
    routine.BeginForeignInsert = Some(modify::begin_insert);
    routine.ExecForeignInsert = Some(modify::insert);
    routine.ExecForeignUpdate = Some(modify::update);
    routine.ExecForeignDelete = Some(modify::delete);
    routine.EndForeignModify = Some(modify::end);
    routine.EndForeignInsert = Some(modify::end);
    routine.ImportForeignSchema = Some(import::import);
    routine.ExecForeignTruncate = Some(truncate::truncate);
    routine.ExplainForeignModify = Some(explain::modify);
    routine.ExplainForeignScan = Some(explain::scan);
    Datum::from(routine.into_pg())
}

/// What the server asks of a C function (fmgr.h, `PG_FUNCTION_INFO_V1`).
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_redis_fdw_handler() -> &'static pg_sys::Pg_finfo_record {
    const VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &VERSION_1
}
