//! What a transaction has changed, from the capture of a row to the append at commit.
//!
//! The buffer itself, with its levels and its ladder, is the core crate's; here are the callbacks that drive it.
//! PRE_COMMIT takes the transaction's number and seals the buffer (rule 2), COMMIT appends what was sealed
//! (rule 1), and both are done with before the transaction's locks are released. Nothing in COMMIT or ABORT
//! raises: all that can fail (encoding, allocation) has been done before, and what does not fit becomes a purge.
mod after_ddl;
mod append;
pub mod completeness;
mod fills;
pub mod waiting;

use std::cell::{Cell, RefCell};

use pg_redis_cache_core::{
    coherence::{
        MappingSet, Reason,
        tally::{Change, Tallies},
        transaction::{Sealed, TransactionBuffer},
    },
    encode::key::key_hash,
    ring::oplog,
};
use pgrx::{
    pg_guard,
    pg_sys::{self, SubXactEvent, XactEvent},
};

pub use fills::{Fill, send_fills};

use crate::{
    capture::relations,
    compat, gucs,
    shared::{MappingState, Shared},
    test_points::{self, TestPoint},
};

/// A place in the transaction's buffer.
pub type Position = oplog::Position;

/// The state of the transaction that runs.
struct Transaction {
    buffer: TransactionBuffer,
    /// Mappings that any change was captured for, rolled back or not.
    touched: MappingSet,
    /// How many rows were captured, for completeness.
    tallies: Tallies,
    /// Why mappings are to be purged, the first reason of each.
    reasons: Vec<(u16, Reason)>,
    ran_ddl: bool,
    mapped_ddl: bool,
    /// The DDL may have changed the text of values, in the mappings that are purged for it.
    text_ddl: bool,
    /// The backend counts as committing (rule 2).
    numbered: bool,
    sealed: Option<Sealed>,
}

impl Transaction {
    fn new() -> Self {
        Self {
            buffer: TransactionBuffer::new(0),
            touched: MappingSet::EMPTY,
            tallies: Tallies::default(),
            reasons: Vec::new(),
            ran_ddl: false,
            mapped_ddl: false,
            text_ddl: false,
            numbered: false,
            sealed: None,
        }
    }

    fn forget(&mut self) {
        self.buffer.abort();
        self.touched = MappingSet::EMPTY;
        self.tallies.clear();
        self.reasons.clear();
        self.ran_ddl = false;
        self.mapped_ddl = false;
        self.text_ddl = false;
        self.sealed = None;
        completeness::forget();
    }
}

impl Transaction {
    fn note_reason(&mut self, mapping: u16, reason: Reason) {
        if self.reason_of(mapping).is_none() {
            self.reasons.push((mapping, reason));
        }
    }

    fn reason_of(&self, mapping: u16) -> Option<Reason> {
        let noted = self.reasons.iter().find(|(noted, _)| *noted == mapping);
        noted.map(|(_, reason)| *reason)
    }
}

/// Why a mapping is purged for the transaction that has just committed; `otherwise` if nothing was noted.
fn reason_of(mapping: u16, otherwise: Reason) -> Reason {
    TRANSACTION.with_borrow(|transaction| transaction.reason_of(mapping).unwrap_or(otherwise))
}

/// Under which generations of the list a transaction ran its statements.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Noted {
    Nothing,
    One(u64),
    Several,
}

thread_local! {
    static TRANSACTION: RefCell<Transaction> = RefCell::new(Transaction::new());
    /// The generation of the list at the transaction's statements.
    static NOTED: Cell<Noted> = const { Cell::new(Noted::Nothing) };
    /// Whether there is anything in the transaction's state, or this backend may be among those that wait.
    static TOUCHED: Cell<bool> = const { Cell::new(false) };
    /// The transaction has passed our PRE_COMMIT: what another library's callback changes from now on is late.
    static PASSED: Cell<bool> = const { Cell::new(false) };
}

/// Registers the callbacks, which every backend inherits from the postmaster.
pub fn init() {
    // SAFETY: called once, while libraries are preloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_event), std::ptr::null_mut());
    }
}

fn nest_level() -> u32 {
    // SAFETY: a plain read of the transaction state.
    unsafe { compat::unguarded::GetCurrentTransactionNestLevel() as u32 }
}

fn with_buffer(mapping: u16, work: impl FnOnce(&mut TransactionBuffer, u32)) {
    let nest = nest_level();
    TOUCHED.set(true);
    TRANSACTION.with_borrow_mut(|transaction| {
        transaction.buffer.set_limit(gucs::transaction_buffer());
        transaction.touched.insert(mapping);
        work(&mut transaction.buffer, nest);
        if PASSED.get() {
            take_late_number(transaction);
        }
    });
}

/// Rule 2 for a transaction that had captured nothing in PRE_COMMIT: until its loss is declared it counts as
/// committing.
fn take_late_number(transaction: &mut Transaction) {
    if !transaction.numbered
        && let Some(shared) = Shared::get()
    {
        transaction.numbered = shared.commits().begin(compat::backend_number()).is_some();
    }
}

/// Captures that the row of `key` is now as in `value`.
pub fn set(mapping: u16, hash: u64, key: &[u8], value: &[u8]) {
    with_buffer(mapping, |buffer, nest| {
        buffer.capture_set(nest, mapping, hash, key, value.len(), |out| {
            out.extend_from_slice(value)
        });
    });
}

/// Captures that `key` is to be deleted.
pub fn delete(mapping: u16, hash: u64, key: &[u8]) {
    with_buffer(mapping, |buffer, nest| {
        buffer.capture_del(nest, mapping, hash, key)
    });
}

/// Counts a row of a mapped relation that was seen to change, whatever became of its capture.
pub fn count(relation: pg_sys::Oid, change: Change) {
    let nest = nest_level();
    TOUCHED.set(true);
    TRANSACTION.with_borrow_mut(|transaction| transaction.tallies.count(nest, relation.to_u32(), change));
}

/// Marks a mapping for a purge at commit.
pub fn purge(mapping: u16, reason: Reason) {
    with_buffer(mapping, |buffer, nest| buffer.purge(nest, mapping));
    TRANSACTION.with_borrow_mut(|transaction| transaction.note_reason(mapping, reason));
}

/// Where the buffer stands.
pub fn position() -> Position {
    TRANSACTION.with_borrow(|transaction| transaction.buffer.position())
}

/// Whether a change of that key has been captured since.
pub fn changed_since(position: Position, mapping: u16, key: &[u8]) -> bool {
    TRANSACTION.with_borrow(|transaction| {
        transaction.touched.contains(mapping)
            && transaction
                .buffer
                .contains_since(position, mapping, key_hash(key), key)
    })
}

/// Whether the transaction has changed rows of that mapping.
pub fn has_changes(mapping: u16) -> bool {
    TRANSACTION.with_borrow(|transaction| transaction.touched.contains(mapping))
}

/// Notes the generation of the list under which a statement runs (rule 9).
pub fn note_generation(generation: u64) {
    NOTED.set(match NOTED.get() {
        Noted::Nothing => Noted::One(generation),
        Noted::One(first) if first != generation => Noted::Several,
        noted => noted,
    });
}

/// Notes that this backend is about to wait: should an ERROR end that, the end of the transaction clears it away.
pub fn note_wait() {
    TOUCHED.set(true);
}

/// Notes that the transaction ran DDL: it fills nothing from then on.
pub fn note_ddl() {
    after_ddl::register();
    TOUCHED.set(true);
    TRANSACTION.with_borrow_mut(|transaction| transaction.ran_ddl = true);
}

/// Notes that the transaction ran DDL on a mapped relation: whether the mapping still works is to be looked at.
pub fn note_mapped_ddl() {
    TOUCHED.set(true);
    TRANSACTION.with_borrow_mut(|transaction| transaction.mapped_ddl = true);
}

/// Notes that the transaction ran DDL that may change the text of values without a lock on their tables. What is
/// purged for the transaction is purged once more when the other sessions know of it.
pub fn note_text_ddl() {
    after_ddl::register();
    TOUCHED.set(true);
    TRANSACTION.with_borrow_mut(|transaction| transaction.text_ddl = true);
}

pub fn ran_ddl() -> bool {
    TRANSACTION.with_borrow(|transaction| transaction.ran_ddl)
}

/// The time of the statement in milliseconds, on the clock of the hint table.
pub fn now_ms() -> u64 {
    // SAFETY: a plain read.
    (unsafe { compat::unguarded::GetCurrentStatementStartTimestamp() } / 1000).max(0) as u64
}

/// The full top-level id of the transaction, `None` if it has none because it wrote nothing.
fn top_xid() -> Option<u64> {
    // SAFETY: a plain read of the transaction state.
    let xid = unsafe { compat::unguarded::GetTopFullTransactionIdIfAny() }.value;
    (xid as u32 != pg_sys::InvalidTransactionId.into_inner()).then_some(xid)
}

/// Called at each end of a transaction. A transaction that changed nothing, and a server without mappings, pay for
/// the tests alone.
unsafe extern "C-unwind" fn transaction_event(event: XactEvent::Type, _argument: *mut std::ffi::c_void) {
    let may_have_written = || {
        matches!(
            event,
            XactEvent::XACT_EVENT_PRE_COMMIT | XactEvent::XACT_EVENT_PRE_PREPARE
        ) && !relations::idle()
            && top_xid().is_some()
    };
    if TOUCHED.get() || may_have_written() {
        // SAFETY: called by the server.
        unsafe { transaction_ends(event) };
    }
    let passed = matches!(
        event,
        XactEvent::XACT_EVENT_PRE_COMMIT
            | XactEvent::XACT_EVENT_PRE_PREPARE
            | XactEvent::XACT_EVENT_PARALLEL_PRE_COMMIT
    );
    PASSED.set(passed);
    if !passed {
        NOTED.set(Noted::Nothing);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_ends(event: XactEvent::Type) {
    let Some(shared) = Shared::get() else { return };
    match event {
        XactEvent::XACT_EVENT_PRE_COMMIT => pre_commit(shared),
        XactEvent::XACT_EVENT_COMMIT => committed(shared),
        XactEvent::XACT_EVENT_PRE_PREPARE => pre_prepare(shared),
        XactEvent::XACT_EVENT_PREPARE => prepared(shared),
        XactEvent::XACT_EVENT_ABORT
        | XactEvent::XACT_EVENT_PARALLEL_ABORT
        | XactEvent::XACT_EVENT_PARALLEL_COMMIT => ended(shared),
        _ => {}
    }
}

/// Called at each end of a subtransaction. Nothing here calls what may raise.
unsafe extern "C-unwind" fn subtransaction_event(
    event: SubXactEvent::Type,
    _subtransaction: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    if !TOUCHED.get() {
        return;
    }
    let nest = nest_level();
    TRANSACTION.with_borrow_mut(|transaction| match event {
        SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            transaction.buffer.commit_sub(nest);
            transaction.tallies.commit_sub(nest);
        }
        SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            transaction.buffer.abort_sub(nest);
            transaction.tallies.abort_sub(nest);
        }
        _ => {}
    });
}

/// Rules 2 and 9: takes the number, notes the epochs, and seals what was captured.
fn pre_commit(shared: Shared) {
    completeness::check();
    let captured = TRANSACTION.with_borrow(|transaction| !transaction.buffer.is_empty());
    if !captured && shared.published() == 0 {
        return;
    }
    let Some(xid) = top_xid() else { return };
    let other_list = || {
        relations::local_fingerprint() != shared.published()
            || match NOTED.get() {
                Noted::Nothing => false,
                Noted::One(generation) => generation != shared.generation(),
                Noted::Several => true,
            }
    };
    if captured || other_list() {
        TOUCHED.set(true);
        let number = shared.commits().begin(compat::backend_number());
        TRANSACTION.with_borrow_mut(|transaction| {
            transaction.numbered = number.is_some();
            let mut sealed = transaction
                .buffer
                .seal(xid, number.unwrap_or(0), |mapping| shared.gates().note(mapping));
            // The list is compared after the epochs have been noted: a change between the two moves an epoch.
            if number.is_none() || other_list() {
                let all = every_mapping(shared);
                all.iter()
                    .for_each(|mapping| transaction.note_reason(mapping, Reason::List));
                sealed.purge(&all);
            }
            transaction.sealed = Some(sealed);
        });
    }
}

/// The mappings that exist, in whatever state.
fn every_mapping(shared: Shared) -> MappingSet {
    let mut all = MappingSet::EMPTY;
    (0..shared.mappings() as u16)
        .filter(|mapping| shared.state(*mapping) != MappingState::Free)
        .for_each(|mapping| all.insert(mapping));
    all
}

/// Rule 1: the transaction is visible, and what it changed goes to the ring.
fn committed(shared: Shared) {
    let (sealed, late, touched) = TRANSACTION.with_borrow_mut(|transaction| {
        (
            transaction.sealed.take(),
            !transaction.buffer.is_empty(),
            transaction.touched,
        )
    });
    let mut appended = None;
    if let Some(mut sealed) = sealed {
        if late {
            // Another library changed rows in its own PRE_COMMIT, after ours: their values were not sealed.
            sealed.purge(&touched);
        }
        test_points::wait_at(TestPoint::Append);
        appended = Some(append::append(shared, &mut sealed, top_xid_at_commit()));
        TRANSACTION.with_borrow_mut(|transaction| transaction.buffer.reclaim(sealed));
    } else if late {
        test_points::wait_at(TestPoint::Append);
        append::lose(shared, &touched, top_xid_at_commit(), Reason::Unseen);
    }
    if resolve_wanted(shared) {
        shared.want_resolve();
    }
    let (ran_ddl, text_ddl) =
        TRANSACTION.with_borrow(|transaction| (transaction.ran_ddl, transaction.text_ddl));
    ended(shared);
    let Some(appended) = appended else { return };
    let wait = gucs::SYNCHRONOUS.get().then_some(appended);
    if ran_ddl || text_ddl {
        let texts = if text_ddl {
            appended.purges
        } else {
            MappingSet::EMPTY
        };
        after_ddl::leave(after_ddl::Rest { texts, wait });
    } else if let Some(appended) = wait {
        waiting::wait_for_commit(shared, &appended);
    }
}

/// Whether what the transaction ran may have changed the state of a mapping.
fn resolve_wanted(shared: Shared) -> bool {
    let (ran_ddl, mapped_ddl) =
        TRANSACTION.with_borrow(|transaction| (transaction.ran_ddl, transaction.mapped_ddl));
    mapped_ddl
        || (ran_ddl
            && shared
                .occupied()
                .any(|mapping| matches!(shared.state(mapping), MappingState::Pending | MappingState::Error)))
}

/// At COMMIT the transaction state still has the id (xact.c, CommitTransaction).
fn top_xid_at_commit() -> u64 {
    top_xid().unwrap_or_else(|| next_xid().saturating_sub(1))
}

/// The next id to be assigned, above every one that is in use.
pub fn next_xid() -> u64 {
    // SAFETY: takes and releases XidGenLock.
    unsafe { pg_sys::ReadNextFullTransactionId() }.value
}

/// The transaction is over for us: nothing of it is kept.
fn ended(shared: Shared) {
    let numbered = TRANSACTION.with_borrow_mut(|transaction| {
        transaction.forget();
        std::mem::take(&mut transaction.numbered)
    });
    TOUCHED.set(false);
    // A wait that a termination has ended.
    shared.clear_waiter(compat::backend_number());
    if numbered {
        shared.commits().end(compat::backend_number());
    }
}

/// Rule 9: a prepared transaction commits out of our sight. From here on nothing fills until it is resolved.
fn pre_prepare(shared: Shared) {
    pre_commit(shared);
    let Some(xid) = top_xid() else { return };
    let touched = TRANSACTION.with_borrow(|transaction| transaction.sealed.as_ref().map(concerned));
    if let Some(touched) = touched {
        let _held = shared.lock_ring();
        for mapping in touched.iter() {
            shared.gates().raise_floor_locked(mapping, xid);
        }
    }
}

fn prepared(shared: Shared) {
    let touched =
        TRANSACTION.with_borrow_mut(|transaction| transaction.sealed.take().map(|sealed| concerned(&sealed)));
    if let Some(touched) = touched {
        append::lose(shared, &touched, top_xid_at_commit(), Reason::Prepared);
    }
    ended(shared);
}

fn concerned(sealed: &Sealed) -> MappingSet {
    let mut all = *sealed.touched();
    all.union(sealed.purges());
    all
}
