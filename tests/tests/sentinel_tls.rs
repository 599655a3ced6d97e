//! A Redis that sentinels watch, where everybody speaks nothing but TLS, goes by a host name, and wants to know who asks.
//!
//! (Rule 8 of docs/ARCHITECTURE.md is what would fail here.)

use std::time::Duration;

use pg_redis_cache_tests::{
    Load, Redis, RedisSentinel, Secure, Shape, Trial, Validity, World, eventually, literal, shown,
};

const SOON: Duration = Duration::from_secs(60);

/// What the sentinels let the worker's user do, as docs/REFERENCE.md says.
const ASKING: &str = "user cache on >p -@all +auth +sentinel|get-master-addr-by-name +sentinel|master";

fn shape() -> Shape {
    Shape {
        keys: 100,
        ..Trial::shape()
    }
}

fn number(world: &World, sql: &str) -> i64 {
    let row = world.connect().query_one(sql, &[]);
    row.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// How often everything was purged because another server answered.
fn purges(world: &World) -> i64 {
    number(
        world,
        "SELECT coalesce(sum(count), 0)::bigint FROM redis_cache.purges WHERE reason = 'server'",
    )
}

fn until_connected_to(world: &World, redis: &Redis) {
    world.wait_for_status(&format!("connected AND master = 'localhost:{}'", redis.port()));
}

fn assert_in_step(world: &World) {
    world.wait_until_active();
    eventually("rows in step of which some are cached", SOON, || {
        // A purge that comes last may have left none.
        world.execute("UPDATE doc SET version = version + 1");
        let compared = Load::assert_all_rows(world);
        compared.iter().any(|mapping| mapping.keys > 0).then_some(())
    });
}

#[test]
fn a_failover_is_followed_by_name() {
    let secure = Secure::new();
    let server = secure.authority.issue("node", &["localhost"], Validity::Now);
    let client = secure.authority.issue("client", &["client"], Validity::Now);
    let papers = secure.papers(&server, "yes");
    let mut args: Vec<&str> = papers.iter().map(String::as_str).collect();
    args.extend(["--tls-replication", "yes", "--replica-announce-ip", "localhost"]);
    // Its own address has another name than its certificate.
    let mut world = Load::world(shape(), |world| {
        world
            .redis_args(&args)
            .conf("pg_redis_cache.command_timeout", "2s")
            .conf("pg_redis_cache.connect_timeout", "5s")
            .conf("pg_redis_cache.tls_verify", "ca")
            .conf(
                "pg_redis_cache.tls_ca_file",
                &shown(&secure.authority.certificate()),
            )
            .conf("pg_redis_cache.tls_cert_file", &shown(&client.certificate))
            .conf("pg_redis_cache.tls_key_file", &shown(&client.key))
    });
    let mut sentinel = RedisSentinel::secured(&world.redis, &secure, &server, ASKING);
    for redis in std::iter::once(&world.redis).chain(&sentinel.replicas) {
        let user = ["ACL", "SETUSER", "cache", "on", ">p", "~*", "&*", "+@all"];
        assert_eq!(redis.cli(&user), "OK");
    }
    let url = sentinel.url_with("cache:p@", "main");
    world.postgres.set_conf("pg_redis_cache.tls_verify", "full");
    world.postgres.set_conf("pg_redis_cache.url", &url);
    until_connected_to(&world, &world.redis);
    world.wait();

    let load = Load::start(&world, shape());
    load.goes_on(30);
    let before = purges(&world);
    world.redis.kill();
    sentinel.follow(&mut world.redis);
    until_connected_to(&world, &world.redis);
    load.goes_on(30);
    load.stop();
    assert!(purges(&world) > before, "nothing was purged");
    assert_in_step(&world);

    // Functions and foreign tables find it the same way.
    let mut session = world.connect();
    session
        .batch_execute(&format!(
            "CREATE SERVER r FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (url {}, tls_cert_file {}, tls_key_file {});
             CREATE FOREIGN TABLE h (field text, value text) SERVER r OPTIONS (table_type 'hash', table_key_prefix 'h');
             INSERT INTO h VALUES ('a', 'b')",
            literal(&url),
            literal(&shown(&client.certificate)),
            literal(&shown(&client.key))
        ))
        .expect("it finds the master");
    assert_eq!(number(&world, "SELECT count(*) FROM h WHERE value = 'b'"), 1);
    let got = "SELECT (redis_cache.get('doc', '7') ->> 'version' = version::text)::int::bigint FROM doc WHERE id = 7";
    assert_eq!(number(&world, got), 1);

    // By its address nobody vouches for it.
    let names = |whether: &str| {
        let set = ["SENTINEL", "CONFIG", "SET", "announce-hostnames", whether];
        assert_eq!(sentinel.cli(&set), ["OK"; 3]);
    };
    names("no");
    world.wait_for_status(&format!(
        "NOT connected AND last_error ~ '^TLS: .*not valid for name.*, master 127.0.0.1:{}\\)$'",
        world.redis.port()
    ));
    names("yes");
    until_connected_to(&world, &world.redis);
    assert_in_step(&world);

    // One who may not ask is told.
    world
        .postgres
        .set_conf("pg_redis_cache.url", &sentinel.url_with("cache:wrong@", "main"));
    world.wait_for_status("NOT connected AND last_error LIKE 'auth: no sentinel names %WRONGPASS%'");
    world.postgres.set_conf("pg_redis_cache.url", &url);
    until_connected_to(&world, &world.redis);
    assert!(!world.postgres.log().contains(":p@"), "a password is in the log");
}
