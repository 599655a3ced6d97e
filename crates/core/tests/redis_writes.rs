//! What a chunk leaves in Redis: formats, expiry, deletions, purges, and what is counted.

mod redis_support;

use std::collections::HashMap;
use std::sync::Arc;

use pg_redis_cache_core::redis::{Event, Expiry, PurgeJob, Request};
use redis::Commands;
use redis_support::{Bench, Server, encode_fields, settings, target, ttl};

#[test]
fn text_is_stored_as_a_string_whatever_its_bytes() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(2, settings(&server.url("")));
    let large = vec![b'x'; 3 << 20];
    let cases: [(&[u8], &[u8]); 5] = [
        (b"plain", b"value"),
        (b"empty", b""),
        (b"bytes\0\r\n\xff", b"\0\r\n$5\r\n\xff"),
        (b"", b"an empty key is a key"),
        (b"large", &large),
    ];
    bench.write_and_wait(|chunk| {
        for (key, value) in cases {
            chunk.store_text(target(0, key), value, Expiry::Never, false);
        }
    });
    let mut redis = server.client();
    for (key, value) in cases {
        let stored: Option<Vec<u8>> = redis.get(key).unwrap();
        assert!(
            stored.as_deref() == Some(value),
            "{}",
            String::from_utf8_lossy(key)
        );
        assert_eq!(redis.pttl::<_, i64>(key).unwrap(), -1);
    }
    assert_eq!(bench.counts(0), [5, 0, 0, 0, 0]);
}

#[test]
fn a_hash_has_a_field_for_each_column_and_none_of_an_older_row() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(1, settings(&server.url("")));
    let mut redis = server.client();
    let fields =
        |redis: &mut redis::Connection| redis.hgetall::<_, HashMap<String, String>>("user:1").unwrap();

    let whole = encode_fields(true, &[(b"name", b"Ann"), (b"email", b"a@b")]);
    bench.write_and_wait(|chunk| chunk.store_hash(target(0, b"user:1"), &whole, Expiry::Never, true));
    assert_eq!(
        fields(&mut redis),
        HashMap::from([("name".into(), "Ann".into()), ("email".into(), "a@b".into())])
    );

    let without_email = encode_fields(false, &[(b"name", b"Bob")]);
    bench
        .write_and_wait(|chunk| chunk.store_hash(target(0, b"user:1"), &without_email, Expiry::Never, false));
    assert_eq!(fields(&mut redis), HashMap::from([("name".into(), "Bob".into())]));

    let nothing = encode_fields(false, &[]);
    bench.write_and_wait(|chunk| chunk.store_hash(target(0, b"user:1"), &nothing, Expiry::Never, false));
    assert!(!redis.exists::<_, bool>("user:1").unwrap());
    assert_eq!(bench.counts(0), [1, 1, 0, 1, 0]);
}

#[test]
fn an_expiry_is_set_with_each_value() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(1, settings(&server.url("")));
    let fields = encode_fields(true, &[(b"a", b"1")]);
    let partial = encode_fields(false, &[(b"a", b"1")]);
    bench.write_and_wait(|chunk| {
        chunk.store_text(target(0, b"t"), b"1", ttl(500_000), false);
        chunk.store_hash(target(0, b"h"), &fields, ttl(500_000), false);
        chunk.store_hash(target(0, b"p"), &partial, ttl(500_000), false);
        chunk.store_text(target(0, b"short"), b"1", ttl(1), false);
    });
    let mut redis = server.client();
    for key in ["t", "h", "p"] {
        let left: i64 = redis.pttl(key).unwrap();
        assert!((1..=500_000).contains(&left), "{key}: {left}");
    }
    redis_support::eventually("a short expiry passes", || {
        !redis.exists::<_, bool>("short").unwrap()
    });
}

#[test]
fn a_key_of_another_type_is_replaced() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(1, settings(&server.url("")));
    let mut redis = server.client();
    let _: () = redis.set("h", "not a hash").unwrap();
    let _: () = redis.lpush("t", "not a string").unwrap();
    let fields = encode_fields(true, &[(b"a", b"1")]);
    bench.write_and_wait(|chunk| {
        chunk.store_hash(target(0, b"h"), &fields, ttl(500_000), false);
        chunk.store_text(target(0, b"t"), b"text", Expiry::Never, false);
    });
    assert_eq!(redis.hget::<_, _, String>("h", "a").unwrap(), "1");
    assert!(redis.pttl::<_, i64>("h").unwrap() > 0);
    assert_eq!(redis.get::<_, String>("t").unwrap(), "text");
    assert_eq!(bench.counts(0), [2, 0, 0, 0, 1]);
}

#[test]
fn a_key_of_another_type_is_not_brought_back_by_an_earlier_write() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(1, settings(&server.url("")));
    let mut redis = server.client();
    let _: () = redis.set("h", "not a hash").unwrap();
    let fields = encode_fields(true, &[(b"a", b"1")]);
    bench.write_and_wait(|chunk| {
        chunk.store_hash(target(0, b"h"), &fields, Expiry::Never, false);
        chunk.delete(target(0, b"h"), None);
    });
    assert!(!redis.exists::<_, bool>("h").unwrap());
}

#[test]
fn deletions_answer_whether_there_was_a_key() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(1, settings(&server.url("")));
    let mut redis = server.client();
    for n in 0..200 {
        let _: () = redis.set(format!("k{n}"), "1").unwrap();
    }
    bench.write_and_wait(|chunk| {
        for n in 0..199 {
            chunk.delete(target(3, format!("k{n}").as_bytes()), None);
        }
        chunk.delete(target(3, b"k199"), Some(7));
        chunk.delete(target(3, b"k199"), Some(8));
    });
    assert_eq!(redis::cmd("DBSIZE").query::<u64>(&mut redis).unwrap(), 0);
    let answers: Vec<_> = bench
        .events
        .iter()
        .filter_map(|e| {
            if let Event::Answer { ticket, deleted } = e {
                Some((*ticket, *deleted))
            } else {
                None
            }
        })
        .collect();
    assert_eq!(answers, [(7, Some(1)), (8, Some(0))]);
    assert_eq!(bench.counts(3), [0, 0, 0, 201, 0]);
}

#[test]
fn bytes_that_are_no_hash_lose_the_mapping_and_the_key() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(1, settings(&server.url("")));
    let mut redis = server.client();
    let _: () = redis.set("h", "old").unwrap();
    bench.write_and_wait(|chunk| {
        chunk.store_hash(target(4, b"h"), b"\x01\xff", Expiry::Never, false);
        chunk.store_text(target(5, b"t"), b"1", Expiry::Never, false);
    });
    assert!(!redis.exists::<_, bool>("h").unwrap());
    assert!(redis.exists::<_, bool>("t").unwrap());
    let lost: Vec<_> = bench
        .events
        .iter()
        .filter_map(|e| {
            if let Event::Lost { mapping, .. } = e {
                Some(*mapping)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(lost, [Some(4)]);
    assert_eq!(
        (bench.counts(4), bench.counts(5)),
        ([0, 0, 0, 0, 1], [1, 0, 0, 0, 0])
    );
}

#[test]
fn a_write_that_finds_no_memory_deletes_its_key() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let mut bench = Bench::start(1, settings(&server.url("")));
    let mut redis = server.client();
    let fields = encode_fields(true, &[(b"a", b"old")]);
    bench.write_and_wait(|chunk| {
        chunk.store_text(target(0, b"t"), b"old", Expiry::Never, false);
        chunk.store_hash(target(0, b"h"), &fields, Expiry::Never, false);
        chunk.store_text(target(0, b"untouched"), b"old", Expiry::Never, false);
    });
    let _: () = redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxmemory")
        .arg("1")
        .query(&mut redis)
        .unwrap();
    let fields = encode_fields(false, &[(b"a", b"new")]);
    bench.write_and_wait(|chunk| {
        chunk.store_text(target(0, b"t"), b"new", Expiry::Never, false);
        chunk.store_hash(target(0, b"h"), &fields, ttl(1000), true);
    });
    assert_eq!(redis.keys::<_, Vec<String>>("*").unwrap(), ["untouched"]);
    assert_eq!(bench.counts(0), [3, 0, 1, 1, 2]);
    assert!(!bench.events.iter().any(|e| matches!(e, Event::Lost { .. })));
    let told = bench.events.iter().filter_map(|e| match e {
        Event::Full { fault } => Some(fault.to_string()),
        _ => None,
    });
    let told: Vec<String> = told.collect();
    assert!(
        told.len() == 1
            && told[0].starts_with("out of memory: OOM command not allowed when used memory (redis"),
        "{told:?}"
    );
}

#[test]
fn a_purge_takes_the_keys_that_its_matcher_knows_and_no_other() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(2, settings(&server.url("")));
    let mut redis = server.client();
    let mut pipe = redis::pipe();
    for n in 0..5000 {
        pipe.set(format!("user:{n}"), "1").ignore();
    }
    for foreign in ["user:42:cart", "user:", "user:x", "userx", "other"] {
        pipe.set(foreign, "1").ignore();
    }
    pipe.query::<()>(&mut redis).unwrap();
    let is_int = |key: &[u8]| {
        key.strip_prefix(b"user:")
            .is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit))
    };
    let job = PurgeJob {
        mapping: 9,
        epoch: 77,
        glob: b"user:*".to_vec(),
        matches: Arc::new(is_int),
    };
    bench.send(Request::Purge(job));
    bench.wait_for("purge", |e| {
        matches!(
            e,
            Event::Purged {
                mapping: 9,
                epoch: 77,
                keys: 5000
            }
        )
    });
    let mut left: Vec<String> = redis.keys("*").unwrap();
    left.sort();
    assert_eq!(left, ["other", "user:", "user:42:cart", "user:x", "userx"]);
}

#[test]
fn chunks_are_acknowledged_in_order_and_what_was_sent_before_a_stop_is_written() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(4, settings(&server.url("")));
    let mut expected = Vec::new();
    for n in 0..300 {
        expected.push(bench.write(|chunk| {
            for i in 0..n % 7 {
                chunk.store_text(
                    target(0, format!("k{}", (n + i) % 50).as_bytes()),
                    n.to_string().as_bytes(),
                    Expiry::Never,
                    false,
                );
            }
        }));
    }
    let events = bench.stop();
    let acknowledged: Vec<u64> = events
        .iter()
        .filter_map(|e| {
            if let Event::Acknowledged { chunk, .. } = e {
                Some(*chunk)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(acknowledged, expected);
    assert!(matches!(events.last(), Some(Event::Stopped { drained: true })));
}

#[test]
fn a_ping_measures_a_round_trip() {
    let server = Server::start(&[]);
    let mut bench = Bench::start(1, settings(&server.url("")));
    bench.wait_for(
        "connection",
        |e| matches!(e, Event::Pool(state) if state.waiting == 0),
    );
    bench.send(Request::Ping { ticket: 5 });
    bench.wait_for("pong", |e| {
        matches!(
            e,
            Event::Pong {
                ticket: 5,
                round_trip: Ok(_)
            }
        )
    });
}
