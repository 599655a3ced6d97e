//! A Redis Cluster that speaks nothing but TLS, to its clients and among its nodes: the worker, the functions and foreign
//! tables trust each node by the name that it goes by, and what they do not trust is told with the node's address.
//!
//! (Rules 5, 7 and 8 of docs/ARCHITECTURE.md are what would fail here.) One cluster serves several checks: making one
//! takes seconds.

use std::time::Duration;

use pg_redis_cache_tests::{
    Authority, Load, Paper, Redis, RedisCluster, Secure, Shape, Trial, Validity, World, eventually, literal,
    number, refusal, replace_server, shown,
};
use postgres::{Client, error::SqlState};

const SOON: Duration = Duration::from_secs(60);

fn shape() -> Shape {
    Shape {
        keys: 100,
        ..Trial::shape()
    }
}

/// A world whose worker writes to the cluster, with the table of the load.
fn world(cluster: &RedisCluster, authority: &Authority, client: &Paper) -> World {
    Load::world(shape(), |world| {
        world
            .url(&cluster.url())
            .conf("pg_redis_cache.command_timeout", "5s")
            .conf("pg_redis_cache.connect_timeout", "5s")
            .conf("pg_redis_cache.tls_ca_file", &shown(&authority.certificate()))
            .conf("pg_redis_cache.tls_cert_file", &shown(&client.certificate))
            .conf("pg_redis_cache.tls_key_file", &shown(&client.key))
    })
}

fn text(world: &World, sql: &str) -> String {
    let row = world.connect().query_one(sql, &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
}

fn purges(world: &World) -> i64 {
    let sql = "SELECT coalesce(sum(purges), 0)::text FROM redis_cache.stats";
    text(world, sql).parse().expect("a number")
}

fn until_fresh(world: &World) {
    eventually("Redis to be fresh again", SOON, || {
        let sql = "SELECT (redis_cache.wait('20s') AND connected)::text FROM redis_cache.status";
        (text(world, sql) == "true").then_some(())
    });
}

/// Rows are in step, some of them on each master, after a purge that may have come last.
fn assert_in_step(world: &World, cluster: &RedisCluster) {
    world.wait_until_active();
    cluster.await_ok();
    eventually("keys on every master", SOON, || {
        world.execute("UPDATE doc SET version = version + 1");
        Load::assert_all_rows_in(world, cluster);
        keys(cluster).iter().all(|keys| *keys > 0).then_some(())
    });
}

fn keys(cluster: &RedisCluster) -> Vec<usize> {
    let held = |master: &mut redis::Connection| {
        let keys: Vec<String> = redis::cmd("KEYS").arg("doc:*").query(master).expect("it answers");
        keys.len()
    };
    cluster.masters().iter_mut().map(held).collect()
}

/// Replaces the server `r` and its table `v`.
fn serve(world: &World, options: &str) -> Client {
    let mut client = world.connect();
    let table = "CREATE FOREIGN TABLE v (key text, value text) SERVER r OPTIONS (table_type 'string', table_key_prefix 'v:*')";
    replace_server(&mut client, options, table);
    client
}

/// DETAIL of a statement that gets no TLS.
fn refused(client: &mut Client, sql: &str) -> String {
    let error = refusal(client, sql);
    assert_eq!(
        error.code(),
        &SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
        "{error:?}"
    );
    error.detail().unwrap_or_default().to_owned()
}

/// TLS fails for this reason, at a node of this name.
fn until_refused(world: &World, why: &str, name: &str) {
    world.wait_for_status(&format!(
        "NOT connected AND last_error ~ '^TLS: .*{why}.*\\(rediss://{name}:[0-9]+/0\\)$'"
    ));
}

#[test]
fn everything_goes_over_tls() {
    let secure = Secure::new();
    let server = secure.authority.issue("node", &["127.0.0.1"], Validity::Now);
    let client = secure.authority.issue("client", &["client"], Validity::Now);
    let mut cluster = RedisCluster::over_tls((3, true), &secure, [&server, &client], &[]);
    let world = world(&cluster, &secure.authority, &client);

    // Written, moved, read and purged.
    let oracle = Load::watch_cluster(&cluster, shape());
    let load = Load::start(&world, shape());
    load.goes_on(30);
    let before = purges(&world);
    cluster.reshard(0, 1, 60);
    until_fresh(&world);
    assert_eq!(purges(&world), before, "slots that move lose nothing");
    oracle.assert_held();
    for (sql, expected) in [
        ("SELECT (redis_cache.ping() > '0')::text", "true"),
        ("SELECT count(*)::text FROM redis_cache.verify('doc')", "0"),
        (
            "SELECT (redis_cache.get('doc', '7') ->> 'version' > '0')::text",
            "true",
        ),
        (
            "SELECT starts_with(url, 'rediss-cluster:')::text FROM redis_cache.status",
            "true",
        ),
        (
            "SELECT (count(*) = 15 AND bool_and(address ~ '^rediss://127.0.0.1:'))::text FROM redis_cache.connections",
            "true",
        ),
    ] {
        assert_eq!(text(&world, sql), expected, "{sql}");
    }

    // A master is lost.
    let before = purges(&world);
    let victim = cluster.master_of("doc:1");
    cluster.nodes[victim].kill();
    cluster.await_master_of("doc:1");
    eventually("everything to be purged", SOON, || {
        (purges(&world) > before).then_some(())
    });
    until_fresh(&world);
    load.goes_on(30);
    cluster.nodes[victim].start_again();
    load.stop();
    assert_in_step(&world, &cluster);
    let rows = text(&world, "SELECT count(*)::text FROM doc");
    assert_eq!(
        text(&world, "SELECT redis_cache.invalidate_all('doc')::text"),
        rows
    );
    assert_eq!(keys(&cluster), [0, 0, 0]);

    foreign_tables(&world, &cluster, &secure, &client);

    // Who vouches for the nodes is not to be trusted any more.
    let stranger = Authority::new("nobody");
    world
        .postgres
        .set_conf("pg_redis_cache.tls_ca_file", &shown(&stranger.certificate()));
    until_refused(&world, "UnknownIssuer", "127.0.0.1");
    let why = refused(&mut world.connect(), "SELECT redis_cache.get('doc', '7')");
    assert!(why.contains("UnknownIssuer"), "{why}");
    let authority = shown(&secure.authority.certificate());
    world.postgres.set_conf("pg_redis_cache.tls_ca_file", &authority);
    world.wait_for_status("connected");
    assert_in_step(&world, &cluster);
}

/// By each kind of address, and by none of its own.
fn foreign_tables(world: &World, cluster: &RedisCluster, secure: &Secure, client: &Paper) {
    let files = format!(
        "tls_ca_file {}, tls_cert_file {}, tls_key_file {}",
        literal(&shown(&secure.authority.certificate())),
        literal(&shown(&client.certificate)),
        literal(&shown(&client.key))
    );
    let nodes: Vec<String> = cluster
        .host_ports()
        .split(',')
        .map(|node| format!("rediss://{node}"))
        .collect();
    let listed = format!(
        "host_port {}, cluster_mode 'true', {files}",
        literal(&nodes.join(","))
    );
    for options in [format!("url {}, {files}", literal(&cluster.url())), listed] {
        let mut session = serve(world, &options);
        session
            .batch_execute("INSERT INTO v SELECT 'v:' || i, i FROM generate_series(1, 300) i")
            .unwrap();
        assert_eq!(
            number(&mut session, "SELECT count(*) FROM v WHERE value <> ''"),
            300
        );
        let joined = "SELECT count(*) FROM generate_series(1, 500) i JOIN v ON key = 'v:' || i";
        assert_eq!(number(&mut session, joined), 300);
        session.batch_execute("TRUNCATE v").unwrap();
    }
    let mut session = world.connect();
    session
        .batch_execute(
            "CREATE FOREIGN TABLE cached (id int, version bigint) SERVER redis_cache OPTIONS (mapping 'doc')",
        )
        .unwrap();
    world.execute("UPDATE doc SET version = version + 1");
    world.wait();
    let differing = "SELECT count(*) FROM doc LEFT JOIN cached USING (id) WHERE cached.version IS DISTINCT FROM doc.version";
    assert_eq!(number(&mut session, differing), 0);
    // One who shows nothing is turned away by the nodes.
    let why = refused(
        &mut serve(
            world,
            &format!(
                "url {}, tls_ca_file {}",
                literal(&cluster.url()),
                literal(&shown(&secure.authority.certificate()))
            ),
        ),
        "SELECT * FROM v",
    );
    assert!(why.contains("alert"), "{why}");
}

#[test]
fn nodes_are_who_their_cluster_says_they_are() {
    let secure = Secure::new();
    let server = secure.authority.issue("node", &["localhost"], Validity::Now);
    let client = secure.authority.issue("client", &["client"], Validity::Now);
    let names = [
        "--cluster-announce-hostname",
        "localhost",
        "--cluster-preferred-endpoint-type",
        "hostname",
    ];
    let cluster = RedisCluster::over_tls((3, false), &secure, [&server, &client], &names).called("localhost");
    let name_all = |kind: &str| {
        for node in &cluster.nodes {
            let set = ["CONFIG", "SET", "cluster-preferred-endpoint-type", kind];
            assert_eq!(node.cli(&set), "OK");
        }
    };
    eventually("names that all nodes know", SOON, || {
        let knows = |node: &Redis| node.cli(&["CLUSTER", "SLOTS"]).matches("\"localhost\"").count() >= 3;
        cluster.nodes.iter().all(knows).then_some(())
    });
    let world = world(&cluster, &secure.authority, &client);
    assert_in_step(&world, &cluster);
    eventually(
        "a connection of each lane and the control to each node",
        SOON,
        || {
            let sql = "SELECT (count(*) = 15 AND bool_and(address ~ '^rediss://localhost:'))::text FROM redis_cache.connections";
            (text(&world, sql) == "true").then_some(())
        },
    );
    assert_eq!(
        text(&world, "SELECT count(*)::text FROM redis_cache.verify('doc')"),
        "0"
    );
    let options = format!(
        "url {}, tls_ca_file {}, tls_cert_file {}, tls_key_file {}",
        literal(&cluster.url()),
        literal(&shown(&secure.authority.certificate())),
        literal(&shown(&client.certificate)),
        literal(&shown(&client.key))
    );
    let insert = "INSERT INTO v SELECT 'v:' || i, i FROM generate_series(1, 100) i";
    let mut session = serve(&world, &options);
    session.batch_execute(insert).unwrap();
    assert_eq!(number(&mut session, "SELECT count(*) FROM v"), 100);

    // By another name a node has no certificate, whatever the address calls it.
    name_all("ip");
    until_refused(&world, "not valid for name", "127.0.0.1");
    let why = refused(&mut world.connect(), "SELECT redis_cache.get('doc', '7')");
    assert!(why.contains("not valid for name"), "{why}");
    let why = refused(&mut serve(&world, &options), insert);
    assert!(why.contains("not valid for name"), "{why}");
    // Unless the name is no matter.
    let mut session = serve(&world, &format!("{options}, tls_verify 'ca'"));
    session.batch_execute(insert).unwrap();
    world.postgres.set_conf("pg_redis_cache.tls_verify", "ca");
    world.wait_for_status("connected");
    assert_in_step(&world, &cluster);
    world.postgres.set_conf("pg_redis_cache.tls_verify", "full");
    until_refused(&world, "not valid for name", "127.0.0.1");
    name_all("hostname");
    world.wait_for_status("connected");
    assert_in_step(&world, &cluster);
}
