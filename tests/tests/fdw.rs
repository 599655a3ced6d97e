//! Foreign tables when Redis, the connection or the statement ends in the middle: a clear error, no wrong row, and a
//! next statement that works.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pg_redis_cache_tests::{World, eventually, private_kilobytes, refusal};
use postgres::{Client, error::SqlState};

/// Both servers, and foreign tables over a hash `h`, a set `s` and a list `l` by way of the proxy.
fn world() -> World {
    let world = World::builder().proxied().start();
    let address = world.proxy().url();
    world.execute(&format!(
        "CREATE SERVER r FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port '{address}');
         CREATE FOREIGN TABLE h (field text, value text) SERVER r OPTIONS (table_type 'hash', table_key_prefix 'h');
         CREATE FOREIGN TABLE s (member text) SERVER r OPTIONS (table_type 'set', table_key_prefix 's');
         CREATE FOREIGN TABLE l (element text) SERVER r OPTIONS (table_type 'list', table_key_prefix 'l');
         INSERT INTO h SELECT i, 'value ' || i FROM generate_series(1, 20000) i;
         INSERT INTO l SELECT i FROM generate_series(1, 20000) i"
    ));
    world
}

fn count(client: &mut Client, table: &str) -> i64 {
    let row = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]);
    row.unwrap_or_else(|error| panic!("{error:?}")).get(0)
}

/// The state of the statement's error, with its message.
fn refused(client: &mut Client, sql: &str) -> (SqlState, String) {
    let error = refusal(client, sql);
    (error.code().clone(), error.message().to_owned())
}

/// The id of the backend that serves a client.
fn backend(client: &mut Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0)
}

#[test]
fn a_server_that_is_away_is_told_and_found_again() {
    let mut world = world();
    let mut client = world.connect();
    assert_eq!(count(&mut client, "h"), 20_000);
    world.redis.stop();
    world.proxy().cut();
    let (state, message) = refused(&mut client, "SELECT * FROM h");
    let lost = [
        SqlState::FDW_UNABLE_TO_ESTABLISH_CONNECTION,
        SqlState::CONNECTION_FAILURE,
    ];
    assert!(lost.contains(&state), "{state:?} {message}");
    refused(&mut client, "INSERT INTO h VALUES ('a', 'b')");
    world.redis.start_again();
    client.batch_execute("INSERT INTO h VALUES ('a', 'b')").unwrap();
    let row = client
        .query_one("SELECT value FROM h WHERE field = 'a'", &[])
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "b");
}

#[test]
fn a_connection_that_is_lost_during_a_scan_ends_the_statement_alone() {
    let world = world();
    let mut client = world.connect();
    client
        .batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM l; FETCH 10 FROM c")
        .unwrap();
    world.proxy().cut();
    let (state, _) = refused(&mut client, "MOVE FORWARD ALL IN c");
    assert_eq!(state, SqlState::CONNECTION_FAILURE);
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(count(&mut client, "l"), 20_000);
}

/// Has Redis close every connection.
fn close_all(world: &World) {
    world.proxy().await_closed(|| {
        world.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    });
}

#[test]
fn an_idle_connection_that_was_closed_is_replaced_unnoticed() {
    let world = world();
    let mut client = world.connect();
    for _ in 0..2 {
        assert_eq!(count(&mut client, "h"), 20_000);
        close_all(&world);
        client.batch_execute("INSERT INTO s VALUES ('x')").unwrap();
        assert_eq!(count(&mut client, "s"), 1);
    }
    client.batch_execute("BEGIN").unwrap();
    assert_eq!(count(&mut client, "l"), 20_000);
    close_all(&world);
    assert_eq!(count(&mut client, "h"), 20_000);
    client.batch_execute("COMMIT").unwrap();
}

#[test]
fn what_does_not_answer_is_given_up_after_command_timeout() {
    let world = world();
    world.postgres.set_conf("pg_redis_cache.command_timeout", "200ms");
    world.postgres.reload();
    let mut client = world.connect();
    eventually("the setting to be read", Duration::from_secs(10), || {
        let row = client.query_one("SELECT current_setting('pg_redis_cache.command_timeout')", &[]);
        (row.unwrap().get::<_, &str>(0) == "200ms").then_some(())
    });
    // The first connection, then one that has been used.
    for expected in [
        SqlState::FDW_UNABLE_TO_ESTABLISH_CONNECTION,
        SqlState::CONNECTION_FAILURE,
    ] {
        world.redis.freeze();
        let (state, message) = refused(&mut client, "SELECT * FROM h");
        assert_eq!(state, expected, "{message}");
        world.redis.thaw();
        assert_eq!(count(&mut client, "h"), 20_000);
    }
}

#[test]
fn a_cancel_works_while_redis_does_not_answer() {
    let world = world();
    let mut client = world.connect();
    assert_eq!(count(&mut client, "h"), 20_000);
    world.redis.freeze();
    let (state, _) = refused(&mut client, "SET statement_timeout = '100ms'; SELECT * FROM h");
    assert_eq!(state, SqlState::QUERY_CANCELED);
    let pid = backend(&mut client);
    let canceller = thread::scope(|scope| {
        let mut other = world.connect();
        let canceller = scope.spawn(move || {
            eventually("the statement to wait", Duration::from_secs(10), || {
                let row = other.query_one(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'Extension'",
                    &[&pid],
                );
                row.ok()
            })
        });
        let (state, _) = refused(
            &mut client,
            "SET statement_timeout = 0; INSERT INTO h VALUES ('never', 'seen')",
        );
        assert_eq!(state, SqlState::QUERY_CANCELED);
        canceller.join().is_ok()
    });
    assert!(canceller);
    world.redis.thaw();
    // Nothing that was cut short is taken for the answer to something else.
    for _ in 0..3 {
        let row = client
            .query_one("SELECT value FROM h WHERE field = '77'", &[])
            .unwrap();
        assert_eq!(row.get::<_, &str>(0), "value 77");
        assert_eq!(count(&mut client, "l"), 20_000);
    }
}

#[test]
fn a_failed_savepoint_leaves_an_outer_scan_as_it_was() {
    let world = world();
    let mut client = world.connect();
    client
        .batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT element FROM l; FETCH 10 FROM c; SAVEPOINT here")
        .unwrap();
    refused(&mut client, "SELECT 1 / (length(value) - length(value)) FROM h");
    client.batch_execute("ROLLBACK TO here").unwrap();
    assert_eq!(count(&mut client, "h"), 20_000);
    let rest = client.query("FETCH ALL FROM c", &[]).unwrap();
    let rest: Vec<i32> = rest
        .iter()
        .map(|row| row.get::<_, &str>(0).parse().unwrap())
        .collect();
    assert_eq!(rest, (11..=20_000).collect::<Vec<i32>>());
    client.batch_execute("COMMIT").unwrap();
}

#[test]
fn a_key_that_goes_or_changes_its_type_during_a_scan() {
    let world = world();
    let mut client = world.connect();
    let declare = "BEGIN; DECLARE c CURSOR FOR SELECT * FROM l; FETCH 10 FROM c";
    client.batch_execute(declare).unwrap();
    world.redis.cli(&["DEL", "l"]);
    client.batch_execute("FETCH ALL FROM c; COMMIT").unwrap();
    client
        .batch_execute("INSERT INTO l SELECT i FROM generate_series(1, 20000) i")
        .unwrap();
    client.batch_execute(declare).unwrap();
    world.redis.cli(&["SET", "l", "no list"]);
    let (state, message) = refused(&mut client, "FETCH ALL FROM c");
    assert_eq!(state, SqlState::WRONG_OBJECT_TYPE);
    assert_eq!(message, "the key \"l\" holds another type than list");
}

#[test]
fn a_large_set_is_read_and_written_in_bounded_memory_and_each_member_once() {
    const MEMBERS: i64 = 1_000_000;
    let world = world();
    let mut client = world.connect();
    let pid = u32::try_from(backend(&mut client)).unwrap();
    assert_eq!(count(&mut client, "s"), 0);
    let (_, before) = private_kilobytes(pid);
    let peak = peak_while(pid, || {
        let insert =
            format!("INSERT INTO s SELECT 'member number ' || i FROM generate_series(1, {MEMBERS}) i");
        client.batch_execute(&insert).unwrap();
        assert_eq!(world.redis.cli(&["SCARD", "s"]), format!("(integer) {MEMBERS}"));
        let sum = "SELECT count(*), sum(substr(member, 15)::bigint)::bigint FROM s";
        let row = client.query_one(sum, &[]).unwrap();
        assert_eq!(row.get::<_, i64>(0), MEMBERS);
        assert_eq!(row.get::<_, i64>(1), MEMBERS * (MEMBERS + 1) / 2);
        let delete = "DELETE FROM s WHERE member LIKE '%7'";
        client.batch_execute(delete).unwrap();
        assert_eq!(count(&mut client, "s"), MEMBERS * 9 / 10);
    });
    // The members alone are 20 MB, as rows several times that.
    assert!(peak < before + 32 * 1024, "{before} kB before, {peak} kB at most");
}

/// The most private memory, in kilobytes, that a process had while `work` ran.
fn peak_while(pid: u32, work: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(private_kilobytes(pid).1);
                thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        work();
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    })
}

#[test]
fn a_set_that_shrinks_during_a_scan_shows_no_member_twice_and_misses_none_that_stays() {
    let world = world();
    let mut client = world.connect();
    client
        .batch_execute("INSERT INTO s SELECT i FROM generate_series(1, 200000) i; BEGIN; DECLARE c CURSOR FOR SELECT * FROM s")
        .unwrap();
    let mut seen: Vec<i32> = Vec::new();
    let mut other = world.connect();
    for round in 0.. {
        let rows = client.query("FETCH 10000 FROM c", &[]).unwrap();
        if rows.is_empty() {
            break;
        }
        seen.extend(
            rows.iter()
                .map(|row| row.get::<_, &str>(0).parse::<i32>().unwrap()),
        );
        if round == 5 {
            other
                .batch_execute("DELETE FROM s WHERE member::int > 2000")
                .unwrap();
        }
    }
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), all);
    assert_eq!(seen.iter().filter(|member| **member <= 2000).count(), 2000);
}

#[test]
fn a_backend_that_uses_no_foreign_table_opens_no_connection() {
    let world = world();
    let clients = || {
        let list = world.redis.cli(&["CLIENT", "LIST"]);
        list.matches("id=").count()
    };
    let mut client = world.connect();
    eventually(
        "the session that made the tables to end",
        Duration::from_secs(10),
        || {
            let sql = "SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
            client.query(sql, &[]).unwrap().is_empty().then_some(())
        },
    );
    let before = clients();
    client
        .batch_execute("CREATE TABLE t (a int); SELECT * FROM t; EXPLAIN SELECT * FROM h")
        .unwrap();
    assert_eq!(clients(), before);
    count(&mut client, "h");
    count(&mut client, "l");
    assert_eq!(clients(), before + 1);
}

/// A listener whose queue of connections is full: the next one is neither taken nor refused.
fn deaf_listener() -> (std::net::TcpListener, Vec<std::net::TcpStream>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // SAFETY: an own socket; listening again only changes the length of the queue.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let mut queue = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queue.push(stream);
        assert!(queue.len() < 100, "the queue does not fill");
    }
    (listener, queue)
}

#[test]
fn a_cancel_works_while_connecting_and_so_does_connect_timeout() {
    let world = World::builder().start();
    let (listener, _queue) = deaf_listener();
    let port = listener.local_addr().unwrap().port();
    let mut client = world.connect();
    client
        .batch_execute(&format!(
            "CREATE SERVER deaf FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port '127.0.0.1:{port}');
             CREATE FOREIGN TABLE d (value text) SERVER deaf OPTIONS (table_type 'string', table_key_prefix 'd')"
        ))
        .unwrap();
    let (state, _) = refused(&mut client, "SET statement_timeout = '100ms'; SELECT * FROM d");
    assert_eq!(state, SqlState::QUERY_CANCELED);
    world.postgres.set_conf("pg_redis_cache.connect_timeout", "150ms");
    world.postgres.reload();
    eventually("the setting to be read", Duration::from_secs(10), || {
        let row = client.query_one("SELECT current_setting('pg_redis_cache.connect_timeout')", &[]);
        (row.unwrap().get::<_, &str>(0) == "150ms").then_some(())
    });
    let (state, _) = refused(&mut client, "SET statement_timeout = 0; SELECT * FROM d");
    assert_eq!(state, SqlState::FDW_UNABLE_TO_ESTABLISH_CONNECTION);
}
