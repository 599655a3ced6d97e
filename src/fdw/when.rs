//! When a statement may write: not while it still reads what it would change.
use pg_redis_cache_core::fdw::{Kind, Role};
use pgrx::pg_sys::{self, CmdType};

use super::table::Table;
use crate::nodes;

/// When gathered rows are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Each by itself: a trigger may look.
    AtOnce,
    InBatches,
    AtTheEnd,
}

/// The places of the columns that an UPDATE may change: all of them if a trigger may.
///
/// # Safety
/// `relation` must be a result relation of a statement that is being started.
pub unsafe fn updated(
    table: &Table,
    relation: *mut pg_sys::ResultRelInfo,
    state: *mut pg_sys::EState,
) -> Vec<usize> {
    // SAFETY: as the caller promises; the sets count from the first system attribute.
    unsafe {
        let triggers = (*relation).ri_TrigDesc;
        let all = !triggers.is_null() && (*triggers).trig_update_before_row;
        let sets = [
            pg_sys::ExecGetUpdatedCols(relation, state),
            pg_sys::ExecGetExtraUpdatedCols(relation, state),
        ];
        let has = |place: usize| {
            let member = place as i32 + 1 - pg_sys::FirstLowInvalidHeapAttributeNumber;
            all || sets.iter().any(|set| pg_sys::bms_is_member(member, *set))
        };
        (0..table.columns.len()).filter(|place| has(*place)).collect()
    }
}

/// When the rows of a statement can be written.
///
/// # Safety
/// As [`updated`].
pub unsafe fn when(
    table: &Table,
    operation: CmdType::Type,
    updated: &[usize],
    relation: *mut pg_sys::ResultRelInfo,
    state: *mut pg_sys::EState,
) -> When {
    // SAFETY: as the caller promises.
    let (watched, reads) = unsafe {
        let triggers = (*relation).ri_TrigDesc;
        let watched = !triggers.is_null()
            && ((*triggers).trig_insert_after_row
                || (*triggers).trig_insert_after_statement
                || (*triggers).trig_update_after_row
                || (*triggers).trig_update_after_statement
                || (*triggers).trig_delete_after_row
                || (*triggers).trig_delete_after_statement);
        // The statement's own table is one of them; in a partitioned one it may not be.
        let foreign = nodes::items::<pg_sys::RangeTblEntry>((*state).es_range_table).filter(|entry| {
            (**entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                && (**entry).relkind as u8 == pg_sys::RELKIND_FOREIGN_TABLE
                && (**entry).relid != (*(*relation).ri_RelationDesc).rd_id
        });
        let own = nodes::items::<pg_sys::RangeTblEntry>((*state).es_range_table)
            .filter(|entry| (**entry).relid == (*(*relation).ri_RelationDesc).rd_id);
        (watched, foreign.count() > 0 || own.count() > 1)
    };
    let keeps_place =
        |place: &usize| matches!(table.layout.role(*place), Some(Role::Value | Role::Ttl) | None);
    let at_the_end = match operation {
        CmdType::CMD_INSERT => reads,
        // Its plan may scan the table again and again, and what the transaction has changed cannot be read.
        _ if table.options.transactional => true,
        // It may read by another scan what it changes.
        _ if reads => true,
        CmdType::CMD_DELETE => matches!(table.options.kind, Kind::List | Kind::Zset),
        _ => table.options.kind == Kind::List || !updated.iter().all(keeps_place),
    };
    match (at_the_end, watched) {
        (true, _) => When::AtTheEnd,
        (false, true) => When::AtOnce,
        (false, false) => When::InBatches,
    }
}
