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
//! There is one for each server, on it. It speaks for the mappings there that are active. It is not sent while one is
//! not looked at yet, nor while there is none there; nor if a loss is found while it waits, or another server is there
//! by then: the next one waits for the purges that follow.
use std::{
    num::NonZeroU64,
    time::{Duration, Instant, SystemTime},
};

use pg_redis_cache_core::redis::{Expiry, Note, Request, Ticket};
use pgrx::pg_sys;

use super::{Worker, destination::Destination, marker};
use crate::shared::{MappingState, ServerSet};

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
    /// `Worker::losses` then.
    losses: u64,
    /// What it waits for, once all up to that number have appended.
    outstanding: Option<Outstanding>,
}

struct Outstanding {
    /// For which servers the key speaks, see `same_place`.
    places: ServerSet,
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
    pub(super) fn beat(&mut self, at: usize) {
        let shared = self.shared;
        let destination = &mut self.destinations[at];
        let silent = !destination.connected
            || !destination.is_used
            || !destination.is_listed
            || shared.published() == 0
            || !destination.again.is_empty();
        let heartbeat = &mut destination.heartbeat;
        if silent || heartbeat.sent.is_some() {
            heartbeat.beat = None;
            return;
        }
        let beat = match heartbeat.beat.take() {
            Some(beat) => beat,
            None if heartbeat.last.is_none_or(|last| last.elapsed() >= INTERVAL) => self.begin_beat(at),
            None => return,
        };
        // What was found to be lost meanwhile may be of before its time, and is not purged yet.
        if beat.began.elapsed() < EXPIRY && beat.losses == self.losses.get() {
            self.advance(at, beat);
        }
    }

    fn begin_beat(&mut self, at: usize) -> Beat {
        let began = Instant::now();
        self.destinations[at].heartbeat.last = Some(began);
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // SAFETY: reads where the WAL ends; recovery has finished.
        let position = unsafe { pg_sys::GetXLogInsertRecPtr() };
        Beat {
            began,
            time: since_1970.unwrap_or_default().as_millis(),
            position,
            number: self.shared.commits().counter_now(),
            losses: self.losses.get(),
            outstanding: None,
        }
    }

    fn advance(&mut self, at: usize, mut beat: Beat) {
        let shared = self.shared;
        let places = self.same_place(at);
        let others_now = |outstanding: &Outstanding| outstanding.places != places;
        if beat.outstanding.as_ref().is_some_and(others_now) {
            return; // it has not looked at what those lack
        }
        if beat.outstanding.is_none() && shared.commits().all_done(beat.number) {
            let mut there = shared
                .occupied()
                .filter(|mapping| places.contains(shared.server_of(*mapping)));
            if there.any(|mapping| shared.state(mapping) == MappingState::Pending) {
                return; // its keys, if it has any, are of an unknown past
            }
            beat.outstanding = Some(Outstanding {
                places,
                head: shared.ring().head(),
                epochs: shared
                    .occupied()
                    .filter(|mapping| places.contains(shared.server_of(*mapping)))
                    .filter(|mapping| shared.has_kinds(*mapping))
                    .filter_map(|mapping| Some((mapping, shared.gates().purge_due(mapping)?)))
                    .collect(),
            });
        }
        let done = beat.outstanding.as_ref().is_some_and(|outstanding| {
            shared.has_reached(outstanding.head, places)
                && outstanding
                    .epochs
                    .iter()
                    .all(|(mapping, epoch)| shared.gates().is_purged(*mapping, *epoch))
        });
        if done {
            self.send_beat(at, &beat);
        } else {
            self.destinations[at].heartbeat.beat = Some(beat);
        }
    }

    /// A destination, and those that lead to the same keys by another name: they share the heartbeat's key. By what
    /// answers there, and by the url as well: one may not have been reached yet, or not since Redis was restarted.
    fn same_place(&self, at: usize) -> ServerSet {
        let mut same = ServerSet::NONE;
        same.insert(at);
        let used = |other: &(usize, &Destination)| other.0 != at && other.1.is_used;
        let mut others = self.destinations.iter().enumerate().filter(used).peekable();
        if others.peek().is_none() {
            return same;
        }
        fn process(destination: &Destination) -> Option<(&str, u32)> {
            let run_id = destination.server.as_ref()?.run_id.as_str();
            Some((run_id, destination.settings.database()?))
        }
        let here = &self.destinations[at];
        let (address, reached) = (here.settings.address(), process(here));
        for (other, destination) in others {
            let same_process = reached.is_some() && process(destination) == reached;
            let same_url = || {
                let there = destination.settings.address();
                address
                    .zip(there)
                    .is_some_and(|(one, other)| one.is_same_place(other))
            };
            if same_process || same_url() {
                same.insert(other);
            }
        }
        same
    }

    fn send_beat(&mut self, at: usize, beat: &Beat) {
        let left = EXPIRY.saturating_sub(beat.began.elapsed()).as_millis() as u64;
        let Some(left) = NonZeroU64::new(left) else { return };
        let (high, low) = (beat.position >> 32, beat.position as u32);
        let value = format!("{{\"time\":{},\"lsn\":\"{high:X}/{low:X}\"}}", beat.time);
        let ticket = next_ticket(&mut self.tickets);
        let destination = &mut self.destinations[at];
        let Some(server) = destination.server.clone() else {
            return;
        };
        destination.heartbeat.sent = Some(ticket);
        destination.send(Request::Note(Note {
            ticket,
            server,
            key: marker::own_key("alive"),
            value: Some(value.into_bytes()),
            expiry: Expiry::Milliseconds(left),
        }));
    }

    /// The worker ends: from now on the key would speak for nobody.
    pub(super) fn end_heartbeat(&mut self, at: usize, deadline: Instant) {
        let Some(server) = self.destinations[at].server.clone() else {
            return;
        };
        let note = Note {
            ticket: next_ticket(&mut self.tickets),
            server,
            key: marker::own_key("alive"),
            value: None,
            expiry: Expiry::Never,
        };
        self.note_and_wait(at, note, deadline);
    }
}

impl Destination {
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
}
