//! The heartbeat: a key in Redis that says up to when what Redis holds is complete.
//!
//! A reader that may be cut off from Postgres, or Redis from it, looks at the key first. While it is there and
//! says T, every row that a transaction had changed which committed before T is in Redis as it was at T or later,
//! or is not cached. T is a time on the database server's clock; beside it stands a position in the WAL that holds
//! for the same transactions.
//!
//! A beat begins by noting time, position and the number of the last transaction that took one (rule 2), in this
//! order: who had written its commit record or become visible by then has a number up to that. It waits until all
//! of them have appended, notes the ring's head and what is to be purged by then, waits until all of that is done,
//! and is sent. So beats come under load, too, and stop when Redis is further behind than [`EXPIRY`].
//!
//! It speaks for the mappings that are active. It is not sent while one is not looked at yet, nor while there is
//! none.
use std::{
    num::NonZeroU64,
    time::{Duration, Instant, SystemTime},
};

use pg_redis_cache_core::redis::{Expiry, Note, Request, Ticket};
use pgrx::pg_sys;

use super::{Worker, marker};
use crate::shared::MappingState;

/// From one beat to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long after its time the key is gone.
const EXPIRY: Duration = Duration::from_secs(5);

/// A beat that is not sent yet.
struct Beat {
    began: Instant,
    /// Milliseconds since 1970, rounded down.
    time: u128,
    /// Where the WAL ended.
    position: u64,
    /// The number of the last transaction that had taken one.
    number: u64,
    /// What it waits for, once all up to that number have appended.
    outstanding: Option<Outstanding>,
}

struct Outstanding {
    head: u64,
    /// By mapping: the epoch to be purged.
    epochs: Vec<(u16, u64)>,
}

/// The state of the heartbeat.
#[derive(Default)]
pub struct Heartbeat {
    beat: Option<Beat>,
    last: Option<Instant>,
    /// The beat that Redis has not answered yet.
    sent: Option<Ticket>,
    /// Redis has refused one, and that has been logged.
    refused: bool,
}

/// The next ticket of a note.
pub fn next_ticket(tickets: &mut Ticket) -> Ticket {
    *tickets += 1;
    *tickets
}

impl Worker {
    /// Brings the heartbeat a step further. Called each round.
    pub(super) fn beat(&mut self) {
        let silent = !self.connected || self.shared.published() == 0 || !self.again.is_empty();
        if silent || self.heartbeat.sent.is_some() {
            self.heartbeat.beat = None;
            return;
        }
        let beat = match self.heartbeat.beat.take() {
            Some(beat) => beat,
            None if self.heartbeat.last.is_none_or(|last| last.elapsed() >= INTERVAL) => self.begin_beat(),
            None => return,
        };
        if beat.began.elapsed() < EXPIRY {
            self.advance(beat);
        }
    }

    fn begin_beat(&mut self) -> Beat {
        let began = Instant::now();
        self.heartbeat.last = Some(began);
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // SAFETY: reads where the WAL ends; recovery has finished.
        let position = unsafe { pg_sys::GetXLogInsertRecPtr() };
        Beat {
            began,
            time: since_1970.unwrap_or_default().as_millis(),
            position,
            number: self.shared.commits().counter_now(),
            outstanding: None,
        }
    }

    fn advance(&mut self, mut beat: Beat) {
        let shared = self.shared;
        if beat.outstanding.is_none() && shared.commits().all_done(beat.number) {
            if shared
                .occupied()
                .any(|mapping| shared.state(mapping) == MappingState::Pending)
            {
                return; // its keys, if it has any, are of an unknown past
            }
            beat.outstanding = Some(Outstanding {
                head: shared.ring().head(),
                epochs: shared
                    .occupied()
                    .filter(|mapping| shared.has_kinds(*mapping))
                    .filter_map(|mapping| Some((mapping, shared.gates().purge_due(mapping)?)))
                    .collect(),
            });
        }
        let done = beat.outstanding.as_ref().is_some_and(|outstanding| {
            shared.ring().tail() >= outstanding.head
                && outstanding
                    .epochs
                    .iter()
                    .all(|(mapping, epoch)| shared.gates().is_purged(*mapping, *epoch))
        });
        if done {
            self.send_beat(&beat);
        } else {
            self.heartbeat.beat = Some(beat);
        }
    }

    fn send_beat(&mut self, beat: &Beat) {
        let left = EXPIRY.saturating_sub(beat.began.elapsed()).as_millis() as u64;
        let Some(left) = NonZeroU64::new(left) else { return };
        let (high, low) = (beat.position >> 32, beat.position as u32);
        let value = format!("{{\"time\":{},\"lsn\":\"{high:X}/{low:X}\"}}", beat.time);
        let ticket = next_ticket(&mut self.tickets);
        let Some(engine) = &self.engine else { return };
        self.heartbeat.sent = Some(ticket);
        engine.send(Request::Note(Note {
            ticket,
            key: marker::own_key("alive"),
            value: Some(value.into_bytes()),
            expiry: Expiry::Milliseconds(left),
        }));
    }

    /// Redis has answered a beat, or the connection was lost.
    pub(super) fn beaten(&mut self, ticket: Ticket, refusal: Option<&str>) {
        if self.heartbeat.sent != Some(ticket) {
            return;
        }
        self.heartbeat.sent = None;
        if let Some(refusal) = refusal
            && self.connected
            && !std::mem::replace(&mut self.heartbeat.refused, true)
        {
            pgrx::log!("pg_redis_cache: no heartbeat: {refusal}");
        } else if refusal.is_none() {
            self.heartbeat.refused = false;
        }
    }

    /// The worker ends: from now on the key would speak for nobody.
    pub(super) fn end_heartbeat(&mut self, deadline: Instant) {
        let note = Note {
            ticket: next_ticket(&mut self.tickets),
            key: marker::own_key("alive"),
            value: None,
            expiry: Expiry::Never,
        };
        self.note_and_wait(note, deadline);
    }

    /// Has a note stored, and waits for the answer. Returns whether Redis has done it.
    pub(super) fn note_and_wait(&mut self, note: Note, deadline: Instant) -> bool {
        let ticket = note.ticket;
        let Some(engine) = &self.engine else { return false };
        if !self.connected {
            return false;
        }
        engine.send(Request::Note(note));
        self.noted = None;
        while !self.engine_ended && Instant::now() < deadline {
            self.take_events();
            match self.noted {
                Some((noted, done)) if noted == ticket => return done,
                _ => self.wait_set.wait(Duration::from_millis(10)),
            }
        }
        false
    }
}
