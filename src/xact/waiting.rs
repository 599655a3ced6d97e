//! Waiting until Redis has acknowledged: synchronous commits (rule 10) and `redis_cache.wait`.
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use pg_redis_cache_core::coherence::{MAX_MAPPINGS, MappingSet};

use super::append::Appended;
use crate::{
    compat, gucs,
    shared::{ServerSet, Shared},
};

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    Done,
    TimedOut,
    Interrupted,
}

/// Waits until these servers have everything before `position`.
///
/// In COMMIT interrupts are held: a cancel or a termination ends the wait there, and is acted upon afterwards.
/// Elsewhere it is raised here.
pub fn wait_for(shared: Shared, position: u64, servers: ServerSet, timeout: Duration) -> Waited {
    wait_until(
        shared,
        timeout,
        |shared| shared.has_reached(position, servers),
        Some((position, servers)),
    )
}

/// Waits until a condition holds that the worker or a committing backend brings about.
pub fn wait_until(
    shared: Shared,
    timeout: Duration,
    done: impl Fn(Shared) -> bool,
    position: Option<(u64, ServerSet)>,
) -> Waited {
    let deadline = Instant::now() + timeout;
    super::note_wait();
    let waiter = Waiter {
        shared,
        backend: compat::backend_number(),
    };
    loop {
        let (until, servers) = position.unwrap_or((u64::MAX, ServerSet::NONE));
        shared.set_waiter(waiter.backend, until, servers);
        if done(shared) {
            return Waited::Done;
        }
        // Raises, but for a COMMIT, which holds interrupts.
        pgrx::check_for_interrupts!();
        if interrupted() {
            return Waited::Interrupted;
        }
        if Instant::now() >= deadline {
            return Waited::TimedOut;
        }
        // A position is announced by the worker; anything else is looked at every millisecond.
        let pause = if position.is_some() {
            Duration::from_millis(100)
        } else {
            Duration::from_millis(1)
        };
        sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
    }
}

/// A backend that waits, until it goes.
struct Waiter {
    shared: Shared,
    backend: usize,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.shared.clear_waiter(self.backend);
    }
}

fn interrupted() -> bool {
    // SAFETY: flags that signal handlers set.
    unsafe {
        std::ptr::read_volatile(&raw const pg_sys::QueryCancelPending) != 0
            || std::ptr::read_volatile(&raw const pg_sys::ProcDiePending) != 0
    }
}

fn sleep(pause: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_POSTMASTER_DEATH;
    // SAFETY: waits on this process's own latch, and sets flags as signal handlers do.
    unsafe {
        let seen = pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            pause.as_millis().max(1) as i64,
            pg_sys::PG_WAIT_EXTENSION,
        );
        if seen as u32 & pg_sys::WL_POSTMASTER_DEATH != 0 {
            // As in SyncRepWaitForLSN (syncrep.c): to end here would be to abort what has been committed, a PANIC.
            pg_sys::ProcDiePending = 1;
            pg_sys::InterruptPending = 1;
        }
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// Waits until what was lost of these mappings until now has been purged. A mapping whose keys nobody knows yet
/// has none.
pub fn wait_for_purges(shared: Shared, mappings: &MappingSet, timeout: Duration) -> Waited {
    // An array: nothing is allocated in COMMIT.
    let mut epochs = [0u64; MAX_MAPPINGS];
    for mapping in mappings.iter() {
        epochs[usize::from(mapping)] = shared.gates().note(mapping);
    }
    let done = |shared: Shared| {
        mappings.iter().all(|mapping| {
            shared.gates().is_purged(mapping, epochs[usize::from(mapping)]) || !shared.has_kinds(mapping)
        })
    };
    wait_until(shared, timeout, done, None)
}

/// Rule 10: COMMIT returns once Redis has the changes, or warns. The transaction is committed in any case.
pub fn wait_for_commit(shared: Shared, appended: &Appended) {
    let timeout = gucs::synchronous_timeout();
    let started = Instant::now();
    let servers = ServerSet::of(shared, &appended.touched);
    let mut waited = appended
        .end
        .map_or(Waited::Done, |end| wait_for(shared, end, servers, timeout));
    if waited == Waited::Done && !appended.purges.is_empty() {
        waited = wait_for_purges(
            shared,
            &appended.purges,
            timeout.saturating_sub(started.elapsed()),
        );
    }
    let problem = match waited {
        Waited::Done => return,
        Waited::TimedOut => format!("Redis has not acknowledged within {} ms.", timeout.as_millis()),
        Waited::Interrupted => "The wait was interrupted.".to_string(),
    };
    pgrx::ereport!(
        WARNING,
        pgrx::PgSqlErrorCode::ERRCODE_WARNING,
        "the transaction has been committed, but may not be in Redis yet",
        problem
    );
}
