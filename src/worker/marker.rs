//! Rule 8: what a clean stop leaves behind, and what the next start makes of it.
//!
//! The document ([`Past`]) is in the data directory as [`FILE`], and in Redis under a key of our own. The parts, in
//! the order in which they run:
//!
//! - In the postmaster, while libraries are preloaded, file and pg_control are read: before StartupXLOG changes
//!   pg_control. If they agree, no row has changed since the stop.
//! - As soon as shared memory is made, the mappings of the document get their places and are active, with a purge
//!   due: so whatever the first transaction changes is captured, though there is no worker yet. Only the first
//!   shared memory of a postmaster: when it recovers from the crash of a backend, nothing is known.
//! - The worker, if it is the first of that shared memory, waits with every purge until it has reached Redis. If
//!   the marker there is the same document, those purges count as done.
//! - At its end the worker writes the document, if the server is at rest.
//!
//! Guarantees that a document is believed once at most: the file is removed when a worker starts, and the engine
//! deletes Redis's marker before it sends anything else. Not guaranteed: that a stop leaves one. It does not while
//! Redis is away, a purge is due, or a prepared or other transaction is under way.
use std::{
    fs, io,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use pg_redis_cache_core::{
    coherence::{
        Reason,
        past::{Past, PastMapping, Stop, Unknown},
    },
    redis::{Expiry, Note, Server},
};
use pgrx::{
    pg_guard,
    pg_sys::{self, DBState},
};

use super::{Worker, config::NO_FINGERPRINT, heartbeat, register};
use crate::{
    capture::relations,
    shared::{MappingState, Shared},
    xact,
};

/// In the data directory, beside the statistics that outlive a restart (pgstat.h, PGSTAT_STAT_PERMANENT_DIRECTORY).
const FILE: &str = "pg_stat/pg_redis_cache.marker";
/// Written first, and then renamed.
const NEW_FILE: &str = "pg_stat/pg_redis_cache.marker.new";
/// The files that make a start recover (xlogrecovery.c, readRecoverySignalFile, read_backup_label).
const SIGNS_OF_RECOVERY: [&str; 3] = ["standby.signal", "recovery.signal", "backup_label"];
/// How long a stop waits for other processes' transactions to end, once the ring is drained. A fast stop ends them
/// at the same time as the worker.
const FOR_OTHERS: Duration = Duration::from_secs(1);

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

/// Reads what the last stop has left. Called in the postmaster, after the hooks of shared memory are in place.
pub fn init() {
    match read() {
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

fn read() -> Result<Option<Past>, Unknown> {
    let document = match fs::read(FILE) {
        Ok(document) => document,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err(Unknown::Unreadable),
    };
    let past = Past::from_document(&document)?;
    past.check_stop(&stop(), &versions())?;
    Ok(Some(past))
}

/// What pg_control says. The working directory is the data directory (postmaster.c, ChangeToDataDir).
fn stop() -> Stop {
    let mut intact = false;
    // SAFETY: the path is set; the answer is allocated, and is released here.
    unsafe {
        let control = pg_sys::get_controlfile(pg_sys::DataDir, &raw mut intact);
        let recovers = SIGNS_OF_RECOVERY.iter().any(|sign| Path::new(sign).exists());
        let stop = Stop {
            clean: intact && !recovers && (*control).state == DBState::DB_SHUTDOWNED,
            system_identifier: (*control).system_identifier,
            timeline: (*control).checkPointCopy.ThisTimeLineID,
            next_xid: (*control).checkPointCopy.nextXid.value,
        };
        pg_sys::pfree(control.cast());
        stop
    }
}

/// This library's version and the server's.
fn versions() -> String {
    // SAFETY: the setting exists in every server; its text stays while it is copied.
    let server = unsafe {
        let text = pg_sys::GetConfigOption(c"server_version_num".as_ptr(), true, false);
        if text.is_null() {
            String::new()
        } else {
            std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    };
    format!("{} on {server}", env!("CARGO_PKG_VERSION"))
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
            shared.occupy_locked(place, known.fingerprint, &known.template);
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

/// Nobody is to believe the file any more.
pub fn remove_file() {
    if let Err(error) = fs::remove_file(FILE)
        && error.kind() != io::ErrorKind::NotFound
    {
        pgrx::warning!("pg_redis_cache: {FILE} cannot be removed: {error}");
    }
}

fn write_file(document: &str) -> bool {
    let written = fs::write(NEW_FILE, document).and_then(|()| fs::rename(NEW_FILE, FILE));
    if let Err(error) = &written {
        pgrx::log!("pg_redis_cache: {FILE} cannot be written: {error}");
    }
    written.is_ok()
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

impl Worker {
    /// The first server is reached, and has this marker: the purges that are due since shared memory was made count
    /// as done if what it holds is known to be right.
    pub(super) fn settle_past(&mut self, server: &Server, marker: Option<&[u8]>) {
        let Some(claim) = self.past.take() else { return };
        let known = claim
            .past
            .check_redis(marker, &server.run_id, &server.replication_id);
        for (mapping, epoch) in claim.epochs {
            if known.is_ok() {
                self.shared.gates().purged(mapping, epoch);
            } else {
                self.shared.stats(mapping).purge_wanted(Reason::Start);
            }
        }
        match known {
            Ok(()) => pgrx::log!("pg_redis_cache: what was cached when the server stopped is kept"),
            Err(unknown) => pgrx::log!("pg_redis_cache: what was cached is purged: {unknown}"),
        }
    }

    /// Writes what is still in the ring. Returns the next transaction id if the server is at rest then.
    pub(super) fn drain(&mut self, deadline: Instant) -> Option<u64> {
        let mut drained_at = None;
        while self.connected && !self.engine_ended && Instant::now() < deadline {
            if self.feed.is_drained(self.shared) {
                if let Some(next_xid) = self.at_rest() {
                    return Some(next_xid);
                }
                if drained_at.get_or_insert_with(Instant::now).elapsed() >= FOR_OTHERS {
                    return None;
                }
            }
            if !self.work() {
                self.wait_set.wait(Duration::from_millis(10));
            }
        }
        None
    }

    /// The next transaction id, if every transaction with a lower one has ended, and Redis has what it changed. Who
    /// gets that id or a later one, as a walsender may, moves the one that the shutdown checkpoint writes.
    fn at_rest(&self) -> Option<u64> {
        let next_xid = xact::next_xid();
        // SAFETY: takes and releases XidGenLock and ProcArrayLock. Prepared transactions count as active.
        let oldest = unsafe { pg_sys::GetOldestActiveTransactionId() };
        // In this order: who is no longer active counts as committing until it has appended.
        let at_rest = self.past.is_none()
            && self.again.is_empty()
            && oldest.into_inner() == next_xid as u32
            && self.shared.commits().idle()
            && self.feed.is_drained(self.shared)
            && self.is_purged();
        at_rest.then_some(next_xid)
    }

    fn is_purged(&self) -> bool {
        self.shared.occupied().all(|mapping| {
            self.shared.gates().purge_due(mapping).is_none() || !self.shared.has_kinds(mapping)
        })
    }

    /// Writes the document to both places. Returns whether both have it.
    pub(super) fn leave_marker(&mut self, next_xid: u64, deadline: Instant) -> bool {
        let Some(document) = self.document(next_xid) else {
            return false;
        };
        if !write_file(&document) {
            return false;
        }
        let note = Note {
            ticket: heartbeat::next_ticket(&mut self.tickets),
            key: key(),
            value: Some(document.into_bytes()),
            expiry: Expiry::Never,
        };
        let stored = self.note_and_wait(note, deadline);
        if !stored {
            remove_file();
        }
        stored
    }

    /// After the engine has ended: the marker does not hold if it had something to report since.
    pub(super) fn withdraw_if_lost(&self) {
        if !self.is_purged() {
            remove_file();
        }
    }

    fn document(&self, next_xid: u64) -> Option<String> {
        let server = self.server.as_ref()?;
        let active = |mapping: &u16| self.shared.state(*mapping) == MappingState::Active;
        let described = |mapping: u16| {
            Some(PastMapping {
                fingerprint: self.shared.fingerprint(mapping),
                relation: self.shared.relation(mapping),
                kinds: self.shared.kinds(mapping)?,
                template: self.shared.template(mapping)?.to_string(),
            })
        };
        let past = Past {
            versions: versions(),
            // SAFETY: plain reads; recovery has finished.
            system_identifier: unsafe { pg_sys::GetSystemIdentifier() },
            timeline: unsafe { pg_sys::GetWALInsertionTimeLine() },
            next_xid,
            run_id: server.run_id.clone(),
            replication_id: server.replication_id.clone(),
            nonce: nonce()?,
            mappings: self
                .shared
                .occupied()
                .filter(active)
                .filter_map(described)
                .collect(),
        };
        Some(past.to_document())
    }
}
