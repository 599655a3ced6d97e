//! How the worker and foreign tables keep their connections, what the view `connections` tells of them, and the log
//! line of a slow batch. A connection is replaced or given up without a key going back, or any word of trouble.

use std::collections::BTreeSet;
use std::time::Duration;

use pg_redis_cache_tests::{Trial, World, eventually, literal};
use postgres::Client;

const SOON: Duration = Duration::from_secs(20);
/// More than SOON: attempts that are one second apart on the average.
const MANY: i64 = 60;

/// `id=` of the connections whose name has this in it, as Redis tells them.
fn clients(world: &World, name: &str) -> BTreeSet<i64> {
    let list = world.redis.cli(&["CLIENT", "LIST"]);
    let lines = list.split("id=").filter(|line| line.contains(name));
    let id = |line: &str| line.split(' ').next()?.parse().ok();
    lines.filter_map(id).collect()
}

fn mapped(settings: &[(&str, &str)]) -> World {
    let mut builder = World::builder();
    for (name, value) in settings {
        builder = builder.conf(&format!("pg_redis_cache.{name}"), value);
    }
    let world = builder.start();
    world.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 200) i");
    world.set_mappings("t:{id} => SELECT v FROM t WITH (insert = set)");
    world.wait();
    world
}

/// One value of one row.
fn one<T: for<'a> postgres::types::FromSql<'a>>(client: &mut Client, sql: &str) -> T {
    client
        .query_one(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        .get(0)
}

fn until(world: &World, sql: &str) {
    let mut client = world.connect();
    eventually(sql, SOON, || {
        one::<Option<bool>>(&mut client, sql).filter(|is_so| *is_so)
    });
}

fn log_lines(world: &World, words: &str) -> Vec<String> {
    let log = world.postgres.log();
    log.lines()
        .filter(|line| line.contains(words))
        .map(str::to_owned)
        .collect()
}

#[test]
fn connections_are_replaced_under_load_without_a_word() {
    let trial = Trial::begin(|world| {
        // However slow the machine is, only what has lived for long enough ends.
        world
            .conf("pg_redis_cache.pool_max_lifetime", "300ms")
            .conf("pg_redis_cache.command_timeout", "1min")
            .conf("pg_redis_cache.connect_timeout", "1min")
    });
    let oracle = trial.watch();
    let (mut lanes, mut controls) = (BTreeSet::new(), BTreeSet::new());
    eventually("many connections", 3 * SOON, || {
        lanes.extend(clients(&trial.world, " lane-"));
        lanes.extend(clients(&trial.world, ":lane-"));
        controls.extend(clients(&trial.world, "control"));
        (lanes.len() >= 20 && controls.len() >= 4).then_some(())
    });
    let world = trial.end();
    oracle.assert_held();
    let mut client = world.connect();
    let trouble = "SELECT reconnects || ' ' || coalesce(last_error, 'none') FROM redis_cache.status";
    assert_eq!(one::<String>(&mut client, trouble), "0 none");
    let errors = "SELECT count(*) FROM redis_cache.connections WHERE errors <> '{}'";
    assert_eq!(one::<i64>(&mut client, errors), 0);
    // A reload ends it, and costs none.
    world.postgres.set_conf("pg_redis_cache.pool_max_lifetime", "0");
    let kept = eventually("connections that stay", SOON, || {
        let before = clients(&world, "lane-");
        std::thread::sleep(Duration::from_millis(700));
        (before.len() == 4 && clients(&world, "lane-") == before).then_some(before)
    });
    world
        .postgres
        .set_conf("pg_redis_cache.log_min_push_duration", "1min");
    until(
        &world,
        "SELECT setting = '60000' FROM pg_settings WHERE name = 'pg_redis_cache.log_min_push_duration'",
    );
    world.execute("UPDATE doc SET version = version + 1");
    world.wait();
    assert_eq!(clients(&world, "lane-"), kept);
}

#[test]
fn lanes_without_work_give_their_connections_up() {
    let world = mapped(&[("pool_idle_timeout", "100ms")]);
    let rest = "SELECT bool_and(state = CASE role WHEN 'control' THEN 'connected' ELSE 'idle' END) \
                    AND count(*) = 5 AND count(client_id) = 1 FROM redis_cache.connections";
    let whole = "connected AND pool_size = 1 AND pool_waiting = 0 AND last_error IS NULL";
    until(&world, rest);
    world.wait_for_status(whole);
    assert_eq!(clients(&world, "lane-").len(), 0);
    let oracle = pg_redis_cache_tests::RowOracle::hash("t:{id}", "t", &["v"]);
    for round in 0..3 {
        world.execute(&format!("UPDATE t SET v = '{round}'"));
        assert_eq!(world.assert_rows(&oracle).keys, 200);
        until(&world, rest);
        world.wait_for_status(whole);
    }
    world.postgres.set_conf("pg_redis_cache.pool_idle_timeout", "0");
    until(
        &world,
        "SELECT current_setting('pg_redis_cache.pool_idle_timeout') = '0'",
    );
    world.execute("UPDATE t SET v = 'kept'");
    until(
        &world,
        "SELECT bool_and(state = 'connected') FROM redis_cache.connections",
    );
}

#[test]
fn a_short_backoff_tries_often() {
    let mut world = mapped(&[("reconnect_backoff_max", "50ms")]);
    world.redis.kill();
    let refused = "SELECT coalesce((errors->>'refused')::bigint, 0) FROM redis_cache.connections WHERE role = 'control'";
    let mut client = world.connect();
    // With the five seconds of the default it would be fewer than ten.
    eventually("many attempts", SOON, || {
        (one::<i64>(&mut client, refused) >= MANY).then_some(())
    });
    until(
        &world,
        "SELECT state IN ('waiting', 'connecting') FROM redis_cache.connections WHERE role = 'control'",
    );
    let kind = "SELECT split_part(last_error, ':', 1) FROM redis_cache.status";
    assert_eq!(one::<String>(&mut client, kind), "refused");
    world.redis.start_again();
    world.wait_for_status("connected");
}

#[test]
fn the_view_tells_what_redis_knows() {
    let world = mapped(&[("pool_size", "2")]);
    world.execute("UPDATE t SET v = 'w'");
    world.wait();
    until(
        &world,
        "SELECT array_agg(role) = '{lane-0,lane-1,control}' AND bool_and(state = 'connected' AND server = 'default') \
             AND sum(sent) FILTER (WHERE role <> 'control') > 200 AND bool_and(maximum_time >= average_time) \
             AND bool_and(connected_since <= now()) AND bool_and(errors = '{}') AND sum(in_flight) = 0 \
         FROM redis_cache.connections",
    );
    let mut client = world.connect();
    let rows = client
        .query("SELECT client_id FROM redis_cache.connections", &[])
        .unwrap();
    let shown: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(shown, &clients(&world, "lane-") | &clients(&world, "control"));
    let urls = "SELECT bool_and(c.address = s.url) FROM redis_cache.connections c, redis_cache.status s";
    assert!(one::<bool>(&mut client, urls));

    // What is on its way is shown, and what becomes of it is counted by kind, as status has it.
    world.redis.freeze();
    world.execute("UPDATE t SET v = 'x' WHERE id = 1");
    until(
        &world,
        "SELECT bool_or(in_flight > 0) FROM redis_cache.connections WHERE role <> 'control'",
    );
    world.wait_for_status("last_error LIKE 'timed out: %'");
    until(
        &world,
        "SELECT bool_or(errors ? 'timed out') FROM redis_cache.connections",
    );
    world.redis.thaw();
    world.wait_for_status("connected");
    until(&world, "SELECT count(client_id) = 3 FROM redis_cache.connections");

    // Redis has no connection left.
    let mut admin = world.redis();
    let mut run = |words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).exec(&mut admin).unwrap();
    };
    run(&["CONFIG", "SET", "maxclients", "1"]);
    run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    world.wait_for_status("NOT connected AND last_error LIKE 'pool exhausted: %'");
    until(
        &world,
        "SELECT bool_or(errors ? 'pool exhausted') FROM redis_cache.connections",
    );
    run(&["CONFIG", "SET", "maxclients", "1000"]);
    world.wait_for_status("connected");

    // For monitoring, not for everybody.
    world.execute("CREATE ROLE watcher; GRANT pg_monitor TO watcher; CREATE ROLE nobody");
    client.batch_execute("SET ROLE watcher").unwrap();
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM redis_cache.connections"),
        3
    );
    client.batch_execute("SET ROLE nobody").unwrap();
    assert!(
        client
            .query("SELECT * FROM redis_cache.connections", &[])
            .is_err()
    );
}

/// The numbers behind the names of the mappings: `… of redis://127.0.0.1:1/0: t 3, the Others 1`.
fn counts(line: &str) -> Vec<i64> {
    let (_, mappings) = line.rsplit_once(": ").expect("the mappings stand last");
    let count = |part: &str| part.rsplit(' ').next().and_then(|count| count.parse().ok());
    mappings
        .split(", ")
        .map(|part| count(part).unwrap_or_else(|| panic!("{line}")))
        .collect()
}

#[test]
fn a_batch_that_takes_long_is_logged_without_what_is_in_it() {
    let world = mapped(&[("command_timeout", "20s")]);
    world.execute("CREATE TABLE other (id text PRIMARY KEY, v text); INSERT INTO other VALUES ('hidden-key', 'hidden-value')");
    world.set_mappings(
        "t:{id} => SELECT v FROM t WITH (insert = set); o:{id} => SELECT v FROM other WITH (name = \"the Others\")",
    );
    world.wait();
    let slow = |world: &World, value: &str| {
        world.redis.freeze();
        world.execute(&format!(
            "BEGIN; UPDATE t SET v = 'hidden-{value}' WHERE id <= 3; UPDATE other SET v = 'hidden-{value}'; COMMIT"
        ));
        std::thread::sleep(Duration::from_millis(500));
        world.redis.thaw();
        world.wait();
    };
    slow(&world, "a");
    assert_eq!(log_lines(&world, "push: "), [""; 0]);
    world
        .postgres
        .set_conf("pg_redis_cache.log_min_push_duration", "100ms");
    until(
        &world,
        "SELECT current_setting('pg_redis_cache.log_min_push_duration') = '100ms'",
    );
    slow(&world, "b");
    let lines = eventually("the lines", SOON, || {
        let lines = log_lines(&world, "push: ");
        (!lines.is_empty() && lines.join("").contains("the Others 1")).then_some(lines)
    });
    // One for each lane that had a part in it.
    assert!(lines.len() <= 4, "{lines:#?}");
    for line in &lines {
        assert!(
            line.contains("LOG:  pg_redis_cache: duration: ") && line.contains(" ms  push: operations "),
            "{line}"
        );
        assert!(
            line.contains(", lane-") && line.contains(&world.redis.url()),
            "{line}"
        );
    }
    let counted: i64 = lines.iter().flat_map(|line| counts(line)).sum();
    assert_eq!(counted, 4, "{lines:#?}");
    // 0 logs all, -1 nothing.
    world
        .postgres
        .set_conf("pg_redis_cache.log_min_push_duration", "0");
    until(
        &world,
        "SELECT current_setting('pg_redis_cache.log_min_push_duration') = '0'",
    );
    eventually("a quick one to be logged", SOON, || {
        world.execute("UPDATE t SET v = 'hidden-c' WHERE id = 1");
        world.wait();
        (log_lines(&world, "push: ").len() > lines.len()).then_some(())
    });
    assert_eq!(log_lines(&world, "hidden"), [""; 0]);
}

#[test]
fn foreign_tables_keep_their_connections_as_long() {
    let world = World::builder().start();
    let mut client = world.connect();
    client
        .batch_execute(&format!(
            "CREATE SERVER r FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port {});
             CREATE FOREIGN TABLE h (field text, value text) SERVER r OPTIONS (table_type 'hash', table_key_prefix 'h');
             INSERT INTO h VALUES ('a', 'b')",
            literal(&world.redis.url())
        ))
        .unwrap();
    let mut connection = || {
        assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM h"), 1);
        clients(&world, ":fdw")
    };
    let first = connection();
    assert_eq!(connection(), first);
    let mut last = first;
    for setting in ["pool_max_lifetime", "pool_idle_timeout"] {
        let name = format!("pg_redis_cache.{setting}");
        world.postgres.set_conf(&name, "1ms");
        last = eventually(setting, SOON, || {
            std::thread::sleep(Duration::from_millis(5));
            let now = connection();
            (now.len() == 1 && now != last).then_some(now)
        });
        world.postgres.set_conf(&name, "0");
        last = eventually("connections that stay", SOON, || {
            std::thread::sleep(Duration::from_millis(5));
            let now = connection();
            let stays = now == last;
            last = now;
            stays.then(|| last.clone())
        });
    }
}
