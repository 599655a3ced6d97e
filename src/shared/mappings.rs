//! What shared memory says of each mapping.
use std::sync::atomic::{AtomicU32, Ordering};

use pg_redis_cache_core::{
    config::{KeyTemplate, MAX_SERVERS},
    encode::key::KeyKind,
};

use super::{
    Shared,
    blocks::{Look, MAX_KEY_COLUMNS, MappingPlace, MappingState, MappingStats, kind_from, kind_number},
    lock,
};

impl Shared {
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
        kinds_of(place, &place.kinds)
    }

    /// The kinds by which a mapping's keys are to be purged, and a number for [`Self::purged_by_kinds_locked`]. The
    /// caller holds the ring's lock.
    pub fn past_kinds_locked(&self, mapping: u16) -> Option<(Vec<KeyKind>, u64)> {
        let place = self.place(mapping);
        let kinds = kinds_of(place, &place.past_kinds)?;
        Some((kinds, place.kind_changes.load(Ordering::Relaxed)))
    }

    /// A purge that was sent with what [`Self::past_kinds_locked`] told is done: unless they have changed since, the
    /// kinds from before are of no interest any more. The caller holds the ring's lock.
    pub fn purged_by_kinds_locked(&self, mapping: u16, changes: u64) {
        let place = self.place(mapping);
        if place.kind_changes.load(Ordering::Relaxed) == changes {
            for (past, kind) in place.past_kinds.iter().zip(&place.kinds) {
                past.store(kind.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
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

    /// How far the resolver that was started last has come with a mapping.
    pub fn look(&self, mapping: u16) -> Look {
        Look::from(self.place(mapping).look.load(Ordering::Acquire))
    }

    pub fn set_look(&self, mapping: u16, look: Look) {
        self.place(mapping).look.store(look as u32, Ordering::Release);
    }

    /// A mapping has been purged: what the hints say of its keys up to this time counts no more.
    pub fn set_purged_at(&self, mapping: u16, now_ms: u64) {
        self.place(mapping).purged_at_ms.store(now_ms, Ordering::Relaxed);
    }

    /// How old a hint of a mapping's key may be to count, at most `interval_ms`: it must be from after the last
    /// purge. One that seems to be to come, as the clock went back, is passed over.
    pub fn hint_age_ms(&self, mapping: u16, now_ms: u64, interval_ms: u64) -> u64 {
        let since = now_ms.checked_sub(self.place(mapping).purged_at_ms.load(Ordering::Relaxed));
        since.map_or(interval_ms, |since| since.min(interval_ms))
    }

    /// The places that are used.
    pub fn occupied(self) -> impl Iterator<Item = u16> {
        (0..self.mappings as u16).filter(move |mapping| self.state(*mapping) != MappingState::Free)
    }

    /// A place that is not used.
    pub fn free_place(&self) -> Option<u16> {
        (0..self.mappings as u16).find(|place| self.state(*place) == MappingState::Free)
    }

    /// Stores the kinds of a mapping's key columns. The caller holds the ring's lock.
    pub fn set_kinds_locked(&self, mapping: u16, kinds: &[KeyKind]) {
        let place = self.place(mapping);
        let known = place.keys.load(Ordering::Acquire) > 0;
        let count = kinds.len().min(MAX_KEY_COLUMNS);
        for (column, kind) in kinds.iter().enumerate().take(count) {
            let number = kind_number(*kind);
            place.kinds[column].store(number, Ordering::Relaxed);
            let past = &place.past_kinds[column];
            if !known {
                past.store(number, Ordering::Relaxed);
            } else if past.load(Ordering::Relaxed) != number {
                // Text is what every kind's keys are, too.
                past.store(kind_number(KeyKind::Text), Ordering::Relaxed);
                place.kind_changes.fetch_add(1, Ordering::Relaxed);
            }
        }
        place.keys.store(count as u32, Ordering::Release);
    }

    /// The number of the server that has a mapping's keys.
    pub fn server_of(&self, mapping: u16) -> usize {
        let server = self.place(mapping).server.load(Ordering::Relaxed) as usize;
        server.min(MAX_SERVERS - 1)
    }

    /// Puts a mapping into a place, and its server as well if need be. Returns whether there was a place for that. The
    /// caller holds the ring's lock.
    pub fn occupy_locked(&self, mapping: u16, fingerprint: u64, template: &str, server: &str) -> bool {
        let Some(server) = self.place_server_locked(server) else {
            return false;
        };
        let place = self.place(mapping);
        place.server.store(server as u32, Ordering::Relaxed);
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
        true
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
}

fn kinds_of(place: &MappingPlace, kinds: &[AtomicU32]) -> Option<Vec<KeyKind>> {
    let count = place.keys.load(Ordering::Acquire) as usize;
    let read = |kind: &AtomicU32| kind_from(kind.load(Ordering::Relaxed));
    (count > 0).then(|| kinds[..count].iter().map(read).collect())
}
