//! The nightly UPDATE of every row: 2,000,000 of them in one transaction. With memory for it Redis mirrors it;
//! without, keys are deleted; neither costs more memory than the settings say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use pg_redis_cache_tests::{World, private_kilobytes};

const ROWS: usize = 2_000_000;
/// Beside what the settings allow: the statement itself, buffers that are doubled while they grow, the allocator.
const SLACK_KB: u64 = 24 * 1024;

fn world(buffer_mb: u64, queue_mb: u64) -> World {
    let world = World::builder()
        .conf("pg_redis_cache.transaction_buffer", &format!("{buffer_mb}MB"))
        .conf("pg_redis_cache.queue_size", &format!("{queue_mb}MB"))
        .start();
    world.execute(&format!(
        "CREATE UNLOGGED TABLE doc (id int PRIMARY KEY, version int NOT NULL, body text NOT NULL) \
             WITH (autovacuum_enabled = off); \
         INSERT INTO doc SELECT i, 1, 'the text of a row' FROM generate_series(1, {ROWS}) i"
    ));
    world.set_mappings("doc:{id} => SELECT version, body FROM doc");
    world.wait();
    // Two keys that are there before.
    world.execute("UPDATE doc SET version = version WHERE id IN (1, 2000000)");
    world.wait();
    world
}

/// Kilobytes that a process has for itself.
fn own(pid: u32) -> u64 {
    let (stack, others) = private_kilobytes(pid);
    stack + others
}

/// Updates every row, and returns by how much backend and worker grew at most.
fn update_all(world: &World) -> (u64, u64) {
    let mut client = world.connect();
    client
        .batch_execute("UPDATE doc SET version = version WHERE id = 1")
        .unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let pids = [pid.unsigned_abs(), world.worker_pid()];
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let before = pids.map(own);
    let watcher = std::thread::spawn(move || {
        let mut most = pids.map(own);
        while !stop.load(Ordering::Acquire) {
            let now = pids.map(own);
            most = [most[0].max(now[0]), most[1].max(now[1])];
            sleep(Duration::from_millis(20));
        }
        most
    });
    client
        .batch_execute("UPDATE doc SET version = version + 1")
        .unwrap();
    eventually_fresh(world);
    done.store(true, Ordering::Release);
    let most = watcher.join().unwrap();
    (
        most[0].saturating_sub(before[0]),
        most[1].saturating_sub(before[1]),
    )
}

fn eventually_fresh(world: &World) {
    let sql = "SELECT redis_cache.wait('600s')";
    let row = world.connect().query_one(sql, &[]).unwrap();
    assert!(row.get::<_, bool>(0), "not in Redis after ten minutes");
}

/// How many of the keys are there; each of them as its row is.
fn right_keys(world: &World) -> usize {
    let mut redis = world.redis();
    let mut right = 0;
    for first in (1..=ROWS).step_by(10_000) {
        let mut pipe = redis::pipe();
        for id in first..(first + 10_000).min(ROWS + 1) {
            pipe.cmd("HGET").arg(format!("doc:{id}")).arg("version");
        }
        let versions: Vec<Option<String>> = pipe.query(&mut redis).unwrap();
        for version in versions.into_iter().flatten() {
            assert_eq!(version, "2");
            right += 1;
        }
    }
    right
}

fn purges_after(world: &World, reason: &str) -> i64 {
    let sql = "SELECT coalesce(sum(count), 0)::bigint FROM redis_cache.purges WHERE reason = $1";
    world.connect().query_one(sql, &[&reason]).unwrap().get(0)
}

#[test]
fn with_memory_for_it_every_row_is_mirrored() {
    let world = world(512, 512);
    let (backend, worker) = update_all(&world);
    println!("mirrored: backend {backend} kB, worker {worker} kB");
    assert_eq!(right_keys(&world), ROWS);
    assert_eq!(
        (purges_after(&world, "buffer"), purges_after(&world, "queue")),
        (0, 0)
    );
    assert!(
        backend < 512 * 1024 + SLACK_KB,
        "the backend grew by {backend} kB"
    );
    assert!(worker < 2 * SLACK_KB, "the worker grew by {worker} kB");
}

#[test]
fn without_memory_for_it_the_mapping_is_purged() {
    let world = world(32, 64);
    let (backend, worker) = update_all(&world);
    println!("purged: backend {backend} kB, worker {worker} kB");
    assert_eq!(right_keys(&world), 0);
    assert!(purges_after(&world, "buffer") > 0);
    assert!(backend < 32 * 1024 + SLACK_KB, "the backend grew by {backend} kB");
    assert!(worker < 2 * SLACK_KB, "the worker grew by {worker} kB");
    world.execute("SELECT body FROM doc WHERE id = 7; UPDATE doc SET body = 'new' WHERE id = 8");
    world.wait();
    assert_eq!(right_keys(&world), 2);
}
