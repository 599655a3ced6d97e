//! Measurements of the paths that every change takes, as ignored tests:
//! `cargo test --release -p pg_redis_cache_core measure -- --ignored --nocapture --test-threads 1`.
//!
//! They print nanoseconds for each op, the median of several runs, and assert nothing: what a
//! machine that does other things at the same time needs is no fact about the code.

use super::key_hash;
use super::slots::Slots;
use super::table::OnHeap;
use super::transaction::TransactionBuffer;
use crate::ring::Ring;
use crate::ring::batch::{Entry, Kind, decode};
use std::hint::black_box;
use std::time::{Duration, Instant};

const RUNS: usize = 9;
const BULK: usize = 500_000;

/// Median nanoseconds of one of `ops` ops, over several runs.
fn report(what: &str, ops: usize, mut run: impl FnMut() -> Duration) {
    let mut nanos: Vec<f64> = (0..RUNS).map(|_| run().as_nanos() as f64 / ops as f64).collect();
    nanos.sort_by(f64::total_cmp);
    println!(
        "{what}: {:.1} ns an op ({:.1} to {:.1})",
        nanos[RUNS / 2],
        nanos[0],
        nanos[RUNS - 1]
    );
}

fn keys(n: usize) -> Vec<(u64, String)> {
    let key = |n| format!("user:{n}");
    (0..n)
        .map(key)
        .map(|key| (key_hash(key.as_bytes()), key))
        .collect()
}

fn capture(buffer: &mut TransactionBuffer, keys: &[(u64, String)]) {
    for (hash, key) in keys {
        buffer.capture_set(1, 0, *hash, key.as_bytes(), 40, |out| {
            out.extend_from_slice(&[b'v'; 40])
        });
    }
}

#[test]
#[ignore = "a measurement"]
fn measure_a_bulk_update_from_capture_to_seal() {
    let keys = keys(BULK);
    let mut buffer = TransactionBuffer::new(1 << 30);
    report("capture of 500,000 ops", BULK, || {
        buffer.abort();
        let start = Instant::now();
        capture(&mut buffer, &keys);
        start.elapsed()
    });
    report("seal of 500,000 ops", BULK, || {
        buffer.abort();
        capture(&mut buffer, &keys);
        let start = Instant::now();
        black_box(buffer.seal(1, 1, |_| 0));
        start.elapsed()
    });
    buffer.set_limit(32 << 20);
    report(
        "capture and seal of 500,000 ops down the ladder in 32 MB",
        BULK,
        || {
            let start = Instant::now();
            capture(&mut buffer, &keys);
            black_box(buffer.seal(1, 1, |_| 0));
            start.elapsed()
        },
    );
}

#[test]
#[ignore = "a measurement"]
fn measure_small_transactions_through_the_ring() {
    const TRANSACTIONS: usize = 100_000;
    let keys = keys(TRANSACTIONS * 3);
    let capacity = 64 << 20;
    let ring = OnHeap::new(Ring::layout(capacity).unwrap(), |mem| {
        // SAFETY: the memory is of the layout asked for, and lives as long as the handle.
        unsafe { Ring::init_in_place(mem, capacity) }.unwrap()
    });
    let mut buffer = TransactionBuffer::new(32 << 20);
    report(
        "a transaction of three ops, from capture to published",
        TRANSACTIONS,
        || {
            ring.reset();
            let start = Instant::now();
            for keys in keys.chunks_exact(3) {
                capture(&mut buffer, keys);
                let mut sealed = buffer.seal(1, 1, |_| 0);
                sealed.set_committed_at(0);
                // SAFETY: no other thread reserves.
                let reservation = unsafe { ring.reserve_locked(sealed.entry_len()) };
                assert!(reservation.is_ok_and(|reservation| sealed.publish(reservation)));
            }
            start.elapsed()
        },
    );
    let (mut entry, mut ops) = (Vec::new(), 0);
    report("reading and decoding it", TRANSACTIONS, || {
        let (start, mut pos) = (Instant::now(), ring.tail());
        while let Some(next) = ring.read(pos, &mut entry) {
            let Ok(Entry::Transaction(read)) = decode(&entry) else {
                panic!()
            };
            ops += read.ops().count();
            pos = next;
        }
        start.elapsed()
    });
    assert_eq!(ops, RUNS * TRANSACTIONS * 3);
}

#[test]
#[ignore = "a measurement"]
fn measure_taking_writes_of_random_keys() {
    let keys = keys(BULK);
    let slots = OnHeap::new(Slots::layout(1 << 18).unwrap(), |mem| {
        // SAFETY: the memory is of the layout asked for, and lives as long as the handle.
        unsafe { Slots::init_in_place(mem, 1 << 18) }.unwrap()
    });
    let mut s = 0;
    report("take_write", BULK, || {
        let start = Instant::now();
        for (hash, _) in &keys {
            s += 1;
            black_box(slots.take_write(*hash, s, s, true, Kind::Set));
        }
        start.elapsed()
    });
}
