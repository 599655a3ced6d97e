//! A batch: the operations of one pipeline, from the queue of a lane until each has gone through.
//!
//! A batch keeps a plan, the operations still to be sent and in which way. At first that is every
//! operation as written. What an answer or a lost connection calls for changes the plan:
//!
//! - Only the last operation of each key counts for it. Sending an earlier one again after a later one
//!   may have run would let the key go back (rule 4).
//! - A fill whose connection is lost becomes a deletion: whether it was still right is not known any
//!   more, and whether it got its expiry is not either.
//!
//! Deleting is always right, so every doubt ends there. All operations of a batch are settled at once,
//! when its plan is empty: one that was left out for a later one is not through before that one is.

use std::num::NonZeroU64;
use std::rc::Rc;

use ::redis::{Cmd, Pipeline, Value};
use rustc_hash::FxHashMap;

use super::chunk::{Action, Chunk, Expiry, Form, HashFields, Op, Ticket};
use super::event::{Event, Events, LossReason};
use super::fault::Cause;
use super::ledger::{Ledger, Pending};
use super::reply::Verdict;

/// The most operations in one batch. Larger ones do not raise the rate, and are slower to be answered.
const MOST_OPS: usize = 512;
/// No operation is added to a batch of this many bytes.
const MOST_BYTES: usize = 1 << 20;
/// The most keys in one UNLINK.
const MOST_KEYS: u32 = 64;

struct Item {
    pending: Rc<Pending>,
    op: u32,
}

impl Item {
    fn op(&self) -> &Op {
        &self.pending.chunk.ops()[self.op as usize]
    }

    fn chunk(&self) -> &Chunk {
        &self.pending.chunk
    }

    fn key(&self) -> &[u8] {
        self.chunk().key(self.op())
    }
}

/// How an operation is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    AsWritten,
    /// The key is deleted first: it held another type.
    Replaced,
    /// The key is deleted instead.
    Deleted,
    /// The mapping is declared lost, and the key is deleted if that can be had.
    Condemned,
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    item: u32,
    way: Way,
}

/// A command, and the operations of the plan that it is for.
#[derive(Clone, Copy, Debug)]
struct Step {
    first: u32,
    count: u32,
    /// An UNLINK that is all there is of its operations, so that others may join.
    is_deletion: bool,
}

/// What is to be done after the answers to a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The plan is empty, or its rest can be sent.
    Through,
    /// The server refuses for now: wait before sending the rest.
    Wait(Cause),
    /// The connection is of no use; nothing has been settled.
    Fatal(Cause),
}

/// Operations on their way.
pub(super) struct Batch {
    hash_fields: HashFields,
    items: Vec<Item>,
    plan: Vec<Planned>,
    /// The commands for the first `encoded` entries of the plan.
    commands: Pipeline,
    steps: Vec<Step>,
    encoded: usize,
    bytes: usize,
    /// Of the operations that did not go as written: how they went.
    turned: FxHashMap<u32, Way>,
    errors: FxHashMap<u32, u64>,
    answers: Vec<(u32, u64)>,
    lost: Vec<(u16, LossReason)>,
    /// What the server said when it had no memory for a write.
    full: Option<Cause>,
}

impl Batch {
    pub fn new(hash_fields: HashFields) -> Self {
        Self {
            hash_fields,
            items: Vec::new(),
            plan: Vec::new(),
            commands: Pipeline::new(),
            steps: Vec::new(),
            encoded: 0,
            bytes: 0,
            turned: FxHashMap::default(),
            errors: FxHashMap::default(),
            answers: Vec::new(),
            lost: Vec::new(),
            full: None,
        }
    }

    pub fn has_room(&self) -> bool {
        self.items.len() < MOST_OPS && self.bytes < MOST_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Nothing of it is left to be sent.
    pub fn is_through(&self) -> bool {
        self.plan.is_empty()
    }

    /// The commands to send now, and the bytes in them.
    pub fn commands(&self) -> (&Pipeline, usize) {
        (&self.commands, self.bytes)
    }

    /// The mappings of what is still to be sent, each once.
    pub fn mappings(&self) -> Vec<u16> {
        let mut mappings: Vec<u16> = self
            .plan
            .iter()
            .map(|p| self.items[p.item as usize].op().mapping)
            .collect();
        mappings.sort_unstable();
        mappings.dedup();
        mappings
    }

    /// Takes one more operation in.
    pub fn push(&mut self, pending: &Rc<Pending>, op: u32) {
        self.items.push(Item {
            pending: pending.clone(),
            op,
        });
        self.plan.push(Planned {
            item: (self.items.len() - 1) as u32,
            way: Way::AsWritten,
        });
        self.encode_next();
    }

    /// Encodes the plan from its beginning, up to this many operations.
    fn encode(&mut self, most: usize) {
        self.commands.clear();
        self.steps.clear();
        self.encoded = 0;
        self.bytes = 0;
        while self.encoded < self.plan.len().min(most) {
            self.encode_next();
        }
    }

    fn encode_next(&mut self) {
        let planned = self.plan[self.encoded];
        let item = &self.items[planned.item as usize];
        let (op, chunk) = (item.op(), item.chunk());
        let first = self.encoded as u32;
        let step = |count, is_deletion| Step {
            first,
            count,
            is_deletion,
        };
        let key = chunk.key(op);
        self.encoded += 1;
        match (&op.action, planned.way) {
            (
                Action::Store {
                    value,
                    form: Form::Text,
                    expiry,
                },
                Way::AsWritten | Way::Replaced,
            ) => {
                let value = chunk.bytes(value);
                self.bytes += key.len() + value.len();
                self.commands.add_command(set(key, value, *expiry));
                self.steps.push(step(1, false));
            }
            (
                Action::Store {
                    value,
                    form: Form::Hash,
                    expiry,
                },
                Way::AsWritten | Way::Replaced,
            ) => {
                let value = chunk.bytes(value);
                let Some((command, is_complete)) = hset(key, value, self.hash_fields) else {
                    let mapping = op.mapping;
                    self.condemn(planned.item, mapping, LossReason::Payload);
                    self.plan[self.encoded - 1].way = Way::Condemned;
                    return self.encode_deletion(false);
                };
                let Some(command) = command else {
                    self.turn(planned.item, Way::Deleted);
                    return self.encode_deletion(false);
                };
                self.bytes += key.len() + value.len();
                if !is_complete || planned.way == Way::Replaced {
                    // No field of an older row may survive. A reader in between finds no key.
                    self.commands.add_command(unlink(key));
                    self.steps.push(step(1, false));
                }
                self.commands.add_command(command);
                self.steps.push(step(1, false));
                if let Expiry::Milliseconds(ms) = expiry {
                    self.commands.add_command(pexpire(key, *ms));
                    self.steps.push(step(1, false));
                }
            }
            (Action::Delete { answer: Some(_) }, _) => self.encode_deletion(true),
            (Action::Delete { answer: None } | Action::Store { .. }, _) => self.encode_deletion(false),
        }
    }

    /// Adds the last operation's key to the UNLINK before it, or begins one. One that is asked for an
    /// answer stands alone.
    fn encode_deletion(&mut self, is_alone: bool) {
        let first = (self.encoded - 1) as u32;
        let key = self.items[self.plan[first as usize].item as usize].key();
        self.bytes += key.len();
        match self.steps.last_mut() {
            Some(last) if last.is_deletion && !is_alone && last.count < MOST_KEYS => {
                self.commands.arg(key);
                last.count += 1;
            }
            _ => {
                self.commands.add_command(unlink(key));
                self.steps.push(Step {
                    first,
                    count: 1,
                    is_deletion: !is_alone,
                });
            }
        }
    }

    fn condemn(&mut self, item: u32, mapping: u16, reason: LossReason) {
        self.turned.insert(item, Way::Condemned);
        *self.errors.entry(item).or_default() += 1;
        if !self.lost.iter().any(|(of, _)| *of == mapping) {
            self.lost.push((mapping, reason));
        }
    }

    /// The connection is lost: plans what has to be sent again through another one, at most `most`
    /// operations at a time.
    pub fn plan_again(&mut self, most: usize) {
        let plan = std::mem::take(&mut self.plan);
        let last = self.last_of_each_key(&plan);
        for (planned, is_last) in plan.into_iter().zip(last) {
            if !is_last {
                continue;
            }
            let is_fill = self.items[planned.item as usize].op().is_fill;
            let way = match planned.way {
                Way::AsWritten | Way::Replaced if is_fill => self.turn(planned.item, Way::Deleted),
                way => way,
            };
            self.plan.push(Planned {
                item: planned.item,
                way,
            });
        }
        self.encode(most);
    }

    /// The first operation of the plan has lost its connection `attempts` times, sent alone: gives up on
    /// storing it, or, if that is given up already, on deleting its key.
    pub fn give_up_first(&mut self, attempts: u32) {
        let Some(planned) = self.plan.first().copied() else {
            return;
        };
        let mapping = self.items[planned.item as usize].op().mapping;
        if planned.way == Way::Condemned {
            self.plan.remove(0);
        } else {
            self.condemn(planned.item, mapping, LossReason::Unsendable { attempts });
            self.plan[0].way = Way::Condemned;
        }
        self.encode(1);
    }

    /// For each entry, whether no later one has its key.
    fn last_of_each_key(&self, plan: &[Planned]) -> Vec<bool> {
        let mut seen = FxHashMap::default();
        let mut last = vec![true; plan.len()];
        for (index, planned) in plan.iter().enumerate() {
            if let Some(earlier) = seen.insert(self.items[planned.item as usize].key(), index) {
                last[earlier] = false;
            }
        }
        last
    }

    fn turn(&mut self, item: u32, way: Way) -> Way {
        self.turned.insert(item, way);
        way
    }

    /// Takes the answers to what was encoded, and plans what follows from them.
    pub fn judge(&mut self, replies: &[Value]) -> Outcome {
        self.note_answers(replies);
        if !replies.iter().any(|reply| matches!(reply, Value::ServerError(_))) {
            self.plan.drain(..self.encoded);
            self.encode(usize::MAX);
            return Outcome::Through;
        }
        let verdicts = self.verdicts(replies);
        if let Some(Verdict::Fatal(cause)) = verdicts.iter().find(|v| matches!(v, Verdict::Fatal(_))) {
            return Outcome::Fatal(cause.clone());
        }
        let rest = self.plan.split_off(self.encoded);
        let sent = std::mem::take(&mut self.plan);
        let last = self.last_of_each_key(&sent);
        let mut wait = None;
        for ((planned, verdict), is_last) in sent.into_iter().zip(verdicts).zip(last) {
            if let Verdict::Later(cause) = &verdict {
                wait = Some(cause.clone());
            } else if verdict != Verdict::Done {
                if let Verdict::NoMemory(cause) = &verdict {
                    self.full = Some(cause.clone());
                }
                *self.errors.entry(planned.item).or_default() += 1;
            }
            if let Some(way) = self.follow_up(planned, verdict, is_last) {
                self.plan.push(Planned {
                    item: planned.item,
                    way,
                });
            }
        }
        self.plan.extend(rest);
        self.encode(usize::MAX);
        wait.map_or(Outcome::Through, Outcome::Wait)
    }

    fn verdicts(&self, replies: &[Value]) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::Done; self.encoded];
        for (step, reply) in self.steps.iter().zip(replies) {
            if let Value::ServerError(error) = reply {
                for verdict in &mut verdicts[step.first as usize..(step.first + step.count) as usize] {
                    verdict.worsen(Verdict::of(error));
                }
            }
        }
        verdicts
    }

    /// How to send an operation again, if it must be.
    fn follow_up(&mut self, planned: Planned, verdict: Verdict, is_last: bool) -> Option<Way> {
        let Planned { item, way } = planned;
        let op = self.items[item as usize].op();
        let (mapping, stores) = (op.mapping, matches!(op.action, Action::Store { .. }));
        match verdict {
            Verdict::Done | Verdict::Fatal(_) => None,
            // A later operation on the key has been sent since, and decides.
            _ if !is_last => None,
            Verdict::Later(_) => Some(way),
            Verdict::WrongType(_) if way == Way::AsWritten => Some(Way::Replaced),
            Verdict::WrongType(_) | Verdict::NoMemory(_) if way == Way::AsWritten || way == Way::Replaced => {
                Some(self.turn(item, Way::Deleted))
            }
            _ if way == Way::Condemned => None,
            Verdict::WrongType(cause) | Verdict::NoMemory(cause) | Verdict::Refused(cause) => {
                self.turned.insert(item, Way::Condemned);
                if !self.lost.iter().any(|(of, _)| *of == mapping) {
                    self.lost.push((mapping, LossReason::Refused(cause)));
                }
                // Where the deletion itself was refused, there is nothing left to try.
                (stores && way != Way::Deleted).then_some(Way::Condemned)
            }
        }
    }

    /// Keeps the answers to deletions that were asked for one.
    fn note_answers(&mut self, replies: &[Value]) {
        for (step, reply) in self.steps.iter().zip(replies) {
            let item = self.plan[step.first as usize].item;
            let asked = matches!(
                self.items[item as usize].op().action,
                Action::Delete { answer: Some(_) }
            );
            if let (true, Value::Int(deleted)) = (asked, reply) {
                self.answers.push((item, *deleted as u64));
            }
        }
    }

    /// What the server has said since the last call, if it had no memory for a write.
    pub fn take_full(&mut self) -> Option<Cause> {
        self.full.take()
    }

    /// Reports what has been lost since the last call.
    pub fn report_losses(&mut self, events: &Events) {
        for (mapping, reason) in self.lost.drain(..) {
            events.emit(Event::Lost {
                mapping: Some(mapping),
                reason,
            });
        }
    }

    /// Settles every operation, which empties the batch, and acknowledges what is through by that.
    pub fn settle(&mut self, ledger: &Ledger, events: &Events) {
        debug_assert!(self.is_through(), "a batch was settled before it was through");
        for (index, item) in self.items.iter().enumerate() {
            let index = index as u32;
            let op = item.op();
            let turned = (!self.turned.is_empty())
                .then(|| self.turned.get(&index))
                .flatten();
            let errors = if self.errors.is_empty() {
                0
            } else {
                self.errors.get(&index).copied().unwrap_or(0)
            };
            item.pending.settle(op.mapping, |counts| {
                counts.errors += errors;
                match (&op.action, turned) {
                    (Action::Store { .. }, Some(Way::Deleted | Way::Condemned)) if op.is_fill => {
                        counts.fills_dropped += 1;
                    }
                    (_, Some(Way::Condemned)) => {}
                    (Action::Delete { .. }, _) | (_, Some(Way::Deleted)) => counts.deletes += 1,
                    (Action::Store { value, .. }, _) => {
                        *(if op.is_fill {
                            &mut counts.fills
                        } else {
                            &mut counts.sets
                        }) += 1;
                        counts.bytes += (item.key().len() + value.len()) as u64;
                    }
                }
            });
            if let Action::Delete { answer: Some(ticket) } = op.action {
                events.emit(self.answer(index, ticket));
            }
        }
        ledger.acknowledge(events);
        self.clear();
    }

    fn answer(&self, item: u32, ticket: Ticket) -> Event {
        let deleted = self
            .answers
            .iter()
            .rev()
            .find(|(of, _)| *of == item)
            .map(|(_, deleted)| *deleted);
        Event::Answer { ticket, deleted }
    }

    /// Empties the batch, and keeps its memory for the next one.
    fn clear(&mut self) {
        self.items.clear();
        self.plan.clear();
        self.commands.clear();
        self.steps.clear();
        self.encoded = 0;
        self.bytes = 0;
        self.turned.clear();
        self.errors.clear();
        self.answers.clear();
        self.lost.clear();
        self.full = None;
    }
}

fn set(key: &[u8], value: &[u8], expiry: Expiry) -> Cmd {
    let mut command = Cmd::with_capacity(5, 5 + key.len() + value.len() + 20);
    command.arg("SET").arg(key).arg(value);
    if let Expiry::Milliseconds(ms) = expiry {
        command.arg("PX").arg(ms.get());
    }
    command
}

fn unlink(key: &[u8]) -> Cmd {
    let mut command = Cmd::with_capacity(2, 6 + key.len());
    command.arg("UNLINK").arg(key);
    command
}

fn pexpire(key: &[u8], ms: NonZeroU64) -> Cmd {
    let mut command = Cmd::with_capacity(3, 7 + key.len() + 20);
    command.arg("PEXPIRE").arg(key).arg(ms.get());
    command
}

/// HSET with the fields of a stored hash, no command if there are none, and whether every column is
/// among them. `None`: the bytes are not a stored hash.
fn hset(key: &[u8], stored: &[u8], fields: HashFields) -> Option<(Option<Cmd>, bool)> {
    let mut command = Cmd::with_capacity(8, 4 + key.len() + stored.len());
    command.arg("HSET").arg(key);
    let mut count = 0;
    let is_complete = fields(stored, &mut |name, text| {
        command.arg(name).arg(text);
        count += 1;
    })?;
    Some(((count > 0).then_some(command), is_complete))
}
