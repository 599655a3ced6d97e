//! `ExecutorStart_hook` and `ExecutorEnd_hook`: tap the nodes of a query, and send what its scans found.
use std::ffi::c_int;

use pgrx::{pg_guard, pg_sys};

use crate::{
    capture::{inject, relations, taps},
    compat,
};

static mut PREVIOUS_START: pg_sys::ExecutorStart_hook_type = None;
static mut PREVIOUS_END: pg_sys::ExecutorEnd_hook_type = None;

pub fn init() {
    // SAFETY: the postmaster preloads libraries in one thread.
    unsafe {
        PREVIOUS_START = pg_sys::ExecutorStart_hook;
        pg_sys::ExecutorStart_hook = Some(start);
        PREVIOUS_END = pg_sys::ExecutorEnd_hook;
        pg_sys::ExecutorEnd_hook = Some(end);
    }
}

unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, eflags: c_int) {
    // SAFETY: called by the server; nothing here has a Drop.
    unsafe {
        inject::show_returning((*query).plannedstmt);
        match PREVIOUS_START {
            Some(previous) => previous(query, eflags),
            None => compat::standard_ExecutorStart(query, eflags),
        }
        if !relations::note_if_idle() {
            started(query, eflags);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn started(query: *mut pg_sys::QueryDesc, eflags: c_int) {
    // SAFETY: the executor has been started, so the plan state tree is complete.
    unsafe {
        if taps::wanted() {
            taps::install(query, eflags);
        }
    }
}

unsafe extern "C-unwind" fn end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: called by the server; nothing here has a Drop.
    unsafe {
        if taps::any() {
            ending(query);
        }
        match PREVIOUS_END {
            Some(previous) => previous(query),
            None => compat::standard_ExecutorEnd(query),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn ending(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the executor state is still there.
    unsafe { taps::finish(query) }
}
