//! The shared memory and its locks: the only calls of ShmemInitStruct and LWLockAcquire.
//!
//! What lies in it are the plain types of the core crate, one after the other, behind a [`Control`] block of our
//! own. Two locks: the ring's lock orders appends, losses and changes of the list; the text lock guards the few
//! strings that the views show.
use std::{
    alloc::Layout,
    sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering},
};

use pg_redis_cache_core::{
    coherence::{commits::Commits, hints::Hints, lag::Lag, mappings::Gates, replies::Replies, slots::Slots},
    config::{KeyTemplate, MAX_TEMPLATE_BYTES},
    encode::key::KeyKind,
    redis::Client,
    ring::Ring,
};
use pgrx::{pg_guard, pg_sys};

use crate::{compat, gucs};

const TRANCHE: &std::ffi::CStr = c"pg_redis_cache";
/// Bytes of a text that a view shows.
const TEXT_LENGTH: usize = 512;
/// Bytes of a key template as it prints; quotes are doubled there.
const TEMPLATE_LENGTH: usize = 2 * MAX_TEMPLATE_BYTES + 2;
/// The worker's connections that are remembered: lanes (64 at most) and the control connection, twice over.
const CLIENTS: usize = 160;
/// INDEX_MAX_KEYS: more key columns than that no index covers.
const MAX_KEY_COLUMNS: usize = 32;

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;
static mut SHARED: Option<Shared> = None;

/// A text of limited length.
#[repr(C)]
struct Text<const LENGTH: usize> {
    length: u32,
    bytes: [u8; LENGTH],
}

impl<const LENGTH: usize> Text<LENGTH> {
    fn get(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..(self.length as usize).min(LENGTH)]).into_owned()
    }

    fn set(&mut self, text: &str) {
        let mut end = text.len().min(LENGTH);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        self.length = end as u32;
    }
}

/// The latest connections of the worker, oldest overwritten first.
#[repr(C)]
struct Clients {
    run_id: Text<64>,
    next: u32,
    ids: [u64; CLIENTS],
}

/// The texts of the status view.
#[derive(Clone, Copy)]
pub enum StatusText {
    ServerVersion,
    LastError,
}

/// What the worker tells of itself, and what it is told.
#[repr(C)]
pub struct Control {
    /// Grows with each change of the published list or of a mapping's state.
    generation: AtomicU64,
    /// The worker's pgproc number plus one, 0 while there is none.
    worker: AtomicU32,
    pub worker_pid: AtomicI32,
    /// The worker sleeps: whoever appends sets its latch.
    sleeping: AtomicBool,
    connected: AtomicBool,
    /// Somebody wants the mappings looked at anew.
    resolve_wanted: AtomicBool,
    pub reconnects: AtomicU64,
    /// Microseconds since 2000, as TimestampTz; 0 for never.
    pub last_error_at: AtomicI64,
    /// Commit time of the oldest change that Redis has not acknowledged; 0 for none.
    pub oldest_unsent: AtomicI64,
    pub pool_size: AtomicU32,
    pub pool_idle: AtomicU32,
    pub pool_waiting: AtomicU32,
    pub max_backends: u32,
    /// How many backends wait for a position.
    waiting: AtomicU32,
    texts: [Text<TEXT_LENGTH>; 2],
    /// The worker's connections, so that a restarted one can have them killed (rule 5).
    clients: Clients,
}

/// The state of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MappingState {
    /// The place is not used.
    Free = 0,
    /// Not looked at yet.
    Pending = 1,
    Active = 2,
    Error = 3,
    /// No longer in the list; its keys are still to be purged.
    Retiring = 4,
}

impl MappingState {
    fn from(value: u32) -> Self {
        match value {
            1 => Self::Pending,
            2 => Self::Active,
            3 => Self::Error,
            4 => Self::Retiring,
            _ => Self::Free,
        }
    }
}

/// What is known of a mapping beside its gate.
#[repr(C)]
pub struct MappingPlace {
    fingerprint: AtomicU64,
    state: AtomicU32,
    /// Number of key columns, 0 while their types are not known.
    keys: AtomicU32,
    kinds: [AtomicU32; MAX_KEY_COLUMNS],
    /// The key template as it prints: a mapping that has left the list is purged by it.
    template: Text<TEMPLATE_LENGTH>,
    /// The table's Oid, 0 while it is not known.
    relation: AtomicU32,
    problem: Text<TEXT_LENGTH>,
}

/// Counters of a mapping, as the view `stats` shows them.
#[repr(C)]
#[derive(Default)]
pub struct MappingStats {
    pub fills: AtomicU64,
    pub fills_skipped: AtomicU64,
    pub fills_dropped: AtomicU64,
    pub sets: AtomicU64,
    pub deletes: AtomicU64,
    pub purges: AtomicU64,
    pub bytes: AtomicU64,
    pub errors: AtomicU64,
}

impl MappingStats {
    pub fn fill_skipped(&self) {
        self.fills_skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets every counter to 0.
    pub fn reset(&self) {
        for counter in [
            &self.fills,
            &self.fills_skipped,
            &self.fills_dropped,
            &self.sets,
            &self.deletes,
            &self.purges,
            &self.bytes,
            &self.errors,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// A handle on all of it.
#[derive(Clone, Copy)]
pub struct Shared {
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
    lag: Lag,
    /// By backend: the position that it waits for, 0 for none.
    waiters: *mut AtomicU64,
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
        // SAFETY: written once, by the startup hook, before any backend runs.
        unsafe { SHARED }
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

    pub fn lag(&self) -> &Lag {
        &self.lag
    }

    pub fn control(&self) -> &Control {
        // SAFETY: initialised by the startup hook; all that changes is atomic or under the text lock.
        unsafe { &*self.control }
    }

    /// How many mappings there can be.
    pub fn mappings(&self) -> usize {
        self.mappings
    }

    /// The counters of a mapping; those of the last one for a number that no mapping has.
    pub fn stats(&self, mapping: u16) -> &MappingStats {
        let index = usize::from(mapping).min(self.mappings - 1);
        // SAFETY: there are `mappings` of them, at least one.
        unsafe { &*self.stats.add(index) }
    }

    fn place(&self, mapping: u16) -> &MappingPlace {
        let index = usize::from(mapping).min(self.mappings - 1);
        // SAFETY: there are `mappings` of them, at least one.
        unsafe { &*self.places.add(index) }
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

    /// The number of the mapping with that fingerprint, whatever its state.
    pub fn mapping_of(&self, fingerprint: u64) -> Option<u16> {
        (0..self.mappings as u16)
            .find(|index| self.state(*index) != MappingState::Free && self.fingerprint(*index) == fingerprint)
    }

    /// The number of the mapping with that fingerprint, if it is active.
    pub fn active_mapping(&self, fingerprint: u64) -> Option<u16> {
        self.mapping_of(fingerprint)
            .filter(|index| self.state(*index) == MappingState::Active)
    }

    pub fn state(&self, mapping: u16) -> MappingState {
        MappingState::from(self.place(mapping).state.load(Ordering::Acquire))
    }

    pub fn fingerprint(&self, mapping: u16) -> u64 {
        self.place(mapping).fingerprint.load(Ordering::Acquire)
    }

    /// Whether the resolver has found the kinds of a mapping's key columns: only then can it have keys.
    pub fn has_kinds(&self, mapping: u16) -> bool {
        self.place(mapping).keys.load(Ordering::Acquire) > 0
    }

    /// The kinds of a mapping's key columns, once the resolver has found them.
    pub fn kinds(&self, mapping: u16) -> Option<Vec<KeyKind>> {
        let place = self.place(mapping);
        let count = place.keys.load(Ordering::Acquire) as usize;
        (count > 0).then(|| {
            place.kinds[..count]
                .iter()
                .map(|kind| kind_from(kind.load(Ordering::Relaxed)))
                .collect()
        })
    }

    /// A mapping's key template.
    pub fn template(&self, mapping: u16) -> Option<KeyTemplate> {
        let _held = lock(self.text_lock);
        self.place(mapping).template.get().parse().ok()
    }

    /// The table's Oid, 0 while it is not known.
    pub fn relation(&self, mapping: u16) -> u32 {
        self.place(mapping).relation.load(Ordering::Acquire)
    }

    /// The caller holds the ring's lock.
    pub fn set_relation_locked(&self, mapping: u16, relation: u32) {
        self.place(mapping).relation.store(relation, Ordering::Release);
    }

    /// The places that are used.
    pub fn occupied(self) -> impl Iterator<Item = u16> {
        (0..self.mappings as u16).filter(move |mapping| self.state(*mapping) != MappingState::Free)
    }

    /// Stores the kinds of a mapping's key columns. The caller holds the ring's lock.
    pub fn set_kinds_locked(&self, mapping: u16, kinds: &[KeyKind]) {
        let place = self.place(mapping);
        let count = kinds.len().min(MAX_KEY_COLUMNS);
        for (stored, kind) in place.kinds.iter().zip(kinds) {
            stored.store(kind_number(*kind), Ordering::Relaxed);
        }
        place.keys.store(count as u32, Ordering::Release);
    }

    /// Puts a mapping into a place. The caller holds the ring's lock.
    pub fn occupy_locked(&self, mapping: u16, fingerprint: u64, template: &str) {
        let place = self.place(mapping);
        place.keys.store(0, Ordering::Release);
        place.relation.store(0, Ordering::Release);
        {
            let _held = lock(self.text_lock);
            // SAFETY: the text lock is held, which every access to the text takes.
            unsafe { (*self.places.add(usize::from(mapping))).template.set(template) };
        }
        place.fingerprint.store(fingerprint, Ordering::Release);
        self.set_state_locked(mapping, MappingState::Pending);
        self.stats(mapping).reset();
    }

    /// The caller holds the ring's lock, and bumps the generation after its last change.
    pub fn set_state_locked(&self, mapping: u16, state: MappingState) {
        self.place(mapping).state.store(state as u32, Ordering::Release);
    }

    /// What is wrong with a mapping.
    pub fn problem(&self, mapping: u16) -> String {
        let _held = lock(self.text_lock);
        self.place(mapping).problem.get()
    }

    pub fn set_problem(&self, mapping: u16, problem: &str) {
        let index = usize::from(mapping).min(self.mappings - 1);
        let _held = lock(self.text_lock);
        // SAFETY: the text lock is held, which every access to the text takes.
        unsafe { (*self.places.add(index)).problem.set(problem) };
    }

    pub fn status_text(&self, which: StatusText) -> String {
        let _held = lock(self.text_lock);
        self.control().texts[which as usize].get()
    }

    pub fn set_status_text(&self, which: StatusText, text: &str) {
        let _held = lock(self.text_lock);
        // SAFETY: the text lock is held, which every access to the texts takes.
        unsafe { (*self.control).texts[which as usize].set(text) };
    }

    /// The worker has a new connection.
    pub fn add_client(&self, client: &Client) {
        let _held = lock(self.text_lock);
        // SAFETY: the text lock is held, which every access to the clients takes.
        let clients = unsafe { &mut (*self.control).clients };
        if clients.run_id.get() != client.run_id {
            clients.run_id.set(&client.run_id);
            clients.next = 0;
            clients.ids = [0; CLIENTS];
        }
        clients.ids[clients.next as usize % CLIENTS] = client.id;
        clients.next = clients.next.wrapping_add(1);
    }

    /// The connections that the worker, or its predecessor, has had.
    pub fn clients(&self) -> Vec<Client> {
        let _held = lock(self.text_lock);
        let clients = &self.control().clients;
        let run_id = clients.run_id.get();
        clients
            .ids
            .iter()
            .filter(|id| **id != 0)
            .map(|id| Client {
                run_id: run_id.clone(),
                id: *id,
            })
            .collect()
    }

    /// Whether the worker is connected to Redis.
    pub fn connected(&self) -> bool {
        self.control().connected.load(Ordering::Relaxed)
    }

    pub fn set_connected(&self, connected: bool) {
        self.control().connected.store(connected, Ordering::Relaxed);
    }

    /// Asks the worker to have the mappings looked at anew.
    pub fn want_resolve(&self) {
        self.control().resolve_wanted.store(true, Ordering::Release);
        self.wake_worker(true);
    }

    pub fn take_resolve_wanted(&self) -> bool {
        self.control().resolve_wanted.swap(false, Ordering::AcqRel)
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
        self.set_connected(false);
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

    fn waiters(&self) -> &[AtomicU64] {
        // SAFETY: there is one for each backend, zeroed by the startup hook.
        unsafe { std::slice::from_raw_parts(self.waiters, self.control().max_backends as usize) }
    }

    /// A backend waits until the tail reaches that position, which is above 0.
    pub fn set_waiter(&self, backend: usize, position: u64) {
        if let Some(waiter) = self.waiters().get(backend)
            && waiter.swap(position.max(1), Ordering::SeqCst) == 0
        {
            self.control().waiting.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub fn clear_waiter(&self, backend: usize) {
        if let Some(waiter) = self.waiters().get(backend)
            && waiter.load(Ordering::Relaxed) != 0
            && waiter.swap(0, Ordering::SeqCst) != 0
        {
            self.control().waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether a backend waits for the tail to move.
    pub fn somebody_waits(&self) -> bool {
        self.control().waiting.load(Ordering::Relaxed) != 0
    }

    /// Wakes the backends that waited for the tail to come this far. Called by the worker.
    pub fn wake_waiters(&self, tail: u64) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.control().waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        for (backend, waiter) in self.waiters().iter().enumerate() {
            if (1..=tail).contains(&waiter.load(Ordering::SeqCst)) {
                self.set_latch_of(backend);
            }
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

fn kind_number(kind: KeyKind) -> u32 {
    match kind {
        KeyKind::Int => 1,
        KeyKind::Uuid => 2,
        KeyKind::Bool => 3,
        KeyKind::Text => 4,
    }
}

fn kind_from(number: u32) -> KeyKind {
    match number {
        1 => KeyKind::Int,
        2 => KeyKind::Uuid,
        3 => KeyKind::Bool,
        _ => KeyKind::Text,
    }
}

/// Where each part lies.
struct Plan {
    total: Layout,
    offsets: [usize; 11],
}

fn plan() -> Plan {
    let mappings = gucs::max_mappings();
    let backends = max_backends();
    // The settings' upper bounds keep all of these far below isize::MAX.
    let parts = [
        Some(Layout::new::<Control>()),
        Layout::array::<MappingPlace>(mappings).ok(),
        Layout::array::<MappingStats>(mappings).ok(),
        Gates::layout(mappings).ok(),
        Slots::layout(gucs::hash_slots()).ok(),
        Hints::layout(hints()).ok(),
        Commits::layout(backends).ok(),
        Replies::layout(backends).ok(),
        Lag::layout().ok(),
        Ring::layout(gucs::queue_bytes()).ok(),
        Layout::array::<AtomicU64>(backends).ok(),
    ];
    let mut total = Layout::new::<u64>();
    let mut offsets = [0; 11];
    for (offset, part) in offsets.iter_mut().zip(parts) {
        let laid = part
            .and_then(|part| part.align_to(128).ok())
            .and_then(|part| total.extend(part).ok());
        let Some((extended, at)) = laid else {
            pgrx::error!("pg_redis_cache: the settings ask for more shared memory than an address space has");
        };
        total = extended;
        *offset = at;
    }
    Plan { total, offsets }
}

/// A hint that another key's overwrites costs a fill, where a shared slot costs little: there are four times as many.
fn hints() -> usize {
    gucs::hash_slots() * 4
}

fn max_backends() -> usize {
    // SAFETY: set before the request hooks run (postmaster.c, since 15).
    unsafe { pg_sys::MaxBackends as usize }
}

/// Puts the hooks in place that ask for the memory and lay it out.
pub fn init() {
    // SAFETY: the postmaster preloads libraries in one thread.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: called by the postmaster; chains first.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(plan().total.size() + 128);
        pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), 2);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: called once for each (re)initialisation of shared memory; chains first.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        let plan = plan();
        let mut found = false;
        let memory =
            pg_sys::ShmemInitStruct(TRANCHE.as_ptr(), plan.total.size() + 128, &raw mut found).cast::<u8>();
        let base = memory.add(memory.align_offset(128));
        let locks = pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr());
        SHARED = Some(if found {
            attach(base, &plan, locks)
        } else {
            make(base, &plan, locks)
        });
    }
}

unsafe fn make(base: *mut u8, plan: &Plan, locks: *mut pg_sys::LWLockPadded) -> Shared {
    let mappings = gucs::max_mappings();
    let at = |index: usize| plan.offsets[index];
    // SAFETY: the memory is of the plan's size, ours alone until the postmaster goes on, and zero is a valid
    // state of Control, MappingPlace and MappingStats: integers and atomics.
    unsafe {
        base.write_bytes(0, at(3));
        base.add(at(10))
            .write_bytes(0, max_backends() * size_of::<AtomicU64>());
        (*base.add(at(0)).cast::<Control>()).max_backends = max_backends() as u32;
        let made = [
            Gates::init_in_place(base.add(at(3)), mappings).is_ok(),
            Slots::init_in_place(base.add(at(4)), gucs::hash_slots()).is_ok(),
            Hints::init_in_place(base.add(at(5)), hints()).is_ok(),
            Commits::init_in_place(base.add(at(6)), max_backends()).is_ok(),
            Replies::init_in_place(base.add(at(7)), max_backends()).is_ok(),
            Lag::init_in_place(base.add(at(8))).is_ok(),
            Ring::init_in_place(base.add(at(9)), gucs::queue_bytes()).is_ok(),
        ];
        if made.contains(&false) {
            pgrx::error!("pg_redis_cache: the settings ask for more shared memory than an address space has");
        }
        attach(base, plan, locks)
    }
}

unsafe fn attach(base: *mut u8, plan: &Plan, locks: *mut pg_sys::LWLockPadded) -> Shared {
    let at = |index: usize| plan.offsets[index];
    // SAFETY: `make` has made all of it, and the segment lives as long as any process attached to it.
    unsafe {
        Shared {
            control: base.add(at(0)).cast(),
            places: base.add(at(1)).cast(),
            stats: base.add(at(2)).cast(),
            mappings: gucs::max_mappings(),
            gates: Gates::attach(base.add(at(3))),
            slots: Slots::attach(base.add(at(4))),
            hints: Hints::attach(base.add(at(5))),
            commits: Commits::attach(base.add(at(6))),
            replies: Replies::attach(base.add(at(7))),
            lag: Lag::attach(base.add(at(8))),
            ring: Ring::attach(base.add(at(9))),
            waiters: base.add(at(10)).cast(),
            ring_lock: &raw mut (*locks).lock,
            text_lock: &raw mut (*locks.add(1)).lock,
        }
    }
}
