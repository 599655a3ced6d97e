//! Foreign tables over a Redis Cluster: every type across the nodes, while slots move and when a master dies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pg_redis_cache_tests::{RedisCluster, World, eventually, number, refusal};
use postgres::{Client, error::SqlState};

const SOON: Duration = Duration::from_secs(60);

/// The extension, and a server `r` on the cluster.
fn world(cluster: &RedisCluster) -> World {
    let world = World::builder().start();
    let nodes = cluster.host_ports();
    world.execute(&format!(
        "CREATE SERVER r FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port '{nodes}', cluster_mode 'true')"
    ));
    world
}

fn table(name: &str, columns: &str, kind: &str, key: &str) -> String {
    format!(
        "CREATE FOREIGN TABLE {name} ({columns}) SERVER r OPTIONS (table_type '{kind}', table_key_prefix '{key}');"
    )
}

fn refused(client: &mut Client, sql: &str) -> (SqlState, String) {
    let error = refusal(client, sql);
    (
        error.code().clone(),
        format!("{} {}", error.message(), error.hint().unwrap_or_default()),
    )
}

fn keys_of_each_node(cluster: &RedisCluster) -> Vec<usize> {
    let size = |node: &pg_redis_cache_tests::Redis| {
        let size = node.cli(&["DBSIZE"]);
        size.rsplit(' ')
            .next()
            .and_then(|size| size.parse().ok())
            .expect(&size)
    };
    cluster.nodes.iter().map(size).collect()
}

#[test]
fn every_type_is_spread_over_the_nodes() {
    let cluster = RedisCluster::start(3, false);
    let world = world(&cluster);
    let mut client = world.connect();
    let tables = [
        table("v", "key text, value text, ttl int", "string", "v:*"),
        table("h", "key text, field text, value text", "hash", "h:*"),
        table("l", "key text, index int, element text", "list", "l:*"),
        table("s", "key text, member text", "set", "s:*"),
        table("z", "key text, member text, score float8", "zset", "z:*"),
        table("x", "key text, id text, f text", "stream", "x:*"),
        table("one", "field text, value text", "hash", "one"),
    ];
    world.execute(&tables.concat());
    let from = "FROM generate_series(1, 300) i";
    world.execute(&format!("INSERT INTO v SELECT 'v:' || i, i, 1000 {from}"));
    world.execute(&format!(
        "INSERT INTO h SELECT 'h:' || i, f, i {from}, unnest(ARRAY['a', 'b']) f"
    ));
    world.execute(&format!(
        "INSERT INTO l SELECT 'l:' || i, NULL, e {from}, unnest(ARRAY['a', 'b']) e"
    ));
    world.execute(&format!(
        "INSERT INTO s SELECT 's:' || i, m {from}, unnest(ARRAY['a', 'b']) m"
    ));
    world.execute(&format!(
        "INSERT INTO z SELECT 'z:' || i, m, i {from}, unnest(ARRAY['a', 'b']) m"
    ));
    world.execute(&format!("INSERT INTO x SELECT 'x:' || i, '*', i {from}"));
    world.execute(&format!("INSERT INTO one SELECT i, i {from}"));
    let sizes = keys_of_each_node(&cluster);
    assert!(sizes.iter().all(|size| *size > 400), "{sizes:?}");
    for (sql, expected) in [
        ("SELECT count(*) FROM v WHERE ttl > 900", 300),
        ("SELECT sum(value::int)::bigint FROM v", 45_150),
        (
            "SELECT count(*) FROM v WHERE key IN ('v:1', 'v:2', 'v:3', 'v:none', 'h:1')",
            3,
        ),
        ("SELECT count(*) FROM v WHERE key LIKE 'v:1%'", 111),
        ("SELECT sum(value::int)::bigint FROM h WHERE field = 'a'", 45_150),
        (
            "SELECT count(*) FROM h WHERE key IN ('h:1', 'h:2') AND field = 'b'",
            2,
        ),
        ("SELECT sum(index)::bigint FROM l", 300),
        (
            "SELECT count(*) FROM l WHERE key = 'l:7' AND index = 1 AND element = 'b'",
            1,
        ),
        ("SELECT count(DISTINCT (key, member)) FROM s", 600),
        (
            "SELECT sum(score)::bigint FROM z WHERE score > 290 AND member = 'a'",
            2_955,
        ),
        ("SELECT sum(f::int)::bigint FROM x", 45_150),
        ("SELECT count(*) FROM one", 300),
        ("SELECT count(*) FROM h", 600),
        ("SELECT count(*) FROM v", 300),
        (
            "SELECT count(*) FROM generate_series(1, 500) i JOIN v ON key = 'v:' || i",
            300,
        ),
        (
            "SELECT count(*) FROM generate_series(1, 500) i JOIN h ON key = 'h:' || i AND field = 'a'",
            300,
        ),
    ] {
        assert_eq!(number(&mut client, sql), expected, "{sql}");
    }
    client
        .batch_execute("UPDATE h SET value = value || '!' WHERE field = 'b'; DELETE FROM s WHERE member = 'b'; DELETE FROM l WHERE index = 0")
        .unwrap();
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM h WHERE value LIKE '%!'"),
        300
    );
    assert_eq!(number(&mut client, "SELECT count(*) FROM s"), 300);
    assert_eq!(
        number(
            &mut client,
            "SELECT count(*) FROM l WHERE element = 'b' AND index = 0"
        ),
        300
    );
    client
        .batch_execute("CREATE SCHEMA i; IMPORT FOREIGN SCHEMA \"*\" FROM SERVER r INTO i")
        .unwrap();
    let imported = "SELECT count(*) FROM pg_class WHERE relnamespace = 'i'::regnamespace";
    assert_eq!(number(&mut client, imported), 7);
    client.batch_execute("TRUNCATE v, h, l, s, z, x, one").unwrap();
    assert_eq!(keys_of_each_node(&cluster), [0, 0, 0]);
}

#[test]
fn one_node_leads_to_all_unless_it_is_told_not_to() {
    let cluster = RedisCluster::start(3, false);
    let world = World::builder().start();
    let port = cluster.nodes[0].port();
    world.execute(&format!(
        "CREATE SERVER r FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port '127.0.0.1:{port}')"
    ));
    world.execute(&table("v", "key text, value text", "string", "v:*"));
    let mut client = world.connect();
    let insert = "INSERT INTO v SELECT 'v:' || i, i FROM generate_series(1, 50) i";
    client.batch_execute(insert).unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM v"), 50);
    client
        .batch_execute("ALTER SERVER r OPTIONS (ADD cluster_mode 'false')")
        .unwrap();
    let (state, text) = refused(&mut client, insert);
    assert_eq!(state, SqlState::FEATURE_NOT_SUPPORTED);
    assert!(text.contains("cluster_mode 'true'"), "{text}");
    client
        .batch_execute("ALTER SERVER r OPTIONS (SET cluster_mode 'true')")
        .unwrap();
    client.batch_execute(insert).unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM v"), 50);
}

#[test]
fn a_transaction_is_one_slot_s() {
    let cluster = RedisCluster::start(3, false);
    let world = world(&cluster);
    world.execute(
        "CREATE FOREIGN TABLE t (key text, value text) SERVER r \
         OPTIONS (table_type 'string', table_key_prefix 't:*', transactional 'on')",
    );
    let mut client = world.connect();
    client
        .batch_execute("BEGIN; INSERT INTO t VALUES ('t:{7}:a', '1'), ('t:{7}:b', '2'); COMMIT")
        .unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM t"), 2);
    let (state, text) = refused(&mut client, "INSERT INTO t VALUES ('t:1', '1'), ('t:2', '2')");
    assert_eq!(state, SqlState::FEATURE_NOT_SUPPORTED);
    assert!(text.contains("one hash slot"), "{text}");
    assert_eq!(number(&mut client, "SELECT count(*) FROM t"), 2);
}

/// While slots move forth and back, writes and reads by key know nothing of it, and a scan is right or an error.
#[test]
fn slots_may_move_meanwhile() {
    let cluster = RedisCluster::start(3, false);
    let world = world(&cluster);
    world.execute(&table("v", "key text, value text", "string", "v:*"));
    world.execute(&table("h", "key text, field text, value text", "hash", "h:*"));
    world.execute("INSERT INTO v SELECT 'v:' || i, i FROM generate_series(1, 3000) i");
    let ended = AtomicBool::new(false);
    let (mut scans, mut moved, mut written) = (0, 0, 0);
    thread::scope(|threads| {
        threads.spawn(|| {
            cluster.reshard(0, 1, 1200);
            cluster.reshard(1, 2, 1200);
            cluster.reshard(2, 0, 1200);
            ended.store(true, Ordering::Relaxed);
        });
        let mut client = world.connect();
        client
            .batch_execute("SET enable_hashjoin = off; SET enable_mergejoin = off")
            .unwrap();
        while !ended.load(Ordering::Relaxed) {
            written += 1;
            let insert =
                format!("INSERT INTO h SELECT 'h:' || i, '{written}', i FROM generate_series(1, 200) i");
            client.batch_execute(&insert).unwrap();
            let found = format!(
                "SELECT count(*) FROM generate_series(1, 200) i JOIN h ON key = 'h:' || i WHERE field = '{written}'"
            );
            assert_eq!(number(&mut client, &found), 200);
            let found =
                "SELECT count(*) FROM generate_series(1, 500) i JOIN v ON key = 'v:' || i WHERE value <> ''";
            assert_eq!(number(&mut client, found), 500);
            match client.query_one("SELECT count(*) FROM v WHERE value <> ''", &[]) {
                Ok(row) => {
                    assert_eq!(row.get::<_, i64>(0), 3000);
                    scans += 1;
                }
                Err(error) => {
                    assert_eq!(
                        error.code(),
                        Some(&SqlState::T_R_SERIALIZATION_FAILURE),
                        "{error:?}"
                    );
                    moved += 1;
                }
            }
        }
    });
    println!("{written} rounds, {scans} scans, {moved} scans refused");
    assert!(
        written > 5 && moved > 0,
        "{written} rounds, {moved} scans refused"
    );
    cluster.await_ok();
    let mut client = world.connect();
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM v WHERE value <> ''"),
        3000
    );
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM h WHERE value <> ''"),
        200 * written
    );
}

/// A cursor of HSCAN is one node's own.
#[test]
fn a_key_that_moves_while_it_is_read_is_told() {
    let cluster = RedisCluster::start(3, false);
    let world = world(&cluster);
    world.execute(
        "CREATE FOREIGN TABLE big (field text, value text) SERVER r \
         OPTIONS (table_type 'hash', table_key_prefix 'big', batch_size '1000')",
    );
    world.execute("INSERT INTO big SELECT i, i FROM generate_series(1, 20000) i");
    let mut client = world.connect();
    client
        .batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM big; FETCH 100 FROM c")
        .unwrap();
    let from = cluster.master_of("big");
    cluster.reshard(from, (from + 1) % 3, 5461);
    let (state, text) = refused(&mut client, "FETCH ALL FROM c");
    assert_eq!(state, SqlState::T_R_SERIALIZATION_FAILURE, "{text}");
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM big WHERE value <> ''"),
        20_000
    );
}

#[test]
fn a_master_that_dies_is_followed_by_its_replica() {
    let mut cluster = RedisCluster::start(3, true);
    let world = world(&cluster);
    world.execute(&table("v", "key text, value text", "string", "v:*"));
    world.execute("INSERT INTO v SELECT 'v:' || i, i FROM generate_series(1, 300) i");
    let mut client = world.connect();
    assert_eq!(
        number(&mut client, "SELECT count(*) FROM v WHERE value <> ''"),
        300
    );
    let master = cluster.master_of("v:7");
    cluster.await_copies();
    cluster.nodes[master].kill();
    let error = client.batch_execute("UPDATE v SET value = 'new' WHERE key = 'v:7'");
    let state = error.expect_err("its master is dead").code().cloned();
    let away = [
        SqlState::FDW_UNABLE_TO_ESTABLISH_CONNECTION,
        SqlState::CONNECTION_FAILURE,
    ];
    assert!(
        state.as_ref().is_some_and(|state| away.contains(state)),
        "{state:?}"
    );
    let changed = eventually("the replica's promotion", SOON, || {
        client
            .execute("UPDATE v SET value = 'new' WHERE key = 'v:7'", &[])
            .ok()
    });
    assert_eq!(changed, 1);
    let mut counted = |sql: &str| -> i64 {
        // Until all nodes have heard of it, a scan may find that they do not agree, and is to be tried again.
        let row = eventually("a scan of a cluster that agrees", SOON, || {
            match client.query_one(sql, &[]) {
                Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => None,
                row => Some(row.expect("the cluster can be read")),
            }
        });
        row.get(0)
    };
    assert_eq!(counted("SELECT count(*) FROM v WHERE value <> ''"), 300);
    assert_eq!(counted("SELECT count(*) FROM v WHERE value = 'new'"), 1);
}
