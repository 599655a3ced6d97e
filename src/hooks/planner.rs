//! `planner_hook`: asks data-modifying statements on mapped tables for the rows that they change.
use std::ffi::{c_char, c_int};

use pgrx::{pg_guard, pg_sys};

use crate::{
    capture::{inject, relations},
    compat,
};

static mut PREVIOUS: pg_sys::planner_hook_type = None;

pub fn init() {
    // SAFETY: the postmaster preloads libraries in one thread.
    unsafe {
        PREVIOUS = pg_sys::planner_hook;
        pg_sys::planner_hook = Some(plan);
    }
}

unsafe extern "C-unwind" fn plan(
    parse: *mut pg_sys::Query,
    query_string: *const c_char,
    cursor_options: c_int,
    bound_params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: called by the server with a valid query tree; nothing here has a Drop.
    unsafe {
        let marked = !relations::idle() && before(parse);
        let statement = match PREVIOUS {
            Some(previous) => previous(parse, query_string, cursor_options, bound_params),
            None => compat::standard_planner(parse, query_string, cursor_options, bound_params),
        };
        if marked {
            after(parse, statement);
        }
        statement
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn before(parse: *mut pg_sys::Query) -> bool {
    // SAFETY: the query tree is the planner's to scribble on.
    unsafe { inject::mark_query(parse) }
}

#[pg_guard]
unsafe extern "C-unwind" fn after(parse: *mut pg_sys::Query, statement: *mut pg_sys::PlannedStmt) {
    // SAFETY: both come from the planner just called.
    unsafe { inject::finish_plan(parse, statement) }
}
