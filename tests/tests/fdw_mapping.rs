//! Deleting through a table over a mapping: nothing stale comes back, no key is forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use pg_redis_cache_tests::{Load, Shape, World, eventually};
use postgres::error::SqlState;

const LASTS: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(30);
const IMPORT: &str =
    "CREATE SCHEMA cached; IMPORT FOREIGN SCHEMA mappings FROM SERVER redis_cache INTO cached";

/// Long enough for the keys of one batch to be more than the smallest queue has room for.
const PREFIX: &str = "a-document-that-has-a-rather-long-key-so-that-few-of-them-fit-into-the-queue:";

/// Keys that nothing has put there but the test: the mapped table is empty.
fn put(world: &World, keys: u32) {
    let script = "for i = 1, ARGV[1] do redis.call('HSET', ARGV[2] .. i, 'version', i) end return 1";
    world.redis.cli(&["EVAL", script, "0", &keys.to_string(), PREFIX]);
}

fn there(world: &World) -> String {
    let script = "return #redis.call('KEYS', ARGV[1] .. '*')";
    world.redis.cli(&["EVAL", script, "0", PREFIX])
}

fn doc(settings: &[(&str, &str)]) -> World {
    let builder = World::builder();
    let builder = settings
        .iter()
        .fold(builder, |builder, (name, value)| builder.conf(name, value));
    let world = builder.start();
    world.execute("CREATE TABLE doc (id int PRIMARY KEY, version int)");
    world.set_mappings(&format!("{PREFIX}{{id}} => SELECT version FROM doc"));
    world.wait();
    world.execute(IMPORT);
    world
}

// Rules 3 and 4.
#[test]
fn deletes_among_writers_and_readers_let_nothing_stale_come_back() {
    let shape = Shape::default();
    let world = Load::world(shape, |world| world);
    world.execute(IMPORT);
    let oracle = Load::watch(&world, shape);
    let load = Load::start(&world, shape);
    let stop = Arc::new(AtomicBool::new(false));
    let deleter = thread::spawn({
        let (stop, mut client) = (Arc::clone(&stop), world.connect());
        move || {
            let delete = "DELETE FROM cached.doc WHERE id % 3 = $1";
            let mut deleted = 0;
            for turn in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                deleted += client.execute(delete, &[&(turn % 3)]).unwrap();
                let one = "DELETE FROM cached.j WHERE id = $1";
                deleted += client.execute(one, &[&(turn % 24 + 1)]).unwrap();
                if turn % 50 == 49 {
                    client.batch_execute("TRUNCATE cached.s").unwrap();
                }
            }
            deleted
        }
    });
    sleep(LASTS);
    stop.store(true, Ordering::Relaxed);
    let deleted = deleter.join().unwrap();
    let done = load.stop();
    world.wait();
    oracle.assert_held();
    Load::assert_all_rows(&world);
    assert!(deleted > 50, "{deleted}");
    assert!(done.commits > 50, "{done:?}");
}

#[test]
fn more_keys_than_the_queue_has_room_for_are_deleted_by_one_statement() {
    let world = doc(&[("pg_redis_cache.queue_size", "64kB")]);
    put(&world, 20_000);
    let mut client = world.connect();
    assert_eq!(client.execute("DELETE FROM cached.doc", &[]).unwrap(), 20_000);
    assert_eq!(there(&world), "(integer) 0");
}

#[test]
fn a_statement_that_redis_does_not_answer_fails_and_its_deletions_are_done_later() {
    let world = doc(&[]);
    put(&world, 10);
    let mut client = world.connect();
    world.redis.freeze();
    let error = client.batch_execute("TRUNCATE cached.doc").unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::CONNECTION_FAILURE), "{error:?}");
    world.redis.thaw();
    eventually("the keys to be gone", SOON, || {
        (there(&world) == "(integer) 0").then_some(())
    });
    // What was cut short is not used again.
    put(&world, 10);
    assert_eq!(
        client
            .execute("DELETE FROM cached.doc WHERE id < 6", &[])
            .unwrap(),
        5
    );
    assert_eq!(there(&world), "(integer) 5");
}
