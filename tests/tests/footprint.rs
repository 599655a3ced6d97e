//! What the extension costs where it has nothing to do, and that it costs no more as time goes by.
//!
//! `PG_REDIS_CACHE_SOAK_SECONDS` makes the long run longer than its 24 seconds; 600 is the one that the
//! project promises.

use std::thread::sleep;
use std::time::Duration;

use pg_redis_cache_tests::{Load, Postgres, Shape, Shutdown, World, private_kilobytes};
use postgres::Client;

/// More than this and a session costs too much.
const SESSION_KB: u64 = 120;
/// And more than this of stack, which an unoptimised build needs for the parser of the mappings.
const STACK_KB: u64 = 250;
/// The worker's allocator may round; a leak of 50 bytes a transaction would be more than this in the long run.
const WORKER_KB: u64 = 3 * 1024;

fn pid(client: &mut Client) -> u32 {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).unwrap();
    row.get::<_, i32>(0) as u32
}

/// The medians over some sessions, each of which has run `sql`.
fn session_kilobytes(server: &Postgres, sql: &str) -> (u64, u64) {
    let mut sessions: Vec<Client> = (0..9).map(|_| server.connect()).collect();
    let sizes = sessions.iter_mut().map(|session| {
        session.batch_execute(sql).unwrap();
        private_kilobytes(pid(session))
    });
    let (stacks, others): (Vec<u64>, Vec<u64>) = sizes.unzip();
    (median(stacks), median(others))
}

fn median(mut sizes: Vec<u64>) -> u64 {
    sizes.sort_unstable();
    sizes[sizes.len() / 2]
}

const TABLE: &str = "CREATE TABLE doc (id int PRIMARY KEY, version bigint, body text); \
                     INSERT INTO doc SELECT i, 0, 'text' FROM generate_series(1, 100) i; ANALYZE doc";

#[test]
fn a_session_costs_little() {
    let (world, plain) = (
        World::with(TABLE, "doc:{id} => SELECT version, body FROM doc"),
        Postgres::start(),
    );
    plain.connect().batch_execute(TABLE).unwrap();
    for sql in [
        "SELECT 1",
        "SELECT * FROM doc WHERE id = 5; UPDATE doc SET version = version + 1 WHERE id = 7",
    ] {
        let with = session_kilobytes(&world.postgres, sql);
        let without = session_kilobytes(&plain, sql);
        println!("{sql}: {with:?} kB with, {without:?} kB without");
        assert!(
            with.0 < without.0 + STACK_KB,
            "{sql}: stack {} kB, without {} kB",
            with.0,
            without.0
        );
        assert!(
            with.1 < without.1 + SESSION_KB,
            "{sql}: {} kB, without {} kB",
            with.1,
            without.1
        );
    }
}

#[test]
fn a_session_does_not_grow() {
    let world = World::builder()
        .conf("pg_redis_cache.refill_interval", "0")
        .start();
    world.execute(TABLE);
    world.set_mappings("doc:{id} => SELECT version, body FROM doc WITH (insert = set)");
    let mut client = world.connect();
    let update = client
        .prepare("UPDATE doc SET version = version + 1, body = $2 WHERE id = $1")
        .unwrap();
    let select = client.prepare("SELECT body FROM doc WHERE id = $1").unwrap();
    let body = "body".repeat(100);
    let work = |client: &mut Client, rounds: i32| {
        for round in 0..rounds {
            let key = round % 100 + 1;
            client.execute(&update, &[&key, &body]).unwrap();
            client.query(&select, &[&key]).unwrap();
            if round % 50 == 0 {
                client
                    .batch_execute("BEGIN; SAVEPOINT a; UPDATE doc SET version = 0; ROLLBACK TO a; DELETE FROM doc; ROLLBACK")
                    .unwrap();
            }
        }
        private_kilobytes(pid(client)).1
    };
    let before = work(&mut client, 1500);
    let after = work(&mut client, 6000);
    assert!(after < before + SESSION_KB, "{before} kB, and later {after} kB");
}

#[test]
fn without_a_mapping_no_key_appears() {
    let world = World::builder().start();
    world.execute(TABLE);
    world
        .execute("SELECT * FROM doc WHERE id = 1; UPDATE doc SET version = 1; DELETE FROM doc WHERE id < 50");
    sleep(Duration::from_millis(500));
    let keys = world.redis.cli(&["--scan", "--pattern", "*"]);
    let own = |key: &str| key.contains("pg_redis_cache:");
    assert!(keys.lines().all(own), "{keys}");
}

#[test]
fn without_a_mapping_a_missing_redis_is_told_once_at_most() {
    let mut world = World::builder().start();
    world.postgres.stop(Shutdown::Fast);
    world.redis.kill();
    let before = world.postgres.log().len();
    world.postgres.start_again();
    world.execute(TABLE);
    sleep(Duration::from_secs(4));
    world.execute("UPDATE doc SET version = 1");
    let log = world.postgres.log();
    let lines: Vec<&str> = log[before..]
        .lines()
        .filter(|line| line.contains("pg_redis_cache: "))
        .collect();
    assert!(lines.len() <= 1, "{lines:#?}");
}

#[test]
fn the_worker_stays_as_large_as_it_is() {
    let seconds = std::env::var("PG_REDIS_CACHE_SOAK_SECONDS").ok();
    let seconds: u64 = seconds.map_or(24, |seconds| seconds.parse().expect("a number of seconds"));
    let shape = Shape {
        keys: 1000,
        pause: Duration::from_millis(1),
        ..Shape::default()
    };
    let world = Load::world(shape, |world| world);
    let worker = world.postgres.child("pg_redis_cache").expect("the worker runs");
    let load = Load::start(&world, shape);
    sleep(Duration::from_secs(seconds / 3));
    let early = private_kilobytes(worker).1;
    sleep(Duration::from_secs(seconds - seconds / 3));
    let late = private_kilobytes(worker).1;
    let done = load.stop();
    Load::assert_all_rows(&world);
    println!("{early} kB, and later {late} kB after {} commits", done.commits);
    assert!(late < early + WORKER_KB, "{early} kB, and later {late} kB");
}
