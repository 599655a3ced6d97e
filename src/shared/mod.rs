//! The shared memory and its locks: the only calls of ShmemInitStruct and LWLockAcquire.
//!
//! What lies in it are the plain types of the core crate, one after the other, behind a [`Control`] block of our
//! own. Two locks: the ring's lock orders appends, losses and changes of the list; the text lock guards the few
//! strings that the views show, and what is shown of the connections.
mod blocks;
mod connections;
mod layout;
mod mappings;
mod progress;
mod servers;

use std::{ops::Deref, sync::atomic::Ordering};

use pg_redis_cache_core::{
    coherence::{
        Reason, commits::Commits, hints::Hints, lag::Lag, mappings::Gates, replies::Replies, slots::Slots,
    },
    config::MAX_SERVERS,
    ring::Ring,
};
use pgrx::pg_sys;

pub use blocks::{Control, Look, MappingState, MappingStats, ServerPlace, StatusText};
pub use layout::init;
pub use progress::{Phase, Progress, ProgressEntry};
pub use servers::{DEFAULT, ServerSet};

use crate::compat;
use blocks::{MappingPlace, Waiter};
use connections::ConnectionPlace;

static mut PARTS: Option<Parts> = None;

/// A handle on all of it.
#[derive(Clone, Copy)]
pub struct Shared(&'static Parts);

impl Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        self.0
    }
}

/// Where each part is.
pub struct Parts {
    control: *mut Control,
    places: *mut MappingPlace,
    stats: *mut MappingStats,
    mappings: usize,
    ring: Ring,
    gates: Gates,
    slots: Slots,
    hints: Hints,
    commits: Commits,
    replies: Replies,
    lags: [Lag; MAX_SERVERS],
    waiters: *mut Waiter,
    /// By backend.
    progress: *mut ProgressEntry,
    connections: *mut ConnectionPlace,
    /// [`MAX_SERVERS`] of them.
    servers: *mut ServerPlace,
    ring_lock: *mut pg_sys::LWLock,
    text_lock: *mut pg_sys::LWLock,
}

/// Holds one of the locks; interrupts are held with it.
pub struct Held(*mut pg_sys::LWLock);

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the lock was acquired by this process. After an ERROR all locks have been released already,
        // but nothing that holds one calls anything that raises.
        unsafe { compat::unguarded::LWLockRelease(self.0) };
    }
}

impl Shared {
    /// The shared memory; `None` if the library was not preloaded.
    pub fn get() -> Option<Self> {
        let parts = &raw const PARTS;
        // SAFETY: written once, by the startup hook, before any backend runs.
        unsafe { (*parts).as_ref() }.map(Shared)
    }

    /// Takes the ring's lock. Whoever holds it must not call anything that can raise.
    pub fn lock_ring(self) -> Held {
        lock(self.ring_lock)
    }

    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    pub fn hints(&self) -> &Hints {
        &self.hints
    }

    pub fn commits(&self) -> &Commits {
        &self.commits
    }

    pub fn replies(&self) -> &Replies {
        &self.replies
    }

    /// From commit to acknowledgement, by server.
    pub fn lags(&self) -> &[Lag; MAX_SERVERS] {
        &self.lags
    }

    pub fn control(&self) -> &Control {
        // SAFETY: initialised by the startup hook; all that changes is atomic or under the text lock.
        unsafe { &*self.control }
    }

    /// Grows with each change of the list or of a mapping's state.
    pub fn generation(&self) -> u64 {
        self.control().generation.load(Ordering::Acquire)
    }

    /// Tells every backend to look at list and states anew. Called with the ring's lock held, after the change.
    pub fn bump_generation_locked(&self) {
        self.control().generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Rule 9: the fingerprint of the list that the worker has published, 0 for none or an empty one.
    pub fn published(&self) -> u64 {
        self.gates.list()
    }

    /// Asks the worker to have the mappings looked at anew.
    pub fn want_resolve(&self) {
        self.control().resolve_wanted.store(true, Ordering::Release);
        self.wake_worker(true);
    }

    pub fn take_resolve_wanted(&self) -> bool {
        self.control().resolve_wanted.swap(false, Ordering::AcqRel)
    }

    /// The mappings that were active at a clean stop have their places (rule 8). Called in the postmaster.
    pub fn set_prepared(&self) {
        self.control().prepared.store(true, Ordering::Release);
    }

    /// Whether that is so and no worker has asked before.
    pub fn take_prepared(&self) -> bool {
        self.control().prepared.swap(false, Ordering::AcqRel)
    }

    /// How often the postmaster has assigned one of its settings.
    pub fn assignments(&self) -> u64 {
        self.control().assignments.load(Ordering::Acquire)
    }

    /// Called in the postmaster.
    pub fn set_assignments(&self, count: u64) {
        self.control().assignments.store(count, Ordering::Release);
    }

    /// Makes this process the one that appends wake. Called by the worker.
    pub fn register_worker(&self) {
        // SAFETY: a plain integer of this process.
        self.control()
            .worker_pid
            .store(unsafe { pg_sys::MyProcPid }, Ordering::Relaxed);
        self.control()
            .worker
            .store(compat::backend_number() as u32 + 1, Ordering::Release);
    }

    pub fn unregister_worker(&self) {
        self.control().worker.store(0, Ordering::Release);
        self.control().worker_pid.store(0, Ordering::Relaxed);
        (0..MAX_SERVERS).for_each(|server| self.set_connected(server, false));
        self.set_connections([], |_| 0);
    }

    /// The worker is about to look once more and then to sleep.
    pub fn worker_sleeps(&self, sleeps: bool) {
        // SeqCst, against `wake_worker`: either the worker sees what was appended, or the appender sees it asleep.
        self.control().sleeping.store(sleeps, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Sets the worker's latch if it sleeps; always with `surely`.
    pub fn wake_worker(&self, surely: bool) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if !surely && !self.control().sleeping.load(Ordering::SeqCst) {
            return;
        }
        let worker = self.control().worker.load(Ordering::Acquire);
        if worker > 0 {
            self.set_latch_of(worker as usize - 1);
        }
    }

    /// Rule 6: what transaction `xid` changed in a mapping, or all that is known of it, is lost: it has to be purged.
    /// The caller holds the ring's lock.
    pub fn lose_locked(&self, mapping: u16, xid: u64, reason: Reason) {
        self.gates().lose_locked(mapping, xid);
        // What cannot have keys is not purged.
        if self.has_kinds(mapping) {
            self.stats(mapping).purge_wanted(reason);
        }
    }

    /// Sets the latch of a backend.
    pub fn set_latch_of(&self, backend: usize) {
        if backend < self.control().max_backends as usize {
            // SAFETY: the number is a backend's. A wakeup too many does no harm.
            unsafe { compat::unguarded::SetLatch(compat::latch_of(backend)) };
        }
    }
}

fn lock(lock: *mut pg_sys::LWLock) -> Held {
    // SAFETY: one of the two locks that the startup hook was given.
    unsafe { compat::unguarded::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE) };
    Held(lock)
}
