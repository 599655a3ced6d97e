//! Changes that pass by the hooks are found by comparing with what PostgreSQL counted, and nothing else is.

use std::path::PathBuf;
use std::process::Command;
use std::thread;

use pg_redis_cache_tests::{Folder, RowOracle, World, installation, repository};
use postgres::Client;

const SCHEMA: &str = "CREATE TABLE doc (id int PRIMARY KEY, version int); \
                      INSERT INTO doc SELECT i, 0 FROM generate_series(1, 50) i";
const MAPPING: &str = "doc:{id} => SELECT version FROM doc";

fn oracle() -> RowOracle {
    RowOracle::hash("doc:{id}", "doc", &["version"])
}

fn world_with(mapping: &str) -> World {
    let world = World::builder().conf("max_prepared_transactions", "5").start();
    world.execute(SCHEMA);
    world.set_mappings(mapping);
    world.wait();
    world
}

fn purges(world: &World) -> i64 {
    world.wait();
    let row = world
        .connect()
        .query_one("SELECT sum(purges)::bigint FROM redis_cache.stats", &[]);
    row.expect("the view can be read").get(0)
}

fn cached(world: &World) -> usize {
    world.assert_rows(&oracle()).keys
}

/// Builds the library that changes rows without the executor, and makes its functions.
fn load_bypass(world: &World, folder: &Folder) {
    let library: PathBuf = folder.path().join("bypass.so");
    let source = repository().join("tests/bypass/bypass.c");
    let mut compile = Command::new("cc");
    compile
        .args(["-shared", "-fPIC", "-O1", "-I"])
        .arg(&installation().headers);
    compile.arg("-o").arg(&library).arg(&source);
    let output = compile.output().expect("a C compiler is there");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let library = library.display();
    world.execute(&format!(
        "CREATE FUNCTION bypass_update(regclass, int, int) RETURNS void AS '{library}' LANGUAGE c; \
         CREATE FUNCTION bypass_delete(regclass) RETURNS void AS '{library}' LANGUAGE c"
    ));
}

/// Runs statements that must purge once, and leave nothing stale.
fn assert_found(world: &World, what: &str, run: impl FnOnce(&mut Client)) {
    world.execute("UPDATE doc SET version = version + 1");
    assert!(cached(world) > 0, "{what}: there is nothing that could be stale");
    let before = purges(world);
    run(&mut world.connect());
    assert!(purges(world) > before, "{what}: nothing was purged");
    world.assert_rows(&oracle());
}

/// Runs statements that must not purge.
fn assert_complete(world: &World, what: &str, run: impl FnOnce(&mut Client)) {
    let before = purges(world);
    run(&mut world.connect());
    assert_eq!(purges(world), before, "{what}: a purge without need");
    world.assert_rows(&oracle());
}

fn execute(statements: &str) -> impl FnOnce(&mut Client) {
    let statements = statements.to_owned();
    move |client| {
        client
            .batch_execute(&statements)
            .expect("the statements are right")
    }
}

#[test]
fn rows_changed_behind_the_executor() {
    let folder = Folder::new();
    let world = world_with(MAPPING);
    load_bypass(&world, &folder);
    assert_found(&world, "an update", execute("SELECT bypass_update('doc', 2, 77)"));
    assert_found(&world, "a deletion", execute("SELECT bypass_delete('doc')"));
    assert_found(
        &world,
        "both after COPY",
        execute(
            "BEGIN; COPY doc FROM PROGRAM 'printf \"100\\\\t0\\\\n101\\\\t0\\\\n\"'; \
             SELECT bypass_update('doc', 2, 78); SELECT bypass_delete('doc'); COMMIT",
        ),
    );
    assert_found(
        &world,
        "an update beside one that was seen",
        execute(
            "BEGIN; UPDATE doc SET version = 5 WHERE id = 20; SELECT bypass_update('doc', 2, 79); COMMIT",
        ),
    );
    assert_found(
        &world,
        "an update in a savepoint that is kept",
        execute("BEGIN; SAVEPOINT a; SAVEPOINT b; SELECT bypass_update('doc', 2, 80); RELEASE b; COMMIT"),
    );
    assert_found(
        &world,
        "an update that PostgreSQL does not count",
        execute("SET track_counts = off; SELECT bypass_update('doc', 2, 81)"),
    );
    assert_complete(
        &world,
        "a savepoint that is rolled back",
        execute(
            "BEGIN; UPDATE doc SET version = 6 WHERE id = 20; SAVEPOINT a; SELECT bypass_update('doc', 2, 82); \
             SELECT bypass_delete('doc'); UPDATE doc SET version = 7; ROLLBACK TO a; \
             UPDATE doc SET version = 8 WHERE id = 21; COMMIT",
        ),
    );
}

#[test]
fn partitions_are_compared_one_by_one() {
    let folder = Folder::new();
    let world = World::builder().start();
    world.execute(
        "CREATE TABLE doc (id int PRIMARY KEY, version int) PARTITION BY RANGE (id); \
         CREATE TABLE doc_low PARTITION OF doc FOR VALUES FROM (0) TO (100); \
         CREATE TABLE doc_high PARTITION OF doc FOR VALUES FROM (100) TO (200); \
         INSERT INTO doc SELECT i, 0 FROM generate_series(1, 199) i",
    );
    world.set_mappings(MAPPING);
    world.wait();
    load_bypass(&world, &folder);
    assert_found(
        &world,
        "a leaf",
        execute("SELECT bypass_update('doc_high', 2, 5)"),
    );
    assert_found(
        &world,
        "a deletion in one leaf beside one that was seen in another",
        execute("BEGIN; SELECT bypass_delete('doc_high'); DELETE FROM doc WHERE id = 3; COMMIT"),
    );
    assert_complete(
        &world,
        "rows that move, leaves addressed directly",
        execute(
            "UPDATE doc SET id = id + 1000, version = 9 WHERE false; UPDATE doc SET id = 3 WHERE id = 150; \
             DELETE FROM doc WHERE id IN (4, 160); UPDATE doc_low SET version = 3; DELETE FROM doc_high WHERE id = 170; \
             INSERT INTO doc VALUES (4, 1) ON CONFLICT (id) DO UPDATE SET version = 2",
        ),
    );
}

#[test]
fn upserts_that_race_purge_nothing() {
    for mapping in [MAPPING, "doc:{id} => SELECT version FROM doc WITH (insert = set)"] {
        let world = world_with(mapping);
        let before = purges(&world);
        thread::scope(|scope| {
            for writer in 0..8 {
                let mut client = world.connect();
                scope.spawn(move || {
                    for id in 1_000..1_400 {
                        let ending = if (writer + id) % 2 == 0 {
                            "NOTHING"
                        } else {
                            "UPDATE SET version = doc.version + 1"
                        };
                        let upsert = format!("INSERT INTO doc VALUES ({id}, 0) ON CONFLICT (id) DO {ending}");
                        client.batch_execute(&upsert).expect("an upsert does not fail");
                    }
                });
            }
        });
        assert_eq!(purges(&world), before);
        world.assert_rows(&oracle());
    }
}

/// What an INSERT triggered in another partition's BEFORE trigger takes away is not returned by any node.
#[test]
fn a_row_that_vanishes_while_it_moves() {
    let world = World::builder().start();
    world.execute(
        "CREATE TABLE doc (id int PRIMARY KEY, version int) PARTITION BY RANGE (id); \
         CREATE TABLE doc_low PARTITION OF doc FOR VALUES FROM (0) TO (100); \
         CREATE TABLE doc_high PARTITION OF doc FOR VALUES FROM (100) TO (200); \
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER refuse BEFORE INSERT ON doc_high FOR EACH ROW EXECUTE FUNCTION refuse(); \
         INSERT INTO doc SELECT i, 0 FROM generate_series(1, 50) i",
    );
    world.set_mappings(MAPPING);
    world.wait();
    assert_found(&world, "the row", execute("UPDATE doc SET id = 150 WHERE id = 7"));
}
