//! Rule 8: a clean restart keeps what is cached, and an unknown past is purged.
//!
//! While the server is down a key is planted that no row has: a purge takes it, and nothing else does. Where rows
//! change unseen, what was cached of them would be stale, too.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Duration;

use pg_redis_cache_tests::{Redis, RowOracle, Shutdown, World, WorldBuilder, eventually};

mod data_set;
mod history;

const SOON: Duration = Duration::from_secs(20);
const SCHEMA: &str = "CREATE TABLE doc (id int PRIMARY KEY, version bigint NOT NULL); \
                      INSERT INTO doc SELECT i, 0 FROM generate_series(1, 20) i";
const MAPPING: &str = "doc:{id} => SELECT version FROM doc";
const PLANTED: &str = "doc:987654";

fn oracle() -> RowOracle {
    RowOracle::hash("doc:{id}", "doc", &["version"])
}

fn world_with(settings: impl FnOnce(WorldBuilder) -> WorldBuilder) -> World {
    // Nothing but the tests takes transaction ids.
    let quiet = World::builder().conf("autovacuum", "off");
    let world = settings(quiet.conf("pg_redis_cache.refill_interval", "0")).start();
    world.execute(SCHEMA);
    world.set_mappings(MAPPING);
    world.wait();
    world.execute("UPDATE doc SET version = version + 1");
    assert_eq!(world.assert_rows(&oracle()).keys, 20);
    world
}

fn world() -> World {
    world_with(|world| world)
}

fn plant(redis: &Redis) {
    redis.cli(&["HSET", PLANTED, "version", "-1"]);
}

fn is_planted(redis: &Redis) -> bool {
    redis.cli(&["EXISTS", PLANTED]) == "(integer) 1"
}

fn own_keys(redis: &Redis, what: &str) -> Vec<String> {
    let found = redis.cli(&["--scan", "--pattern", &format!("pg_redis_cache:{what}:*")]);
    let found = found.lines().map(|line| line.trim_matches('"').to_owned());
    found.filter(|line| !line.is_empty()).collect()
}

fn has_marker(redis: &Redis) -> bool {
    !own_keys(redis, "marker").is_empty()
}

fn marker_file(world: &World) -> std::path::PathBuf {
    world.postgres.data_dir().join("pg_stat/pg_redis_cache.marker")
}

/// The server runs, and has come to know what it can know of the past.
fn settled(world: &World) {
    world.wait_until_active();
    world.wait();
}

/// What was planted has been purged, and what is cached is right, now and after further changes.
fn assert_purged(world: &World) {
    settled(world);
    assert!(!is_planted(&world.redis), "the planted key is still there");
    world.assert_rows(&oracle());
    world.execute("UPDATE doc SET version = version + 1 WHERE id <= 15");
    world.assert_rows(&oracle());
}

/// What was planted is still there, and so is everything else.
fn assert_kept(world: &World, keys: usize) {
    settled(world);
    assert!(is_planted(&world.redis), "what was cached has been purged");
    world.redis.cli(&["DEL", PLANTED]);
    assert_eq!(world.assert_rows(&oracle()).keys, keys);
}

#[test]
fn a_clean_restart_keeps_what_is_cached() {
    let mut world = world();
    for how in [Shutdown::Fast, Shutdown::Smart, Shutdown::Fast] {
        world.execute("UPDATE doc SET version = version + 1; DELETE FROM doc WHERE id = 20");
        world.postgres.stop(how);
        assert!(has_marker(&world.redis));
        assert!(own_keys(&world.redis, "alive").is_empty());
        plant(&world.redis);
        world.postgres.start_again();
        assert_kept(&world, 19);
        assert!(!has_marker(&world.redis));
        assert!(!marker_file(&world).exists());
        world.execute("UPDATE doc SET version = version + 1 WHERE id % 2 = 0; DELETE FROM doc WHERE id = 1");
        assert_eq!(world.assert_rows(&oracle()).keys, 18);
        world.execute("INSERT INTO doc VALUES (1, 7); SELECT * FROM doc WHERE id = 1");
        world
            .connect()
            .query("SELECT * FROM doc WHERE id = 1", &[])
            .unwrap();
        assert_eq!(world.assert_rows(&oracle()).keys, 19);
    }
    let purges = world
        .connect()
        .query_one("SELECT purges FROM redis_cache.stats", &[]);
    assert_eq!(purges.unwrap().get::<_, i64>(0), 0);
}

#[test]
fn what_is_changed_before_redis_is_reached_is_not_missed() {
    let mut world = world();
    for round in 0..3 {
        world.postgres.stop(Shutdown::Fast);
        plant(&world.redis);
        world.redis.freeze();
        world.postgres.start_again();
        let mut client = world.connect();
        client
            .batch_execute(
                "UPDATE doc SET version = version + 1 WHERE id < 10; DELETE FROM doc WHERE id = 10",
            )
            .unwrap();
        client.query("SELECT * FROM doc WHERE id = 3", &[]).unwrap();
        world.redis.thaw();
        assert_kept(&world, 19);
        if round == 0 {
            world.execute("DELETE FROM doc WHERE id = 10");
        }
        world.execute("INSERT INTO doc VALUES (10, 5); UPDATE doc SET version = version + 1");
        assert_eq!(world.assert_rows(&oracle()).keys, 20);
    }
}

#[test]
fn sessions_that_write_at_once_do_not_empty_the_cache() {
    let mut world = world();
    for _ in 0..3 {
        world.postgres.stop(Shutdown::Fast);
        plant(&world.redis);
        world.postgres.start_again();
        let writers: Vec<_> = (1..=4)
            .map(|id| {
                let mut client = world.connect();
                std::thread::spawn(move || {
                    for _ in 0..50 {
                        let sql = format!("UPDATE doc SET version = version + 1 WHERE id = {id}");
                        client.batch_execute(&sql).unwrap();
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_kept(&world, 20);
    }
}

#[test]
fn a_session_that_changes_rows_at_the_stop_leaves_nothing_stale() {
    let mut world = world();
    for round in 0..4 {
        let threads: Vec<_> = (1..=3)
            .map(|id| {
                let mut client = world.connect();
                std::thread::spawn(move || {
                    let sql = format!("UPDATE doc SET version = version + 1 WHERE id % 3 + 1 = {id}");
                    while client.batch_execute(&sql).is_ok() {}
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        world.postgres.stop(Shutdown::Fast);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.postgres.start_again();
        settled(&world);
        assert_eq!(world.assert_rows(&oracle()).keys, 20, "round {round}");
    }
}

#[test]
fn an_immediate_stop_and_a_crash_purge() {
    let mut world = world();
    world.postgres.stop(Shutdown::Immediate);
    plant(&world.redis);
    world.postgres.start_again();
    assert_purged(&world);
    world.postgres.crash();
    plant(&world.redis);
    world.postgres.start_again();
    assert_purged(&world);
    // A marker from before the crash is of no use.
    world.restart_postgres(Shutdown::Fast);
    settled(&world);
    world.postgres.crash();
    plant(&world.redis);
    world.postgres.start_again();
    assert_purged(&world);
}

#[test]
fn a_backend_that_is_killed_purges_though_the_start_was_clean() {
    let mut world = world();
    world.postgres.stop(Shutdown::Fast);
    let key = own_keys(&world.redis, "marker").pop().expect("a marker");
    assert_eq!(world.redis.cli(&["COPY", &key, "aside"]), "(integer) 1");
    world.postgres.start_again();
    settled(&world);
    // What has been read at the start is used up, even if Redis had the marker still.
    assert_eq!(world.redis.cli(&["COPY", "aside", &key]), "(integer) 1");
    plant(&world.redis);
    let mut victim = world.connect();
    let pid: i32 = victim.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    world.postgres.signal(pid as u32, libc::SIGKILL);
    eventually("the planted key to be purged", SOON, || {
        (!is_planted(&world.redis)).then_some(())
    });
    eventually("the server to have recovered", SOON, || {
        world.postgres.config().connect(postgres::NoTls).ok().map(drop)
    });
    assert_purged(&world);
}

#[test]
fn a_worker_that_is_terminated_leaves_nothing_that_is_believed() {
    let mut world = world();
    world.restart_postgres(Shutdown::Fast);
    settled(&world);
    plant(&world.redis);
    let worker = world.postgres.child("pg_redis_cache").expect("the worker runs");
    world.postgres.signal(worker, libc::SIGTERM);
    eventually("another worker to purge", SOON, || {
        (!is_planted(&world.redis)).then_some(())
    });
    assert!(!has_marker(&world.redis));
    assert_purged(&world);
}

/// A session of psql that stays open.
struct Session(Child);

impl Session {
    fn start(world: &World, connection: &str) -> Session {
        let mut psql = world.postgres.command("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", connection]);
        psql.stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Session(psql.spawn().expect("psql can be run"))
    }

    fn say(&mut self, line: &str) {
        let stdin = self.0.stdin.as_mut().expect("its input is a pipe");
        writeln!(stdin, "{line}").expect("psql reads its input");
        stdin.flush().expect("psql reads its input");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_walsender_that_commits_after_the_worker_purges() {
    let mut world = world();
    let mut walsender = Session::start(&world, "dbname=postgres replication=database");
    walsender.say("SELECT 1;");
    let mut idle = world.connect();
    let pid: i32 = idle.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let is_there = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender'";
    eventually("the walsender", SOON, || {
        (idle.query(is_there, &[]).unwrap().len() == 1).then_some(())
    });
    // A process that does not end keeps the server from its last checkpoint, and from ending the walsender.
    world.postgres.signal(pid as u32, libc::SIGSTOP);
    // SAFETY: a plain system call.
    assert_eq!(
        unsafe { libc::kill(world.postgres.pid() as i32, libc::SIGINT) },
        0
    );
    eventually("the worker to end", SOON, || {
        world.postgres.child("pg_redis_cache").is_none().then_some(())
    });
    assert!(has_marker(&world.redis));
    let done = world.postgres.data_dir().join("done");
    walsender.say("UPDATE doc SET version = version + 1 WHERE id = 2;");
    walsender.say(&format!("COPY (SELECT 1) TO '{}';", done.display()));
    eventually("the walsender to commit", SOON, || done.exists().then_some(()));
    plant(&world.redis);
    world.postgres.signal(pid as u32, libc::SIGCONT);
    world.postgres.stop(Shutdown::Fast);
    world.postgres.start_again();
    assert_purged(&world);
}

#[test]
fn a_prepared_transaction_leaves_no_marker() {
    let mut world = world_with(|world| world.conf("max_prepared_transactions", "2"));
    world.execute("BEGIN; UPDATE doc SET version = version + 1 WHERE id = 1; PREPARE TRANSACTION 't'");
    world.postgres.stop(Shutdown::Fast);
    assert!(!has_marker(&world.redis) && !marker_file(&world).exists());
    plant(&world.redis);
    world.postgres.start_again();
    settled(&world);
    world.execute("COMMIT PREPARED 't'");
    assert_purged(&world);
}

#[test]
fn a_list_that_was_changed_while_the_server_was_down() {
    let mut world = world();
    world.set_mappings(&format!(
        "{MAPPING}; d:{{id}} => SELECT version FROM doc WITH (name = d); e:{{id}} => SELECT version FROM doc WITH (name = e)"
    ));
    world.wait();
    world.execute("UPDATE doc SET version = version + 1");
    world.wait();
    world.postgres.stop(Shutdown::Fast);
    for key in [PLANTED, "d:987654", "e:987654"] {
        world.redis.cli(&["HSET", key, "version", "-1"]);
    }
    let list = format!("{MAPPING}; d:{{id}} => SELECT version, id FROM doc WITH (name = d)");
    world
        .postgres
        .append_conf(&format!("pg_redis_cache.mappings = '{list}'\n"));
    world.postgres.start_again();
    assert_kept(&world, 20);
    assert_eq!(world.redis.cli(&["EXISTS", "d:987654"]), "(integer) 0");
    world.assert_rows(&RowOracle::hash("d:{id}", "doc", &["version", "id"]));
    eventually("the mapping that is gone to be purged", SOON, || {
        let keys = world.redis.cli(&["--scan", "--pattern", "e:*"]);
        keys.is_empty().then_some(())
    });
    world.execute("UPDATE doc SET version = version + 1");
    assert_eq!(world.assert_rows(&oracle()).keys, 20);
}
