//! Tables whose rows change without the executor: completeness finds it out, `attach` captures them.

use std::time::Duration;

use pg_redis_cache_tests::{Postgres, RowOracle, World, eventually};
use postgres::Client;

const SOON: Duration = Duration::from_secs(30);
const TABLES: &str = "CREATE TABLE doc (id int PRIMARY KEY, version int); \
    CREATE TABLE part (id int PRIMARY KEY, version int) PARTITION BY RANGE (id); \
    CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (100); \
    CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (100) TO (200); ";
const MAPPINGS: &str = "doc:{id} => SELECT version FROM doc; \
                        part:{id} => SELECT version FROM part WITH (insert = set)";

fn doc() -> RowOracle {
    RowOracle::hash("doc:{id}", "doc", &["version"])
}

fn part() -> RowOracle {
    RowOracle::hash("part:{id}", "part", &["version"])
}

/// A publisher without the library, and a subscriber with mapped tables.
struct Replicated {
    publisher: Postgres,
    subscriber: World,
}

impl Replicated {
    fn start() -> Self {
        let publisher = Postgres::builder().conf("wal_level", "logical").start();
        let subscriber = World::builder().start();
        let mut client = publisher.connect();
        client.batch_execute(TABLES).unwrap();
        client
            .batch_execute(
                "INSERT INTO doc SELECT i, 0 FROM generate_series(1, 20) i; \
                 INSERT INTO part SELECT i, 0 FROM generate_series(90, 110) i; \
                 CREATE PUBLICATION everything FOR ALL TABLES",
            )
            .unwrap();
        subscriber.execute(TABLES);
        subscriber.set_mappings(MAPPINGS);
        let replicated = Replicated {
            publisher,
            subscriber,
        };
        replicated.subscribe();
        replicated.until_same();
        replicated
    }

    fn subscribe(&self) {
        let socket = self.publisher.socket_dir().display();
        self.subscriber.execute(&format!(
            "CREATE SUBSCRIPTION all_of_it CONNECTION 'host={socket} user=postgres dbname=postgres' \
             PUBLICATION everything"
        ));
        eventually("the tables to be copied", SOON, || {
            let sql = "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel";
            let row = self.subscriber.connect().query_one(sql, &[]);
            row.unwrap().get::<_, bool>(0).then_some(())
        });
    }

    fn publish(&self, statements: &str) {
        self.publisher.connect().batch_execute(statements).unwrap();
        self.until_same();
    }

    /// Waits until the subscriber has what the publisher has.
    fn until_same(&self) {
        let all = "SELECT md5(string_agg(r::text, ',' ORDER BY r::text)) FROM \
                   (SELECT 'doc', * FROM doc UNION ALL SELECT 'part', * FROM part) r";
        let read = |mut client: Client| client.query_one(all, &[]).unwrap().get::<_, Option<String>>(0);
        let wanted = read(self.publisher.connect());
        eventually("the subscriber to catch up", SOON, || {
            (read(self.subscriber.connect()) == wanted).then_some(())
        });
        self.subscriber.wait();
    }

    fn assert_rows(&self) -> [usize; 2] {
        [doc(), part()].map(|oracle| self.subscriber.assert_rows(&oracle).keys)
    }

    fn purges(&self) -> i64 {
        self.subscriber.wait();
        let sql = "SELECT sum(purges)::bigint FROM redis_cache.stats";
        self.subscriber.connect().query_one(sql, &[]).unwrap().get(0)
    }

    /// Reads by key, so that there is something that could become stale.
    fn fill(&self) {
        self.subscriber.execute(
            "SELECT count(version) FROM doc WHERE id = ANY (ARRAY(SELECT generate_series(1, 20))); \
             SELECT count(version) FROM part WHERE id = ANY (ARRAY(SELECT generate_series(90, 110)))",
        );
        self.subscriber.wait();
    }

    /// Reads until reads fill: after DDL a purge has to be through, and older transactions have to have ended.
    fn until_filled(&self) {
        eventually("reads to fill", SOON, || {
            self.fill();
            self.assert_rows().iter().all(|keys| *keys > 0).then_some(())
        });
    }
}

/// Changes of every kind, by one transaction each, or all in one.
const CHANGES: [&str; 6] = [
    "UPDATE doc SET version = version + 1 WHERE id < 10",
    "DELETE FROM doc WHERE id IN (3, 4)",
    "UPDATE part SET version = version + 1",
    "UPDATE part SET id = id + 20 WHERE id IN (95, 96, 97)",
    "INSERT INTO doc VALUES (30, 1); INSERT INTO part VALUES (130, 1), (30, 1)",
    "UPDATE doc SET id = id + 100 WHERE id IN (5, 6)",
];

#[test]
fn a_subscription_to_a_mapped_table_purges_it() {
    let replicated = Replicated::start();
    for change in CHANGES {
        replicated.fill();
        let before = replicated.purges();
        assert!(replicated.assert_rows().iter().any(|keys| *keys > 0), "{change}");
        replicated.publish(change);
        replicated.assert_rows();
        if !change.starts_with("INSERT") {
            assert!(replicated.purges() > before, "{change}");
        }
    }
}

#[test]
fn an_attached_table_follows_its_subscription() {
    let replicated = Replicated::start();
    let subscriber = &replicated.subscriber;
    subscriber.execute("SELECT redis_cache.attach('doc'); SELECT redis_cache.attach('part')");
    let attached = "SELECT bool_and(attached) FROM redis_cache.mappings";
    assert!(
        subscriber
            .connect()
            .query_one(attached, &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    replicated.until_filled();
    let before = replicated.purges();
    for change in CHANGES {
        replicated.publish(change);
        let [docs, parts] = replicated.assert_rows();
        assert!(docs > 0 && parts > 0, "{change}: {docs} and {parts} keys");
    }
    replicated.publish(&format!("BEGIN; {}; COMMIT", CHANGES[..4].join("; ")));
    replicated.assert_rows();
    assert_eq!(replicated.purges(), before, "a purge without need");
    replicated.publish("TRUNCATE doc");
    assert_eq!(replicated.assert_rows()[0], 0);
}

/// ALTER ROLE … SET reaches the apply worker, and not the resolver, which has no role.
#[test]
fn a_subscription_whose_owner_does_not_count_purges_too() {
    let replicated = Replicated::start();
    let pids = "SELECT coalesce(max(pid), 0) FROM pg_stat_subscription";
    let worker = || -> i32 {
        replicated
            .subscriber
            .connect()
            .query_one(pids, &[])
            .unwrap()
            .get(0)
    };
    let before = worker();
    let subscriber = &replicated.subscriber;
    subscriber.execute("ALTER ROLE postgres SET track_counts = off");
    subscriber.execute("ALTER SUBSCRIPTION all_of_it DISABLE");
    eventually("the subscription to stop", SOON, || {
        (worker() != before).then_some(())
    });
    subscriber.execute("ALTER SUBSCRIPTION all_of_it ENABLE");
    replicated.until_filled();
    replicated.publish("UPDATE doc SET version = version + 1");
    replicated.assert_rows();
}

/// Rule 9: the apply worker runs no statements, and has captured before a mapping that nobody keeps in step any more.
#[test]
fn what_a_subscription_captured_before_its_mapping_failed_is_not_stored() {
    let replicated = Replicated::start();
    let subscriber = &replicated.subscriber;
    subscriber.execute("SELECT redis_cache.attach('doc')");
    replicated.publish("UPDATE doc SET version = 7 WHERE id = 1");
    let asked = |sql: &str| -> bool { subscriber.connect().query_one(sql, &[]).unwrap().get(0) };
    let mut other = subscriber.connect();
    other
        .batch_execute("BEGIN; SELECT FROM doc WHERE id = 12 FOR UPDATE")
        .unwrap();
    let publisher = &replicated.publisher;
    publisher
        .connect()
        .batch_execute("BEGIN; UPDATE doc SET version = 8 WHERE id = 11; UPDATE doc SET version = 8 WHERE id = 12; COMMIT")
        .unwrap();
    eventually("the subscription to wait for the row", SOON, || {
        asked("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted").then_some(())
    });
    subscriber.execute("ALTER SYSTEM SET track_counts = off");
    subscriber.execute("SELECT pg_reload_conf()");
    eventually("the mapping to fail", SOON, || {
        asked("SELECT bool_and(state = 'error') FROM redis_cache.mappings").then_some(())
    });
    subscriber.wait();
    other.batch_execute("ROLLBACK").unwrap();
    replicated.until_same();
    assert_eq!(
        subscriber.redis.cli(&["EXISTS", "doc:11", "doc:12"]),
        "(integer) 0"
    );
}

#[test]
fn an_attached_table_follows_the_executor_too() {
    let world = World::builder().start();
    world.execute(TABLES);
    world.set_mappings(MAPPINGS);
    world.execute(
        "INSERT INTO doc SELECT i, 0 FROM generate_series(1, 20) i; \
         INSERT INTO part SELECT i, 0 FROM generate_series(90, 110) i; \
         SELECT redis_cache.attach('doc'); SELECT redis_cache.attach('part')",
    );
    world.wait();
    // Another trigger changes the row again, and rows whose own event is still to come.
    world.execute(
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF pg_trigger_depth() = 1 THEN \
                 UPDATE doc SET version = version + 100 WHERE id IN (new.id, new.id + 1); END IF; \
             RETURN NULL; END $$; \
         CREATE TRIGGER again AFTER UPDATE ON doc FOR EACH ROW EXECUTE FUNCTION again(); \
         CREATE TRIGGER zz_again AFTER UPDATE ON doc FOR EACH ROW EXECUTE FUNCTION again()",
    );
    let purges = |world: &World| -> i64 {
        world.wait();
        let sql = "SELECT sum(purges)::bigint FROM redis_cache.stats";
        world.connect().query_one(sql, &[]).unwrap().get(0)
    };
    let before = purges(&world);
    for statement in [
        "UPDATE doc SET version = version + 1 WHERE id < 10",
        "BEGIN; UPDATE doc SET version = 5 WHERE id = 12; SAVEPOINT a; UPDATE doc SET version = 6; ROLLBACK TO a; COMMIT",
        "DELETE FROM doc WHERE id = 7 RETURNING version",
        "INSERT INTO part VALUES (91, 9), (120, 9) ON CONFLICT (id) DO UPDATE SET version = excluded.version",
        "UPDATE part SET id = id + 30 WHERE id IN (92, 93)",
        "WITH gone AS (DELETE FROM doc WHERE id = 8 RETURNING *) INSERT INTO doc SELECT id, 88 FROM gone",
        "COPY part FROM PROGRAM 'printf \"150\\\\t1\\\\n\"'",
    ] {
        world.execute(statement);
        world.assert_rows(&doc());
        world.assert_rows(&part());
    }
    assert_eq!(purges(&world), before, "a purge without need");
    world.execute("SELECT redis_cache.detach('doc')");
    world.execute("UPDATE doc SET version = version + 1 WHERE id < 5");
    assert!(world.assert_rows(&doc()).keys >= 4);
}
