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
//!
//! For a cluster a batch is taken apart by the slots of its keys, into a part for each master; the parts are
//! sent at the same time. All operations of a key that are sent together are in one part, in their order.
//! What a master redirects has not run there: it is planned again, a fill too, for the master that has the
//! slot (MOVED) or that it is on its way to (ASK, for this time only). An operation of several commands goes
//! again whole, and again only the last one of each key. No command of a part has several keys: a slot that
//! moves may have some of them here and others there (TRYAGAIN).

use std::rc::Rc;

use ::redis::{Pipeline, Value};
use rustc_hash::FxHashMap;

use super::chunk::{Action, Chunk, HashFields, Op, Ticket};
use super::event::{Event, Events, LossReason};
use super::fault::Cause;
use super::ledger::{Ledger, Pending};
use super::part::Part;
use super::table::Table;

/// The most operations in one batch. Larger ones do not raise the rate, and are slower to be answered.
const MOST_OPS: usize = 512;
/// No operation is added to a batch of this many bytes.
const MOST_BYTES: usize = 1 << 20;
mod encode;
mod hold;
mod judge;

use encode::part_of;
pub(super) use hold::InPart;

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
    /// The master to which the slot is on its way, if another one has said so (ASK).
    asked: Option<u16>,
}

/// What is to be done after the answers to a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The plan is empty, or its rest can be sent.
    Through,
    /// The rest can be sent; some of it was sent to a master that does not have its slot.
    Redirected,
    /// The master with this number refuses for now: wait before sending the rest.
    Wait(usize, Cause),
}

/// What a master says about a slot that is not its own.
#[derive(Debug)]
pub(super) struct Redirected<'a> {
    /// The number of the master that says so.
    pub by: usize,
    /// For this time only (ASK), or for good (MOVED).
    pub is_ask: bool,
    /// The slot and the place, as `3999 127.0.0.1:6381`.
    pub to: &'a str,
    /// Which list of masters an answer has to be a number of: see [`Table::numbering`].
    pub numbering: u64,
}

/// What came from one master; `None` where the connection was lost, or is of no use.
pub(super) type Answers = Option<Vec<Value>>;

/// Takes note of redirections, and knows the master of an ASK by its number.
pub(super) type Redirect<'a> = &'a mut dyn FnMut(Redirected<'_>) -> Option<u16>;

/// Operations on their way.
pub(super) struct Batch {
    hash_fields: HashFields,
    items: Vec<Item>,
    plan: Vec<Planned>,
    /// Who has which slot; `None`: there is one server, which has all keys.
    table: Option<Rc<Table>>,
    /// The commands for the first `encoded` entries of the plan, by the number of the master.
    parts: Vec<Part>,
    encoded: usize,
    bytes: usize,
    /// Of the operations that did not go as written: how they went.
    turned: FxHashMap<u32, Way>,
    errors: FxHashMap<u32, u64>,
    answers: Vec<(u32, u64)>,
    lost: Vec<Loss>,
    /// The master that had no memory for a write, and what it said.
    full: Option<(usize, Cause)>,
}

/// A mapping whose keys are no longer known to be right.
pub(super) struct Loss {
    pub mapping: u16,
    pub reason: LossReason,
    /// The number of the master that it happened at.
    pub at: usize,
}

impl Batch {
    pub fn new(hash_fields: HashFields) -> Self {
        Self {
            hash_fields,
            items: Vec::new(),
            plan: Vec::new(),
            table: None,
            parts: vec![Part::new()],
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

    /// The commands to send now, and the bytes in them, to each master by its number; none to some.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (&Pipeline, usize)> {
        self.parts.iter().map(|part| (&part.commands, part.bytes))
    }

    /// Takes the batch apart by this table from now on.
    pub fn route_by(&mut self, table: Option<&Rc<Table>>) {
        let is_same = match (&self.table, table) {
            (Some(old), Some(new)) => Rc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return;
        }
        let numbering = |table: Option<&Rc<Table>>| table.map(|table| table.numbering());
        if numbering(self.table.as_ref()) != numbering(table) {
            self.plan.iter_mut().for_each(|planned| planned.asked = None);
        }
        self.table = table.cloned();
        let masters = self.table.as_ref().map_or(1, |table| table.masters().max(1));
        self.parts.resize_with(masters, Part::new);
        self.encode(self.encoded);
    }

    /// What ASK says holds for the moment: after a while whose slot was on its way has to ask again. Returns whether
    /// there is such a one.
    pub fn forget_asked(&mut self) -> bool {
        let mut asked = self
            .plan
            .iter_mut()
            .filter(|planned| planned.asked.is_some())
            .peekable();
        let is_any = asked.peek().is_some();
        if is_any {
            asked.for_each(|planned| planned.asked = None);
            self.encode(self.encoded);
        }
        is_any
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
            asked: None,
        });
        self.encode_next();
    }

    fn condemn(&mut self, item: u32, mapping: u16, at: usize, reason: LossReason) {
        *self.errors.entry(item).or_default() += 1;
        self.give_up(item, Loss { mapping, reason, at });
    }

    /// The mapping is lost; once for all of its operations.
    fn give_up(&mut self, item: u32, loss: Loss) {
        self.turned.insert(item, Way::Condemned);
        if !self.lost.iter().any(|other| other.mapping == loss.mapping) {
            self.lost.push(loss);
        }
    }

    /// Every connection is lost: plans what has to be sent again through others, at most `most`
    /// operations at a time.
    pub fn plan_again(&mut self, most: usize) {
        let plan = std::mem::take(&mut self.plan);
        let last = self.last_of_each_key(&plan);
        for (planned, is_last) in plan.into_iter().zip(last) {
            if is_last {
                let way = self.way_over_another_line(planned);
                self.plan.push(Planned {
                    way,
                    asked: None,
                    ..planned
                });
            }
        }
        self.encode(most);
    }

    /// How to send an operation again whose connection is lost: whether a fill is still right is not known.
    fn way_over_another_line(&mut self, planned: Planned) -> Way {
        let is_fill = self.items[planned.item as usize].op().is_fill;
        match planned.way {
            Way::AsWritten | Way::Replaced if is_fill => self.turn(planned.item, Way::Deleted),
            way => way,
        }
    }

    /// The first operation of the plan has lost its connection `attempts` times, sent alone: gives up on
    /// storing it, or, if that is given up already, on deleting its key.
    pub fn give_up_first(&mut self, attempts: u32) {
        let Some(planned) = self.plan.first().copied() else {
            return;
        };
        let item = &self.items[planned.item as usize];
        let (mapping, at) = (
            item.op().mapping,
            part_of(item.key(), planned, self.table.as_deref()),
        );
        if planned.way == Way::Condemned {
            self.plan.remove(0);
        } else {
            self.condemn(planned.item, mapping, at, LossReason::Unsendable { attempts });
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

    /// What the server has said since the last call, if it had no memory for a write.
    pub fn take_full(&mut self) -> Option<(usize, Cause)> {
        self.full.take()
    }

    /// The mappings of its operations, each with their number.
    pub fn operations(&self) -> Vec<(u16, usize)> {
        let mut operations: Vec<(u16, usize)> = Vec::new();
        for item in &self.items {
            let mapping = item.op().mapping;
            match operations.iter_mut().find(|(known, _)| *known == mapping) {
                Some((_, count)) => *count += 1,
                None => operations.push((mapping, 1)),
            }
        }
        operations
    }

    /// What has been lost since the last call.
    pub fn take_losses(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.lost)
    }

    /// Bytes of keys and values in what is to be sent now.
    pub fn bytes(&self) -> usize {
        self.bytes
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
        self.parts.iter_mut().for_each(Part::clear);
        self.encoded = 0;
        self.bytes = 0;
        self.turned.clear();
        self.errors.clear();
        self.answers.clear();
        self.lost.clear();
        self.full = None;
    }
}

#[cfg(test)]
mod tests;
