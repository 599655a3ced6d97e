//! The background worker: takes what has been committed off the ring and has it written to Redis.
//!
//! Two threads. This one, the process's main thread, is the only one that touches Postgres: latch, shared
//! memory, log, settings. The other is the engine of the core crate, which owns the connections. They talk by
//! the engine's requests and events; an eventfd in the wait set announces the events.
//!
//! The ring's tail moves only when Redis has acknowledged, so that a worker that is started again sends again
//! what was in flight. There is no worker on a standby, and none before recovery has finished.
mod config;
mod connections;
mod destination;
mod events;
mod feed;
mod heartbeat;
mod link;
mod marker;
mod on_its_way;
mod purges;
mod register;
mod resolver;
mod trouble;

use std::{
    cell::Cell,
    collections::HashMap,
    ffi::{CStr, c_char},
    time::{Duration, Instant},
};

use pg_redis_cache_core::{
    coherence::Reason,
    config::{MAX_SERVERS, Mapping},
    redis::{Expiry, Ticket, new_instance},
    ring::pace::Pace,
};
use pgrx::{pg_guard, pg_sys};

use destination::Destination;
pub use link::configured_address;

use crate::{compat, gucs, shared::Shared, xact};

/// The longest sleep: settings and clocks are looked at this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How long a stop goes on writing to servers that are away, where others are there.
const FOR_THE_AWAY: Duration = Duration::from_secs(1);
/// How often settings of the connection that cannot be used are tried again.
const RETRY_SETTINGS: Duration = Duration::from_secs(1);

/// Registers the worker with the postmaster.
pub fn init() {
    let mut worker = description(c"pg_redis_cache", c"pg_redis_cache_worker_main");
    worker.bgw_flags = pg_sys::BGWORKER_SHMEM_ACCESS as i32;
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
    worker.bgw_restart_time = 1;
    // SAFETY: called while libraries are preloaded; the server copies the description.
    unsafe { pg_sys::RegisterBackgroundWorker(&raw mut worker) };
    marker::init();
}

/// A description with the names filled in.
fn description(name: &CStr, function: &CStr) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker::default();
    copy_name(&mut worker.bgw_name, name);
    copy_name(&mut worker.bgw_type, name);
    copy_name(&mut worker.bgw_library_name, c"pg_redis_cache");
    copy_name(&mut worker.bgw_function_name, function);
    worker
}

fn copy_name(place: &mut [c_char], name: &CStr) {
    let last = place.len() - 1;
    for (to, from) in place[..last].iter_mut().zip(name.to_bytes()) {
        *to = *from as c_char;
    }
}

/// A mapping as the worker needs it.
struct Written {
    expiry: Expiry,
    definition: Mapping,
}

/// The worker's state.
struct Worker {
    shared: Shared,
    wait_set: link::WaitSet,
    /// Where mappings are written to, by the servers' numbers in shared memory.
    destinations: Vec<Destination>,
    /// What is wrong with the list of servers, as it was told last.
    list_problems: Vec<String>,
    written: HashMap<u16, Written>,
    feed: feed::Feed,
    purges: purges::Purges,
    register: register::Register,
    /// When this process began.
    since: Instant,
    resolvers: resolver::Resolvers,
    /// What tells this worker's engines from those of an earlier one (rule 5).
    instance: String,
    /// The last ticket of a note.
    tickets: Ticket,
    /// That the view has no room for every connection has been logged.
    connections_left_out: bool,
    pace: Pace,
    /// An engine has ended on its own: nothing can be written any more.
    engine_ended: bool,
    /// How often it was found that what Redis holds is not known to be right.
    losses: Cell<u64>,
}

/// The entry point of the process.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_redis_cache_worker_main(_argument: pg_sys::Datum) {
    // SAFETY: the handlers are the server's own.
    unsafe {
        compat::handle_signal(pg_sys::SIGHUP as i32, compat::SignalHandlerForConfigReload);
        compat::handle_signal(pg_sys::SIGTERM as i32, compat::SignalHandlerForShutdownRequest);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
    let Some(shared) = Shared::get() else { return };
    // bgworker.c ignores SIGHUP until the handler stands: a reload between the fork and here was missed. What nobody
    // has reloaded must not be read: every other process would know another list than the one published.
    if gucs::postmaster_has_reloaded(shared) {
        // SAFETY: as at any reload.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
    }
    shared.register_worker();
    let mut worker = Worker {
        shared,
        wait_set: link::WaitSet::new(),
        destinations: (0..MAX_SERVERS)
            .map(|number| Destination::new(shared, number))
            .collect(),
        list_problems: Vec::new(),
        written: HashMap::new(),
        feed: feed::Feed::new(shared),
        purges: purges::Purges::default(),
        register: register::Register::default(),
        since: Instant::now(),
        resolvers: resolver::Resolvers::default(),
        instance: new_instance(),
        tickets: 0,
        connections_left_out: false,
        pace: Pace::new(Instant::now()),
        engine_ended: false,
        losses: Cell::new(0),
    };
    worker.begin();
    worker.run();
    worker.stop();
    shared.unregister_worker();
    // With any other code the postmaster would take the worker for done and not start it again after a
    // SIGTERM.
    // SAFETY: ends this process.
    unsafe { pg_sys::proc_exit(1) };
}

impl Worker {
    /// Rule 8: what happened before is unknown, and everything is purged, unless the marker may tell.
    fn begin(&mut self) {
        let past = marker::claim(self.shared);
        marker::file::remove();
        if past.is_none() {
            let first = self.shared.generation() == 0;
            if first {
                self.shared.ring().reset();
                self.feed = feed::Feed::new(self.shared);
            } else {
                self.lose_everything(Reason::Start);
                self.remember_given_up();
            }
        }
        self.distribute(past);
        self.apply_list();
        self.resolvers.want_all();
        self.connect_all();
    }

    fn run(&mut self) {
        while !shutdown_requested() && !self.engine_ended {
            self.reload_if_asked();
            let busy = self.work();
            let now = Instant::now();
            self.pace.fed(self.feed.take_count(), now);
            // No backend has to wake the worker out of a nap.
            match self.pace.nap(now, self.shared.somebody_waits()) {
                Some(nap) => std::thread::sleep(nap),
                None if !busy => self.sleep(),
                None => {}
            }
        }
    }

    /// One round. Returns whether there was anything to do.
    fn work(&mut self) -> bool {
        let events = self.take_events();
        self.keep_register();
        let fed = self.feed_engines();
        self.start_purges();
        self.start_resolvers();
        for at in 0..self.destinations.len() {
            self.beat(at);
            let destination = &self.destinations[at];
            if destination.has_bad_settings() && destination.looked_at_settings.elapsed() >= RETRY_SETTINGS {
                // A password_file may come to be without any reload.
                self.connect(at);
            }
        }
        events || fed
    }

    fn sleep(&mut self) {
        self.shared.worker_sleeps(true);
        // Without an engine the ring has to wait.
        if !self.can_feed() {
            self.wait_set
                .wait(LONGEST_SLEEP.min(self.purges.next_due()).min(self.resolver_due()));
        }
        self.shared.worker_sleeps(false);
    }

    fn reload_if_asked(&mut self) {
        // SAFETY: the flag is set by the signal handler and cleared here alone.
        unsafe {
            if std::ptr::read_volatile(&raw const pg_sys::ConfigReloadPending) == 0 {
                return;
            }
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        self.apply_list();
        self.resolvers.want_all();
        self.connect_all();
        self.tune_all();
    }

    /// Writes what is still in the ring, within `shutdown_timeout`, leaves the marker if rule 8 allows, and ends the
    /// engine.
    fn stop(&mut self) {
        let deadline = Instant::now() + gucs::shutdown_timeout();
        let rest = self.drain(deadline);
        // Who is away has its turn when the others have their markers; it is purged at the next start whatever it takes
        // until then, so nobody waits long for it, unless there is no other.
        let (away, there): (Vec<usize>, Vec<usize>) =
            (0..self.destinations.len()).partition(|at| self.destinations[*at].is_away());
        for at in &there {
            self.end_heartbeat(*at, deadline);
        }
        let rest = rest.filter(|rest| self.leave_markers(rest, deadline));
        for at in &there {
            self.stop_engine(*at, deadline);
        }
        let is_used = |at: &usize| self.destinations[*at].is_used;
        let soon = if there.iter().any(is_used) {
            deadline.min(Instant::now() + FOR_THE_AWAY)
        } else {
            deadline
        };
        for at in away {
            self.end_heartbeat(at, soon);
            self.stop_engine(at, soon);
        }
        if let Some(rest) = rest {
            self.withdraw_if_lost(&rest);
        }
    }

    /// Rules 6 and 8: nothing is known of any key.
    fn lose_everything(&self, reason: Reason) {
        (0..MAX_SERVERS).for_each(|at| self.lose_server(at, reason));
    }

    /// Rules 6 and 8: nothing is known of what a server holds.
    fn lose_server(&self, at: usize, reason: Reason) {
        self.losses.update(|losses| losses + 1);
        let shared = self.shared;
        let last = xact::next_xid().saturating_sub(1);
        let _held = shared.lock_ring();
        for mapping in shared
            .occupied()
            .filter(|mapping| shared.server_of(*mapping) == at)
        {
            shared.lose_locked(mapping, last, reason);
        }
    }
}

fn shutdown_requested() -> bool {
    // SAFETY: a flag that the signal handler sets.
    unsafe { std::ptr::read_volatile(&raw const pg_sys::ShutdownRequestPending) != 0 }
}
