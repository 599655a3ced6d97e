//! What of a lane's operations has to wait while others go on: rule 5 on a cluster of which a master is away.
//!
//! Everything here goes by slots. An operation is sent only if nothing older of its slot is unsent or unanswered in its
//! lane, and nothing of its slot is in doubt. So what holds for a lane with one connection holds for each slot. The
//! operations of a lane stand in this order, the oldest of each slot first:
//!
//! 1. *Stranded* batches, the oldest first: what of their plan is left waits.
//! 2. The batch in flight; or, in their place, a stranded one that goes on.
//! 3. The batch that gathers.
//! 4. What is *held*, by slot.
//! 5. The queue.
//!
//! A batch sends only what is of no slot that an older one still has in its plan ([`Backlog::lets_send`]), and keeps the
//! order within each slot. Nothing of a slot leaves the queue for a batch while something of it is held
//! ([`Backlog::gather`]). What has gathered and cannot be sent when its turn comes is held as well, before what is held of
//! its slot already ([`Backlog::take_back`]): what came after it is there, or in the queue. That operations are held, and
//! not put into a batch that would be stranded, is for the sake of memory and time: of a master that is there for
//! moments, each would leave one more batch behind.
//!
//! What is for a slot that no master has waits like that of a master that is away.
//!
//! In *doubt* are the slots of what was unanswered when its connection was lost: its commands may still run, wherever
//! that server process has the slot by then, until its client there is killed, or the process is known to be none of the
//! masters. It is no matter to other slots, whichever way those go meanwhile, for no command that may still run names a
//! key of theirs. A slot in doubt may leave that process, and come back: nothing of it has been sent to anybody in
//! between, so there is nothing newer that an old command could overwrite. That is why a doubt ends by what is known of
//! the process, and not when the slot is seen at another one.
//!
//! Does no I/O, and does not know how connections are had: see `lane`.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use super::batch::{Batch, InPart};
use super::event::{Client, Events};
use super::ledger::{Ledger, Pending};
use super::queue::Queue;
use super::slots::slot;
use super::table::Table;

/// When a key is asked for again whose slot is on its way to a master that is away.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Which masters can be written to now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reach {
    /// `None`: one server has all keys.
    pub table: Option<Rc<Table>>,
    /// By the numbers of the masters.
    pub open: Vec<bool>,
}

impl Reach {
    fn is_open(&self, at: usize) -> bool {
        self.open.get(at).copied().unwrap_or(false)
    }

    /// Whether what is to go to the owner of a slot can be sent. What is for a slot that nobody has waits until somebody
    /// has it: one who is asked instead refuses, and other keys would wait for that.
    fn has(&self, slot: u16) -> bool {
        match &self.table {
            Some(table) => table.owner(slot).is_some_and(|owner| self.is_open(owner)),
            None => self.is_open(0),
        }
    }

    /// The same of what is to go to this master.
    fn takes(&self, slot: u16, at: usize) -> bool {
        let has_owner = |table: &Rc<Table>| table.owner(slot).is_some();
        self.is_open(at) && self.table.as_ref().is_none_or(has_owner)
    }

    /// Whether everything can be sent.
    fn is_whole(&self) -> bool {
        !self.open.contains(&false) && self.table.as_ref().is_none_or(|table| table.is_whole())
    }
}

/// A batch on its way through.
pub(super) struct Work {
    pub batch: Batch,
    /// How many connections in a row were lost over it.
    pub broken: u32,
    /// It does not go on before this, until that is taken notice of.
    not_before: Option<Instant>,
}

impl Work {
    pub fn new(batch: Batch) -> Self {
        Self {
            batch,
            broken: 0,
            not_before: None,
        }
    }
}

/// What a lost connection has left.
struct Doubt {
    client: Client,
    sent: InPart,
}

/// See the module.
#[derive(Default)]
pub(super) struct Backlog {
    reach: Reach,
    stranded: Vec<Work>,
    held: FxHashMap<u16, VecDeque<(Rc<Pending>, u32)>>,
    doubts: Vec<Doubt>,
    /// Something has changed since the next two were found out.
    is_stale: bool,
    /// The slots of what is stranded or in doubt.
    shut: FxHashSet<u16>,
    /// The slots held of which something can be sent.
    ready: VecDeque<u16>,
    /// Something has changed since no stranded batch could go on.
    may_resume: bool,
}

impl Backlog {
    /// Takes note of which masters can be written to.
    pub fn set_reach(&mut self, reach: Reach) {
        if self.reach != reach {
            self.reach = reach;
            self.has_changed();
        }
    }

    /// Whether any master can be written to.
    pub fn reaches_any(&self) -> bool {
        self.reach.open.contains(&true)
    }

    /// Whether nothing waits, and nothing is in doubt.
    pub fn is_clear(&self) -> bool {
        self.stranded.is_empty() && self.held.is_empty() && self.doubts.is_empty()
    }

    /// The usual state: everything can be sent.
    fn is_calm(&self) -> bool {
        self.is_clear() && self.reach.is_whole()
    }

    fn has_changed(&mut self) {
        self.is_stale = true;
        self.may_resume = true;
    }

    fn refresh(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        self.shut = self.shut_before(self.stranded.len());
        let ready = self.held.keys().copied().filter(|slot| self.lets_go(*slot));
        self.ready = ready.collect();
    }

    /// The slots of which nothing may be sent by the work at that place in the order.
    fn shut_before(&self, place: usize) -> FxHashSet<u16> {
        let older = self.stranded[..place].iter();
        let mut shut = self.in_doubt();
        shut.extend(older.flat_map(|work| work.batch.slots_left()));
        shut
    }

    fn in_doubt(&self) -> FxHashSet<u16> {
        let sent = self.doubts.iter().map(|doubt| &doubt.sent);
        sent.flat_map(|sent| sent.slots.iter().copied()).collect()
    }

    /// The place in the order of a batch that begins.
    pub fn youngest(&self) -> usize {
        self.stranded.len()
    }

    /// Plans what of the batch at this place can be sent, at most `most` operations. Returns whether that is anything.
    pub fn lets_send(&self, place: usize, batch: &mut Batch, most: usize) -> bool {
        if self.is_calm() && batch.sends_all(most) {
            return true;
        }
        let shut = self.shut_before(place);
        batch.send_only(most, |slot, at| {
            self.reach.takes(slot, at) && !shut.contains(&slot)
        })
    }

    /// Keeps what could not be sent, at its place in the order.
    pub fn strand(&mut self, place: usize, mut work: Work, ledger: &Ledger) {
        work.batch.chunks().for_each(|chunk| ledger.park(chunk));
        let had_to_ask = work.batch.forget_asked();
        work.not_before = had_to_ask.then(|| Instant::now() + ASK_AGAIN);
        self.stranded.insert(place, work);
        self.has_changed();
    }

    /// Takes the oldest stranded batch of which something can be sent by now, with its place in the order.
    pub fn resume(&mut self) -> Option<(usize, Work)> {
        if self.stranded.is_empty() {
            return None;
        }
        let now = Instant::now();
        for work in &mut self.stranded {
            self.may_resume |= work.not_before.take_if(|time| *time <= now).is_some();
        }
        if !std::mem::take(&mut self.may_resume) {
            return None;
        }
        let mut shut = self.in_doubt();
        let (reach, stranded) = (&self.reach, &mut self.stranded);
        let place = stranded.iter_mut().position(|work| {
            work.batch.route_by(reach.table.as_ref());
            let is_open = |slot, at| reach.takes(slot, at) && !shut.contains(&slot);
            let goes_on = work.not_before.is_none() && work.batch.can_send(is_open);
            shut.extend(work.batch.slots_left());
            goes_on
        })?;
        let work = self.stranded.remove(place);
        work.batch.chunks().for_each(|chunk| chunk.unpark());
        self.has_changed();
        Some((place, work))
    }

    /// When a stranded batch may go on that has only to wait. A time that has passed is one that [`Self::resume`] has not
    /// seen.
    pub fn next_try(&self) -> Option<Instant> {
        self.stranded.iter().filter_map(|work| work.not_before).min()
    }

    /// What was sent through a lost connection of this client may still run.
    pub fn doubt(&mut self, client: Client, sent: InPart) {
        self.doubts.push(Doubt { client, sent });
        self.has_changed();
    }

    /// The client that left a doubt, and the mappings of what it had sent.
    pub fn doubted(&self, place: usize) -> Option<(&Client, &[u16])> {
        let doubt = self.doubts.get(place)?;
        Some((&doubt.client, &doubt.sent.mappings))
    }

    /// Nothing of it can run any more.
    pub fn believe(&mut self, place: usize) {
        self.doubts.remove(place);
        self.has_changed();
    }

    /// Moves operations into a batch that has room, and holds those that it may not have.
    pub fn gather(&mut self, queue: &Queue, batch: &mut Batch, ledger: &Ledger, events: &Events) {
        if self.is_calm() {
            return queue.gather(batch);
        }
        self.refresh();
        self.gather_held(batch);
        queue.take_while(|pending, op| {
            let slot = slot_of(pending, op);
            if self.lets_go(slot) {
                // If some of the slot are still held, it is because there was no room for them.
                let has_room = batch.has_room() && !self.held.contains_key(&slot);
                if has_room {
                    batch.push(pending, op);
                }
                return has_room;
            }
            ledger.park(pending);
            let held = self.held.entry(slot).or_default();
            held.push_back((pending.clone(), op));
            true
        });
        ledger.tell_held_up(events);
    }

    /// Holds what of the batch that gathers cannot be sent by now. Sent with the rest of it, it would be stranded, and
    /// with each short time for which a master is there a batch more.
    pub fn take_back(&mut self, batch: &mut Batch, ledger: &Ledger) {
        if self.is_calm() {
            return;
        }
        self.refresh();
        let operations = || batch.gathered().map(|(pending, op)| slot_of(pending, op));
        if operations().all(|slot| self.lets_go(slot)) {
            return;
        }
        // From the last one on, each before those of its slot that came after it.
        for (pending, op) in batch.take_back(|pending, op| self.lets_go(slot_of(pending, op))) {
            ledger.park(&pending);
            let held = self.held.entry(slot_of(&pending, op)).or_default();
            held.push_front((pending, op));
        }
    }

    /// Whether what is not in a batch yet can be sent, as far as its slot is concerned.
    fn lets_go(&self, slot: u16) -> bool {
        self.reach.has(slot) && !self.shut.contains(&slot)
    }

    fn gather_held(&mut self, batch: &mut Batch) {
        while let Some(slot) = self.ready.front().copied()
            && batch.has_room()
        {
            let held = self.held.get_mut(&slot);
            if let Some((pending, op)) = held.and_then(VecDeque::pop_front) {
                pending.unpark();
                batch.push(&pending, op);
            }
            if self.held.get(&slot).is_none_or(VecDeque::is_empty) {
                self.held.remove(&slot);
                self.ready.pop_front();
            }
        }
    }
}

fn slot_of(pending: &Pending, op: u32) -> u16 {
    slot(pending.chunk.key(&pending.chunk.ops()[op as usize]))
}

#[cfg(test)]
mod tests;
