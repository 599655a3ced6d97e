//! Handing rows that a statement has read to the worker, as far as rule 3 lets them pass.
use std::{cell::RefCell, ops::Range, sync::atomic::Ordering};

use pg_redis_cache_core::{
    coherence,
    ring::batch::{self, FillLog},
};
use pgrx::pg_sys;

use super::{has_changes, next_xid, now_ms};
use crate::{
    shared::Shared,
    test_points::{self, TestPoint},
};

/// Memory that the buffer for an entry keeps between statements, in bytes.
const KEPT: usize = 16 * 1024;

/// A row that a scan has found; key and value are places in the batch's bytes.
pub struct Fill {
    pub mapping: u16,
    /// What the backend takes the mapping for.
    pub fingerprint: u64,
    pub hash: u64,
    pub key: Range<usize>,
    pub value: Range<usize>,
}

thread_local! {
    static LOG: RefCell<FillLog> = RefCell::new(FillLog::default());
}

/// Tests each fill against the floors and appends those that pass. `xmin` and `xmax` are the bounds of the
/// snapshot under which the rows were read, `generation` is that of the list before they were: their texts may be
/// old since, and all are dropped. Returns how many were appended; `None` if the ring had no room for them.
pub fn send_fills(
    fills: &[Fill],
    bytes: &[u8],
    (xmin, xmax): (pg_sys::TransactionId, pg_sys::TransactionId),
    generation: u64,
) -> Option<usize> {
    let shared = Shared::get()?;
    let next = next_xid();
    let (xmin, xmax) = (widen(xmin, next), widen(xmax, next));
    // Read after the snapshot was taken: a writer that it sees has a number up to this (rule 4).
    let number = shared.commits().counter_now();
    let now = now_ms();
    LOG.with_borrow_mut(|log| {
        log.clear(KEPT);
        let mut admitted = Vec::new();
        for fill in fills.iter().filter(|fill| !has_changes(fill.mapping)) {
            if admit(shared, fill, bytes, xmin, log) {
                // Before the append: the worker clears the hint of a fill that it drops.
                shared.hints().set(fill.hash, now);
                admitted.push(fill);
            } else {
                drop_fill(shared, fill);
            }
        }
        // After the epochs have been noted: it moves before they do (`after_ddl`).
        if shared.generation() != generation {
            for fill in std::mem::take(&mut admitted) {
                shared.hints().clear(fill.hash);
                drop_fill(shared, fill);
            }
        }
        if admitted.is_empty() {
            return Some(0);
        }
        test_points::wait_at(TestPoint::Fill);
        if append(shared, log.seal(number, xmin, xmax)) {
            shared.wake_worker(false);
            return Some(admitted.len());
        }
        for fill in admitted {
            shared.hints().clear(fill.hash);
            drop_fill(shared, fill);
        }
        None
    })
}

fn drop_fill(shared: Shared, fill: &Fill) {
    shared
        .stats(fill.mapping)
        .fills_dropped
        .fetch_add(1, Ordering::Relaxed);
}

fn admit(shared: Shared, fill: &Fill, bytes: &[u8], xmin: u64, log: &mut FillLog) -> bool {
    let ticket = coherence::admit(
        shared.slots(),
        shared.gates(),
        fill.mapping,
        fill.fingerprint,
        fill.hash,
        xmin,
    );
    ticket.is_some_and(|ticket| {
        log.push(&batch::Fill {
            mapping: fill.mapping,
            hash: fill.hash,
            version: ticket.version,
            epoch: ticket.epoch,
            key: &bytes[fill.key.clone()],
            value: &bytes[fill.value.clone()],
        })
    })
}

/// Fills may use half of the ring: the other half is for what has been committed.
fn append(shared: Shared, entry: &[u8]) -> bool {
    let ring = shared.ring();
    let held = shared.lock_ring();
    if ring.used() + entry.len() as u64 > ring.capacity() / 2 {
        return false;
    }
    // SAFETY: the ring's lock is held.
    let reserved = unsafe { ring.reserve_locked(entry.len()) };
    drop(held);
    let Ok(mut reservation) = reserved else {
        return false;
    };
    reservation.write(entry);
    reservation.publish()
}

/// The full id of a recent transaction id: at most 2^31 before the next one (transam.c).
fn widen(xid: pg_sys::TransactionId, next: u64) -> u64 {
    let behind = (next as u32).wrapping_sub(xid.into_inner());
    next.saturating_sub(u64::from(behind))
}
