//! Keeps Redis in step with PostgreSQL tables.
//!
//! The way of a change, from left to right: `hooks` mark and tap statements, `capture` takes the rows,
//! `xact` keeps them until the commit and appends them to the ring in `shared` memory, `worker` takes them
//! off and has them written. `docs/ARCHITECTURE.md` tells the protocol and why each step is needed.
mod capture;
mod compat;
mod fdw;
mod files;
mod gucs;
mod hooks;
mod nodes;
mod sentinel;
mod shared;
mod socket;
mod sql;
mod test_points;
mod tls;
mod worker;
mod xact;

use pgrx::{pg_guard, pg_sys};

::pgrx::pg_module_magic!(name, version);

/// Called when the library is loaded. Without preloading there is no shared memory and no worker: the functions
/// then say so.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: a flag of the postmaster.
    if unsafe { !pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    gucs::init();
    test_points::init();
    shared::init();
    hooks::init();
    xact::init();
    worker::init();
}
