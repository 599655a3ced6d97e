//! Transactions that commit out of our sight: prepared ones, and those that a standby replays.

use std::time::Duration;

use pg_redis_cache_tests::{Postgres, RowOracle, Shutdown, World, eventually};
use postgres::{Client, NoTls};

const SOON: Duration = Duration::from_secs(30);
const SCHEMA: &str = "CREATE TABLE doc (id int PRIMARY KEY, version bigint); \
                      INSERT INTO doc SELECT i, 0 FROM generate_series(1, 20) i";
const MAPPING: &str = "doc:{id} => SELECT version FROM doc";

fn oracle() -> RowOracle {
    RowOracle::hash("doc:{id}", "doc", &["version"])
}

fn world() -> World {
    let world = World::builder()
        .conf("max_prepared_transactions", "20")
        .conf("pg_redis_cache.refill_interval", "0")
        .start();
    world.execute(SCHEMA);
    world.set_mappings(MAPPING);
    world.wait();
    world
}

fn version(client: &mut Client, id: i32) -> i64 {
    let row = client.query_one("SELECT version FROM doc WHERE id = $1", &[&id]);
    row.unwrap().get(0)
}

/// Reads until the key is cached.
fn until_filled(world: &World, id: i32) {
    let mut client = world.connect();
    eventually("a read to fill the cache", SOON, || {
        version(&mut client, id);
        world.wait();
        (world.redis.cli(&["EXISTS", &format!("doc:{id}")]) == "(integer) 1").then_some(())
    });
}

#[test]
fn a_prepared_transaction_that_commits() {
    let world = world();
    let mut client = world.connect();
    for (round, ending) in ["COMMIT PREPARED 't'", "ROLLBACK PREPARED 't'"]
        .iter()
        .enumerate()
    {
        until_filled(&world, 1);
        client
            .batch_execute(
                "BEGIN; UPDATE doc SET version = version + 10 WHERE id = 1; PREPARE TRANSACTION 't'",
            )
            .unwrap();
        // What a reader sees now is right now, and would be wrong after the commit.
        for id in 1..=3 {
            version(&mut client, id);
        }
        world.assert_rows(&oracle());
        client.batch_execute(ending).unwrap();
        world.assert_rows(&oracle());
        assert_eq!(version(&mut client, 1), 10, "round {round}");
        until_filled(&world, 1);
        world.assert_rows(&oracle());
    }
}

#[test]
fn a_reader_whose_snapshot_is_older_than_the_commit() {
    let world = world();
    let (mut writer, mut reader) = (world.connect(), world.connect());
    writer
        .batch_execute(
            "BEGIN; UPDATE doc SET version = 5; DELETE FROM doc WHERE id = 2; PREPARE TRANSACTION 't'",
        )
        .unwrap();
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .unwrap();
    version(&mut reader, 3);
    writer.batch_execute("COMMIT PREPARED 't'").unwrap();
    assert_eq!(version(&mut reader, 1), 0);
    assert_eq!(version(&mut reader, 2), 0);
    world.assert_rows(&oracle());
    reader.batch_execute("COMMIT").unwrap();
    until_filled(&world, 1);
    world.assert_rows(&oracle());
}

#[test]
fn a_prepared_transaction_that_outlives_the_server() {
    let mut world = world();
    for (round, how) in [Shutdown::Fast, Shutdown::Immediate].into_iter().enumerate() {
        let sql = "BEGIN; UPDATE doc SET version = version + 1 WHERE id IN (1, 2); PREPARE TRANSACTION 't'";
        world.execute(sql);
        world.restart_postgres(how);
        world.wait_until_active();
        let mut client = world.connect();
        for _ in 0..3 {
            assert_eq!(version(&mut client, 1), round as i64);
            version(&mut client, 2);
            world.assert_rows(&oracle());
        }
        client.batch_execute("COMMIT PREPARED 't'").unwrap();
        world.assert_rows(&oracle());
        assert_eq!(version(&mut client, 1), round as i64 + 1);
        until_filled(&world, 1);
        world.assert_rows(&oracle());
    }
}

#[test]
fn prepared_transactions_among_readers() {
    let world = world();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let mut client = world.connect();
            std::thread::spawn(move || {
                for round in 0..40 {
                    let key = (round + writer) % 5 + 1;
                    let ending = if round % 3 == 0 { "ROLLBACK" } else { "COMMIT" };
                    let sql = format!(
                        "BEGIN; UPDATE doc SET version = version + 1 WHERE id = {key}; PREPARE TRANSACTION 't{writer}'"
                    );
                    client.batch_execute(&sql).unwrap();
                    client
                        .batch_execute(&format!("{ending} PREPARED 't{writer}'"))
                        .unwrap();
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let mut client = world.connect();
            std::thread::spawn(move || {
                for round in 0..1000 {
                    version(&mut client, round % 6 + 1);
                }
            })
        })
        .collect();
    for thread in writers.into_iter().chain(readers) {
        thread.join().unwrap();
    }
    world.assert_rows(&oracle());
}

/// Waits until the standby has replayed what the primary has written.
fn caught_up(primary: &World, standby: &Postgres) {
    let mut client = primary.connect();
    let position: String = client
        .query_one("SELECT pg_current_wal_lsn()::text", &[])
        .unwrap()
        .get(0);
    let mut replica = standby.connect();
    eventually("the standby to catch up", SOON, || {
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
        replica
            .query_one(&sql, &[])
            .unwrap()
            .get::<_, bool>(0)
            .then_some(())
    });
}

#[test]
fn a_standby_leaves_redis_alone() {
    let world = world();
    let standby = world.postgres.standby();
    world.execute("UPDATE doc SET version = 1 WHERE id <= 10");
    world.wait();
    caught_up(&world, &standby);
    assert_eq!(world.redis.cli(&["FLUSHALL"]), "OK");
    let mut replica = standby.connect();
    for id in 1..=20 {
        assert_eq!(version(&mut replica, id), i64::from(id <= 10));
    }
    replica
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM doc; COMMIT; SELECT * FROM doc WHERE id IN (1, 2)")
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(world.redis.cli(&["--scan", "--pattern", "doc:*"]), "");
    assert_eq!(standby.child("pg_redis_cache"), None);
    world.execute("UPDATE doc SET version = 2 WHERE id <= 10");
    assert_eq!(world.assert_rows(&oracle()).keys, 10);
}

#[test]
fn a_standby_that_is_promoted_takes_over() {
    let mut world = world();
    let mut standby = world.postgres.standby();
    world.execute("UPDATE doc SET version = 1");
    world.wait();
    caught_up(&world, &standby);
    let mut old = standby.connect();
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .unwrap();
    assert_eq!(version(&mut old, 1), 1);
    world.postgres.stop(Shutdown::Fast);
    // Nobody tells Redis of these.
    world.redis.cli(&["HSET", "doc:1", "version", "0"]);
    world.redis.cli(&["HSET", "doc:99", "version", "0"]);
    std::mem::swap(&mut world.postgres, &mut standby);
    world.execute("SELECT pg_promote()");
    eventually("the worker to start", SOON, || {
        world.postgres.child("pg_redis_cache")
    });
    world.wait_until_active();
    world.assert_rows(&oracle());
    world.execute("UPDATE doc SET version = 3 WHERE id > 1");
    // A snapshot from before the promotion sees no writer of now as one that runs.
    for id in 2..=20 {
        assert_eq!(version(&mut old, id), 1);
    }
    world.assert_rows(&oracle());
    old.batch_execute("COMMIT").unwrap();
    until_filled(&world, 1);
    world.assert_rows(&oracle());
}

#[test]
fn sessions_that_end_in_the_middle_leave_nothing() {
    let world = world();
    for _ in 0..20 {
        let mut client = world.postgres.config().connect(NoTls).unwrap();
        client
            .batch_execute("BEGIN; UPDATE doc SET version = -1; SAVEPOINT s; DELETE FROM doc")
            .unwrap();
    }
    let compared = world.assert_rows(&oracle());
    assert_eq!(compared.keys, 0);
    world.execute("UPDATE doc SET version = version + 1");
    assert_eq!(world.assert_rows(&oracle()).keys, 20);
}
