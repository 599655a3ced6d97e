//! What a transaction that ran DDL leaves until the other sessions have been told of it.
//!
//! PostgreSQL sends the invalidations of the system caches after the callbacks of COMMIT, and releases the locks
//! after that (xact.c, `CommitTransaction`). Until then the other sessions see the transaction, but may still make
//! their texts from what the catalogs held before: enum labels and attributes of composite types are read without a
//! lock on the tables that use them. And who has captured such a text need not commit for a long time.
//!
//! So when the invalidations are out, the generation of the list moves, and then what the DDL concerns is lost once
//! more. A writer that has captured before finds in PRE_COMMIT that it ran under another generation (rule 9), or has
//! noted its epochs before that loss (rule 6); a fill that was read before is dropped (`fills.rs`); whoever comes
//! later reads the new generation, and the invalidations with it (`relations::refresh`). A synchronous COMMIT waits
//! here too: in the callback everybody else would have old catalogs for as long as it waits.
//!
//! Not covered: a transaction that is prepared, which commits out of our sight.
use std::cell::Cell;

use pg_redis_cache_core::coherence::MappingSet;
use pgrx::{
    pg_guard,
    pg_sys::{self, ResourceReleasePhase},
};

use super::{append::Appended, next_xid, waiting};
use crate::shared::Shared;

/// What is still to be done for a transaction that has just committed.
#[derive(Clone, Copy)]
pub struct Rest {
    /// Mappings whose values may have another text now.
    pub texts: MappingSet,
    /// What COMMIT is to wait for.
    pub wait: Option<Appended>,
}

thread_local! {
    static REST: Cell<Option<Rest>> = const { Cell::new(None) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Has this session called when a transaction's resources are released, from its first DDL on.
pub fn register() {
    if !REGISTERED.replace(true) {
        // SAFETY: once in the life of the process; the callback is kept in TopMemoryContext.
        unsafe { pg_sys::RegisterResourceReleaseCallback(Some(released), std::ptr::null_mut()) };
    }
}

/// Called in COMMIT of a transaction that has called [`register`].
pub fn leave(rest: Rest) {
    REST.set(Some(rest));
}

/// Called for each resource owner and phase (resowner.c). The invalidations have been sent before the phase of the
/// locks.
unsafe extern "C-unwind" fn released(
    phase: ResourceReleasePhase::Type,
    _commit: bool,
    top_level: bool,
    _argument: *mut std::ffi::c_void,
) {
    if phase == ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS && top_level && REST.get().is_some() {
        // SAFETY: called by the server.
        unsafe { told() };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn told() {
    let (Some(shared), Some(rest)) = (Shared::get(), REST.take()) else {
        return;
    };
    if !rest.texts.is_empty() {
        let last = next_xid().saturating_sub(1);
        let held = shared.lock_ring();
        // The generation first: who notes an epoch of after the loss finds the new generation, too.
        shared.bump_generation_locked();
        for mapping in rest.texts.iter() {
            shared.gates().lose_locked(mapping, last);
        }
        drop(held);
        shared.wake_worker(true);
    }
    if let Some(appended) = rest.wait {
        waiting::wait_for_commit(shared, &appended);
    }
}
