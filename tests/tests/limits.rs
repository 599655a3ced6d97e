//! Whatever does not fit (the queue, the transaction's buffer, an entry, a value) ends as no key or a deleted
//! one, never as an error, a wait or a wrong value.

use std::time::Duration;

use pg_redis_cache_tests::{Format, Load, RowOracle, Shape, World, WorldBuilder};
use postgres::Client;

const DOC: &str = "CREATE TABLE doc (id int PRIMARY KEY, version bigint NOT NULL DEFAULT 0, body text)";
const MAPPING: &str = "doc:{id} => SELECT version, body FROM doc WITH (insert = set)";

fn world(settings: impl FnOnce(WorldBuilder) -> WorldBuilder) -> World {
    let world = settings(World::builder()).start();
    world.execute(DOC);
    world.set_mappings(MAPPING);
    world.wait();
    world
}

fn oracle() -> RowOracle {
    RowOracle::hash("doc:{id}", "doc", &["version", "body"])
}

/// Keys that are there without a wrong one among them.
fn keys(world: &World) -> usize {
    world.assert_rows(&oracle()).keys
}

/// The cache works: a change of one row is in Redis.
fn assert_works(world: &World) {
    world.execute("INSERT INTO doc VALUES (1, 0, 'ok') ON CONFLICT (id) DO UPDATE SET body = 'ok'");
    world.wait();
    assert_eq!(world.redis.cli(&["HGET", "doc:1", "body"]), "\"ok\"");
    keys(world);
}

fn no_fault_in_the_log(world: &World) {
    let log = world.postgres.log();
    let faults = ["ERROR:", "panick", "PANIC", "cannot be read"];
    let bad = log
        .lines()
        .find(|line| faults.iter().any(|fault| line.contains(fault)));
    assert_eq!(bad, None);
}

#[test]
fn a_tiny_queue_under_load() {
    let shape = Shape {
        pause: Duration::ZERO,
        ..Shape::default()
    };
    let world = Load::world(shape, |world| world.conf("pg_redis_cache.queue_size", "64kB"));
    let oracle = Load::watch(&world, shape);
    let load = Load::start(&world, shape);
    load.goes_on(300);
    // Nothing is taken off the queue now, so that it runs over.
    world.redis.freeze();
    load.goes_on(600);
    world.redis.thaw();
    load.goes_on(300);
    load.stop();
    Load::assert_all_rows(&world);
    oracle.assert_held();
}

#[test]
fn a_full_queue_delays_no_commit() {
    let world = world(|world| world.conf("pg_redis_cache.queue_size", "64kB"));
    world.redis.freeze();
    world.execute(
        "DO $$ BEGIN \
             FOR i IN 1..400 LOOP \
                 INSERT INTO doc VALUES (i, i, repeat('x', 1000)); \
                 COMMIT; \
             END LOOP; \
         END $$",
    );
    world.redis.thaw();
    keys(&world);
    assert_works(&world);
    no_fault_in_the_log(&world);
}

#[test]
fn a_transaction_larger_than_its_buffer() {
    let world = world(|world| world.conf("pg_redis_cache.transaction_buffer", "64kB"));
    world.execute("INSERT INTO doc SELECT i, 0, repeat('x', 100) FROM generate_series(1, 300) i");
    // Values do not fit, deletes of the same keys do.
    world.execute("UPDATE doc SET body = repeat('y', 1000)");
    keys(&world);
    assert_works(&world);
    // Not even the deletes fit.
    world.execute("INSERT INTO doc SELECT i, 0, repeat('z', 1000) FROM generate_series(1000, 21000) i");
    keys(&world);
    assert_works(&world);
    no_fault_in_the_log(&world);
}

#[test]
fn a_transaction_larger_than_the_queue() {
    let world = world(|world| world.conf("pg_redis_cache.queue_size", "64kB"));
    world.execute("INSERT INTO doc SELECT i, 0, repeat('x', 1000) FROM generate_series(1, 500) i");
    keys(&world);
    assert_works(&world);
    world.execute("UPDATE doc SET version = 2");
    keys(&world);
    assert_works(&world);
    world.execute("DELETE FROM doc WHERE id % 2 = 0");
    keys(&world);
    assert_works(&world);
    no_fault_in_the_log(&world);
}

#[test]
fn one_row_larger_than_the_queue() {
    let world = world(|world| world.conf("pg_redis_cache.queue_size", "64kB"));
    assert_works(&world);
    world.execute("UPDATE doc SET body = repeat('big', 100000) WHERE id = 1");
    keys(&world);
    world.execute("SELECT body FROM doc WHERE id = 1");
    keys(&world);
    assert_works(&world);
    no_fault_in_the_log(&world);
}

#[test]
fn two_hundred_thousand_rows_at_once() {
    let world = world(|world| world);
    world.execute("INSERT INTO doc SELECT i, 0, 'x' FROM generate_series(1, 200000) i");
    world.execute("UPDATE doc SET version = version + 1");
    keys(&world);
    world.execute("DELETE FROM doc WHERE id > 100");
    keys(&world);
    assert_works(&world);
    no_fault_in_the_log(&world);
}

#[test]
fn values_of_twenty_megabytes() {
    let world = world(|world| world.conf("pg_redis_cache.queue_size", "256MB"));
    world.execute("INSERT INTO doc VALUES (1), (2)");
    let text = |letter: &str| format!("repeat('{letter}', 20 * 1024 * 1024)");
    world.execute(&format!("UPDATE doc SET body = {} WHERE id = 1", text("a")));
    assert_eq!(keys(&world), 2);
    // Longer than the transaction's buffer with its neighbour: no key, or the right one.
    world.execute(&format!("UPDATE doc SET body = {}", text("b")));
    keys(&world);
    world.execute("SELECT body FROM doc WHERE id = 2");
    keys(&world);
    assert_works(&world);
    no_fault_in_the_log(&world);
}

/// Ten bytes that are a number of 131,072 digits: only the text tells that a row is too large to be filled.
#[test]
fn texts_that_are_longer_than_their_values() {
    let world = World::builder()
        .conf("pg_redis_cache.queue_size", "256MB")
        .start();
    world.execute("CREATE TABLE amounts (id int PRIMARY KEY, n numeric[])");
    world.set_mappings("amount:{id} => SELECT n FROM amounts");
    world.wait();
    world.execute(
        "INSERT INTO amounts SELECT i, array_fill(1e131071::numeric, ARRAY[i * i]) FROM (VALUES (1), (10)) v (i)",
    );
    let cached = || ["1", "10"].map(|id| world.redis.cli(&["EXISTS", &format!("amount:{id}")]));
    for id in [1, 10] {
        world.execute(&format!("SELECT cardinality(n) FROM amounts WHERE id = {id}"));
    }
    world.wait();
    assert_eq!(cached(), ["(integer) 1", "(integer) 0"]);
    world.execute("UPDATE amounts SET n = n");
    world.wait();
    assert_eq!(cached(), ["(integer) 1", "(integer) 1"]);
    no_fault_in_the_log(&world);
}

#[test]
fn keys_of_a_hundred_kilobytes() {
    // An index entry has room for about 2700 bytes, after compression: this many equal letters fit.
    let world = World::with(
        "CREATE TABLE long (name text PRIMARY KEY, n int)",
        "long:{name} => SELECT n FROM long WITH (insert = set)",
    );
    let oracle = RowOracle::hash("long:{name}", "long", &["n"]);
    world.execute("INSERT INTO long SELECT repeat(chr(96 + i), 100000), i FROM generate_series(1, 20) i");
    assert_eq!(world.assert_rows(&oracle).keys, 20);
    world.execute("UPDATE long SET n = n + 1 WHERE n % 2 = 0; DELETE FROM long WHERE n > 15");
    let compared = world.assert_rows(&oracle);
    assert_eq!(compared.keys, compared.rows);
    world.redis.cli(&["FLUSHALL"]);
    // wait() lets the flush be noticed or not; a read brings a key back in any case.
    let mut client = world.connect();
    let name = "a".repeat(100_000);
    client
        .query("SELECT n FROM long WHERE name = $1", &[&name])
        .unwrap();
    assert_eq!(world.assert_rows(&oracle).keys, 1);
    no_fault_in_the_log(&world);
}

#[test]
fn every_character_but_nul_in_keys_and_values() {
    let world = World::with(
        "CREATE TABLE glyph (c text PRIMARY KEY, v text)",
        "g:{c} => SELECT c, v FROM glyph WITH (insert = set); \
         gj:{c} => SELECT v FROM glyph WITH (name = gj, format = json, insert = set); \
         gs:{c} => SELECT v FROM glyph WITH (name = gs, format = string, insert = set)",
    );
    let mut client = world.connect();
    let all: Vec<char> = ('\u{1}'..=char::MAX).collect();
    // As keys alone, each of the first planes' corners; as values all there are.
    let single: Vec<String> = all.iter().take(0x2FF).map(|c| c.to_string()).collect();
    let insert = "INSERT INTO glyph SELECT c, v FROM unnest($1::text[], $2::text[]) AS t(c, v)";
    client.execute(insert, &[&single, &single]).unwrap();
    let blocks: Vec<String> = all.chunks(4000).map(|block| block.iter().collect()).collect();
    let names: Vec<String> = (0..blocks.len()).map(|i| format!("block {i}")).collect();
    client.execute(insert, &[&names, &blocks]).unwrap();
    for (template, columns, format) in [
        ("g:{c}", &["c", "v"][..], Format::Hash),
        ("gj:{c}", &["v"], Format::Json),
        ("gs:{c}", &["v"], Format::String),
    ] {
        let compared = world.assert_rows(&RowOracle::new(template, "glyph", columns, format));
        assert_eq!(compared.keys, compared.rows, "{template}");
    }
    no_fault_in_the_log(&world);
}

#[test]
fn two_hundred_savepoints_deep() {
    let world = world(|world| world);
    world.execute("INSERT INTO doc SELECT i FROM generate_series(1, 250) i");
    let mut client = world.connect();
    for (kept, ending) in [(200, "COMMIT"), (120, "COMMIT"), (50, "ROLLBACK")] {
        deep(&mut client, kept, ending);
        assert_eq!(keys(&world), 250);
    }
    no_fault_in_the_log(&world);
}

/// Changes row `n` at depth `n`, everybody's row 1 at each, then takes back what is deeper than `kept`.
fn deep(client: &mut Client, kept: u32, ending: &str) {
    client.batch_execute("BEGIN").unwrap();
    for depth in 1..=200 {
        let sql = format!(
            "SAVEPOINT s{depth}; UPDATE doc SET version = version + 1, body = '{kept} {depth}' WHERE id IN (1, {depth})"
        );
        client.batch_execute(&sql).unwrap();
    }
    if kept < 200 {
        client
            .batch_execute(&format!("ROLLBACK TO s{}; RELEASE s{}", kept + 1, kept / 2))
            .unwrap();
    }
    client.batch_execute(ending).unwrap();
}

#[test]
fn more_mappings_than_there_are_places() {
    let world = World::builder().conf("pg_redis_cache.max_mappings", "2").start();
    world.execute(DOC);
    world.execute("INSERT INTO doc VALUES (1)");
    world.postgres.set_conf(
        "pg_redis_cache.mappings",
        "a:{id} => SELECT body FROM doc WITH (name = a); b:{id} => SELECT body FROM doc WITH (name = b); \
         c:{id} => SELECT body FROM doc WITH (name = c)",
    );
    let mut client = world.connect();
    pg_redis_cache_tests::eventually("two mappings to be active", Duration::from_secs(20), || {
        let sql = "SELECT string_agg(state, ' ' ORDER BY name), max(problem) FROM redis_cache.mappings";
        let row = client.query_one(sql, &[]).unwrap();
        let problem: Option<String> = row.get(1);
        (row.get::<_, Option<&str>>(0) == Some("active active pending") && problem?.contains("max_mappings"))
            .then_some(())
    });
    // First the purges that come with it.
    world.wait();
    world.execute("UPDATE doc SET body = 'x'");
    world.wait();
    assert_eq!(world.redis.cli(&["EXISTS", "a:1", "b:1", "c:1"]), "(integer) 2");
}
