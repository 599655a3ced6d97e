//! A lane: one connection (to each master of a cluster), one pipeline in flight, the next one gathering (rule 5).
//!
//! The operations of a key always take the same lane, in order. What keeps that order over a lost
//! connection, step by step:
//!
//! 1. A connection that broke, timed out, or turned out not to be a master's is closed, and nothing is
//!    ever sent through it again. Its commands may still run: Redis may have read them already.
//! 2. A new connection first asks which server process it has reached. If it is the old one, it kills
//!    the old connection's client by its id. From then on no command of the old connection can run:
//!    Redis runs one command at a time, and drops what a killed client had buffered. That there is no
//!    such client any more is as good. If Redis refuses, the mappings in flight are lost (rule 6).
//!    Another process cannot run what the old one had buffered, and is announced, so that all is purged.
//!    Should the old one come back later, its old clients are killed when it is met ([`Shared::meet`]), as
//!    are those of earlier engines.
//! 3. Only then is the rest of the batch sent again, the last operation of each key alone.
//!
//! In a cluster the lane has a line to each master, and sends each its part of a batch (see `batch`). What is said above
//! holds there for each slot: of a slot of which something was in flight when a line was lost, nothing is sent to any
//! master before step 2 is done at that process, or it is known to be no master. Other slots go on, and so do those of the
//! other masters when one is away: see `backlog` for what waits and why no key is overtaken by that, `courses` for the
//! masters. One that hangs without closing the connection holds a lane up for `command_timeout` once, one that can be
//! connected to and runs no writes at each attempt: a batch waits for all of its parts. That could be had shorter only by taking batches apart while they are in flight.
//!
//! So at each moment one connection at most can run the commands of a key, and none of a key that came after those of a
//! batch has been sent before these are through.

use std::rc::Rc;
use std::time::{Duration, Instant};

use ::redis::{Pipeline, Value};
use futures_util::future::join_all;

use super::backlog::{Backlog, Work};
use super::backoff::Backoff;
use super::batch::{Answers, Batch, Loss, Outcome, Redirected};
use super::event::{Event, SlowPush};
use super::fault::{Cause, Fault};
use super::gauge::Gauges;
use super::line::Line;
use super::master::Master;
use super::openings::{Openings, Others};
use super::queue::Queue;
use super::routes::Routes;
use super::shared::Shared;

/// After so many lost connections in a row, operations are sent one at a time: one of them may be what
/// Redis, or something between here and there, breaks the connection over.
const ALONE_AFTER: u32 = 2;
/// After so many, an operation that was sent alone is given up.
const GIVE_UP_AFTER: u32 = 5;
/// So many redirections in a row are followed at once. More mean that the masters do not agree yet.
const FEW_REDIRECTIONS: u32 = 4;

mod connect;
mod courses;
mod rest;

use courses::Course;

pub(super) struct Lane {
    shared: Rc<Shared>,
    queue: Rc<Queue>,
    gauges: Gauges,
    /// One to each master that can be reached.
    lines: Vec<(Rc<Master>, Line)>,
    /// Of a server of its own; of a cluster whose masters do not agree.
    backoff: Backoff,
    /// At a server of its own.
    others: Others,
    /// One for each master of a cluster that has refused writes.
    courses: Vec<Course>,
    /// To masters of a cluster.
    openings: Openings,
    /// The masters that batches number.
    routes: Rc<Routes>,
    /// The revision of who there is under which all were found to be there: see [`Self::is_settled`].
    settled: Option<u64>,
    /// What waits, and what may still run.
    backlog: Backlog,
    /// An empty one, kept for its memory.
    spare: Option<Batch>,
    /// Since when there has been nothing to write.
    idle_since: Option<Instant>,
}

impl Lane {
    pub fn new(shared: Rc<Shared>, queue: Rc<Queue>, number: usize) -> Self {
        Self {
            routes: shared.routes(),
            shared,
            queue,
            gauges: Gauges::new(format!("lane-{number}")),
            lines: Vec::new(),
            backoff: Backoff::default(),
            others: Others::default(),
            courses: Vec::new(),
            openings: Openings::default(),
            settled: None,
            backlog: Backlog::default(),
            spare: None,
            idle_since: None,
        }
    }

    /// Runs until the engine stops.
    pub async fn run(mut self) {
        let mut next = Batch::new(self.shared.setup.hash_fields);
        loop {
            self.replace_old_lines();
            self.connect().await;
            let Some((place, mut work)) = self.next_work(&mut next) else {
                self.rest(&next).await;
                continue;
            };
            self.queue.is_busy.set(true);
            self.queue.is_cut_off.set(false);
            self.idle_since = None;
            let started = self.shared.tuning().slow_push.map(|_| Instant::now());
            let bytes = work.batch.bytes();
            let is_through = self.put_through(place, &mut work, &mut next).await;
            if let Some(started) = started {
                self.tell_if_slow(&work.batch, bytes, started.elapsed());
            }
            if is_through {
                work.batch.settle(&self.shared.ledger, &self.shared.events);
                self.spare = Some(work.batch);
            } else {
                self.backlog.strand(place, work, &self.shared.ledger);
                self.shared.ledger.tell_held_up(&self.shared.events);
            }
            self.queue
                .is_busy
                .set(!next.is_empty() || !self.backlog.is_clear());
        }
    }

    /// What is to be sent now, with its place in the order of the backlog.
    fn next_work(&mut self, next: &mut Batch) -> Option<(usize, Work)> {
        self.look_who_is_there();
        if !self.backlog.reaches_any() {
            return None;
        }
        if let Some(found) = self.backlog.resume() {
            return Some(found);
        }
        next.route_by(self.routes.table.as_ref());
        let (ledger, events) = (&self.shared.ledger, &self.shared.events);
        self.backlog.take_back(next, ledger);
        self.backlog.gather(&self.queue, next, ledger, events);
        if next.is_empty() {
            return None;
        }
        let hash_fields = self.shared.setup.hash_fields;
        let spare = self.spare.take().unwrap_or_else(|| Batch::new(hash_fields));
        let batch = std::mem::replace(next, spare);
        Some((self.backlog.youngest(), Work::new(batch)))
    }

    fn tell_if_slow(&self, batch: &Batch, bytes: usize, took: Duration) {
        if self.shared.tuning().slow_push.is_some_and(|limit| took >= limit) {
            let address = match &self.lines[..] {
                [(_, line)] => line.gauge().address(),
                _ => self.shared.settings().address.masked(),
            };
            self.shared.events.emit(Event::SlowPush(SlowPush {
                took,
                bytes,
                mappings: batch.operations(),
                role: self.gauges.role().to_owned(),
                address,
            }));
        }
    }

    /// Sends a batch until all of it is through or lost, while the next one gathers. Returns false if the rest of it has
    /// to wait.
    async fn put_through(&mut self, place: usize, work: &mut Work, next: &mut Batch) -> bool {
        let batch = &mut work.batch;
        let mut redirected = 0;
        loop {
            self.tell_troubles(batch);
            if batch.is_through() {
                return true;
            }
            self.look_who_is_there();
            let table = self.routes.table.as_ref();
            batch.route_by(table);
            next.route_by(table);
            if !self.backlog.lets_send(place, batch, most(work.broken)) {
                return false;
            }
            let replies = self.exchange(batch, next).await;
            let (answers, lost) = self.read_answers(batch, replies);
            if lost.iter().any(|(_, cause)| *cause != Cause::Reconfigured) {
                work.broken += 1;
            } else if lost.is_empty() {
                work.broken = 0;
            }
            let (shared, masters) = (&self.shared, &self.routes.masters);
            let mut redirect = |said: Redirected<'_>| shared.redirected(&masters[said.by], &said);
            let outcome = batch.judge(&answers, most(work.broken), &mut redirect);
            self.tell_troubles(batch);
            let is_whole = lost.is_empty();
            self.lose_lines(lost);
            if work.broken >= GIVE_UP_AFTER {
                batch.give_up_first(work.broken);
                work.broken = ALONE_AFTER;
            }
            let has_waited = match outcome {
                Outcome::Through if is_whole => {
                    redirected = 0;
                    self.note_working(&answers);
                    false
                }
                Outcome::Redirected if is_whole => {
                    redirected += 1;
                    let pauses = redirected > FEW_REDIRECTIONS;
                    if pauses {
                        self.pause().await;
                    }
                    pauses
                }
                Outcome::Through | Outcome::Redirected => false,
                Outcome::Wait(at, cause) => {
                    self.wait_for(at, cause).await;
                    true
                }
            };
            if self.connect().await || has_waited {
                batch.forget_asked();
                redirected = 0;
            }
        }
    }

    /// Reports what is lost, and who had no memory, since the last call.
    fn tell_troubles(&self, batch: &mut Batch) {
        for Loss { mapping, reason, at } in batch.take_losses() {
            let address = match self.line_to(at) {
                Some((_, line)) => {
                    line.gauge().trouble(reason.kind());
                    line.gauge().address()
                }
                None => self.shared.settings().address.masked(),
            };
            self.shared.events.emit(Event::Lost {
                mapping: Some(mapping),
                reason,
                address,
            });
        }
        if let Some((at, cause)) = batch.take_full() {
            self.shared.tell_full(self.trouble(at, cause));
        }
    }

    /// The line to the master of this number.
    fn line_to(&self, at: usize) -> Option<&(Rc<Master>, Line)> {
        let master = self.routes.masters.get(at)?;
        self.lines.iter().find(|(other, _)| Rc::ptr_eq(other, master))
    }

    /// Counts trouble at the master of this number, and says where that is.
    fn trouble(&self, at: usize, cause: Cause) -> Fault {
        match self.line_to(at) {
            Some((master, line)) => {
                line.gauge().trouble(cause.kind());
                self.shared.fault_at(master, cause)
            }
            None => self.shared.fault(cause),
        }
    }

    /// Sends each master its part, all at the same time. The answers come with the numbers of the masters.
    async fn exchange(&mut self, batch: &Batch, next: &mut Batch) -> Vec<(usize, Result<Vec<Value>, Cause>)> {
        let Self {
            shared,
            queue,
            lines,
            routes,
            backlog,
            ..
        } = self;
        let sent = lines.iter_mut().filter_map(|(master, line)| {
            let at = routes
                .masters
                .iter()
                .position(|other| Rc::ptr_eq(other, master))?;
            let (commands, bytes) = batch
                .parts()
                .nth(at)
                .filter(|(commands, _)| !commands.is_empty())?;
            Some(carry(shared, at, master, line, commands, bytes))
        });
        let mut all = std::pin::pin!(join_all(sent));
        loop {
            tokio::select! {
                biased;
                replies = &mut all => return replies,
                () = queue.arrived.notified(), if next.has_room() => {
                    backlog.gather(queue, next, &shared.ledger, &shared.events);
                }
            }
        }
    }

    /// The answers to each part, and the masters to which the line is lost. Where something is unanswered, a client is
    /// left behind whose commands may still run.
    fn read_answers(
        &mut self,
        batch: &mut Batch,
        replies: Vec<(usize, Result<Vec<Value>, Cause>)>,
    ) -> (Vec<Answers>, Vec<(Rc<Master>, Cause)>) {
        let mut lost = Vec::new();
        let mut answers = vec![None; batch.parts().len()];
        for (at, result) in replies {
            let read = result.map(|replies| (batch.read_answers(at, &replies), replies));
            let cause = match read {
                Ok((None, replies)) => {
                    answers[at] = Some(replies);
                    continue;
                }
                Ok((Some(cause), _)) => cause,
                Err(cause) => {
                    if let Some((_, line)) = self.line_to(at) {
                        let client = line.client();
                        self.backlog.doubt(client, batch.in_part(at));
                    }
                    cause
                }
            };
            lost.push((self.routes.masters[at].clone(), cause));
        }
        (answers, lost)
    }
}

/// How many operations may be sent at a time after so many lost connections in a row.
fn most(broken: u32) -> usize {
    if broken >= ALONE_AFTER { 1 } else { usize::MAX }
}

/// Sends commands and waits for their answers, unless the server turns out to be another one, or no master any more.
/// Returns the master's number with what has become of it: another future around this one would be as large again, and is
/// moved for each batch.
async fn carry(
    shared: &Shared,
    at: usize,
    master: &Rc<Master>,
    line: &mut Line,
    commands: &Pipeline,
    bytes: usize,
) -> (usize, Result<Vec<Value>, Cause>) {
    let server = line.server.clone();
    let mut exchange = std::pin::pin!(line.exchange(commands, bytes));
    loop {
        let changed = shared.changed.notified();
        tokio::select! {
            biased;
            replies = &mut exchange => return (at, replies),
            () = changed => {
                if !shared.is_same(master, &server) {
                    return (at, Err(Cause::Reconfigured));
                }
            }
        }
    }
}
