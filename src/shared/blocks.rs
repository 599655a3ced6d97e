//! What lies in shared memory beside the core crate's types: the worker's [`Control`] block, and what is known of
//! each mapping.
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use pg_redis_cache_core::{
    coherence::Reason,
    config::{MAX_NAME_BYTES, MAX_TEMPLATE_BYTES},
    encode::key::KeyKind,
};

/// Bytes of a text that a view shows.
pub(super) const TEXT_LENGTH: usize = 512;
/// Bytes of a key template as it prints; quotes are doubled there.
pub(super) const TEMPLATE_LENGTH: usize = 2 * MAX_TEMPLATE_BYTES + 2;
/// Bytes of a server's name.
pub(super) const NAME_LENGTH: usize = MAX_NAME_BYTES;
/// INDEX_MAX_KEYS: more key columns than that no index covers.
pub(super) const MAX_KEY_COLUMNS: usize = 32;

/// A text of limited length.
#[repr(C)]
pub(super) struct Text<const LENGTH: usize> {
    pub(super) length: u32,
    pub(super) bytes: [u8; LENGTH],
}

impl<const LENGTH: usize> Text<LENGTH> {
    pub(super) fn get(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..(self.length as usize).min(LENGTH)]).into_owned()
    }

    pub(super) fn set(&mut self, text: &str) {
        let mut end = text.len().min(LENGTH);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        self.length = end as u32;
    }
}

/// The texts of a server.
#[derive(Clone, Copy)]
pub enum StatusText {
    ServerVersion,
    LastError,
    Master,
}

/// What the worker tells of itself, and what it is told.
#[repr(C)]
pub struct Control {
    /// Grows with each change of the published list or of a mapping's state.
    pub(super) generation: AtomicU64,
    /// The worker's pgproc number plus one, 0 while there is none.
    pub(super) worker: AtomicU32,
    pub worker_pid: AtomicI32,
    /// The worker sleeps: whoever appends sets its latch.
    pub(super) sleeping: AtomicBool,
    /// Somebody wants the mappings looked at anew.
    pub(super) resolve_wanted: AtomicBool,
    /// This shared memory was made with what a clean stop has left, and no worker has started since (rule 8).
    pub(super) prepared: AtomicBool,
    /// The postmaster's count of assigned settings, see `gucs::postmaster_has_reloaded`.
    pub(super) assignments: AtomicU64,
    pub pool_size: AtomicU32,
    pub pool_idle: AtomicU32,
    pub pool_waiting: AtomicU32,
    pub max_backends: u32,
    /// How many backends wait for a position.
    pub(super) waiting: AtomicU32,
}

/// What is known of a server. The first is the one of the setting `url`.
#[repr(C)]
pub struct ServerPlace {
    /// What it is called, empty in a place that was never used.
    pub(super) name: Text<NAME_LENGTH>,
    pub(super) connected: AtomicBool,
    /// The worker does not know where it is, and is not connected to it.
    pub(super) gone: AtomicBool,
    /// Up to where it has what was in the ring, see `Shared::has_reached`.
    pub(super) position: AtomicU64,
    pub reconnects: AtomicU64,
    /// Microseconds since 2000, as TimestampTz; 0 for never.
    pub last_error_at: AtomicI64,
    /// Commit time of the oldest change that it has not acknowledged; 0 for none.
    pub oldest_unsent: AtomicI64,
    pub(super) texts: [Text<TEXT_LENGTH>; 3],
}

/// A backend that waits for a position.
#[repr(C)]
pub(super) struct Waiter {
    /// 0 for none.
    pub(super) position: AtomicU64,
    /// The servers that are waited for, a `ServerSet`.
    pub(super) servers: AtomicU32,
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
    pub(super) fn from(value: u32) -> Self {
        match value {
            1 => Self::Pending,
            2 => Self::Active,
            3 => Self::Error,
            4 => Self::Retiring,
            _ => Self::Free,
        }
    }
}

/// How far a resolver has come with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Look {
    /// It is not connected to the database.
    Nowhere = 0,
    /// It is, and has said nothing of the mapping: it is not there yet, or could not look.
    Connected = 1,
    /// It has said what it found.
    Done = 2,
}

impl Look {
    pub(super) fn from(value: u32) -> Self {
        match value {
            1 => Self::Connected,
            2 => Self::Done,
            _ => Self::Nowhere,
        }
    }
}

/// What is known of a mapping beside its gate.
#[repr(C)]
pub struct MappingPlace {
    pub(super) fingerprint: AtomicU64,
    pub(super) state: AtomicU32,
    /// The server that has its keys: the number of a [`ServerPlace`].
    pub(super) server: AtomicU32,
    /// Number of key columns, 0 while their types are not known.
    pub(super) keys: AtomicU32,
    pub(super) kinds: [AtomicU32; MAX_KEY_COLUMNS],
    /// The same, but wide enough for every kind that a column has had since the last purge: what is purged by.
    pub(super) past_kinds: [AtomicU32; MAX_KEY_COLUMNS],
    /// How often they have changed.
    pub(super) kind_changes: AtomicU64,
    /// The key template as it prints: a mapping that has left the list is purged by it.
    pub(super) template: Text<TEMPLATE_LENGTH>,
    /// The table's Oid, 0 while it is not known.
    pub(super) relation: AtomicU32,
    /// When it was purged last, in milliseconds on the clock of the hints: an older hint is of a key that is gone.
    pub(super) purged_at_ms: AtomicU64,
    /// How far the resolver that was started last has come, a [`Look`].
    pub(super) look: AtomicU32,
    pub(super) problem: Text<TEXT_LENGTH>,
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
    /// How often a purge was called for, by [`Reason`].
    pub reasons: [AtomicU64; Reason::ALL.len()],
}

impl MappingStats {
    /// A purge is called for.
    pub fn purge_wanted(&self, reason: Reason) {
        self.reasons[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

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
        ]
        .into_iter()
        .chain(&self.reasons)
        {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

pub(super) fn kind_number(kind: KeyKind) -> u32 {
    match kind {
        KeyKind::Int => 1,
        KeyKind::Uuid => 2,
        KeyKind::Bool => 3,
        KeyKind::Text => 4,
    }
}

pub(super) fn kind_from(number: u32) -> KeyKind {
    match number {
        1 => KeyKind::Int,
        2 => KeyKind::Uuid,
        3 => KeyKind::Bool,
        _ => KeyKind::Text,
    }
}
