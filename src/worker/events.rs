//! What the engine reports.
use std::sync::{Arc, atomic::Ordering};

use pg_redis_cache_core::{
    coherence::Reason,
    redis::{Counts, Event, Fault, LossReason, PoolState, Server},
};

use super::Worker;
use crate::shared::StatusText;

impl Worker {
    /// Handles what the engine has reported. Returns whether it had anything to report.
    pub(super) fn take_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.engine.as_ref().and_then(|engine| engine.try_recv()) {
            any = true;
            self.handle(event);
        }
        any
    }

    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Acknowledged { chunk, at, counts } => {
                let stored = counts.iter().any(|(_, counts)| counts.sets + counts.fills > 0);
                counts
                    .into_iter()
                    .for_each(|(mapping, counts)| self.count(mapping, &counts));
                self.acknowledged(chunk, at);
                self.takes_writes(stored);
            }
            Event::Answer { ticket, deleted } => {
                if let Some(asker) = self.feed.asker(ticket) {
                    self.answer(asker, deleted.map_or(-1, |keys| keys as i64));
                }
            }
            Event::Lost { mapping, reason } => {
                self.note_error(&reason.to_string());
                // u16::MAX is no mapping: it stands for all of them.
                if self.lossy.insert(mapping.unwrap_or(u16::MAX)) {
                    pgrx::log!("pg_redis_cache: {reason}; what it concerns is purged");
                }
                let why = match reason {
                    LossReason::Unkillable { .. } | LossReason::Unlisted { .. } => {
                        self.lose_again_later(mapping);
                        Reason::Connection
                    }
                    _ => Reason::Refused,
                };
                match mapping {
                    Some(mapping) => self.lose(mapping, why),
                    None => self.lose_everything(why),
                }
            }
            Event::Purged { mapping, epoch, keys } => self.purged(mapping, epoch, keys),
            Event::PurgeFailed { mapping, fault, .. } => {
                self.note_error(&fault.to_string());
                self.purge_failed(mapping);
            }
            Event::Connected {
                server,
                changed,
                marker,
            } => self.came_up(server, changed, marker.as_deref()),
            Event::Disconnected { fault } => self.went_away(&fault),
            Event::Refusing { fault } => self.refuses_writes(&fault),
            Event::Full { fault } => self.has_no_memory(&fault),
            Event::Pong { ticket, round_trip } => {
                if let Some(asker) = self.feed.asker(ticket) {
                    self.answer(asker, round_trip.map_or(-1, |time| time.as_micros() as i64));
                }
            }
            Event::Noted { ticket, result } => {
                self.noted = Some((ticket, result.is_ok()));
                self.beaten(ticket, result.err().map(|fault| fault.to_string()).as_deref());
            }
            Event::Pool(pool) => self.note_pool(pool),
            Event::Stopped { .. } => self.engine_ended = true,
        }
    }

    fn count(&mut self, mapping: u16, counts: &Counts) {
        if counts.errors == 0 && counts.sets + counts.fills > 0 {
            self.lossy.remove(&mapping);
        }
        let stats = self.shared.stats(mapping);
        for (counter, more) in [
            (&stats.sets, counts.sets),
            (&stats.fills, counts.fills),
            (&stats.fills_dropped, counts.fills_dropped),
            (&stats.deletes, counts.deletes),
            (&stats.errors, counts.errors),
            (&stats.bytes, counts.bytes),
        ] {
            if more > 0 {
                counter.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// Rule 8: another server, or the same one started again, is an unknown past.
    fn came_up(&mut self, server: Arc<Server>, changed: bool, marker: Option<&[u8]>) {
        if self.server.is_none() {
            // No purge is done before a first server is reached, so each that is needed is still due.
            self.settle_past(&server, marker);
        } else if changed {
            self.lose_everything(Reason::Server);
            self.lossy.clear();
        }
        self.shared
            .set_status_text(StatusText::ServerVersion, &server.version);
        self.shared.set_connected(true);
        self.connected = true;
        if self.connection_in_order() {
            self.shared.control().reconnects.fetch_add(1, Ordering::Relaxed);
            pgrx::log!("pg_redis_cache: connected to {} again", server.version);
        } else if changed {
            pgrx::log!("pg_redis_cache: connected to {}", server.version);
        }
        self.server = Some(server);
    }

    fn went_away(&mut self, fault: &Fault) {
        self.shared.set_connected(false);
        self.connected = false;
        self.connection_in_trouble(fault);
    }

    fn note_pool(&self, pool: PoolState) {
        let control = self.shared.control();
        control.pool_size.store(pool.size as u32, Ordering::Relaxed);
        control.pool_idle.store(pool.idle as u32, Ordering::Relaxed);
        control.pool_waiting.store(pool.waiting as u32, Ordering::Relaxed);
    }
}
