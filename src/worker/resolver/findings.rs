//! What a resolver does in its own process: looks at the mappings of one database, and puts what it finds into shared
//! memory. Each in a transaction of its own; nothing is held while it waits for a lock.
use std::{
    ffi::{CStr, CString},
    panic::AssertUnwindSafe,
};

use pg_redis_cache_core::{
    coherence::Reason,
    config::Mapping,
    encode::{collision, key::KeyKind},
    redis::Address,
};
use pgrx::{
    PgSqlErrorCode, PgTryBuilder, pg_guard,
    pg_sys::{self, panic::CaughtError},
};

use super::super::config::NO_FINGERPRINT;
use crate::{
    capture::{
        relations,
        resolve::{self, Resolved},
    },
    compat, gucs, nodes,
    shared::{Look, MappingState, Shared},
    xact,
};

/// How long a resolver waits for a lock, as `lock_timeout` has it.
const LOCK_TIMEOUT: &CStr = c"1s";

/// The entry point of the resolver's process.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_redis_cache_resolver_main(_argument: pg_sys::Datum) {
    let Some(shared) = Shared::get() else { return };
    // SAFETY: the server calls this once in a new process; bgw_extra is what `start` put there. The default handler
    // of SIGTERM would raise wherever it interrupts (bgworker.c, bgworker_die); `die` waits for a safe place.
    let database = unsafe {
        compat::handle_signal(pg_sys::SIGTERM as i32, compat::die);
        pg_sys::BackgroundWorkerUnblockSignals();
        nodes::bytes((*pg_sys::MyBgworkerEntry).bgw_extra.as_ptr()).to_vec()
    };
    let Ok(name) = CString::new(database) else { return };
    let database = name.to_string_lossy().into_owned();
    let default_database = gucs::text(&gucs::DATABASE);
    let list: Vec<(u16, u64, Mapping)> = relations::configured()
        .into_iter()
        .filter(|mapping| mapping.effective_database(&default_database) == database)
        .filter_map(|mapping| {
            let fingerprint = mapping.fingerprint(&default_database);
            Some((shared.mapping_of(fingerprint)?, fingerprint, mapping))
        })
        .collect();
    set_lock_timeout(c"0");
    // SAFETY: connects this process; a database that is not there ends it with a FATAL in the log.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(name.as_ptr(), std::ptr::null(), 0) };
    set_lock_timeout(LOCK_TIMEOUT);
    // Also those of a list that this process has not read: its settings are the postmaster's, and the worker may have
    // read later ones. They are looked at by the next.
    for place in shared.occupied() {
        shared.set_look(place, Look::Connected);
    }
    for (place, fingerprint, mapping) in &list {
        look_at(shared, *place, *fingerprint, mapping);
    }
}

/// Whatever the settings of server and database say. An error within the connection would count as a database that
/// cannot be opened, so that one has no limit.
fn set_lock_timeout(value: &CStr) {
    let (context, source) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_OVERRIDE);
    // SAFETY: a setting of every server, and a valid value.
    unsafe { pg_sys::SetConfigOption(c"lock_timeout".as_ptr(), value.as_ptr(), context, source) };
}

/// In a transaction of its own, whose locks last until it has been said what was found.
fn look_at(shared: Shared, place: u16, fingerprint: u64, mapping: &Mapping) {
    // SAFETY: outside of any transaction, as in worker_spi.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let looked = PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: within a transaction.
        let found = is_somewhere(mapping).and_then(|()| unsafe { resolve::resolve(mapping) });
        publish(shared, place, fingerprint, mapping, found);
        true
    }))
    .catch_others(|error| {
        could_not_look(shared, place, &mapping.name, &error);
        false
    })
    .execute();
    // SAFETY: ends the transaction; after an error everything of it is undone.
    unsafe {
        if looked {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        } else {
            pg_sys::AbortCurrentTransaction();
        }
    }
}

/// Whether the settings say where a mapping's keys are to be.
fn is_somewhere(mapping: &Mapping) -> Result<(), String> {
    let server = mapping.effective_server();
    match gucs::servers::url_of(server) {
        Some(_) => Ok(()),
        None => Err(format!("server \"{server}\" is not in pg_redis_cache.servers")),
    }
}

/// A lock that somebody holds is no news.
fn could_not_look(shared: Shared, place: u16, name: &str, error: &CaughtError) {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = error;
    let problem = format!("it cannot be looked at: {}", report.message());
    if report.sql_error_code() != PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE {
        pgrx::log!("pg_redis_cache: mapping \"{name}\": {problem}");
    }
    if shared.state(place) == MappingState::Pending {
        shared.set_problem(place, &problem);
    }
}

fn publish(shared: Shared, place: u16, fingerprint: u64, mapping: &Mapping, found: Result<Resolved, String>) {
    let found = found.and_then(
        |resolved| match collision_of(shared, place, mapping, &resolved.kinds) {
            Some(problem) => Err(problem),
            None => Ok(resolved),
        },
    );
    let problem = found.as_ref().err().cloned().unwrap_or_default();
    let known = known_problem(shared, place);
    shared.set_look(place, Look::Done);
    {
        let _held = shared.lock_ring();
        if shared.fingerprint(place) != fingerprint
            || !matches!(
                shared.state(place),
                MappingState::Pending | MappingState::Active | MappingState::Error
            )
        {
            return; // the list has changed meanwhile, and with it somebody will look again
        }
        match &found {
            Ok(resolved) => activate(shared, place, fingerprint, resolved),
            Err(_) => deactivate(shared, place),
        }
    }
    shared.set_problem(place, &problem);
    log_problem(shared, place, &mapping.name, known.as_deref());
    shared.wake_worker(true);
}

/// What is said to be wrong with a mapping that is in error.
fn known_problem(shared: Shared, place: u16) -> Option<String> {
    (shared.state(place) == MappingState::Error).then(|| shared.problem(place))
}

/// Logs what is wrong with a mapping, once until it is something else.
fn log_problem(shared: Shared, place: u16, name: &str, known: Option<&str>) {
    if let Some(problem) = known_problem(shared, place)
        && known != Some(&problem)
    {
        pgrx::log!("pg_redis_cache: mapping \"{name}\" does not work: {problem}");
    }
}

pub(super) fn could_not_open(shared: Shared, place: u16, name: &str, database: &str) {
    let known = known_problem(shared, place);
    {
        let _held = shared.lock_ring();
        if !matches!(shared.state(place), MappingState::Pending | MappingState::Active) {
            return;
        }
        deactivate(shared, place);
    }
    let problem = format!("database \"{database}\" cannot be opened: see the server log");
    shared.set_problem(place, &problem);
    log_problem(shared, place, name, known.as_deref());
}

/// Rule 9: floor, epoch and purge. What is as it was stays as it is.
fn activate(shared: Shared, place: u16, fingerprint: u64, resolved: &Resolved) {
    let relation = resolved.relation.to_u32();
    let unchanged = shared.state(place) == MappingState::Active
        && shared.relation(place) == relation
        && shared.kinds(place).as_deref() == Some(resolved.kinds.as_slice());
    if unchanged {
        return;
    }
    shared.set_kinds_locked(place, &resolved.kinds);
    shared.set_relation_locked(place, relation);
    shared.stats(place).purge_wanted(Reason::Activated);
    enter(shared, place, MappingState::Active, fingerprint);
}

fn deactivate(shared: Shared, place: u16) {
    if shared.state(place) != MappingState::Error {
        // Without a fingerprint no backend that still takes the mapping for active can fill.
        enter(shared, place, MappingState::Error, NO_FINGERPRINT);
    }
}

/// The generation before the last assigned id is read: a transaction that has compared it in PRE_COMMIT before, and so
/// commits what it has captured in the old state, has an id that the floor covers. And both before the epoch: who
/// notes the new epoch finds the new generation, too.
fn enter(shared: Shared, place: u16, state: MappingState, fingerprint: u64) {
    shared.set_state_locked(place, state);
    shared.bump_generation_locked();
    let last = xact::next_xid().saturating_sub(1);
    shared.gates().define_locked(place, fingerprint, last);
}

/// Whether the mapping could produce a key of another active mapping, or one of our own.
fn collision_of(shared: Shared, place: u16, mapping: &Mapping, kinds: &[KeyKind]) -> Option<String> {
    if collision::may_be_reserved(&mapping.template, kinds) {
        return Some("its keys could begin with \"pg_redis_cache:\", which is reserved".into());
    }
    shared.occupied().find_map(|other| {
        if other == place || shared.state(other) != MappingState::Active {
            return None;
        }
        if !is_same_place(
            mapping.effective_server(),
            &shared.server_name(shared.server_of(other)),
        ) {
            return None;
        }
        let (template, other_kinds) = (shared.template(other)?, shared.kinds(other)?);
        collision::may_collide(&mapping.template, kinds, &template, &other_kinds)
            .then(|| format!("its keys could be those of another mapping, with the template {template}"))
    })
}

/// Whether two servers are one, as far as their addresses tell.
fn is_same_place(one: &str, other: &str) -> bool {
    let address = |name| Address::parse(&gucs::servers::url_of(name)?).ok();
    one == other
        || match (address(one), address(other)) {
            (Some(one), Some(other)) => one.is_same_place(&other),
            _ => false,
        }
}
