//! The harness itself: servers start, stop, crash and come back, and the oracles see what is wrong.

use std::process::Command;
use std::time::Duration;

use pg_redis_cache_tests::{
    Format, Postgres, Redis, RowOracle, Shutdown, VersionOracle, World, eventually, literal,
};

fn one(client: &mut postgres::Client, sql: &str) -> String {
    client
        .query_one(sql, &[])
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
        .get(0)
}

#[test]
fn a_server_starts_with_the_library_preloaded_and_no_mapping() {
    let world = World::builder().start();
    let mut client = world.connect();
    assert_eq!(
        one(&mut client, "SHOW shared_preload_libraries"),
        "pg_redis_cache"
    );
    assert_eq!(
        one(
            &mut client,
            "SELECT extname::text FROM pg_extension WHERE extname ~ 'redis'"
        ),
        "pg_redis_cache"
    );
    assert_eq!(one(&mut client, "SELECT (6 * 7)::text"), "42");
}

#[test]
fn two_worlds_live_beside_each_other() {
    let (a, b) = (World::builder().start(), World::builder().start());
    a.execute("CREATE TABLE only_in_a ()");
    assert_eq!(
        one(
            &mut b.connect(),
            "SELECT count(*)::text FROM pg_class WHERE relname = 'only_in_a'"
        ),
        "0"
    );
    assert_ne!(a.redis.port(), b.redis.port());
    redis::cmd("SET").arg("k").arg("a").exec(&mut a.redis()).unwrap();
    assert_eq!(b.redis.cli(&["EXISTS", "k"]), "(integer) 0");
}

#[test]
fn a_server_is_stopped_in_each_way_and_started_again() {
    let mut server = Postgres::start();
    server.connect().batch_execute("CREATE TABLE t (i int)").unwrap();
    for how in [Shutdown::Smart, Shutdown::Fast, Shutdown::Immediate] {
        server
            .connect()
            .batch_execute("INSERT INTO t VALUES (1)")
            .unwrap();
        server.restart(how);
    }
    assert_eq!(server.psql("SELECT count(*) FROM t"), "3\n");
}

#[test]
fn a_crashed_server_recovers() {
    let mut server = Postgres::start();
    server
        .connect()
        .batch_execute("CREATE TABLE t AS SELECT 7 AS i")
        .unwrap();
    server.crash();
    assert!(!server.is_running());
    server.start_again();
    assert_eq!(server.psql("SELECT i FROM t"), "7\n");
    assert!(server.log().contains("was not properly shut down"));
}

#[test]
fn settings_can_be_changed_while_the_server_runs() {
    let server = Postgres::builder().conf("work_mem", "5MB").start();
    let mut client = server.connect();
    assert_eq!(one(&mut client, "SHOW work_mem"), "5MB");
    server.set_conf("work_mem", "6MB");
    eventually("the new value", Duration::from_secs(10), || {
        (one(&mut client, "SHOW work_mem") == "6MB").then_some(())
    });
}

#[test]
fn a_server_with_a_wrong_setting_gives_its_log() {
    let log = Postgres::builder()
        .conf("shared_buffers", "a lot")
        .try_start()
        .unwrap_err();
    assert!(log.contains("shared_buffers"), "{log}");
}

#[test]
fn redis_comes_back_on_the_same_port_after_each_kind_of_end() {
    let mut redis = Redis::start();
    let port = redis.port();
    let set = |redis: &Redis| {
        redis::cmd("SET")
            .arg("k")
            .arg("v")
            .exec(&mut redis.connection())
            .unwrap()
    };
    set(&redis);
    redis.kill();
    redis.start_again();
    assert_eq!(redis.cli(&["EXISTS", "k"]), "(integer) 0");
    set(&redis);
    redis.stop();
    redis.start_again();
    assert_eq!(redis.port(), port);
    assert_eq!(redis.cli(&["GET", "k"]), "(nil)");
}

#[test]
fn a_frozen_redis_answers_when_it_is_thawed() {
    let redis = Redis::start();
    let mut connection = redis.connection();
    connection
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    redis.freeze();
    redis::cmd("PING").query::<String>(&mut connection).unwrap_err();
    redis.thaw();
    assert_eq!(redis.cli(&["PING"]), "PONG");
}

#[test]
fn a_password_is_used_by_the_harness_too() {
    let redis = Redis::start_with(&["--requirepass", "secret"]);
    assert_eq!(
        redis.url(),
        format!("redis://:secret@127.0.0.1:{}/0", redis.port())
    );
    assert_eq!(redis.cli(&["PING"]), "PONG");
}

#[test]
fn the_row_oracle_finds_what_differs_and_what_has_no_row() {
    let (server, redis) = (Postgres::start(), Redis::start());
    let mut client = server.connect();
    client
        .batch_execute("CREATE TABLE u (id int, ok bool, t text); INSERT INTO u SELECT i, true, 'x' FROM generate_series(1, 5) i; UPDATE u SET t = NULL WHERE id = 5")
        .unwrap();
    let mut connection = redis.connection();
    for (key, text) in [("u:1", "x"), ("u:2", "y"), ("u:5", ""), ("u:6", "x")] {
        redis::cmd("HSET")
            .arg(key)
            .arg(&["ok", "t", "t", text])
            .exec(&mut connection)
            .unwrap();
    }
    let comparison =
        RowOracle::hash("u:{id}", "public.u", &["ok", "t"]).compare(&mut client, &mut connection);
    assert_eq!((comparison.keys, comparison.rows), (4, 5));
    let wrong: Vec<&str> = comparison.differences.iter().map(|d| d.key.as_str()).collect();
    assert_eq!(wrong, ["u:2", "u:5", "u:6"]);
    assert_eq!(comparison.differences[2].in_postgres, None);
}

#[test]
fn the_row_oracle_compares_strings_and_json() {
    let (server, redis) = (Postgres::start(), Redis::start());
    let mut client = server.connect();
    client
        .batch_execute(
            "CREATE TABLE s (a text, b int, v numeric); INSERT INTO s VALUES ('x', 1, 1.50), ('x', 2, NULL)",
        )
        .unwrap();
    let mut connection = redis.connection();
    let mut set = |key: &str, value: &str| {
        redis::cmd("SET")
            .arg(key)
            .arg(value)
            .exec(&mut connection)
            .unwrap()
    };
    set("s:x/1", "1.50");
    set("s:x/2", "");
    set("j:1", "{\"v\": 1.50, \"a\": \"x\"}");
    set("j:2", "{\"a\":\"x\",\"v\":0}");
    let strings =
        RowOracle::new("s:{a}/{b}", "s", &["v"], Format::String).compare(&mut client, &mut connection);
    assert_eq!(
        strings
            .differences
            .iter()
            .map(|d| d.key.as_str())
            .collect::<Vec<_>>(),
        ["s:x/2"]
    );
    let json = RowOracle::new("j:{b}", "s", &["a", "v"], Format::Json).compare(&mut client, &mut connection);
    assert_eq!(
        json.differences
            .iter()
            .map(|d| d.key.as_str())
            .collect::<Vec<_>>(),
        ["j:2"]
    );
}

#[test]
fn the_row_oracle_allows_no_key_that_two_rows_share() {
    let (server, redis) = (Postgres::start(), Redis::start());
    let mut client = server.connect();
    client
        .batch_execute("CREATE TABLE p (a text, b text); INSERT INTO p VALUES ('x:y', 'z'), ('x', 'y:z')")
        .unwrap();
    let mut connection = redis.connection();
    let oracle = RowOracle::hash("p:{a}:{b}", "p", &["b"]);
    assert_eq!(oracle.compare(&mut client, &mut connection).differences, []);
    redis::cmd("HSET")
        .arg("p:x:y:z")
        .arg(&["b", "z"])
        .exec(&mut connection)
        .unwrap();
    assert_eq!(oracle.compare(&mut client, &mut connection).differences.len(), 1);
}

#[test]
fn the_version_oracle_sees_a_step_back_and_what_was_rolled_back() {
    let redis = Redis::start();
    let mut connection = redis.connection();
    let oracle = VersionOracle::watch(&redis, (1..=2).map(|i| format!("v:{i}")));
    let mut show = |key: &str, version: &str, doomed: &str| {
        redis::cmd("HSET")
            .arg(key)
            .arg(&["version", version, "doomed", doomed])
            .exec(&mut connection)
            .unwrap();
        std::thread::sleep(Duration::from_millis(100));
    };
    show("v:1", "5", "f");
    show("v:1", "4", "f");
    show("v:1", "6", "f");
    show("v:2", "1", "t");
    let mut violations = oracle.stop().violations;
    violations.dedup();
    let expected = [
        "v:1 went back from version 5 to 4",
        "v:2 shows version 1, which was rolled back",
    ]
    .map(str::to_owned);
    violations.sort();
    violations.dedup();
    assert_eq!(violations, expected);
}

/// Two masters that know nothing of each other, as a lost one and the one that has taken over.
#[test]
fn the_version_oracle_sees_a_step_back_from_one_server_to_the_next_unless_it_is_excused() {
    let (lost, next) = (Redis::start(), Redis::start());
    let show = |redis: &Redis, key: &str, version: &str| {
        let fields = ["version", version, "doomed", "f"];
        redis::cmd("HSET")
            .arg(key)
            .arg(&fields)
            .exec(&mut redis.connection())
            .unwrap();
        std::thread::sleep(Duration::from_millis(100));
    };
    let keys = ["excused", "judged"].map(str::to_owned);
    let oracle = VersionOracle::watch_all([&lost, &next], keys);
    show(&lost, "excused", "5");
    show(&lost, "judged", "7");
    oracle.excuse();
    show(&next, "excused", "3");
    show(&next, "excused", "5");
    oracle.excuse_no_more();
    // What the lost one has shown before counts again.
    show(&next, "judged", "6");
    // A replica is not asked, and what it has copied does not count as its own.
    let port = next.port().to_string();
    assert_eq!(lost.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    eventually("a replica in step", Duration::from_secs(20), || {
        (lost.cli(&["HGET", "judged", "version"]) == "\"6\"").then_some(())
    });
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(lost.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    std::thread::sleep(Duration::from_millis(100));
    let mut watched = oracle.stop();
    watched.across.dedup();
    assert_eq!(watched.across, ["judged went back from version 7 to 6"]);
    assert_eq!(watched.violations, [""; 0]);
}

#[test]
fn the_version_oracle_survives_a_redis_that_was_killed() {
    let mut redis = Redis::start();
    let oracle = VersionOracle::watch(&redis, ["v".to_owned()]);
    let show = |redis: &Redis, version: &str| {
        let fields = ["version", version, "doomed", "f"];
        redis::cmd("HSET")
            .arg("v")
            .arg(&fields)
            .exec(&mut redis.connection())
            .unwrap();
        std::thread::sleep(Duration::from_millis(100));
    };
    show(&redis, "1");
    redis.kill();
    redis.start_again();
    show(&redis, "2");
    assert_eq!(oracle.assert_held().advances, 2);
}

#[test]
fn redis_is_the_one_that_was_asked_for() {
    let program = std::env::var_os("PG_REDIS_CACHE_REDIS").unwrap_or_else(|| "redis-server".into());
    let printed = Command::new(program)
        .arg("--version")
        .output()
        .expect("the program can be run");
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    let (brand, rest) = printed.split_once(" server v=").expect("brand and version");
    let version = rest.split(' ').next().expect("split gives one part at least");
    let world = World::builder().start();
    let mut client = world.connect();
    let connected_to = eventually("the worker to be connected", Duration::from_secs(20), || {
        let row = client.query_one("SELECT server_version FROM redis_cache.status", &[]);
        row.expect("the view can be read").get::<_, Option<String>>(0)
    });
    assert_eq!(connected_to, format!("{brand} {version}"));
}

#[test]
fn a_literal_is_quoted() {
    let server = Postgres::start();
    assert_eq!(server.psql(&format!("SELECT {}", literal("it's"))), "it's\n");
}
