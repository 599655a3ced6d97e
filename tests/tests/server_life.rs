//! The worker, a backend or the whole server ends in every way there is, and the configuration changes, while
//! writers and readers work. Afterwards each key equals its row.
//!
//! (Rules 7 to 9 of docs/ARCHITECTURE.md are what would fail here.)

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{
    Folder, Load, MAPPINGS, Redis, RowOracle, Shape, Shutdown, Trial, World, eventually,
};

const SOON: Duration = Duration::from_secs(20);

fn text(world: &World, sql: &str) -> String {
    let row = world.connect().query_one(sql, &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
}

/// A key of mapping `doc` that no row has: only a purge takes it away.
fn plant(redis: &Redis) {
    redis.cli(&["HSET", "doc:987654", "version", "1", "doomed", "t"]);
}

fn until_purged(redis: &Redis) {
    eventually("the planted key to be purged", SOON, || {
        (redis.cli(&["EXISTS", "doc:987654"]) == "(integer) 0").then_some(())
    });
}

#[test]
fn the_worker_is_terminated_and_starts_again() {
    let trial = Trial::begin(|world| world);
    let oracle = trial.watch();
    for _ in 0..3 {
        let pid = trial.world.worker_pid();
        // Not with pg_terminate_backend(): that knows only processes with a database.
        trial.world.postgres.signal(pid, libc::SIGTERM);
        eventually("another worker", SOON, || {
            (trial.world.worker_pid() != pid).then_some(())
        });
        trial.load.goes_on(30);
    }
    trial.end();
    oracle.assert_held();
}

#[test]
fn a_worker_that_starts_again_takes_up_nothing_that_is_not_reloaded() {
    let trial = Trial::begin(|world| world);
    let world = &trial.world;
    world
        .postgres
        .append_conf("pg_redis_cache.mappings = 'new:{id} => SELECT version FROM doc'\n");
    let pid = world.worker_pid();
    world.postgres.signal(pid, libc::SIGTERM);
    eventually("another worker", SOON, || {
        (world.worker_pid() != pid).then_some(())
    });
    trial.load.goes_on(40);
    let lists = "SELECT coalesce(sum(count), 0)::text FROM redis_cache.purges WHERE reason = 'list'";
    assert_eq!(text(world, lists), "0");
    world.postgres.reload();
    eventually("the new list", SOON, || {
        (text(
            world,
            "SELECT string_agg(key_template, ';') FROM redis_cache.mappings",
        ) == "new:{id}")
            .then_some(())
    });
    world.wait_until_active();
}

/// The state of the mapping of a table.
fn state(world: &World, table: &str) -> String {
    let sql = format!(
        "SELECT coalesce(min(state), '') FROM redis_cache.mappings WHERE relation = 'public.{table}'"
    );
    text(world, &sql)
}

#[test]
fn a_locked_table_stays_as_it_is_and_holds_no_other_up() {
    let world = World::builder().conf("lock_timeout", "100ms").start();
    world.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY)");
    world.set_mappings("a:{id} => SELECT * FROM a");
    let mut holder = world.connect();
    holder
        .batch_execute("BEGIN; LOCK a, b")
        .expect("nobody else has a lock");
    let list = "a:{id} => SELECT * FROM a; b:{id} => SELECT * FROM b; c:{id} => SELECT * FROM c";
    world.postgres.set_conf("pg_redis_cache.mappings", list);
    eventually("the table that is not locked", SOON, || {
        (state(&world, "c") == "active").then_some(())
    });
    assert_eq!(state(&world, "a"), "active");
    eventually("the resolver to have met the lock", SOON, || {
        let sql = "SELECT coalesce(min(problem), '') FROM redis_cache.mappings WHERE relation = 'public.b'";
        text(&world, sql).contains("lock timeout").then_some(())
    });
    assert_eq!(
        (state(&world, "a"), state(&world, "b")),
        ("active".into(), "pending".into())
    );
    holder.batch_execute("COMMIT").expect("the locks are released");
    world.wait_until_active();
}

/// Of two changes of the settings the worker may read both at the first reload, and the postmaster, whose children
/// resolvers are, the second a moment later.
#[test]
fn a_list_that_a_resolver_has_not_read_is_not_taken_for_a_database_that_cannot_be_opened() {
    let world = World::builder().conf("log_min_messages", "debug1").start();
    world.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)");
    let worker = world.worker_pid();
    world.postgres.signal(worker, libc::SIGSTOP);
    world.set_list("a:{id} => SELECT * FROM a");
    let second = "b:{id} => SELECT * FROM b";
    world
        .postgres
        .append_conf(&format!("pg_redis_cache.mappings = '{second}'\n"));
    world.postgres.signal(worker, libc::SIGCONT);
    eventually("a resolver to have come and gone", SOON, || {
        let started = "starting background worker process \"pg_redis_cache resolver\"";
        let log = world.postgres.log();
        (log.contains(started) && world.postgres.child("pg_redis_cache resolver").is_none()).then_some(())
    });
    world.set_list(second);
    world.wait_until_active();
    assert!(!world.postgres.log().contains("does not work"));
}

#[test]
fn the_worker_is_killed_and_the_server_recovers() {
    let trial = Trial::begin(|world| world);
    let pid = trial.world.worker_pid();
    plant(&trial.world.redis);
    trial.world.postgres.signal(pid, libc::SIGKILL);
    until_purged(&trial.world.redis);
    trial.end();
}

#[test]
fn a_backend_is_killed_and_everything_is_purged() {
    let trial = Trial::begin(|world| world);
    for _ in 0..2 {
        let mut victim = trial.world.connect();
        let pid: i32 = victim.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        // In a deadlock with the load's writers it is these that have to give way.
        victim
            .batch_execute(
                "BEGIN; SET LOCAL deadlock_timeout = '1h';
                 UPDATE doc SET version = version + 1000, doomed = true WHERE id = 1",
            )
            .unwrap();
        plant(&trial.world.redis);
        trial.world.postgres.signal(pid as u32, libc::SIGKILL);
        until_purged(&trial.world.redis);
        eventually("the server to have recovered", SOON, || {
            trial
                .world
                .postgres
                .config()
                .connect(postgres::NoTls)
                .ok()
                .map(drop)
        });
    }
    trial.end();
}

#[test]
fn the_server_is_restarted_in_each_way() {
    let mut trial = Trial::begin(|world| world);
    let oracle = trial.watch();
    for how in [Shutdown::Fast, Shutdown::Immediate, Shutdown::Fast] {
        trial.world.restart_postgres(how);
        trial.load.goes_on(60);
    }
    trial.end();
    oracle.assert_held();
}

#[test]
fn the_server_loses_its_power() {
    let mut trial = Trial::begin(|world| world);
    plant(&trial.world.redis);
    trial.world.postgres.crash();
    trial.world.postgres.start_again();
    until_purged(&trial.world.redis);
    trial.end();
}

#[test]
fn changes_made_without_the_library_are_found_out() {
    let mut world = Load::world(Shape::default(), |world| world);
    world.execute("UPDATE doc SET version = version + 1");
    world.wait();
    world.postgres.append_conf("shared_preload_libraries = ''\n");
    world.restart_postgres(Shutdown::Fast);
    world.execute("UPDATE doc SET version = version + 1; DELETE FROM doc WHERE id = 3");
    world
        .postgres
        .append_conf("shared_preload_libraries = 'pg_redis_cache'\n");
    world.restart_postgres(Shutdown::Fast);
    world.wait_until_active();
    Load::assert_all_rows(&world);
}

#[test]
fn a_fast_stop_does_not_wait_for_a_frozen_redis_for_long() {
    let mut trial = Trial::begin(|world| world.conf("pg_redis_cache.shutdown_timeout", "1s"));
    trial.world.redis.freeze();
    let start = Instant::now();
    trial.world.postgres.stop(Shutdown::Fast);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    trial.world.redis.thaw();
    trial.world.postgres.start_again();
    trial.end();
}

#[test]
fn a_fast_stop_does_not_wait_for_a_redis_that_is_gone() {
    let mut world = Load::world(Shape::default(), |world| world);
    world.redis.kill();
    world.execute("UPDATE doc SET version = version + 1");
    let start = Instant::now();
    world.postgres.stop(Shutdown::Fast);
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    world.postgres.start_again();
    world.redis.start_again();
    world.wait_until_active();
    Load::assert_all_rows(&world);
}

#[test]
fn a_smart_stop_ends_when_the_sessions_have_ended() {
    let mut world = Load::world(Shape::default(), |world| world);
    let mut last = world.connect();
    let writer = std::thread::spawn(move || {
        for _ in 0..50 {
            last.batch_execute("UPDATE doc SET version = version + 1 WHERE id < 20")
                .unwrap();
        }
    });
    world.postgres.stop(Shutdown::Smart);
    writer.join().unwrap();
    // What was committed was written before the end.
    let version = world.redis.cli(&["HGET", "doc:1", "version"]);
    assert_eq!(version, "\"1000050\"");
    world.postgres.start_again();
    world.wait_until_active();
    Load::assert_all_rows(&world);
}

#[test]
fn the_list_of_mappings_changes() {
    let trial = Trial::begin(|world| world);
    let changed = MAPPINGS.replace("format = json, insert = set", "format = hash");
    let lists = [
        changed.clone(),
        format!("{changed}; more:{{id}} => SELECT id, doomed FROM doc WITH (name = more, insert = set)"),
        "doc:{id} => SELECT version, doomed, body FROM doc WITH (ttl = 100)".to_owned(),
        String::new(),
        MAPPINGS.to_owned(),
        "doc:{id} => SELECT version, doomed FROM doc; d:{id} => SELECT version, doomed, body FROM doc WITH (name = d)"
            .to_owned(),
    ];
    for list in lists {
        trial.world.set_mappings(&list);
        trial.load.goes_on(40);
    }
    let world = trial.end();
    // What is no longer in the list has left nothing behind.
    for gone in ["gone:", "j:", "s:", "more:"] {
        eventually(
            "the keys of the mappings that are gone to be purged",
            SOON,
            || {
                let keys = world.redis.cli(&["--scan", "--pattern", &format!("{gone}*")]);
                keys.is_empty().then_some(())
            },
        );
    }
}

#[test]
fn a_key_belongs_to_another_mapping_after_a_reload() {
    let trial = Trial::begin(|world| world);
    trial.world.execute(
        "CREATE TABLE other (id int PRIMARY KEY, version bigint, doomed boolean); \
         INSERT INTO other SELECT i, -i, false FROM generate_series(1, 100) i",
    );
    for _ in 0..2 {
        trial
            .world
            .set_mappings("doc:{id} => SELECT version, doomed FROM other");
        trial.world.execute("UPDATE other SET version = version - 1");
        trial.load.goes_on(20);
        Load::assert_all_rows(&trial.world);
        trial
            .world
            .set_mappings("doc:{id} => SELECT version, doomed FROM doc");
        trial.load.goes_on(20);
    }
    trial.end();
}

#[test]
fn caching_is_turned_off_and_on_again() {
    let trial = Trial::begin(|world| world);
    for _ in 0..2 {
        plant(&trial.world.redis);
        trial.world.postgres.set_conf("pg_redis_cache.enabled", "off");
        trial.load.goes_on(50);
        trial.world.postgres.set_conf("pg_redis_cache.enabled", "on");
        until_purged(&trial.world.redis);
        trial.load.goes_on(50);
    }
    trial.end();
}

#[test]
fn while_caching_is_off_nothing_is_written() {
    let world = Load::world(Shape::default(), |world| world);
    world.postgres.set_conf("pg_redis_cache.enabled", "off");
    eventually("the setting to be read", SOON, || {
        (text(&world, "SHOW pg_redis_cache.enabled") == "off").then_some(())
    });
    eventually("the keys to be gone", SOON, || {
        world.execute("UPDATE doc SET version = version + 1; SELECT * FROM doc WHERE id = 1");
        let keys = world.redis.cli(&["--scan", "--pattern", "*:[0-9]*"]);
        keys.is_empty().then_some(())
    });
    world.execute("UPDATE doc SET version = version + 1; SELECT * FROM doc WHERE id = 1");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(world.redis.cli(&["--scan", "--pattern", "*:[0-9]*"]), "");
}

#[test]
fn a_session_that_does_not_fill_leaves_no_key() {
    let world = Load::world(Shape::default(), |world| world);
    let mut client = world.connect();
    client.batch_execute("SET pg_redis_cache.fill = off").unwrap();
    client.query("SELECT * FROM doc WHERE id = 5", &[]).unwrap();
    world.wait();
    assert_eq!(world.redis.cli(&["EXISTS", "doc:5"]), "(integer) 0");
    client.batch_execute("SET pg_redis_cache.fill = on").unwrap();
    client.query("SELECT * FROM doc WHERE id = 5", &[]).unwrap();
    world.wait();
    assert_eq!(world.redis.cli(&["EXISTS", "doc:5"]), "(integer) 1");
}

#[test]
fn redis_is_moved_and_moved_back() {
    let mut trial = Trial::begin(|world| world);
    let mut other = Redis::start();
    for _ in 0..3 {
        // Before the purge, which comes as soon as the worker is there.
        plant(&other);
        trial.world.postgres.set_conf("pg_redis_cache.url", &other.url());
        std::mem::swap(&mut trial.world.redis, &mut other);
        until_purged(&trial.world.redis);
        trial.load.goes_on(40);
    }
    trial.end();
}

#[test]
fn another_database_of_the_same_redis() {
    let trial = Trial::begin(|world| world);
    let url = trial.world.redis.url();
    for database in ["3", "0"] {
        let url = format!("{}{database}", url.trim_end_matches('0'));
        trial.world.postgres.set_conf("pg_redis_cache.url", &url);
        trial.load.goes_on(40);
    }
    trial.end();
}

#[test]
fn a_wrong_address_is_shown_masked_and_can_be_put_right() {
    let trial = Trial::begin(|world| world);
    let right = trial.world.redis.url();
    for wrong in [
        "redis://someone:se%20cret@127.0.0.1:1/0",
        "redis://:se%20cret@no-such-host.invalid:6379/0",
        "http://:se%20cret@127.0.0.1/",
        "redis://:se%20cret@127.0.0.1:99999/0",
    ] {
        let noted = text(
            &trial.world,
            "SELECT coalesce(last_error_at, '-infinity')::text FROM redis_cache.status",
        );
        trial.world.postgres.set_conf("pg_redis_cache.url", wrong);
        trial.world.wait_for_status(&format!("last_error_at > '{noted}'"));
        trial.load.goes_on(20);
        let shown = text(
            &trial.world,
            "SELECT concat(s.*) || current_setting('pg_redis_cache.url') || \
                 (SELECT string_agg(concat(p.*), '') FROM pg_settings p WHERE name ~ 'redis') \
                 FROM redis_cache.status s",
        );
        assert!(!shown.contains("cret"), "{shown}");
        trial.world.postgres.set_conf("pg_redis_cache.url", &right);
        trial.world.wait_for_status("connected");
        trial.load.goes_on(20);
    }
    let world = trial.end();
    assert!(!world.postgres.log().contains("cret"), "a password is in the log");
}

#[test]
fn a_password_that_is_wrong_and_then_right() {
    let trial = Trial::begin(|world| world);
    let mut admin = trial.world.redis();
    let mut run = |words: &[&str]| redis::cmd(words[0]).arg(&words[1..]).exec(&mut admin).unwrap();
    run(&["CONFIG", "SET", "requirepass", "right"]);
    run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    trial.world.wait_for_status("NOT connected");
    trial.load.goes_on(20);
    let place = trial.world.redis.url().replace("redis://", "");
    trial
        .world
        .postgres
        .set_conf("pg_redis_cache.url", &format!("redis://:wrong@{place}"));
    trial.world.wait_for_status("last_error ~* 'pass|auth'");
    trial
        .world
        .postgres
        .set_conf("pg_redis_cache.url", &format!("redis://:right@{place}"));
    trial.world.wait_for_status("connected");
    trial.load.goes_on(20);
    run(&["CONFIG", "SET", "requirepass", ""]);
    trial.end();
}

#[test]
fn a_password_file_that_others_can_read_is_refused_until_they_cannot() {
    let mut world = Load::world(Shape::default(), |world| {
        world.redis_args(&["--requirepass", "from-a-file"])
    });
    let folder = Folder::new();
    let file = folder.write("redis.password", "from-a-file\n", 0o644);
    let bare = format!("redis://127.0.0.1:{}/0", world.redis.port());
    world
        .postgres
        .append_conf(&format!("pg_redis_cache.url = '{bare}'\n"));
    world
        .postgres
        .append_conf(&format!("pg_redis_cache.password_file = '{}'\n", file.display()));
    world.restart_postgres(Shutdown::Fast);
    world.wait_for_status("last_error LIKE 'auth: the password_file % (redis://%)' AND NOT connected");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    // Without a reload: such a file may also be one that is there only later.
    world.wait_for_status("connected");
    world.wait_until_active();
    // First the purge of what may have been there before.
    world.wait();
    world.execute("UPDATE doc SET version = version + 1");
    let compared = world.assert_rows(&RowOracle::hash(
        "doc:{id}",
        "doc",
        &["version", "doomed", "body"],
    ));
    assert_eq!(compared.keys, 60);
    assert!(!world.postgres.log().contains("from-a-file"));
}
