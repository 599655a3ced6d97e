//! Rule 9: everyone reads the same list, and the worker publishes which one that is.
use std::num::NonZeroU64;

use pg_redis_cache_core::{
    config::{MAX_SERVERS, Mapping},
    redis::Expiry,
};

use super::{Worker, Written};
use crate::{
    capture::relations,
    gucs,
    shared::{MappingState, Shared},
    xact,
};

impl Worker {
    /// Brings the places in shared memory in line with the settings, and publishes the list.
    ///
    /// A mapping that is new gets a place and waits for the resolver. One that is gone is retired: its keys are
    /// purged, and then its place is free. While `enabled` is off the list counts as empty, so that nothing is
    /// left in Redis that nobody keeps in step.
    pub(super) fn apply_list(&mut self) {
        let list = relations::configured();
        let fingerprint = relations::configured_fingerprint(&list);
        let default_database = gucs::text(&gucs::DATABASE);
        let wanted: Vec<(u64, Mapping)> = list
            .into_iter()
            .map(|mapping| (mapping.fingerprint(&default_database), mapping))
            .collect();
        let mut placeless = Vec::new();
        let mut serverless = Vec::new();
        let changed = {
            let last = xact::next_xid().saturating_sub(1);
            let _held = self.shared.lock_ring();
            let mut changed = self.shared.published() != fingerprint || self.shared.generation() == 0;
            changed |= retire(self.shared, &wanted, last);
            for (fingerprint, mapping) in &wanted {
                match place_for(self.shared, *fingerprint, mapping, last) {
                    Placing::Kept => {}
                    Placing::New => changed = true,
                    Placing::None => placeless.push(mapping.name.clone()),
                    Placing::NoServer => serverless.push(mapping.name.clone()),
                }
            }
            self.shared.gates().publish_list_locked(fingerprint);
            if changed {
                self.shared.bump_generation_locked();
            }
            changed
        };
        self.remember(&wanted);
        self.match_destinations();
        if !placeless.is_empty() {
            pgrx::log!(
                "pg_redis_cache: no place for mapping {}: raise pg_redis_cache.max_mappings ({})",
                placeless.join(", "),
                gucs::max_mappings()
            );
        }
        if !serverless.is_empty() {
            pgrx::log!(
                "pg_redis_cache: no place for the server of mapping {}: there can be {MAX_SERVERS}, with those that have left the list and are not purged yet",
                serverless.join(", ")
            );
        }
        if changed {
            self.resolvers.want_all();
        }
    }

    fn remember(&mut self, wanted: &[(u64, Mapping)]) {
        for mapping in self.shared.occupied() {
            let fingerprint = self.shared.fingerprint(mapping);
            let definition = wanted
                .iter()
                .find(|(other, _)| *other == fingerprint)
                .map(|(_, found)| found.clone());
            match definition {
                Some(definition) => {
                    let expiry = expiry(&definition);
                    self.written.insert(mapping, Written { expiry, definition });
                }
                None => {
                    self.written.remove(&mapping);
                }
            }
        }
    }
}

/// The fingerprint that no mapping has.
pub const NO_FINGERPRINT: u64 = 0;

fn expiry(mapping: &Mapping) -> Expiry {
    let milliseconds = mapping
        .ttl
        .and_then(|seconds| NonZeroU64::new(u64::from(seconds.get()) * 1000));
    milliseconds.map_or(Expiry::Never, Expiry::Milliseconds)
}

/// Retires what is no longer wanted. Returns whether there was any.
fn retire(shared: Shared, wanted: &[(u64, Mapping)], last: u64) -> bool {
    let mut any = false;
    for mapping in shared.occupied() {
        let fingerprint = shared.fingerprint(mapping);
        if shared.state(mapping) != MappingState::Retiring
            && !wanted.iter().any(|(other, _)| *other == fingerprint)
        {
            shared.set_state_locked(mapping, MappingState::Retiring);
            // Without a fingerprint no backend that still reads the old list can fill.
            shared.gates().define_locked(mapping, NO_FINGERPRINT, last);
            any = true;
        }
    }
    any
}

enum Placing {
    Kept,
    New,
    None,
    /// There is none for its server.
    NoServer,
}

fn place_for(shared: Shared, fingerprint: u64, mapping: &Mapping, last: u64) -> Placing {
    if let Some(place) = shared.mapping_of(fingerprint) {
        if shared.state(place) != MappingState::Retiring {
            return Placing::Kept;
        }
        // It has come back before its keys were purged: the purge stays due, and activation asks for another.
        shared.set_state_locked(place, MappingState::Pending);
        return Placing::New;
    }
    let Some(place) = shared.free_place() else {
        return Placing::None;
    };
    // Rule 9: a transaction may still hold changes of the mapping whose place this was.
    shared.gates().define_locked(place, NO_FINGERPRINT, last);
    let (template, server) = (mapping.template.to_string(), mapping.effective_server());
    if shared.occupy_locked(place, fingerprint, &template, server) {
        Placing::New
    } else {
        Placing::NoServer
    }
}
