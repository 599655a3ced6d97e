//! What waits for a lane.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::Notify;

use super::batch::Batch;
use super::ledger::Pending;

/// Where the router puts a lane's operations.
#[derive(Default)]
pub(super) struct Queue {
    waiting: RefCell<VecDeque<Segment>>,
    pub arrived: Notify,
    /// The lane has more to do than what waits here.
    pub is_busy: Cell<bool>,
    /// The lane misses a server, and what it has waits.
    pub is_cut_off: Cell<bool>,
    /// While it is cut off: whether it takes what comes, for servers that it reaches.
    pub takes_more: Cell<bool>,
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

    /// Whether the lane has something for a server that cannot be reached, and nothing else.
    pub fn is_stuck(&self) -> bool {
        self.has_work() && !self.goes_on()
    }

    /// Whether the lane has something to do that does not wait for a server that cannot be reached.
    pub fn goes_on(&self) -> bool {
        let takes = !self.is_cut_off.get() || self.takes_more.get() && !self.waiting.borrow().is_empty();
        self.has_work() && takes
    }

    fn has_work(&self) -> bool {
        self.is_busy.get() || !self.waiting.borrow().is_empty()
    }

    /// Moves operations into a batch that has room.
    pub fn gather(&self, batch: &mut Batch) {
        self.take_while(|pending, op| {
            let has_room = batch.has_room();
            if has_room {
                batch.push(pending, op);
            }
            has_room
        });
    }

    /// Hands out operations in their order until one is not taken, which stays.
    pub fn take_while(&self, mut takes: impl FnMut(&Rc<Pending>, u32) -> bool) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(segment) = waiting.front_mut() {
            while let Some(&op) = segment.ops.get(segment.next) {
                if !takes(&segment.pending, op) {
                    return;
                }
                segment.next += 1;
            }
            waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk::{Chunk, Target};
    use super::super::ledger::Ledger;
    use super::*;

    #[test]
    fn a_lane_is_stuck_when_all_that_it_has_waits() {
        let queue = Queue::default();
        assert!(!queue.is_stuck() && !queue.goes_on());
        queue.is_cut_off.set(true);
        assert!(!queue.is_stuck() && !queue.goes_on());
        queue.is_busy.set(true);
        assert!(queue.is_stuck() && !queue.goes_on());
        queue.takes_more.set(true);
        assert!(queue.is_stuck() && !queue.goes_on());
        let mut chunk = Chunk::with_capacity(1, 0, 0);
        let target = Target {
            mapping: 0,
            hash: 0,
            key: b"k",
        };
        chunk.delete(target, None);
        queue.push(&Ledger::default().enter(chunk), vec![0]);
        assert!(!queue.is_stuck() && queue.goes_on());
        queue.takes_more.set(false);
        assert!(queue.is_stuck() && !queue.goes_on());
        queue.is_cut_off.set(false);
        assert!(!queue.is_stuck() && queue.goes_on());
    }
}
