//! Completeness: whether everything that changed a mapped row was seen.
//!
//! PostgreSQL counts the rows that a transaction inserts, updates and deletes, for each relation, whichever way they
//! take: through the executor, logical replication's apply worker, an extension that calls the heap itself. In
//! PRE_COMMIT its counts are compared with those of what was captured. Where they differ the mapping is purged.
//!
//! Not seen by it: changes that another library makes in its own PRE_COMMIT callback after ours, and one deletion
//! out of sight for one insertion out of sight in a relation in which an INSERT with ON CONFLICT ran.
use std::cell::{Cell, RefCell};

use pg_redis_cache_core::coherence::{
    Reason,
    tally::{Counted, Tally},
};
use pgrx::pg_sys::{self, Oid};

use super::TRANSACTION;
use crate::{
    capture::{
        relations::{self, MappedRelation},
        tap_all::{self, TAP_ALL},
    },
    compat,
};

thread_local! {
    /// Mapped tables into which an INSERT with ON CONFLICT ran.
    static SPECULATIVE: RefCell<Vec<Oid>> = const { RefCell::new(Vec::new()) };
    /// A statement ran while `track_counts` was off. (What changes rows without statements is asked in PRE_COMMIT.)
    static UNCOUNTED: Cell<bool> = const { Cell::new(false) };
}

/// Notes that an INSERT with ON CONFLICT runs on a mapped table, or on a partition of it.
pub fn note_speculative(relation: &MappedRelation) {
    SPECULATIVE.with_borrow_mut(|roots| {
        if !roots.contains(&relation.root) {
            roots.push(relation.root);
        }
    });
}

/// Notes, at each statement, whether PostgreSQL counts at all.
pub fn note_statement() {
    if !counts() {
        UNCOUNTED.set(true);
    }
}

fn counts() -> bool {
    // SAFETY: a plain variable, the setting `track_counts`.
    unsafe { pg_sys::pgstat_track_counts }
}

/// The transaction is over.
pub fn forget() {
    UNCOUNTED.set(false);
    SPECULATIVE.with_borrow_mut(|roots| {
        roots.clear();
        roots.shrink_to(16);
    });
}

/// Marks every mapping for a purge whose rows have changed out of sight. Called in PRE_COMMIT, of a transaction that
/// has changed anything.
pub fn check() {
    if super::top_xid().is_none() || !relations::any_mapped() {
        return;
    }
    if (UNCOUNTED.get() || !counts()) && !TAP_ALL {
        return relations::purge_all(Reason::Unseen);
    }
    // SAFETY: within a transaction.
    let counted = unsafe { compat::counted_changes() };
    for (relid, counted) in &counted {
        compare(*relid, counted);
    }
    // What was captured of a relation that is not counted at all.
    let captured: Vec<u32> = TRANSACTION.with_borrow(|transaction| transaction.tallies.relations().collect());
    for relid in captured.into_iter().map(Oid::from) {
        if !counted.iter().any(|(other, _)| *other == relid) {
            compare(relid, &Counted::default());
        }
    }
}

fn compare(relid: Oid, counted: &Counted) {
    let Some(relation) = relations::lookup(relid) else {
        return;
    };
    let seen: Option<Tally> = TRANSACTION.with_borrow(|transaction| transaction.tallies.of(relid.to_u32()));
    let speculative = SPECULATIVE.with_borrow(|roots| roots.contains(&relation.root));
    let complete = seen.is_some_and(|seen| seen.agrees_with(counted, speculative));
    if TAP_ALL {
        tap_all::compared(
            relid,
            complete,
            &format!("seen {seen:?}, counted {counted:?}, speculative {speculative}"),
        );
    } else if !complete {
        relation.purge(Reason::Unseen);
    }
}
