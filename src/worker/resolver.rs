//! The resolver: a short-lived background worker in each database that has mappings.
//!
//! The worker itself has no database connection. Which table a mapping means, whether it can work, and what
//! kinds of text its key columns have is found out here, and put into shared memory. That activates a mapping:
//! it gets the last assigned id as its floor, a new epoch and so a purge (rule 9).
//!
//! A mapping that cannot be looked at, because somebody holds a lock on its table, stays as it is and is looked at
//! again soon: one locked table neither stops what is active nor holds the others up.
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, CString},
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use pg_redis_cache_core::{
    coherence::Reason,
    config::Mapping,
    encode::{collision, key::KeyKind},
};
use pgrx::{
    PgSqlErrorCode, PgTryBuilder, pg_guard,
    pg_sys::{self, BgwHandleStatus, panic::CaughtError},
};

use super::{Worker, config::NO_FINGERPRINT};
use crate::{
    capture::{
        relations,
        resolve::{self, Resolved},
    },
    compat, gucs, nodes,
    shared::{Look, MappingState, Shared},
    xact,
};

/// The shortest time between two looks at a database.
const PAUSE: Duration = Duration::from_millis(500);
/// How often mappings that do not work are looked at again without any DDL or reload.
const RETRY: Duration = Duration::from_secs(300);
/// When to look again at what could not be looked at.
const SOON: Duration = Duration::from_secs(5);
/// How long a resolver waits for a lock, as `lock_timeout` has it.
const LOCK_TIMEOUT: &CStr = c"1s";

struct Running {
    handle: *mut pg_sys::BackgroundWorkerHandle,
    /// What it is to look at: places, and the fingerprints that they had.
    mappings: Vec<(u16, u64)>,
}

/// The resolvers that run or are wanted.
#[derive(Default)]
pub struct Resolvers {
    wanted: bool,
    /// Databases that are still to be looked at.
    waiting: BTreeSet<String>,
    running: BTreeMap<String, Running>,
    last: Option<Instant>,
    /// When those are looked at again that could not be.
    again: Option<Instant>,
    /// There was no place for a background worker, and that has been logged.
    placeless: bool,
}

impl Resolvers {
    /// Has every mapping looked at.
    pub fn want_all(&mut self) {
        self.wanted = true;
    }
}

impl Worker {
    /// Starts a resolver in each database that has mappings, if somebody wants them looked at.
    pub(super) fn start_resolvers(&mut self) {
        self.resolvers.wanted |= self.shared.take_resolve_wanted();
        let since = self.resolvers.last.map(|last| last.elapsed());
        let retry = since.is_none_or(|since| since >= RETRY) && self.has_problem();
        self.reap_resolvers();
        let again = self.resolvers.again.is_some_and(|again| again <= Instant::now());
        let due = (self.resolvers.wanted && since.is_none_or(|since| since >= PAUSE)) || again || retry;
        if due && self.resolvers.running.is_empty() && self.resolvers.waiting.is_empty() {
            self.resolvers.wanted = false;
            self.resolvers.again = None;
            self.resolvers.last = Some(Instant::now());
            self.resolvers.waiting = self.databases();
        }
        // One at a time: of two mappings with the same keys the second to be looked at is refused.
        if self.resolvers.running.is_empty()
            && let Some(database) = self.resolvers.waiting.pop_first()
        {
            let mappings = self.mappings_of(&database);
            for (place, _) in &mappings {
                self.shared.set_look(*place, Look::Nowhere);
            }
            match start(&database, mappings) {
                Some(running) => {
                    self.resolvers.running.insert(database, running);
                    self.resolvers.placeless = false;
                }
                None => self.could_not_start(),
            }
        }
    }

    /// The other databases' resolvers will find no place either.
    fn could_not_start(&mut self) {
        self.resolvers.waiting.clear();
        self.resolvers.again = Some(Instant::now() + SOON);
        let problem = "no place for a background worker, which looks at the tables of the mappings: raise \
                       max_worker_processes";
        self.note_error(problem);
        if !std::mem::replace(&mut self.resolvers.placeless, true) {
            pgrx::log!("pg_redis_cache: {problem}");
        }
    }

    /// A resolver that has ended without a connection could not open the database. Mappings of which it has said
    /// nothing although it had one stay as they are, and are looked at again soon.
    fn reap_resolvers(&mut self) {
        let mut ended = Vec::new();
        self.resolvers.running.retain(|database, running| {
            let runs = still_runs(running);
            if !runs {
                ended.push((database.clone(), std::mem::take(&mut running.mappings)));
            }
            runs
        });
        if super::shutdown_requested() {
            return; // it was told to go
        }
        for (database, mappings) in ended {
            for (place, fingerprint) in mappings {
                if self.shared.fingerprint(place) != fingerprint {
                    continue;
                }
                match (self.shared.look(place), self.written.get(&place)) {
                    (Look::Nowhere, Some(written)) => {
                        could_not_open(self.shared, place, &written.definition.name, &database);
                    }
                    (Look::Connected, _) => self.resolvers.again = Some(Instant::now() + SOON),
                    _ => {}
                }
            }
        }
    }

    /// The mappings of a database: places and fingerprints.
    fn mappings_of(&self, database: &str) -> Vec<(u16, u64)> {
        let default = gucs::text(&gucs::DATABASE);
        self.written
            .iter()
            .filter(|(_, written)| written.definition.effective_database(&default) == database)
            .map(|(place, _)| (*place, self.shared.fingerprint(*place)))
            .collect()
    }

    /// How long until a resolver may start. While one runs its end is waited for, which sets the latch.
    pub(super) fn resolver_due(&self) -> Duration {
        let resolvers = &self.resolvers;
        if !resolvers.running.is_empty() {
            return Duration::MAX;
        }
        let wanted = match resolvers.last {
            Some(last) if resolvers.wanted => Some(PAUSE.saturating_sub(last.elapsed())),
            _ => None,
        };
        let again = resolvers
            .again
            .map(|again| again.saturating_duration_since(Instant::now()));
        wanted.into_iter().chain(again).min().unwrap_or(Duration::MAX)
    }

    fn has_problem(&self) -> bool {
        self.shared.occupied().any(|mapping| {
            matches!(
                self.shared.state(mapping),
                MappingState::Error | MappingState::Pending
            )
        })
    }

    fn databases(&self) -> BTreeSet<String> {
        let default = gucs::text(&gucs::DATABASE);
        self.written
            .values()
            .map(|written| written.definition.effective_database(&default).to_string())
            .collect()
    }
}

fn still_runs(running: &mut Running) -> bool {
    let mut pid = 0;
    // SAFETY: the handle was made by RegisterDynamicBackgroundWorker.
    let status = unsafe { pg_sys::GetBackgroundWorkerPid(running.handle, &raw mut pid) };
    let runs = matches!(
        status,
        BgwHandleStatus::BGWH_STARTED | BgwHandleStatus::BGWH_NOT_YET_STARTED
    );
    if !runs {
        // SAFETY: allocated by RegisterDynamicBackgroundWorker, and not used again.
        unsafe { pg_sys::pfree(running.handle.cast()) };
    }
    runs
}

fn start(database: &str, mappings: Vec<(u16, u64)>) -> Option<Running> {
    let mut worker = super::description(c"pg_redis_cache resolver", c"pg_redis_cache_resolver_main");
    worker.bgw_flags = (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32;
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
    worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
    // SAFETY: plain integers and a static string; the server copies the description and makes the handle in
    // the current memory context, TopMemoryContext in a worker without transactions.
    unsafe {
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let name = CString::new(database).ok()?;
        super::copy_name(&mut worker.bgw_extra, &name);
        let mut handle = std::ptr::null_mut();
        let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let started = pg_sys::RegisterDynamicBackgroundWorker(&raw mut worker, &raw mut handle);
        pg_sys::MemoryContextSwitchTo(previous);
        started.then_some(Running { handle, mappings })
    }
}

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
    for (place, _, _) in &list {
        shared.set_look(*place, Look::Connected);
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
        let found = unsafe { resolve::resolve(mapping) };
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

fn could_not_open(shared: Shared, place: u16, name: &str, database: &str) {
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
        let (template, other_kinds) = (shared.template(other)?, shared.kinds(other)?);
        collision::may_collide(&mapping.template, kinds, &template, &other_kinds)
            .then(|| format!("its keys could be those of another mapping, with the template {template}"))
    })
}
