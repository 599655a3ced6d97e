//! `ProcessUtility_hook` and `object_access_hook`: TRUNCATE, DROP and other DDL on mapped tables.
use std::ffi::{c_char, c_int, c_void};

use pgrx::{pg_guard, pg_sys};

use crate::{
    capture::{ddl, relations},
    compat,
};

static mut PREVIOUS_UTILITY: pg_sys::ProcessUtility_hook_type = None;
static mut PREVIOUS_ACCESS: pg_sys::object_access_hook_type = None;

pub fn init() {
    // SAFETY: the postmaster preloads libraries in one thread.
    unsafe {
        PREVIOUS_UTILITY = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(utility);
        PREVIOUS_ACCESS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(access);
    }
}

#[allow(clippy::too_many_arguments)] // the server's signature
unsafe extern "C-unwind" fn utility(
    stmt: *mut pg_sys::PlannedStmt,
    query_string: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    query_env: *mut pg_sys::QueryEnvironment,
    dest: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: called by the server; nothing here has a Drop.
    unsafe {
        // After COMMIT, ROLLBACK or DISCARD the statement may be gone: only what ALTER TABLE needs is looked at then.
        let alters_table = !relations::note_if_idle() && before(stmt);
        match PREVIOUS_UTILITY {
            Some(previous) => previous(
                stmt,
                query_string,
                read_only_tree,
                context,
                params,
                query_env,
                dest,
                completion,
            ),
            None => compat::standard_ProcessUtility(
                stmt,
                query_string,
                read_only_tree,
                context,
                params,
                query_env,
                dest,
                completion,
            ),
        }
        if alters_table {
            after(stmt);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn before(stmt: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: the statement is valid for the call.
    unsafe {
        ddl::before_utility((*stmt).utilityStmt);
        ddl::around_alter_table((*stmt).utilityStmt)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after(stmt: *mut pg_sys::PlannedStmt) {
    // SAFETY: the tree of an ALTER TABLE outlives its execution, also where DETACH CONCURRENTLY commits within.
    unsafe {
        ddl::around_alter_table((*stmt).utilityStmt);
    }
}

unsafe extern "C-unwind" fn access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub_id: c_int,
    arg: *mut c_void,
) {
    // SAFETY: called by the server; nothing here has a Drop.
    unsafe {
        if let Some(previous) = PREVIOUS_ACCESS {
            previous(access, class, object, sub_id, arg);
        }
        if !relations::idle() {
            seen(access, class, object, sub_id, arg);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn seen(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    column: c_int,
    arg: *mut c_void,
) {
    ddl::object_accessed(access, class, object, column);
    if access == pg_sys::ObjectAccessType::OAT_POST_ALTER && class == ddl::INHERITS {
        let arg = arg.cast::<pg_sys::ObjectAccessPostAlter>();
        // SAFETY: what the server passes for that kind of access (objectaccess.h).
        if let Some(arg) = unsafe { arg.as_ref() } {
            ddl::gets_child(arg.auxiliary_id);
        }
    }
}
