//! Foreign tables and what can go wrong around them, where `fdw.rs` does not look: statements that end anywhere and
//! connections that are cut anywhere never make a later answer wrong; secrets stay secret; a long scan can be
//! stopped and takes bounded memory; planning needs no Redis.
//!
//! `PG_REDIS_CACHE_FDW_MEMBERS` is the size of the large collections, 1,000,000 if it is not set.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{Dice, Redis, World, eventually, number, private_kilobytes, refusal};
use postgres::Client;
use postgres::error::{DbError, SqlState};

/// A join for which Redis is asked ahead.
const JOIN: &str = "SELECT * FROM ids JOIN h USING (field)";

const SOON: Duration = Duration::from_secs(20);

/// A server `r` at that address, and tables over it: a hash `h`, a set `s`, a zset `z`, strings `k`.
fn tables(address: &str) -> String {
    let table = |name: &str, columns: &str, kind: &str, key: &str| {
        format!(
            "CREATE FOREIGN TABLE {name} ({columns}) SERVER r OPTIONS (table_type '{kind}', table_key_prefix '{key}');"
        )
    };
    format!("CREATE SERVER r FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port '{address}');")
        + &table("h", "field text, value text", "hash", "h")
        + &table("s", "member text", "set", "s")
        + &table("z", "member text, score float8", "zset", "z")
        + &table("k", "key text, value text", "string", "k:*")
}

fn world() -> World {
    let world = World::builder().proxied().start();
    world.execute(&tables(&world.proxy().url()));
    world.execute("INSERT INTO h SELECT i, 'value ' || i FROM generate_series(1, 20000) i");
    world.execute(
        "CREATE TABLE ids AS SELECT i::text AS field FROM generate_series(1, 5000) i; ANALYZE ids, h",
    );
    world
}

fn backend(client: &mut Client) -> u32 {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    pid.unsigned_abs()
}

/// Every field has its own value, however it is asked for.
fn assert_values(client: &mut Client, dice: &mut Dice) {
    for _ in 0..3 {
        let field = (1 + dice.below(20_000)).to_string();
        let row = client.query_one("SELECT value FROM h WHERE field = $1", &[&field]);
        let value: String = row.unwrap_or_else(|error| panic!("{error:?}")).get(0);
        assert_eq!(value, format!("value {field}"));
    }
}

/// Ends a statement somewhere, in one of many ways.
fn end_somewhere(world: &World, client: &mut Client, dice: &mut Dice) {
    let rows = 1 + dice.below(3_000);
    let cursor = format!("BEGIN; DECLARE c CURSOR FOR SELECT * FROM h; FETCH {rows} FROM c");
    let divides = format!("SELECT 1 / ((SELECT {rows}) - row_number() OVER ()) FROM h");
    let joined = format!("{JOIN} LIMIT {rows}");
    match dice.below(11) {
        0 => drop(refusal(client, &divides)),
        1 => drop(number(
            client,
            &format!("SELECT count(*) FROM (SELECT FROM h LIMIT {rows}) s"),
        )),
        2 => client
            .batch_execute(&format!("{cursor}; CLOSE c; COMMIT"))
            .unwrap(),
        3 => client.batch_execute(&format!("{cursor}; ROLLBACK")).unwrap(),
        4 => {
            client.batch_execute(&format!("{cursor}; SAVEPOINT a")).unwrap();
            refusal(client, &divides);
            client.batch_execute("ROLLBACK TO a").unwrap();
            assert_values(client, dice);
            client.batch_execute("FETCH ALL FROM c; COMMIT").unwrap();
        }
        5 => {
            let sql = "SELECT count(*) FROM h a WHERE EXISTS (SELECT FROM h b WHERE b.field = a.value)";
            let error = refusal(
                client,
                &format!("SET statement_timeout = {}; {sql}", 1 + dice.below(20)),
            );
            assert_eq!(*error.code(), SqlState::QUERY_CANCELED, "{error:?}");
            client.batch_execute("RESET statement_timeout").unwrap();
        }
        6 => {
            client.batch_execute(&cursor).unwrap();
            world.proxy().cut();
            // What was read ahead may be the rest.
            let _ = client.batch_execute("FETCH ALL FROM c");
            client.batch_execute("ROLLBACK").unwrap();
        }
        7 => drop(number(client, &format!("SELECT count(*) FROM ({joined}) s"))),
        8 => drop(refusal(
            client,
            &JOIN.replace('*', &format!("1 / ({rows} - field::int)")),
        )),
        9 => {
            client
                .batch_execute(&format!(
                    "BEGIN; DECLARE j CURSOR FOR {JOIN}; FETCH {rows} FROM j"
                ))
                .unwrap();
            assert_values(client, dice);
            world.proxy().cut();
            // The rest was read ahead, or is asked for over a connection that is gone.
            let _ = client.batch_execute("FETCH ALL FROM j");
            client.batch_execute("ROLLBACK").unwrap();
        }
        _ => {
            let insert = format!("INSERT INTO s SELECT i FROM generate_series(1, {rows}) i");
            refusal(client, &format!("{insert} RETURNING 1 / ({rows} - member::int)"));
        }
    }
}

#[test]
fn no_answer_is_taken_for_another_wherever_a_statement_has_ended() {
    let world = world();
    let mut client = world.connect();
    let mut dice = Dice::new(7);
    for _ in 0..120 {
        end_somewhere(&world, &mut client, &mut dice);
        assert_values(&mut client, &mut dice);
    }
    assert_eq!(number(&mut client, "SELECT count(DISTINCT value) FROM h"), 20_000);
}

/// Has Redis stand still until a write cannot go on, and cancels it.
fn cancel_a_write(world: &World, client: &mut Client) {
    world.redis.freeze();
    let insert = "INSERT INTO s SELECT repeat('long ', 100) || i FROM generate_series(1, 300000) i";
    let error = refusal(client, &format!("SET LOCAL statement_timeout = 700; {insert}"));
    assert_eq!(*error.code(), SqlState::QUERY_CANCELED, "{error:?}");
    world.redis.thaw();
}

/// As patient with Redis as with the statement, so that it is the cancel that ends it.
fn patient_world() -> World {
    let world = World::builder()
        .conf("pg_redis_cache.command_timeout", "60s")
        .start();
    world.execute(&tables(&format!("127.0.0.1:{}", world.redis.port())));
    world.execute("INSERT INTO h SELECT i, 'value ' || i FROM generate_series(1, 20000) i");
    world
}

#[test]
fn a_write_that_was_cancelled_half_sent_harms_no_later_statement() {
    let world = patient_world();
    let (mut client, mut dice) = (world.connect(), Dice::new(1));
    assert_values(&mut client, &mut dice);
    client.batch_execute("BEGIN").unwrap();
    cancel_a_write(&world, &mut client);
    client.batch_execute("ROLLBACK").unwrap();
    assert_values(&mut client, &mut dice);
    let strange = "SELECT count(*) FROM s WHERE member !~ '^(long ){100}[0-9]+$'";
    assert_eq!(number(&mut client, strange), 0);
}

#[test]
fn a_write_that_was_cancelled_in_a_savepoint_leaves_an_outer_scan_as_it_was() {
    let world = patient_world();
    let (mut client, mut dice) = (world.connect(), Dice::new(2));
    client
        .batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM h; FETCH 10 FROM c; SAVEPOINT a")
        .unwrap();
    cancel_a_write(&world, &mut client);
    client.batch_execute("ROLLBACK TO a").unwrap();
    assert_values(&mut client, &mut dice);
    let rest = client.query("FETCH ALL FROM c", &[]).unwrap();
    assert_eq!(rest.len(), 20_000 - 10);
    for row in rest {
        assert_eq!(
            row.get::<_, String>(1),
            format!("value {}", row.get::<_, &str>(0))
        );
    }
    client.batch_execute("COMMIT").unwrap();
}

#[test]
fn a_transaction_goes_on_behind_a_savepoint_when_its_connection_was_lost() {
    let world = world();
    let (mut client, mut dice) = (world.connect(), Dice::new(3));
    client
        .batch_execute("BEGIN; SAVEPOINT a; DECLARE c CURSOR FOR SELECT * FROM h; FETCH 10 FROM c")
        .unwrap();
    world.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let error = refusal(&mut client, "FETCH ALL FROM c");
    assert_eq!(*error.code(), SqlState::CONNECTION_FAILURE, "{error:?}");
    client.batch_execute("ROLLBACK TO a").unwrap();
    assert_values(&mut client, &mut dice);
    client
        .batch_execute("INSERT INTO s VALUES ('written'); COMMIT")
        .unwrap();
    assert_eq!(world.redis.cli(&["SISMEMBER", "s", "written"]), "(integer) 1");
}

#[test]
fn a_connection_that_is_lost_while_rows_are_written_ends_the_statement() {
    let world = world();
    let (mut client, mut dice) = (world.connect(), Dice::new(4));
    assert_values(&mut client, &mut dice);
    world.proxy().hold();
    thread::scope(|scope| {
        scope.spawn(|| {
            eventually("rows on their way", SOON, || {
                world.proxy().keeps_something().then_some(())
            });
            world.proxy().cut();
            world.proxy().release();
        });
        let insert = "INSERT INTO s SELECT i FROM generate_series(1, 200000) i";
        let error = refusal(&mut client, insert);
        assert_eq!(*error.code(), SqlState::CONNECTION_FAILURE, "{error:?}");
    });
    assert_values(&mut client, &mut dice);
}

#[test]
fn a_long_scan_that_finds_nothing_can_be_stopped() {
    let world = world();
    let fill = "for i = 1, 300000 do redis.call('SET', 'other:' .. i, i) end";
    world.redis.cli(&["EVAL", fill, "0"]);
    world.proxy().delay(Duration::from_millis(20));
    let (mut client, mut dice) = (world.connect(), Dice::new(5));
    let error = refusal(&mut client, "SET statement_timeout = 300; SELECT * FROM k");
    assert_eq!(*error.code(), SqlState::QUERY_CANCELED, "{error:?}");
    client.batch_execute("RESET statement_timeout").unwrap();
    assert_values(&mut client, &mut dice);
    let pid = backend(&mut client) as i32;
    let mut other = world.connect();
    thread::scope(|scope| {
        let cancel = scope.spawn(move || {
            let sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
                           WHERE pid = $1 AND state = 'active' AND query LIKE '%FROM k'";
            eventually("the scan", SOON, || other.query_one(sql, &[&pid]).ok())
        });
        let error = refusal(&mut client, "SELECT * FROM k");
        assert_eq!(*error.code(), SqlState::QUERY_CANCELED, "{error:?}");
        cancel.join().unwrap();
    });
    assert_values(&mut client, &mut dice);
    world.proxy().delay(Duration::ZERO);
    assert_eq!(number(&mut client, "SELECT count(*) FROM k"), 0);
}

/// How many members the large collections have.
fn members() -> u64 {
    let set = std::env::var("PG_REDIS_CACHE_FDW_MEMBERS").ok();
    set.map_or(1_000_000, |number| number.parse().expect("a number"))
}

/// By how many kilobytes a backend grew at most while it ran a statement.
fn growth(client: &mut Client, sql: &str) -> (u64, i64, i64) {
    let pid = backend(client);
    let done = AtomicBool::new(false);
    let (_, before) = private_kilobytes(pid);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Acquire) {
                most = most.max(private_kilobytes(pid).1);
                thread::sleep(Duration::from_millis(10));
            }
            most
        });
        let row = client.query_one(sql, &[]);
        done.store(true, Ordering::Release);
        let row = row.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        (
            watch.join().unwrap().saturating_sub(before),
            row.get(0),
            row.get(1),
        )
    })
}

#[test]
fn large_collections_are_scanned_in_bounded_memory_and_each_member_once() {
    const ALLOWED_KB: u64 = 32 * 1024;
    let world = World::builder()
        .conf("pg_redis_cache.command_timeout", "60s")
        .start();
    world.execute(&tables(&format!("127.0.0.1:{}", world.redis.port())));
    let members = members();
    for first in (1..=members).step_by(100_000) {
        let last = (first + 99_999).min(members);
        for call in [
            "'SADD', 's', 'member ' .. i",
            "'ZADD', 'z', i % 7, 'member ' .. i",
        ] {
            let fill = format!("for i = {first}, {last} do redis.call({call}) end");
            world.redis.cli(&["EVAL", &fill, "0"]);
        }
    }
    let mut client = world.connect();
    // What a backend takes for its first statement of this form is no scan's.
    client
        .batch_execute("SET work_mem = '64kB'; SELECT * FROM h; SELECT count(*), sum(length('a')) FROM h")
        .unwrap();
    let sum = i64::try_from(members * (members + 1) / 2).expect("less than a bigint");
    let of = "count(*), sum(substr(member, 8)::bigint)::bigint";
    for from in ["s", "z", "z WHERE score >= 0", "s WHERE member LIKE 'member %'"] {
        let begun = Instant::now();
        let (grown, rows, found) = growth(&mut client, &format!("SELECT {of} FROM {from}"));
        println!("{from}: {members} members, {grown} kB, {:.1?}", begun.elapsed());
        assert_eq!((rows as u64, found), (members, sum), "{from}");
        assert!(grown < ALLOWED_KB, "{from}: the backend grew by {grown} kB");
    }
}

#[test]
fn no_password_is_shown_anywhere() {
    const SECRETS: [&str; 3] = ["swordfish", "wrongfish", "urlfish"];
    let redis = Redis::start_with(&["--requirepass", "swordfish"]);
    let world = World::builder()
        .conf_text("log_min_messages = debug1\nlog_min_error_statement = panic\n")
        .start();
    world.execute(&tables(&format!("127.0.0.1:{}", redis.port())));
    let mut client = world.connect();
    let assert_hidden = |what: &str, text: &str| {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{what} shows {secret}: {text}");
        }
    };
    let shown = |error: &DbError| format!("{error:?}");
    let error = refusal(&mut client, "SELECT * FROM h");
    assert_eq!(
        *error.code(),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        "{error:?}"
    );
    client
        .batch_execute("CREATE USER MAPPING FOR CURRENT_USER SERVER r OPTIONS (password 'wrongfish')")
        .unwrap();
    let error = refusal(&mut client, "SELECT * FROM h");
    assert_eq!(
        *error.code(),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        "{error:?}"
    );
    assert_hidden("the error of a wrong password", &shown(&error));
    client
        .batch_execute("ALTER USER MAPPING FOR CURRENT_USER SERVER r OPTIONS (SET password 'swordfish')")
        .unwrap();
    client.batch_execute("INSERT INTO h VALUES ('a', 'b')").unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM h"), 1);
    for statement in [
        "SELECT * FROM h",
        "UPDATE h SET value = 'c'",
        "INSERT INTO h VALUES ('b', 'c')",
    ] {
        let explain = format!("EXPLAIN (ANALYZE, VERBOSE) {statement}");
        for row in client.query(&explain, &[]).unwrap() {
            assert_hidden("EXPLAIN", row.get(0));
        }
    }
    // In the address, and with an option that is refused.
    let address = format!("redis://:urlfish@127.0.0.1:{}", redis.port());
    for option in ["host_port", "hostport"] {
        let create = format!(
            "CREATE SERVER {option} FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS ({option} '{address}')"
        );
        if let Err(error) = client.batch_execute(&create) {
            assert_hidden(
                "a refused option",
                &shown(error.as_db_error().expect("it came from the server")),
            );
        }
    }
    let table = "CREATE FOREIGN TABLE u (v text) SERVER host_port OPTIONS (table_type 'string', table_key_prefix 'u')";
    client.batch_execute(table).unwrap();
    let error = refusal(&mut client, "SELECT * FROM u");
    assert_hidden("the error of a wrong password in an address", &shown(&error));
    // A Redis, or a proxy, that does not know AUTH repeats what it was given.
    let renamed = Redis::start_with(&["--rename-command", "AUTH", "LOGIN"]);
    world.execute(&format!(
        "CREATE SERVER n FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port '127.0.0.1:{}'); \
         CREATE USER MAPPING FOR CURRENT_USER SERVER n OPTIONS (password 'swordfish'); \
         CREATE FOREIGN TABLE n (v text) SERVER n OPTIONS (table_type 'string', table_key_prefix 'u')",
        renamed.port()
    ));
    let error = refusal(&mut client, "SELECT * FROM n");
    assert_eq!(error.detail(), Some("ERR unknown command"), "{error:?}");
    assert_hidden("the error of an AUTH that is not known", &shown(&error));
    for broken in [
        "redis://:urlfish@",
        "redis://:urlfish@:x",
        "rediss://:urlfish@[::1",
        "http://:urlfish@a:1",
    ] {
        let alter = format!("ALTER SERVER host_port OPTIONS (SET host_port '{broken}')");
        let error = refusal(&mut client, &alter);
        assert_hidden("the error of a broken address", &shown(&error));
    }
    redis.cli(&["CONFIG", "SET", "requirepass", "another"]);
    drop(redis);
    let error = refusal(&mut client, "SELECT * FROM h");
    assert_hidden("the error of a server that is away", &shown(&error));
    assert_hidden("the log", &world.postgres.log());
}

#[test]
fn planning_needs_no_redis() {
    let mut world = world();
    world.redis.stop();
    world.proxy().cut();
    let mut client = world.connect();
    for statement in [
        "EXPLAIN SELECT * FROM h WHERE field = 'a'",
        "EXPLAIN UPDATE h SET value = 'x' WHERE field = 'a'",
        "EXPLAIN DELETE FROM z WHERE score > 3",
        "EXPLAIN SELECT count(*) FROM s",
        "PREPARE p AS SELECT * FROM h JOIN s ON s.member = h.field",
        "CREATE VIEW v AS SELECT * FROM h WHERE field LIKE 'a%'",
        "CREATE FOREIGN TABLE w (value text) SERVER r OPTIONS (table_type 'string', table_key_prefix 'w')",
    ] {
        client
            .batch_execute(statement)
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    let error = refusal(&mut client, "EXECUTE p");
    assert!(
        [
            SqlState::FDW_UNABLE_TO_ESTABLISH_CONNECTION,
            SqlState::CONNECTION_FAILURE
        ]
        .contains(error.code()),
        "{error:?}"
    );
}

#[test]
fn a_connection_ends_with_its_session_and_is_not_shared_with_another_user() {
    let world = World::builder().start();
    world.execute(&tables(&format!("127.0.0.1:{}", world.redis.port())));
    for acl in [["reader", "+@read"], ["writer", "+@all"]] {
        world.redis.cli(&[
            "ACL",
            "SETUSER",
            acl[0],
            "on",
            ">secret",
            "~*",
            "+@connection",
            acl[1],
        ]);
    }
    world.execute(
        "CREATE ROLE reader; CREATE ROLE writer; GRANT ALL ON h TO reader, writer; \
         CREATE USER MAPPING FOR reader SERVER r OPTIONS (username 'reader', password 'secret'); \
         CREATE USER MAPPING FOR writer SERVER r OPTIONS (username 'writer', password 'secret')",
    );
    let named = |name: &str| {
        let list = world.redis.cli(&["CLIENT", "LIST"]);
        list.matches(&format!("user={name} ")).count()
    };
    let mut client = world.connect();
    for _ in 0..2 {
        client
            .batch_execute("SET ROLE writer; INSERT INTO h VALUES ('a', 'b')")
            .unwrap();
        let error = refusal(&mut client, "SET ROLE reader; INSERT INTO h VALUES ('a', 'c')");
        assert_eq!(*error.code(), SqlState::INSUFFICIENT_PRIVILEGE, "{error:?}");
        client.batch_execute("SET ROLE reader").unwrap();
        assert_eq!(number(&mut client, "SELECT count(*) FROM h WHERE value = 'b'"), 1);
    }
    assert_eq!((named("reader"), named("writer")), (1, 1));
    drop(client);
    eventually("both connections to be closed", SOON, || {
        (named("reader") + named("writer") == 0).then_some(())
    });
}

#[test]
fn a_server_or_user_mapping_that_is_altered_is_used_at_once() {
    let world = World::builder().start();
    let other = Redis::start();
    world.execute(&tables(&format!("127.0.0.1:{}", world.redis.port())));
    let (mut client, mut second) = (world.connect(), world.connect());
    client
        .batch_execute("INSERT INTO h VALUES ('where', 'here')")
        .unwrap();
    other.cli(&["HSET", "h", "where", "there"]);
    let place =
        |client: &mut Client| -> String { client.query_one("SELECT value FROM h", &[]).unwrap().get(0) };
    assert_eq!(
        (place(&mut client), place(&mut second)),
        ("here".to_owned(), "here".to_owned())
    );
    let alter = format!(
        "ALTER SERVER r OPTIONS (SET host_port '127.0.0.1:{}')",
        other.port()
    );
    // Not before it is committed, and not at all when it is not.
    client.batch_execute(&format!("BEGIN; {alter}")).unwrap();
    assert_eq!(
        (place(&mut client), place(&mut second)),
        ("there".to_owned(), "here".to_owned())
    );
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(place(&mut client), "here");
    client.batch_execute(&alter).unwrap();
    assert_eq!(
        (place(&mut client), place(&mut second)),
        ("there".to_owned(), "there".to_owned())
    );
    client
        .batch_execute("ALTER FOREIGN TABLE h OPTIONS (ADD database '3')")
        .unwrap();
    assert_eq!(number(&mut second, "SELECT count(*) FROM h"), 0);
}

#[test]
fn what_redis_refuses_is_an_error_that_says_so() {
    let world = World::builder().start();
    world.execute(&tables(&format!("127.0.0.1:{}", world.redis.port())));
    let mut client = world.connect();
    client.batch_execute("INSERT INTO h VALUES ('a', 'b')").unwrap();
    world.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = refusal(&mut client, "INSERT INTO h VALUES ('b', 'c')");
    assert_eq!(*error.code(), SqlState::OUT_OF_MEMORY, "{error:?}");
    world.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    world.redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = refusal(&mut client, "INSERT INTO h VALUES ('b', 'c')");
    assert_eq!(*error.code(), SqlState::READ_ONLY_SQL_TRANSACTION, "{error:?}");
    assert_eq!(number(&mut client, "SELECT count(*) FROM h"), 1);
    world.redis.cli(&["REPLICAOF", "NO", "ONE"]);
    client.batch_execute("DELETE FROM h").unwrap();
    world.redis.cli(&["SET", "h", "no hash"]);
    for statement in [
        "SELECT * FROM h",
        "INSERT INTO h VALUES ('a', 'b')",
        "TRUNCATE h",
        "DELETE FROM h",
    ] {
        let error = refusal(&mut client, statement);
        assert_eq!(
            *error.code(),
            SqlState::WRONG_OBJECT_TYPE,
            "{statement}: {error:?}"
        );
    }
    // Not even its time to live.
    client
        .batch_execute(
            "CREATE FOREIGN TABLE ht (field text, value text, ttl int) SERVER r \
                 OPTIONS (table_type 'hash', table_key_prefix 'h')",
        )
        .unwrap();
    let error = refusal(&mut client, "INSERT INTO ht VALUES ('a', 'b', 1000)");
    assert_eq!(*error.code(), SqlState::WRONG_OBJECT_TYPE, "{error:?}");
    assert_eq!(world.redis.cli(&["GET", "h"]), "\"no hash\"");
    assert_eq!(world.redis.cli(&["TTL", "h"]), "(integer) -1");
}
