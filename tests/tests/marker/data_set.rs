//! The marker and Redis: another one, an older state of it, one that was promoted.

use pg_redis_cache_tests::{Redis, Shutdown, eventually};

use super::{
    SOON, assert_kept, assert_purged, has_marker, is_planted, marker_file, own_keys, plant, settled, world,
    world_with,
};

#[test]
fn a_run_with_another_redis_purges() {
    let mut world = world();
    let other = Redis::start();
    let (here, there) = (world.redis.url(), other.url());
    let url = |url: &str| format!("pg_redis_cache.url = '{url}'\n");
    for change in [true, false] {
        world.postgres.stop(Shutdown::Fast);
        world.postgres.append_conf(&url(&there));
        plant(&world.redis);
        world.postgres.start_again();
        settled(&world);
        if change {
            world.execute("UPDATE doc SET version = version + 1 WHERE id = 2");
            world.wait();
        }
        world.postgres.stop(Shutdown::Fast);
        assert!(has_marker(&world.redis) && has_marker(&other));
        world.postgres.append_conf(&url(&here));
        world.postgres.start_again();
        assert_purged(&world);
    }
}

#[test]
fn a_redis_that_was_restarted_purges() {
    let mut world = world_with(|world| world.redis_args(&["--save", "3600", "1"]));
    world.postgres.stop(Shutdown::Fast);
    plant(&world.redis);
    world.redis.stop();
    world.redis.start_again();
    assert!(is_planted(&world.redis) && has_marker(&world.redis));
    world.postgres.start_again();
    assert_purged(&world);
}

#[test]
fn an_old_dump_of_redis_purges() {
    let mut world = world();
    world.postgres.stop(Shutdown::Fast);
    plant(&world.redis);
    assert_eq!(world.redis.cli(&["SAVE"]), "OK");
    let (dump, kept) = (
        world.redis.folder().join("dump.rdb"),
        world.redis.folder().join("kept.rdb"),
    );
    std::fs::copy(&dump, &kept).unwrap();
    world.postgres.start_again();
    assert_kept(&world, 20);
    world.execute("UPDATE doc SET version = version + 1");
    world.wait();
    for how in [Shutdown::Fast, Shutdown::Immediate] {
        world.postgres.stop(how);
        world.redis.kill();
        std::fs::copy(&kept, &dump).unwrap();
        world.redis.start_again();
        assert!(is_planted(&world.redis) && has_marker(&world.redis));
        world.postgres.start_again();
        assert_purged(&world);
    }
}

#[test]
fn a_redis_that_is_restarted_with_old_data_while_the_server_runs_purges() {
    let mut world = world();
    plant(&world.redis);
    assert_eq!(world.redis.cli(&["SAVE"]), "OK");
    world.execute("UPDATE doc SET version = version + 1");
    world.wait();
    world.redis.kill();
    world.redis.start_again();
    eventually("the planted key to be purged", SOON, || {
        (!is_planted(&world.redis)).then_some(())
    });
    assert_purged(&world);
}

fn until_replicated(master: &Redis, replica: &Redis) {
    eventually("the replica to be in step", SOON, || {
        let info = replica.cli(&["--raw", "INFO", "replication"]);
        let same = |pattern: &str| {
            let keys = |redis: &Redis| redis.cli(&["--scan", "--pattern", pattern]).lines().count();
            keys(master) == keys(replica)
        };
        (info.contains("master_link_status:up") && same("doc:*") && same("pg_redis_cache:*")).then_some(())
    });
}

#[test]
fn a_replica_of_redis_that_is_promoted_purges() {
    let mut world = world();
    let mut other = Redis::start();
    let port = world.redis.port().to_string();
    assert_eq!(other.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    until_replicated(&world.redis, &other);
    // While the server runs.
    plant(&world.redis);
    until_replicated(&world.redis, &other);
    assert_eq!(other.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    world.execute("UPDATE doc SET version = version + 1 WHERE id = 4");
    world.wait();
    world.postgres.set_conf("pg_redis_cache.url", &other.url());
    std::mem::swap(&mut world.redis, &mut other);
    eventually("the planted key to be purged", SOON, || {
        (!is_planted(&world.redis)).then_some(())
    });
    assert_purged(&world);
    // While the server is down: the replica has the marker, too.
    let port = world.redis.port().to_string();
    assert_eq!(other.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    world.wait();
    world.postgres.stop(Shutdown::Fast);
    plant(&world.redis);
    until_replicated(&world.redis, &other);
    assert!(is_planted(&other) && has_marker(&other));
    assert_eq!(other.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    world
        .postgres
        .append_conf(&format!("pg_redis_cache.url = '{}'\n", other.url()));
    std::mem::swap(&mut world.redis, &mut other);
    world.postgres.start_again();
    assert_purged(&world);
}

#[test]
fn the_marker_of_another_cluster_is_left_alone() {
    let mut world = world();
    let foreign = "pg_redis_cache:marker:1";
    assert_eq!(world.redis.cli(&["SET", foreign, "theirs"]), "OK");
    world.restart_postgres(Shutdown::Fast);
    settled(&world);
    assert_eq!(world.redis.cli(&["GET", foreign]), "\"theirs\"");
    assert_eq!(own_keys(&world.redis, "marker"), [foreign]);
}

#[test]
fn without_redis_at_the_stop_there_is_no_marker() {
    let mut world = world();
    world.redis.freeze();
    world.execute("UPDATE doc SET version = version + 1");
    world
        .postgres
        .set_conf("pg_redis_cache.shutdown_timeout", "500ms");
    world.postgres.stop(Shutdown::Fast);
    world.redis.thaw();
    assert!(!marker_file(&world).exists());
    plant(&world.redis);
    world.postgres.start_again();
    assert_purged(&world);
}
