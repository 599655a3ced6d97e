//! What the engine reports.
use std::sync::{Arc, atomic::Ordering};
use std::time::Instant;

use pg_redis_cache_core::{
    coherence::Reason,
    redis::{Counts, Event, Fault, LossReason, PoolState, Server},
};

use super::{
    Worker,
    destination::{Destination, QUIET},
};
use crate::shared::{DEFAULT, StatusText};

impl Worker {
    /// Handles what the engines have reported. Returns whether there was anything.
    pub(super) fn take_events(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.destinations.len() {
            while let Some(event) = self.destinations[at].next_event() {
                any = true;
                self.handle(at, event);
            }
        }
        any
    }

    /// Handles what the engine of a destination has reported.
    pub(super) fn handle(&mut self, at: usize, event: Event) {
        match event {
            Event::Acknowledged {
                chunk,
                at: when,
                counts,
            } => {
                let stored = counts.iter().any(|(_, counts)| counts.sets + counts.fills > 0);
                counts
                    .into_iter()
                    .for_each(|(mapping, counts)| self.count(at, mapping, &counts));
                self.acknowledged(at, chunk, when);
                self.destinations[at].takes_writes(stored);
            }
            Event::HeldUp { chunk } => self.held_up(at, chunk),
            Event::Answer { ticket, deleted } => {
                self.answer_ticket(ticket, deleted.map(|keys| keys as i64));
            }
            Event::Lost {
                mapping,
                reason,
                address,
            } => self.lost(at, mapping, &reason, &address),
            Event::Purged { mapping, epoch, keys } => self.purged(mapping, epoch, keys),
            Event::PurgeFailed { mapping, fault, .. } => {
                self.destinations[at].note_error(&fault.to_string());
                self.purge_failed(mapping);
            }
            Event::Connected {
                server,
                changed,
                marker,
            } => self.came_up(at, server, changed, marker.as_deref()),
            Event::Followed { master } => {
                let master = master.map(|master| master.to_string()).unwrap_or_default();
                self.destinations[at].show_text(StatusText::Master, &master);
            }
            Event::Disconnected { fault } => self.destinations[at].went_away(&fault),
            Event::Refusing { fault } => self.destinations[at].refuses_writes(&fault),
            Event::Unserved { fault } => self.destinations[at].lacks_masters(fault.as_ref()),
            Event::Full { fault } => self.destinations[at].has_no_memory(&fault),
            Event::Pong { ticket, round_trip } => {
                let microseconds = round_trip.ok().map(|time| time.as_micros() as i64);
                self.answer_ticket(ticket, microseconds);
            }
            Event::Noted { ticket, result } => {
                let destination = &mut self.destinations[at];
                destination.noted = Some((ticket, result.is_ok()));
                destination.beaten(ticket, result.err().map(|fault| fault.to_string()).as_deref());
            }
            Event::Pool(pool) if at == DEFAULT => self.note_pool(pool),
            Event::Pool(_) => {}
            Event::Connections(connections) => self.show_connections(at, connections),
            Event::SlowPush(push) => self.log_slow_push(&push),
            Event::Stopped { .. } => self.engine_ended = true,
        }
    }

    fn count(&mut self, at: usize, mapping: u16, counts: &Counts) {
        if counts.errors == 0 && counts.sets + counts.fills > 0 {
            let lossy = &mut self.destinations[at].lossy;
            if lossy.get(&mapping).is_some_and(|last| last.elapsed() >= QUIET) {
                lossy.remove(&mapping);
            }
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

    /// Rule 6: something is lost on its way to a destination.
    fn lost(&mut self, at: usize, mapping: Option<u16>, reason: &LossReason, address: &str) {
        let destination = &mut self.destinations[at];
        destination.note_error(&format!("{}: {reason} ({address})", reason.kind()));
        // u16::MAX is no mapping: it stands for all of them.
        let known = destination
            .lossy
            .insert(mapping.unwrap_or(u16::MAX), Instant::now());
        if known.is_none() {
            let text = format!("{reason}; what it concerns is purged");
            pgrx::log!("pg_redis_cache: {}", destination.said(&text));
        }
        let why = match reason {
            LossReason::Unkillable { .. } | LossReason::Unlisted { .. } => {
                self.lose_again_later(at, mapping);
                Reason::Connection
            }
            LossReason::TakenOver => Reason::Server,
            _ => Reason::Refused,
        };
        match mapping {
            Some(mapping) => self.lose(mapping, why),
            None => self.lose_server(at, why),
        }
    }

    /// Rule 8: another server, or the same one started again, is an unknown past.
    fn came_up(&mut self, at: usize, server: Arc<Server>, changed: bool, marker: Option<&[u8]>) {
        if self.destinations[at].server.is_none() {
            // No purge is done before a first server is reached, so each that is needed is still due.
            self.settle_past(at, &server, marker);
        } else if changed {
            self.lose_server(at, Reason::Server);
            self.destinations[at].lossy.clear();
        }
        self.destinations[at].is_up(server, changed);
    }

    fn note_pool(&self, pool: PoolState) {
        let control = self.shared.control();
        control.pool_size.store(pool.size as u32, Ordering::Relaxed);
        control.pool_idle.store(pool.idle as u32, Ordering::Relaxed);
        control.pool_waiting.store(pool.waiting as u32, Ordering::Relaxed);
    }
}

impl Destination {
    fn is_up(&mut self, server: Arc<Server>, changed: bool) {
        self.show_text(StatusText::ServerVersion, &server.version);
        self.set_connected(true);
        self.on_its_way.goes_on();
        let master = self.shown_text(StatusText::Master);
        let place = if master.is_empty() {
            String::new()
        } else {
            format!(", master {master}")
        };
        let connected = format!("connected to {}{place}", server.version);
        if self.connection_in_order() {
            self.shown().reconnects.fetch_add(1, Ordering::Relaxed);
            pgrx::log!("pg_redis_cache: {} again", self.said(&connected));
        } else if changed {
            pgrx::log!("pg_redis_cache: {}", self.said(&connected));
        }
        self.server = Some(server);
    }

    fn went_away(&mut self, fault: &Fault) {
        self.set_connected(false);
        self.connection_in_trouble(fault);
    }
}
