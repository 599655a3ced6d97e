//! ANALYZE: reads a whole table, in windows like any scan, and keeps a random sample of its rows.
use std::{
    ffi::c_int,
    hash::{BuildHasher, RandomState},
};

use pgrx::{pg_guard, pg_sys};

use super::scan::Scan;

/// AnalyzeForeignTable.
#[pg_guard]
pub unsafe extern "C-unwind" fn analyze(
    _relation: pg_sys::Relation,
    sample: *mut pg_sys::AcquireSampleRowsFunc,
    pages: *mut pg_sys::BlockNumber,
) -> bool {
    // SAFETY: where the server wants the answers.
    unsafe {
        *sample = Some(acquire);
        // Of no meaning here; with none the planner would take the table for one that was never analyzed.
        *pages = 1;
    }
    true
}

/// A random number from 0 to below a bound.
fn random(state: &RandomState, turn: u64, bound: u64) -> u64 {
    state.hash_one(turn) % bound
}

#[pg_guard]
unsafe extern "C-unwind" fn acquire(
    relation: pg_sys::Relation,
    _level: c_int,
    rows: *mut pg_sys::HeapTuple,
    wanted: c_int,
    total: *mut f64,
    dead: *mut f64,
) -> c_int {
    // SAFETY: an open foreign table of ours, and a place for that many rows, which are made in the current context.
    unsafe {
        let mut scan = Scan::of_relation(relation, pg_sys::GetUserId());
        let sample = std::slice::from_raw_parts_mut(rows, wanted as usize);
        let columns = (*(*relation).rd_att).natts as usize;
        let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0usize); columns], vec![true; columns]);
        let of_row = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"a row of a foreign table".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
        );
        let (state, mut seen) = (RandomState::new(), 0u64);
        loop {
            // A row that is left out leaves memory behind, too.
            pg_sys::MemoryContextReset(of_row);
            let outer = pg_sys::MemoryContextSwitchTo(of_row);
            let row = scan.next(std::ptr::null_mut());
            pg_sys::MemoryContextSwitchTo(outer);
            let Some(row) = row else { break };
            // Vitter's algorithm R: each row stays with the same probability.
            let place = match seen {
                few if few < sample.len() as u64 => few,
                seen => random(&state, seen, seen + 1),
            };
            seen += 1;
            let Some(kept) = sample.get_mut(place as usize) else {
                continue;
            };
            let outer = pg_sys::MemoryContextSwitchTo(of_row);
            scan.values(&row, &mut values, &mut nulls);
            pg_sys::MemoryContextSwitchTo(outer);
            if seen > wanted as u64 {
                pg_sys::heap_freetuple(*kept);
            }
            *kept = pg_sys::heap_form_tuple((*relation).rd_att, values.as_mut_ptr(), nulls.as_mut_ptr());
        }
        pg_sys::MemoryContextDelete(of_row);
        *total = seen as f64;
        *dead = 0.0;
        seen.min(wanted as u64) as c_int
    }
}
