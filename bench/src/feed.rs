//! How many rows a second the worker brings to Redis when it is what all wait for.

use pg_redis_cache_tests::{World, WorldBuilder};

use crate::Effort;
use crate::load::{STEADY, redis_benchmark, seconds, settle, worker_pid};
use crate::report::{Aim, Section};

const AIM: Aim = Aim::AtLeast(0.6);

/// Keys of 16 bytes, as redis-benchmark's.
const FIRST: i64 = 100_000_000_000;
const ROWS_IN_TRANSACTION: usize = 1_000;

const SCHEMA: &str = "CREATE TABLE kv (id bigint PRIMARY KEY, value text)";

/// A backlog is made while the worker is stopped, and timed from when it goes on until Redis has answered
/// for the last row.
pub fn measure(effort: Effort) -> Section {
    let (rounds, rows) = effort.pick((3, 200_000), (7, 1_000_000));
    let about = format!(
        "{rows} rows, in transactions of {ROWS_IN_TRANSACTION}, are changed while the worker is stopped; then it \
         goes on, and the time is taken until Redis has answered for the last row. Keys have 16 bytes, values 50. \
         redis-benchmark sets as many keys of that kind on one connection with 128 commands in flight (-c 1 -P 128), \
         in turns with it, on the same server."
    );
    let mut section = Section::new("Rows a second through the worker", &about);
    let string = world(
        World::builder(),
        "key:{id} => SELECT value FROM public.kv WITH (format = string)",
        rows,
    );
    let hash = world(World::builder(), "key:{id} => SELECT value FROM public.kv", rows);
    let mut values: [Vec<f64>; 3] = Default::default();
    for round in 0..=rounds {
        let rates = [
            redis_benchmark(string.redis.port(), rows),
            drain(&string, rows),
            drain(&hash, rows),
        ];
        if round > 0 {
            values
                .iter_mut()
                .zip(rates)
                .for_each(|(values, rate)| values.push(rate));
        }
    }
    let [bare, string, hash] = values;
    let bare = section.case("redis-benchmark", "rows/s", bare);
    let string = section.case("worker, strings", "rows/s", string);
    let hash = section.case("worker, hashes of one field", "rows/s", hash);
    section.ratio("strings / redis-benchmark", string, bare, Some(AIM));
    section.ratio("hashes / redis-benchmark", hash, bare, None);
    section
}

/// A server with so many rows, mapped.
pub fn world(builder: WorldBuilder, mapping: &str, rows: usize) -> World {
    let world = builder
        .conf_text(STEADY)
        .conf("pg_redis_cache.queue_size", "1GB")
        .start();
    world.execute(SCHEMA);
    let last = FIRST + rows as i64 - 1;
    world.execute(&format!(
        "INSERT INTO kv SELECT n, repeat('x', 50) FROM generate_series({FIRST}, {last}) AS n"
    ));
    world.set_mappings(mapping);
    world
}

/// Makes a backlog of all rows and has it sent; returns the rows a second.
pub fn drain(world: &World, rows: usize) -> f64 {
    let worker = worker_pid(world);
    world.postgres.signal(worker, STOP);
    let mut client = world.connect();
    let update = client
        .prepare("UPDATE kv SET value = rpad($3, 50, 'x') WHERE id BETWEEN $1 AND $2")
        .expect("the table is there");
    for first in (0..rows).step_by(ROWS_IN_TRANSACTION) {
        let first = FIRST + first as i64;
        let last = first + ROWS_IN_TRANSACTION as i64 - 1;
        let changed = client.execute(&update, &[&first, &last, &format!("{first}")]);
        assert_eq!(changed.expect("rows can be changed"), ROWS_IN_TRANSACTION as u64);
    }
    let sets = sets(world);
    let time = seconds(|| {
        world.postgres.signal(worker, CONTINUE);
        settle(world);
    });
    assert_eq!(self::sets(world) - sets, rows as i64, "not every row was set");
    client.batch_execute("VACUUM kv").expect("a table can be cleaned");
    rows as f64 / time
}

fn sets(world: &World) -> i64 {
    let row = world
        .connect()
        .query_one("SELECT sets FROM redis_cache.stats WHERE name = 'kv'", &[]);
    row.expect("the view can be read").get(0)
}

/// Linux's numbers on every architecture that PostgreSQL has Debian packages for, but for mips.
const CONTINUE: i32 = 18;
const STOP: i32 = 19;
