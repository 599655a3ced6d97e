//! A Redis Cluster of which a master is away, without a replica: the keys of the others are written meanwhile, and its
//! own in their order when it is back (rule 5).

mod redis_support;

use std::time::Duration;

use pg_redis_cache_core::redis::{Event, Expiry, LossReason, Settings};
use pg_redis_cache_tests::RedisCluster;
use redis_support::{Bench, encode_fields, eventually, settings, target, ttl};

const KEYS: usize = 90;

/// Three masters of which each goes on if another one is away.
fn cluster() -> RedisCluster {
    let cluster = RedisCluster::start(3, false);
    for node in &cluster.nodes {
        let words = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        let _: () = node.ask(&words).unwrap();
    }
    cluster
}

fn start(cluster: &RedisCluster) -> Bench {
    let mut bench = Bench::start(
        2,
        Settings {
            command_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            ..settings(&cluster.url())
        },
    );
    bench.wait_for("a connection", |event| {
        matches!(event, Event::Connected { changed: true, .. })
    });
    bench
}

fn name(key: usize) -> String {
    format!("v:{key}")
}

/// Writes the version to all keys; to some of them by several commands, and an older one before it.
fn write(bench: &mut Bench, version: u64) -> u64 {
    bench.write(|chunk| {
        for key in 0..KEYS {
            let name = name(key);
            let target = target(0, name.as_bytes());
            let text = version.to_string();
            if key % 3 == 0 {
                chunk.store_text(target, b"0", Expiry::Never, false);
                chunk.delete(target, None);
            }
            if key % 5 == 0 && version.is_multiple_of(2) {
                let fields = encode_fields(false, &[(b"version", text.as_bytes())]);
                chunk.store_hash(target, &fields, ttl(600_000), false);
                chunk.delete(target, None);
            }
            chunk.store_text(target, text.as_bytes(), ttl(600_000), false);
        }
    })
}

/// The keys that this node holds with that version.
fn held(cluster: &RedisCluster, node: usize, version: u64) -> usize {
    let Ok(keys) = cluster.nodes[node].ask::<Vec<String>>(&["KEYS", "v:*"]) else {
        return 0;
    };
    let is_new = |key: &&String| {
        let found = cluster.nodes[node].ask::<Option<u64>>(&["GET", key]);
        matches!(found, Ok(Some(found)) if found == version)
    };
    keys.iter().filter(is_new).count()
}

fn held_by_all(cluster: &RedisCluster, nodes: &[usize], version: u64) -> usize {
    nodes.iter().map(|node| held(cluster, *node, version)).sum()
}

/// While `away` is away: the keys of the others become fresh again and again, and nothing is acknowledged.
fn others_go_on(
    cluster: &RedisCluster,
    bench: &mut Bench,
    away: usize,
    versions: std::ops::Range<u64>,
) -> Vec<u64> {
    let others: Vec<usize> = (0..3).filter(|node| *node != away).collect();
    let count = held_by_all(cluster, &others, versions.start - 1);
    assert!(count > 0 && count < KEYS, "{count} keys are with the others");
    let mut chunks = Vec::new();
    for version in versions {
        chunks.push(write(bench, version));
        eventually("the keys of the others to be fresh", || {
            held_by_all(cluster, &others, version) == count
        });
    }
    let last = chunks[chunks.len() - 1];
    bench.wait_for(
        "what waits to be told",
        |event| matches!(event, Event::HeldUp { chunk } if *chunk == last),
    );
    let is_acknowledged =
        |event: &Event| matches!(event, Event::Acknowledged { chunk, .. } if *chunk >= chunks[0]);
    assert!(!bench.events.iter().any(is_acknowledged));
    chunks
}

fn in_the_end(cluster: &RedisCluster, mut bench: Bench, chunks: &[u64], version: u64) -> Vec<Event> {
    bench.wait_for_chunk(chunks[chunks.len() - 1]);
    assert_eq!(held_by_all(cluster, &[0, 1, 2], version), KEYS);
    bench.stop()
}

#[test]
fn one_that_is_killed_holds_only_its_own_keys_up() {
    let mut cluster = cluster();
    let mut bench = start(&cluster);
    let first = write(&mut bench, 1);
    bench.wait_for_chunk(first);
    let away = cluster.master_of("v:1");
    cluster.nodes[away].kill();
    let chunks = others_go_on(&cluster, &mut bench, away, 2..12);
    let lost = |event: &Event| matches!(event, Event::Disconnected { .. });
    assert!(bench.events.iter().any(lost), "that it is away is told");
    cluster.nodes[away].start_again();
    let events = in_the_end(&cluster, bench, &chunks, 11);
    let changed = |event: &&Event| matches!(event, Event::Connected { changed: true, .. });
    assert_eq!(
        events.iter().filter(changed).count(),
        2,
        "another process is another server"
    );
    assert!(!events.iter().any(|event| matches!(event, Event::Lost { .. })));
}

#[test]
fn what_is_only_for_the_others_takes_no_room_behind_what_waits() {
    let mut cluster = cluster();
    let mut bench = start(&cluster);
    let away = cluster.master_of("v:1");
    let is_for_others = |key: &usize| cluster.master_of(&name(*key)) != away;
    let others: Vec<usize> = (0..KEYS).filter(is_for_others).collect();
    cluster.nodes[away].kill();
    let write = |bench: &mut Bench, name: &str| {
        bench.write(|chunk| chunk.store_text(target(0, name.as_bytes()), b"1", ttl(600_000), false))
    };
    let first = write(&mut bench, "v:1");
    for round in 0..300 {
        let chunk = write(&mut bench, &name(others[round % others.len()]));
        bench.wait_for(
            "a chunk behind the first to be told of",
            |event| matches!(event, Event::HeldUp { chunk: told } if *told == chunk),
        );
    }
    cluster.nodes[away].start_again();
    bench.wait_for_chunk(first + 300);
    bench.stop();
}

#[test]
fn one_that_hangs_runs_nothing_old_when_it_is_back() {
    let cluster = cluster();
    let mut bench = start(&cluster);
    let first = write(&mut bench, 1);
    bench.wait_for_chunk(first);
    let away = cluster.master_of("v:1");
    for round in 0..3 {
        // What is sent before it is known to hang is in its socket, and runs when it goes on.
        cluster.nodes[away].freeze();
        let from = 2 + round * 5;
        let chunks = others_go_on(&cluster, &mut bench, away, from..from + 5);
        cluster.nodes[away].thaw();
        bench.wait_for_chunk(chunks[4]);
        assert_eq!(held_by_all(&cluster, &[0, 1, 2], from + 4), KEYS);
    }
    let events = bench.stop();
    let changed = |event: &&Event| matches!(event, Event::Connected { changed: true, .. });
    assert_eq!(events.iter().filter(changed).count(), 1, "it is the same process");
    assert!(!events.iter().any(|event| matches!(event, Event::Lost { .. })));
}

#[test]
fn slots_of_the_others_move_while_one_is_away() {
    let cluster = cluster();
    let mut bench = start(&cluster);
    let first = write(&mut bench, 1);
    bench.wait_for_chunk(first);
    let away = cluster.master_of("v:1");
    let (from, to) = ((away + 1) % 3, (away + 2) % 3);
    cluster.nodes[away].freeze();
    let moved: Vec<String> = (0..KEYS)
        .map(name)
        .filter(|key| cluster.nodes[from].ask::<i64>(&["EXISTS", key]).is_ok())
        .collect();
    let mut chunks = others_go_on(&cluster, &mut bench, away, 2..4);
    for (round, key) in moved.iter().take(6).enumerate() {
        cluster.move_slot_of(key, from, to);
        let version = 4 + round as u64;
        chunks.extend(others_go_on(&cluster, &mut bench, away, version..version + 1));
    }
    cluster.nodes[away].thaw();
    let version = 3 + moved.len().min(6) as u64;
    let events = in_the_end(&cluster, bench, &chunks, version);
    assert!(!events.iter().any(|event| matches!(event, Event::Lost { .. })));
}

#[test]
fn a_stop_does_not_wait_for_one_that_is_away() {
    let mut cluster = cluster();
    let mut bench = start(&cluster);
    let away = cluster.master_of("v:1");
    cluster.nodes[away].kill();
    let first = write(&mut bench, 1);
    bench.wait_for("the trouble", |event| matches!(event, Event::Disconnected { .. }));
    bench.wait_for(
        "what waits to be told",
        |event| matches!(event, Event::HeldUp { chunk } if *chunk == first),
    );
    let others: Vec<usize> = (0..3).filter(|node| *node != away).collect();
    let count = held_by_all(&cluster, &others, 1);
    assert!(count > 0);
    // Both lanes know by then that they cannot reach it.
    std::thread::sleep(Duration::from_millis(500));
    for version in 2..100 {
        write(&mut bench, version);
    }
    let events = bench.stop();
    assert_eq!(
        held_by_all(&cluster, &others, 99),
        count,
        "what can be written is written"
    );
    assert!(matches!(events.last(), Some(Event::Stopped { drained: false })));
}

/// As after a slot was handed over in one step to a master that was cut off at once, and the old one went on.
#[test]
fn one_that_has_won_slots_when_it_is_back_is_not_believed() {
    let cluster = cluster();
    let mut bench = start(&cluster);
    let (away, other, third) = (0, 1, 2);
    let id = cluster.id(away);
    let is_free = |key: &String| cluster.master_of(key) == other;
    let key = (0..).map(|n| format!("free:{n}")).find(is_free).unwrap();
    let slot: u16 = cluster.nodes[other].ask(&["CLUSTER", "KEYSLOT", &key]).unwrap();
    cluster.nodes[away].freeze();
    let first = write(&mut bench, 1);
    bench.wait_for("it to be missed", |event| {
        matches!(event, Event::Disconnected { .. })
    });
    for node in [other, third] {
        let words = ["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &id];
        let _: () = cluster.nodes[node].ask(&words).unwrap();
    }
    bench.wait_for("everything to be in doubt", |event| {
        let all = |reason: &LossReason| *reason == LossReason::TakenOver;
        matches!(event, Event::Lost { mapping: None, reason, .. } if all(reason))
    });
    cluster.nodes[away].thaw();
    bench.wait_for_chunk(first);
}
