//! Mappings on several Redis servers: one that is away holds nobody else up, each is right again when it is back, and
//! a clean restart keeps what each of them holds.

use std::time::Duration;

use pg_redis_cache_tests::{Redis, RowOracle, World, eventually};

mod away;
mod kinds;
mod list;
mod restart;

const SOON: Duration = Duration::from_secs(60);
const SCHEMA: &str = "CREATE TABLE here (id int PRIMARY KEY, v int NOT NULL, filler text); \
                      CREATE TABLE far (id int PRIMARY KEY, v int NOT NULL, filler text); \
                      INSERT INTO here SELECT i, 0, '' FROM generate_series(1, 200) i; \
                      INSERT INTO far SELECT i, 0, '' FROM generate_series(1, 200) i";
const MAPPINGS: &str = "here:{id} => SELECT v, filler FROM here; \
                        far:{id} => SELECT v, filler FROM far WITH (server = far)";

/// A world whose second server is a Redis of its own.
struct Two {
    world: World,
    far: Redis,
}

fn server(name: &str, redis: &Redis) -> String {
    format!("{name} => {}", redis.url())
}

impl Two {
    fn new() -> Two {
        Two::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Two {
        let far = Redis::start();
        let mut builder = World::builder()
            .conf("autovacuum", "off")
            .conf("pg_redis_cache.refill_interval", "0")
            .conf("pg_redis_cache.command_timeout", "500ms")
            .conf("pg_redis_cache.servers", &server("far", &far));
        for (name, value) in settings {
            builder = builder.conf(name, value);
        }
        let world = builder.start();
        world.execute(SCHEMA);
        world.set_mappings(MAPPINGS);
        world.wait();
        Two { world, far }
    }

    /// After `wait()`, both hold what the tables say. Returns how many keys each has.
    fn assert_rows(&self) -> (usize, usize) {
        self.world.wait();
        let here = self.world.assert_rows(&oracle("here"));
        let far = oracle("far").compare(&mut self.world.connect(), &mut self.far.connection());
        assert!(far.differences.is_empty(), "far is not in step: {far}");
        (here.keys, far.keys)
    }

    /// Has all rows of both written and compared.
    fn fill(&self) {
        self.change("here");
        self.change("far");
        assert_eq!(self.assert_rows(), (200, 200));
    }

    /// Keys that no row has: a purge takes them, and nothing else does.
    fn plant(&self) {
        self.far.cli(&["HSET", "far:987654", "v", "-1"]);
        self.world.redis.cli(&["HSET", "here:987654", "v", "-1"]);
    }

    /// Whether those keys are there: here, and far.
    fn planted(&self) -> (bool, bool) {
        (
            exists(&self.world.redis, "here:987654"),
            exists(&self.far, "far:987654"),
        )
    }

    fn start_again(&mut self) {
        self.world.postgres.start_again();
        self.world.wait_until_active();
    }

    fn change(&self, table: &str) {
        self.world.execute(&format!("UPDATE {table} SET v = v + 1"));
    }

    /// The value that is cached for a row, without waiting for anything else.
    fn awaits(&self, redis: &Redis, key: &str, value: &str) {
        eventually(&format!("{key} to be {value}"), SOON, || {
            (redis.cli(&["HGET", key, "v"]) == format!("\"{value}\"")).then_some(())
        });
    }

    fn figure(&self, what: &str, name: &str) -> String {
        let sql = format!("SELECT ({what})::text FROM redis_cache.servers WHERE name = $1");
        let row = self.world.connect().query_one(&sql, &[&name]).unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    fn purges(&self, mapping: &str, reason: &str) -> i64 {
        let sql =
            "SELECT coalesce(sum(count), 0)::bigint FROM redis_cache.purges WHERE name = $1 AND reason = $2";
        let row = self.world.connect().query_one(sql, &[&mapping, &reason]);
        row.unwrap().get(0)
    }

    fn wait_until_connected(&self, name: &str, connected: bool) {
        eventually("the server's state to be told", SOON, || {
            (self.figure("connected", name) == connected.to_string()).then_some(())
        });
    }
}

fn oracle(table: &str) -> RowOracle {
    RowOracle::hash(&format!("{table}:{{id}}"), table, &["v", "filler"])
}

fn exists(redis: &Redis, key: &str) -> bool {
    redis.cli(&["EXISTS", key]) == "(integer) 1"
}

#[test]
fn each_has_its_own_mappings_and_nothing_else() {
    let two = Two::new();
    two.fill();
    assert_eq!(two.far.cli(&["--scan", "--pattern", "here:*"]), "");
    assert_eq!(two.world.redis.cli(&["--scan", "--pattern", "far:*"]), "");
    // One transaction, both servers.
    two.world
        .execute("BEGIN; UPDATE here SET v = v + 1; UPDATE far SET v = v + 1; COMMIT");
    assert_eq!(two.assert_rows(), (200, 200));
    // Each has a heartbeat of its own.
    for redis in [&two.world.redis, &two.far] {
        eventually("a heartbeat", SOON, || {
            redis
                .cli(&["--scan", "--pattern", "pg_redis_cache:alive:*"])
                .contains("alive")
                .then_some(())
        });
    }
}

#[test]
fn databases_on_servers_and_on_another_database_of_one() {
    let two = Two::new();
    let port = two.world.redis.port();
    let list = format!(
        "{}; second => redis://127.0.0.1:{port}/1",
        server("far", &two.far)
    );
    two.world.postgres.set_conf("pg_redis_cache.servers", &list);
    for database in ["a", "b"] {
        two.world.execute(&format!("CREATE DATABASE {database}"));
        let mut client = two.world.postgres.connect_to(database);
        client
            .batch_execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0), (2, 0)")
            .unwrap();
    }
    two.world.set_mappings(
        "here:{id} => SELECT v, filler FROM here; \
         t:{id} => SELECT v FROM t WITH (name = a, database = a, server = far); \
         t:{id} => SELECT v FROM t WITH (name = b, database = b, server = second)",
    );
    two.world.wait();
    two.world
        .postgres
        .connect_to("a")
        .batch_execute("UPDATE t SET v = 10")
        .unwrap();
    two.world
        .postgres
        .connect_to("b")
        .batch_execute("UPDATE t SET v = 20 WHERE id = 2")
        .unwrap();
    two.change("here");
    two.world.assert_rows(&oracle("here"));
    assert_eq!(two.far.cli(&["HGET", "t:1", "v"]), "\"10\"");
    let second = |args: &[&str]| two.world.redis.cli(&[&["-n", "1"], args].concat());
    assert_eq!(second(&["HGET", "t:2", "v"]), "\"20\"");
    assert_eq!(second(&["EXISTS", "t:1"]), "(integer) 0");
    assert_eq!(two.world.redis.cli(&["EXISTS", "t:1", "t:2"]), "(integer) 0");
    // The two engines on one Redis leave each other's connections alone.
    two.world.postgres.reload();
    let before = two.figure("reconnects", "default") + &two.figure("reconnects", "second");
    two.change("here");
    two.world.assert_rows(&oracle("here"));
    assert_eq!(
        two.figure("reconnects", "default") + &two.figure("reconnects", "second"),
        before
    );
    assert_eq!(before, "00");
}
