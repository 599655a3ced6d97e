//! Tables whose rows change without the executor (logical replication's apply worker): a row trigger of ours
//! captures their changes, and the hooks leave such a table alone.
//!
//! An AFTER ROW trigger is told of a version when its statement is through. By then another trigger may have
//! changed the row again, and have been captured before: a version that is no longer the row's is not stored, its
//! key is deleted.
use std::ffi::CStr;

use pg_redis_cache_core::coherence::tally::Change;
use pgrx::{
    PgSqlErrorCode, pg_guard,
    pg_sys::{self, Datum, Oid},
};

use super::{
    relations::{self, MappedRelation},
    row::{self, Row},
    versions,
};
use crate::{nodes, sql::raise, xact};

/// The trigger's name.
pub const TRIGGER: &str = "pg_redis_cache";

const SCHEMA: &CStr = c"redis_cache";
const FUNCTION: &CStr = c"captured";

/// Whether a table has the trigger, ENABLE ALWAYS and as `redis_cache.attach` made it.
pub fn is_attached(relid: Oid) -> bool {
    // SAFETY: within a transaction; the descriptor is released before anything else is done.
    unsafe {
        let relation = pg_sys::RelationIdGetRelation(relid);
        if relation.is_null() {
            return false;
        }
        let triggers = (*relation).trigdesc;
        let attached = !triggers.is_null()
            && (0..(*triggers).numtriggers as usize).any(|index| is_ours(&*(*triggers).triggers.add(index)));
        pg_sys::RelationClose(relation);
        attached
    }
}

unsafe fn is_ours(trigger: &pg_sys::Trigger) -> bool {
    /// catalog/pg_trigger.h: a row trigger for INSERT, DELETE and UPDATE; AFTER is the absence of BEFORE.
    const ROW_AFTER_ANY: i16 = 1 | 1 << 2 | 1 << 3 | 1 << 4;
    // SAFETY: catalog look-ups; the names are null for a function that is gone.
    unsafe {
        trigger.tgtype == ROW_AFTER_ANY
            && trigger.tgenabled as u8 == pg_sys::TRIGGER_FIRES_ALWAYS
            && trigger.tgnattr == 0
            && trigger.tgqual.is_null()
            && nodes::bytes(pg_sys::get_func_name(trigger.tgfoid)) == FUNCTION.to_bytes()
            && nodes::bytes(pg_sys::get_namespace_name(pg_sys::get_func_namespace(
                trigger.tgfoid,
            ))) == SCHEMA.to_bytes()
    }
}

/// The trigger function `redis_cache.captured()`.
///
/// # Safety
/// Called by the server.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pg_redis_cache_captured(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: the context of a trigger's call is its data, told by the tag.
    unsafe {
        let data = (*call).context.cast::<pg_sys::TriggerData>();
        if !nodes::is_a(data, pg_sys::NodeTag::T_TriggerData) {
            raise(
                PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "redis_cache.captured() must be called as a trigger",
                "",
                "Use redis_cache.attach(table), which makes the trigger.",
            );
        }
        // The apply worker runs no statement that would have noted the generation (rule 9).
        if relations::note_statement()
            && let Some(relation) = relations::lookup((*(*data).tg_relation).rd_id)
            && relation.attached
        {
            capture(&relation, &*data);
        }
        Datum::from(0)
    }
}

/// What the server asks of a C function (fmgr.h, `PG_FUNCTION_INFO_V1`).
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_pg_redis_cache_captured() -> &'static pg_sys::Pg_finfo_record {
    const VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &VERSION_1
}

unsafe fn capture(relation: &MappedRelation, data: &pg_sys::TriggerData) {
    // SAFETY: an AFTER ROW trigger has its rows in slots of the relation (trigger.c, AfterTriggerExecute).
    unsafe {
        let old = Row::of(data.tg_trigslot);
        match data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => {
                xact::count(relation.relid, Change::Insert);
                if is_latest(data.tg_trigslot) {
                    row::capture_insert(relation, old, xact::position());
                } else {
                    row::capture_delete(relation, old);
                }
            }
            pg_sys::TRIGGER_EVENT_UPDATE => {
                xact::count(relation.relid, Change::Update);
                let new = Row::of(data.tg_newslot);
                if is_latest(data.tg_newslot) {
                    row::capture_update(relation, old, relation, new, xact::position());
                } else {
                    row::capture_delete(relation, old);
                    row::capture_delete(relation, new);
                }
            }
            _ => {
                xact::count(relation.relid, Change::Delete);
                row::capture_delete(relation, old);
            }
        }
    }
}

/// Whether a new version is still the row's.
unsafe fn is_latest(slot: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: the slot holds the version as it lies on its page.
    unsafe { !versions::End::of(slot).is_ours() }
}
