//! The functions that go through the worker: `invalidate`, `invalidate_all`, `wait`, `ping`.
use std::time::Duration;

use pg_redis_cache_core::{
    coherence::MappingSet,
    encode::key::key_hash,
    ring::batch::{self, Invalidate},
};
use pgrx::{PgSqlErrorCode, VariadicArray, prelude::*};

use super::{keys, raise, shared};
use crate::{
    compat, gucs,
    shared::{ServerSet, Shared},
    xact::waiting::{self, Waited},
};

/// How long an invalidation or a ping waits for the worker's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The hints for want of an answer.
const NO_PING: &str = "See redis_cache.servers.";
const NO_INVALIDATION: &str =
    "An invalidation stays in the queue and is done when Redis is back. See redis_cache.servers.";

/// Deletes a key, in order with everything else that is on its way to Redis, and tells whether it was there.
/// NULL if that cannot be told, because the connection was lost meanwhile.
#[pg_extern(volatile, parallel_unsafe)]
fn invalidate(mapping: &str, key: default!(VariadicArray<'_, &str>, "'{}'")) -> Option<bool> {
    let shared = shared();
    let found = keys::find(shared, mapping);
    let (key, hash) = keys::encode(&found, mapping, key);
    let deleted = ask(shared, found.mapping.index, hash, &key, NO_INVALIDATION);
    (deleted >= 0).then_some(deleted > 0)
}

/// Deletes every key of a mapping and returns how many there were.
#[pg_extern(volatile, parallel_unsafe)]
fn invalidate_all(mapping: &str) -> i64 {
    let shared = shared();
    let found = keys::find(shared, mapping);
    invalidate_mapping(shared, found.mapping.index)
}

/// The same for a mapping by its number.
pub fn invalidate_mapping(shared: Shared, mapping: u16) -> i64 {
    ask(shared, mapping, 0, b"", NO_INVALIDATION)
}

/// Deletes keys of a mapping by its number, and returns when they are gone; see [`invalidate`]. None may be empty.
pub fn invalidate_keys(shared: Shared, mapping: u16, keys: &[Vec<u8>]) {
    let mut entry = Vec::new();
    for key in keys {
        entry.clear();
        Invalidate {
            mapping,
            hash: key_hash(key),
            key,
            reply: batch::NOBODY,
            ticket: 0,
        }
        .encode(&mut entry);
        if !append(shared, &entry) {
            // What has been appended makes room.
            settled(shared, mapping);
            append_or_raise(shared, &entry);
        }
    }
    settled(shared, mapping);
}

/// Waits until all that is in the queue is in Redis, and what was lost of it on the way is purged.
fn settled(shared: Shared, mapping: u16) {
    let started = std::time::Instant::now();
    let mut mappings = MappingSet::EMPTY;
    mappings.insert(mapping);
    let servers = ServerSet::of(shared, &mappings);
    let waited = waiting::wait_for(shared, shared.ring().head(), servers, PATIENCE);
    let left = PATIENCE.saturating_sub(started.elapsed());
    let due = shared.gates().purge_due(mapping).is_some();
    if waited != Waited::Done || due && waiting::wait_for_purges(shared, &mappings, left) != Waited::Done {
        no_answer(
            &format!("There was none within {} seconds.", PATIENCE.as_secs()),
            NO_INVALIDATION,
        );
    }
}

/// A round trip from the worker to a server.
#[pg_extern(volatile, parallel_unsafe)]
fn ping(server: default!(&str, "'default'")) -> Interval {
    let shared = shared();
    if gucs::servers::url_of(server).is_none() {
        raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("server \"{server}\" does not exist"),
            "",
            "The view redis_cache.servers lists the servers.",
        );
    }
    let Some(number) = shared.server_named(server) else {
        raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("server \"{server}\" is not connected to"),
            "No mapping has its keys there.",
            "",
        );
    };
    let microseconds = ask(shared, batch::PING, number as u64, b"", NO_PING);
    if microseconds < 0 {
        no_answer("Redis did not answer.", NO_PING);
    }
    Interval::from_micros(microseconds)
}

/// True once everything that had been committed before the call is in Redis; false if that takes longer.
#[pg_extern(volatile, parallel_unsafe)]
fn wait(timeout: default!(Interval, "'5s'")) -> bool {
    let shared = shared();
    let Ok(timeout) = Duration::try_from(timeout) else {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "the timeout of redis_cache.wait is not a time to wait",
            "",
            "Give a positive interval, for example '5s'.",
        );
    };
    caught_up(shared, None, timeout)
}

/// Waits until everything that has been committed is in Redis, of one mapping or of all; false if that takes longer.
pub fn caught_up(shared: Shared, mapping: Option<u16>, timeout: Duration) -> bool {
    // First those that are visible but have not appended yet, then the ring as it stands.
    let started = std::time::Instant::now();
    let number = shared.commits().counter_now();
    let committed = waiting::wait_until(shared, timeout, |shared| shared.commits().all_done(number), None);
    if committed != Waited::Done {
        return false;
    }
    let position = shared.ring().head();
    // Looked at anew each time: a server may leave the list meanwhile.
    let servers = |shared: Shared| match mapping {
        Some(mapping) => ServerSet::one(shared.server_of(mapping)),
        None => ServerSet::reachable(shared),
    };
    let waited = waiting::wait_until(
        shared,
        timeout.saturating_sub(started.elapsed()),
        |shared| shared.has_reached(position, servers(shared)),
        Some((position, servers(shared))),
    );
    waited == Waited::Done && purges_done(shared, mapping, timeout.saturating_sub(started.elapsed()))
}

/// What was to be purged for transactions that committed before is deleted, too; but on servers that have left the list
/// nobody can.
fn purges_done(shared: Shared, mapping: Option<u16>, timeout: Duration) -> bool {
    let due: Vec<(u16, u64)> = shared
        .occupied()
        .filter(|other| mapping.is_none_or(|mapping| *other == mapping))
        .filter_map(|mapping| Some((mapping, shared.gates().purge_due(mapping)?)))
        .collect();
    let done = |shared: Shared| {
        due.iter().all(|(mapping, epoch)| {
            shared.gates().is_purged(*mapping, *epoch)
                || !shared.has_kinds(*mapping)
                || shared.is_gone(shared.server_of(*mapping))
        })
    };
    due.is_empty() || waiting::wait_until(shared, timeout, done, None) == Waited::Done
}

/// Sends a question through the ring and waits for its answer, or raises with that hint.
fn ask(shared: Shared, mapping: u16, hash: u64, key: &[u8], hint: &str) -> i64 {
    let backend = compat::backend_number() as u32;
    let Some(ticket) = shared.replies().claim(backend) else {
        no_answer("This process cannot receive one.", hint);
    };
    let mut entry = Vec::new();
    Invalidate {
        mapping,
        hash,
        key,
        reply: backend,
        ticket,
    }
    .encode(&mut entry);
    if !append(shared, &entry) {
        shared.replies().release(backend, ticket);
        queue_full();
    }
    let answered = |shared: Shared| shared.replies().poll(backend, ticket).is_some();
    waiting::wait_until(shared, PATIENCE, answered, None);
    let answer = shared.replies().poll(backend, ticket);
    shared.replies().release(backend, ticket);
    match answer {
        Some(answer) => answer,
        None => no_answer(
            &format!("There was none within {} seconds.", PATIENCE.as_secs()),
            hint,
        ),
    }
}

fn append(shared: Shared, entry: &[u8]) -> bool {
    let reserved = {
        let _held = shared.lock_ring();
        // SAFETY: the ring's lock is held.
        unsafe { shared.ring().reserve_locked(entry.len()) }
    };
    let Ok(mut reservation) = reserved else {
        return false;
    };
    reservation.write(entry);
    reservation.publish();
    shared.wake_worker(false);
    true
}

fn append_or_raise(shared: Shared, entry: &[u8]) {
    if !append(shared, entry) {
        queue_full();
    }
}

fn queue_full() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        "the queue to Redis is full",
        "",
        "See redis_cache.status for what holds it up, or raise pg_redis_cache.queue_size.",
    )
}

fn no_answer(detail: &str, hint: &str) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
        "no answer from Redis",
        detail,
        hint,
    )
}
