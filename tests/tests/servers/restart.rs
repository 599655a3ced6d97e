//! What each of several servers holds over a stop, a crash, and changes while PostgreSQL is down.

use pg_redis_cache_tests::{Redis, Shutdown, World, eventually};

use super::{SOON, Two, server};

#[test]
fn a_crash_purges_both() {
    let mut two = Two::new();
    two.change("here");
    two.change("far");
    two.assert_rows();
    two.world.postgres.stop(Shutdown::Immediate);
    two.plant();
    two.start_again();
    two.assert_rows();
    assert_eq!(two.planted(), (false, false));
}

#[test]
fn a_clean_restart_keeps_what_each_holds() {
    let mut two = Two::new();
    two.fill();
    two.world.postgres.stop(Shutdown::Fast);
    two.plant();
    two.start_again();
    two.world.wait();
    assert_eq!(two.planted(), (true, true));
    two.far.cli(&["DEL", "far:987654"]);
    two.world.redis.cli(&["DEL", "here:987654"]);
    assert_eq!(two.assert_rows(), (200, 200));
}

/// One that has read what it was sent, and does not answer, neither costs the other its marker nor holds the stop up.
#[test]
fn one_that_does_not_get_on_does_not_cost_the_other_its_marker() {
    let mut two = Two::with(&[
        ("pg_redis_cache.command_timeout", "1min"),
        ("pg_redis_cache.shutdown_timeout", "5min"),
    ]);
    two.fill();
    two.far.freeze();
    two.change("far");
    two.change("here");
    two.awaits(&two.world.redis, "here:7", "2");
    assert_eq!(two.figure("connected", "far"), "true");
    // `stop` waits for less time than the worker may take.
    two.world.postgres.stop(Shutdown::Fast);
    two.far.thaw();
    two.plant();
    two.start_again();
    two.world.wait();
    assert_eq!(two.planted(), (true, false));
}

/// What is written for a server that nobody knows the place of is dropped, and its marker does not tell.
#[test]
fn the_marker_of_one_that_was_not_in_the_list_meanwhile_is_not_believed() {
    let mut two = Two::new();
    two.fill();
    two.world.postgres.stop(Shutdown::Fast);
    two.world.postgres.append_conf("pg_redis_cache.servers = ''\n");
    two.world.postgres.start_again();
    two.change("far");
    two.change("here");
    two.awaits(&two.world.redis, "here:7", "2");
    two.world
        .postgres
        .set_conf("pg_redis_cache.servers", &server("far", &two.far));
    two.wait_until_connected("far", true);
    eventually("the mapping to work again", SOON, || {
        let sql = "SELECT state FROM redis_cache.mappings WHERE name = 'far'";
        let state = two.world.connect().query_one(sql, &[]).unwrap();
        (state.get::<_, String>(0) == "active").then_some(())
    });
    two.assert_rows();
    let told = "server \"far\": what was cached is purged when it is back: it left the list";
    assert!(two.world.postgres.log().contains(told));
    assert!(two.purges("far", "start") > 0);
}

#[test]
fn one_that_was_away_at_the_stop_is_purged_alone() {
    let mut two = Two::new();
    two.fill();
    two.far.freeze();
    two.wait_until_connected("far", true);
    two.change("far");
    two.wait_until_connected("far", false);
    two.change("here");
    two.world.postgres.stop(Shutdown::Fast);
    two.far.thaw();
    two.plant();
    two.start_again();
    two.world.wait();
    assert_eq!(two.planted(), (true, false));
    two.world.redis.cli(&["DEL", "here:987654"]);
    assert_eq!(two.assert_rows().0, 200);
}

/// Both are databases of one Redis: the marker is there in both, and says which is whose.
#[test]
fn servers_that_have_changed_places_while_the_server_was_down_are_purged() {
    let redis = Redis::start();
    let url = |database: u32| {
        let url = redis.url();
        format!(
            "{}/{database}",
            url.rsplit_once('/').map_or(url.as_str(), |(before, _)| before)
        )
    };
    let list = |a: u32, b: u32| format!("a => {}; b => {}", url(a), url(b));
    let mut world = World::builder()
        .conf("autovacuum", "off")
        .conf("pg_redis_cache.servers", &list(1, 2))
        .start();
    world.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)");
    world.set_mappings(
        "t:{id} => SELECT v FROM t WITH (name = a, server = a); t:{id} => SELECT v FROM t WITH (name = b, server = b)",
    );
    world.wait();
    world.execute("UPDATE t SET v = 2");
    world.wait();
    world.postgres.stop(Shutdown::Fast);
    for database in ["1", "2"] {
        redis.cli(&["-n", database, "HSET", "t:987654", "v", "-1"]);
    }
    let changed = format!("pg_redis_cache.servers = '{}'\n", list(2, 1));
    world.postgres.append_conf(&changed);
    world.postgres.start_again();
    world.wait_until_active();
    world.wait();
    for database in ["1", "2"] {
        assert_eq!(redis.cli(&["-n", database, "EXISTS", "t:987654"]), "(integer) 0");
    }
    world.execute("UPDATE t SET v = 3");
    world.wait();
    for database in ["1", "2"] {
        assert_eq!(redis.cli(&["-n", database, "HGET", "t:1", "v"]), "\"3\"");
    }
}
