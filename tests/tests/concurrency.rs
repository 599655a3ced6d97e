//! Writers and readers at the same time: after it each key equals its row, and meanwhile no key goes back or
//! shows what was rolled back.
//!
//! (Rules 1 to 4 of docs/ARCHITECTURE.md are what would fail here.)

use std::thread::sleep;
use std::time::Duration;

use pg_redis_cache_tests::{Load, Shape, WorldBuilder};

const LASTS: Duration = Duration::from_secs(5);

/// Runs a load, with both oracles looking.
fn hold(shape: Shape, settings: impl FnOnce(WorldBuilder) -> WorldBuilder) {
    let world = Load::world(shape, settings);
    let oracle = Load::watch(&world, shape);
    let load = Load::start(&world, shape);
    sleep(LASTS);
    let done = load.stop();
    world.wait();
    let watched = oracle.assert_held();
    let compared = Load::assert_all_rows(&world);
    assert!(done.commits > 50 && done.rollbacks > 5, "{done:?}");
    assert!(
        compared.iter().take(3).all(|mapping| mapping.keys > 0),
        "{compared:?}"
    );
    println!(
        "{done:?} {} rounds, {} advances",
        watched.rounds, watched.advances
    );
}

#[test]
fn many_writers_and_readers_on_hot_keys() {
    hold(Shape::default(), |world| world);
}

#[test]
fn few_slots_that_many_keys_share() {
    let shape = Shape {
        keys: 6000,
        ..Shape::default()
    };
    hold(shape, |world| world.conf("pg_redis_cache.hash_slots", "1024"));
}

#[test]
fn one_lane_for_everything() {
    hold(Shape::default(), |world| {
        world.conf("pg_redis_cache.pool_size", "1")
    });
}

#[test]
fn writers_without_a_rest() {
    let shape = Shape {
        writers: 8,
        readers: 8,
        pause: Duration::ZERO,
        ..Shape::default()
    };
    hold(shape, |world| world);
}

#[test]
fn writers_that_wait_for_redis() {
    hold(Shape::default(), |world| {
        world
            .conf("pg_redis_cache.synchronous", "on")
            .conf("pg_redis_cache.synchronous_timeout", "30s")
    });
}
