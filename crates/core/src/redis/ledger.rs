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
}

/// The chunks that are not acknowledged, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pending: RefCell<VecDeque<Rc<Pending>>>,
}

impl Ledger {
    /// Takes a chunk in.
    pub fn enter(&self, chunk: Chunk) -> Rc<Pending> {
        let left = Cell::new(chunk.len());
        let pending = Rc::new(Pending {
            chunk,
            left,
            counts: RefCell::default(),
        });
        self.pending.borrow_mut().push_back(pending.clone());
        pending
    }

    /// Acknowledges the oldest chunks that are settled, up to the first one that is not.
    pub fn acknowledge(&self, events: &Events) {
        let mut pending = self.pending.borrow_mut();
        while pending.front().is_some_and(|oldest| oldest.left.get() == 0) {
            if let Some(oldest) = pending.pop_front() {
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
