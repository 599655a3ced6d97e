//! Replies: where the worker's answer to a SQL call waits for the backend that made it.
//!
//! Each backend has a slot, by its number: it makes one call at a time. A slot holds a ticket and
//! whether it has been answered in one word, and the answer in another. Each call gets a new ticket,
//! so an answer that comes after the caller gave up finds another ticket and goes nowhere.
//!
//! Not here: waking the backend; the worker sets its latch after [`Replies::answer`] said true.

use super::table::{BadLayout, Shared, Table};
use std::alloc::Layout;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

#[repr(C)]
struct Reply {
    /// Twice the ticket, plus one when it is answered.
    state: AtomicU64,
    value: AtomicI64,
}

// SAFETY: made of atomics alone.
unsafe impl Shared for Reply {}

/// A handle on the reply slots.
#[derive(Clone, Copy)]
pub struct Replies {
    table: Table<(), Reply>,
}

impl Replies {
    /// The memory for `backends` slots.
    pub fn layout(backends: usize) -> Result<Layout, BadLayout> {
        Table::<(), Reply>::layout(backends)
    }

    /// Makes slots in which nobody waits.
    ///
    /// # Safety
    /// `mem` is valid for `layout(backends)`, nobody else uses it yet, and it outlives every handle.
    pub unsafe fn init_in_place(mem: *mut u8, backends: usize) -> Result<Replies, BadLayout> {
        // SAFETY: the caller's promise, for the same layout.
        let table = unsafe { Table::init_in_place(mem, backends)? };
        Ok(Replies { table })
    }

    /// A handle on the slots that `init_in_place` made at `mem`.
    ///
    /// # Safety
    /// `mem` holds reply slots and outlives every handle.
    pub unsafe fn attach(mem: *mut u8) -> Replies {
        // SAFETY: the caller's promise.
        let table = unsafe { Table::attach(mem) };
        Replies { table }
    }

    fn reply(&self, backend: u32) -> Option<&Reply> {
        self.table.cells().get(backend as usize)
    }

    /// Begins a call of this backend. The ticket is never 0, and no earlier one is valid any more.
    /// `None` if there is no such slot.
    pub fn claim(&self, backend: u32) -> Option<u64> {
        let reply = self.reply(backend)?;
        let ticket = reply.state.load(Ordering::Relaxed) / 2 + 1;
        // Relaxed: the ticket reaches the worker through the ring, which orders the two.
        reply.state.store(ticket * 2, Ordering::Relaxed);
        Some(ticket)
    }

    /// Worker: answers. False if the caller no longer waits for this ticket, or has an answer.
    ///
    /// The value is stored before it is known that the ticket still holds. Should the slot be
    /// claimed anew just then, the new caller does not look at the value before it is answered
    /// itself, and it is this same worker that stores that answer, later.
    pub fn answer(&self, backend: u32, ticket: u64, value: i64) -> bool {
        let Some(reply) = self.reply(backend) else {
            return false;
        };
        let waiting = ticket.wrapping_mul(2);
        if reply.state.load(Ordering::Relaxed) != waiting {
            return false;
        }
        reply.value.store(value, Ordering::Relaxed);
        // Release, against the Acquire of `poll`: the value comes first.
        let answered = waiting | 1;
        reply
            .state
            .compare_exchange(waiting, answered, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// The answer, once it is there.
    pub fn poll(&self, backend: u32, ticket: u64) -> Option<i64> {
        let reply = self.reply(backend)?;
        let answered = reply.state.load(Ordering::Acquire) == ticket.wrapping_mul(2) | 1;
        answered.then(|| reply.value.load(Ordering::Relaxed))
    }

    /// Ends the call, answered or given up.
    pub fn release(&self, backend: u32, ticket: u64) {
        if let Some(reply) = self.reply(backend) {
            // A ticket of its own that nobody was ever given.
            reply.state.store((ticket + 1) * 2, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::OnHeap;
    use super::*;

    fn replies(n: usize) -> OnHeap<Replies> {
        OnHeap::new(Replies::layout(n).unwrap(), |mem| {
            // SAFETY: the memory is of the layout asked for, and lives as long as the handle.
            unsafe { Replies::init_in_place(mem, n) }.unwrap()
        })
    }

    #[test]
    fn an_answer_reaches_the_call_it_belongs_to() {
        let replies = replies(2);
        let ticket = replies.claim(1).unwrap();
        assert_eq!(replies.poll(1, ticket), None);
        assert!(replies.answer(1, ticket, -7));
        assert_eq!(replies.poll(1, ticket), Some(-7));
        assert!(!replies.answer(1, ticket, 8));
        assert_eq!(replies.poll(1, ticket), Some(-7));
        assert_eq!(replies.claim(2), None);
    }

    #[test]
    fn a_late_answer_goes_nowhere() {
        let replies = replies(1);
        let first = replies.claim(0).unwrap();
        replies.release(0, first);
        assert!(!replies.answer(0, first, 1));
        let second = replies.claim(0).unwrap();
        assert_ne!(first, second);
        assert!(!replies.answer(0, first, 1));
        assert_eq!(replies.poll(0, second), None);
        assert!(replies.answer(0, second, 2));
        assert_eq!(replies.poll(0, second), Some(2));
    }

    #[test]
    fn a_slot_nobody_claimed_takes_no_answer() {
        let replies = replies(1);
        assert_eq!(replies.poll(0, 5), None);
        assert!(!replies.answer(0, 5, 1));
    }
}
