//! A synchronous COMMIT returns once Redis has the changes, and never waits for longer than it may.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{Load, RowOracle, World, eventually};
use postgres::{Client, NoTls};

/// Far longer than any timeout here, far shorter than waiting for a frozen Redis.
const GENEROUS: Duration = Duration::from_secs(20);

fn world() -> World {
    let world = World::with(
        "CREATE TABLE doc (id int PRIMARY KEY, version bigint); INSERT INTO doc SELECT i, 0 FROM generate_series(1, 10) i",
        "doc:{id} => SELECT version FROM doc",
    );
    world.wait();
    world
}

/// A synchronous session whose warnings are kept.
fn session(world: &World, timeout: &str) -> (Client, Arc<Mutex<Vec<String>>>) {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&warnings);
    let mut config = world.postgres.config();
    config.notice_callback(move |notice| kept.lock().unwrap().push(notice.to_string()));
    let mut client = config.connect(NoTls).unwrap();
    let sql =
        format!("SET pg_redis_cache.synchronous = on; SET pg_redis_cache.synchronous_timeout = '{timeout}'");
    client.batch_execute(&sql).unwrap();
    (client, warnings)
}

#[test]
fn what_commit_has_returned_for_is_in_redis() {
    let world = world();
    let (mut client, warnings) = session(&world, "30s");
    let mut redis = world.redis();
    for version in 1..=1000i64 {
        let key = (version % 10 + 1) as i32;
        let sql = "UPDATE doc SET version = $1 WHERE id = $2";
        client.execute(sql, &[&version, &key]).unwrap();
        let cached: Option<i64> = redis::cmd("HGET")
            .arg(format!("doc:{key}"))
            .arg("version")
            .query(&mut redis)
            .unwrap();
        assert_eq!(cached, Some(version));
    }
    assert_eq!(*warnings.lock().unwrap(), Vec::<String>::new());
}

/// PostgreSQL tells the others of a transaction's DDL after the callbacks of COMMIT.
#[test]
fn a_commit_of_ddl_that_waits_leaves_nobody_with_old_catalogs() {
    let world = world();
    world.execute("CREATE FUNCTION answer() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    let mut other = world.connect();
    let mut answer = || -> i32 { other.query_one("SELECT answer()", &[]).unwrap().get(0) };
    assert_eq!(answer(), 1);
    let (mut client, warnings) = session(&world, "60s");
    world.redis.freeze();
    let waiting = std::thread::spawn(move || {
        client
            .batch_execute(
                "BEGIN; UPDATE doc SET version = 1 WHERE id = 1; \
                 CREATE OR REPLACE FUNCTION answer() RETURNS int LANGUAGE sql AS 'SELECT 2'; COMMIT",
            )
            .unwrap();
    });
    eventually("the new function", GENEROUS, || (answer() == 2).then_some(()));
    assert!(!waiting.is_finished());
    world.redis.thaw();
    waiting.join().unwrap();
    assert_eq!(*warnings.lock().unwrap(), Vec::<String>::new());
    assert_eq!(world.redis.cli(&["HGET", "doc:1", "version"]), "\"1\"");
}

#[test]
fn other_sessions_may_be_in_the_way() {
    let world = world();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut other, stopped) = (world.connect(), Arc::clone(&stop));
    let noise = std::thread::spawn(move || {
        while !stopped.load(Ordering::Acquire) {
            other
                .batch_execute("UPDATE doc SET version = version + 1 WHERE id > 5")
                .unwrap();
        }
    });
    let (mut client, warnings) = session(&world, "30s");
    let mut redis = world.redis();
    for version in 1..=200i64 {
        client
            .execute("UPDATE doc SET version = $1 WHERE id = 1", &[&version])
            .unwrap();
        let cached: Option<i64> = redis::cmd("HGET")
            .arg("doc:1")
            .arg("version")
            .query(&mut redis)
            .unwrap();
        assert_eq!(cached, Some(version));
    }
    stop.store(true, Ordering::Release);
    noise.join().unwrap();
    assert_eq!(*warnings.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn a_frozen_redis_is_not_waited_for_and_a_warning_says_so() {
    let world = world();
    let (mut client, warnings) = session(&world, "200ms");
    world.redis.freeze();
    let start = Instant::now();
    client
        .batch_execute("BEGIN; UPDATE doc SET version = 7 WHERE id = 1; COMMIT")
        .unwrap();
    assert!(start.elapsed() < GENEROUS, "{:?}", start.elapsed());
    eventually("the warning", GENEROUS, || {
        let _ = client.batch_execute("");
        warnings
            .lock()
            .unwrap()
            .iter()
            .any(|warning| warning.contains("committed"))
            .then_some(())
    });
    let row = world
        .connect()
        .query_one("SELECT version FROM doc WHERE id = 1", &[])
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 7);
    world.redis.thaw();
    world.assert_rows(&RowOracle::hash("doc:{id}", "doc", &["version"]));
}

fn until_the_commit_waits(client: &mut Client) {
    let sql =
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'UPDATE%' AND wait_event = 'Extension'";
    eventually("the commit to wait", GENEROUS, || {
        client
            .query_one(sql, &[])
            .unwrap()
            .get::<_, bool>(0)
            .then_some(())
    });
}

#[test]
fn the_wait_can_be_cancelled() {
    let world = world();
    let (mut client, _) = session(&world, "1h");
    world.redis.freeze();
    let cancel = client.cancel_token();
    let mut other = world.connect();
    let canceller = std::thread::spawn(move || {
        until_the_commit_waits(&mut other);
        cancel.cancel_query(NoTls).unwrap();
    });
    let start = Instant::now();
    // Whether the cancellation is also told as an error: the transaction is committed in any case.
    let _ = client.batch_execute("UPDATE doc SET version = 8 WHERE id = 2");
    assert!(start.elapsed() < GENEROUS, "{:?}", start.elapsed());
    canceller.join().unwrap();
    let row = world
        .connect()
        .query_one("SELECT version FROM doc WHERE id = 2", &[])
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 8);
}

#[test]
fn a_session_that_waits_can_be_terminated() {
    let world = world();
    let (mut client, _) = session(&world, "1h");
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    world.redis.freeze();
    let waiting = std::thread::spawn(move || {
        let _ = client.batch_execute("UPDATE doc SET version = 9 WHERE id = 3");
    });
    let mut admin = world.connect();
    eventually("the change to be visible", GENEROUS, || {
        let row = admin
            .query_one("SELECT version FROM doc WHERE id = 3", &[])
            .unwrap();
        (row.get::<_, i64>(0) == 9).then_some(())
    });
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    eventually("the session to end", GENEROUS, || {
        waiting.is_finished().then_some(())
    });
    waiting.join().unwrap();
    world.redis.thaw();
    world.assert_rows(&RowOracle::hash("doc:{id}", "doc", &["version"]));
}

#[test]
fn a_transaction_without_changes_of_mapped_tables_waits_for_nothing() {
    let world = world();
    let (mut client, warnings) = session(&world, "1h");
    client.batch_execute("CREATE TABLE unmapped (i int)").unwrap();
    world.redis.freeze();
    client
        .batch_execute("INSERT INTO unmapped VALUES (1); SELECT * FROM unmapped; BEGIN; UPDATE doc SET version = 1; ROLLBACK")
        .unwrap();
    assert_eq!(*warnings.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn a_redis_that_dies_meanwhile_ends_no_wait_for_ever() {
    let mut world = Load::world(Default::default(), |world| {
        world
            .conf("pg_redis_cache.synchronous", "on")
            .conf("pg_redis_cache.synchronous_timeout", "200ms")
    });
    let load = Load::start(&world, Default::default());
    load.goes_on(50);
    world.redis.kill();
    load.goes_on(50);
    world.redis.start_again();
    load.goes_on(50);
    load.stop();
    Load::assert_all_rows(&world);
}

/// To end in COMMIT would be to abort what has been committed, which is a PANIC.
#[test]
fn the_postmasters_death_ends_the_wait() {
    let world = world();
    let (mut client, _) = session(&world, "60s");
    world.redis.freeze();
    let waiting = std::thread::spawn(move || {
        // The answer may still come or not.
        let _ = client.batch_execute("UPDATE doc SET version = 1 WHERE id = 1");
    });
    until_the_commit_waits(&mut world.connect());
    // SAFETY: a signal to a process that this test has started.
    unsafe { libc::kill(world.postgres.pid() as i32, libc::SIGKILL) };
    waiting.join().unwrap();
    let log = world.postgres.log();
    assert!(!log.contains("PANIC"), "{log}");
}
