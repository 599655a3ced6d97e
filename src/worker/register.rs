//! The register of the mappings that may have keys in Redis, in the data directory as [`FILE`].
//!
//! When nothing is known of the past (rule 8), what an earlier run has cached must go, whatever the settings say by
//! now: the mapping may have left the list, `enabled` may be off, its table may be locked, gone or unfit, its key
//! columns may have another type. Shared memory is new then, so it is written here which templates the keys have,
//! and which kinds of key columns.
//!
//! - The worker writes the register before it takes the first entry of a mapping off the ring, and again whenever
//!   mappings come or go ([`Worker::keep_register`]).
//! - The postmaster reads it whenever it makes shared memory, and puts the mappings back into places with a purge
//!   due: waiting for the resolver if they are listed, retiring if not.
//!
//! Guaranteed to be on disk before a key can be. Who finds no place (the setting `max_mappings` was lowered) stays in
//! the register and gets one that becomes free; the log says so.
use std::{
    ffi::{CStr, OsStr},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Mutex, MutexGuard},
};

use pg_redis_cache_core::coherence::{
    Reason,
    past::{PastMapping, Unknown},
    register,
};
use pgrx::pg_sys;

use super::{Worker, config::NO_FINGERPRINT};
use crate::{
    capture::relations,
    gucs,
    shared::{MappingState, Shared},
};

/// Beside the marker.
const FILE: &CStr = c"pg_stat/pg_redis_cache.mappings";
/// Written first, and then renamed.
const NEW_FILE: &CStr = c"pg_stat/pg_redis_cache.mappings.new";

/// The mappings of the register for which there was no place. Found by the worker when it is forked.
static PLACELESS: Mutex<Vec<PastMapping>> = Mutex::new(Vec::new());

/// What the worker has written last.
#[derive(Default)]
pub struct Register {
    /// As of which generation of shared memory.
    generation: Option<u64>,
    document: Option<String>,
}

impl Register {
    /// Has it written anew although the generation is the same.
    pub(super) fn expire(&mut self) {
        self.generation = None;
    }
}

/// Puts the mappings of the register into places. Called in the postmaster, before there is any other process.
pub fn restore(shared: Shared) {
    let known = match read() {
        Ok(known) => known,
        Err(problem) => {
            pgrx::warning!(
                "pg_redis_cache: {} {problem}: keys of mappings that are not in the list any more may be left in Redis",
                path(FILE).display()
            );
            Vec::new()
        }
    };
    let placeless = place_all(shared, known);
    tell(&placeless);
    *placeless_lock() = placeless;
}

/// Gives places that have become free to mappings that found none.
pub fn restore_rest(shared: Shared) {
    let mut placeless = placeless_lock();
    if !placeless.is_empty() {
        *placeless = place_all(shared, std::mem::take(&mut placeless));
    }
}

/// Poisoning cannot be: nothing panics with the lock held, and there is one thread.
fn placeless_lock() -> MutexGuard<'static, Vec<PastMapping>> {
    PLACELESS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Returns the mappings for which there was no place.
fn place_all(shared: Shared, known: Vec<PastMapping>) -> Vec<PastMapping> {
    let listed = relations::fingerprints(&relations::configured());
    let is_left = |mapping: &PastMapping| {
        let fingerprint = mapping.fingerprint;
        shared.mapping_of(fingerprint).is_none() && !place(shared, mapping, listed.contains(&fingerprint))
    };
    known.into_iter().filter(is_left).collect()
}

/// Returns whether there was a place.
fn place(shared: Shared, mapping: &PastMapping, is_listed: bool) -> bool {
    let _held = shared.lock_ring();
    let Some(place) = shared.free_place() else {
        return false;
    };
    if !shared.occupy_locked(place, mapping.fingerprint, &mapping.template, &mapping.server) {
        return false;
    }
    shared.set_kinds_locked(place, &mapping.kinds);
    // Without a fingerprint nobody can fill, so that the floor is of no interest yet.
    shared.gates().define_locked(place, NO_FINGERPRINT, 0);
    shared.stats(place).purge_wanted(Reason::Start);
    if !is_listed {
        shared.set_state_locked(place, MappingState::Retiring);
    }
    true
}

fn tell(placeless: &[PastMapping]) {
    let templates: Vec<&str> = placeless
        .iter()
        .map(|mapping| mapping.template.as_str())
        .collect();
    if !templates.is_empty() {
        pgrx::warning!(
            "pg_redis_cache: the keys {} of an earlier list are purged when there is a place for them: \
             raise pg_redis_cache.max_mappings ({}) if that takes long",
            templates.join(", "),
            gucs::max_mappings()
        );
    }
}

fn read() -> Result<Vec<PastMapping>, String> {
    match fs::read(path(FILE)) {
        Ok(document) => register::from_document(&document)
            .map_err(|_: Unknown| "is damaged or of another version".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot be read ({error})")),
    }
}

/// On disk, even if the machine fails, as far as `fsync` is on.
fn write(document: &str) -> bool {
    let written = fs::write(path(NEW_FILE), document);
    if let Err(error) = &written {
        pgrx::warning!(
            "pg_redis_cache: {} cannot be written: {error}",
            path(NEW_FILE).display()
        );
        return false;
    }
    // SAFETY: two paths; with that level it reports a failure to the log and returns -1 (fd.c, durable_rename).
    let renamed = unsafe { pg_sys::durable_rename(NEW_FILE.as_ptr(), FILE.as_ptr(), pg_sys::WARNING as i32) };
    renamed == 0
}

fn path(name: &'static CStr) -> &'static Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

impl Worker {
    /// Makes the register say what shared memory says, if that has changed. Called before an entry is taken off the
    /// ring: who has appended it had seen its mapping active, and so the generation has moved by then.
    pub(super) fn keep_register(&mut self) {
        if self.register.generation == Some(self.shared.generation()) {
            return;
        }
        let (generation, mappings) = self.mappings_with_keys();
        self.register.generation = Some(generation);
        let nothing_yet = mappings.is_empty() && self.register.document.is_none() && !path(FILE).exists();
        let document = register::to_document(&mappings);
        // Once is tried what fails: the cache must not wait for a disk, and the next change tries again.
        if !nothing_yet && self.register.document.as_ref() != Some(&document) && write(&document) {
            self.register.document = Some(document);
        }
    }

    /// The mappings that may have keys, and the generation of shared memory that says so.
    fn mappings_with_keys(&self) -> (u64, Vec<PastMapping>) {
        let shared = self.shared;
        let _held = shared.lock_ring();
        let described = |mapping: u16| {
            Some(PastMapping {
                fingerprint: shared.fingerprint(mapping),
                relation: shared.relation(mapping),
                kinds: shared.past_kinds_locked(mapping)?.0,
                template: shared.template(mapping)?.to_string(),
                server: shared.server_name(shared.server_of(mapping)),
            })
        };
        let placeless = placeless_lock();
        let mappings = shared
            .occupied()
            .filter_map(described)
            .chain(placeless.iter().cloned());
        (shared.generation(), mappings.collect())
    }
}
