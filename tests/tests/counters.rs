//! The counters say what was done: no change is missing from them and none is counted twice.

use std::time::Duration;

use pg_redis_cache_tests::{World, eventually};
use postgres::Client;

const SCHEMA: &str = "CREATE TABLE doc (id int PRIMARY KEY, version bigint, body text); \
                      INSERT INTO doc SELECT i, 0, 'text' FROM generate_series(1, 200) i";

#[derive(Debug, PartialEq, Eq)]
struct Stats {
    fills: i64,
    fills_skipped: i64,
    sets: i64,
    deletes: i64,
    purges: i64,
    errors: i64,
}

fn world() -> World {
    let world = World::with(SCHEMA, "doc:{id} => SELECT version FROM doc");
    // The purge of a new mapping is counted when it is over, which is a moment after it is done.
    eventually("the first purge to be counted", Duration::from_secs(10), || {
        (stats(&world).purges == 1).then_some(())
    });
    world.execute("SELECT redis_cache.reset_stats()");
    world
}

fn stats(world: &World) -> Stats {
    world.wait();
    let sql = "SELECT fills, fills_skipped, sets, deletes, purges, errors FROM redis_cache.stats";
    let row = world.connect().query_one(sql, &[]).unwrap();
    Stats {
        fills: row.get(0),
        fills_skipped: row.get(1),
        sets: row.get(2),
        deletes: row.get(3),
        purges: row.get(4),
        errors: row.get(5),
    }
}

const NOTHING: Stats = Stats {
    fills: 0,
    fills_skipped: 0,
    sets: 0,
    deletes: 0,
    purges: 0,
    errors: 0,
};

#[test]
fn each_changed_row_is_counted_once() {
    let world = world();
    world.execute("UPDATE doc SET version = 1 WHERE id <= 50");
    assert_eq!(stats(&world), Stats { sets: 50, ..NOTHING });
    world.execute("DELETE FROM doc WHERE id <= 20");
    assert_eq!(
        stats(&world),
        Stats {
            sets: 50,
            deletes: 20,
            ..NOTHING
        }
    );
    // Three changes of one row in a transaction are one.
    world.execute("BEGIN; UPDATE doc SET version = 2 WHERE id = 30; UPDATE doc SET version = 3 WHERE id = 30; UPDATE doc SET version = 4 WHERE id = 30; COMMIT");
    assert_eq!(
        stats(&world),
        Stats {
            sets: 51,
            deletes: 20,
            ..NOTHING
        }
    );
    // A changed key is one key that goes and one that comes.
    world.execute("UPDATE doc SET id = 1000 WHERE id = 40");
    assert_eq!(
        stats(&world),
        Stats {
            sets: 52,
            deletes: 21,
            ..NOTHING
        }
    );
}

#[test]
fn what_is_rolled_back_is_not_counted() {
    let world = world();
    world.execute("BEGIN; UPDATE doc SET version = 1; DELETE FROM doc WHERE id = 1; ROLLBACK");
    world.execute("BEGIN; SAVEPOINT a; UPDATE doc SET version = 1; ROLLBACK TO a; UPDATE doc SET version = 2 WHERE id = 7; COMMIT");
    assert_eq!(stats(&world), Stats { sets: 1, ..NOTHING });
}

#[test]
fn a_fill_is_counted_and_the_next_one_is_skipped() {
    let world = world();
    let mut client = world.connect();
    let mut read = |id: i32| {
        client
            .query("SELECT * FROM doc WHERE id = $1", &[&id])
            .map(drop)
            .unwrap()
    };
    read(1);
    read(2);
    assert_eq!(stats(&world), Stats { fills: 2, ..NOTHING });
    (0..5).for_each(|_| read(1));
    let seen = stats(&world);
    assert_eq!((seen.fills, seen.fills_skipped), (2, 5));
    assert_eq!((seen.sets, seen.deletes), (0, 0));
}

#[test]
fn a_deleted_key_may_be_filled_again_at_once() {
    let world = world();
    let mut client = world.connect();
    client.query("SELECT * FROM doc WHERE id = 3", &[]).unwrap();
    assert_eq!(stats(&world).fills, 1);
    world.execute("SELECT redis_cache.invalidate('doc', '3')");
    assert_eq!(world.redis.cli(&["EXISTS", "doc:3"]), "(integer) 0");
    client.query("SELECT * FROM doc WHERE id = 3", &[]).unwrap();
    assert_eq!(stats(&world).fills, 2);
}

#[test]
fn a_purge_lets_the_keys_of_its_mapping_be_filled_again_and_no_others() {
    let world = World::with(
        SCHEMA,
        "doc:{id} => SELECT version FROM doc; d:{id} => SELECT body FROM doc WITH (name = other)",
    );
    let fills = |name: &str| -> (i64, i64) {
        world.wait();
        let sql = "SELECT fills, fills_skipped FROM redis_cache.stats WHERE name = $1";
        let row = world.connect().query_one(sql, &[&name]).unwrap();
        (row.get(0), row.get(1))
    };
    world.wait();
    world.execute("SELECT redis_cache.reset_stats()");
    world.execute("SELECT * FROM doc WHERE id = 1");
    assert_eq!((fills("doc"), fills("other")), ((1, 0), (1, 0)));
    world.execute("SELECT redis_cache.invalidate_all('doc')");
    world.execute("SELECT * FROM doc WHERE id = 1");
    assert_eq!((fills("doc"), fills("other")), ((2, 0), (1, 1)));
    world.execute("SELECT * FROM doc WHERE id = 1");
    assert_eq!((fills("doc"), fills("other")), ((2, 1), (1, 2)));
}

#[test]
fn a_purge_is_counted() {
    let world = world();
    world.execute("TRUNCATE doc");
    let seen = stats(&world);
    assert!(seen.purges >= 1, "{seen:?}");
    assert_eq!((seen.sets, seen.errors), (0, 0));
}

#[test]
fn a_mapping_in_error_is_logged_once_and_not_purged() {
    let world = world();
    let list = "doc:{id} => SELECT version FROM doc; absent:{id} => SELECT name FROM absent";
    world.postgres.set_conf("pg_redis_cache.mappings", list);
    let until = |what: &str| {
        eventually(what, Duration::from_secs(20), || {
            let sql = format!("SELECT FROM redis_cache.mappings WHERE name = 'absent' AND {what}");
            (!world.connect().query(&sql, &[]).unwrap().is_empty()).then_some(())
        });
    };
    until("state = 'error' AND problem ~ 'absent'");
    let worker = world.worker_pid();
    world.postgres.signal(worker, libc::SIGTERM);
    eventually("another worker", Duration::from_secs(20), || {
        (world.worker_pid() != worker).then_some(())
    });
    world.wait();
    let sql = "SELECT string_agg(concat_ws(' ', name, reason, count), ', ') FROM redis_cache.purges WHERE reason <> 'activated'";
    let row = world.connect().query_one(sql, &[]).unwrap();
    assert_eq!(row.get::<_, Option<String>>(0).as_deref(), Some("doc start 1"));
    // Each of these has it looked at again.
    world.postgres.reload();
    world.execute("CREATE TABLE absent (id int PRIMARY KEY)");
    until("state = 'error' AND problem ~ 'name'");
    world.postgres.reload();
    world.execute("ALTER TABLE absent ADD name text");
    until("state = 'active'");
    let log = world.postgres.log();
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("mapping \"absent\" does not work"))
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn the_counters_balance_under_load() {
    let world = world();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let mut client = world.connect();
            std::thread::spawn(move || {
                (0..250)
                    .map(|round| change(&mut client, writer, round))
                    .sum::<u64>()
            })
        })
        .collect();
    let changed: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    let seen = stats(&world);
    assert_eq!((seen.sets + seen.deletes) as u64, changed, "{seen:?}");
    assert_eq!(seen.errors, 0);
}

/// Returns how many keys it has changed.
fn change(client: &mut Client, writer: i32, round: i32) -> u64 {
    let first = writer * 50 + round % 40 + 1;
    match round % 3 {
        0 => client.execute(
            "UPDATE doc SET version = version + 1 WHERE id BETWEEN $1 AND $1 + 4",
            &[&first],
        ),
        1 => client.execute("UPDATE doc SET version = version + 1 WHERE id = $1", &[&first]),
        _ => client
            .batch_execute(&format!(
                "BEGIN; UPDATE doc SET version = version + 1 WHERE id = {first}; ROLLBACK"
            ))
            .map(|()| 0),
    }
    .unwrap()
}

#[test]
fn the_counters_can_be_set_to_zero() {
    let world = world();
    world.execute("UPDATE doc SET version = 1; SELECT * FROM doc WHERE id = 1");
    assert_ne!(stats(&world), NOTHING);
    world.execute("SELECT redis_cache.reset_stats()");
    assert_eq!(stats(&world), NOTHING);
}

#[test]
fn the_status_shows_a_queue_that_grows_and_is_worked_off() {
    let world = world();
    let mut client = world.connect();
    let mut look = |what: &str| {
        let row = client.query_one(&format!("SELECT ({what})::bool FROM redis_cache.status"), &[]);
        row.unwrap().get::<_, Option<bool>>(0) == Some(true)
    };
    world.redis.freeze();
    world.execute("UPDATE doc SET version = 1");
    eventually(
        "the queue to hold what was committed",
        Duration::from_secs(10),
        || look("queue_bytes > 0 AND queue_bytes <= queue_capacity AND oldest_unsent > '0s'").then_some(()),
    );
    world.redis.thaw();
    eventually("the queue to be empty", Duration::from_secs(20), || {
        look("queue_bytes = 0 AND oldest_unsent IS NULL AND lag_last > '0s' AND lag_max >= lag_p50")
            .then_some(())
    });
}
