//! The rights that the README tells to give are enough, whichever Redis it is.

use std::time::Duration;

use pg_redis_cache_tests::{RowOracle, Shutdown, World, eventually, repository};

const SOON: Duration = Duration::from_secs(20);

/// Makes the user that a page names, with the rule that it shows.
fn make_user(world: &World, user: &str, page: &str) {
    let text = std::fs::read_to_string(repository().join(page)).expect("the page can be read");
    let start = format!("ACL SETUSER {user} ");
    let mut lines = text.lines();
    let rule = lines.find_map(|line| line.trim().strip_prefix(&start));
    let words: Vec<&str> = rule.expect("the page has the rule").split(' ').collect();
    redis::cmd("ACL")
        .arg(&["SETUSER", user])
        .arg(words)
        .exec(&mut world.redis())
        .expect("Redis knows what the rule says");
}

/// Every client that calls itself one of ours is that user.
fn all_are(world: &World, user: &str) -> bool {
    let clients = world.redis.cli(&["CLIENT", "LIST"]);
    let ours = || clients.split("\\n").filter(|line| line.contains(":lane-"));
    ours().count() > 0 && ours().all(|line| line.contains(&format!(" user={user} ")))
}

#[test]
fn the_rights_that_the_readme_names_are_enough() {
    let mut world = World::with(
        "CREATE TABLE users (id int PRIMARY KEY, name text)",
        "user:{id} => SELECT name FROM users WITH (ttl = 300)",
    );
    make_user(&world, "pg_cache", "README.md");
    let url = format!("redis://pg_cache:password@127.0.0.1:{}/0", world.redis.port());
    world.postgres.set_conf("pg_redis_cache.url", &url);
    eventually("the worker to come as the user", SOON, || {
        all_are(&world, "pg_cache").then_some(())
    });
    world.wait();
    world.execute("SELECT redis_cache.reset_stats()");

    world.execute("INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 20) i");
    world.wait();
    // Filled by reading, then changed, deleted, and looked at by all the functions that ask Redis.
    world.execute("DO $$ BEGIN FOR i IN 1 .. 20 LOOP PERFORM name FROM users WHERE id = i; END LOOP; END $$");
    world.wait();
    world.execute("UPDATE users SET name = 'new' WHERE id <= 10; DELETE FROM users WHERE id > 18");
    world.wait();
    let row = world.connect().query_one(
        "SELECT redis_cache.get('users', '1')->>'name', redis_cache.ttl('users', '1') IS NOT NULL,
                (SELECT count(*) FROM redis_cache.verify('users'))",
        &[],
    );
    let row = row.expect("the user may read");
    let found: (Option<String>, bool, i64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(found, (Some("new".to_owned()), true, 0));
    let comparison = world.assert_rows(&RowOracle::hash("user:{id}", "users", &["name"]));
    eventually("the heartbeat", SOON, || {
        let found = world.redis.cli(&["KEYS", "pg_redis_cache:alive:*"]);
        found.contains("alive").then_some(())
    });

    world.execute("SELECT redis_cache.invalidate('users', '2'); SELECT redis_cache.invalidate_all('users')");
    world.wait();
    let of_all =
        "SELECT (SELECT sum(errors)::bigint FROM redis_cache.stats), last_error FROM redis_cache.status";
    let row = world
        .connect()
        .query_one(of_all, &[])
        .expect("the views can be read");
    let trouble: (Option<i64>, Option<String>) = (row.get(0), row.get(1));
    assert_eq!(trouble, (Some(0), None), "{comparison}");
    // What is cached survives a clean restart: the marker is the user's to write and to take.
    let before = eventually("a row to be cached", SOON, || {
        world.execute("SELECT name FROM users WHERE id = 1");
        world.wait();
        let answer = world.redis.cli(&["HGETALL", "user:1"]);
        answer.contains("name").then_some(answer)
    });
    world.restart_postgres(Shutdown::Fast);
    world.wait_until_active();
    world.wait();
    assert_eq!(world.redis.cli(&["HGETALL", "user:1"]), before);
}

/// A table of each type, over one key and over a pattern, with all that a statement can have Redis asked.
const TABLES: &str = "
    CREATE FOREIGN TABLE v (key text, value text, ttl bigint) SERVER r OPTIONS (table_type 'string', table_key_prefix 'user:v:*');
    CREATE FOREIGN TABLE h (field text, value text) SERVER r OPTIONS (table_type 'hash', table_key_prefix 'user:h', ttl '60');
    CREATE FOREIGN TABLE hs (key text, field text, value text) SERVER r OPTIONS (table_type 'hash', table_key_prefix 'user:h*');
    CREATE FOREIGN TABLE l (index bigint, element text) SERVER r OPTIONS (table_type 'list', table_key_prefix 'user:l');
    CREATE FOREIGN TABLE s (member text) SERVER r OPTIONS (table_type 'set', table_key_prefix 'user:s');
    CREATE FOREIGN TABLE z (member text, score float8) SERVER r OPTIONS (table_type 'zset', table_key_prefix 'user:z');
    CREATE FOREIGN TABLE x (id text, a text) SERVER r OPTIONS (table_type 'stream', table_key_prefix 'user:x');
    CREATE FOREIGN TABLE t (key text, value text) SERVER r OPTIONS (table_type 'string', table_key_prefix 'user:t:*', transactional 'on');
    CREATE FOREIGN TABLE e (key text, value text) SERVER r OPTIONS (table_type 'string', table_key_prefix 'user:v:*', use_remote_estimate 'on')";
const STATEMENTS: [&str; 30] = [
    "INSERT INTO v SELECT 'user:v:' || i, i, 60 FROM generate_series(1, 9) i",
    "INSERT INTO h SELECT i, i FROM generate_series(1, 9) i",
    "INSERT INTO hs VALUES ('user:h2', 'a', 'b')",
    "INSERT INTO l (element) SELECT i FROM generate_series(1, 9) i",
    "INSERT INTO s SELECT i FROM generate_series(1, 9) i",
    "INSERT INTO z SELECT i, i FROM generate_series(1, 9) i",
    "INSERT INTO x (a) SELECT i FROM generate_series(1, 9) i RETURNING id",
    "INSERT INTO t SELECT 'user:t:' || i, i FROM generate_series(1, 9) i",
    "SELECT count(*), min(ttl) FROM v",
    "SELECT * FROM v WHERE key IN ('user:v:1', 'user:v:2')",
    "SELECT count(*) FROM h",
    "SELECT * FROM h WHERE field IN ('1', '2')",
    "SELECT * FROM hs WHERE field LIKE 'a%'",
    "SELECT h.value FROM v JOIN h ON h.field = v.value",
    "SELECT * FROM l WHERE index = 3",
    "SELECT * FROM s WHERE member = '3'",
    "SELECT * FROM z WHERE score BETWEEN 2 AND 4 ORDER BY score DESC LIMIT 1",
    "SELECT * FROM x ORDER BY id COLLATE \"C\" DESC LIMIT 2",
    "SELECT * FROM e",
    "UPDATE v SET ttl = -1 WHERE key = 'user:v:1'",
    "UPDATE v SET key = key || 'n'",
    "UPDATE h SET value = value || 'n'",
    "UPDATE l SET element = element || 'n' WHERE index > 2",
    "UPDATE s SET member = member || 'n'",
    "UPDATE z SET score = score + 1",
    "DELETE FROM l WHERE index = 2",
    "DELETE FROM z WHERE score > 5",
    "DELETE FROM x",
    "TRUNCATE v, hs, s",
    "ANALYZE h",
];

#[test]
fn the_rights_of_foreign_tables_are_enough() {
    let world = World::builder().start();
    make_user(&world, "tables", "docs/FDW.md");
    let mut client = world.connect();
    let address = format!("redis://127.0.0.1:{}/0", world.redis.port());
    client
        .batch_execute(&format!(
            "CREATE SERVER r FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port '{address}'); \
             CREATE USER MAPPING FOR PUBLIC SERVER r OPTIONS (username 'tables', password 'password'); {TABLES}"
        ))
        .expect("the tables are well formed");
    for statement in STATEMENTS {
        let done = client.batch_execute(statement);
        done.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    assert!(world.redis.cli(&["CLIENT", "LIST"]).contains("user=tables"));
    let error = client.batch_execute(
        "CREATE FOREIGN TABLE other (value text) SERVER r \
         OPTIONS (table_type 'string', table_key_prefix 'other'); SELECT * FROM other",
    );
    assert!(error.is_err(), "the rule names its keys");
}
