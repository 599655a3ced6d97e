//! The worker on a Redis Cluster: a master dies, hangs or is shut down under load, slots move, nodes join and leave.
//! Afterwards each key equals its row, and no key has gone back.
//!
//! (Rules 5, 7 and 8 of docs/ARCHITECTURE.md are what would fail here.) A replica that takes over may serve what it had
//! before everything is purged, so versions are watched only where no master is lost.

use std::time::{Duration, Instant};

use pg_redis_cache_tests::{Load, Redis, RedisCluster, Shape, Shutdown, Trial, World, eventually};
use postgres::error::SqlState;

mod away;

const SOON: Duration = Duration::from_secs(60);

fn text(world: &World, sql: &str) -> String {
    let row = world.connect().query_one(sql, &[]);
    row.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
}

fn shape() -> Shape {
    Shape {
        keys: 200,
        ..Trial::shape()
    }
}

/// A world whose worker writes to the cluster, with the table of the load.
fn world(cluster: &RedisCluster) -> World {
    Load::world(shape(), |world| {
        world
            .url(&cluster.url())
            .conf("pg_redis_cache.command_timeout", "500ms")
            .conf("pg_redis_cache.connect_timeout", "500ms")
    })
}

fn under_load(world: &World) -> Load {
    let load = Load::start(world, shape());
    load.goes_on(30);
    load
}

fn purges(world: &World) -> i64 {
    let sql = "SELECT coalesce(sum(purges), 0)::text FROM redis_cache.stats";
    text(world, sql).parse().expect("a number")
}

/// Waits until all that was committed by now is in Redis, and says how long that took.
fn until_fresh(world: &World, what: &str) {
    let start = Instant::now();
    eventually("Redis to be fresh again", SOON, || {
        let sql = "SELECT (redis_cache.wait('20s') AND connected)::text FROM redis_cache.status";
        (text(world, sql) == "true").then_some(())
    });
    println!("{what}: fresh again after {} ms", start.elapsed().as_millis());
}

fn end(world: &World, cluster: &RedisCluster, load: Load) {
    load.goes_on(30);
    load.stop();
    world.wait_until_active();
    cluster.await_ok();
    eventually("rows in step of which some are cached", SOON, || {
        // A purge that comes last may have left none.
        let compared = Load::assert_all_rows_in(world, cluster);
        world.execute("UPDATE doc SET version = version + 1");
        compared
            .iter()
            .any(|comparison| comparison.keys > 0)
            .then_some(())
    });
}

#[test]
fn rows_are_filled_written_and_purged_on_every_master() {
    let cluster = RedisCluster::start(3, true);
    let world = world(&cluster);
    let oracle = Load::watch_cluster(&cluster, shape());
    end(&world, &cluster, under_load(&world));
    oracle.assert_held();
    let keys = |world: &World| {
        let held = |master: &mut redis::Connection| {
            let keys: Vec<String> = redis::cmd("KEYS")
                .arg("doc:*")
                .query(master)
                .expect("a master answers");
            keys.len()
        };
        world.wait();
        cluster.masters().iter_mut().map(held).collect::<Vec<usize>>()
    };
    world.execute("UPDATE doc SET version = version + 1");
    assert!(keys(&world).iter().all(|keys| *keys > 0), "{:?}", keys(&world));
    assert_eq!(text(&world, "SELECT url FROM redis_cache.status"), cluster.url());
    assert!(text(&world, "SELECT server_version FROM redis_cache.status").contains("Redis"));
    let differences = "SELECT count(*)::text FROM redis_cache.verify('doc')";
    assert_eq!(text(&world, differences), "0");
    let got =
        "SELECT (redis_cache.get('doc', id::text) ->> 'version' = version::text)::text FROM doc WHERE id = 7";
    assert_eq!(text(&world, got), "true");
    assert_eq!(
        text(&world, "SELECT (redis_cache.ttl('doc', '7') IS NULL)::text"),
        "true"
    );
    assert_eq!(text(&world, "SELECT (redis_cache.ping() > '0')::text"), "true");
    let rows = text(&world, "SELECT count(*)::text FROM doc");
    let purged = text(&world, "SELECT redis_cache.invalidate_all('doc')::text");
    assert_eq!(purged, rows);
    assert_eq!(keys(&world), [0, 0, 0]);
    let key = format!(
        "pg_redis_cache:alive:{}",
        text(&world, "SELECT system_identifier::text FROM pg_control_system()")
    );
    let alive = |cluster: &RedisCluster| {
        let master = cluster.master_of(&key);
        cluster.nodes[master].cli(&["EXISTS", &key])
    };
    eventually("a heartbeat", SOON, || {
        (alive(&cluster) == "(integer) 1").then_some(())
    });
}

#[test]
fn a_clean_restart_keeps_what_is_cached() {
    let cluster = RedisCluster::start(3, false);
    let mut world = world(&cluster);
    world.execute("UPDATE doc SET version = version + 1");
    world.wait();
    world.restart_postgres(Shutdown::Fast);
    world.wait_until_active();
    world.worker_pid();
    let kept: usize = Load::assert_all_rows_in(&world, &cluster)
        .iter()
        .map(|c| c.keys)
        .sum();
    assert!(kept >= 200, "{kept}");
    // One node that has been another process is enough to know nothing.
    world.postgres.stop(Shutdown::Fast);
    let mut cluster = cluster;
    cluster.nodes[1].kill();
    cluster.nodes[1].start_again();
    cluster.await_ok();
    world.postgres.start_again();
    world.worker_pid();
    world.wait();
    eventually("everything to be purged", SOON, || {
        let held = |master: &mut redis::Connection| {
            let keys: Vec<String> = redis::cmd("KEYS")
                .arg("doc:*")
                .query(master)
                .expect("a master answers");
            keys.is_empty()
        };
        cluster.masters().iter_mut().all(held).then_some(())
    });
}

#[test]
fn a_master_is_killed_and_its_replica_takes_over() {
    let mut cluster = RedisCluster::start(3, true);
    let world = world(&cluster);
    let load = under_load(&world);
    for round in 0..2 {
        let before = purges(&world);
        let victim = cluster.master_of(&format!("doc:{round}"));
        let start = Instant::now();
        cluster.nodes[victim].kill();
        let key = format!("doc:{round}");
        cluster.await_master_of(&key);
        let taken_over = start.elapsed().as_millis();
        eventually("everything to be purged", SOON, || {
            (purges(&world) > before).then_some(())
        });
        until_fresh(&world, "a master killed, everything purged");
        let fresh = start.elapsed().as_millis();
        println!(
            "a master killed: its replica took over after {taken_over} ms, all was fresh after {fresh} ms"
        );
        let oracle = Load::watch_cluster(&cluster, shape());
        load.goes_on(30);
        oracle.assert_held();
        cluster.nodes[victim].start_again();
        cluster.await_ok();
    }
    end(&world, &cluster, load);
}

#[test]
fn a_master_hangs_and_comes_back_as_a_replica() {
    let cluster = RedisCluster::start(3, true);
    let world = world(&cluster);
    let load = under_load(&world);
    let before = purges(&world);
    let victim = cluster.master_of("doc:1");
    cluster.nodes[victim].freeze();
    eventually("everything to be purged", SOON, || {
        (purges(&world) > before).then_some(())
    });
    until_fresh(&world, "a master frozen, once its replica has taken over");
    cluster.nodes[victim].thaw();
    cluster.await_ok();
    end(&world, &cluster, load);
}

#[test]
fn a_replica_takes_over_as_it_is_told_to() {
    let cluster = RedisCluster::start(3, true);
    let world = world(&cluster);
    let load = under_load(&world);
    let before = purges(&world);
    let is_replica = |node: &&Redis| node.cli(&["ROLE"]).contains("\"slave\"");
    let replica = cluster.nodes.iter().find(is_replica).expect("there are three");
    assert_eq!(replica.cli(&["CLUSTER", "FAILOVER"]), "OK");
    eventually("everything to be purged", SOON, || {
        (purges(&world) > before).then_some(())
    });
    until_fresh(&world, "CLUSTER FAILOVER");
    end(&world, &cluster, load);
}

#[test]
fn slots_move_under_load() {
    let cluster = RedisCluster::start(3, true);
    let world = world(&cluster);
    let oracle = Load::watch_cluster(&cluster, shape());
    let load = under_load(&world);
    let before = purges(&world);
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        cluster.reshard(from, to, 500);
        until_fresh(&world, "500 slots moved");
    }
    assert_eq!(purges(&world), before, "slots that move lose nothing");
    end(&world, &cluster, load);
    oracle.assert_held();
}

#[test]
fn mappings_are_purged_while_slots_move() {
    let cluster = RedisCluster::start(3, false);
    let world = world(&cluster);
    let load = under_load(&world);
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| {
            for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                cluster.reshard(from, to, 300);
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
    until_fresh(&world, "purges while slots moved");
    end(&world, &cluster, load);
}

#[test]
fn a_node_joins_and_leaves() {
    let mut cluster = RedisCluster::start(3, true);
    let world = world(&cluster);
    cluster.start_stranger();
    let oracle = Load::watch_cluster(&cluster, shape());
    let load = under_load(&world);
    let before = purges(&world);
    let new = cluster.nodes.len() - 1;
    let masters = cluster.master_numbers();
    cluster.admit_stranger();
    cluster.reshard(masters[0], new, 2000);
    until_fresh(&world, "a node joined, 2000 slots moved to it");
    eventually("everything to be purged", SOON, || {
        (purges(&world) > before).then_some(())
    });
    cluster.reshard(new, masters[1], 2000);
    until_fresh(&world, "a node gave 2000 slots up");
    load.goes_on(30);
    cluster.leave();
    until_fresh(&world, "a node left");
    end(&world, &cluster, load);
    oracle.assert_held();
}

#[test]
fn a_cluster_that_is_away_holds_nobody_up() {
    let mut cluster = RedisCluster::start(3, false);
    let world = world(&cluster);
    let load = under_load(&world);
    for node in &mut cluster.nodes {
        node.kill();
    }
    load.goes_on(100);
    eventually("the trouble to be told", SOON, || {
        let sql = "SELECT (NOT connected AND last_error LIKE '%127.0.0.1%')::text FROM redis_cache.status";
        (text(&world, sql) == "true").then_some(())
    });
    for node in &mut cluster.nodes {
        node.start_again();
    }
    cluster.await_ok();
    until_fresh(&world, "all masters away and back");
    end(&world, &cluster, load);
}
