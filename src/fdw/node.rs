//! The executor's callbacks of a foreign scan: a scan proper, or a count.
use std::ffi::c_int;

use pgrx::{pg_guard, pg_sys};

use super::{count::Count, owned, scan::Scan};

/// What a node keeps in `fdw_state`.
pub enum Node {
    Scan(Box<Scan>),
    Count(Box<Count>),
}

/// BeginForeignScan. Redis is not asked before the first row is.
#[pg_guard]
pub unsafe extern "C-unwind" fn begin(node: *mut pg_sys::ForeignScanState, _flags: c_int) {
    // SAFETY: a node that is being started; its query's memory context outlives it.
    unsafe {
        let state = match Count::of(node) {
            Some(count) => Node::Count(Box::new(count)),
            None => Node::Scan(Box::new(Scan::of_node(node))),
        };
        (*node).fdw_state = owned::keep((*(*node).ss.ps.state).es_query_cxt, state).cast();
    }
}

/// What [`begin`] has put into a node.
///
/// # Safety
/// `node` must be one that was begun.
pub unsafe fn of<'s>(node: *mut pg_sys::ForeignScanState) -> &'s mut Node {
    // SAFETY: it lives as long as the query's memory context.
    unsafe { &mut *(*node).fdw_state.cast::<Node>() }
}

/// IterateForeignScan.
#[pg_guard]
pub unsafe extern "C-unwind" fn iterate(node: *mut pg_sys::ForeignScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: called by the executor between `begin` and `end`, in the memory context of one row.
    unsafe {
        let slot = (*node).ss.ss_ScanTupleSlot;
        pg_sys::ExecClearTuple(slot);
        match of(node) {
            Node::Scan(scan) => {
                let context = (*node).ss.ps.ps_ExprContext;
                while let Some(row) = scan.next(context) {
                    scan.fill(slot, &row);
                    if !scan.rechecks || meets_conditions(node, slot) {
                        break;
                    }
                    pg_sys::ExecClearTuple(slot);
                    pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
                }
            }
            Node::Count(count) => count.next(slot, (*node).ss.ps.ps_ExprContext),
        }
        slot
    }
}

/// Whether a row meets the conditions that the plan leaves to the scan.
unsafe fn meets_conditions(node: *mut pg_sys::ForeignScanState, row: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: as `iterate`; ExecInitForeignScan has made the conditions ready.
    unsafe {
        let context = (*node).ss.ps.ps_ExprContext;
        (*context).ecxt_scantuple = row;
        pg_sys::ExecQual((*node).fdw_recheck_quals, context)
    }
}

/// ReScanForeignScan.
#[pg_guard]
pub unsafe extern "C-unwind" fn rescan(node: *mut pg_sys::ForeignScanState) {
    // SAFETY: as in `iterate`.
    match unsafe { of(node) } {
        Node::Scan(scan) => scan.restart(),
        Node::Count(count) => count.restart(),
    }
}

/// EndForeignScan.
#[pg_guard]
pub unsafe extern "C-unwind" fn end(node: *mut pg_sys::ForeignScanState) {
    // SAFETY: as in `iterate`; the state is null if the start has failed.
    unsafe {
        if !(*node).fdw_state.is_null()
            && let Node::Scan(scan) = of(node)
        {
            scan.stop();
        }
    }
}
