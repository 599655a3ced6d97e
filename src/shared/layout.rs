//! Where each part lies in shared memory, and the hooks that ask for it and lay it out.
use std::alloc::Layout;

use pg_redis_cache_core::{
    coherence::{commits::Commits, hints::Hints, lag::Lag, mappings::Gates, replies::Replies, slots::Slots},
    config::MAX_SERVERS,
    ring::Ring,
};
use pgrx::{pg_guard, pg_sys};

use super::{
    PARTS, Parts, ProgressEntry,
    blocks::{Control, MappingPlace, MappingStats, ServerPlace, Waiter},
    connections::{self, ConnectionPlace},
};
use crate::gucs;

const TRANCHE: &std::ffi::CStr = c"pg_redis_cache";

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Where each part lies.
struct Plan {
    total: Layout,
    offsets: [usize; 14],
}

fn plan() -> Plan {
    let mappings = gucs::max_mappings();
    let backends = max_backends();
    // The settings' upper bounds keep all of these far below isize::MAX.
    let parts = [
        Some(Layout::new::<Control>()),
        Layout::array::<MappingPlace>(mappings).ok(),
        Layout::array::<MappingStats>(mappings).ok(),
        Gates::layout(mappings).ok(),
        Slots::layout(gucs::hash_slots()).ok(),
        Hints::layout(hints()).ok(),
        Commits::layout(backends).ok(),
        Replies::layout(backends).ok(),
        lags(),
        Ring::layout(gucs::queue_bytes()).ok(),
        Layout::array::<Waiter>(backends).ok(),
        Layout::array::<ProgressEntry>(backends).ok(),
        Layout::array::<ConnectionPlace>(connections::places()).ok(),
        Layout::array::<ServerPlace>(MAX_SERVERS).ok(),
    ];
    let mut total = Layout::new::<u64>();
    let mut offsets = [0; 14];
    for (offset, part) in offsets.iter_mut().zip(parts) {
        let laid = part
            .and_then(|part| part.align_to(128).ok())
            .and_then(|part| total.extend(part).ok());
        let Some((extended, at)) = laid else {
            pgrx::error!("pg_redis_cache: the settings ask for more shared memory than an address space has");
        };
        total = extended;
        *offset = at;
    }
    Plan { total, offsets }
}

/// One histogram for each server.
fn lags() -> Option<Layout> {
    let one = Lag::layout().ok()?;
    Layout::from_size_align(lag_size()? * MAX_SERVERS, one.align()).ok()
}

/// From one server's to the next.
fn lag_size() -> Option<usize> {
    Some(Lag::layout().ok()?.pad_to_align().size())
}

/// A hint that another key's overwrites costs a fill, where a shared slot costs little: there are four times as many.
fn hints() -> usize {
    gucs::hash_slots() * 4
}

fn max_backends() -> usize {
    // SAFETY: set before the request hooks run (postmaster.c, since 15).
    unsafe { pg_sys::MaxBackends as usize }
}

/// Puts the hooks in place that ask for the memory and lay it out.
pub fn init() {
    // SAFETY: the postmaster preloads libraries in one thread.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: called by the postmaster; chains first.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(plan().total.size() + 128);
        pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), 2);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: called once for each (re)initialisation of shared memory; chains first.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        let plan = plan();
        let mut found = false;
        let memory =
            pg_sys::ShmemInitStruct(TRANCHE.as_ptr(), plan.total.size() + 128, &raw mut found).cast::<u8>();
        let base = memory.add(memory.align_offset(128));
        let locks = pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr());
        PARTS = Some(if found {
            attach(base, &plan, locks)
        } else {
            make(base, &plan, locks)
        });
    }
}

unsafe fn make(base: *mut u8, plan: &Plan, locks: *mut pg_sys::LWLockPadded) -> Parts {
    let mappings = gucs::max_mappings();
    let at = |index: usize| plan.offsets[index];
    let lag_size = lag_size().unwrap_or_default();
    // SAFETY: the memory is of the plan's size, ours alone until the postmaster goes on, and zero is a valid
    // state of Control, MappingPlace, MappingStats, Waiter and ServerPlace: integers and atomics.
    unsafe {
        base.write_bytes(0, at(3));
        base.add(at(10))
            .write_bytes(0, max_backends() * size_of::<Waiter>());
        base.add(at(11))
            .write_bytes(0, max_backends() * size_of::<ProgressEntry>());
        base.add(at(12))
            .write_bytes(0, connections::places() * size_of::<ConnectionPlace>());
        base.add(at(13))
            .write_bytes(0, MAX_SERVERS * size_of::<ServerPlace>());
        (*base.add(at(0)).cast::<Control>()).max_backends = max_backends() as u32;
        let made = [
            Gates::init_in_place(base.add(at(3)), mappings).is_ok(),
            Slots::init_in_place(base.add(at(4)), gucs::hash_slots()).is_ok(),
            Hints::init_in_place(base.add(at(5)), hints()).is_ok(),
            Commits::init_in_place(base.add(at(6)), max_backends()).is_ok(),
            Replies::init_in_place(base.add(at(7)), max_backends()).is_ok(),
            (0..MAX_SERVERS).all(|server| Lag::init_in_place(base.add(at(8) + server * lag_size)).is_ok()),
            Ring::init_in_place(base.add(at(9)), gucs::queue_bytes()).is_ok(),
        ];
        if made.contains(&false) {
            pgrx::error!("pg_redis_cache: the settings ask for more shared memory than an address space has");
        }
        attach(base, plan, locks)
    }
}

unsafe fn attach(base: *mut u8, plan: &Plan, locks: *mut pg_sys::LWLockPadded) -> Parts {
    let at = |index: usize| plan.offsets[index];
    let lag_size = lag_size().unwrap_or_default();
    // SAFETY: `make` has made all of it, and the segment lives as long as any process attached to it.
    unsafe {
        Parts {
            control: base.add(at(0)).cast(),
            places: base.add(at(1)).cast(),
            stats: base.add(at(2)).cast(),
            mappings: gucs::max_mappings(),
            gates: Gates::attach(base.add(at(3))),
            slots: Slots::attach(base.add(at(4))),
            hints: Hints::attach(base.add(at(5))),
            commits: Commits::attach(base.add(at(6))),
            replies: Replies::attach(base.add(at(7))),
            lags: std::array::from_fn(|server| Lag::attach(base.add(at(8) + server * lag_size))),
            ring: Ring::attach(base.add(at(9))),
            waiters: base.add(at(10)).cast(),
            progress: base.add(at(11)).cast(),
            connections: base.add(at(12)).cast(),
            servers: base.add(at(13)).cast(),
            ring_lock: &raw mut (*locks).lock,
            text_lock: &raw mut (*locks.add(1)).lock,
        }
    }
}
