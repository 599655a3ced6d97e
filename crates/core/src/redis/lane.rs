//! A lane: one connection, one pipeline in flight, the next one gathering (rule 5).
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
//! So at each moment one connection at most can run the commands of a key, and none that came after
//! the batch has been sent before the batch is through.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use ::redis::Value;
use tokio::sync::Notify;

use super::backoff::{self, Backoff};
use super::batch::{Batch, Outcome};
use super::event::Client;
use super::fault::Cause;
use super::ledger::Pending;
use super::line::Line;
use super::shared::Shared;

/// After so many lost connections in a row, operations are sent one at a time: one of them may be what
/// Redis, or something between here and there, breaks the connection over.
const ALONE_AFTER: u32 = 2;
/// After so many, an operation that was sent alone is given up.
const GIVE_UP_AFTER: u32 = 5;

/// Where the router puts a lane's operations.
#[derive(Default)]
pub(super) struct Queue {
    waiting: RefCell<VecDeque<Segment>>,
    arrived: Notify,
    is_busy: Cell<bool>,
    is_cut_off: Cell<bool>,
}

/// The operations of one chunk that take one lane.
struct Segment {
    pending: Rc<Pending>,
    ops: Vec<u32>,
    next: usize,
}

impl Queue {
    pub fn push(&self, pending: &Rc<Pending>, ops: Vec<u32>) {
        self.waiting.borrow_mut().push_back(Segment {
            pending: pending.clone(),
            ops,
            next: 0,
        });
        self.arrived.notify_one();
    }

    /// Whether something waits here for a server that cannot be reached.
    pub fn is_stuck(&self) -> bool {
        self.is_cut_off.get() && (self.is_busy.get() || !self.waiting.borrow().is_empty())
    }

    fn gather(&self, batch: &mut Batch) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(segment) = waiting.front_mut() {
            while let Some(&op) = segment.ops.get(segment.next) {
                if !batch.has_room() {
                    return;
                }
                batch.push(&segment.pending, op);
                segment.next += 1;
            }
            waiting.pop_front();
        }
    }
}

pub(super) struct Lane {
    shared: Rc<Shared>,
    queue: Rc<Queue>,
    role: String,
    line: Option<Line>,
    backoff: Backoff,
    /// Clients whose commands may still run.
    undead: Vec<Client>,
}

impl Lane {
    pub fn new(shared: Rc<Shared>, queue: Rc<Queue>, number: usize) -> Self {
        let role = format!("lane-{number}");
        Self {
            shared,
            queue,
            role,
            line: None,
            backoff: Backoff::default(),
            undead: Vec::new(),
        }
    }

    /// Runs until the engine stops.
    pub async fn run(mut self) {
        let hash_fields = self.shared.setup.hash_fields;
        let mut batch = Batch::new(hash_fields);
        let mut next = Batch::new(hash_fields);
        loop {
            self.connect(&[]).await;
            std::mem::swap(&mut batch, &mut next);
            self.queue.gather(&mut batch);
            if batch.is_empty() {
                self.rest().await;
                continue;
            }
            self.queue.is_busy.set(true);
            self.put_through(&mut batch, &mut next).await;
            batch.settle(&self.shared.ledger, &self.shared.events);
            self.queue.is_busy.set(!next.is_empty());
        }
    }

    /// Waits for operations, or for a reason to open another line.
    async fn rest(&mut self) {
        tokio::select! {
            () = self.queue.arrived.notified() => {}
            () = self.shared.changed.notified() => {}
        }
    }

    /// Sends the batch until all of it is through or lost, while the next one gathers.
    async fn put_through(&mut self, batch: &mut Batch, next: &mut Batch) {
        let mut broken: u32 = 0;
        loop {
            batch.report_losses(&self.shared.events);
            if let Some(cause) = batch.take_full() {
                self.shared.tell_full(cause);
            }
            if batch.is_through() {
                return;
            }
            let outcome = match self.exchange(batch, next).await {
                Ok(replies) => batch.judge(&replies),
                Err(cause) => {
                    self.undead.extend(self.line.as_ref().map(Line::client));
                    Outcome::Fatal(cause)
                }
            };
            match outcome {
                Outcome::Through => {
                    broken = 0;
                    self.backoff.reset();
                    self.shared.tell_working();
                }
                Outcome::Wait(cause) => {
                    broken = 0;
                    self.shared.tell_refusing(cause);
                    self.pause().await;
                }
                Outcome::Fatal(cause) => {
                    broken += u32::from(cause != Cause::Reconfigured);
                    self.lose_line(cause);
                    batch.plan_again(if broken >= ALONE_AFTER { 1 } else { usize::MAX });
                    if broken >= GIVE_UP_AFTER {
                        batch.give_up_first(broken);
                        broken = ALONE_AFTER;
                    }
                }
            }
            self.connect(&batch.mappings()).await;
        }
    }

    async fn exchange(&mut self, batch: &Batch, next: &mut Batch) -> Result<Vec<Value>, Cause> {
        let Some(line) = self.line.as_mut() else {
            return Err(Cause::Reconfigured);
        };
        let (commands, bytes) = batch.commands();
        let (generation, server) = (line.generation, line.server.clone());
        let mut exchange = std::pin::pin!(line.exchange(commands, bytes));
        loop {
            let changed = self.shared.changed.notified();
            tokio::select! {
                biased;
                replies = &mut exchange => return replies,
                () = changed => {
                    if !self.shared.is_same(generation, &server) {
                        return Err(Cause::Reconfigured);
                    }
                }
                () = self.queue.arrived.notified(), if next.has_room() => self.queue.gather(next),
            }
        }
    }

    /// Makes sure that there is a line to the server that the settings mean, and that nothing sent
    /// through an earlier one can run any more. `in_flight` are the mappings of what was sent through
    /// those.
    async fn connect(&mut self, in_flight: &[u16]) {
        match &self.line {
            Some(line) if self.shared.is_current(line) => return,
            Some(_) => {
                self.lose_line(Cause::Reconfigured);
                // Behind an address that leads to one server and then to another, lanes must not spin.
                self.backoff.next();
            }
            None => {}
        }
        loop {
            self.pause().await;
            let mut line = match self.shared.open(&self.role).await {
                Ok(line) => line,
                Err(Cause::Reconfigured) => {
                    self.backoff.reset();
                    continue;
                }
                Err(_) => {
                    self.queue.is_cut_off.set(self.backoff.attempts() > 1);
                    continue;
                }
            };
            match self.bury(&mut line, in_flight).await {
                Ok(()) => {
                    self.queue.is_cut_off.set(false);
                    self.line = Some(line);
                    self.shared.tell_working();
                    return;
                }
                Err(cause) => self.shared.lose(line, cause),
            }
        }
    }

    /// Kills this lane's own clients whose commands may still run. Those of another server process are left to
    /// whoever meets that process again.
    async fn bury(&mut self, line: &mut Line, in_flight: &[u16]) -> Result<(), Cause> {
        while let Some(client) = self.undead.last() {
            if client.run_id != line.server.run_id {
                self.shared.leave_behind(client.clone());
            } else if let Some(cause) = line.kill(client.id).await? {
                for mapping in in_flight {
                    self.shared.tell_unkillable(client.id, &cause, Some(*mapping));
                }
            }
            self.undead.pop();
        }
        Ok(())
    }

    fn lose_line(&mut self, cause: Cause) {
        if let Some(line) = self.line.take() {
            // It was good for long, even if nothing was sent: the trouble before it is over.
            if line.since.elapsed() > backoff::LONGEST {
                self.backoff.reset();
            }
            self.shared.lose(line, cause);
        }
    }

    /// Waits before the next attempt, unless the settings change.
    async fn pause(&mut self) {
        let wait = self.backoff.next();
        if wait == Duration::ZERO {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.shared.changed.notified() => {}
        }
    }
}
