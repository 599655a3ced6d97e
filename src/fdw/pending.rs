//! What tables with `transactional 'on'` have to write: kept until COMMIT, dropped with the (sub)transaction that aborts.
//!
//! It is sent before the commit, in one MULTI … EXEC for each connection; if Redis refuses or cannot be reached, the
//! transaction fails. Until then Redis does not know of it, so this transaction must not read these keys: that is
//! refused rather than answered wrongly. PREPARE TRANSACTION is refused. Not guaranteed: that both commit or neither. A
//! COMMIT that fails after EXEC leaves Redis changed, and so does a command that EXEC carries out with an error (a key
//! of another type) beside others.
use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    ffi::c_void,
};

use pg_redis_cache_core::fdw::{Commands, Reply, glob, options::Keys, step::Key};
use pgrx::{
    PgSqlErrorCode, pg_guard,
    pg_sys::{self, Oid},
};

use super::{cache, error, table::Table};
use crate::{compat::unguarded, sql::raise};

/// The commands of one batch of a statement.
struct Batch {
    /// The nest level of the subtransaction that they belong to.
    level: i32,
    place: Place,
    commands: Commands,
    keys: HashSet<Key>,
}

/// Where commands go.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    server: Oid,
    user: Oid,
    database: Option<u32>,
}

thread_local! {
    static PENDING: RefCell<Vec<Batch>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

fn nest_level() -> i32 {
    // SAFETY: a plain read of the transaction state.
    unsafe { unguarded::GetCurrentTransactionNestLevel() }
}

/// Keeps commands that change these keys until COMMIT.
pub fn add(table: &Table, user: Oid, commands: Commands, keys: HashSet<Key>) {
    if !REGISTERED.replace(true) {
        // SAFETY: once in a process; the callbacks are guarded.
        unsafe {
            pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(subtransaction_event), std::ptr::null_mut());
        }
    }
    let place = Place {
        server: table.server,
        user,
        database: table.options.database,
    };
    PENDING.with_borrow_mut(|pending| {
        pending.push(Batch {
            level: nest_level(),
            place,
            commands,
            keys,
        });
    });
}

/// Raises if this transaction has changed keys of the table that Redis does not know of yet.
pub fn check_unchanged(table: &Table) {
    let changed = PENDING.with_borrow(|pending| {
        pending
            .iter()
            .filter(|batch| {
                batch.place.server == table.server && batch.place.database == table.options.database
            })
            .any(|batch| match &table.layout.keys {
                Keys::One(key) => batch.keys.contains(key.as_slice()),
                Keys::Matching(pattern) => batch.keys.iter().any(|key| glob::matches(pattern, key)),
            })
    });
    if changed {
        raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "a table over Redis cannot be read once its transaction has changed it",
            "With transactional 'on' the changes reach Redis at COMMIT.",
            "Read before changing, or in the next transaction.",
        );
    }
}

fn refuse_to_prepare() {
    if PENDING.with_borrow(|pending| !pending.is_empty()) {
        raise(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "a transaction that has changed tables over Redis with transactional 'on' cannot be prepared",
            "",
            "",
        );
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT => send(),
        pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => refuse_to_prepare(),
        pg_sys::XactEvent::XACT_EVENT_COMMIT | pg_sys::XactEvent::XACT_EVENT_ABORT => {
            PENDING.with_borrow_mut(Vec::clear);
        }
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_event(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    let level = nest_level();
    PENDING.with_borrow_mut(|pending| match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => pending.retain(|batch| batch.level < level),
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            let own = pending.iter_mut().filter(|batch| batch.level >= level);
            own.for_each(|batch| batch.level = level - 1);
        }
        _ => {}
    });
}

/// Sends everything, place by place in the order in which they came first.
fn send() {
    let mut pending = PENDING.with_borrow_mut(std::mem::take);
    while let Some(place) = pending.first().map(|batch| batch.place) {
        let (own, others): (Vec<Batch>, Vec<Batch>) =
            pending.into_iter().partition(|batch| batch.place == place);
        pending = others;
        execute(place, &own);
    }
}

fn execute(place: Place, batches: &[Batch]) {
    let mut commands = Commands::default();
    commands.push(&[b"MULTI"]);
    batches.iter().for_each(|batch| commands.append(&batch.commands));
    commands.push(&[b"EXEC"]);
    let mut line = cache::line(place.server, place.user, place.database);
    line.send_as_one(&commands);
    let mut refusal = None;
    for _ in 0..commands.count {
        let reply: Reply = line.receive();
        // The first says why; what follows it is that EXEC has not been carried out.
        if refusal.is_none() {
            refusal = reply.error().map(str::to_string);
        }
    }
    if let Some(text) = refusal {
        error::change_refused(&text);
    }
}
