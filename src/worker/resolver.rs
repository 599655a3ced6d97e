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
    ffi::CString,
    time::{Duration, Instant},
};

use pgrx::pg_sys::{self, BgwHandleStatus};

use super::Worker;
use crate::{
    gucs,
    shared::{DEFAULT, Look, MappingState},
};

/// The shortest time between two looks at a database.
const PAUSE: Duration = Duration::from_millis(500);
/// How often mappings that do not work are looked at again without any DDL or reload.
const RETRY: Duration = Duration::from_secs(300);
/// When to look again at what could not be looked at.
const SOON: Duration = Duration::from_secs(5);

mod findings;

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
        self.destinations[DEFAULT].note_error(problem);
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
                        findings::could_not_open(self.shared, place, &written.definition.name, &database);
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
