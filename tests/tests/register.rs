//! Rule 8 where the settings or the table have changed by the next start: what an earlier run has cached goes all
//! the same, because the register in the data directory says which keys that may be.
//!
//! While the server is down a key is planted that no row has: only a purge takes it.

use std::path::PathBuf;
use std::time::Duration;

use pg_redis_cache_tests::{Shutdown, World, eventually};

const SOON: Duration = Duration::from_secs(20);
const MAPPING: &str = "doc:{id} => SELECT version FROM doc";
const PLANTED: &str = "doc:987654";

fn world(schema: &str, mappings: &str) -> World {
    let world = World::builder().conf("max_prepared_transactions", "2").start();
    world.execute(schema);
    world.set_mappings(mappings);
    world.wait();
    world
}

fn doc() -> World {
    let schema = "CREATE TABLE doc (id int PRIMARY KEY, version int); INSERT INTO doc VALUES (1, 1)";
    world(schema, MAPPING)
}

fn file(world: &World) -> PathBuf {
    world.postgres.data_dir().join("pg_stat/pg_redis_cache.mappings")
}

/// Ends the server at once, plants the key, and starts it with other settings.
fn crash_and_start_with(world: &mut World, key: &str, settings: &str) {
    world.postgres.stop(Shutdown::Immediate);
    start_with(world, key, settings);
}

fn start_with(world: &mut World, key: &str, settings: &str) {
    world.redis.cli(&["HSET", key, "version", "-1"]);
    world.postgres.append_conf(settings);
    world.postgres.start_again();
}

fn is_there(world: &World, key: &str) -> bool {
    world.redis.cli(&["EXISTS", key]) == "(integer) 1"
}

fn assert_goes(world: &World, key: &str) {
    eventually("the planted key to be purged", SOON, || {
        (!is_there(world, key)).then_some(())
    });
}

fn states(world: &World) -> Vec<String> {
    let rows = world
        .connect()
        .query("SELECT state FROM redis_cache.mappings ORDER BY name", &[]);
    rows.unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_start_with_enabled_off_purges() {
    let mut world = doc();
    crash_and_start_with(&mut world, PLANTED, "pg_redis_cache.enabled = off\n");
    assert_goes(&world, PLANTED);
    eventually("the register to be empty", SOON, || {
        let register = std::fs::read_to_string(file(&world)).unwrap();
        (!register.contains("doc:")).then_some(())
    });
}

#[test]
fn a_mapping_that_has_left_the_list_is_purged() {
    let mut world = doc();
    crash_and_start_with(&mut world, PLANTED, "pg_redis_cache.mappings = ''\n");
    assert_goes(&world, PLANTED);
    // A marker from a clean stop, but not for what has left the list before.
    let mut world = doc();
    crash_and_start_with(
        &mut world,
        PLANTED,
        "pg_redis_cache.mappings = 'd:{id} => SELECT version FROM doc'\n",
    );
    assert_goes(&world, PLANTED);
    world.wait_until_active();
}

#[test]
fn a_mapping_that_does_not_work_any_more_is_purged() {
    let mut world = doc();
    world.postgres.append_conf("shared_preload_libraries = ''\n");
    world.restart_postgres(Shutdown::Immediate);
    world.execute("ALTER TABLE doc DROP CONSTRAINT doc_pkey");
    crash_and_start_with(
        &mut world,
        PLANTED,
        "shared_preload_libraries = 'pg_redis_cache'\n",
    );
    assert_goes(&world, PLANTED);
    assert_eq!(states(&world), ["error"]);
}

#[test]
fn a_mapping_whose_table_is_locked_is_purged() {
    let mut world = doc();
    world.execute("BEGIN; LOCK TABLE doc; PREPARE TRANSACTION 'migration'");
    crash_and_start_with(&mut world, PLANTED, "");
    assert_goes(&world, PLANTED);
    assert_eq!(states(&world), ["pending"]);
    world.execute("COMMIT PREPARED 'migration'");
    world.wait_until_active();
}

#[test]
fn a_mapping_whose_key_has_another_type_is_purged_by_the_one_before_too() {
    let schema = "CREATE TABLE word (id text PRIMARY KEY, version int)";
    let mut world = world(schema, "word:{id} => SELECT version FROM word");
    world.redis.freeze();
    world.execute("ALTER TABLE word ALTER id TYPE int USING length(id)");
    eventually("both types to be registered", SOON, || {
        let register = std::fs::read_to_string(file(&world)).unwrap();
        (register.contains("\"relation\"") && states(&world) == ["active"]).then_some(())
    });
    world.postgres.stop(Shutdown::Immediate);
    world.redis.thaw();
    start_with(&mut world, "word:abc", "");
    assert_goes(&world, "word:abc");
}

#[test]
fn a_mapping_without_a_place_waits_until_there_is_one() {
    let schema = "CREATE TABLE doc (id int PRIMARY KEY, version int)";
    let mut world = world(
        schema,
        "doc:{id} => SELECT version FROM doc; d:{id} => SELECT version FROM doc WITH (name = d)",
    );
    let settings = "pg_redis_cache.max_mappings = 1\n\
                    pg_redis_cache.mappings = 'n:{id} => SELECT version FROM doc'\n";
    world.redis.cli(&["HSET", "d:987654", "version", "-1"]);
    crash_and_start_with(&mut world, PLANTED, settings);
    let log = world.postgres.log();
    assert!(log.contains("of an earlier list are purged when"), "{log}");
    assert_goes(&world, PLANTED);
    assert_goes(&world, "d:987654");
    world.wait_until_active();
}

#[test]
fn a_register_that_cannot_be_read_is_said_to_be() {
    let mut world = doc();
    world.postgres.stop(Shutdown::Immediate);
    std::fs::write(file(&world), "{").unwrap();
    start_with(&mut world, PLANTED, "");
    assert_goes(&world, PLANTED);
    assert!(world.postgres.log().contains("is damaged or of another version"));
    world.wait_until_active();
    let register = std::fs::read_to_string(file(&world)).unwrap();
    assert!(register.contains("doc:{id}"), "{register}");
}

#[test]
fn a_server_without_mappings_keeps_no_register() {
    let world = World::builder().start();
    assert!(!file(&world).exists());
}
