//! Users, passwords and permissions of Redis, for the worker and for foreign tables; unix sockets; and what the
//! connections are called. What is forbidden is told, never left stale, and made good once it is allowed again.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use pg_redis_cache_tests::{
    Load, Redis, RowOracle, Trial, World, eventually, literal, refusal, replace_server,
};
use postgres::{Client, error::SqlState};

const SOON: Duration = Duration::from_secs(20);

/// What the worker and the SQL functions need beside their keys, as README.md says.
const WORKER: &str = "-@all +select +ping +info +client|id +client|setname +client|list +client|kill +scan +set +hset \
                      +pexpire +unlink +get +hgetall +pttl +type";

fn run(redis: &Redis, words: &[&str]) {
    assert_eq!(redis.cli(words), "OK", "{words:?}");
}

/// State and DETAIL of the statement's error.
fn refused(client: &mut Client, sql: &str) -> (SqlState, String) {
    let error = refusal(client, sql);
    let detail = error.detail().unwrap_or_default().to_owned();
    (error.code().clone(), detail)
}

/// A server `r` at that address with a hash `h`, and a user mapping.
fn serve(world: &World, address: &str, user: &str) -> Client {
    let mut client = world.connect();
    let more = format!(
        "CREATE USER MAPPING FOR PUBLIC SERVER r OPTIONS ({user});
         CREATE FOREIGN TABLE h (field text, value text) SERVER r OPTIONS (table_type 'hash', table_key_prefix 'h')"
    );
    replace_server(&mut client, &format!("host_port {}", literal(address)), &more);
    client
}

/// Where somebody listens who speaks another protocol; for the rest of the test's process.
fn stranger() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    std::thread::spawn(move || {
        let mut callers = Vec::new();
        for mut caller in listener.incoming().flatten() {
            let _ = caller.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
            callers.push(caller);
        }
    });
    format!("redis://{address}/0")
}

#[test]
fn who_speaks_another_protocol_is_told() {
    let world = World::builder().start();
    let address = stranger();
    let mut client = serve(&world, &address, "username ''");
    assert_eq!(
        refused(&mut client, "SELECT * FROM h").0,
        SqlState::PROTOCOL_VIOLATION
    );
    world.postgres.set_conf("pg_redis_cache.url", &address);
    world.wait_for_status(&format!(
        "NOT connected AND last_error LIKE {}",
        literal(&format!("protocol: % ({address})"))
    ));
}

fn bare(redis: &Redis) -> String {
    format!("redis://127.0.0.1:{}/0", redis.port())
}

#[test]
fn a_user_and_a_wrong_password() {
    let world = World::with(
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "t:{id} => SELECT v FROM t WITH (insert = set)",
    );
    run(
        &world.redis,
        &["ACL", "SETUSER", "cache", "on", ">se cret", "~*", "+@all"],
    );
    let url = |password: &str| bare(&world.redis).replace("//", &format!("//cache:{password}@"));
    world.postgres.set_conf("pg_redis_cache.url", &url("wrong"));
    let place = format!("(redis://cache:***@127.0.0.1:{}/0)", world.redis.port());
    world.wait_for_status(&format!(
        "NOT connected AND last_error LIKE 'auth: WRONGPASS %{place}'"
    ));
    let mut client = world.connect();
    let (state, detail) = refused(&mut client, "SELECT redis_cache.get('t', '1')");
    assert_eq!(state, SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    assert!(detail.starts_with("WRONGPASS"), "{detail}");
    world.postgres.set_conf("pg_redis_cache.url", &url("se%20cret"));
    world.wait_for_status("connected");
    world.wait_until_active();
    // First the purge of what may have been there before.
    world.wait();
    world.execute("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 10) i");
    assert_eq!(
        world.assert_rows(&RowOracle::hash("t:{id}", "t", &["v"])).keys,
        10
    );

    let mut client = serve(&world, &bare(&world.redis), "username 'cache', password 'wrong'");
    let (state, detail) = refused(&mut client, "SELECT * FROM h");
    assert_eq!(state, SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    assert!(detail.starts_with("WRONGPASS"), "{detail}");
    client
        .batch_execute("ALTER USER MAPPING FOR PUBLIC SERVER r OPTIONS (SET password 'se cret')")
        .unwrap();
    client.batch_execute("INSERT INTO h VALUES ('a', 'b')").unwrap();
    let log = world.postgres.log();
    assert!(
        !log.contains("cret@") && !log.contains("wrong@"),
        "a password is in the log"
    );
    // No password where one is needed.
    world.redis.cli(&["CONFIG", "SET", "requirepass", "p"]);
    let mut client = serve(&world, &bare(&world.redis), "username ''");
    let (state, detail) = refused(&mut client, "SELECT * FROM h");
    assert_eq!(state, SqlState::INVALID_AUTHORIZATION_SPECIFICATION, "{detail}");
}

#[test]
fn a_command_that_is_forbidden_is_told() {
    let world = World::builder().start();
    run(
        &world.redis,
        &["ACL", "SETUSER", "reader", "on", ">p", "~h", "+@read", "+ping"],
    );
    world.redis.cli(&["HSET", "h", "a", "b"]);
    let mut client = serve(&world, &bare(&world.redis), "username 'reader', password 'p'");
    // It may not even say its name, and reads all the same.
    assert_eq!(client.query("SELECT * FROM h", &[]).unwrap().len(), 1);
    for sql in [
        "INSERT INTO h VALUES ('c', 'd')",
        "DELETE FROM h WHERE field = 'a'",
        "UPDATE h SET value = 'c' WHERE field = 'a'",
    ] {
        let (state, detail) = refused(&mut client, sql);
        assert_eq!(state, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}: {detail}");
        assert!(detail.starts_with("NOPERM"), "{detail}");
        assert_eq!(client.query("SELECT * FROM h", &[]).unwrap().len(), 1);
    }
    client
        .batch_execute("CREATE FOREIGN TABLE other (field text, value text) SERVER r OPTIONS (table_type 'hash', table_key_prefix 'other')")
        .unwrap();
    assert_eq!(
        refused(&mut client, "SELECT * FROM other").0,
        SqlState::INSUFFICIENT_PRIVILEGE
    );
}

#[test]
fn permissions_are_taken_away_and_given_back_while_writing() {
    let trial = Trial::begin(|world| world);
    let redis = &trial.world.redis;
    let with = |rules: &[&str]| {
        let mut words = vec!["ACL", "SETUSER", "cache", "reset", "on", ">p", "~*"];
        words.extend(WORKER.split(' '));
        words.extend(rules);
        run(redis, &words);
    };
    with(&[]);
    let url = bare(redis).replace("//", "//cache:p@");
    trial.world.postgres.set_conf("pg_redis_cache.url", &url);
    trial.world.wait_for_status("connected AND url LIKE '%cache%'");
    let oracle = trial.watch();
    trial.load.goes_on(50);
    // Nothing of a mapping can be written, but deleted; then not even deleted; then nothing at all may be asked.
    for rules in [
        ["-hset", "-set"].as_slice(),
        &["-hset", "-set", "-unlink", "-del"],
        &["-@all"],
    ] {
        with(rules);
        trial.load.goes_on(50);
        trial
            .world
            .wait_for_status("last_error ~ '^rejected: .*NOPERM.*\\(redis://cache:'");
        with(&[]);
        trial.world.wait_for_status("connected");
        trial.load.goes_on(50);
        trial.world.wait_until_active();
    }
    // The user itself goes, its connections with it, and comes back.
    redis.cli(&["ACL", "DELUSER", "cache"]);
    trial
        .world
        .wait_for_status("NOT connected AND last_error ~ '^auth: '");
    trial.load.goes_on(50);
    with(&[]);
    trial.world.wait_for_status("connected");
    let shape = trial.shape;
    let world = trial.end();
    oracle.assert_held();
    // What was due by then is purged: from here on it is cached again.
    let load = Load::start(&world, shape);
    load.goes_on(100);
    load.stop();
    let rows = Load::assert_all_rows(&world);
    assert!(rows.iter().any(|mapping| mapping.keys > 0), "{rows:?}");
}

#[test]
fn a_unix_socket_serves_both() {
    let world = World::builder().start();
    world.execute("CREATE TABLE t (id int PRIMARY KEY, v text)");
    run(
        &world.redis,
        &["ACL", "SETUSER", "cache", "on", ">p&q", "~*", "+@all"],
    );
    run(&world.redis, &["CONFIG", "SET", "port", "0"]);
    let socket = format!("redis+unix://{}", world.redis.socket().display());
    let url = format!("{socket}?db=0&user=cache&pass=p%26q");
    world.postgres.set_conf("pg_redis_cache.url", &url);
    world.wait_for_status("connected AND url LIKE 'redis+unix:%user=cache&pass=***'");
    world.set_mappings("t:{id} => SELECT v FROM t WITH (insert = set)");
    // First the purge of what may have been there before.
    world.wait();
    world.execute("INSERT INTO t SELECT i, 'v' FROM generate_series(1, 10) i");
    assert_eq!(
        world.assert_rows(&RowOracle::hash("t:{id}", "t", &["v"])).keys,
        10
    );
    let mut client = world.connect();
    let row = client.query_one("SELECT redis_cache.get('t', '1')->>'v'", &[]);
    assert_eq!(row.unwrap().get::<_, String>(0), "v");
    let mut client = serve(&world, &socket, "username 'cache', password 'p&q'");
    client
        .batch_execute("INSERT INTO h SELECT i, i FROM generate_series(1, 5000) i")
        .unwrap();
    assert_eq!(client.query("SELECT * FROM h", &[]).unwrap().len(), 5000);
    // A socket that is not there.
    let mut client = serve(&world, &format!("{socket}.not"), "username ''");
    let (state, detail) = refused(&mut client, "SELECT * FROM h");
    assert_eq!(state, SqlState::FDW_UNABLE_TO_ESTABLISH_CONNECTION, "{detail}");
    world
        .postgres
        .set_conf("pg_redis_cache.url", &format!("{socket}.not"));
    world.wait_for_status("NOT connected AND last_error LIKE 'refused: %'");
}

#[test]
fn connections_are_named_after_their_role_and_cluster() {
    let world = World::builder().conf("cluster_name", "the main: one").start();
    world.wait_for_status("connected");
    let mut client = serve(&world, &bare(&world.redis), "username ''");
    client.batch_execute("SELECT * FROM h").unwrap();
    let program = format!("name=pg_redis_cache/{}", env!("CARGO_PKG_VERSION"));
    eventually("all connections", SOON, || {
        let list = world.redis.cli(&["CLIENT", "LIST"]);
        let has = |role: &str| list.contains(&format!("{program}:{role}:the_main__one"));
        ["control", "lane-0", "lane-3", "fdw"]
            .into_iter()
            .all(has)
            .then_some(())
    });
}

#[test]
fn an_earlier_worker_s_connections_are_killed_and_nobody_else_s() {
    let world = World::builder().conf("cluster_name", "main").start();
    let worker = world.worker_pid();
    let mut client = world.connect();
    let row = client.query_one("SELECT system_identifier::text FROM pg_control_system()", &[]);
    let owner: String = row.unwrap().get(0);
    let named = |name: String| {
        let mut connection = world.redis();
        redis::cmd("CLIENT")
            .arg("SETNAME")
            .arg(&name)
            .exec(&mut connection)
            .unwrap();
        (name, connection)
    };
    // Of a version that did not write the cluster's name, of one that did, of this one under another name.
    let earlier = [
        format!("pg_redis_cache/0.0.9:lane-0:{owner}:1-1"),
        format!("pg_redis_cache/0.0.9:lane-0:main:{owner}:1-1"),
        format!(
            "pg_redis_cache/{}:control:other:{owner}:1-1",
            env!("CARGO_PKG_VERSION")
        ),
    ]
    .map(named);
    let others = [
        "pg_redis_cache/0.0.9:fdw:main".to_owned(),
        format!("pg_redis_cache/0.0.9:fdw:{owner}"),
        "pg_redis_cache/0.0.9:lane-0:main:12345:1-1".to_owned(),
        format!("other/1:lane-0:main:{owner}:1-1"),
    ]
    .map(named);
    world.postgres.signal(worker, libc::SIGTERM);
    eventually("another worker", SOON, || {
        (world.worker_pid() != worker).then_some(())
    });
    let ping = |connection: &mut redis::Connection| redis::cmd("PING").query::<String>(connection).is_ok();
    for (name, mut connection) in earlier {
        assert!(!ping(&mut connection), "{name} is still there");
    }
    for (name, mut connection) in others {
        assert!(ping(&mut connection), "{name} was killed");
    }
}

#[test]
fn each_kind_of_trouble_has_its_sqlstate() {
    let world = World::with(
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "t:{id} => SELECT v FROM t",
    );
    let mut client = serve(&world, &bare(&world.redis), "username ''");
    client.batch_execute("INSERT INTO h VALUES ('a', 'b')").unwrap();
    let insert = "INSERT INTO h VALUES ('c', 'd')";
    run(&world.redis, &["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(refused(&mut client, insert).0, SqlState::OUT_OF_MEMORY);
    world.execute("INSERT INTO t VALUES (2, 'w'); UPDATE t SET v = 'x'");
    world.wait_for_status("last_error LIKE 'out of memory: % (redis://%)'");
    run(&world.redis, &["CONFIG", "SET", "maxmemory", "0"]);
    run(&world.redis, &["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(
        refused(&mut client, insert).0,
        SqlState::READ_ONLY_SQL_TRANSACTION
    );
    world.wait_for_status("NOT connected AND last_error LIKE 'read only: %'");
    run(&world.redis, &["REPLICAOF", "NO", "ONE"]);
    world.wait_for_status("connected");

    let mut admin = world.redis();
    let mut config = |clients: &str| {
        redis::cmd("CONFIG")
            .arg(&["SET", "maxclients", clients])
            .exec(&mut admin)
            .unwrap();
    };
    config("1");
    for sql in ["SELECT * FROM h", "SELECT redis_cache.get('t', '1')"] {
        let (state, detail) = refused(&mut world.connect(), sql);
        assert_eq!(state, SqlState::TOO_MANY_CONNECTIONS, "{detail}");
    }
    config("1000");
    assert_eq!(world.connect().query("SELECT * FROM h", &[]).unwrap().len(), 1);

    run(&world.redis, &["CONFIG", "SET", "port", "0"]);
    let mut other = world.connect();
    let (state, _) = refused(&mut other, "SELECT * FROM h");
    assert_eq!(state, SqlState::FDW_UNABLE_TO_ESTABLISH_CONNECTION);
    let (state, _) = refused(&mut other, "SELECT redis_cache.get('t', '1')");
    assert_eq!(state, SqlState::CONNECTION_FAILURE);
    world
        .redis
        .cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    world.wait_for_status("NOT connected AND last_error LIKE 'refused: %'");
}
