//! Taps: functions put between an executor node and its caller.
//!
//! A tap lives as long as its query's memory context: it is registered by node, and released by a reset
//! callback of `es_query_cxt`, because an ERROR skips ExecutorEnd. The tap functions themselves are not
//! guarded (an ERROR of the node passes through them as it is) and keep no value with a `Drop` while the node
//! runs; what they do with a row is in guarded helpers.
use std::{
    cell::{Cell, RefCell},
    ffi::{c_int, c_void},
};

use pgrx::{
    pg_guard,
    pg_sys::{self, NodeTag},
};

use super::{
    inject,
    merge::MergeTap,
    modify::ModifyTap,
    relations,
    scan::{self, FillBatch, ScanTap},
};
use crate::{
    compat::{self, unguarded},
    nodes,
};

/// What a node does when it is asked for a row.
pub type NodeFunction = unsafe extern "C-unwind" fn(*mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot;

/// The taps of one kind in a query, ordered by the address of their node. They stay where they are once the query
/// runs.
struct ByNode<T>(Vec<(usize, T)>);

impl<T> ByNode<T> {
    fn insert(&mut self, node: usize, tap: T) -> Option<&mut T> {
        let place = self.0.binary_search_by_key(&node, |(other, _)| *other).err()?;
        self.0.insert(place, (node, tap));
        Some(&mut self.0[place].1)
    }

    fn contains(&self, node: usize) -> bool {
        self.0.binary_search_by_key(&node, |(other, _)| *other).is_ok()
    }

    fn find(&mut self, node: usize) -> Option<&mut T> {
        let place = self.0.binary_search_by_key(&node, |(other, _)| *other).ok()?;
        Some(&mut self.0[place].1)
    }

    fn clear(&mut self) {
        self.0.clear();
        self.0.shrink_to(16);
    }
}

impl<T> Default for ByNode<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// What hangs off one query.
#[derive(Default)]
struct QueryTaps {
    modify: ByNode<ModifyTap>,
    scans: ByNode<ScanTap>,
    /// At most one: a MERGE cannot stand in a WITH list.
    merge: Option<Box<MergeTap>>,
    fills: FillBatch,
    /// What the query's memory context calls when it goes.
    callback: pg_sys::MemoryContextCallback,
}

impl QueryTaps {
    fn clear(&mut self) {
        self.modify.clear();
        self.scans.clear();
        self.merge = None;
        self.fills.clear();
    }
}

thread_local! {
    /// By executor state. Queries nest, so there can be several.
    static QUERIES: RefCell<Vec<(usize, Box<QueryTaps>)>> = const { RefCell::new(Vec::new()) };
    /// An empty one, used again: most statements then allocate nothing here.
    static SPARE: Cell<Option<Box<QueryTaps>>> = const { Cell::new(None) };
}

/// Whether a query that starts now may need taps.
pub fn wanted() -> bool {
    relations::note_statement()
}

/// Whether any query has taps.
pub fn any() -> bool {
    QUERIES.with_borrow(|queries| !queries.is_empty())
}

/// Looks at a query that has just been started, and taps what touches a mapped relation.
///
/// # Safety
/// `query` must be a query descriptor after `ExecutorStart`.
pub unsafe fn install(query: *mut pg_sys::QueryDesc, eflags: c_int) {
    // SAFETY: as the caller promises.
    unsafe {
        let statement = (*query).plannedstmt;
        if !nodes::oids((*statement).relationOids).any(|relid| relations::lookup(relid).is_some()) {
            // A plan that was marked when one of its tables was still mapped names it in relationOids too.
            if !has_marked_node(query) {
                return;
            }
        }
        let explain_only = eflags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int != 0;
        let estate = (*query).estate;
        // Registered first: should the walk raise, the query's context releases what there is.
        let taps = register(estate, SPARE.take().unwrap_or_default());
        for node in modify_nodes(query) {
            tap_modify(node, &mut *taps, explain_only);
        }
        if !explain_only && scan::allowed(query) {
            (*taps).fills.begin();
            tap_scans((*query).planstate, taps);
        }
    }
}

/// Sends what the scans of a query found.
///
/// # Safety
/// `query` must be a query descriptor before `ExecutorEnd`.
pub unsafe fn finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: as the caller promises.
    let estate = unsafe { (*query).estate };
    let fills = QUERIES.with_borrow_mut(|queries| {
        let (_, taps) = queries
            .iter_mut()
            .rev()
            .find(|(owner, _)| *owner == estate as usize)?;
        (!taps.fills.is_empty()).then(|| std::mem::take(&mut taps.fills))
    });
    if let Some(fills) = fills {
        // SAFETY: the snapshot of a query lives until its end, and `scan::allowed` has seen a plain one.
        // What finds no room has been counted as dropped.
        let _ = unsafe { fills.send((*query).snapshot) };
    }
}

/// The `ModifyTable` nodes of a query: the top one, and those of its WITH list. One can be both.
unsafe fn modify_nodes(query: *mut pg_sys::QueryDesc) -> Vec<*mut pg_sys::ModifyTableState> {
    // SAFETY: es_auxmodifytables lists ModifyTableStates.
    unsafe {
        let mut found: Vec<*mut pg_sys::ModifyTableState> = Vec::new();
        if nodes::is_a((*query).planstate, NodeTag::T_ModifyTableState) {
            found.push((*query).planstate.cast());
        }
        for node in nodes::items::<pg_sys::ModifyTableState>((*(*query).estate).es_auxmodifytables) {
            if !found.contains(&node) {
                found.push(node);
            }
        }
        found
    }
}

unsafe fn has_marked_node(query: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: as in `modify_nodes`; the plan of a ModifyTableState is a ModifyTable.
    unsafe {
        modify_nodes(query)
            .into_iter()
            .any(|node| inject::marked_generation((*node).ps.plan.cast()).is_some())
    }
}

unsafe fn tap_modify(node: *mut pg_sys::ModifyTableState, taps: &mut QueryTaps, explain_only: bool) {
    // SAFETY: the node has been initialised by the executor.
    unsafe {
        let plan = (*node).ps.plan;
        let marked = inject::marked_generation(plan.cast());
        if marked.is_some() {
            inject::hide_returning(node);
        }
        if explain_only {
            return;
        }
        if let Some(tap) = MergeTap::new(node) {
            let tap = taps.merge.insert(Box::new(tap));
            unguarded::ExecSetExecProcNode(&raw mut (*node).ps, Some(run_merge));
            unguarded::ExecSetExecProcNode(tap.below(), Some(watch_merge));
            return;
        }
        if let Some(tap) = ModifyTap::new(node, marked) {
            let Some(tap) = taps.modify.insert(node as usize, tap) else {
                return;
            };
            let function: unsafe extern "C-unwind" fn(_) -> _ =
                if tap.eats_rows() { eat_rows } else { pass_rows };
            unguarded::ExecSetExecProcNode(&raw mut (*node).ps, Some(function));
        }
    }
}

unsafe fn tap_scans(node: *mut pg_sys::PlanState, taps: *mut QueryTaps) {
    unsafe extern "C-unwind" fn visit(node: *mut pg_sys::PlanState, context: *mut c_void) -> bool {
        // SAFETY: the context is the QueryTaps below, which outlives the walk.
        unsafe {
            visit_node(node, context.cast());
            compat::walk_children(node, visit, context)
        }
    }
    if !node.is_null() {
        // SAFETY: the tree has been initialised by the executor.
        unsafe {
            visit(node, taps.cast());
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn visit_node(node: *mut pg_sys::PlanState, taps: *mut QueryTaps) {
    // SAFETY: as in `tap_scans`.
    unsafe {
        if (*taps).scans.contains(node as usize) {
            return;
        }
        if let Some(tap) = ScanTap::new(node) {
            let _ = (*taps).scans.insert(node as usize, tap);
            unguarded::ExecSetExecProcNode(node, Some(watch_rows));
        }
    }
}

/// Ties the taps to the query's memory. They are boxed, and so stay where they are until they are released.
unsafe fn register(estate: *mut pg_sys::EState, mut taps: Box<QueryTaps>) -> *mut QueryTaps {
    let place = &raw mut *taps;
    taps.callback.func = Some(release);
    taps.callback.arg = estate.cast();
    QUERIES.with_borrow_mut(|queries| queries.push((estate as usize, taps)));
    // SAFETY: the box stays where it is until the callback has been called; the context does not look at the callback
    // after that (mcxt.c, MemoryContextCallResetCallbacks).
    unsafe {
        unguarded::MemoryContextRegisterResetCallback((*estate).es_query_cxt, &raw mut (*place).callback);
    }
    place
}

#[pg_guard]
unsafe extern "C-unwind" fn release(estate: *mut c_void) {
    let released = QUERIES.with_borrow_mut(|queries| {
        let position = queries.iter().rposition(|(owner, _)| *owner == estate as usize)?;
        Some(queries.swap_remove(position))
    });
    if let Some((_, mut taps)) = released {
        taps.clear();
        SPARE.set(Some(taps));
    }
}

/// The tap of a `ModifyTable` node. It stays where it is until its query is released.
fn modify_tap(node: *mut pg_sys::PlanState) -> *mut ModifyTap {
    QUERIES.with_borrow_mut(|queries| {
        queries
            .iter_mut()
            .rev()
            .find_map(|(_, taps)| taps.modify.find(node as usize))
            .map_or(std::ptr::null_mut(), |tap| &raw mut *tap)
    })
}

fn merge_tap(node: *mut pg_sys::PlanState) -> *mut MergeTap {
    QUERIES.with_borrow_mut(|queries| {
        queries
            .iter_mut()
            .rev()
            .find_map(|(_, taps)| taps.merge.as_deref_mut().filter(|tap| tap.is_of(node)))
            .map_or(std::ptr::null_mut(), |tap| &raw mut *tap)
    })
}

fn scan_tap(node: *mut pg_sys::PlanState) -> (*mut ScanTap, *mut FillBatch) {
    QUERIES.with_borrow_mut(|queries| {
        queries
            .iter_mut()
            .rev()
            .find_map(|(_, taps)| {
                let tap = taps.scans.find(node as usize)?;
                Some((&raw mut *tap, &raw mut taps.fills))
            })
            .unwrap_or((std::ptr::null_mut(), std::ptr::null_mut()))
    })
}

/// Stands before a marked `ModifyTable`: takes every row, returns none.
unsafe extern "C-unwind" fn eat_rows(node: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    let tap = modify_tap(node);
    // SAFETY: the tap was registered before this function was set; no Drop lives across the node's call.
    unsafe {
        let real = (*tap).real;
        loop {
            modify_before(tap);
            let slot = real(node);
            if slot.is_null() {
                return slot;
            }
            modify_after(tap, slot);
        }
    }
}

/// Stands before a `ModifyTable` with a RETURNING of the user's.
unsafe extern "C-unwind" fn pass_rows(node: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    let tap = modify_tap(node);
    // SAFETY: as in `eat_rows`.
    unsafe {
        modify_before(tap);
        let slot = ((*tap).real)(node);
        if !slot.is_null() {
            modify_after(tap, slot);
        }
        slot
    }
}

/// Stands before a MERGE that returns no rows: all of it has run when the node returns.
unsafe extern "C-unwind" fn run_merge(node: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    let tap = merge_tap(node);
    // SAFETY: as in `eat_rows`.
    unsafe {
        let slot = ((*tap).real)(node);
        merge_ran(tap);
        slot
    }
}

/// Stands before the plan below a MERGE.
unsafe extern "C-unwind" fn watch_merge(node: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    let tap = merge_tap(node);
    // SAFETY: as in `eat_rows`.
    unsafe {
        let slot = ((*tap).real_below)(node);
        if !slot.is_null() && (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 == 0 {
            merge_matches(tap, slot);
        }
        slot
    }
}

/// Stands before a scan.
unsafe extern "C-unwind" fn watch_rows(node: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    let (tap, fills) = scan_tap(node);
    // SAFETY: as in `eat_rows`.
    unsafe {
        let slot = ((*tap).real)(node);
        if !slot.is_null() && (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 == 0 {
            scan_after(tap, fills, node);
        }
        slot
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn merge_ran(tap: *mut MergeTap) {
    // SAFETY: called right after the node returned.
    unsafe { (*tap).finish() }
}

#[pg_guard]
unsafe extern "C-unwind" fn merge_matches(tap: *mut MergeTap, row: *mut pg_sys::TupleTableSlot) {
    // SAFETY: called right after the plan below returned that row.
    unsafe { (*tap).matches(row) }
}

fn modify_before(tap: *mut ModifyTap) {
    // SAFETY: the tap stays where it is; this does not call the server.
    unsafe { (*tap).before() }
}

/// Works in the memory of the node's current row, which the server resets before it makes the next one
/// (ExecScan, ExecModifyTable): a query's own memory would keep the text of every row until its end.
///
/// # Safety
/// `node` must have just returned a row, and must have an expression context.
unsafe fn in_row_memory(node: *mut pg_sys::PlanState, work: impl FnOnce()) {
    // SAFETY: as the caller promises. An ERROR leaves the context switched, as it does everywhere.
    unsafe {
        let previous = pg_sys::MemoryContextSwitchTo((*(*node).ps_ExprContext).ecxt_per_tuple_memory);
        work();
        pg_sys::MemoryContextSwitchTo(previous);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn modify_after(tap: *mut ModifyTap, returned: *mut pg_sys::TupleTableSlot) {
    // SAFETY: called right after the node returned that row; its RETURNING has an expression context.
    unsafe { in_row_memory((*tap).node(), || (*tap).after(returned)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn scan_after(
    tap: *mut ScanTap,
    fills: *mut FillBatch,
    node: *mut pg_sys::PlanState,
) {
    // SAFETY: called right after the node returned a row; every scan node has an expression context.
    unsafe { in_row_memory(node, || (*tap).after(node.cast(), &mut *fills)) }
}
