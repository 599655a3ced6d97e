//! What Redis refuses: credentials, rights, commands, writes for now; and what is shown of it.

mod redis_support;

use pg_redis_cache_core::redis::{Cause, Event, Expiry, Request, Secret, Settings};
use redis::Commands;
use redis_support::{Bench, Server, purge, settings, target};

#[test]
fn a_wrong_password_is_told_and_shown_nowhere() {
    let server = Server::start(&["--requirepass", "right"]);
    let mut bench = Bench::start(1, settings(&server.url("&pass=hunter2")));
    let place = bench.wait_for("refusal", |e| matches!(e, Event::Disconnected { .. }));
    let Event::Disconnected { fault } = &bench.events[place] else {
        unreachable!()
    };
    let shown = format!("{fault} {fault:?}");
    assert!(
        !shown.contains("hunter2") && shown.contains("pass=***"),
        "{shown}"
    );
    assert!(shown.starts_with("auth: WRONGPASS invalid username"), "{shown}");

    let right = Settings {
        password: Some(Secret::new("right")),
        ..settings(&server.url("&pass=hunter2"))
    };
    assert!(!format!("{right:?}").contains("right"), "{right:?}");
    bench.send(Request::Reconfigure(right));
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"k"), b"1", Expiry::Never, false));
    assert_eq!(server.client_as("&pass=right").get::<_, u64>("k").unwrap(), 1);
}

#[test]
fn a_password_in_the_address_is_used() {
    let server = Server::start(&["--requirepass", "r&ght"]);
    let mut bench = Bench::start(1, settings(&server.url("&pass=r%26ght")));
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"k"), b"1", Expiry::Never, false));
}

#[test]
fn no_error_shows_a_password_a_key_or_a_value() {
    // A server that does not know the commands repeats their arguments.
    let server = Server::start(&["--rename-command", "SET", "", "--rename-command", "UNLINK", ""]);
    let mut bench = Bench::start(1, settings(&server.url("")));
    bench.write_and_wait(|chunk| {
        chunk.store_text(target(6, b"secretkey"), b"secretvalue", Expiry::Never, false)
    });
    bench.send(Request::Reconfigure(settings(
        "redis://bob:hunter2@127.0.0.1:1/0",
    )));
    bench.wait_for("refusal", |e| matches!(e, Event::Disconnected { .. }));
    let shown = format!("{:?}", bench.events);
    for secret in ["secretkey", "secretvalue", "hunter2"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert!(
        shown.contains("unknown command") && shown.contains("bob:***@127.0.0.1:1"),
        "{shown}"
    );
    assert_eq!(bench.lost(), [Some(6)]);
}

#[test]
fn what_a_user_may_not_do_loses_the_mapping() {
    let server = Server::start(&[]);
    let mut redis = server.client();
    let acl = |redis: &mut redis::Connection, rules: &[&str]| {
        redis::cmd("ACL")
            .arg("SETUSER")
            .arg(rules)
            .query::<()>(redis)
            .unwrap();
    };
    acl(&mut redis, &["bob", "on", ">pw", "~*", "+@all", "-unlink"]);
    let mut bench = Bench::start(2, settings(&server.url("&user=bob&pass=pw")));
    bench.write_and_wait(|chunk| {
        chunk.store_text(target(1, b"k"), b"1", Expiry::Never, false);
        chunk.delete(target(2, b"k2"), Some(4));
    });
    assert_eq!(bench.lost(), [Some(2)]);
    assert!(bench.events.iter().any(|e| matches!(
        e,
        Event::Answer {
            ticket: 4,
            deleted: None
        }
    )));
    assert_eq!(
        (bench.counts(1), bench.counts(2)),
        ([1, 0, 0, 0, 0], [0, 0, 0, 0, 1])
    );

    bench.send(purge(1, 3, "k"));
    let place = bench.wait_for("refusal", |e| {
        matches!(
            e,
            Event::PurgeFailed {
                mapping: 1,
                epoch: 3,
                ..
            }
        )
    });
    let shown = format!("{:?}", bench.events[place]);
    assert!(shown.contains("NOPERM") && !shown.contains("pw"), "{shown}");
}

#[test]
fn an_operation_that_breaks_the_connection_each_time_is_given_up_and_the_others_are_not() {
    // A value beyond this is a protocol error to Redis, which ends the connection.
    let server = Server::start(&["--proto-max-bulk-len", "1mb"]);
    let mut redis = server.client();
    let _: () = redis.set("k50", "old").unwrap();
    let mut bench = Bench::start(1, settings(&server.url("")));
    let large = vec![b'x'; (1 << 20) + 1];
    bench.write_and_wait(|chunk| {
        for n in 0..100 {
            let value = if n == 50 { large.as_slice() } else { b"new" };
            chunk.store_text(target(8, format!("k{n}").as_bytes()), value, Expiry::Never, false);
        }
    });
    assert!(!redis.exists::<_, bool>("k50").unwrap());
    assert_eq!(redis::cmd("DBSIZE").query::<u64>(&mut redis).unwrap(), 99);
    assert_eq!(bench.lost(), [Some(8)]);
    assert_eq!(bench.counts(8), [99, 0, 0, 0, 1]);
}

#[test]
fn a_server_that_refuses_for_now_is_waited_for() {
    let server = Server::start(&["--min-replicas-to-write", "1"]);
    let mut bench = Bench::start(2, settings(&server.url("")));
    let id = bench.write(|chunk| {
        chunk.store_text(target(0, b"k"), b"1", Expiry::Never, false);
        chunk.store_text(target(0, b"k"), b"2", Expiry::Never, false);
    });
    bench.wait_for(
        "refusal",
        |e| matches!(e, Event::Refusing { fault } if fault.to_string().contains("NOREPLICAS")),
    );
    let mut redis = server.client();
    set_needed_replicas(&mut redis, 0);
    bench.wait_for_chunk(id);
    assert_eq!(redis.get::<_, u64>("k").unwrap(), 2);
    assert_eq!(bench.lost(), []);
}

#[test]
fn a_master_that_becomes_a_replica_is_left_until_it_is_one_again() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(1, settings(&server.url("")));
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"k"), b"1", Expiry::Never, false));
    let mark = bench.events.len();
    let mut redis = server.client();
    let _: () = redis::cmd("REPLICAOF")
        .arg("127.0.0.1")
        .arg("1")
        .query(&mut redis)
        .unwrap();
    let id = bench.write(|chunk| chunk.store_text(target(0, b"k"), b"2", Expiry::Never, false));
    bench.wait_after(
        mark,
        "refusal",
        |e| matches!(e, Event::Disconnected { fault } if fault.cause == Cause::Replica),
    );
    let _: () = redis::cmd("REPLICAOF")
        .arg("NO")
        .arg("ONE")
        .query(&mut redis)
        .unwrap();
    bench.wait_for_chunk(id);
    // It has another replication id now: its data may have been another's meanwhile.
    bench.wait_after(mark, "announcement", |e| {
        matches!(e, Event::Connected { changed: true, .. })
    });
    assert_eq!(redis.get::<_, u64>("k").unwrap(), 2);
}

#[test]
fn a_purge_that_is_refused_for_now_holds_no_ping_up() {
    let server = Server::start(&[]);
    let mut redis = server.client();
    let mut bench = Bench::start(1, settings(&server.url("")));
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"k"), b"1", Expiry::Never, false));
    set_needed_replicas(&mut redis, 1);
    bench.send(purge(0, 1, "k"));
    bench.wait_for("refusal", |e| matches!(e, Event::Refusing { .. }));
    for ticket in 0..100 {
        bench.send(Request::Ping { ticket });
        bench.wait_for(
            "pong",
            |e| matches!(e, Event::Pong { ticket: answered, .. } if *answered == ticket),
        );
    }
    // One whose waiting the pings share would be tried once for each of them.
    let refused: String = redis::cmd("INFO").arg("errorstats").query(&mut redis).unwrap();
    let refused = refused.split("errorstat_NOREPLICAS:count=").nth(1).unwrap();
    let refused: u32 = refused.split_whitespace().next().unwrap().parse().unwrap();
    assert!(refused < 25, "{refused} attempts");
    set_needed_replicas(&mut redis, 0);
    bench.wait_for("purge", |e| matches!(e, Event::Purged { keys: 1, .. }));
}

fn set_needed_replicas(redis: &mut redis::Connection, count: u64) {
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("min-replicas-to-write")
        .arg(count)
        .query::<()>(redis)
        .unwrap();
}
