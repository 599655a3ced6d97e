//! What holds for a Redis Cluster whose masters fail and whose slots move.

mod redis_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pg_redis_cache_core::redis::{Cause, Event, Expiry, Request, Settings};
use pg_redis_cache_tests::{Port, RedisCluster};
use redis_support::versions::write_versions_by;
use redis_support::{Bench, Server, encode_fields, eventually, purge, settings, target, ttl};

fn connected(event: &Event) -> bool {
    matches!(event, Event::Connected { changed: true, .. })
}

/// Writes ever newer versions of some keys until told to stop; returns the last version of each.
fn write_versions(bench: &mut Bench, keys: usize, stop: &AtomicBool) -> Vec<u64> {
    let goes_on = |_| !stop.load(Ordering::Relaxed);
    write_versions_by(bench, keys, 50, goes_on, |chunk, name, version| {
        let text = version.to_string();
        // Of several commands, of one, and none that stays.
        match version % 5 {
            0 => {
                let fields = encode_fields(false, &[(b"version", text.as_bytes())]);
                chunk.store_hash(name, &fields, ttl(600_000), false);
            }
            1 => {
                chunk.delete(name, None);
                chunk.store_text(name, text.as_bytes(), Expiry::Never, false);
            }
            _ => chunk.store_text(name, text.as_bytes(), ttl(600_000), false),
        }
    })
}

fn check_versions(cluster: &RedisCluster, last: &[u64]) {
    for (key, version) in last.iter().enumerate().filter(|(_, version)| **version > 0) {
        let name = format!("v:{key}");
        let kind: String = cluster.ask(&["TYPE", &name]);
        // Where its master is: TYPE of a node that does not have the slot is an error.
        let found: Option<u64> = match kind.as_str() {
            "hash" => cluster.ask(&["HGET", &name, "version"]),
            _ => cluster.ask(&["GET", &name]),
        };
        assert_eq!(found, Some(*version), "{name}");
    }
}

/// The same where a master is lost, and with it what it had not told its replica: everything is written once more before
/// it is looked at.
fn with_a_master_lost(
    cluster: &mut RedisCluster,
    keys: usize,
    change: impl FnOnce(&mut RedisCluster),
) -> Vec<Event> {
    let (mut bench, _) = load(cluster, keys, change);
    let all: Vec<u64> = (0..keys as u64).map(|key| 1_000_000_000 + key).collect();
    bench.write_and_wait(|chunk| {
        for (key, version) in all.iter().enumerate() {
            let name = format!("v:{key}");
            chunk.store_text(
                target(0, name.as_bytes()),
                version.to_string().as_bytes(),
                Expiry::Never,
                false,
            );
        }
    });
    check_versions(cluster, &all);
    bench.stop()
}

/// Writes while `change` changes the cluster; then each key holds what was written last.
fn under_load(cluster: &mut RedisCluster, keys: usize, change: impl FnOnce(&mut RedisCluster)) -> Vec<Event> {
    let (bench, last) = load(cluster, keys, change);
    check_versions(cluster, &last);
    bench.stop()
}

fn load(
    cluster: &mut RedisCluster,
    keys: usize,
    change: impl FnOnce(&mut RedisCluster),
) -> (Bench, Vec<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let mut bench = Bench::start(3, settings(&cluster.url()));
    bench.wait_for("a connection", connected);
    let writer = std::thread::spawn(move || {
        let last = write_versions(&mut bench, keys, &told);
        (bench, last)
    });
    change(cluster);
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap()
}

#[test]
fn each_key_goes_to_the_master_of_its_slot() {
    let cluster = RedisCluster::start(3, false);
    let mut bench = Bench::start(2, settings(&cluster.url()));
    bench.write_and_wait(|chunk| {
        for number in 0..300 {
            let key = format!("v:{number}");
            chunk.store_text(target(0, key.as_bytes()), key.as_bytes(), Expiry::Never, false);
        }
        for number in 0..100 {
            let key = format!("v:{number}");
            chunk.delete(target(0, key.as_bytes()), (number < 10).then_some(number));
        }
    });
    let strings = cluster.strings();
    assert_eq!(strings.len(), 200);
    assert!(strings.iter().all(|(key, value)| key == value));
    for number in 0..10 {
        bench.wait_for(
            "an answer",
            |event| matches!(event, Event::Answer { ticket, deleted: Some(1) } if *ticket == number),
        );
    }
    bench.send(Request::Ping { ticket: 7 });
    bench.wait_for("a pong", |event| {
        matches!(
            event,
            Event::Pong {
                ticket: 7,
                round_trip: Ok(_)
            }
        )
    });
    bench.send(purge(3, 1, "v:"));
    let place = bench.wait_for("the purge", |event| matches!(event, Event::Purged { .. }));
    let Event::Purged { mapping: 3, keys, .. } = bench.events[place] else {
        panic!("{:?}", bench.events[place]);
    };
    assert_eq!(keys, 200);
    assert!(cluster.strings().is_empty());
    let events = bench.stop();
    assert_eq!(events.iter().filter(|event| connected(event)).count(), 1);
}

#[test]
fn while_slots_move_no_key_goes_back() {
    let mut cluster = RedisCluster::start(3, false);
    let events = under_load(&mut cluster, 300, |cluster| {
        cluster.reshard(0, 1, 300);
        cluster.reshard(1, 2, 300);
        cluster.reshard(2, 0, 300);
    });
    assert!(!events.iter().any(|event| matches!(event, Event::Lost { .. })));
    assert_eq!(events.iter().filter(|event| connected(event)).count(), 1);
}

#[test]
fn a_node_that_joins_is_met_before_it_is_written_to() {
    let mut cluster = RedisCluster::start(3, false);
    let events = under_load(&mut cluster, 300, |cluster| {
        cluster.join();
        cluster.reshard(0, 3, 500);
    });
    assert_eq!(events.iter().filter(|event| connected(event)).count(), 2);
}

#[test]
fn a_replica_that_takes_over_is_met_and_written_to() {
    let mut cluster = RedisCluster::start(3, true);
    let events = with_a_master_lost(&mut cluster, 300, |cluster| {
        let victim = cluster.master_of("v:1");
        cluster.nodes[victim].kill();
        eventually("another master", || {
            let alive = |number: &usize| *number != victim;
            let mut others = (0..cluster.nodes.len()).filter(alive);
            others.any(|number| cluster.nodes[number].ask::<i64>(&["EXISTS", "v:1"]).is_ok())
        });
    });
    assert_eq!(events.iter().filter(|event| connected(event)).count(), 2);
    let is_away = |event: &Event| matches!(event, Event::Disconnected { .. });
    assert!(events.iter().any(is_away));
}

#[test]
fn a_master_that_hangs_is_left_for_its_replica() {
    let mut cluster = RedisCluster::start(3, true);
    let victim = cluster.master_of("v:1");
    let events = with_a_master_lost(&mut cluster, 100, |cluster| {
        cluster.nodes[victim].freeze();
        eventually("another master", || {
            let mut others = (0..cluster.nodes.len()).filter(|number| *number != victim);
            others.any(|number| cluster.nodes[number].ask::<i64>(&["EXISTS", "v:1"]).is_ok())
        });
        cluster.nodes[victim].thaw();
        eventually("a replica", || {
            let role: redis::Value = cluster.nodes[victim].ask(&["ROLE"]).unwrap();
            format!("{role:?}").contains("slave")
        });
    });
    assert!(events.iter().filter(|event| connected(event)).count() >= 2);
}

#[test]
fn what_was_sent_to_a_master_does_not_run_once_the_slot_is_back() {
    let cluster = RedisCluster::start_proxied(3, false);
    let mut bench = Bench::start(
        1,
        Settings {
            command_timeout: Duration::from_secs(1),
            ..settings(&cluster.url())
        },
    );
    let write = |chunk: &mut pg_redis_cache_core::redis::Chunk, version: &str| {
        chunk.store_text(target(0, b"v:1"), version.as_bytes(), Expiry::Never, false);
    };
    bench.write_and_wait(|chunk| write(chunk, "1"));
    let from = cluster.master_of("v:1");
    let to = (from + 1) % 3;
    cluster.line(from).hold();
    let second = bench.write(|chunk| write(chunk, "2"));
    eventually("something to be kept", || cluster.line(from).keeps_something());
    cluster.move_slot_of("v:1", from, to);
    bench.wait_for_chunk(second);
    bench.write_and_wait(|chunk| write(chunk, "3"));
    assert_eq!(cluster.master_of("v:1"), to);
    cluster.move_slot_of("v:1", to, from);
    cluster.line(from).release();
    assert_eq!(cluster.strings().get("v:1").map(String::as_str), Some("3"));
    assert!(
        !bench
            .events
            .iter()
            .any(|event| matches!(event, Event::Lost { .. }))
    );
}

#[test]
fn a_purge_misses_no_key_that_is_on_its_way() {
    let cluster = RedisCluster::start(3, false);
    let mut bench = Bench::start(2, settings(&cluster.url()));
    for _ in 0..5 {
        bench.write_and_wait(|chunk| {
            for number in 0..20_000 {
                let key = format!("v:{number}");
                chunk.store_text(target(0, key.as_bytes()), b"x", Expiry::Never, false);
            }
        });
        let mark = bench.events.len();
        std::thread::scope(|scope| {
            let moving = scope.spawn(|| {
                cluster.reshard(0, 1, 60);
                cluster.reshard(2, 0, 60);
            });
            bench.send(purge(0, 1, "v:"));
            bench.wait_after(mark, "the purge", |event| matches!(event, Event::Purged { .. }));
            moving.join().unwrap();
        });
        assert_eq!(cluster.strings().len(), 0);
    }
}

/// Handed over in one step, a slot is on its way at no look at the cluster: its keys are here at one moment, and there
/// at the next.
#[test]
fn a_purge_misses_no_key_that_is_handed_over() {
    let cluster = RedisCluster::start(3, false);
    if !cluster.migrate(0, 1, 0..=0) {
        println!("this version moves slots key by key alone");
        return;
    }
    let mut bench = Bench::start(2, settings(&cluster.url()));
    for round in 0..3 {
        bench.write_and_wait(|chunk| {
            for number in 0..15_000 {
                let key = format!("v:{number}");
                chunk.store_text(target(0, key.as_bytes()), b"x", Expiry::Never, false);
            }
        });
        let mark = bench.events.len();
        std::thread::scope(|scope| {
            let moving = scope.spawn(|| {
                for hop in [2 * round, 2 * round + 1] {
                    cluster.migrate(hop % 3, (hop + 1) % 3, 1..=3000);
                }
            });
            bench.send(purge(0, 1, "v:"));
            bench.wait_after(mark, "the purge", |event| matches!(event, Event::Purged { .. }));
            moving.join().unwrap();
        });
        assert_eq!(cluster.strings().len(), 0);
    }
}

#[test]
fn a_slot_that_stays_half_way_is_written_to_and_purged() {
    let mut cluster = RedisCluster::start(3, false);
    cluster.join();
    let (from, to) = (cluster.master_of("v:1"), 3);
    let slot: i64 = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", "v:1"]).unwrap();
    let (from_id, to_id) = (cluster.id(from), cluster.id(to));
    let set = |node: usize, words: [&str; 2]| {
        let words = ["CLUSTER", "SETSLOT", &slot.to_string(), words[0], words[1]];
        let _: redis::Value = cluster.nodes[node].ask(&words).unwrap();
    };
    set(to, ["IMPORTING", &from_id]);
    set(from, ["MIGRATING", &to_id]);
    let mut bench = Bench::start(2, settings(&cluster.url()));
    bench.write_and_wait(|chunk| {
        let name = target(0, b"v:1");
        let fields = encode_fields(false, &[(b"a", b"1")]);
        chunk.store_hash(name, &fields, ttl(600_000), true);
        chunk.store_text(target(0, b"v:2"), b"2", Expiry::Never, false);
    });
    let keys = |node: usize| cluster.nodes[node].ask::<Vec<String>>(&["KEYS", "v:1"]).unwrap();
    assert_eq!((keys(from).len(), keys(to).len()), (0, 1));
    bench.send(purge(0, 1, "v:"));
    let place = bench.wait_for("the purge", |event| matches!(event, Event::Purged { .. }));
    assert!(matches!(bench.events[place], Event::Purged { keys: 2, .. }));
    assert_eq!(keys(to).len(), 0);
    assert_eq!(bench.counts(0), [1, 1, 0, 0, 0]);
}

#[test]
fn the_marker_is_taken_from_where_its_slot_is() {
    let cluster = RedisCluster::start(3, false);
    let key = "pg_redis_cache:marker";
    let _: String = cluster.ask(&["SET", key, "old"]);
    let mut bench = Bench::start_with(2, settings(&cluster.url()), Some(key.as_bytes()));
    let place = bench.wait_for("a connection", connected);
    let Event::Connected { marker, server, .. } = &bench.events[place] else {
        panic!();
    };
    assert_eq!(marker.as_deref(), Some(&b"old"[..]));
    assert_eq!(server.run_id.split(',').count(), 3);
    assert_eq!(cluster.ask::<i64>(&["EXISTS", key]), 0);
}

#[test]
fn a_stop_does_not_wait_for_a_cluster_that_is_not_there() {
    let mut bench = Bench::start(2, settings("redis-cluster://127.0.0.1:1,127.0.0.1:2"));
    bench.write(|chunk| chunk.store_text(target(0, b"k"), b"1", Expiry::Never, false));
    bench.wait_for("the trouble", |event| matches!(event, Event::Disconnected { .. }));
    let events = bench.stop();
    assert!(matches!(events.last(), Some(Event::Stopped { drained: false })));
}

#[test]
fn a_slot_without_a_master_is_told_and_holds_only_its_own_keys_up() {
    let cluster = RedisCluster::start(3, false);
    let slot: i64 = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", "v:1"]).unwrap();
    let slot = slot.to_string();
    let owner = cluster.master_of("v:1");
    for node in &cluster.nodes {
        let _: () = node
            .ask(&["CONFIG", "SET", "cluster-require-full-coverage", "no"])
            .unwrap();
    }
    let mut bench = Bench::start(2, settings(&cluster.url()));
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"v:1"), b"1", Expiry::Never, false));
    for node in &cluster.nodes {
        let _: () = node.ask(&["CLUSTER", "DELSLOTS", &slot]).unwrap();
    }
    let place = bench.wait_for("the slot to be told", |event| {
        matches!(event, Event::Unserved { fault: Some(_) })
    });
    let Event::Unserved { fault: Some(fault) } = &bench.events[place] else {
        unreachable!()
    };
    let told = format!(
        "rejected: CLUSTERDOWN no master has slot {slot} ({})",
        cluster.url()
    );
    assert_eq!(fault.to_string(), told);
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"v:2"), b"2", Expiry::Never, false));
    let _: () = cluster.nodes[owner].ask(&["CLUSTER", "ADDSLOTS", &slot]).unwrap();
    bench.wait_after(place, "its master", |event| {
        matches!(event, Event::Unserved { fault: None })
    });
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"v:1"), b"3", Expiry::Never, false));
}

#[test]
fn a_node_that_has_left_the_cluster_does_not_stand_for_it() {
    let mut cluster = RedisCluster::start(3, false);
    cluster.join();
    let _: () = cluster.nodes[3].ask(&["CLUSTER", "RESET"]).unwrap();
    let left = format!("redis-cluster://127.0.0.1:{}", cluster.nodes[3].port());
    let mut bench = Bench::start(1, settings(&left));
    let is_told = |event: &Event| matches!(event, Event::Disconnected { fault } if matches!(fault.cause, Cause::Protocol { .. }));
    bench.wait_for("the trouble", is_told);
    bench.send(Request::Reconfigure(settings(&format!(
        "{left},127.0.0.1:{}",
        cluster.nodes[0].port()
    ))));
    bench.write_and_wait(|chunk| chunk.store_text(target(0, b"v:1"), b"1", Expiry::Never, false));
    assert_eq!(cluster.strings().get("v:1").map(String::as_str), Some("1"));
}

#[test]
fn an_address_says_whether_there_is_a_cluster() {
    let cause_at = |url: &str, wanted: &Cause| {
        let mut bench = Bench::start(1, settings(url));
        bench.wait_for(
            "the refusal",
            |event| matches!(event, Event::Disconnected { fault } if fault.cause == *wanted),
        );
    };
    let cluster = RedisCluster::start(3, false);
    cause_at(
        &format!("redis://127.0.0.1:{}", cluster.nodes[0].port()),
        &Cause::Cluster,
    );
    let port = Port::claim();
    let _server = Server::start(&["--port", &port.number.to_string()]);
    cause_at(
        &format!("redis-cluster://127.0.0.1:{}", port.number),
        &Cause::NotCluster,
    );
}

#[test]
fn new_settings_lead_from_a_server_to_a_cluster_and_back() {
    let (server, cluster) = (Server::start(&[]), RedisCluster::start(3, false));
    let mut bench = Bench::start(2, settings(&server.url("")));
    let write = |bench: &mut Bench| {
        bench.write_and_wait(|chunk| {
            for number in 0..20 {
                let key = format!("v:{number}");
                chunk.store_text(target(0, key.as_bytes()), b"x", Expiry::Never, false);
            }
        })
    };
    write(&mut bench);
    bench.send(Request::Reconfigure(settings(&cluster.url())));
    write(&mut bench);
    bench.send(Request::Reconfigure(settings(&server.url(""))));
    let _: () = redis::cmd("FLUSHALL").query(&mut server.client()).unwrap();
    write(&mut bench);
    assert_eq!(cluster.strings().len(), 20);
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut server.client()).unwrap();
    assert_eq!(keys.len(), 20);
    let events = bench.stop();
    assert_eq!(events.iter().filter(|event| connected(event)).count(), 3);
}
