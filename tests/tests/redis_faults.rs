//! Redis dies, freezes, refuses, comes back with nothing or with what is old, while writers and readers work.
//! PostgreSQL goes on committing, its log says so once, and when Redis is back each key equals its row.
//!
//! (Rules 5 to 8 of docs/ARCHITECTURE.md are what would fail here.)

use std::thread::sleep;
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{Load, Redis, Shape, Shutdown, Trial, World, eventually};

const SOON: Duration = Duration::from_secs(20);

/// What the extension has written into the server's log.
fn log_lines(world: &World) -> Vec<String> {
    let log = world.postgres.log();
    log.lines()
        .filter(|line| line.contains("pg_redis_cache: "))
        .map(str::to_owned)
        .collect()
}

/// Updates every row, row by row so as not to be in the way of the load.
fn update_all(world: &World, body: &str) {
    world.execute(&format!(
        "DO $$ DECLARE key int; BEGIN \
             FOR key IN SELECT id FROM doc LOOP \
                 UPDATE doc SET version = version + 1, body = {body} WHERE id = key; \
                 COMMIT; \
             END LOOP; \
         END $$"
    ));
}

fn until_connected(world: &World, wanted: bool) {
    let mut client = world.connect();
    eventually("the worker to notice", SOON, || {
        let row = client.query_one("SELECT connected FROM redis_cache.status", &[]);
        (row.expect("the view can be read").get::<_, bool>(0) == wanted).then_some(())
    });
}

/// One line for each change of state, of which there were that many, and a line for each of the four
/// mappings and for what was in flight, if it had to be given up.
fn assert_quiet(world: &World, before: usize, changes: usize) {
    let lines = log_lines(world);
    let new = &lines[before..];
    let states = new.iter().filter(|line| !line.contains("is purged")).count();
    assert!(
        states <= changes,
        "{states} lines of {changes} changes of state:\n{}",
        new.join("\n")
    );
    assert!(new.len() <= changes * 6, "a flood:\n{}", new.join("\n"));
}

/// Waits until a key that no row has is gone: nothing but the purge takes it away.
fn until_forgotten(world: &World, key: &str) {
    eventually("an old key to be purged", SOON, || {
        (world.redis.cli(&["EXISTS", key]) == "(integer) 0").then_some(())
    });
}

#[test]
fn redis_is_killed_and_comes_back_empty() {
    // A slow machine is no change of state; a kill is noticed without waiting.
    let mut trial = Trial::begin(|world| world.conf("pg_redis_cache.command_timeout", "20s"));
    let oracle = trial.watch();
    let before = log_lines(&trial.world).len();
    for _ in 0..2 {
        trial.world.redis.kill();
        until_connected(&trial.world, false);
        trial.load.goes_on(50);
        trial.world.redis.start_again();
        until_connected(&trial.world, true);
        trial.load.goes_on(50);
    }
    let world = trial.end();
    oracle.assert_held();
    assert_quiet(&world, before, 4);
}

#[test]
fn redis_is_killed_and_comes_back_at_once() {
    let mut trial = Trial::begin(|world| world);
    let oracle = trial.watch();
    for _ in 0..5 {
        trial.world.redis.kill();
        trial.world.redis.start_again();
        trial.load.goes_on(20);
    }
    trial.end();
    oracle.assert_held();
}

#[test]
fn redis_comes_back_with_an_old_dump() {
    let mut trial = Trial::begin(|world| world);
    trial
        .world
        .execute("INSERT INTO doc (id, version) VALUES (1001, 1), (1002, 1)");
    trial
        .world
        .execute("UPDATE doc SET version = 2 WHERE id IN (1001, 1002)");
    trial.world.wait();
    assert_eq!(trial.world.redis.cli(&["SAVE"]), "OK");
    trial.load.goes_on(100);
    trial.world.redis.kill();
    // The load does not know these: only a purge can take them away.
    trial.world.execute("DELETE FROM doc WHERE id = 1001");
    trial
        .world
        .execute("UPDATE doc SET version = version + 1 WHERE id = 1002");
    trial.world.redis.start_again();
    let world = trial.end();
    let rows = world
        .connect()
        .query_one("SELECT purges FROM redis_cache.stats WHERE name = 'doc'", &[]);
    assert!(rows.unwrap().get::<_, i64>(0) >= 2, "no purge after the old dump");
}

#[test]
fn an_old_dump_is_purged_without_any_traffic() {
    let mut world = Load::world(Shape::default(), |world| world);
    world.execute("UPDATE doc SET version = version + 1");
    world.wait();
    assert_eq!(world.redis.cli(&["SAVE"]), "OK");
    // Redis has acknowledged this and forgets it.
    world.execute("UPDATE doc SET version = version + 1; DELETE FROM doc WHERE id > 30");
    world.wait();
    world.redis.kill();
    world.redis.start_again();
    until_forgotten(&world, "doc:40");
    Load::assert_all_rows(&world);
}

#[test]
fn redis_is_frozen_for_longer_than_a_command_may_take() {
    let trial = Trial::begin(|world| world.conf("pg_redis_cache.command_timeout", "3s"));
    let oracle = trial.watch();
    let before = log_lines(&trial.world).len();
    for _ in 0..3 {
        trial.world.redis.freeze();
        until_connected(&trial.world, false);
        trial.load.goes_on(30);
        trial.world.redis.thaw();
        until_connected(&trial.world, true);
        trial.load.goes_on(30);
    }
    let world = trial.end();
    oracle.assert_held();
    assert_quiet(&world, before, 6);
}

#[test]
fn redis_is_frozen_for_a_moment_again_and_again() {
    let trial = Trial::begin(|world| world);
    let oracle = trial.watch();
    for moment in [20, 290, 310, 50, 350, 600, 10, 301] {
        trial.world.redis.freeze();
        sleep(Duration::from_millis(moment));
        trial.world.redis.thaw();
        sleep(Duration::from_millis(100));
    }
    trial.end();
    oracle.assert_held();
}

#[test]
fn redis_holds_writes_back_until_their_connection_is_given_up() {
    let trial = Trial::begin(|world| world);
    let oracle = trial.watch();
    for _ in 0..4 {
        trial.world.redis.cli(&["CLIENT", "PAUSE", "700", "WRITE"]);
        sleep(Duration::from_millis(1000));
    }
    trial.end();
    oracle.assert_held();
}

#[test]
fn every_connection_is_killed_again_and_again() {
    let trial = Trial::begin(|world| world);
    let oracle = trial.watch();
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        trial
            .world
            .redis
            .cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        sleep(Duration::from_millis(60));
    }
    trial.end();
    oracle.assert_held();
}

#[test]
fn redis_comes_after_postgres() {
    let shape = Shape::default();
    let mut world = Load::world(shape, |world| world);
    world.postgres.stop(Shutdown::Fast);
    world.redis.kill();
    let before = log_lines(&world).len();
    world.postgres.start_again();
    let load = Load::start(&world, shape);
    load.goes_on(100);
    sleep(Duration::from_secs(2));
    assert_quiet(&world, before, 1);
    world.redis.start_again();
    until_connected(&world, true);
    load.goes_on(50);
    load.stop();
    Load::assert_all_rows(&world);
    world.execute("UPDATE doc SET version = version + 1");
    let compared = Load::assert_all_rows(&world);
    assert_eq!(compared[0].keys, compared[0].rows, "{compared:?}");
    assert_quiet(&world, before, 2);
}

#[test]
fn a_dump_from_before_is_purged_when_redis_comes_after_postgres() {
    let mut world = Load::world(Shape::default(), |world| world);
    world.execute("UPDATE doc SET version = version + 1");
    world.wait();
    assert_eq!(world.redis.cli(&["SAVE"]), "OK");
    world.redis.kill();
    world.restart_postgres(Shutdown::Fast);
    world.execute("UPDATE doc SET version = version + 1 WHERE id > 1; DELETE FROM doc WHERE id = 1");
    world.redis.start_again();
    Load::assert_all_rows(&world);
}

#[test]
fn redis_has_no_memory_left() {
    let shape = Shape {
        keys: 400,
        ..Shape::default()
    };
    let world = Load::world(shape, |world| {
        world.redis_args(&["--maxmemory-policy", "noeviction"])
    });
    let load = Load::start(&world, shape);
    load.goes_on(30);
    let before = log_lines(&world).len();
    world.redis.cli(&["CONFIG", "SET", "maxmemory", "1mb"]);
    update_all(&world, "repeat('long', 2000)");
    load.goes_on(100);
    load.stop();
    // Deletes still work, and are what the refused values turn into.
    Load::assert_all_rows(&world);
    let told = log_lines(&world)[before..]
        .iter()
        .filter(|line| line.contains("keys that cannot be written are deleted"))
        .count();
    assert_eq!(told, 1, "{:#?}", &log_lines(&world)[before..]);
    let row = world
        .connect()
        .query_one("SELECT last_error FROM redis_cache.status", &[]);
    let shown: String = row.expect("the view can be read").get(0);
    assert!(shown.contains("OOM"), "{shown}");
    assert_eq!(world.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    let load = Load::start(&world, shape);
    load.goes_on(100);
    load.stop();
    let compared = Load::assert_all_rows(&world);
    assert!(compared.iter().any(|mapping| mapping.keys > 0), "{compared:?}");
    assert!(
        log_lines(&world).len() - before <= 10,
        "{:#?}",
        &log_lines(&world)[before..]
    );
}

#[test]
fn an_outage_after_a_bad_url_is_logged() {
    let mut world = Load::world(Shape::default(), |world| world);
    let right = world.redis.url();
    let before = log_lines(&world).len();
    let until_logged = |world: &World, count: usize, words: &str| {
        eventually("a line in the log", SOON, || {
            let lines = log_lines(world).split_off(before);
            (lines.len() >= count && lines[count - 1].contains(words)).then_some(())
        });
    };
    world.postgres.set_conf("pg_redis_cache.url", "redis:/127.0.0.1");
    until_logged(&world, 1, "the setting url is not valid");
    // Another reload changes nothing.
    world.postgres.reload();
    world.postgres.set_conf("pg_redis_cache.url", &right);
    until_logged(&world, 2, "can be used again");
    world.redis.stop();
    until_connected(&world, false);
    until_logged(&world, 3, "redis");
    world.redis.start_again();
    until_connected(&world, true);
    until_logged(&world, 4, "connected to ");
    assert_eq!(log_lines(&world).len(), before + 4);
}

#[test]
fn redis_becomes_a_replica_that_takes_no_writes_and_then_a_master_again() {
    let trial = Trial::begin(|world| world);
    let other = Redis::start();
    // What the other one holds is copied, and has no row that says it.
    let mut elsewhere = other.connection();
    let stale = [("version", "1"), ("doomed", "t")];
    redis::cmd("HSET")
        .arg("doc:1")
        .arg(&stale)
        .exec(&mut elsewhere)
        .unwrap();
    redis::cmd("HSET")
        .arg("gone:9999")
        .arg(&stale)
        .exec(&mut elsewhere)
        .unwrap();
    let port = other.port().to_string();
    assert_eq!(trial.world.redis.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    eventually("the copy of the other server", SOON, || {
        let there = trial.world.redis.cli(&["EXISTS", "gone:9999"]);
        (there == "(integer) 1").then_some(())
    });
    trial.load.goes_on(50);
    assert_eq!(trial.world.redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    trial.end();
}

#[test]
fn another_client_flushes_everything() {
    let trial = Trial::begin(|world| world);
    for _ in 0..5 {
        assert_eq!(trial.world.redis.cli(&["FLUSHALL"]), "OK");
        trial.load.goes_on(20);
    }
    trial.end();
}

#[test]
fn a_key_of_another_type_stands_in_the_way() {
    let trial = Trial::begin(|world| world);
    for key in ["doc:1", "doc:2", "gone:3", "j:1", "s:2", "s:3"] {
        trial.world.redis.cli(&["DEL", key]);
        trial.world.redis.cli(&["RPUSH", key, "a list"]);
    }
    trial.load.goes_on(50);
    update_all(&trial.world, "body");
    trial.end();
}
