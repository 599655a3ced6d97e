//! Rule 8: what a clean stop leaves behind, and what the next start makes of it.
//!
//! The document ([`Past`]) is in the data directory as [`file::NAME`], and on each server under a key of our own. The parts, in
//! the order in which they run:
//!
//! - In the postmaster, while libraries are preloaded, file and pg_control are read: before StartupXLOG changes
//!   pg_control. If they agree, no row has changed since the stop.
//! - As soon as shared memory is made, the mappings of the document get their places and are active, with a purge
//!   due: so whatever the first transaction changes is captured, though there is no worker yet. Only the first
//!   shared memory of a postmaster: when it recovers from the crash of a backend, nothing is known.
//! - The worker, if it is the first of that shared memory, waits with a server's purges until it has reached it. If
//!   the marker there is the same document, those purges count as done. A server that was away at the stop is not in
//!   the document, and is purged.
//! - At its end the worker writes the document, if the server is at rest.
//!
//! Guarantees that a document is believed once at most: the file is removed when a worker starts, and the engine
//! deletes Redis's marker before it sends anything else. Not guaranteed: that a stop leaves one. It does not on a
//! server that is away or that a purge is due on, nor anywhere while a prepared or other transaction is under way.
use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use pg_redis_cache_core::{
    coherence::{
        Reason,
        past::{Past, PastMapping, PastServer},
    },
    redis::{Expiry, Note, Server},
};
use pgrx::{pg_guard, pg_sys};

use super::{Worker, config::NO_FINGERPRINT, destination::Destination, heartbeat, register};
use crate::{
    capture::relations,
    shared::{MappingState, Shared},
    xact,
};

pub mod file;

/// How long a stop waits for other processes' transactions to end, once the ring is drained. A fast stop ends them
/// at the same time as the worker.
const FOR_OTHERS: Duration = Duration::from_secs(1);
/// What of `shutdown_timeout` is kept for the markers while a server is slow, at most.
const FOR_MARKERS: Duration = Duration::from_secs(1);

/// What the stop before this start has left, until the first shared memory is made.
static LEFT: Mutex<Option<Past>> = Mutex::new(None);
/// What the worker finds when it is forked.
static PREPARED: Mutex<Option<Claim>> = Mutex::new(None);
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// A past that is known if Redis says so, too.
#[derive(Clone)]
pub struct Claim {
    past: Past,
    /// The mappings that are active by it, and the epochs for which they then are purged.
    epochs: Vec<(u16, u64)>,
}

/// What a stop finds once PostgreSQL is at rest.
pub struct Rest {
    /// The full id that the next transaction would get.
    next_xid: u64,
    /// The servers that have everything, by number.
    servers: Vec<usize>,
}

/// Reads what the last stop has left. Called in the postmaster, after the hooks of shared memory are in place.
pub fn init() {
    match file::read() {
        Ok(left) => {
            replace(&LEFT, left);
        }
        Err(unknown) => pgrx::log!("pg_redis_cache: what was cached is purged: {unknown}"),
    }
    // SAFETY: the postmaster preloads libraries in one thread.
    unsafe {
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

/// Poisoning cannot be: nothing panics with the lock held, and there is one thread.
fn replace<T>(place: &Mutex<Option<T>>, value: Option<T>) -> Option<T> {
    let mut place = place.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    std::mem::replace(&mut *place, value)
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: called once for each (re)initialisation of shared memory; chains first, which makes ours.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
    }
    let Some(shared) = Shared::get() else { return };
    let claim = replace(&LEFT, None).map(|past| prepare(shared, past));
    replace(&PREPARED, claim);
    register::restore(shared);
}

/// Gives the mappings of the document their places, before there is any other process.
fn prepare(shared: Shared, past: Past) -> Claim {
    let list = relations::configured();
    let listed = relations::fingerprints(&list);
    let last = past.next_xid.saturating_sub(1);
    let mut epochs = Vec::new();
    {
        let _held = shared.lock_ring();
        for (place, known) in (0..shared.mappings() as u16).zip(&past.mappings) {
            if !shared.occupy_locked(place, known.fingerprint, &known.template, &known.server) {
                continue; // there were no more servers at the stop than there can be
            }
            shared.set_kinds_locked(place, &known.kinds);
            shared.set_relation_locked(place, known.relation);
            if listed.contains(&known.fingerprint) {
                shared.gates().define_locked(place, known.fingerprint, last);
                shared.set_state_locked(place, MappingState::Active);
                epochs.push((place, shared.gates().note(place)));
            } else {
                // It has left the list while the server was down.
                shared.gates().define_locked(place, NO_FINGERPRINT, last);
                shared.set_state_locked(place, MappingState::Retiring);
            }
        }
        shared
            .gates()
            .publish_list_locked(relations::configured_fingerprint(&list));
        shared.bump_generation_locked();
    }
    shared.set_prepared();
    Claim { past, epochs }
}

/// What the worker that has just started may believe. No later one believes anything.
pub fn claim(shared: Shared) -> Option<Claim> {
    let claim = replace(&PREPARED, None);
    // SAFETY: recovery has finished, or there would be no worker.
    let timeline = unsafe { pg_sys::GetWALInsertionTimeLine() };
    claim.filter(|claim| shared.take_prepared() && claim.past.timeline == timeline)
}

/// 128 random bits, in hexadecimal digits.
fn nonce() -> Option<String> {
    let mut bytes = [0u8; 16];
    // SAFETY: fills the array.
    let random = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    random.then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A key of our own in Redis. Clusters that share one have different ones.
pub fn own_key(what: &str) -> Vec<u8> {
    // SAFETY: a plain read of what the postmaster has read from pg_control.
    let cluster = unsafe { pg_sys::GetSystemIdentifier() };
    format!("pg_redis_cache:{what}:{cluster}").into_bytes()
}

/// Where the marker is in Redis.
pub fn key() -> Vec<u8> {
    own_key("marker")
}

impl Destination {
    /// What comes is dropped from now on, because nobody knows where the server is: its marker, which does not tell of
    /// that, is not to be believed once it is back. The purges stay due.
    pub(super) fn disbelieve(&mut self) {
        let Some(claim) = self.past.take() else { return };
        for (mapping, _) in claim.epochs {
            self.shared.stats(mapping).purge_wanted(Reason::Start);
        }
        let text = "what was cached is purged when it is back: it left the list";
        pgrx::log!("pg_redis_cache: {}", self.said(text));
    }
}

impl Worker {
    /// A destination is reached for the first time, and has this marker: the purges that are due since shared memory was made count
    /// as done if what it holds is known to be right.
    pub(super) fn settle_past(&mut self, at: usize, server: &Server, marker: Option<&[u8]>) {
        let Some(claim) = self.destinations[at].past.take() else {
            return;
        };
        let now = PastServer {
            name: self.destinations[at].name.clone(),
            run_id: server.run_id.clone(),
            replication_id: server.replication_id.clone(),
        };
        let known = claim.past.check_redis(marker, &now);
        for (mapping, epoch) in claim.epochs {
            if known.is_ok() {
                self.shared.gates().purged(mapping, epoch);
            } else {
                self.shared.stats(mapping).purge_wanted(Reason::Start);
            }
        }
        let text = match known {
            Ok(()) => "what was cached when the server stopped is kept".to_owned(),
            Err(unknown) => format!("what was cached is purged: {unknown}"),
        };
        pgrx::log!("pg_redis_cache: {}", self.destinations[at].said(&text));
    }

    /// Each server that the document names may have kept what it held, once it is reached.
    pub(super) fn distribute(&mut self, claim: Option<Claim>) {
        let Some(claim) = claim else { return };
        let shared = self.shared;
        for (at, destination) in self.destinations.iter_mut().enumerate() {
            let named = |server: &PastServer| server.name == destination.name;
            if claim.past.servers.iter().any(named) {
                let mut part = claim.clone();
                part.epochs
                    .retain(|(mapping, _)| shared.server_of(*mapping) == at);
                destination.past = Some(part);
            }
        }
    }

    /// Writes what is still in the ring. Returns which servers have everything, if PostgreSQL is at rest then. Who is
    /// away is not waited for while another is there, nor is a purge for longer than [`FOR_OTHERS`]; and who is merely
    /// slow leaves the others the time for their markers.
    pub(super) fn drain(&mut self, deadline: Instant) -> Option<Rest> {
        let left = deadline.saturating_duration_since(Instant::now());
        let last_call = deadline - FOR_MARKERS.min(left / 4);
        let mut drained_at = None;
        while !self.engine_ended {
            let there = |at: &usize| self.destinations[*at].connected;
            if !(0..self.destinations.len()).any(|at| there(&at)) {
                return None;
            }
            let reached: Vec<usize> = (0..self.destinations.len())
                .filter(|at| there(at) && !self.destinations[*at].is_away())
                .collect();
            if Instant::now() >= last_call {
                return self.at_rest(&reached);
            }
            if !reached.is_empty() && reached.iter().all(|at| self.has_gone_through_all(*at)) {
                let rest = self.at_rest(&reached);
                let drained_at = drained_at.get_or_insert_with(Instant::now);
                if rest.as_ref().is_some_and(|rest| rest.servers == reached)
                    || drained_at.elapsed() >= FOR_OTHERS
                {
                    return rest;
                }
            }
            if !self.work() {
                self.wait_set.wait(Duration::from_millis(10));
            }
        }
        None
    }

    /// Whether a server has acknowledged everything that is in the ring. One that has been given up, and is not purged
    /// yet, still lacks what was dropped.
    fn has_gone_through_all(&self, at: usize) -> bool {
        let head = self.shared.ring().head();
        self.feed.position == head && self.destinations[at].on_its_way.gone_through(head) == head
    }

    /// The next transaction id, if every transaction with a lower one has ended, and the servers that have what it
    /// changed. Who gets that id or a later one, as a walsender may, moves the one that the shutdown checkpoint writes.
    fn at_rest(&self, reached: &[usize]) -> Option<Rest> {
        let next_xid = xact::next_xid();
        // SAFETY: takes and releases XidGenLock and ProcArrayLock. Prepared transactions count as active.
        let oldest = unsafe { pg_sys::GetOldestActiveTransactionId() };
        // In this order: who is no longer active counts as committing until it has appended.
        if oldest.into_inner() != next_xid as u32 || !self.shared.commits().idle() {
            return None;
        }
        let has_everything = |at: &usize| {
            let destination = &self.destinations[*at];
            destination.past.is_none()
                && destination.again.is_empty()
                && self.is_drained(*at)
                && self.is_purged(*at)
        };
        let servers: Vec<usize> = reached.iter().copied().filter(has_everything).collect();
        (!servers.is_empty()).then_some(Rest { next_xid, servers })
    }

    /// Whether a server has everything that is in the ring.
    fn is_drained(&self, at: usize) -> bool {
        let destination = &self.destinations[at];
        let head = self.shared.ring().head();
        self.feed.position == head && destination.position(head) == head
    }

    fn is_purged(&self, at: usize) -> bool {
        let shared = self.shared;
        let mut there = shared
            .occupied()
            .filter(|mapping| shared.server_of(*mapping) == at);
        there.all(|mapping| shared.gates().purge_due(mapping).is_none() || !shared.has_kinds(mapping))
    }

    /// Writes the document to the data directory and to each of the servers. Returns whether one of these has it.
    pub(super) fn leave_markers(&mut self, rest: &Rest, deadline: Instant) -> bool {
        let Some(past) = self.past_of(rest) else {
            return false;
        };
        if !file::write(&past.to_document()) {
            return false;
        }
        let mut stored = false;
        for at in &rest.servers {
            let Some(server) = self.destinations[*at].server.clone() else {
                continue;
            };
            let note = Note {
                ticket: heartbeat::next_ticket(&mut self.tickets),
                server,
                key: key(),
                value: Some(past.to_marker(&self.destinations[*at].name).into_bytes()),
                expiry: Expiry::Never,
            };
            stored |= self.note_and_wait(*at, note, deadline);
        }
        if !stored {
            file::remove();
        }
        stored
    }

    /// After the engines have ended: the markers do not hold if one had something to report since.
    pub(super) fn withdraw_if_lost(&self, rest: &Rest) {
        if !rest.servers.iter().all(|at| self.is_purged(*at)) {
            file::remove();
        }
    }

    fn past_of(&self, rest: &Rest) -> Option<Past> {
        let shared = self.shared;
        let server = |at: &usize| {
            let destination = &self.destinations[*at];
            let server = destination.server.as_ref()?;
            Some(PastServer {
                name: destination.name.clone(),
                run_id: server.run_id.clone(),
                replication_id: server.replication_id.clone(),
            })
        };
        let is_meant = |mapping: &u16| {
            shared.state(*mapping) == MappingState::Active
                && rest.servers.contains(&shared.server_of(*mapping))
        };
        let described = |mapping: u16| {
            Some(PastMapping {
                fingerprint: shared.fingerprint(mapping),
                relation: shared.relation(mapping),
                kinds: shared.kinds(mapping)?,
                template: shared.template(mapping)?.to_string(),
                server: shared.server_name(shared.server_of(mapping)),
            })
        };
        Some(Past {
            versions: file::versions(),
            // SAFETY: plain reads; recovery has finished.
            system_identifier: unsafe { pg_sys::GetSystemIdentifier() },
            timeline: unsafe { pg_sys::GetWALInsertionTimeLine() },
            next_xid: rest.next_xid,
            nonce: nonce()?,
            servers: rest.servers.iter().filter_map(server).collect(),
            mappings: shared.occupied().filter(is_meant).filter_map(described).collect(),
        })
    }
}
