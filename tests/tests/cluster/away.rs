//! The worker on a Redis Cluster of which one master, without a replica, is killed or frozen under load: the keys of the
//! others become fresh while it is away, its own when it is back, and no key goes back (rule 5).

use std::time::Instant;

use pg_redis_cache_tests::{Load, Redis, RedisCluster, RowOracle, World, eventually};

use super::{SOON, purges, shape, text, under_load, until_fresh, world};

/// Three masters, of which two go on without the third.
fn cluster() -> RedisCluster {
    let cluster = RedisCluster::start(3, false);
    for node in &cluster.nodes {
        let answer = node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
        assert_eq!(answer, "OK");
    }
    cluster
}

/// Changes all rows while a master is away, and waits until each key that the others hold equals its row, and as many
/// were written as they held before.
fn others_become_fresh(world: &World, cluster: &RedisCluster, away: usize) {
    let mut client = world.connect();
    let oracles = RowOracle::of_database(&mut client);
    let (_, oracle) = oracles
        .iter()
        .find(|(name, _)| name == "doc")
        .expect("it is mapped");
    let others = || -> Vec<redis::Connection> {
        let nodes = cluster.nodes.iter().enumerate();
        let others = nodes.filter(|(number, _)| *number != away);
        others.map(|(_, node)| Redis::connection(node)).collect()
    };
    for round in 0..5 {
        let start = Instant::now();
        world.execute("UPDATE doc SET version = version + 1");
        eventually("the keys of the others to equal their rows", SOON, || {
            let comparison = oracle.compare_all(&mut client, &mut others());
            // A third of the keys is with the master that is away.
            let is_fresh = comparison.differences.is_empty() && comparison.keys > comparison.rows / 3;
            is_fresh.then_some(())
        });
        println!(
            "round {round}: the others fresh after {} ms",
            start.elapsed().as_millis()
        );
    }
    assert_eq!(text(world, "SELECT redis_cache.wait('10ms')::text"), "false");
    eventually("the trouble to be told", SOON, || {
        let sql = "SELECT (NOT connected AND last_error LIKE '%127.0.0.1%')::text FROM redis_cache.status";
        (text(world, sql) == "true").then_some(())
    });
}

fn end(world: &World, cluster: &RedisCluster) {
    cluster.await_ok();
    until_fresh(world, "the master that was away is back");
    world.wait_until_active();
    world.execute("UPDATE doc SET version = version + 1");
    let compared = Load::assert_all_rows_in(world, cluster);
    assert!(compared.iter().any(|comparison| comparison.keys > 0));
}

#[test]
fn one_that_is_killed_holds_only_its_own_keys_up() {
    let mut cluster = cluster();
    let world = world(&cluster);
    let oracle = Load::watch_cluster(&cluster, shape());
    let load = under_load(&world);
    let away = cluster.master_of("doc:1");
    cluster.nodes[away].kill();
    load.goes_on(100);
    load.stop();
    others_become_fresh(&world, &cluster, away);
    cluster.nodes[away].start_again();
    end(&world, &cluster);
    oracle.assert_held();
}

#[test]
fn one_that_hangs_holds_only_its_own_keys_up() {
    let cluster = cluster();
    let world = world(&cluster);
    let oracle = Load::watch_cluster(&cluster, shape());
    let load = under_load(&world);
    let away = cluster.master_of("doc:1");
    let before = purges(&world);
    cluster.nodes[away].freeze();
    load.goes_on(100);
    load.stop();
    others_become_fresh(&world, &cluster, away);
    cluster.nodes[away].thaw();
    end(&world, &cluster);
    oracle.assert_held();
    assert_eq!(purges(&world), before, "nothing was lost");
}

#[test]
fn slots_of_the_others_move_while_one_is_away() {
    let cluster = cluster();
    let world = world(&cluster);
    let oracle = Load::watch_cluster(&cluster, shape());
    let load = under_load(&world);
    let away = cluster.master_of("doc:1");
    let (from, to) = ((away + 1) % 3, (away + 2) % 3);
    cluster.nodes[away].freeze();
    for id in 1..=20 {
        let key = format!("doc:{id}");
        if cluster.nodes[from]
            .cli(&["EXISTS", &key])
            .starts_with("(integer)")
        {
            cluster.move_slot_of(&key, from, to);
        }
    }
    load.goes_on(30);
    load.stop();
    others_become_fresh(&world, &cluster, away);
    cluster.nodes[away].thaw();
    end(&world, &cluster);
    oracle.assert_held();
}
