//! Servers and mappings that come, go and change while PostgreSQL runs.

use pg_redis_cache_tests::{Folder, Redis, Shutdown, World, eventually};

use super::{SOON, Two, exists, oracle, server};

/// The file is for those that have none of their own: here it has nobody's.
#[test]
fn a_password_in_a_url_of_the_list_goes_before_the_file() {
    let far = Redis::start();
    far.cli(&["ACL", "SETUSER", "app", "on", ">own", "~*", "&*", "+@all"]);
    let world = World::builder()
        .conf(
            "pg_redis_cache.servers",
            &format!("far => redis://app:own@127.0.0.1:{}", far.port()),
        )
        .start();
    world.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)");
    world.set_mappings("t:{id} => SELECT v FROM t WITH (server = far)");
    world.wait();
    let folder = Folder::new();
    let file = folder.write("redis.password", "another\n", 0o600);
    world
        .postgres
        .set_conf("pg_redis_cache.password_file", file.to_str().unwrap());
    world.wait_for_status("NOT connected");
    world.execute("UPDATE t SET v = 2");
    world.wait();
    assert_eq!(far.cli(&["HGET", "t:1", "v"]), "\"2\"");
    let held: Option<String> = world
        .connect()
        .query_one("SELECT redis_cache.get('t', '1') ->> 'v'", &[])
        .unwrap()
        .get(0);
    assert_eq!(held.as_deref(), Some("2"));
}

/// The server logs the text of a setting that a reload has changed.
#[test]
fn a_password_that_comes_with_a_reload_is_not_in_the_log() {
    let world = World::builder().start();
    let secret = |number: u32| format!("redis://u:hunter{number}@127.0.0.1:1/0");
    let lists = [
        format!("x => {}", secret(1)),
        String::new(),
        format!("y => {}", secret(2)),
    ];
    let urls = [String::new(), secret(3), secret(4)];
    for (list, url) in lists.iter().zip(&urls) {
        world.postgres.set_conf("pg_redis_cache.url", url);
        world.postgres.set_conf("pg_redis_cache.servers", list);
        eventually("both to be read", SOON, || {
            let sql = "SELECT current_setting('pg_redis_cache.servers') = ''";
            let row = world.connect().query_one(sql, &[]).unwrap();
            (row.get::<_, bool>(0) == list.is_empty()).then_some(())
        });
    }
    world.wait_for_status("last_error LIKE 'refused: %'");
    let log = world.postgres.log();
    assert!(!log.contains("hunter"), "{log}");
}

#[test]
fn a_mapping_that_moves_leaves_nothing_behind_also_if_its_server_leaves_with_it() {
    let two = Two::new();
    two.fill();
    two.world.set_mappings(
        "here:{id} => SELECT v, filler FROM here WITH (server = far); far:{id} => SELECT v, filler FROM far",
    );
    two.world.wait();
    assert!(!exists(&two.world.redis, "here:1") && !exists(&two.far, "far:1"));
    two.change("far");
    two.change("here");
    two.world.wait();
    assert!(exists(&two.far, "here:1") && exists(&two.world.redis, "far:1"));
    assert!(!exists(&two.world.redis, "here:1") && !exists(&two.far, "far:1"));
    // The list of servers and the mapping in one reload.
    two.world.postgres.set_conf("pg_redis_cache.servers", "");
    two.world.set_mappings("far:{id} => SELECT v, filler FROM far");
    eventually("what was left behind to be purged", SOON, || {
        (!exists(&two.far, "here:1")).then_some(())
    });
    two.world.wait();
}

#[test]
fn one_that_is_dead_and_leaves_the_list_is_not_waited_for() {
    let mut two = Two::new();
    two.fill();
    two.far.kill();
    two.wait_until_connected("far", false);
    two.change("far");
    two.world.postgres.append_conf("pg_redis_cache.servers = ''\n");
    two.world.set_mappings("here:{id} => SELECT v, filler FROM here");
    two.world.wait();
    two.change("here");
    two.world.assert_rows(&oracle("here"));
    assert_eq!(two.figure("url", "far"), "(not in the list)");
}

/// The only place that is left for the mapping is freed and taken in one step, and so is that of its server.
#[test]
fn a_server_that_is_left_and_used_again_at_once_is_still_connected() {
    let two = Two::with(&[("pg_redis_cache.max_mappings", "2")]);
    two.change("far");
    two.assert_rows();
    two.world.set_mappings(
        "here:{id} => SELECT v, filler FROM here; other:{id} => SELECT v, filler FROM far WITH (server = far)",
    );
    two.world.wait();
    two.change("far");
    two.world.wait();
    assert_eq!(two.far.cli(&["HGET", "other:7", "v"]), "\"2\"");
    assert_eq!(two.figure("connected", "far"), "true");
    assert_ne!(two.figure("server_version", "far"), "");
}

/// Nobody can purge a server whose address nobody knows: the register keeps what is to be purged there until it is back.
#[test]
fn what_is_left_on_a_server_that_left_the_list_is_purged_when_it_is_back() {
    let mut two = Two::new();
    two.fill();
    two.world.postgres.stop(Shutdown::Immediate);
    two.world.postgres.append_conf(
        "pg_redis_cache.servers = ''\npg_redis_cache.mappings = 'here:{id} => SELECT v, filler FROM here'\n",
    );
    two.start_again();
    // The others go on, and nobody waits for it.
    two.change("here");
    two.world.assert_rows(&oracle("here"));
    assert_eq!(two.figure("url", "far"), "(not in the list)");
    eventually("the reason to be told", SOON, || {
        two.figure("last_error", "far")
            .contains("it is not in pg_redis_cache.servers")
            .then_some(())
    });
    assert!(
        two.world
            .postgres
            .log()
            .contains("what mappings have left there is purged when it is")
    );
    // Through another crash.
    two.world.postgres.stop(Shutdown::Immediate);
    two.start_again();
    two.change("here");
    two.world.assert_rows(&oracle("here"));
    assert!(exists(&two.far, "far:1"));
    two.world
        .postgres
        .set_conf("pg_redis_cache.servers", &server("far", &two.far));
    eventually("the old keys to be purged", SOON, || {
        (!exists(&two.far, "far:1")).then_some(())
    });
    assert!(exists(&two.world.redis, "here:1"));
}
