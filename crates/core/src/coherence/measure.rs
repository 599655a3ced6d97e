//! Measurements of the paths that every change takes, as ignored tests:
//! `cargo test --release -p pg_redis_cache_core measure -- --ignored --nocapture --test-threads 1`.
//!
//! They print nanoseconds on the CPU for each op, the median of several runs, and assert nothing:
//! what a machine needs that does other things at the same time is no fact about the code.

use super::slots::Slots;
use super::table::OnHeap;
use super::transaction::TransactionBuffer;
use crate::encode::key::key_hash;
use crate::ring::Ring;
use crate::ring::batch::{Entry, Kind, decode};
use std::hint::black_box;

const RUNS: usize = 9;
const BULK: usize = 500_000;

/// Nanoseconds that this thread has been on a CPU, as Linux counts them (at each tick).
fn on_cpu() -> f64 {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    counted.split(' ').next().unwrap().parse().unwrap()
}

/// `run` does `ops` ops between preparing and cleaning up, and says how long they took.
fn report(what: &str, ops: usize, mut run: impl FnMut() -> f64) {
    let mut nanos: Vec<f64> = (0..RUNS).map(|_| run() / ops as f64).collect();
    nanos.sort_by(f64::total_cmp);
    println!(
        "{what}: {:.1} ns each ({:.1} to {:.1})",
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
        let start = on_cpu();
        capture(&mut buffer, &keys);
        on_cpu() - start
    });
    report("seal of 500,000 ops", BULK, || {
        buffer.abort();
        capture(&mut buffer, &keys);
        let start = on_cpu();
        black_box(buffer.seal(1, 1, |_| 0));
        on_cpu() - start
    });
    buffer.set_limit(32 << 20);
    report(
        "capture and seal of 500,000 ops down the ladder in 32 MB",
        BULK,
        || {
            let start = on_cpu();
            capture(&mut buffer, &keys);
            black_box(buffer.seal(1, 1, |_| 0));
            on_cpu() - start
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
            let start = on_cpu();
            for keys in keys.chunks_exact(3) {
                capture(&mut buffer, keys);
                let mut sealed = buffer.seal(1, 1, |_| 0);
                sealed.set_committed_at(0);
                // SAFETY: no other thread reserves.
                let reservation = unsafe { ring.reserve_locked(sealed.entry_len()) };
                assert!(reservation.is_ok_and(|reservation| sealed.publish(reservation)));
            }
            on_cpu() - start
        },
    );
    let (mut entry, mut ops) = (Vec::new(), 0);
    report("reading and decoding it", TRANSACTIONS, || {
        let (start, mut pos) = (on_cpu(), ring.tail());
        while let Some(next) = ring.read(pos, &mut entry) {
            let Ok(Entry::Transaction(read)) = decode(&entry) else {
                panic!()
            };
            ops += read.ops().count();
            pos = next;
        }
        on_cpu() - start
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
        let start = on_cpu();
        for (hash, _) in &keys {
            s += 1;
            black_box(slots.take_write(*hash, s, s, true, Kind::Set));
        }
        on_cpu() - start
    });
}
