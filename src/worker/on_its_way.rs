//! What is on its way to a server: with its engine, or waiting for room there.
//!
//! One server that is away does not hold up another. What it cannot take waits here, and holds the ring's tail; so when
//! the tail is further behind than [`SHARE_OF_RING`] (or [`EIGHTHS_FOR_THE_SLOW`], if it gets on, but is slower than what
//! comes) it is given up: what waits is dropped and counts as done, so that
//! the tail moves, and its mappings are lost (rule 6). Nothing more is kept for it until it is back, and then its
//! mappings are purged (rule 7).
//!
//! Two positions follow. The ring's tail is where nobody needs the ring any more. A server's own position, for which
//! synchronous commits and `wait()` wait, is up to where it has everything: it stays while the server is given up, and
//! until it has been purged.
//!
//! What is left of a chunk may wait for a master of a cluster that is away, while the engine writes to the others. Such a
//! chunk takes no room with the engine, and neither do those behind it that are through and wait only for their turn to
//! be acknowledged, so that the others are read for on. They hold the tail all the same, so that the ring is what bounds
//! them; the engine has them in its memory until they are acknowledged.
//!
//! With one server alone nothing is given up: what it does not take waits in the ring, and appends step down the ladder
//! when that is full.
use std::{
    collections::VecDeque,
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime},
};

use pg_redis_cache_core::{
    coherence::Reason,
    redis::{Chunk, Request},
};
use pgrx::pg_sys;

use super::{Worker, destination::Destination};

/// How much may be with an engine and not acknowledged.
const UNACKNOWLEDGED_BYTES: usize = 8 * 1024 * 1024;
const UNACKNOWLEDGED_CHUNKS: usize = 256;
/// How much of the ring a server that is away may hold. Fills may use half of the ring and `warm` a quarter: with an
/// eighth, both go on for the other servers.
const SHARE_OF_RING: u64 = 8;
/// The same for one that acknowledges, but not as fast as changes come: in eighths. More than `warm` minds, less than
/// fills do.
const EIGHTHS_FOR_THE_SLOW: u64 = 3;
/// A server that has something to acknowledge and has not acknowledged anything for so long counts as away.
const STALLED: Duration = Duration::from_secs(1);

/// A chunk that waits for room with the engine.
pub struct Waiting {
    /// The ring's position before its first entry.
    pub begin: u64,
    pub chunk: Chunk,
    /// Commit times of its transactions.
    pub committed_at: Vec<i64>,
}

/// A chunk that the engine has.
struct Sent {
    id: u64,
    begin: u64,
    bytes: usize,
    /// What is left of it waits for a master that is away; or it waits for its turn behind such a one.
    is_held_up: bool,
    committed_at: Vec<i64>,
}

/// See the module.
pub struct OnItsWay {
    sent: VecDeque<Sent>,
    /// Bytes of what is sent, and how many chunks that is, without those that are held up.
    bytes: usize,
    chunks: usize,
    waiting: VecDeque<Waiting>,
    /// When something was acknowledged, or the first chunk sent.
    progress: Instant,
    /// Chunks up to this one belong to a server that was given up, and count as done.
    abandoned: u64,
    given_up: Option<GivenUp>,
}

/// A server that was away for too long.
struct GivenUp {
    /// Its own position until it has been purged.
    position: u64,
    since: Instant,
    /// Once it is back: the epochs to be purged, by mapping.
    due: Option<Vec<(u16, u64)>>,
}

impl OnItsWay {
    pub fn new() -> Self {
        Self {
            sent: VecDeque::new(),
            bytes: 0,
            chunks: 0,
            waiting: VecDeque::new(),
            progress: Instant::now(),
            abandoned: 0,
            given_up: None,
        }
    }

    /// The server answers again.
    pub fn goes_on(&mut self) {
        self.progress = Instant::now();
    }

    fn has_room(&self) -> bool {
        self.chunks < UNACKNOWLEDGED_CHUNKS && self.bytes < UNACKNOWLEDGED_BYTES
    }

    /// A chunk of so many bytes takes no room any more.
    fn makes_room(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.chunks -= 1;
    }

    /// The last chunk that waits, if it is one like that: more can be added to it.
    pub fn pop_waiting_if(&mut self, suits: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        self.waiting.pop_back_if(|waiting| suits(waiting))
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.waiting.is_empty()
    }

    /// Whether what comes is dropped, because the server was given up and is not back.
    pub fn is_given_up(&self) -> bool {
        self.given_up
            .as_ref()
            .is_some_and(|given_up| given_up.due.is_none())
    }

    /// The ring's position up to which everything has gone through the lanes; `end` if nothing is on its way.
    pub fn gone_through(&self, end: u64) -> u64 {
        let sent = self.sent.front().map(|sent| sent.begin);
        let waiting = || self.waiting.front().map(|waiting| waiting.begin);
        sent.or_else(waiting).unwrap_or(end)
    }

    /// The ring's position up to which nothing is needed any more.
    fn needed_from(&self, end: u64) -> u64 {
        let sent = self.sent.iter().find(|sent| sent.id > self.abandoned);
        let waiting = || self.waiting.front().map(|waiting| waiting.begin);
        sent.map(|sent| sent.begin).or_else(waiting).unwrap_or(end)
    }

    /// Commit time of the oldest change that is on its way.
    fn oldest(&self) -> Option<i64> {
        let sent = self.sent.iter().flat_map(|sent| sent.committed_at.first());
        let waiting = self
            .waiting
            .iter()
            .flat_map(|waiting| waiting.committed_at.first());
        sent.chain(waiting).next().copied()
    }
}

impl Destination {
    /// Whether it takes a chunk at once.
    pub fn takes_more(&self) -> bool {
        self.engine.is_some()
            && self.on_its_way.waiting.is_empty()
            && self.on_its_way.has_room()
            && !self.on_its_way.is_given_up()
    }

    /// Whether what is written to it is of no use: it is given up, or nobody knows where it is.
    fn drops(&self) -> bool {
        self.on_its_way.is_given_up() || self.engine.is_none() && !(self.is_used && self.is_listed)
    }

    /// Takes a chunk, which is sent as soon as there is room. Returns one that is dropped.
    #[must_use]
    pub fn take(&mut self, chunk: Waiting) -> Option<Waiting> {
        if self.drops() {
            return Some(chunk);
        }
        self.on_its_way.waiting.push_back(chunk);
        self.send_waiting();
        None
    }

    fn send_waiting(&mut self) {
        let Some(engine) = &self.engine else { return };
        let on_its_way = &mut self.on_its_way;
        while on_its_way.has_room()
            && let Some(waiting) = on_its_way.waiting.pop_front()
        {
            if on_its_way.sent.is_empty() {
                on_its_way.progress = Instant::now();
            }
            let bytes = waiting.chunk.byte_len();
            on_its_way.bytes += bytes;
            on_its_way.chunks += 1;
            on_its_way.sent.push_back(Sent {
                id: waiting.chunk.id(),
                begin: waiting.begin,
                bytes,
                is_held_up: false,
                committed_at: waiting.committed_at,
            });
            engine.send(Request::Write(waiting.chunk));
        }
    }

    /// Whether it is not connected, or does not get on.
    pub fn is_away(&self) -> bool {
        let on_its_way = &self.on_its_way;
        !self.connected || !on_its_way.sent.is_empty() && on_its_way.progress.elapsed() >= STALLED
    }

    /// Its own position: up to where it has everything.
    pub fn position(&self, end: u64) -> u64 {
        match &self.on_its_way.given_up {
            Some(given_up) => given_up.position,
            None => self.on_its_way.gone_through(end),
        }
    }
}

impl Worker {
    /// Whether mappings are written to more than one server.
    pub(super) fn several(&self) -> bool {
        self.destinations
            .iter()
            .filter(|destination| destination.is_used)
            .count()
            > 1
    }

    /// Every chunk up to that one is in Redis, or has been declared lost.
    pub(super) fn acknowledged(&mut self, at: usize, chunk: u64, when: SystemTime) {
        let when = timestamp(when);
        let lag = self.shared.lags()[at];
        let on_its_way = &mut self.destinations[at].on_its_way;
        on_its_way.progress = Instant::now();
        while let Some(sent) = on_its_way.sent.pop_front_if(|sent| sent.id <= chunk) {
            if !sent.is_held_up {
                on_its_way.makes_room(sent.bytes);
            }
            for committed_at in sent.committed_at {
                lag.record((when - committed_at).max(0) as u64);
            }
        }
        self.destinations[at].send_waiting();
        self.settle_positions();
    }

    /// What is left of a chunk waits for a master that is away, or it is through and waits for its turn behind such a one.
    pub(super) fn held_up(&mut self, at: usize, chunk: u64) {
        let on_its_way = &mut self.destinations[at].on_its_way;
        let place = on_its_way.sent.binary_search_by_key(&chunk, |sent| sent.id);
        let sent = place.ok().and_then(|place| on_its_way.sent.get_mut(place));
        if let Some(sent) = sent.filter(|sent| !sent.is_held_up) {
            sent.is_held_up = true;
            let bytes = sent.bytes;
            on_its_way.makes_room(bytes);
        }
        self.destinations[at].send_waiting();
    }

    /// Moves the ring's tail and the servers' positions to where they are by now.
    pub(super) fn settle_positions(&mut self) {
        let end = self.feed.position;
        let mut tail = end;
        for (at, destination) in self.destinations.iter().enumerate() {
            tail = tail.min(destination.on_its_way.needed_from(end));
            if destination.is_used || !destination.on_its_way.is_empty() {
                self.shared.set_position(at, destination.position(end));
                let oldest = destination.on_its_way.oldest().unwrap_or(0);
                let shown = &self.shared.server(at).oldest_unsent;
                shown.store(oldest, Ordering::Relaxed);
            } else {
                // What a late transaction had for a mapping that was gone by then has gone through, too.
                self.shared.set_nothing_goes_to(at);
            }
        }
        self.shared.ring().release(tail);
        self.shared.wake_waiters();
    }

    /// Gives up who is away for too long, and takes back who has come back. Called each round.
    pub(super) fn look_after_the_away(&mut self) {
        for at in 0..self.destinations.len() {
            // An engine may have been started meanwhile.
            self.destinations[at].send_waiting();
            if !self.destinations[at].on_its_way.is_given_up() && self.is_too_far_behind(at) {
                self.give_up(at);
            } else if self.destinations[at].on_its_way.given_up.is_some() {
                self.take_back(at);
            }
        }
    }

    /// An earlier worker has let the ring go on without a server: that one still is where it was, until it has been
    /// purged. Called when everything has been lost, before anything is read off the ring.
    pub(super) fn remember_given_up(&mut self) {
        for at in 0..self.destinations.len() {
            let position = self.shared.position(at);
            if self.shared.is_used(at) && position < self.feed.position {
                let due = Some(self.due_at(at));
                self.destinations[at].on_its_way.given_up = Some(GivenUp {
                    position,
                    since: Instant::now(),
                    due,
                });
            }
        }
    }

    /// The epochs to be purged on a server, by mapping.
    fn due_at(&self, at: usize) -> Vec<(u16, u64)> {
        let shared = self.shared;
        let mappings = shared
            .occupied()
            .filter(|mapping| shared.server_of(*mapping) == at && shared.has_kinds(*mapping));
        mappings
            .filter_map(|mapping| Some((mapping, shared.gates().purge_due(mapping)?)))
            .collect()
    }

    fn is_too_far_behind(&self, at: usize) -> bool {
        let (destination, end) = (&self.destinations[at], self.feed.position);
        let held = end - destination.on_its_way.needed_from(end);
        let share = self.shared.ring().capacity() / SHARE_OF_RING;
        let is_too_slow =
            || held > share * EIGHTHS_FOR_THE_SLOW && !destination.on_its_way.waiting.is_empty();
        let others = |in_order: fn(&Destination) -> bool| {
            let mut others = self.destinations.iter().enumerate();
            others.any(|(other, destination)| other != at && destination.is_used && in_order(destination))
        };
        held > share
            && if destination.is_away() {
                others(|other| !other.is_away())
            } else {
                is_too_slow() && others(|other| !other.is_away() && other.takes_more())
            }
    }

    fn give_up(&mut self, at: usize) {
        let end = self.feed.position;
        let destination = &mut self.destinations[at];
        let position = destination.position(end);
        let on_its_way = &mut destination.on_its_way;
        let dropped = std::mem::take(&mut on_its_way.waiting);
        on_its_way.abandoned = on_its_way
            .sent
            .back()
            .map_or(on_its_way.abandoned, |sent| sent.id);
        on_its_way.given_up = Some(GivenUp {
            position,
            since: Instant::now(),
            due: None,
        });
        let problem = if destination.is_away() {
            "away for longer than what it misses is kept: it is purged when it is back"
        } else {
            "too slow for what is written: it is purged when it has caught up"
        };
        destination.note_error(&destination.said(problem));
        pgrx::log!("pg_redis_cache: {}", destination.said(problem));
        self.lose_server(at, Reason::Away);
        dropped.iter().for_each(|waiting| self.answer_dropped(waiting));
        self.settle_positions();
    }

    /// Whoever waits for an answer to what is dropped learns that there is none.
    pub(super) fn answer_dropped(&mut self, waiting: &Waiting) {
        for ticket in waiting.chunk.tickets() {
            self.answer_ticket(ticket, None);
        }
    }

    /// It is back when it takes what is sent, and has answered since or has nothing to answer. What was dropped
    /// meanwhile has been lost, and is purged when what it was sent before has gone through (rule 7); until then it is
    /// not known to be right.
    fn take_back(&mut self, at: usize) {
        let due = self.due_at(at);
        let shared = self.shared;
        let destination = &mut self.destinations[at];
        let on_its_way = &mut destination.on_its_way;
        let (has_room, owes_nothing) = (on_its_way.has_room(), on_its_way.sent.is_empty());
        let Some(given_up) = &mut on_its_way.given_up else {
            return;
        };
        // One that refuses is connected, too.
        let gets_on = owes_nothing || on_its_way.progress > given_up.since;
        let is_back = destination.connected && has_room && gets_on;
        match &given_up.due {
            None if is_back => {
                given_up.due = Some(due);
                pgrx::log!(
                    "pg_redis_cache: {}",
                    destination.said("takes writes again, and is purged")
                );
            }
            Some(due)
                if due
                    .iter()
                    .all(|(mapping, epoch)| shared.gates().is_purged(*mapping, *epoch)) =>
            {
                destination.on_its_way.given_up = None;
                self.settle_positions();
            }
            _ => {}
        }
    }
}

/// A time on the server's clock: microseconds since the beginning of 2000 (datatype/timestamp.h).
pub fn timestamp(at: SystemTime) -> i64 {
    const DAYS: u64 = (pg_sys::POSTGRES_EPOCH_JDATE - pg_sys::UNIX_EPOCH_JDATE) as u64;
    let unix = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    unix.as_micros() as i64 - (DAYS * 86_400 * 1_000_000) as i64
}
