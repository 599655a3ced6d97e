//! The histories of docs/ARCHITECTURE.md, "The ten rules", on the real code: sessions are made to wait at the
//! places at which others have to come in between (src/test_points.rs). Each of these tests fails if the condition
//! that it is named after is left out: `make mutants` shows it.

use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{RowOracle, World, eventually};
use postgres::Client;

const SOON: Duration = Duration::from_secs(20);
/// How long a session waits at a test point, in milliseconds: longer than what comes in between takes.
const SHORT: u32 = 1_500;
const LONG: u32 = 3_500;

/// Row 1 and its key are what is looked at. The other rows are there to make a transaction too large for its
/// buffer, so that what it changes is lost (rule 6).
fn world() -> World {
    world_with(|builder| builder)
}

fn world_with(
    settings: fn(pg_redis_cache_tests::WorldBuilder) -> pg_redis_cache_tests::WorldBuilder,
) -> World {
    let builder = World::builder()
        .conf("pg_redis_cache.refill_interval", "0")
        .conf("pg_redis_cache.transaction_buffer", "64kB");
    let world = settings(builder).start();
    world.execute(
        "CREATE TABLE doc (id int PRIMARY KEY, version int NOT NULL); \
         INSERT INTO doc SELECT i, 1 FROM generate_series(1, 5000) i; ANALYZE doc; CREATE TABLE other (a int)",
    );
    world.set_mappings("doc:{id} => SELECT version FROM doc");
    eventually("the first purge", SOON, || (purges(&world) > 0).then_some(()));
    world.wait();
    world
}

fn purges(world: &World) -> i64 {
    let row = world
        .connect()
        .query_one("SELECT purges FROM redis_cache.stats", &[]);
    row.expect("the view can be read").get(0)
}

/// What Redis has for row 1.
fn cached(world: &World) -> String {
    world.redis.cli(&["HGET", "doc:1", "version"]).replace('"', "")
}

fn until_cached(world: &World, version: &str) {
    eventually(&format!("version {version} in Redis"), SOON, || {
        (cached(world) == version).then_some(())
    });
}

/// For a while it does not.
fn assert_never_cached(world: &World, version: &str) {
    let end = Instant::now() + Duration::from_millis(400);
    while Instant::now() < end {
        assert_ne!(cached(world), version);
        sleep(Duration::from_millis(5));
    }
}

fn assert_in_step(world: &World) {
    world.assert_rows(&RowOracle::hash("doc:{id}", "doc", &["version"]));
}

/// A statement in a session that waits at a test point.
fn waiting(world: &World, point: &str, milliseconds: u32, sql: impl Into<String>) -> JoinHandle<()> {
    let mut client = world.connect();
    client
        .batch_execute(&format!(
            "SET pg_redis_cache.test_points = '{point}={milliseconds}'"
        ))
        .expect("the tests run on a build with test points");
    let sql = sql.into();
    spawn(move || client.batch_execute(&sql).expect("the statement works"))
}

/// A writer of row 1's version that is visible, and whose entry comes to the ring later.
fn late_writer(world: &World, milliseconds: u32, version: u32) -> JoinHandle<()> {
    let update = format!("UPDATE doc SET version = {version} WHERE id = 1");
    let writer = waiting(world, "append", milliseconds, update);
    let mut client = world.connect();
    // Not by its key: that would fill.
    let sql = format!("SELECT count(*) = 1 FROM doc WHERE version = {version} AND id + 0 = 1");
    eventually("the writer to be visible", SOON, || {
        let row = client.query_one(&sql, &[]);
        row.expect("the table can be read")
            .get::<_, bool>(0)
            .then_some(())
    });
    writer
}

/// A reader that has been let pass, and whose rows come to the ring later.
fn late_reader(world: &World) -> JoinHandle<()> {
    let reader = waiting(world, "fill", LONG, "SELECT version FROM doc WHERE id = 1");
    sleep(Duration::from_millis(400));
    assert!(!reader.is_finished(), "the reader has filled nothing");
    reader
}

/// A transaction with a snapshot of now.
fn old_snapshot(world: &World) -> Client {
    let mut client = world.connect();
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM other")
        .expect("a snapshot can be taken");
    client
}

fn read_row(client: &mut Client) {
    client
        .batch_execute("SELECT version FROM doc WHERE id = 1")
        .expect("the row can be read");
}

fn end(session: JoinHandle<()>) {
    session.join().expect("the session has ended well");
}

/// Changes row 1 in a transaction whose changes are lost, and waits for the purge.
fn lose_a_change(world: &World) {
    let before = purges(world);
    world.execute("UPDATE doc SET version = version + 1");
    eventually("the purge", SOON, || (purges(world) > before).then_some(()));
}

#[test]
fn a_late_writer_does_not_bring_an_older_row_back() {
    let world = world();
    let late = late_writer(&world, SHORT, 2);
    world.execute("UPDATE doc SET version = 3 WHERE id = 1");
    until_cached(&world, "3");
    end(late);
    world.wait();
    assert_ne!(cached(&world), "2");
    assert_in_step(&world);
}

#[test]
fn a_late_writer_does_not_bring_a_deleted_row_back() {
    let world = world();
    world.execute("SELECT version FROM doc WHERE id = 1");
    until_cached(&world, "1");
    let late = late_writer(&world, SHORT, 2);
    world.execute("DELETE FROM doc WHERE id = 1");
    until_cached(&world, "(nil)");
    end(late);
    world.wait();
    assert_eq!(cached(&world), "(nil)");
    assert_in_step(&world);
}

#[test]
fn a_late_writer_does_not_replace_what_a_reader_of_a_newer_row_has_filled() {
    let world = world();
    let first = late_writer(&world, SHORT, 2);
    let second = late_writer(&world, LONG, 3);
    world.execute("SELECT version FROM doc WHERE id = 1");
    until_cached(&world, "3");
    end(first);
    assert_never_cached(&world, "2");
    end(second);
    assert_in_step(&world);
}

#[test]
fn a_reader_with_an_older_snapshot_does_not_replace_what_a_newer_one_has_filled() {
    let world = world();
    let mut old = old_snapshot(&world);
    let late = late_writer(&world, LONG, 2);
    world.execute("SELECT version FROM doc WHERE id = 1");
    until_cached(&world, "2");
    read_row(&mut old);
    assert_never_cached(&world, "1");
    end(late);
    assert_in_step(&world);
}

#[test]
fn a_late_writer_from_before_a_loss_does_not_bring_its_row_back() {
    let world = world();
    let late = late_writer(&world, SHORT, 2);
    lose_a_change(&world);
    end(late);
    world.wait();
    assert_ne!(cached(&world), "2");
    assert_in_step(&world);
}

#[test]
fn a_late_reader_from_before_a_loss_does_not_bring_its_row_back() {
    let world = world();
    let late = late_reader(&world);
    lose_a_change(&world);
    end(late);
    world.wait();
    assert_ne!(cached(&world), "1");
    assert_in_step(&world);
}

#[test]
fn a_late_reader_from_before_a_write_does_not_bring_its_row_back() {
    let world = world();
    let late = late_reader(&world);
    world.execute("UPDATE doc SET version = 2 WHERE id = 1");
    until_cached(&world, "2");
    end(late);
    world.wait();
    assert_eq!(cached(&world), "2");
    assert_in_step(&world);
}

/// A transaction that has noted the epochs appends when its mapping's place is another one's, which is not looked
/// at yet: nobody would ever take away what it stored.
#[test]
fn a_place_that_is_used_again_takes_nothing_of_the_mapping_before() {
    let world = world();
    let mut writer = world.connect();
    writer
        .batch_execute(&format!(
            "SET pg_redis_cache.test_points = 'append={LONG}'; \
             BEGIN; UPDATE doc SET version = 2 WHERE id = 1"
        ))
        .expect("the tests run on a build with test points");
    world.set_mappings("");
    sleep(Duration::from_secs(1)); // the place is free once its keys are purged, which nothing shows
    let writer = spawn(move || writer.batch_execute("COMMIT").expect("a commit works"));
    let mut client = world.connect();
    eventually("the writer to be visible", SOON, || {
        let row = client.query_one("SELECT version FROM doc WHERE id + 0 = 1", &[]);
        (row.expect("the table can be read").get::<_, i32>(0) == 2).then_some(())
    });
    client
        .batch_execute("BEGIN; LOCK other")
        .expect("nobody else has a lock");
    // It stays pending: its table is locked.
    let list = "other:{a} => SELECT * FROM other";
    world.postgres.set_conf("pg_redis_cache.mappings", list);
    end(writer);
    client.batch_execute("COMMIT").expect("the lock is released");
    world.wait();
    assert_eq!(cached(&world), "(nil)");
}

#[test]
fn a_place_that_becomes_free_costs_the_other_mappings_nothing() {
    let world = world();
    let list = "doc:{id} => SELECT version FROM doc";
    world.execute("CREATE TABLE gone (id int PRIMARY KEY, v int)");
    world.set_mappings(&format!(
        "{list}; gone:{{id}} => SELECT v FROM gone WITH (insert = set)"
    ));
    world.execute("INSERT INTO gone VALUES (1, 1)");
    world.wait();
    let is_there = || world.redis.cli(&["EXISTS", "gone:1"]) == "(integer) 1";
    assert!(is_there());
    world.set_mappings(list);
    eventually("its key to be purged", SOON, || (!is_there()).then_some(()));
    let before = losses(&world);
    let mut writer = world.connect();
    writer
        .batch_execute("BEGIN; UPDATE doc SET version = 2 WHERE id = 1")
        .expect("a row can be changed");
    sleep(Duration::from_millis(SHORT.into())); // the place becomes free, which nothing shows
    writer.batch_execute("COMMIT").expect("a commit works");
    world.wait();
    assert_eq!(cached(&world), "2");
    assert_eq!(losses(&world), before);
}

/// How often a mapping had to be purged.
fn losses(world: &World) -> i64 {
    let sql = "SELECT sum(count)::bigint FROM redis_cache.purges";
    let row = world.connect().query_one(sql, &[]);
    row.expect("the view can be read").get(0)
}

#[test]
fn a_snapshot_from_before_a_write_does_not_fill() {
    let world = world();
    let mut old = old_snapshot(&world);
    world.execute("UPDATE doc SET version = 2 WHERE id = 1");
    until_cached(&world, "2");
    read_row(&mut old);
    world.wait();
    assert_eq!(cached(&world), "2");
    assert_in_step(&world);
}

#[test]
fn a_snapshot_from_before_a_loss_does_not_fill() {
    let world = world();
    let mut old = old_snapshot(&world);
    lose_a_change(&world);
    read_row(&mut old);
    world.wait();
    assert_ne!(cached(&world), "1");
    assert_in_step(&world);
}

/// A SET is on its way over a lane, which the proxy holds up, when its row's next version is lost.
#[test]
fn a_purge_waits_for_what_is_on_its_way() {
    let world = world_with(|builder| {
        let builder = builder.conf("pg_redis_cache.command_timeout", "60s");
        builder.conf("pg_redis_cache.pool_size", "1").proxied()
    });
    world.proxy().hold();
    world.execute("UPDATE doc SET version = 2 WHERE id = 1");
    eventually("the write to be on its way", SOON, || {
        world.proxy().keeps_something().then_some(())
    });
    // The control connection alone is opened anew, past what is held.
    let list = world.redis.cli(&["CLIENT", "LIST"]);
    let is_control = |client: &&str| client.contains(":control:");
    let control = list
        .lines()
        .find(is_control)
        .expect("the control connection is there");
    let id = control
        .split("id=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    world
        .redis
        .cli(&["CLIENT", "KILL", "ID", id.expect("a client has an id")]);
    world.execute("UPDATE doc SET version = version + 1");
    // Long enough for a purge that does not wait.
    sleep(Duration::from_secs(2));
    world.proxy().release();
    world.wait();
    assert_ne!(cached(&world), "2");
    assert_in_step(&world);
}

/// The view looks up the places, and then the worker publishes the list: that it had not is no want of a place.
#[test]
fn a_list_that_is_published_meanwhile_is_not_told_to_want_places() {
    let world = world();
    let worker = world.worker_pid();
    world.postgres.signal(worker, libc::SIGSTOP);
    world.set_list(
        "doc:{id} => SELECT version FROM doc; again:{id} => SELECT version FROM doc WITH (name = again)",
    );
    let states = "CREATE TABLE seen AS SELECT name, problem FROM redis_cache.mappings";
    let reader = waiting(&world, "places", SHORT, states);
    sleep(Duration::from_millis(400));
    world.postgres.signal(worker, libc::SIGCONT);
    end(reader);
    let row = world
        .connect()
        .query_one("SELECT count(*), min(problem) FROM seen", &[])
        .expect("the table can be read");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, Option<&str>>(1)), (2, None));
}
