//! The marker and the history of the database: runs without the library, backups, copies, standbys.

use std::path::{Path, PathBuf};
use std::process::Command;

use pg_redis_cache_tests::{Shutdown, World, eventually};

use super::{
    SOON, assert_kept, assert_purged, has_marker, is_planted, marker_file, oracle, own_keys, plant, settled,
    world,
};

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let _ = std::fs::remove_file(to);
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp can be run").success());
}

#[test]
fn a_run_without_the_library_purges() {
    let mut world = world();
    for sql in [
        "UPDATE doc SET version = version + 1 WHERE id = 2; DELETE FROM doc WHERE id = 3",
        "ALTER TABLE doc ALTER version TYPE text",
    ] {
        world.postgres.append_conf("shared_preload_libraries = ''\n");
        world.restart_postgres(Shutdown::Fast);
        assert!(has_marker(&world.redis));
        world.execute(sql);
        world
            .postgres
            .append_conf("shared_preload_libraries = 'pg_redis_cache'\n");
        world.postgres.stop(Shutdown::Fast);
        plant(&world.redis);
        world.postgres.start_again();
        settled(&world);
        assert!(!is_planted(&world.redis));
        world.assert_rows(&oracle());
        world.execute("UPDATE doc SET version = '5'");
        world.assert_rows(&oracle());
    }
}

#[test]
fn a_run_without_the_library_that_changes_nothing_keeps_what_is_cached() {
    let mut world = world();
    world.postgres.append_conf("shared_preload_libraries = ''\n");
    world.restart_postgres(Shutdown::Fast);
    world.connect().query("SELECT * FROM doc", &[]).unwrap();
    world
        .postgres
        .append_conf("shared_preload_libraries = 'pg_redis_cache'\n");
    world.postgres.stop(Shutdown::Fast);
    plant(&world.redis);
    world.postgres.start_again();
    assert_kept(&world, 20);
}

/// A copy of the data directory, after which rows have changed: where both are.
fn backed_up(world: &mut World) -> (PathBuf, PathBuf) {
    let data = world.postgres.data_dir().to_owned();
    let backup = data.with_file_name("backup");
    world.postgres.stop(Shutdown::Fast);
    copy(&data, &backup);
    world.postgres.start_again();
    settled(world);
    world.execute("UPDATE doc SET version = version + 100");
    world.wait();
    (data, backup)
}

#[test]
fn a_cold_backup_that_is_restored_purges() {
    let mut world = world();
    let (data, backup) = backed_up(&mut world);
    world.postgres.stop(Shutdown::Fast);
    plant(&world.redis);
    copy(&backup, &data);
    world.postgres.start_again();
    assert_purged(&world);
}

/// Both halves of the document, and then pg_control alone says that it is of another time.
#[test]
fn a_marker_that_is_put_back_after_a_crash_is_not_believed() {
    let mut world = world();
    world.postgres.stop(Shutdown::Fast);
    let file = marker_file(&world);
    let aside = file.with_file_name("aside");
    copy(&file, &aside);
    let key = own_keys(&world.redis, "marker").pop().expect("a marker");
    world.postgres.start_again();
    settled(&world);
    world.execute("UPDATE doc SET version = version + 1");
    world.wait();
    world.postgres.crash();
    copy(&aside, &file);
    let document = std::fs::read(&file).expect("the file is there");
    redis::cmd("SET")
        .arg(&key)
        .arg(document)
        .exec(&mut world.redis())
        .expect("Redis takes the marker");
    plant(&world.redis);
    world.postgres.start_again();
    assert_purged(&world);
}

#[test]
fn two_histories_with_as_many_transactions_are_told_apart() {
    let mut world = world();
    let here = world.redis.url();
    let there = format!("{}1", here.trim_end_matches('0'));
    let url = |url: &str| format!("pg_redis_cache.url = '{url}'\n");
    let (data, backup) = backed_up(&mut world);
    let next = |world: &World| -> String {
        let sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
        world.connect().query_one(sql, &[]).unwrap().get(0)
    };
    let one = next(&world);
    world.postgres.stop(Shutdown::Fast);
    plant(&world.redis);
    // The other history runs with another database of the same Redis.
    copy(&backup, &data);
    world.postgres.append_conf(&url(&there));
    world.postgres.start_again();
    settled(&world);
    world.execute("UPDATE doc SET version = version + 1000");
    assert_eq!(one, next(&world));
    world.wait();
    world.postgres.stop(Shutdown::Fast);
    assert!(has_marker(&world.redis) && marker_file(&world).exists());
    world.postgres.append_conf(&url(&here));
    world.postgres.start_again();
    assert_purged(&world);
}

#[test]
fn a_standby_that_is_promoted_purges() {
    let mut world = world();
    let mut standby = world.postgres.standby();
    world.postgres.stop(Shutdown::Fast);
    assert!(has_marker(&world.redis));
    plant(&world.redis);
    std::mem::swap(&mut world.postgres, &mut standby);
    world.execute("SELECT pg_promote()");
    eventually("the worker to start", SOON, || {
        world.postgres.child("pg_redis_cache")
    });
    assert_purged(&world);
}

#[test]
fn a_cold_copy_that_becomes_a_standby_and_is_promoted_purges() {
    let mut world = world();
    world.postgres.stop(Shutdown::Fast);
    std::fs::write(world.postgres.data_dir().join("standby.signal"), "").unwrap();
    plant(&world.redis);
    world.postgres.append_conf("hot_standby = on\n");
    world.postgres.start_again();
    assert!(has_marker(&world.redis) && marker_file(&world).exists());
    world.execute("SELECT pg_promote()");
    eventually("the worker to start", SOON, || {
        world.postgres.child("pg_redis_cache")
    });
    assert_purged(&world);
}
