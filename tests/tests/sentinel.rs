//! A Redis that sentinels watch: the worker, the functions and foreign tables follow its master. A failover is an
//! unknown past: what the new master holds from before is purged.
//!
//! (Rules 5, 7 and 8 of docs/ARCHITECTURE.md are what would fail here.)

use std::thread::sleep;
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{
    Authority, Load, Port, Redis, RedisSentinel, RowOracle, Secure, Trial, VersionOracle, World,
    WorldBuilder, eventually, literal, number, refusal, replace_server,
};
use postgres::{Client, error::SqlState};

const SOON: Duration = Duration::from_secs(60);

fn until_connected_to(world: &World, redis: &Redis) {
    world.wait_for_status(&format!("connected AND master = '127.0.0.1:{}'", redis.port()));
}

fn set_url(world: &World, url: &str) {
    world.postgres.set_conf("pg_redis_cache.url", url);
}

/// How often everything was purged because another server answered.
fn purges(world: &World) -> i64 {
    let sql = "SELECT coalesce(sum(count), 0)::bigint FROM redis_cache.purges WHERE reason = 'server'";
    number(&mut world.connect(), sql)
}

/// Waits until what is written now is in Redis, and says since when it was not.
fn until_fresh(world: &World, since: Instant, what: &str) {
    let mut client = world.connect();
    let fresh = eventually("a version that stays", SOON, || {
        let sql = "INSERT INTO doc (id, version) VALUES (1001, 1) ON CONFLICT (id) DO UPDATE \
                   SET version = doc.version + 1 RETURNING version::text";
        let version: String = client.query_one(sql, &[]).expect("a write works").get(0);
        client
            .query_one("SELECT redis_cache.wait('1s')", &[])
            .expect("wait() can be called");
        let held = world.redis.cli(&["HGET", "doc:1001", "version"]);
        (held.trim_matches('"') == version).then_some(since.elapsed())
    });
    println!("{what}: fresh again after {:.1} s", fresh.as_secs_f64());
}

/// Waits until each replica has a hash's field with that value.
fn until_replicated(sentinel: &RedisSentinel, key: &str, field: &str, value: &str) {
    eventually("the replicas to be in step", SOON, || {
        let has = |replica: &Redis| replica.cli(&["HGET", key, field]).trim_matches('"') == value;
        sentinel.replicas.iter().all(has).then_some(())
    });
}

/// A load on a watched Redis, with an oracle at each server.
struct Scene {
    trial: Trial,
    sentinel: RedisSentinel,
    oracles: Vec<(u16, VersionOracle)>,
}

impl Scene {
    fn begin() -> Scene {
        Scene::begin_with(|world| world)
    }

    fn begin_with(settings: impl FnOnce(WorldBuilder) -> WorldBuilder) -> Scene {
        let (world, shape) = (
            Trial::world(|world| settings(world.redis_args(&["--requirepass", "friends"]))),
            Trial::shape(),
        );
        let sentinel = RedisSentinel::of(&world);
        let load = Load::start(&world, shape);
        load.goes_on(50);
        let trial = Trial { world, shape, load };
        let keys: Vec<String> = (1..=shape.keys)
            .flat_map(|id| [format!("doc:{id}"), format!("gone:{id}")])
            .collect();
        let watch = |redis: &Redis| (redis.port(), VersionOracle::watch(redis, keys.iter().cloned()));
        let all = std::iter::once(&trial.world.redis).chain(&sentinel.replicas);
        let oracles = all.map(watch).collect();
        Scene {
            trial,
            sentinel,
            oracles,
        }
    }

    /// Waits until the worker has followed to another master, and writes there; then all must be as it should.
    fn follow(&mut self, since: Instant, what: &str) {
        let before = self.trial.world.redis.port();
        self.sentinel.follow(&mut self.trial.world.redis);
        until_connected_to(&self.trial.world, &self.trial.world.redis);
        assert_ne!(self.trial.world.redis.port(), before);
        until_fresh(&self.trial.world, since, what);
        self.trial.load.goes_on(50);
    }

    /// Ends the load. The oracles of the servers that have been masters, and not copied another's data since, must have
    /// held.
    fn end(self, masters: &[u16]) -> (World, RedisSentinel) {
        let world = self.trial.end();
        for (port, oracle) in self.oracles {
            let watched = oracle.stop();
            if masters.contains(&port) {
                assert!(watched.violations.is_empty(), "{port}: {:#?}", watched.violations);
                assert!(
                    watched.advances > 0,
                    "{port}: no key was seen to change: {watched:?}"
                );
            }
        }
        (world, self.sentinel)
    }
}

#[test]
fn the_master_is_killed_while_it_is_written_to() {
    let mut scene = Scene::begin();
    let (old, before) = (scene.trial.world.redis.port(), purges(&scene.trial.world));
    let killed = Instant::now();
    scene.trial.world.redis.kill();
    scene.follow(killed, "the master was killed");
    let new = scene.trial.world.redis.port();
    assert!(purges(&scene.trial.world) > before, "nothing was purged");
    // The old one comes back empty, and is made a replica.
    let old_place = scene
        .sentinel
        .replicas
        .iter()
        .position(|redis| redis.port() == old);
    scene.sentinel.replicas[old_place.expect("it is among them")].start_again();
    scene.trial.load.goes_on(50);
    let (world, _sentinel) = scene.end(&[new]);
    until_connected_to(&world, &world.redis);
    let log = world.postgres.log();
    assert!(log.contains(&format!("master 127.0.0.1:{new}")), "{log}");
}

#[test]
fn a_planned_failover_and_one_back() {
    let mut scene = Scene::begin();
    let first = scene.trial.world.redis.port();
    for round in 1..=2 {
        let before = purges(&scene.trial.world);
        let asked = Instant::now();
        scene.sentinel.fail_over();
        scene.follow(asked, &format!("planned failover {round}"));
        assert!(purges(&scene.trial.world) > before, "nothing was purged");
        assert_ne!(scene.trial.world.redis.port(), first, "it was given to another");
        // Until the replicas are in step no other is taken.
        if round == 1 {
            scene.sentinel.await_ready();
            let replica = &scene.sentinel.replicas;
            // The one that was the master first is left out, so that the third one takes over.
            let old = replica.iter().find(|redis| redis.port() == first);
            let priority = ["CONFIG", "SET", "replica-priority", "0"];
            assert_eq!(old.expect("it is a replica").cli(&priority), "OK");
            // Sentinels read it with INFO, every ten seconds.
            sleep(Duration::from_secs(11));
        }
    }
    let last = scene.trial.world.redis.port();
    scene.end(&[last]);
}

/// The old master goes on taking writes, which nobody will ever see again.
#[test]
fn a_master_that_is_cut_off_from_its_sentinels_alone_is_left() {
    // No connection is lost by chance: a new one would find the new master by itself.
    let mut scene = Scene::begin_with(|world| world.conf("pg_redis_cache.command_timeout", "10s"));
    let world = &scene.trial.world;
    let old = world.redis.port();
    world.execute("INSERT INTO doc (id, version) VALUES (2001, 1), (2002, 1)");
    world.execute("UPDATE doc SET version = 2 WHERE id IN (2001, 2002)");
    world.wait();
    until_replicated(&scene.sentinel, "doc:2001", "version", "2");
    until_replicated(&scene.sentinel, "doc:2002", "version", "2");
    // Time enough for what the old one is to acknowledge.
    let set = ["SENTINEL", "SET", "main", "down-after-milliseconds", "8000"];
    let answers = scene.sentinel.cli(&set);
    assert!(answers.iter().all(|answer| answer == "OK"), "{answers:?}");
    scene.sentinel.cut_off(&world.redis);
    let cut_off = Instant::now();
    // The old master acknowledges these, and no replica hears of them.
    world.execute("UPDATE doc SET version = 3 WHERE id = 2001; DELETE FROM doc WHERE id = 2002");
    world.wait();
    for replica in &scene.sentinel.replicas {
        assert_eq!(replica.cli(&["HGET", "doc:2001", "version"]), "\"2\"");
        assert_eq!(replica.cli(&["EXISTS", "doc:2002"]), "(integer) 1");
    }
    scene.follow(cut_off, "the master was cut off from its sentinels");
    let world = &scene.trial.world;
    assert_eq!(world.redis.cli(&["EXISTS", "doc:2002"]), "(integer) 0");
    let held = world.redis.cli(&["HGET", "doc:2001", "version"]);
    assert!(["\"3\"", "(nil)"].contains(&held.as_str()), "{held}");
    // Nothing goes to the old one any more.
    let left = scene.sentinel.replicas.iter().find(|redis| redis.port() == old);
    let left = left.expect("it is among them");
    assert!(left.cli(&["ROLE"]).contains("\"master\""), "it was told");
    assert!(!left.cli(&["CLIENT", "LIST"]).contains("name=pg_redis_cache"));
    scene.sentinel.let_in(left);
    let new = world.redis.port();
    scene.trial.load.goes_on(50);
    scene.end(&[new]);
}

/// It stands still for so long that another takes over, with commands of ours that it has read.
#[test]
fn a_frozen_master_is_left_and_wakes_up_as_nobody() {
    let mut scene = Scene::begin();
    let frozen = Instant::now();
    scene.trial.world.redis.freeze();
    scene.follow(frozen, "the master was frozen");
    let new = scene.trial.world.redis.port();
    for replica in &scene.sentinel.replicas {
        replica.thaw();
    }
    scene.trial.load.goes_on(100);
    scene.end(&[new]);
}

#[test]
fn nothing_changes_while_the_sentinels_are_away() {
    let mut scene = Scene::begin();
    let (port, before) = (scene.trial.world.redis.port(), purges(&scene.trial.world));
    let mut sentinel = scene.sentinel;
    sentinel.freeze_sentinel(0);
    for number in 1..3 {
        sentinel.kill_sentinel(number);
    }
    // Longer than the watch takes to ask all of them, twice.
    sleep(Duration::from_secs(4));
    scene.trial.load.goes_on(100);
    until_connected_to(&scene.trial.world, &scene.trial.world.redis);
    assert_eq!(purges(&scene.trial.world), before);
    // A connection that is lost is replaced, for it is the same process.
    sentinel.kill_sentinel(0);
    let clients = || scene.trial.world.redis.cli(&["CLIENT", "LIST"]);
    let killed = scene.trial.world.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert!(killed.starts_with("(integer)"), "{killed}");
    eventually("all connections again", SOON, || {
        (clients().matches("name=pg_redis_cache").count() == 5).then_some(())
    });
    scene.trial.load.goes_on(50);
    until_connected_to(&scene.trial.world, &scene.trial.world.redis);
    assert_eq!(purges(&scene.trial.world), before);
    // Another process has to wait for a sentinel.
    scene.trial.world.redis.kill();
    scene.trial.world.redis.start_again();
    sentinel.let_in(&scene.trial.world.redis);
    scene.trial.world.wait_for_status("NOT connected AND last_error ~ '^refused: no sentinel names the master of main: 127.*\\(redis-sentinel:'",
    );
    scene.trial.load.goes_on(50);
    for number in 0..3 {
        sentinel.start_sentinel_again(number);
    }
    until_connected_to(&scene.trial.world, &scene.trial.world.redis);
    assert_eq!(scene.trial.world.redis.port(), port);
    assert!(purges(&scene.trial.world) > before, "nothing was purged");
    let scene = Scene { sentinel, ..scene };
    scene.end(&[port]);
}

/// State and DETAIL of the statement's error.
fn refused(client: &mut Client, sql: &str) -> (SqlState, String) {
    let error = refusal(client, sql);
    (
        error.code().clone(),
        error.detail().unwrap_or_default().to_owned(),
    )
}

fn world() -> World {
    let world = World::builder()
        .conf("pg_redis_cache.connect_timeout", "900ms")
        .start();
    world.execute("CREATE TABLE t (id int PRIMARY KEY, v text)");
    world.set_mappings("t:{id} => SELECT v FROM t WITH (insert = set)");
    world.wait();
    world
}

/// A server `r` at that address, with a hash `h`.
fn serve(world: &World, url: &str) -> Client {
    let mut client = world.connect();
    let table = "CREATE FOREIGN TABLE h (field text, value text) SERVER r OPTIONS (table_type 'hash', table_key_prefix 'h')";
    replace_server(&mut client, &format!("url {}", literal(url)), table);
    client
}

#[test]
fn what_sentinels_do_not_know_is_told() {
    let world = world();
    let sentinel = RedisSentinel::of(&world);
    let get = "SELECT redis_cache.get('t', '1')";

    let unknown = sentinel.url_with("", "other");
    set_url(&world, &unknown);
    world.wait_for_status("NOT connected AND last_error ~ '^rejected: no sentinel names the master of other: .*: it does not know the service \\('",
    );
    for sql in [get, "SELECT * FROM h"] {
        let (_, detail) = refused(&mut serve(&world, &unknown), sql);
        assert!(detail.contains("does not know the service"), "{detail}");
    }

    // The password is Redis's, and nothing that has it shows it.
    set_url(&world, &sentinel.url_with("cache:hunter2@", "main"));
    let place = format!("main/0, master 127.0.0.1:{})", world.redis.port());
    world.wait_for_status(&format!(
        "NOT connected AND last_error LIKE 'auth: WRONGPASS %cache:***@%{place}' AND url LIKE '%cache:***@%'"
    ));
    for sql in [get, "SELECT * FROM h"] {
        let mut client = serve(&world, &sentinel.url_with("cache:hunter2@", "main"));
        let (state, detail) = refused(&mut client, sql);
        assert_eq!(state, SqlState::INVALID_AUTHORIZATION_SPECIFICATION, "{detail}");
    }

    // Of sentinels of which the first two are none the third is asked.
    let (nobody, silent) = (Port::claim(), Redis::start());
    silent.freeze();
    let places = format!(
        "127.0.0.1:{},127.0.0.1:{},{}",
        nobody.number,
        silent.port(),
        sentinel.places()
    );
    let url = format!("redis-sentinel://{places}/main");
    set_url(&world, &url);
    until_connected_to(&world, &world.redis);
    world.wait();
    world.execute("INSERT INTO t VALUES (1, 'v')");
    world.assert_rows(&RowOracle::hash("t:{id}", "t", &["v"]));
    assert_eq!(
        number(
            &mut world.connect(),
            "SELECT (redis_cache.get('t', '1')->>'v' = 'v')::int::bigint"
        ),
        1
    );
    let mut client = serve(&world, &url);
    client.batch_execute("INSERT INTO h VALUES ('a', 'b')").unwrap();
    assert_eq!(world.redis.cli(&["HGET", "h", "a"]), "\"b\"");
    let log = world.postgres.log();
    assert!(!log.contains("hunter2"), "a password is in the log");
}

#[test]
fn sentinels_that_want_a_password_get_that_of_redis() {
    let world = world();
    let sentinel = RedisSentinel::of(&world);
    let lock = ["ACL", "SETUSER", "default", "resetpass", ">s3cret"];
    let url = |password: &str| sentinel.url_with(&format!(":{password}@"), "main");
    assert_eq!(world.redis.cli(&lock), "OK");
    assert_eq!(sentinel.cli(&lock), ["OK"; 3]);
    let (state, detail) = refused(&mut serve(&world, &sentinel.url()), "SELECT * FROM h");
    assert_eq!(state, SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    assert!(detail.contains("NOAUTH"), "{detail}");
    set_url(&world, &url("wrong"));
    world.wait_for_status("NOT connected AND last_error LIKE 'auth: no sentinel names %WRONGPASS%'");
    let (state, detail) = refused(&mut serve(&world, &url("wrong")), "SELECT * FROM h");
    assert_eq!(state, SqlState::INVALID_AUTHORIZATION_SPECIFICATION, "{detail}");
    set_url(&world, &url("s3cret"));
    until_connected_to(&world, &world.redis);
    let mut client = serve(&world, &url("s3cret"));
    client.batch_execute("INSERT INTO h VALUES ('a', 'b')").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM h WHERE value = 'b'"), 1);
}

#[test]
fn tls_is_spoken_to_sentinels_and_to_redis() {
    let secure = Secure::new();
    let paper = secure.server();
    let args = secure.args(&paper, "no");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let trust = |authority: &Authority| authority.certificate().display().to_string();
    let world = World::builder()
        .redis_args(&args)
        .conf("pg_redis_cache.connect_timeout", "1s")
        .conf("pg_redis_cache.tls_ca_file", &trust(&secure.authority))
        .start();
    world.execute("CREATE TABLE t (id int PRIMARY KEY, v text)");
    let sentinel = RedisSentinel::over_tls(&secure, &paper);
    set_url(&world, &sentinel.url());
    world.wait_for_status(&format!(
        "connected AND master = '127.0.0.1:{}'",
        secure.port.number
    ));
    world.set_mappings("t:{id} => SELECT v FROM t WITH (insert = set)");
    world.wait();
    world.execute("INSERT INTO t VALUES (1, 'v')");
    assert_eq!(world.assert_rows(&RowOracle::hash("t:{id}", "t", &["v"])).keys, 1);
    let mut client = serve(&world, &sentinel.url());
    client
        .batch_execute("SELECT redis_cache.get('t', '1'); INSERT INTO h VALUES ('a', 'b')")
        .expect("both find the master");
    assert_eq!(world.redis.cli(&["HGET", "h", "a"]), "\"b\"");
    // Without TLS a sentinel's port says nothing.
    let plain = sentinel.url().replace("rediss-", "redis-");
    let (_, detail) = refused(&mut serve(&world, &plain), "SELECT * FROM h");
    assert!(detail.contains("no sentinel names the master"), "{detail}");

    let stranger = Authority::new("nobody");
    world
        .postgres
        .set_conf("pg_redis_cache.tls_ca_file", &trust(&stranger));
    world.wait_for_status(
        "NOT connected AND last_error LIKE 'TLS: no sentinel names the master of main: %certificate%'",
    );
    for sql in ["SELECT redis_cache.get('t', '1')", "SELECT * FROM h"] {
        let (state, detail) = refused(&mut serve(&world, &sentinel.url()), sql);
        assert_eq!(
            state,
            SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
            "{detail}"
        );
    }
}

#[test]
fn sessions_follow_from_one_statement_to_the_next() {
    let mut world = world();
    let mut sentinel = RedisSentinel::of(&world);
    let mut client = serve(&world, &sentinel.url());
    let mut reader = world.connect();
    reader
        .batch_execute(
            "CREATE FOREIGN TABLE cached (id int, v text) SERVER redis_cache OPTIONS (mapping 't')",
        )
        .unwrap();
    client
        .batch_execute("INSERT INTO t VALUES (1, 'one'); INSERT INTO h VALUES ('a', 'before')")
        .unwrap();
    world.wait();
    assert_eq!(number(&mut reader, "SELECT count(*) FROM cached"), 1);
    until_replicated(&sentinel, "h", "a", "before");

    sentinel.fail_over();
    sentinel.follow(&mut world.redis);
    until_connected_to(&world, &world.redis);
    // The old master takes writes until it is told; by then the sentinels have been asked again.
    eventually("the session to follow", SOON, || {
        let update = "UPDATE h SET value = 'after' WHERE field = 'a'";
        client.batch_execute(update).expect("one of the two takes it");
        (world.redis.cli(&["HGET", "h", "a"]) == "\"after\"").then_some(())
    });
    client.batch_execute("UPDATE t SET v = 'two'").unwrap();
    world.wait();
    let two = "SELECT count(*) FROM cached WHERE v = 'two'";
    eventually("the mapping's table to show the new master's", SOON, || {
        (number(&mut reader, two) == 1).then_some(())
    });

    // A master that has become a replica without closing the connection.
    let place = sentinel.master().to_string();
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM h WHERE value = 'after'"),
        1
    );
    for number in 0..3 {
        sentinel.kill_sentinel(number);
    }
    let other = sentinel.replicas[0].port().to_string();
    assert_eq!(world.redis.cli(&["REPLICAOF", "127.0.0.1", &other]), "OK");
    let (state, _) = refused(&mut client, "UPDATE h SET value = 'lost' WHERE field = 'a'");
    assert_eq!(state, SqlState::READ_ONLY_SQL_TRANSACTION);
    // The connection is not used again, and there is no sentinel for another.
    let (state, detail) = refused(&mut client, "SELECT * FROM h");
    assert_eq!(state, SqlState::FDW_UNABLE_TO_ESTABLISH_CONNECTION, "{detail}");
    assert!(detail.contains("no sentinel names the master"), "{detail}");
    assert_eq!(world.redis.port().to_string(), place);
    for number in 0..3 {
        sentinel.start_sentinel_again(number);
    }
    // What they name is a replica.
    let (state, detail) = refused(&mut client, "SELECT * FROM h");
    assert_eq!(state, SqlState::READ_ONLY_SQL_TRANSACTION, "{detail}");
    assert!(detail.contains("replica"), "{detail}");
    assert_eq!(world.redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    eventually("a master again", SOON, || {
        client
            .batch_execute("UPDATE h SET value = 'last' WHERE field = 'a'")
            .ok()
    });
}

#[test]
fn a_write_whose_master_dies_has_an_unknown_fate() {
    let mut world = world();
    let mut sentinel = RedisSentinel::of(&world);
    let mut client = serve(&world, &sentinel.url());
    client
        .batch_execute("INSERT INTO h VALUES ('a', 'before')")
        .unwrap();
    until_replicated(&sentinel, "h", "a", "before");
    world.redis.freeze();
    let error = client.batch_execute("UPDATE h SET value = 'new' WHERE field = 'a'");
    let error = error.expect_err("nobody answers");
    let error = error.as_db_error().expect("the server says so");
    assert_eq!(error.code(), &SqlState::CONNECTION_FAILURE);
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("may have been changed")),
        "{error:?}"
    );
    sentinel.follow(&mut world.redis);
    eventually("the new master to be found", SOON, || {
        client
            .batch_execute("UPDATE h SET value = 'newer' WHERE field = 'a'")
            .ok()
    });
    assert_eq!(world.redis.cli(&["HGET", "h", "a"]), "\"newer\"");
    for replica in &sentinel.replicas {
        replica.thaw();
    }
}
