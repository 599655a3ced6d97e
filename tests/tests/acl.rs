//! The rights that the README tells to give are enough, whichever Redis it is.

use std::time::Duration;

use pg_redis_cache_tests::{RowOracle, Shutdown, World, eventually, repository};

const SOON: Duration = Duration::from_secs(20);

/// The rule that the README shows, as the words of a command.
fn rule_of_the_readme() -> Vec<String> {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("README.md can be read");
    let rule = readme
        .lines()
        .find_map(|line| line.trim().strip_prefix("ACL SETUSER pg_cache "))
        .expect("the README has the rule");
    rule.split(' ').map(str::to_owned).collect()
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
    redis::cmd("ACL")
        .arg(&["SETUSER", "pg_cache"])
        .arg(rule_of_the_readme())
        .exec(&mut world.redis())
        .expect("Redis knows what the rule says");
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
