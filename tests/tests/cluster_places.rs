//! A Redis Cluster as people have it: with a user of little rights, behind addresses that are not the nodes' own, without
//! addresses, over IPv6, and with slots that go from one node to another in one step.
//!
//! (Rules 5 to 8 of docs/ARCHITECTURE.md are what would fail here.) It runs on every version of Redis and Valkey that is
//! tested, and ends at once where a version has not what it is about.

use std::net::TcpListener;
use std::time::Duration;

use pg_redis_cache_tests::{
    Folder, Load, Proxy, Redis, RedisCluster, Shape, Trial, World, WorldBuilder, eventually, literal,
    replace_server,
};
use postgres::error::SqlState;

const SOON: Duration = Duration::from_secs(60);

/// What the worker's user may do, as docs/DEPLOYING.md says, but for its keys.
const RIGHTS: &str = "-@all +select +ping +info +client|id +client|setname +client|list +client|kill +scan +set +hset \
                      +pexpire +unlink +get +hgetall +pttl +type +cluster|slots +cluster|nodes +asking";
const KEYS: &str = "resetkeys ~doc:* ~gone:* ~j:* ~s:* ~pg_redis_cache:*";

fn shape() -> Shape {
    Shape {
        keys: 100,
        ..Trial::shape()
    }
}

fn world(settings: impl FnOnce(WorldBuilder) -> WorldBuilder) -> World {
    Load::world(shape(), |world| {
        settings(
            world
                .conf("pg_redis_cache.command_timeout", "2s")
                .conf("pg_redis_cache.connect_timeout", "2s"),
        )
    })
}

fn text(world: &World, sql: &str) -> String {
    let row = world.connect().query_one(sql, &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
}

/// Rows are in step, some of them cached, after a purge that may have come last.
fn assert_in_step(world: &World, cluster: &RedisCluster) {
    world.wait_until_active();
    cluster.await_ok();
    eventually("rows in step of which some are cached", SOON, || {
        world.execute("UPDATE doc SET version = version + 1");
        let compared = Load::assert_all_rows_in(world, cluster);
        compared.iter().any(|mapping| mapping.keys > 0).then_some(())
    });
}

/// Foreign tables over the same cluster.
fn assert_foreign(world: &World, url: &str, user: &str) {
    let mut client = world.connect();
    let more = format!(
        "CREATE USER MAPPING FOR PUBLIC SERVER r OPTIONS ({user});
         CREATE FOREIGN TABLE v (key text, value text) SERVER r OPTIONS (table_type 'string', table_key_prefix 's:v*');
         INSERT INTO v SELECT 's:v' || i, i FROM generate_series(1, 100) i"
    );
    replace_server(&mut client, &format!("url {}", literal(url)), &more);
    let row = client
        .query_one("SELECT count(*), count(nullif(value, '')) FROM v", &[])
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (100, 100));
    client
        .batch_execute("DELETE FROM v WHERE value <> ''; DROP SERVER r CASCADE")
        .unwrap();
}

fn set_user(node: &Redis, rules: &str) {
    let words: Vec<&str> = ["ACL", "SETUSER", "cache"]
        .into_iter()
        .chain(rules.split_whitespace())
        .collect();
    assert_eq!(node.cli(&words), "OK", "{rules}");
}

#[test]
fn a_user_of_little_rights_is_enough_and_less_is_told() {
    let cluster = RedisCluster::start(3, false);
    let allow = |node: &Redis| set_user(node, &format!("reset on >p {KEYS} {RIGHTS}"));
    cluster.nodes.iter().for_each(allow);
    let folder = Folder::new();
    let password = folder.write("password", "p\n", 0o600);
    let url = cluster.url_as("cache@");
    let world = world(|world| {
        let file = password.display().to_string();
        world.url(&url).conf("pg_redis_cache.password_file", &file)
    });
    let load = Load::start(&world, shape());
    load.goes_on(30);
    cluster.reshard(0, 1, 30);
    for (sql, expected) in [
        ("SELECT (redis_cache.ping() > '0')::text", "true"),
        ("SELECT (redis_cache.wait('20s'))::text", "true"),
        ("SELECT count(*)::text FROM redis_cache.verify('doc')", "0"),
        ("SELECT (redis_cache.ttl('doc', '7') IS NULL)::text", "true"),
        ("SELECT (redis_cache.invalidate_all('doc') >= 0)::text", "true"),
        (
            "SELECT coalesce(last_error, 'none') FROM redis_cache.status",
            "none",
        ),
    ] {
        assert_eq!(text(&world, sql), expected, "{sql}");
    }

    // On one of the nodes something is taken away, and given back.
    let node = &cluster.nodes[1];
    let place = format!("\\(redis://cache.*@127.0.0.1:{}/0\\)$", node.port());
    for (less, told) in [
        ("-set -hset", "rejected: .*NOPERM"),
        ("-set -hset -unlink", "rejected: .*NOPERM"),
        ("-info", "rejected: .*NOPERM"),
        ("-cluster", "rejected: .*NOPERM"),
    ] {
        set_user(node, less);
        load.goes_on(30);
        world.wait_for_status(&format!("last_error ~ '^{told}.*{place}'"));
        allow(node);
        world.wait_for_status("connected");
    }
    // The other nodes take what this one refuses: that is not each time news.
    let lines = world.postgres.log().matches("refused an operation").count();
    assert!((1..=40).contains(&lines), "{lines} lines of the log");
    assert_eq!(node.cli(&["ACL", "DELUSER", "cache"]), "(integer) 1");
    world.wait_for_status(&format!(
        "NOT connected AND last_error ~ '^auth: WRONGPASS.*{place}'"
    ));
    load.goes_on(30);
    allow(node);
    world.wait_for_status("connected");
    load.goes_on(30);
    load.stop();
    assert_in_step(&world, &cluster);

    assert_foreign(&world, &cluster.url(), "username 'cache', password 'p'");
    // The password that the nodes want is another one now.
    folder.write("password", "q\n", 0o600);
    world.postgres.reload();
    world.wait_for_status(
        "NOT connected AND last_error ~ '^auth: WRONGPASS.*\\(redis://cache.*@127.0.0.1:[0-9]+/0\\)$'",
    );
    for node in &cluster.nodes {
        set_user(node, "resetpass >q");
    }
    world.wait_for_status("connected");
    assert_in_step(&world, &cluster);
}

#[test]
fn nodes_are_reached_where_they_say_they_are() {
    let mut cluster = RedisCluster::start(3, false);
    let ways: Vec<Proxy> = cluster.nodes.iter().map(Proxy::to).collect();
    for (node, way) in cluster.nodes.iter_mut().zip(&ways) {
        let port = way.port().to_string();
        assert_eq!(node.cli(&["CONFIG", "SET", "cluster-announce-port", &port]), "OK");
        // Redis 6.2 says to itself what it said when it started.
        if !node.cli(&["CLUSTER", "SLOTS"]).contains(&port) {
            node.kill();
            node.add_args(&["--cluster-announce-port", &port]);
            node.start_again();
        }
    }
    let announced = |node: &Redis| {
        let slots = node.cli(&["CLUSTER", "SLOTS"]);
        ways.iter()
            .all(|way| slots.contains(&format!("(integer) {}", way.port())))
    };
    eventually("ports that all nodes know", SOON, || {
        cluster.nodes.iter().all(announced).then_some(())
    });
    let url = ways[0]
        .url()
        .replace("redis:", "redis-cluster:")
        .replace("/0", "");
    let world = world(|world| world.url(&url));
    let load = Load::start(&world, shape());
    load.goes_on(30);
    let places = |host: &str| {
        let ports: Vec<String> = ways.iter().map(|way| way.port().to_string()).collect();
        format!(
            "(count(*) = 15 AND bool_and(address ~ '^redis://{host}:({})/0$'))::text",
            ports.join("|")
        )
    };
    let sql = format!("SELECT {} FROM redis_cache.connections", places("127.0.0.1"));
    eventually("connections by the ways alone", SOON, || {
        (text(&world, &sql) == "true").then_some(())
    });
    // What is on them is lost, and comes again by them.
    for way in &ways {
        way.cut();
    }
    load.goes_on(30);
    cluster.reshard(0, 1, 30);
    load.goes_on(30);
    load.stop();
    world.wait_for_status("connected");
    assert_in_step(&world, &cluster);
    assert_foreign(&world, &url, "username ''");

    // Nodes that do not say where they are, are where the one is that was asked.
    let unknown = [
        "CONFIG",
        "SET",
        "cluster-preferred-endpoint-type",
        "unknown-endpoint",
    ];
    if !cluster.nodes.iter().all(|node| node.cli(&unknown) == "OK") {
        println!("this version's nodes always say where they are");
        return;
    }
    let url = url.replace("127.0.0.1", "localhost");
    world.postgres.set_conf("pg_redis_cache.url", &url);
    world.wait_for_status(&format!("connected AND url = '{url}'"));
    let sql = format!("SELECT {} FROM redis_cache.connections", places("localhost"));
    eventually("connections to where the first node is", SOON, || {
        (text(&world, &sql) == "true").then_some(())
    });
    let load = Load::start(&world, shape());
    load.goes_on(30);
    cluster.reshard(1, 2, 30);
    load.goes_on(30);
    load.stop();
    assert_in_step(&world, &cluster);
    assert_foreign(&world, &url, "username ''");
}

#[test]
fn over_ipv6_as_over_ipv4() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        println!("this machine has no ::1: {error}");
        return;
    }
    let mut cluster = RedisCluster::over_ipv6(3, true);
    let world = world(|world| world.url(&cluster.url()));
    let load = Load::start(&world, shape());
    load.goes_on(30);
    cluster.reshard(0, 1, 30);
    load.goes_on(30);
    let victim = cluster.master_of("doc:1");
    cluster.nodes[victim].kill();
    cluster.await_master_of("doc:1");
    load.goes_on(30);
    load.stop();
    world.wait_for_status("connected");
    let sql = "SELECT bool_and(address ~ '^redis://\\[::1\\]:[0-9]+/0$')::text FROM redis_cache.connections";
    assert_eq!(text(&world, sql), "true");
    cluster.nodes[victim].start_again();
    assert_in_step(&world, &cluster);
    assert_foreign(&world, &cluster.url(), "username ''");
}

/// A slot that is handed over so is on its way at no look at the cluster.
#[test]
fn slots_are_handed_over_in_one_step() {
    let cluster = RedisCluster::start(3, false);
    if !cluster.migrate(0, 1, 0..=0) {
        println!("this version moves slots key by key alone");
        return;
    }
    let world = world(|world| world.url(&cluster.url()));
    let oracle = Load::watch_cluster(&cluster, shape());
    let load = Load::start(&world, shape());
    load.goes_on(30);
    let purges = "SELECT coalesce(sum(purges), 0)::text FROM redis_cache.stats";
    let before = text(&world, purges);
    cluster.migrate(0, 2, 1..=5000);
    load.goes_on(30);
    cluster.migrate(2, 1, 1..=5000);
    load.goes_on(30);
    assert_eq!(text(&world, purges), before, "slots that move lose nothing");
    oracle.assert_held();
    // Purges while they go to and fro.
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| {
            for _ in 0..4 {
                cluster.migrate(1, 0, 1..=5000);
                cluster.migrate(0, 1, 1..=5000);
            }
        });
        let mut client = world.connect();
        while !moving.is_finished() {
            let purged = client.execute("SELECT redis_cache.invalidate_all('doc')", &[]);
            // On a machine that has much else to do it may take longer than the function waits.
            let is_late = |e: &postgres::Error| e.code() == Some(&SqlState::CONNECTION_FAILURE);
            assert!(purged.as_ref().err().is_none_or(is_late), "{purged:?}");
        }
    });
    load.stop();
    assert_in_step(&world, &cluster);
    assert_foreign(&world, &cluster.url(), "username ''");
}
