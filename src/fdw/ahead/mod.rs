//! Look-ahead for joins: Redis is asked once for many rows of a join's other side.
//!
//! A nested loop asks its inner side once for each outer row, which is a round trip each. So where the inner side is a
//! table of ours that is looked up by key or name, another path is offered ([`path`]): the same nested loop, with a
//! node below it that fetches some outer rows ahead ([`node`]) and says what the inner side will be asked for
//! ([`Ahead`]). The inner scan reads all of that at once ([`follower`]), and hands out to each outer row its own.
//!
//! Guarantees: the nested loop, and with it every kind of join, every condition and EvalPlanQual, stays PostgreSQL's
//! own. What an outer row gets does not depend on what was said ahead: a look-up that is not the one that was said for the
//! row is made as without it.
//! The outer rows that are kept are bounded by `work_mem` and `join_batch_size`, what is read for them by
//! [`follower::MOST_BYTES`]. Few rows are fetched ahead at first, for a LIMIT may need no more.
mod follower;
mod node;
mod path;

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
};

use pg_redis_cache_core::fdw::{Comparison, Operand};
use pgrx::pg_sys;

pub use self::{
    follower::Follower,
    path::{install, joins},
};

/// What the inner side is asked for by one outer row: by the column's place and the comparison, in their order.
pub type Lookup = Vec<(usize, Comparison, Operand)>;

/// Which path's two nodes belong together; 0 is none's.
pub type Number = i32;

/// What the next outer rows will ask for.
#[derive(Debug, Default)]
pub struct Ahead {
    /// Counts the batches.
    pub batch: u64,
    pub lookups: Vec<Lookup>,
    /// The place of the row that was handed on last.
    pub current: usize,
}

type Shared = Rc<RefCell<Ahead>>;

/// What one join of a running statement says.
struct Announced {
    state: *mut pg_sys::EState,
    number: Number,
    ahead: Weak<RefCell<Ahead>>,
}

thread_local! {
    /// By which the two nodes of a join find each other.
    static ANNOUNCED: RefCell<Vec<Announced>> = const { RefCell::new(Vec::new()) };
}

/// Makes what the outer side of a join says known to its inner side. It is forgotten when the last of them is dropped.
fn announce(state: *mut pg_sys::EState, number: Number) -> Shared {
    let ahead = Shared::default();
    ANNOUNCED.with_borrow_mut(|announced| {
        announced.retain(|other| other.ahead.strong_count() > 0);
        announced.push(Announced {
            state,
            number,
            ahead: Rc::downgrade(&ahead),
        });
    });
    ahead
}

/// What the outer side of a join says, if the statement has one.
fn find(state: *mut pg_sys::EState, number: Number) -> Option<Shared> {
    ANNOUNCED.with_borrow(|announced| {
        let mut of_join = announced
            .iter()
            .filter(|one| one.state == state && one.number == number);
        of_join.find_map(|one| one.ahead.upgrade())
    })
}
