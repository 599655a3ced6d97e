//! Every difference between server versions, and every server function that pgrx does not bind or must not guard.
//!
//! The functions in the `extern` block are called as C calls them. Those that pgrx binds too are declared
//! again on purpose: pgrx's binding catches an ERROR and raises it anew from a few of its fields, so that a
//! constraint's name, a cursor position and inner CONTEXT lines would be lost for every query that passes
//! one of our hooks.
use std::ffi::{c_char, c_int, c_void};

use pg_redis_cache_core::coherence::tally::Counted;
use pgrx::pg_sys;

unsafe extern "C-unwind" {
    /// optimizer/plan/planner.c, unguarded.
    pub fn standard_planner(
        parse: *mut pg_sys::Query,
        query_string: *const c_char,
        cursor_options: c_int,
        bound_params: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
    /// executor/execMain.c, unguarded.
    pub fn standard_ExecutorStart(query_desc: *mut pg_sys::QueryDesc, eflags: c_int);
    /// executor/execMain.c, unguarded.
    pub fn standard_ExecutorEnd(query_desc: *mut pg_sys::QueryDesc);
    /// tcop/utility.c, unguarded.
    pub fn standard_ProcessUtility(
        stmt: *mut pg_sys::PlannedStmt,
        query_string: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        query_env: *mut pg_sys::QueryEnvironment,
        dest: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );

    /// postmaster/interrupt.c, for [`handle_signal`].
    pub fn SignalHandlerForConfigReload(signal: c_int);
    /// postmaster/interrupt.c, for [`handle_signal`].
    pub fn SignalHandlerForShutdownRequest(signal: c_int);
    /// tcop/postgres.c, for [`handle_signal`].
    pub fn die(signal: c_int);
    /// catalog/partition.c: the ancestors of a partition, nearest first.
    pub fn get_partition_ancestors(relid: pg_sys::Oid) -> *mut pg_sys::List;
    /// catalog/pg_inherits.c: a relation and all below it.
    pub fn find_all_inheritors(
        parent: pg_sys::Oid,
        lockmode: pg_sys::LOCKMODE,
        numparents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
    /// catalog/pg_inherits.c: whether a relation has a parent.
    pub fn has_superclass(relation: pg_sys::Oid) -> bool;
    /// utils/adt/bytea.c (varlena.c before 18).
    pub static mut bytea_output: c_int;
}

/// Functions on hot paths that never raise, read in their sources: called without pgrx's guard, which costs a
/// sigsetjmp each time.
pub mod unguarded {
    use std::ffi::c_int;

    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        /// executor/execProcnode.c: assigns two pointers.
        pub fn ExecSetExecProcNode(node: *mut pg_sys::PlanState, function: pg_sys::ExecProcNodeMtd);
        /// utils/mmgr/mcxt.c: links the callback in.
        pub fn MemoryContextRegisterResetCallback(
            context: pg_sys::MemoryContext,
            callback: *mut pg_sys::MemoryContextCallback,
        );
        /// executor/execTuples.c: deforms; raises only for an attribute number that the descriptor does not have.
        pub fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attribute: c_int);
        /// access/transam/xact.c: reads a variable.
        pub fn GetCurrentStatementStartTimestamp() -> pg_sys::TimestampTz;
        /// access/transam/xact.c: reads a variable.
        pub fn GetCurrentTransactionNestLevel() -> c_int;
        /// access/transam/xact.c: reads a variable.
        pub fn GetTopFullTransactionIdIfAny() -> pg_sys::FullTransactionId;
        /// utils/adt/timestamp.c: reads the clock.
        pub fn GetCurrentTimestamp() -> pg_sys::TimestampTz;
        /// storage/lmgr/lwlock.c: raises only beyond MAX_SIMUL_LWLOCKS (200) held at a time.
        pub fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
        /// storage/lmgr/lwlock.c: raises only for a lock that is not held.
        pub fn LWLockRelease(lock: *mut pg_sys::LWLock);
        /// storage/ipc/latch.c: writes to a pipe or signals.
        pub fn SetLatch(latch: *mut pg_sys::Latch);
    }
}

/// port/pqsignal.c: sets the handler of a signal.
///
/// # Safety
/// `handler` must be async-signal-safe.
pub unsafe fn handle_signal(signal: c_int, handler: unsafe extern "C-unwind" fn(c_int)) {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: as the caller promises.
    unsafe {
        pg_sys::pqsignal(signal, Some(handler));
    }
    #[cfg(feature = "pg18")]
    // SAFETY: as the caller promises; since 18 the server's own one has a name of its own (port.h).
    unsafe {
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// The pgproc number of this backend, below `MaxBackends` for every backend that runs transactions.
pub fn backend_number() -> usize {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: MyProc is set before any transaction can start and never changes.
    unsafe {
        (*pg_sys::MyProc).pgprocno as usize
    }
    #[cfg(feature = "pg18")]
    // SAFETY: a plain integer set at backend start.
    unsafe {
        pg_sys::MyProcNumber as usize
    }
}

/// The latch of the backend with that pgproc number.
///
/// # Safety
/// `number` must be below `MaxBackends`; shared memory must be attached.
pub unsafe fn latch_of(number: usize) -> *mut pg_sys::Latch {
    // SAFETY: allProcs has at least MaxBackends entries and never moves (InitProcGlobal).
    unsafe { &raw mut (*(*pg_sys::ProcGlobal).allProcs.add(number)).procLatch }
}

/// Whether the backend with that pgproc number has that process id. (A place may keep the id of a process that has
/// ended.)
pub fn is_backend(number: usize, pid: i32) -> bool {
    // SAFETY: takes and releases ProcArrayLock; allProcs never moves (InitProcGlobal), and nothing of it is read.
    unsafe {
        let proc = pg_sys::BackendPidGetProc(pid);
        !proc.is_null() && proc == (*pg_sys::ProcGlobal).allProcs.add(number)
    }
}

/// A wait event set that lives as long as the process.
pub fn create_wait_event_set(events: c_int) -> *mut pg_sys::WaitEventSet {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: TopMemoryContext exists for the life of the process.
    unsafe {
        pg_sys::CreateWaitEventSet(pg_sys::TopMemoryContext, events)
    }
    #[cfg(feature = "pg18")]
    // SAFETY: without a resource owner the set is never released, as wanted.
    unsafe {
        pg_sys::CreateWaitEventSet(std::ptr::null_mut(), events)
    }
}

/// The columns that an UPDATE sets: a list for each of the node's result relations.
///
/// # Safety
/// `node` must be an initialised `ModifyTableState`.
pub unsafe fn update_columns(node: *const pg_sys::ModifyTableState) -> *mut pg_sys::List {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: as the caller promises; the node has a result relation for each list of its plan.
    unsafe {
        (*(*node).ps.plan.cast::<pg_sys::ModifyTable>()).updateColnosLists
    }
    #[cfg(feature = "pg18")]
    // SAFETY: as the caller promises; the node has no result relation for partitions pruned at its start.
    unsafe {
        (*node).mt_updateColnosLists
    }
}

/// The actions of a MERGE: a list of `MergeAction` for each of the node's result relations.
///
/// # Safety
/// `node` must be an initialised `ModifyTableState`.
pub unsafe fn merge_actions(node: *const pg_sys::ModifyTableState) -> *mut pg_sys::List {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: as in `update_columns`.
    unsafe {
        (*(*node).ps.plan.cast::<pg_sys::ModifyTable>()).mergeActionLists
    }
    #[cfg(feature = "pg18")]
    // SAFETY: as in `update_columns`.
    unsafe {
        (*node).mt_mergeActionLists
    }
}

/// What has been done to the row that a node has returned: INSERT, UPDATE or DELETE, of a MERGE too. (An upsert that
/// updated counts as INSERT.)
///
/// # Safety
/// `node` must be a `ModifyTableState` that has just returned a row.
pub unsafe fn returned_action(node: *const pg_sys::ModifyTableState) -> pg_sys::CmdType::Type {
    // SAFETY: as the caller promises; before 17 a MERGE returns no rows.
    let operation = unsafe { (*node).operation };
    #[cfg(feature = "pg18")]
    if operation == pg_sys::CmdType::CMD_MERGE {
        // SAFETY: ExecMergeMatched and ExecMergeNotMatched set the action before they carry it out.
        return unsafe { (*(*(*node).mt_merge_action).mas_action).commandType };
    }
    operation
}

/// Whether MERGE can return its rows, so that it is captured like an UPDATE.
pub const MERGE_RETURNS: bool = cfg!(feature = "pg18");

/// The callback type of `planstate_tree_walker`.
pub type PlanStateWalker = unsafe extern "C-unwind" fn(*mut pg_sys::PlanState, *mut c_void) -> bool;

unsafe extern "C-unwind" {
    #[cfg_attr(
        any(feature = "pg16", feature = "pg18"),
        link_name = "planstate_tree_walker_impl"
    )]
    fn planstate_tree_walker(
        node: *mut pg_sys::PlanState,
        walker: PlanStateWalker,
        context: *mut c_void,
    ) -> bool;
}

/// nodes/nodeFuncs.c: calls `walker` on each child of `node`.
///
/// # Safety
/// `node` must be a valid, initialised plan state, and `walker` must not unwind.
pub unsafe fn walk_children(
    node: *mut pg_sys::PlanState,
    walker: PlanStateWalker,
    context: *mut c_void,
) -> bool {
    // SAFETY: as the caller promises; the walker is a tree walk in C that raises only on a stack overflow.
    unsafe { planstate_tree_walker(node, walker, context) }
}

/// Memory for a GUC's string or `extra`, which utils/misc/guc.c releases itself; null when there is none.
pub fn guc_allocate(size: usize) -> *mut c_void {
    #[cfg(feature = "pg15")]
    // SAFETY: before 16 guc.c uses malloc and free.
    unsafe {
        libc::malloc(size)
    }
    #[cfg(any(feature = "pg16", feature = "pg18"))]
    // SAFETY: since 16 guc.c uses a memory context of its own; at LOG level guc_malloc does not raise.
    unsafe {
        guc_malloc(pg_sys::LOG as c_int, size)
    }
}

/// Releases what [`guc_allocate`] or guc.c allocated.
///
/// # Safety
/// `memory` must come from guc.c's allocator and not be used again.
pub unsafe fn guc_release(memory: *mut c_void) {
    #[cfg(feature = "pg15")]
    // SAFETY: as the caller promises.
    unsafe {
        libc::free(memory)
    }
    #[cfg(any(feature = "pg16", feature = "pg18"))]
    // SAFETY: as the caller promises.
    unsafe {
        guc_free(memory)
    }
}

#[cfg(any(feature = "pg16", feature = "pg18"))]
unsafe extern "C-unwind" {
    fn guc_malloc(elevel: c_int, size: usize) -> *mut c_void;
    fn guc_free(memory: *mut c_void);
}

/// An attribute of a descriptor, counted from 1.
///
/// # Safety
/// `descriptor` must be valid and have that attribute.
pub unsafe fn attribute(
    descriptor: pg_sys::TupleDesc,
    number: pg_sys::AttrNumber,
) -> *const pg_sys::FormData_pg_attribute {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: as the caller promises.
    unsafe {
        (*descriptor).attrs.as_ptr().add(number as usize - 1)
    }
    #[cfg(feature = "pg18")]
    // SAFETY: since 18 the attributes follow the compact ones (tupdesc.h, TupleDescAttr).
    unsafe {
        (*descriptor)
            .compact_attrs
            .as_ptr()
            .add((*descriptor).natts as usize)
            .cast::<pg_sys::FormData_pg_attribute>()
            .add(number as usize - 1)
    }
}

/// Whether an attribute is a virtual generated column, which no stored row holds.
///
/// # Safety
/// `attribute` must be valid.
pub unsafe fn is_virtual(attribute: *const pg_sys::FormData_pg_attribute) -> bool {
    // SAFETY: as the caller promises; ATTRIBUTE_GENERATED_VIRTUAL exists since 18.
    cfg!(feature = "pg18") && unsafe { (*attribute).attgenerated as u8 } == b'v'
}

/// utils/pgstat_internal.h: what a transaction, or a subtransaction, has counted. From 16 on `pending_drops` is a
/// `dclist_head` with the count in it, which lies in memory in the same way.
#[repr(C)]
struct PgStat_SubXactStatus {
    nest_level: c_int,
    previous: *mut PgStat_SubXactStatus,
    pending_drops: pg_sys::dlist_head,
    pending_drops_count: c_int,
    first: *mut pg_sys::PgStat_TableXactStatus,
}

unsafe extern "C-unwind" {
    /// utils/activity/pgstat_xact.c: the counts of a nest level, which it begins if there are none.
    fn pgstat_get_xact_stack_level(nest_level: c_int) -> *mut PgStat_SubXactStatus;
}

/// What PostgreSQL has counted in this transaction for each relation, subtransactions included that have ended.
///
/// # Safety
/// Must be called within a transaction, outside of all subtransactions.
pub unsafe fn counted_changes() -> Vec<(pg_sys::Oid, Counted)> {
    let mut all = Vec::new();
    // SAFETY: the list lives until the end of the transaction; `parent` is the relation's entry.
    unsafe {
        let mut next = (*pgstat_get_xact_stack_level(1)).first;
        while let Some(of) = next.as_ref() {
            #[cfg(feature = "pg15")]
            let relid = (*of.parent).t_id;
            #[cfg(not(feature = "pg15"))]
            let relid = (*of.parent).id;
            let counted = Counted {
                inserted: of.tuples_inserted as u64,
                updated: of.tuples_updated as u64,
                deleted: of.tuples_deleted as u64,
                truncated: of.truncdropped,
            };
            all.push((relid, counted));
            next = of.next;
        }
    }
    all
}

/// Makes a variable say the same as another of which outer joins can make it NULL (primnodes.h, `varnullingrels`, since
/// 16).
///
/// # Safety
/// Both must be variables of one query that is being planned.
#[cfg_attr(feature = "pg15", allow(unused_variables))] // nothing to copy there
pub unsafe fn copy_nulling(from: *const pg_sys::Var, to: *mut pg_sys::Var) {
    #[cfg(not(feature = "pg15"))]
    // SAFETY: as the caller promises; sets of relations are shared by the nodes that have them.
    unsafe {
        (*to).varnullingrels = (*from).varnullingrels;
    }
}

/// optimizer/util/pathnode.c, `create_foreignscan_path`, for a base relation. 18 asks also how many of
/// the path's nodes are disabled, and for its join conditions.
///
/// # Safety
/// `root` and `relation` must be the planner's for one relation.
#[allow(clippy::too_many_arguments)] // the server's signature
pub unsafe fn foreign_path(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    rows: f64,
    startup_cost: f64,
    total_cost: f64,
    pathkeys: *mut pg_sys::List,
    required_outer: pg_sys::Relids,
    private: *mut pg_sys::List,
) -> *mut pg_sys::ForeignPath {
    let none = std::ptr::null_mut();
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: as the caller promises.
    unsafe {
        pg_sys::create_foreignscan_path(
            root,
            relation,
            none,
            rows,
            startup_cost,
            total_cost,
            pathkeys,
            required_outer,
            none.cast(),
            private,
        )
    }
    #[cfg(feature = "pg18")]
    // SAFETY: as the caller promises.
    unsafe {
        pg_sys::create_foreignscan_path(
            root,
            relation,
            none,
            rows,
            0,
            startup_cost,
            total_cost,
            pathkeys,
            required_outer,
            none.cast(),
            none.cast(),
            private,
        )
    }
}

/// The user as whom a foreign scan is carried out: the view's owner, or the current user.
///
/// # Safety
/// `node` must be a foreign scan of one relation, or of what is counted of it, that is being started.
pub unsafe fn scan_user(node: *const pg_sys::ForeignScanState) -> pg_sys::Oid {
    // SAFETY: as the caller promises.
    let user = unsafe {
        let scan = (*node).ss.ps.plan.cast::<pg_sys::ForeignScan>();
        #[cfg(feature = "pg15")]
        {
            let table = (*(*node).ss.ps.state).es_range_table;
            let index = pg_sys::bms_next_member((*scan).fs_relids, -1);
            let entry = pg_sys::list_nth(table, index - 1);
            (*entry.cast::<pg_sys::RangeTblEntry>()).checkAsUser
        }
        #[cfg(not(feature = "pg15"))]
        {
            (*scan).checkAsUser
        }
    };
    or_current_user(user)
}

/// The user as whom a foreign scan will be carried out, while it is planned.
///
/// # Safety
/// `root` and `relation` must be those of the planner for one table.
pub unsafe fn planned_user(root: *mut pg_sys::PlannerInfo, relation: *mut pg_sys::RelOptInfo) -> pg_sys::Oid {
    #[cfg(feature = "pg15")]
    // SAFETY: as the caller promises.
    let user = unsafe { (**(*root).simple_rte_array.add((*relation).relid as usize)).checkAsUser };
    #[cfg(not(feature = "pg15"))]
    // SAFETY: as the caller promises.
    let user = unsafe {
        let _ = root;
        (*relation).userid
    };
    or_current_user(user)
}

/// The user as whom a foreign table is changed.
///
/// # Safety
/// `relation` must be a result relation of a statement that is being started.
pub unsafe fn modify_user(relation: *mut pg_sys::ResultRelInfo, state: *mut pg_sys::EState) -> pg_sys::Oid {
    #[cfg(feature = "pg15")]
    // SAFETY: as the caller promises; a partition that tuple routing reached has the number of its parent's entry.
    let user = unsafe {
        let root = (*relation).ri_RootResultRelInfo;
        let of = if (*relation).ri_RangeTableIndex == 0 && !root.is_null() {
            root
        } else {
            relation
        };
        match (*of).ri_RangeTableIndex {
            0 => pg_sys::InvalidOid,
            index => {
                let entry = pg_sys::list_nth((*state).es_range_table, index as c_int - 1);
                (*entry.cast::<pg_sys::RangeTblEntry>()).checkAsUser
            }
        }
    };
    #[cfg(not(feature = "pg15"))]
    // SAFETY: as the caller promises.
    let user = unsafe { pg_sys::ExecGetResultRelCheckAsUser(relation, state) };
    or_current_user(user)
}

fn or_current_user(user: pg_sys::Oid) -> pg_sys::Oid {
    if user == pg_sys::InvalidOid {
        // SAFETY: reads a variable.
        unsafe { pg_sys::GetUserId() }
    } else {
        user
    }
}

/// optimizer/util/pathnode.c, `create_foreign_upper_path`, for one row.
///
/// # Safety
/// `root` and `relation` must be the planner's for one upper relation, `target` what it has to return.
pub unsafe fn foreign_upper_path(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    target: *mut pg_sys::PathTarget,
    cost: f64,
    private: *mut pg_sys::List,
) -> *mut pg_sys::ForeignPath {
    let none: *mut pg_sys::List = std::ptr::null_mut();
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: as the caller promises.
    unsafe {
        pg_sys::create_foreign_upper_path(
            root,
            relation,
            target,
            1.0,
            cost,
            cost,
            none,
            none.cast(),
            private,
        )
    }
    #[cfg(feature = "pg18")]
    // SAFETY: as the caller promises.
    unsafe {
        let path = none.cast();
        pg_sys::create_foreign_upper_path(
            root, relation, target, 1.0, 0, cost, cost, none, path, none, private,
        )
    }
}

/// Whether a path key is ascending (nodes/pathnodes.h).
///
/// # Safety
/// `key` must be the planner's.
pub unsafe fn is_ascending(key: *const pg_sys::PathKey) -> bool {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: as the caller promises.
    unsafe {
        (*key).pk_strategy as u32 == pg_sys::BTLessStrategyNumber
    }
    #[cfg(feature = "pg18")]
    // SAFETY: as the caller promises.
    unsafe {
        (*key).pk_cmptype == pg_sys::CompareType::COMPARE_LT
    }
}
