//! What a change costs on its way through the core crate's structures: CPU time for each op.

use std::alloc::{Layout, alloc};
use std::hint::black_box;

use pg_redis_cache_core::coherence::slots::Slots;
use pg_redis_cache_core::coherence::transaction::TransactionBuffer;
use pg_redis_cache_core::encode::key::key_hash;
use pg_redis_cache_core::ring::Ring;
use pg_redis_cache_core::ring::batch::{Entry, Kind, decode};

use crate::Effort;
use crate::report::Section;

const BULK: usize = 500_000;
const TRANSACTIONS: usize = 100_000;
const OPS_IN_TRANSACTION: usize = 3;
const VALUE: [u8; 40] = [b'v'; 40];

/// Capture, seal, queue and slots.
pub fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "The core crate's structures",
        "Nanoseconds on the CPU for each op, of keys as user:123456 and values of 40 bytes, on one thread.",
    );
    let rounds = effort.pick(3, 9);
    bulk(&mut section, rounds);
    small_transactions(&mut section, rounds);
    slots(&mut section, rounds);
    section
}

/// Nanoseconds that this thread has been on a CPU.
fn on_cpu() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0, "every thread has a clock");
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn keys(n: usize) -> Vec<(u64, String)> {
    (0..n)
        .map(|n| format!("user:{n}"))
        .map(|key| (key_hash(key.as_bytes()), key))
        .collect()
}

fn capture(buffer: &mut TransactionBuffer, keys: &[(u64, String)]) {
    for (hash, key) in keys {
        buffer.capture_set(1, 0, *hash, key.as_bytes(), VALUE.len(), |out| {
            out.extend_from_slice(&VALUE);
        });
    }
}

/// The CPU time for each of `ops` ops in each round.
fn timed(rounds: usize, ops: usize, mut prepare: impl FnMut(), mut work: impl FnMut()) -> Vec<f64> {
    let mut round = || {
        prepare();
        let start = on_cpu();
        work();
        (on_cpu() - start) / ops as f64
    };
    (0..rounds).map(|_| round()).collect()
}

fn bulk(section: &mut Section, rounds: usize) {
    let keys = keys(BULK);
    let buffer = std::cell::RefCell::new(TransactionBuffer::new(1 << 30));
    let captured = timed(
        rounds,
        BULK,
        || buffer.borrow_mut().abort(),
        || capture(&mut buffer.borrow_mut(), &keys),
    );
    section.case("capture of 500,000 ops", "ns", captured);
    let sealed = timed(
        rounds,
        BULK,
        || {
            buffer.borrow_mut().abort();
            capture(&mut buffer.borrow_mut(), &keys);
        },
        || {
            black_box(buffer.borrow_mut().seal(1, 1, |_| 0));
        },
    );
    section.case("seal of 500,000 ops", "ns", sealed);
    buffer.borrow_mut().set_limit(32 << 20);
    let laddered = timed(
        rounds,
        BULK,
        || buffer.borrow_mut().abort(),
        || {
            capture(&mut buffer.borrow_mut(), &keys);
            black_box(buffer.borrow_mut().seal(1, 1, |_| 0));
        },
    );
    section.case(
        "capture and seal of 500,000 ops down the ladder in 32 MB",
        "ns",
        laddered,
    );
}

fn small_transactions(section: &mut Section, rounds: usize) {
    let keys = keys(TRANSACTIONS * OPS_IN_TRANSACTION);
    let ops = keys.len();
    let capacity = 64 << 20;
    let memory = leaked(Ring::layout(capacity).expect("64 MB are no large layout"));
    // SAFETY: the memory is of the layout asked for, nobody else's, and never freed.
    let ring = unsafe { Ring::init_in_place(memory, capacity) }.expect("64 MB are no large layout");
    let mut buffer = TransactionBuffer::new(32 << 20);
    let through = timed(
        rounds,
        ops,
        || {
            ring.reset();
        },
        || {
            for keys in keys.chunks_exact(OPS_IN_TRANSACTION) {
                capture(&mut buffer, keys);
                let mut sealed = buffer.seal(1, 1, |_| 0);
                sealed.set_committed_at(0);
                // SAFETY: no other thread reserves.
                let reservation = unsafe { ring.reserve_locked(sealed.reservation_len()) };
                assert!(reservation.is_ok_and(|reservation| sealed.publish(reservation)));
            }
        },
    );
    section.case(
        "transactions of three ops, from capture to the queue",
        "ns",
        through,
    );
    let mut entry = Vec::new();
    let read = timed(
        rounds,
        ops,
        || {},
        || {
            let (mut position, mut seen) = (ring.tail(), 0);
            while let Some(next) = ring.read(position, &mut entry) {
                let Ok(Entry::Transaction(transaction)) = decode(&entry) else {
                    panic!("the queue holds something else")
                };
                seen += transaction.ops().count();
                position = next;
            }
            assert_eq!(seen, ops);
        },
    );
    section.case("reading and decoding them", "ns", read);
}

fn slots(section: &mut Section, rounds: usize) {
    const SLOTS: usize = 1 << 18;
    let keys = keys(BULK);
    let memory = leaked(Slots::layout(SLOTS).expect("8 MB are no large layout"));
    // SAFETY: the memory is of the layout asked for, nobody else's, and never freed.
    let slots = unsafe { Slots::init_in_place(memory, SLOTS) }.expect("8 MB are no large layout");
    let mut number = 0;
    let taken = timed(
        rounds,
        BULK,
        || {},
        || {
            for (hash, _) in &keys {
                number += 1;
                black_box(slots.take_write(*hash, number, number, true, Kind::Set));
            }
        },
    );
    section.case("deciding on a write (rules 3 and 4)", "ns", taken);
}

/// Memory for the rest of the process's life.
fn leaked(layout: Layout) -> *mut u8 {
    assert!(layout.size() > 0);
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc(layout) };
    assert!(!memory.is_null(), "no memory for {layout:?}");
    memory
}
