//! The node below a join with look-ahead: hands on the rows of its one child, of which it has fetched some ahead.
use std::ffi::{CStr, c_int};

use pg_redis_cache_core::fdw::Comparison;
use pgrx::{
    PgMemoryContexts, pg_guard,
    pg_sys::{self, NodeTag, Oid},
};

use super::{Lookup, Shared, announce};
use crate::{
    fdw::{
        condition::Condition,
        explain, owned,
        private::{self, Planned},
        table::Table,
    },
    nodes,
};

/// What EXPLAIN calls the node.
pub const NAME: &CStr = c"Redis Look-Ahead";
/// How many rows are fetched ahead at first, and by how much more each time.
const FIRST_BATCH: usize = 16;
const GROWTH: usize = 4;

/// A table of functions that nobody changes.
pub struct Static<T>(pub T);

// SAFETY: it holds pointers to constants alone.
unsafe impl<T> Sync for Static<T> {}

static SCAN: Static<pg_sys::CustomScanMethods> = Static(pg_sys::CustomScanMethods {
    CustomName: NAME.as_ptr(),
    CreateCustomScanState: Some(create),
});

static EXECUTION: Static<pg_sys::CustomExecMethods> = Static(pg_sys::CustomExecMethods {
    CustomName: NAME.as_ptr(),
    BeginCustomScan: Some(begin),
    ExecCustomScan: Some(next),
    EndCustomScan: Some(end),
    ReScanCustomScan: Some(rescan),
    MarkPosCustomScan: None,
    RestrPosCustomScan: None,
    EstimateDSMCustomScan: None,
    InitializeDSMCustomScan: None,
    ReInitializeDSMCustomScan: None,
    InitializeWorkerCustomScan: None,
    ShutdownCustomScan: None,
    ExplainCustomScan: Some(explain_node),
});

/// The functions of the plan's node.
pub fn methods() -> *const pg_sys::CustomScanMethods {
    &raw const SCAN.0
}

/// What a plan's node keeps for its execution, as a list of integers: its number, the inner table, and the inner
/// column's place and the comparison for each of its expressions.
pub struct Plan {
    pub number: super::Number,
    pub inner: Oid,
    pub joins: Vec<(usize, Comparison)>,
}

impl Plan {
    pub fn to_list(&self) -> *mut pg_sys::List {
        let joins = self.joins.iter();
        let joins = joins.flat_map(|(place, comparison)| [*place as i32, comparison.number()]);
        private::integers([self.number, self.inner.to_u32() as i32].into_iter().chain(joins))
    }

    unsafe fn from_list(list: *mut pg_sys::List) -> Self {
        // SAFETY: what `to_list` has made, or a copy.
        let mut numbers = unsafe { nodes::integers(list) };
        let mut next = || numbers.next();
        let number = next().unwrap_or(0);
        let inner = Oid::from(next().unwrap_or(0) as u32);
        let mut joins = Vec::new();
        while let (Some(place), Some(comparison)) = (next(), next()) {
            joins.extend(Comparison::numbered(comparison).map(|comparison| (place as usize, comparison)));
        }
        Self { number, inner, joins }
    }
}

/// The node, as the executor allocates and knows it.
#[repr(C)]
struct Node {
    base: pg_sys::CustomScanState,
    own: *mut Own,
}

/// What the node has of its own.
struct Own {
    child: *mut pg_sys::PlanState,
    joins: Vec<Condition>,
    ahead: Shared,
    /// Holds the rows that were fetched ahead.
    context: pg_sys::MemoryContext,
    rows: Vec<pg_sys::MinimalTuple>,
    next: usize,
    has_ended: bool,
    /// How many rows the next batch has, and how many it may have.
    size: usize,
    most: usize,
    batches: u64,
}

#[pg_guard]
unsafe extern "C-unwind" fn create(_plan: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: a node of zeroes with its tag, as makeNode makes one, in the current memory context.
    unsafe {
        let node = pg_sys::palloc0(size_of::<Node>()).cast::<Node>();
        (*node).base.ss.ps.type_ = NodeTag::T_CustomScanState;
        (*node).base.methods = &raw const EXECUTION.0;
        node.cast()
    }
}

/// What [`begin`] has put into a node.
unsafe fn own<'o>(node: *mut pg_sys::CustomScanState) -> &'o mut Own {
    // SAFETY: it lives as long as the query's memory context.
    unsafe { &mut *(*node.cast::<Node>()).own }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(
    node: *mut pg_sys::CustomScanState,
    state: *mut pg_sys::EState,
    flags: c_int,
) {
    // SAFETY: a node that is being started, of a plan that `path::plan` has made.
    unsafe {
        let plan = (*node).ss.ps.plan.cast::<pg_sys::CustomScan>();
        let child = nodes::items::<pg_sys::Plan>((*plan).custom_plans).next();
        let child = child.expect("the plan of such a node has been made with a child");
        let child = pg_sys::ExecInitNode(child, state, flags);
        (*node).custom_ps = pg_sys::lappend(std::ptr::null_mut(), child.cast());
        let private = Plan::from_list((*plan).custom_private);
        let table = Table::open(private.inner);
        let operands = nodes::items::<pg_sys::Expr>((*plan).custom_exprs);
        let joins = private.joins.iter().zip(operands);
        let joins = joins.filter_map(|((place, comparison), operand)| {
            let planned = Planned {
                place: *place,
                comparison: *comparison,
                joins: true,
            };
            Condition::new(&table, planned, operand, (&raw mut (*node).ss.ps).cast())
        });
        let own = Own {
            child,
            joins: joins.collect(),
            ahead: announce(state, private.number),
            context: pg_sys::AllocSetContextCreateInternal(
                (*state).es_query_cxt,
                NAME.as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            ),
            rows: Vec::new(),
            next: 0,
            has_ended: false,
            size: FIRST_BATCH.min(table.options.join_batch_size),
            most: table.options.join_batch_size,
            batches: 0,
        };
        (*node.cast::<Node>()).own = owned::keep((*state).es_query_cxt, own);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn next(node: *mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: called by the executor between `begin` and `end`.
    unsafe {
        let own = own(node);
        let slot = (*node).ss.ss_ScanTupleSlot;
        if own.next == own.rows.len() && !own.has_ended {
            own.fetch(node);
        }
        match own.rows.get(own.next) {
            Some(row) => {
                own.ahead.borrow_mut().current = own.next;
                own.next += 1;
                pg_sys::ExecForceStoreMinimalTuple(*row, slot, false);
                slot
            }
            None => pg_sys::ExecClearTuple(slot),
        }
    }
}

impl Own {
    /// Fetches the next rows, and says what they will be looked up by.
    unsafe fn fetch(&mut self, node: *mut pg_sys::CustomScanState) {
        // SAFETY: as in `next`.
        unsafe { self.forget() };
        let mut lookups: Vec<Lookup> = Vec::with_capacity(self.size);
        // SAFETY: as in `next`.
        unsafe {
            let slot = (*node).ss.ss_ScanTupleSlot;
            let context = (*node).ss.ps.ps_ExprContext;
            let most_bytes = pg_sys::work_mem as usize * 1024;
            while self.rows.len() < self.size
                && (self.rows.is_empty()
                    || pg_sys::MemoryContextMemAllocated(self.context, false) < most_bytes as _)
            {
                let fetched = pg_sys::ExecProcNode(self.child);
                if fetched.is_null() || (*fetched).tts_flags as u32 & pg_sys::TTS_FLAG_EMPTY != 0 {
                    self.has_ended = true;
                    break;
                }
                let row = PgMemoryContexts::For(self.context)
                    .switch_to(|_| pg_sys::ExecCopySlotMinimalTuple(fetched));
                self.rows.push(row);
                pg_sys::ExecForceStoreMinimalTuple(row, slot, false);
                (*context).ecxt_scantuple = slot;
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
                let lookup = PgMemoryContexts::For((*context).ecxt_per_tuple_memory)
                    .switch_to(|_| lookup(&mut self.joins, context));
                lookups.push(lookup);
            }
        }
        self.size = (self.size * GROWTH).min(self.most);
        self.batches += 1;
        let mut ahead = self.ahead.borrow_mut();
        ahead.batch += 1;
        ahead.lookups = lookups;
    }

    /// Lets go of the rows that were fetched.
    unsafe fn forget(&mut self) {
        self.rows.clear();
        self.next = 0;
        // SAFETY: nothing points into it: the slot is filled anew before anybody looks at it.
        unsafe { pg_sys::MemoryContextReset(self.context) };
    }
}

/// What the row in the context's slot will be looked up by.
unsafe fn lookup(joins: &mut [Condition], context: *mut pg_sys::ExprContext) -> Lookup {
    let of_row = joins.iter_mut().map(|condition| {
        // SAFETY: the expressions belong to the node whose context this is.
        let operand = unsafe { condition.evaluate(context) };
        condition.looked_up(operand)
    });
    let mut lookup: Lookup = of_row.collect();
    lookup.sort_unstable();
    lookup
}

#[pg_guard]
unsafe extern "C-unwind" fn rescan(node: *mut pg_sys::CustomScanState) {
    // SAFETY: as in `next`.
    unsafe {
        let own = own(node);
        pg_sys::ExecClearTuple((*node).ss.ss_ScanTupleSlot);
        own.forget();
        own.has_ended = false;
        // Parameters of further out may have changed, and with them what the inner side reads.
        let mut ahead = own.ahead.borrow_mut();
        ahead.batch += 1;
        ahead.lookups.clear();
        drop(ahead);
        // As nodeAppend.c, ExecReScanAppend: a child with changed parameters starts again by itself.
        if !(*node).ss.ps.chgParam.is_null() {
            pg_sys::UpdateChangedParamSet(own.child, (*node).ss.ps.chgParam);
        }
        if (*own.child).chgParam.is_null() {
            pg_sys::ExecReScan(own.child);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end(node: *mut pg_sys::CustomScanState) {
    // SAFETY: as in `next`.
    unsafe {
        pg_sys::ExecClearTuple((*node).ss.ss_ScanTupleSlot);
        pg_sys::ExecEndNode(own(node).child);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn explain_node(
    node: *mut pg_sys::CustomScanState,
    _ancestors: *mut pg_sys::List,
    state: *mut pg_sys::ExplainState,
) {
    // SAFETY: a node that was begun, and EXPLAIN's own state.
    unsafe {
        let own = own(node);
        explain::number(c"Join Batch Size", own.most as u64, state);
        if (*state).analyze {
            explain::number(c"Batches", own.batches, state);
        }
    }
}
