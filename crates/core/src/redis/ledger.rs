//! Which chunks are through: acknowledges them in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::SystemTime;

use super::chunk::Chunk;
use super::event::{Counts, Event, Events};

/// A chunk on its way.
#[derive(Debug)]
pub(super) struct Pending {
    pub chunk: Chunk,
    left: Cell<usize>,
    /// Of those, how many wait for a master that is away.
    parked: Cell<usize>,
    is_watched: Cell<bool>,
    /// Whether it was told that it is held up.
    is_told: Cell<bool>,
    counts: RefCell<Vec<(u16, Counts)>>,
}

impl Pending {
    /// Counts one operation as settled, with what became of it.
    pub fn settle(&self, mapping: u16, count: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.borrow_mut();
        let index = match counts.iter().rposition(|(of, _)| *of == mapping) {
            Some(index) => index,
            None => {
                counts.push((mapping, Counts::default()));
                counts.len() - 1
            }
        };
        count(&mut counts[index].1);
        debug_assert!(self.left.get() > 0, "an operation was settled twice");
        self.left.set(self.left.get() - 1);
    }

    /// One operation that [`Ledger::park`] has counted can go on.
    pub fn unpark(&self) {
        debug_assert!(self.parked.get() > 0, "an operation went on that did not wait");
        self.parked.set(self.parked.get() - 1);
    }

    /// Whether nothing of it goes on: what is left waits, if anything is left.
    fn stands_still(&self) -> bool {
        self.left.get() == self.parked.get()
    }

    fn tell(&self, events: &Events) {
        if !self.is_told.replace(true) {
            let chunk = self.chunk.id();
            events.emit(Event::HeldUp { chunk });
        }
    }
}

/// The chunks that are not acknowledged, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pending: RefCell<VecDeque<Rc<Pending>>>,
    /// Those of which something waits, until that has been told.
    watched: RefCell<Vec<Rc<Pending>>>,
    /// So many of the oldest were told to be held up.
    told: Cell<usize>,
}

impl Ledger {
    /// Takes a chunk in.
    pub fn enter(&self, chunk: Chunk) -> Rc<Pending> {
        let left = Cell::new(chunk.len());
        let pending = Rc::new(Pending {
            chunk,
            left,
            parked: Cell::new(0),
            is_watched: Cell::new(false),
            is_told: Cell::new(false),
            counts: RefCell::default(),
        });
        self.pending.borrow_mut().push_back(pending.clone());
        pending
    }

    /// Counts one operation as waiting for a master that is away.
    pub fn park(&self, pending: &Rc<Pending>) {
        pending.parked.set(pending.parked.get() + 1);
        if !pending.is_watched.replace(true) {
            self.watched.borrow_mut().push(pending.clone());
        }
    }

    /// Tells, once of each, of the chunks of which all that is left waits; and, while the oldest is such a one, of those
    /// right behind it that are through: they can only be acknowledged after it. Behind one that is merely slow they are
    /// not told, and count as what is on its way.
    pub fn tell_held_up(&self, events: &Events) {
        self.watched.borrow_mut().retain(|pending| {
            if pending.left.get() > 0 && pending.stands_still() {
                pending.tell(events);
            }
            !pending.stands_still()
        });
        let pending = self.pending.borrow();
        if !pending
            .front()
            .is_some_and(|oldest| oldest.left.get() > 0 && oldest.stands_still())
        {
            return;
        }
        let behind = pending.range(self.told.get()..);
        let held_up = behind.take_while(|chunk| chunk.is_told.get() || chunk.stands_still());
        let more = held_up.inspect(|chunk| chunk.tell(events)).count();
        self.told.set(self.told.get() + more);
    }

    /// Acknowledges the oldest chunks that are settled, up to the first one that is not.
    pub fn acknowledge(&self, events: &Events) {
        self.tell_held_up(events);
        let mut pending = self.pending.borrow_mut();
        while pending.front().is_some_and(|oldest| oldest.left.get() == 0) {
            if let Some(oldest) = pending.pop_front() {
                self.told.set(self.told.get().saturating_sub(1));
                events.emit(Event::Acknowledged {
                    chunk: oldest.chunk.id(),
                    at: SystemTime::now(),
                    counts: oldest.counts.take(),
                });
            }
        }
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.pending.borrow().is_empty()
    }
}
