//! The marker of an earlier life (rule 8), and the keys of the worker's own.

mod redis_support;

use std::sync::Arc;

use pg_redis_cache_core::redis::{Event, Expiry, Note, Request, Server as ServerIdentity, Settings};
use redis::Commands;
use redis_support::{Bench, Server, eventually, settings, target, ttl};

const MARKER: &str = "pg_redis_cache:marker:7";

fn start(lanes: usize, settings: Settings) -> Bench {
    Bench::start_with(lanes, settings, Some(MARKER.as_bytes()))
}

/// What was found, in the order of the announcements.
fn markers(bench: &Bench) -> Vec<Option<Vec<u8>>> {
    let found = bench.events.iter().filter_map(|event| match event {
        Event::Connected {
            changed: true,
            marker,
            ..
        } => Some(marker.clone()),
        _ => None,
    });
    found.collect()
}

fn put(bench: &mut Bench, ticket: u64, key: &str, value: Option<&str>, expiry: Expiry) -> Result<(), String> {
    let server = last_server(bench);
    put_on(bench, server, ticket, key, value, expiry)
}

/// The server that was told of last.
fn last_server(bench: &Bench) -> Arc<ServerIdentity> {
    let told = bench.events.iter().rev().find_map(|event| match event {
        Event::Connected { server, .. } => Some(server.clone()),
        _ => None,
    });
    told.expect("a server was reached")
}

/// What is meant for that server.
fn put_on(
    bench: &mut Bench,
    server: Arc<ServerIdentity>,
    ticket: u64,
    key: &str,
    value: Option<&str>,
    expiry: Expiry,
) -> Result<(), String> {
    bench.send(Request::Note(Note {
        ticket,
        server,
        key: key.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
        expiry,
    }));
    let place = bench.wait_for(
        "answer",
        |event| matches!(event, Event::Noted { ticket: answered, .. } if *answered == ticket),
    );
    match &bench.events[place] {
        Event::Noted { result, .. } => result.clone().map_err(|fault| fault.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_of_all_lines_finds_the_marker_and_it_is_gone() {
    for _ in 0..10 {
        let server = Server::start(&[]);
        let mut redis = server.client();
        let _: () = redis.set(MARKER, "clean").unwrap();
        let mut bench = start(8, settings(&server.url("")));
        bench.wait_for(
            "all connections",
            |e| matches!(e, Event::Pool(state) if state.waiting == 0),
        );
        assert!(!redis.exists::<_, bool>(MARKER).unwrap());
        assert_eq!(markers(&bench), [Some(b"clean".to_vec())]);
    }
}

#[test]
fn nothing_is_written_before_the_marker_is_gone() {
    let server = Server::start(&[]);
    let mut redis = server.client();
    let _: () = redis.set(MARKER, "clean").unwrap();
    let mut monitor = server.client();
    // Every command that runs from here on is told in order.
    monitor.send_packed_command(b"MONITOR\r\n").unwrap();
    monitor.recv_response().unwrap();
    let mut bench = start(4, settings(&server.url("")));
    bench.write_and_wait(|chunk| {
        for n in 0..200 {
            chunk.store_text(target(1, format!("k{n}").as_bytes()), b"v", Expiry::Never, false);
        }
    });
    let _: () = redis.set("end", 1).unwrap();
    let mut deleted = false;
    loop {
        let redis::Value::SimpleString(line) = monitor.recv_response().unwrap() else {
            continue;
        };
        deleted |= line.contains("\"UNLINK\"") && line.contains(MARKER);
        assert!(deleted || !line.contains("\"k"), "{line}");
        if line.contains("\"end\"") {
            break;
        }
    }
    assert!(deleted);
}

#[test]
fn a_server_that_is_new_has_its_marker_taken_too() {
    let mut server = Server::start(&[]);
    let mut bench = start(2, settings(&server.url("")));
    bench.write_and_wait(|chunk| chunk.store_text(target(1, b"k"), b"1", Expiry::Never, false));
    // Another database of the same server: not announced, but cleared before anything is written there.
    let mut other = server.client_at(&server.url("").replace("db=0", "db=3"));
    let _: () = other.set(MARKER, "clean").unwrap();
    bench.send(Request::Reconfigure(settings(
        &server.url("").replace("db=0", "db=3"),
    )));
    bench.write_and_wait(|chunk| chunk.store_text(target(1, b"k"), b"2", Expiry::Never, false));
    assert!(!other.exists::<_, bool>(MARKER).unwrap());
    assert_eq!(markers(&bench), [None]);
    // Another process.
    server.kill();
    server.restart();
    bench.write_and_wait(|chunk| chunk.store_text(target(1, b"k"), b"3", Expiry::Never, false));
    assert_eq!(markers(&bench), [None, None]);
}

#[test]
fn a_user_who_may_not_touch_the_marker_writes_all_the_same_and_finds_none() {
    let server = Server::start(&[]);
    let mut redis = server.client();
    let _: () = redis.set(MARKER, "clean").unwrap();
    let rules = ["bob", "on", ">pw", "~k*", "+@all"];
    let _: () = redis::cmd("ACL")
        .arg("SETUSER")
        .arg(&rules)
        .query(&mut redis)
        .unwrap();
    let mut bench = start(2, settings(&server.url("&user=bob&pass=pw")));
    bench.write_and_wait(|chunk| chunk.store_text(target(1, b"k"), b"1", Expiry::Never, false));
    assert_eq!(markers(&bench), [None]);
    assert_eq!(redis.get::<_, String>("k").unwrap(), "1");
    bench.wait_for(
        "all connections",
        |e| matches!(e, Event::Pool(state) if state.waiting == 0),
    );
    let refusal = put(&mut bench, 1, MARKER, Some("x"), Expiry::Never).unwrap_err();
    assert!(refusal.contains("NOPERM"), "{refusal}");
}

#[test]
fn a_server_that_would_not_delete_the_marker_is_not_written_to() {
    // With too few replicas Redis refuses whatever writes, and answers questions.
    let server = Server::start(&["--min-replicas-to-write", "1"]);
    let mut redis = server.client();
    let mut bench = start(2, settings(&server.url("")));
    let chunk = bench.write(|chunk| chunk.store_text(target(1, b"k"), b"1", Expiry::Never, false));
    bench.wait_for("refusal", |e| matches!(e, Event::Disconnected { .. }));
    assert!(markers(&bench).is_empty());
    let _: () = redis::cmd("CONFIG")
        .arg(&["SET", "min-replicas-to-write", "0"])
        .query(&mut redis)
        .unwrap();
    bench.wait_for_chunk(chunk);
    assert_eq!(markers(&bench), [None]);
}

#[test]
fn while_the_marker_cannot_be_had_a_loss_is_told_once() {
    let server = Server::start(&["--min-replicas-to-write", "1"]);
    let mut redis = server.client();
    let _: () = redis::cmd("ACL")
        .arg(&["SETUSER", "u", "on", ">secret", "~*", "+@all", "-client"])
        .arg(&["+client|id", "+client|setname", "+client|kill"])
        .query(&mut redis)
        .unwrap();
    let mut bench = start(2, settings(&server.url("&user=u&pass=secret")));
    bench.wait_for("refusal", |e| matches!(e, Event::Disconnected { .. }));
    eventually("attempts", || {
        let stats: String = redis::cmd("INFO").arg("stats").query(&mut redis).unwrap();
        let made = stats
            .lines()
            .find_map(|line| line.strip_prefix("total_connections_received:"));
        made.is_some_and(|made| made.trim().parse::<u64>().unwrap() > 10)
    });
    let _: () = redis::cmd("CONFIG")
        .arg(&["SET", "min-replicas-to-write", "0"])
        .query(&mut redis)
        .unwrap();
    bench.write_and_wait(|chunk| chunk.store_text(target(1, b"k"), b"1", Expiry::Never, false));
    let losses = bench.events.iter().filter(|e| matches!(e, Event::Lost { .. }));
    assert_eq!(losses.count(), 1);
}

#[test]
fn a_note_is_stored_expires_and_is_deleted() {
    let mut server = Server::start(&[]);
    let mut redis = server.client();
    let mut bench = start(1, settings(&server.url("")));
    bench.wait_for("connection", |e| matches!(e, Event::Connected { .. }));
    bench.wait_for(
        "all connections",
        |e| matches!(e, Event::Pool(state) if state.waiting == 0),
    );
    assert_eq!(put(&mut bench, 1, "own", Some("a"), Expiry::Never), Ok(()));
    assert_eq!(redis.get::<_, String>("own").unwrap(), "a");
    assert_eq!(redis.pttl::<_, i64>("own").unwrap(), -1);
    assert_eq!(put(&mut bench, 2, "own", Some("b"), ttl(60_000)), Ok(()));
    assert_eq!(redis.get::<_, String>("own").unwrap(), "b");
    assert!((1..=60_000).contains(&redis.pttl::<_, i64>("own").unwrap()));
    assert_eq!(put(&mut bench, 3, "own", None, Expiry::Never), Ok(()));
    assert!(!redis.exists::<_, bool>("own").unwrap());
    server.kill();
    assert!(put(&mut bench, 4, "own", Some("c"), Expiry::Never).is_err());
}

#[test]
fn a_note_for_the_server_before_is_not_stored() {
    let mut server = Server::start(&[]);
    let mut bench = start(1, settings(&server.url("")));
    bench.wait_for("connection", |e| matches!(e, Event::Connected { .. }));
    let before = last_server(&bench);
    let told = bench.events.len();
    server.kill();
    server.restart();
    bench.wait_after(told, "another server", |e| {
        matches!(e, Event::Connected { changed: true, .. })
    });
    bench.wait_after(
        told,
        "all connections",
        |e| matches!(e, Event::Pool(state) if state.waiting == 0),
    );
    let refused = put_on(&mut bench, before, 1, "own", Some("a"), Expiry::Never);
    assert!(refused.is_err(), "it was taken");
    let mut redis = server.client();
    assert!(!redis.exists::<_, bool>("own").unwrap());
    assert_eq!(put(&mut bench, 2, "own", Some("a"), Expiry::Never), Ok(()));
}
