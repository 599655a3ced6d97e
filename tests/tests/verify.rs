//! `verify` under load reports what is wrong and nothing else; `warm` loads a million rows in bounded memory, tells
//! how far it is, can be cancelled, and never beats a concurrent write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{Load, Shape, World, WorldBuilder, eventually, private_kilobytes};
use postgres::Client;
use postgres::error::SqlState;

const LASTS: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(60);

/// The mappings of [`Load`].
const NAMES: [&str; 4] = ["doc", "gone", "j", "s"];

/// What `verify` says of a mapping: keys and problems.
fn verify(client: &mut Client, mapping: &str) -> Vec<(String, String)> {
    let sql = "SELECT key, problem FROM redis_cache.verify($1) ORDER BY key";
    let rows = client
        .query(sql, &[&mapping])
        .unwrap_or_else(|error| panic!("{mapping}: {error:?}"));
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn plant(world: &World, command: &[&str]) {
    world.redis.cli(command);
}

/// Verifies all mappings again and again while a load runs. One difference is planted in each mapping under a key
/// that the load does not use: it is reported each time, and nothing else ever is.
fn hold(shape: Shape, settings: impl FnOnce(WorldBuilder) -> WorldBuilder) {
    let world = Load::world(shape, settings);
    plant(&world, &["HSET", "doc:1000001", "version", "1"]);
    plant(&world, &["HSET", "gone:1000001", "version", "1"]);
    plant(&world, &["SET", "j:1000001", "{}"]);
    plant(&world, &["SET", "s:1000001", "stamp", "EX", "1000"]);
    let load = Load::start(&world, shape);
    let mut client = world.connect();
    let end = Instant::now() + LASTS;
    let mut rounds = 0;
    while Instant::now() < end || rounds < 3 {
        for name in NAMES {
            let planted = (format!("{name}:1000001"), "there is no row".to_owned());
            assert_eq!(verify(&mut client, name), [planted], "round {rounds}");
        }
        rounds += 1;
    }
    let done = load.stop();
    assert!(done.commits > 50, "{done:?}");
    println!(
        "{rounds} rounds beside {} commits and {} reads",
        done.commits, done.reads
    );
    plant(
        &world,
        &["DEL", "doc:1000001", "gone:1000001", "j:1000001", "s:1000001"],
    );
    Load::assert_all_rows(&world);
}

#[test]
fn under_load_nothing_is_reported_but_what_is_wrong() {
    hold(Shape::default(), |world| world);
}

#[test]
fn under_full_load_nothing_is_reported_but_what_is_wrong() {
    let shape = Shape {
        writers: 8,
        readers: 6,
        pause: Duration::ZERO,
        ..Shape::default()
    };
    hold(shape, |world| world);
}

#[test]
fn with_few_slots_nothing_is_reported_but_what_is_wrong() {
    let shape = Shape {
        keys: 2000,
        ..Shape::default()
    };
    hold(shape, |world| world.conf("pg_redis_cache.hash_slots", "1024"));
}

/// Commits wait in the queue, and the rows of Redis are old.
#[test]
fn a_worker_that_falls_behind_is_no_difference() {
    let world = World::with(
        "CREATE TABLE doc (id int PRIMARY KEY, version bigint); INSERT INTO doc SELECT i, 0 FROM generate_series(1, 500) i",
        "doc:{id} => SELECT version FROM doc WITH (insert = set)",
    );
    world.execute("UPDATE doc SET version = 1");
    world.wait();
    let worker = world.postgres.child("pg_redis_cache").expect("the worker runs");
    world.postgres.signal(worker, libc::SIGSTOP);
    world.execute("UPDATE doc SET version = 2; DELETE FROM doc WHERE id > 400");
    assert_eq!(world.redis.cli(&["HGET", "doc:500", "version"]), "\"1\"");
    let mut client = world.connect();
    let verifying = std::thread::spawn(move || verify(&mut client, "doc"));
    eventually("verify to look again", LIMIT, || {
        (progress(&mut world.connect(), "phase") == Some("looking again".to_owned())).then_some(())
    });
    world.postgres.signal(worker, libc::SIGCONT);
    assert_eq!(verifying.join().unwrap(), []);
    plant(&world, &["HSET", "doc:500", "version", "1"]);
    assert_eq!(verify(&mut world.connect(), "doc").len(), 1);
}

#[test]
fn a_redis_that_is_gone_is_told() {
    let mut world = World::with(
        "CREATE TABLE doc (id int PRIMARY KEY, version bigint); INSERT INTO doc VALUES (1, 1)",
        "doc:{id} => SELECT version FROM doc",
    );
    world.redis.kill();
    let mut client = world.connect();
    eventually("the worker to notice", LIMIT, || {
        let row = client
            .query_one("SELECT connected FROM redis_cache.status", &[])
            .unwrap();
        (!row.get::<_, bool>(0)).then_some(())
    });
    for (sql, told) in [
        ("SELECT * FROM redis_cache.verify('doc')", "cannot be reached"),
        ("SELECT redis_cache.warm('doc')", "Redis is not connected"),
    ] {
        let error = client.batch_execute(sql).expect_err("there is no Redis");
        assert_eq!(error.code(), Some(&SqlState::CONNECTION_FAILURE), "{error:?}");
        let message = error.as_db_error().map(|error| error.message().to_owned());
        assert!(
            message.as_ref().is_some_and(|message| message.contains(told)),
            "{message:?}"
        );
    }
    world.redis.start_again();
    eventually("the worker to be back", LIMIT, || {
        let row = client
            .query_one("SELECT connected FROM redis_cache.status", &[])
            .unwrap();
        row.get::<_, bool>(0).then_some(())
    });
    world.wait();
    client.batch_execute("SELECT redis_cache.warm('doc')").unwrap();
    world.wait();
    assert_eq!(verify(&mut client, "doc"), []);
    assert_eq!(world.redis.cli(&["HGET", "doc:1", "version"]), "\"1\"");
}

/// How many keys the table's mapping has in Redis.
fn keys(world: &World) -> i64 {
    let mut command = redis::cmd("EVAL");
    command.arg("return #redis.call('KEYS', 'doc:*')").arg(0);
    command.query(&mut world.redis()).expect("keys can be counted")
}

/// A column of the view `progress`, of the only function that runs.
fn progress(client: &mut Client, column: &str) -> Option<String> {
    let rows = client
        .query(&format!("SELECT {column}::text FROM redis_cache.progress"), &[])
        .expect("the view can be read");
    assert!(rows.len() <= 1, "{} functions run", rows.len());
    rows.first().and_then(|row| row.get(0))
}

/// A world with a table of that many rows, mapped and not cached.
fn large_world(rows: i64, settings: impl FnOnce(WorldBuilder) -> WorldBuilder) -> World {
    let world = settings(World::builder().conf("autovacuum", "off")).start();
    world.execute(&format!(
        "CREATE TABLE doc (id int PRIMARY KEY, version bigint, body text); \
         INSERT INTO doc SELECT i, 0, 'body of row ' || i FROM generate_series(1, {rows}) i"
    ));
    world.execute("VACUUM ANALYZE doc");
    world.set_mappings("doc:{id} => SELECT version, body FROM doc");
    world.wait();
    world
}

fn pid(client: &mut Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0)
}

/// What a process has for itself, its stack included.
fn kilobytes(pid: i32) -> u64 {
    let (stack, others) = private_kilobytes(pid as u32);
    stack + others
}

/// Measures a backend and the worker until stopped; the most that each has had.
fn measure(world: &World, backend: i32) -> (Arc<AtomicBool>, JoinHandle<(u64, u64)>) {
    let worker = world.postgres.child("pg_redis_cache").expect("the worker runs") as i32;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let measuring = std::thread::spawn(move || {
        let mut most = (0, 0);
        while !stopped.load(Ordering::Acquire) {
            most.0 = kilobytes(backend).max(most.0);
            most.1 = kilobytes(worker).max(most.1);
            sleep(Duration::from_millis(20));
        }
        most
    });
    (stop, measuring)
}

/// What the backend and the worker may grow by: a portion of rows, an entry of the queue, a window of keys.
const GROWTH_KB: u64 = 24 * 1024;

#[test]
fn a_million_rows_are_warmed_and_verified_in_bounded_memory() {
    const ROWS: i64 = 1_000_000;
    let world = large_world(ROWS, |world| world);
    let mut client = world.connect();
    // The same work on few rows: what it takes at any size.
    client
        .batch_execute(
            "SELECT redis_cache.warm('doc', 'id <= 20000'); SELECT * FROM redis_cache.verify('doc')",
        )
        .unwrap();
    let backend = pid(&mut client);
    let before = kilobytes(backend);
    let worker = world.postgres.child("pg_redis_cache").expect("the worker runs") as i32;
    let worker_before = kilobytes(worker);
    let (stop, measuring) = measure(&world, backend);

    let began = Instant::now();
    let warming = std::thread::spawn(move || {
        let row = client.query_one("SELECT redis_cache.warm('doc')", &[]).unwrap();
        (row.get::<_, i64>(0), client)
    });
    // Another session sees how far it is.
    let mut other = world.connect();
    let seen = eventually("progress to be seen on its way", LIMIT, || {
        let sql = "SELECT pid, command, mapping, rows_done, rows_total, started_at < clock_timestamp() \
                   FROM redis_cache.progress WHERE rows_done BETWEEN 50000 AND 999999";
        other.query_opt(sql, &[]).unwrap()
    });
    assert_eq!(seen.get::<_, i32>(0), backend);
    assert_eq!((seen.get(1), seen.get(2)), ("warm", "doc"));
    let total = seen.get::<_, i64>(4);
    assert!(
        (ROWS * 9 / 10..ROWS * 11 / 10).contains(&total),
        "a total of {total}"
    );
    assert!(seen.get::<_, bool>(5));
    let (handed, mut client) = warming.join().unwrap();
    let warmed = began.elapsed();
    assert_eq!(handed, ROWS);
    assert_eq!(progress(&mut other, "pid"), None);
    world.wait();
    assert_eq!(keys(&world), ROWS);

    // One in a hundred is wrong, and so is about one in a hundred of a sample.
    let script = "for i = 1, 1000000, 100 do redis.call('HSET', 'doc:' .. i, 'body', 'other') end";
    plant(&world, &["EVAL", script, "0"]);
    let began = Instant::now();
    let sql = "SELECT count(*), count(DISTINCT key), count(*) FILTER (WHERE problem <> 'field \"body\" differs') \
               FROM redis_cache.verify('doc', 100000)";
    let found = client.query_one(sql, &[]).unwrap();
    let verified = began.elapsed();
    let (rows, keys) = (found.get::<_, i64>(0), found.get::<_, i64>(1));
    assert!(
        (500..2000).contains(&rows) && rows == keys,
        "{rows} rows of {keys} keys"
    );
    assert_eq!(found.get::<_, i64>(2), 0);
    stop.store(true, Ordering::Release);
    let (most, worker_most) = measuring.join().unwrap();
    println!(
        "{ROWS} rows: warmed in {warmed:.1?}, a tenth verified in {verified:.1?}; \
         backend {before} kB, at most {most} kB; worker {worker_before} kB, at most {worker_most} kB"
    );
    assert!(
        most < before + GROWTH_KB,
        "{before} kB before, {most} kB on the way"
    );
    // It may have 8 MiB with the engine, which makes them commands.
    assert!(
        worker_most < worker_before + 3 * GROWTH_KB,
        "worker: {worker_before} kB before, {worker_most} kB on the way"
    );
}

#[test]
fn large_values_are_warmed_and_verified_in_bounded_memory() {
    let world = World::builder().conf("autovacuum", "off").start();
    // Half a megabyte each, outside of the rows: many rows to a page.
    world.execute(
        "CREATE TABLE doc (id int PRIMARY KEY, body text); ALTER TABLE doc ALTER body SET STORAGE EXTERNAL; \
         INSERT INTO doc SELECT i, repeat(chr(65 + i % 26), 500000) FROM generate_series(1, 400) i",
    );
    world.set_mappings("doc:{id} => SELECT body FROM doc");
    world.wait();
    let mut client = world.connect();
    client
        .batch_execute("SELECT redis_cache.warm('doc', 'id <= 2'); SELECT * FROM redis_cache.verify('doc')")
        .unwrap();
    let backend = pid(&mut client);
    let before = kilobytes(backend);
    let (stop, measuring) = measure(&world, backend);
    let handed: i64 = client
        .query_one("SELECT redis_cache.warm('doc')", &[])
        .unwrap()
        .get(0);
    assert_eq!(handed, 400);
    world.wait();
    assert_eq!(verify(&mut client, "doc"), []);
    stop.store(true, Ordering::Release);
    let (most, _) = measuring.join().unwrap();
    println!("200 MB: backend {before} kB, at most {most} kB");
    // A window of the first size, from both sides, before windows get smaller: 32 values of half a megabyte.
    assert!(
        most < before + 3 * GROWTH_KB,
        "{before} kB before, {most} kB on the way"
    );
}

/// Cancels the statement of a session as soon as its progress is at some rows.
fn cancel_at(world: &World, backend: i32) {
    let mut other = world.connect();
    eventually("the function to be under way", LIMIT, || {
        let sql =
            "SELECT pg_cancel_backend(pid) FROM redis_cache.progress WHERE pid = $1 AND rows_done > 1000";
        other.query_opt(sql, &[&backend]).unwrap()
    });
}

#[test]
fn both_can_be_cancelled() {
    let world = large_world(1_000_000, |world| world);
    for sql in [
        "SELECT redis_cache.warm('doc')",
        "SELECT * FROM redis_cache.verify('doc')",
    ] {
        let mut client = world.connect();
        let backend = pid(&mut client);
        let running = std::thread::spawn(move || {
            let error = client.batch_execute(sql).expect_err("it has been cancelled");
            (error.code() == Some(&SqlState::QUERY_CANCELED), client)
        });
        cancel_at(&world, backend);
        let (cancelled, mut client) = running.join().unwrap();
        assert!(cancelled, "{sql}");
        assert_eq!(progress(&mut client, "pid"), None);
        // What had been handed over stays, and is right; the session goes on.
        world.wait();
        assert!((1000..1_000_000).contains(&keys(&world)), "{} keys", keys(&world));
        client
            .batch_execute("SELECT redis_cache.warm('doc', 'id <= 10')")
            .unwrap();
    }
    // So does waiting for room, with a Redis that does not move.
    world.redis.freeze();
    let mut client = world.connect();
    let backend = pid(&mut client);
    let running = std::thread::spawn(move || client.batch_execute("SELECT redis_cache.warm('doc')"));
    let mut other = world.connect();
    eventually("warm to wait for room", LIMIT, || {
        let sql =
            "SELECT pg_cancel_backend(pid) FROM redis_cache.progress WHERE pid = $1 AND phase ~ 'waiting'";
        other.query_opt(sql, &[&backend]).unwrap()
    });
    let error = running.join().unwrap().expect_err("it has been cancelled");
    let told = [SqlState::QUERY_CANCELED, SqlState::CONNECTION_FAILURE];
    assert!(error.code().is_some_and(|code| told.contains(code)), "{error:?}");
    world.redis.thaw();
}

/// A session that is terminated leaves no entry that is shown.
#[test]
fn a_session_that_is_terminated_is_not_shown() {
    let world = large_world(300_000, |world| world);
    let mut client = world.connect();
    let backend = pid(&mut client);
    let running = std::thread::spawn(move || {
        client.batch_execute("SELECT redis_cache.warm('doc', 'pg_sleep(0.001) IS NOT NULL')")
    });
    let mut other = world.connect();
    eventually("warm to be under way", LIMIT, || {
        let sql = "SELECT pg_terminate_backend(pid) FROM redis_cache.progress WHERE pid = $1";
        other.query_opt(sql, &[&backend]).unwrap()
    });
    running
        .join()
        .unwrap()
        .expect_err("its session has been terminated");
    eventually("the session to be gone", LIMIT, || {
        let sql = "SELECT FROM pg_stat_activity WHERE pid = $1";
        other.query_opt(sql, &[&backend]).unwrap().is_none().then_some(())
    });
    assert_eq!(progress(&mut other, "pid"), None);
}

/// Loads all mappings again and again while others write and read: no key goes back, and in the end each is right.
fn warm_beside(shape: Shape, settings: impl FnOnce(WorldBuilder) -> WorldBuilder) {
    let world = Load::world(shape, settings);
    let oracle = Load::watch(&world, shape);
    let load = Load::start(&world, shape);
    let stop = Arc::new(AtomicBool::new(false));
    let warmers: Vec<_> = (0..2)
        .map(|_| {
            let (mut client, stopped) = (world.connect(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut handed = 0;
                while !stopped.load(Ordering::Acquire) {
                    for name in NAMES {
                        let row = client.query_one("SELECT redis_cache.warm($1)", &[&name]).unwrap();
                        handed += row.get::<_, i64>(0);
                    }
                }
                handed
            })
        })
        .collect();
    sleep(LASTS);
    let done = load.stop();
    stop.store(true, Ordering::Release);
    let handed: i64 = warmers.into_iter().map(|warmer| warmer.join().unwrap()).sum();
    world.wait();
    let watched = oracle.assert_held();
    Load::assert_all_rows(&world);
    println!(
        "{handed} rows handed over beside {done:?}, {} advances",
        watched.advances
    );
    assert!(handed > i64::from(shape.keys), "{handed} rows");
    assert!(done.commits > 50, "{done:?}");
    // With nobody beside it everything gets in.
    let mut client = world.connect();
    client
        .batch_execute("SELECT redis_cache.invalidate_all('doc')")
        .unwrap();
    let sql = "SELECT redis_cache.warm('doc') = (SELECT count(*) FROM doc)";
    assert!(client.query_one(sql, &[]).unwrap().get::<_, bool>(0));
    world.wait();
    for name in NAMES {
        assert_eq!(verify(&mut client, name), []);
    }
}

#[test]
fn warm_never_beats_a_concurrent_write() {
    warm_beside(Shape::default(), |world| world.conf("autovacuum", "off"));
}

#[test]
fn warm_of_many_rows_never_beats_a_concurrent_write() {
    let shape = Shape {
        writers: 6,
        keys: 3000,
        pause: Duration::ZERO,
        ..Shape::default()
    };
    warm_beside(shape, |world| {
        world
            .conf("autovacuum", "off")
            .conf("pg_redis_cache.hash_slots", "1024")
    });
}

/// The queue is small and warm has much: what is committed meanwhile still finds room.
#[test]
fn warm_leaves_the_queue_to_commits() {
    let world = large_world(200_000, |world| world.conf("pg_redis_cache.queue_size", "256kB"));
    let mut client = world.connect();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut writer = world.connect();
    let writing = std::thread::spawn(move || {
        let mut commits = 0;
        while !stopped.load(Ordering::Acquire) {
            let sql = "UPDATE doc SET version = version + 1 WHERE id BETWEEN $1 AND $1 + 19";
            writer.execute(sql, &[&(commits * 37 % 200_000)]).unwrap();
            commits += 1;
        }
        commits
    });
    client
        .batch_execute("SELECT redis_cache.reset_stats(); SELECT redis_cache.warm('doc')")
        .unwrap();
    stop.store(true, Ordering::Release);
    let commits = writing.join().unwrap();
    world.wait();
    // Where the worker gets no processor for a while a commit may find the queue full: that is not for want of room.
    let sql = "SELECT coalesce(sum(count), 0)::bigint FROM redis_cache.purges WHERE reason = 'queue'";
    let lost: i64 = client.query_one(sql, &[]).unwrap().get(0);
    assert!(
        lost * 100 < i64::from(commits),
        "{lost} of {commits} commits found no room"
    );
    let deletes: i64 = client
        .query_one("SELECT deletes FROM redis_cache.stats", &[])
        .unwrap()
        .get(0);
    println!("{commits} commits, {deletes} deletions");
    assert_eq!(verify(&mut client, "doc"), []);
}
