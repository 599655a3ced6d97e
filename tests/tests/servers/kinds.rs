//! What a named server may be: a cluster, one over TLS.

use pg_redis_cache_tests::{Redis, RedisCluster, RowOracle, Secure, World, eventually};

use super::SOON;

const TABLES: [&str; 3] = ["here", "far", "safe"];

/// A world with a server of each kind: one alone, a cluster, and one over TLS.
struct Kinds {
    world: World,
    cluster: RedisCluster,
    safe: Redis,
    /// Its certificates go with it.
    _secure: Secure,
}

impl Kinds {
    fn new() -> Kinds {
        let (cluster, secure) = (RedisCluster::start(3, false), Secure::new());
        let safe = secure.redis(&secure.server(), "no");
        let list = format!("far => {}; safe => {}", cluster.url(), secure.url());
        let authority = secure.authority.certificate().display().to_string();
        let world = World::builder()
            .conf("pg_redis_cache.command_timeout", "500ms")
            .conf("pg_redis_cache.servers", &list)
            .conf("pg_redis_cache.tls_ca_file", &authority)
            .start();
        for table in TABLES {
            world.execute(&format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, v int NOT NULL); \
                 INSERT INTO {table} SELECT i, 0 FROM generate_series(1, 200) i"
            ));
        }
        world.set_mappings(
            "here:{id} => SELECT v FROM here; \
             far:{id} => SELECT v FROM far WITH (server = far); \
             safe:{id} => SELECT v FROM safe WITH (server = safe)",
        );
        world.wait();
        Kinds {
            world,
            cluster,
            safe,
            _secure: secure,
        }
    }

    fn change(&self, tables: &[&str]) {
        for table in tables {
            self.world.execute(&format!("UPDATE {table} SET v = v + 1"));
        }
    }

    /// After `wait()`, each server holds what its table says, and all of it.
    fn assert_rows(&self) {
        self.world.wait();
        for table in TABLES {
            let oracle = RowOracle::hash(&format!("{table}:{{id}}"), table, &["v"]);
            let mut masters = match table {
                "here" => vec![self.world.redis()],
                "far" => self.cluster.masters(),
                _ => vec![self.safe.connection()],
            };
            let compared = oracle.compare_all(&mut self.world.connect(), &mut masters);
            assert!(
                compared.differences.is_empty(),
                "{table} is not in step: {compared}"
            );
            assert_eq!(compared.keys, 200, "{table}");
        }
    }

    /// How many connections a server has that are there.
    fn connections(&self, server: &str) -> i64 {
        let sql = "SELECT count(*) FROM redis_cache.connections WHERE server = $1 AND state = 'connected'";
        let row = self.world.connect().query_one(sql, &[&server]);
        row.unwrap().get(0)
    }
}

#[test]
fn a_cluster_and_one_over_tls_are_servers_as_any_other() {
    let mut kinds = Kinds::new();
    kinds.change(&TABLES);
    kinds.assert_rows();
    eventually("the connections to each to be told", SOON, || {
        let told = ["default", "far", "safe"].map(|server| kinds.connections(server));
        (told[0] > 0 && told == [told[0], 3 * told[0], told[0]]).then_some(())
    });
    kinds.cluster.nodes[0].kill();
    eventually("the dead node to be told", SOON, || {
        let sql = "SELECT last_error FROM redis_cache.servers WHERE name = 'far' AND NOT connected";
        let rows = kinds.world.connect().query(sql, &[]).unwrap();
        let told = rows.first()?.get::<_, Option<String>>(0)?;
        let port = kinds.cluster.nodes[0].port().to_string();
        told.contains(&port).then_some(())
    });
    kinds.change(&TABLES);
    for (redis, key) in [(&kinds.world.redis, "here:7"), (&kinds.safe, "safe:7")] {
        eventually("what the others hold to be fresh", SOON, || {
            (redis.cli(&["HGET", key, "v"]) == "\"2\"").then_some(())
        });
    }
    kinds.cluster.nodes[0].start_again();
    kinds.cluster.await_ok();
    kinds.world.wait();
    kinds.change(&["far"]);
    kinds.assert_rows();
}
