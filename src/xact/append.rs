//! The append of a committed transaction to the ring.
//!
//! Called in COMMIT: nothing here allocates or raises. The ring never makes a transaction wait. What it has no
//! room for steps down the ladder: values, then deletes of the same keys, then a purge.
use pg_redis_cache_core::coherence::{MappingSet, Reason, transaction::Sealed};

use crate::{compat, shared::Shared};

/// What has to reach Redis for a transaction.
#[derive(Clone, Copy)]
pub struct Appended {
    /// The position behind its last entry, `None` if it has none.
    pub end: Option<u64>,
    /// The mappings that it changed.
    pub touched: MappingSet,
    /// The mappings that are purged for it.
    pub purges: MappingSet,
}

/// Appends what was sealed.
pub fn append(shared: Shared, sealed: &mut Sealed, xid: u64) -> Appended {
    // SAFETY: reads the clock.
    sealed.set_committed_at(unsafe { compat::unguarded::GetCurrentTimestamp() });
    let reservation = reserve(shared, sealed, xid);
    let end = reservation.map(|reservation| {
        let end = reservation.end();
        sealed.publish(reservation);
        end
    });
    // Before it sleeps the worker looks at the ring once more, but not at what is to be purged.
    shared.wake_worker(!sealed.purges().is_empty());
    Appended {
        end,
        touched: *sealed.touched(),
        purges: *sealed.purges(),
    }
}

/// Reserves room and declares what is to be purged, in one hold of the ring's lock (rule 6).
fn reserve(shared: Shared, sealed: &mut Sealed, xid: u64) -> Option<pg_redis_cache_core::ring::Reservation> {
    // What is not purged for a reason of its own has been too much, for the buffer or then for the ring.
    let before = *sealed.purges();
    loop {
        let length = sealed.reservation_len();
        let held = shared.lock_ring();
        let reservation = if length == 0 {
            None
        } else {
            // SAFETY: the ring's lock is held.
            match unsafe { shared.ring().reserve_locked(length) } {
                Ok(reservation) => Some(reservation),
                Err(_) => {
                    drop(held);
                    if !sealed.to_deletes() {
                        sealed.give_up();
                    }
                    continue;
                }
            }
        };
        lose_locked(shared, sealed.purges(), xid, |mapping| {
            if before.contains(mapping) {
                Reason::Buffer
            } else {
                Reason::Queue
            }
        });
        return reservation;
    }
}

/// Rule 6: what transaction `xid` changed in these mappings will not arrive.
pub fn lose(shared: Shared, mappings: &MappingSet, xid: u64, otherwise: Reason) {
    let held = shared.lock_ring();
    lose_locked(shared, mappings, xid, |_| otherwise);
    drop(held);
    shared.wake_worker(true);
}

fn lose_locked(shared: Shared, mappings: &MappingSet, xid: u64, otherwise: impl Fn(u16) -> Reason) {
    for mapping in mappings.iter() {
        let reason = super::reason_of(mapping, otherwise(mapping));
        shared.lose_locked(mapping, xid, reason);
    }
}
