//! Rule 7: a purge is a barrier.
//!
//! It reads the mapping's epoch, waits until everything that was in the ring at that moment has gone through
//! the lanes of the mapping's server, has the engine scan and delete the keys, and then stores the epoch that it had read. Purges asked
//! for meanwhile are thereby merged into one more.
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use pg_redis_cache_core::{
    coherence::Reason,
    redis::{PurgeJob, Request},
};
use pgrx::pg_sys;

use super::{Worker, register};
use crate::{gucs, shared::MappingState, xact};

/// The shortest time between two purges of a mapping. A purge that took longer is followed by a pause as long, but
/// no longer than the second: the time that it took may have been an outage.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long after its start the worker lets mappings wait for the resolver: activation asks for a purge, too, and
/// one scan of Redis is enough.
const FOR_RESOLVER: Duration = Duration::from_secs(2);
/// How long to wait after Redis has refused a purge.
const AFTER_REFUSAL: Duration = Duration::from_secs(2);

/// A backend that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub backend: u32,
    pub ticket: u64,
}

enum Stage {
    /// Waits until the mapping's server has had everything up to the position.
    Barrier { epoch: u64, position: u64 },
    Running {
        since: Instant,
        /// By which kinds of keys, see `Shared::past_kinds_locked`.
        kind_changes: u64,
    },
}

#[derive(Default)]
struct State {
    stage: Option<Stage>,
    not_before: Option<Instant>,
    /// With the epoch that must be purged before they are answered.
    askers: Vec<(u64, Asker)>,
}

/// The purges of all mappings.
#[derive(Default)]
pub struct Purges(HashMap<u16, State>);

impl Purges {
    /// When to look again.
    pub fn next_due(&self) -> Duration {
        let now = Instant::now();
        self.0
            .values()
            .filter_map(|state| state.not_before)
            .filter(|due| *due > now)
            .map(|due| due - now)
            .min()
            .unwrap_or(Duration::MAX)
    }
}

impl Worker {
    /// A backend asks for a purge and wants to know how many keys there were.
    pub(super) fn purge_for(&mut self, mapping: u16, asker: Asker) {
        let epoch = {
            let _held = self.shared.lock_ring();
            self.shared.lose_locked(mapping, 0, Reason::Asked);
            self.shared.gates().note(mapping)
        };
        self.purges
            .0
            .entry(mapping)
            .or_default()
            .askers
            .push((epoch, asker));
    }

    /// Brings every purge that is due one step further.
    pub(super) fn start_purges(&mut self) {
        self.lose_again();
        for mapping in self.shared.occupied() {
            if !self.may_purge(mapping) {
                continue;
            }
            let state = self.purges.0.entry(mapping).or_default();
            match state.stage {
                Some(Stage::Running { .. }) => {}
                Some(Stage::Barrier { epoch, position }) => {
                    if self.has_gone_through(mapping, position) {
                        self.send_purge(mapping, epoch);
                    }
                }
                None => self.begin_purge(mapping),
            }
        }
    }

    /// Not while it is not known which purges are needed, because the server has not been reached yet, nor while what
    /// comes for it is dropped: that is to be purged, too.
    fn may_purge(&self, mapping: u16) -> bool {
        let destination = &self.destinations[self.shared.server_of(mapping)];
        destination.past.is_none() && !destination.on_its_way.is_given_up()
    }

    fn has_gone_through(&self, mapping: u16, position: u64) -> bool {
        let on_its_way = &self.destinations[self.shared.server_of(mapping)].on_its_way;
        on_its_way.gone_through(self.feed.position) >= position
    }

    fn begin_purge(&mut self, mapping: u16) {
        let shared = self.shared;
        let Some(state) = self.purges.0.get_mut(&mapping) else {
            return;
        };
        if state.not_before.is_some_and(|due| due > Instant::now()) {
            return;
        }
        let Some(epoch) = shared.gates().purge_due(mapping) else {
            if shared.state(mapping) == MappingState::Retiring {
                self.free(mapping);
            }
            return;
        };
        if shared.state(mapping) == MappingState::Pending && self.since.elapsed() < FOR_RESOLVER {
            return;
        }
        if shared.kinds(mapping).is_none() {
            // Nobody has ever known which keys are this mapping's, or the register would tell, so nobody has written
            // any: there is nothing to purge before the resolver has looked, and activation asks for a purge of its
            // own.
            if shared.state(mapping) == MappingState::Retiring {
                self.free(mapping);
            }
            return;
        }
        state.stage = Some(Stage::Barrier {
            epoch,
            position: shared.ring().head(),
        });
        if self.has_gone_through(mapping, shared.ring().head()) {
            self.send_purge(mapping, epoch);
        }
    }

    fn send_purge(&mut self, mapping: u16, epoch: u64) {
        let past_kinds = {
            let _held = self.shared.lock_ring();
            self.shared.past_kinds_locked(mapping)
        };
        let (Some(engine), Some((kinds, kind_changes)), Some(template)) = (
            &self.destinations[self.shared.server_of(mapping)].engine,
            past_kinds,
            self.shared.template(mapping),
        ) else {
            return;
        };
        let glob = template.glob();
        let matches = Arc::new(move |key: &[u8]| template.parse(key, &kinds).is_some());
        engine.send(Request::Purge(PurgeJob {
            mapping,
            epoch,
            glob,
            matches,
        }));
        if let Some(state) = self.purges.0.get_mut(&mapping) {
            state.stage = Some(Stage::Running {
                since: Instant::now(),
                kind_changes,
            });
        }
    }

    /// The engine has deleted the keys of a mapping.
    pub(super) fn purged(&mut self, mapping: u16, epoch: u64, keys: u64) {
        let shared = self.shared;
        // SAFETY: reads the clock.
        let now = unsafe { pg_sys::GetCurrentTimestamp() };
        shared.set_purged_at(mapping, (now / 1000).max(0) as u64);
        let stats = shared.stats(mapping);
        stats.purges.fetch_add(1, Ordering::Relaxed);
        stats.deletes.fetch_add(keys, Ordering::Relaxed);
        // Last: whoever waits for the purge finds it counted, and no hint of a key that is gone counts.
        shared.gates().purged(mapping, epoch);
        let state = self.purges.0.entry(mapping).or_default();
        if let Some(Stage::Running { since, kind_changes }) = state.stage.take() {
            let _held = shared.lock_ring();
            shared.purged_by_kinds_locked(mapping, kind_changes);
            state.not_before = Some(Instant::now() + since.elapsed().clamp(PAUSE, LONGEST_PAUSE));
        }
        let (answered, waiting) = std::mem::take(&mut state.askers)
            .into_iter()
            .partition(|(wanted, _)| *wanted <= epoch);
        state.askers = waiting;
        let answered: Vec<(u64, Asker)> = answered;
        for (_, asker) in answered {
            self.answer(asker, keys as i64);
        }
    }

    /// Redis has refused to purge a mapping: it is tried again.
    pub(super) fn purge_failed(&mut self, mapping: u16) {
        self.shared.stats(mapping).errors.fetch_add(1, Ordering::Relaxed);
        let state = self.purges.0.entry(mapping).or_default();
        state.stage = None;
        state.not_before = Some(Instant::now() + AFTER_REFUSAL);
    }

    /// What the mapping held is gone: its place can be used again. Backends have nothing to do with it since it was
    /// retired, and the generation, which has them purge everything, stays.
    fn free(&mut self, mapping: u16) {
        {
            let _held = self.shared.lock_ring();
            self.shared.set_state_locked(mapping, MappingState::Free);
        }
        self.register.expire();
        self.written.remove(&mapping);
        self.purges.0.remove(&mapping);
        self.shared.set_problem(mapping, "");
        // A mapping may have been waiting for a place; those of the past come first.
        register::restore_rest(self.shared);
        self.apply_list();
        self.connect_all();
    }

    /// Answers a backend that waits.
    pub(super) fn answer(&self, asker: Asker, value: i64) {
        if self.shared.replies().answer(asker.backend, asker.ticket, value) {
            self.shared.set_latch_of(asker.backend as usize);
        }
    }

    /// A client may still run what it was sent, and could not be killed: what is purged now is purged once more when
    /// Redis has had the time that it has to answer anything.
    pub(super) fn lose_again_later(&mut self, at: usize, mapping: Option<u16>) {
        let again = &mut self.destinations[at].again;
        again.retain(|(_, other)| *other != mapping);
        again.push((Instant::now() + gucs::command_timeout(), mapping));
    }

    fn lose_again(&mut self) {
        let now = Instant::now();
        for at in 0..self.destinations.len() {
            while let Some(due) = self.destinations[at]
                .again
                .iter()
                .position(|(due, _)| *due <= now)
            {
                match self.destinations[at].again.swap_remove(due).1 {
                    Some(mapping) => self.lose(mapping, Reason::Connection),
                    None => self.lose_server(at, Reason::Connection),
                }
            }
        }
    }

    /// Rule 6, worker's side: the keys of a mapping are no longer known to be right.
    pub(super) fn lose(&self, mapping: u16, reason: Reason) {
        self.losses.update(|losses| losses + 1);
        let last = xact::next_xid().saturating_sub(1);
        let _held = self.shared.lock_ring();
        self.shared.lose_locked(mapping, last, reason);
    }
}
