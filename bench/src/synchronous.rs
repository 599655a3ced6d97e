//! What it costs to have COMMIT wait for Redis.

use std::time::Instant;

use pg_redis_cache_tests::World;
use postgres::{Client, Statement};

use crate::Effort;
use crate::load::{ACCOUNT, ACCOUNTS, Run, STEADY, make_pgbench_tables, pgbench, reconfigure, settle};
use crate::report::{CaseId, Section};
use crate::stats::percentile;

const SYNCHRONOUS: &str = "pg_redis_cache.synchronous";
const UPDATE: &str = "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = $1";

/// One client statement by statement, then pgbench with one and eight.
pub fn measure(effort: Effort) -> Section {
    let (rounds, updates, seconds) = effort.pick((2, 200, 1), (7, 3_000, 5));
    let mut section = Section::new(
        "Synchronous commits",
        "Single-row updates of a mapped table, with `synchronous` off and on in turns. \"An update\" is the time from \
         sending a prepared UPDATE to its answer, the commit included, of one client; \"bare\" is a SET of the same \
         client to the same Redis. pgbench runs simple-update, prepared.",
    );
    let world = World::builder().conf_text(STEADY).start();
    make_pgbench_tables(&world.postgres);
    world.set_mappings(ACCOUNT);
    let mut client = world.connect();
    let update = client.prepare(UPDATE).expect("the table is there");
    let mut found: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        found[0].push(updates_p50(&mut client, &update, "off", updates));
        found[1].push(updates_p50(&mut client, &update, "on", updates));
        found[2].push(bare_p50(&world, updates));
    }
    let [off, on, bare] = found;
    let off = section.case("an update, off: p50", "ms", off);
    let on = section.case("an update, on: p50", "ms", on);
    let bare = section.case("bare SET: p50", "ms", bare);
    section.ratio("an update: on / off", on, off, None);
    section.ratio("an update, on / bare SET", on, bare, None);
    for clients in [1, 8] {
        let [off, on] = throughput(&mut section, &world, clients, rounds, seconds);
        section.ratio(format!("{clients} clients: on / off"), on, off, None);
    }
    section
}

fn updates_p50(client: &mut Client, update: &Statement, value: &str, updates: i32) -> f64 {
    client
        .batch_execute(&format!("SET {SYNCHRONOUS} = {value}"))
        .expect("anybody may");
    let times: Vec<f64> = (1..=updates)
        .map(|aid| {
            let start = Instant::now();
            client.execute(update, &[&aid]).expect("the row can be changed");
            1e3 * start.elapsed().as_secs_f64()
        })
        .collect();
    percentile(&times, 0.5)
}

fn bare_p50(world: &World, sets: i32) -> f64 {
    let redis = redis::Client::open(world.redis.url()).expect("the url is well formed");
    let mut redis = redis.get_connection().expect("Redis is there");
    let times: Vec<f64> = (0..sets)
        .map(|_| {
            let start = Instant::now();
            redis::cmd("SET")
                .arg(&["bare:1", "a value of about the same size"])
                .query::<()>(&mut redis)
                .expect("Redis answers");
            1e3 * start.elapsed().as_secs_f64()
        })
        .collect();
    percentile(&times, 0.5)
}

fn throughput(
    section: &mut Section,
    world: &World,
    clients: u32,
    rounds: usize,
    seconds: u32,
) -> [CaseId; 2] {
    let mut found: [Vec<f64>; 2] = Default::default();
    for seed in 0..rounds {
        for (found, value) in found.iter_mut().zip(["off", "on"]) {
            reconfigure(&world.postgres, SYNCHRONOUS, value);
            let run = Run {
                script: &["-N"],
                clients,
                seconds,
                seed,
                accounts: ACCOUNTS,
                rate: None,
            };
            found.push(pgbench(&world.postgres, &run));
            settle(world);
        }
    }
    let [off, on] = found;
    [
        section.case(format!("{clients} clients, off"), "tps", off),
        section.case(format!("{clients} clients, on"), "tps", on),
    ]
}
