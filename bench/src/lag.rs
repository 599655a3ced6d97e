//! How long after its commit a change is in Redis.

use std::io::Write;
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{Folder, World};
use postgres::Client;

use crate::Effort;
use crate::load::{ACCOUNT, ACCOUNTS, Run, STEADY, end_pgbench, make_pgbench_tables, settle, start_pgbench};
use crate::report::{Aim, Section};
use crate::stats::percentile;

const P50: Aim = Aim::AtMost(0.3);
const P99: Aim = Aim::AtMost(3.0);
const QUANTILES: [(f64, &str); 2] = [(0.5, "p50"), (0.99, "p99")];

/// One commit for each transaction, of one row.
const SCRIPT: &str = "\\set aid random(1, 100000 * :scale)\n\
    UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n";

const PROBE: &str =
    "CREATE TABLE probe (id int PRIMARY KEY, payload text); INSERT INTO probe VALUES (1, '');";
const MAPPINGS: &str = "; probe:{id} => SELECT payload FROM public.probe WITH (format = string)";
const PROBE_KEY: &str = "probe:1";
/// Between two probes, so that they are no load of their own.
const PAUSE: Duration = Duration::from_millis(2);

/// What one round gave, in milliseconds: for each quantile, of the server's own account, of the probe and of
/// a bare round trip.
struct Round {
    tps: f64,
    status: [f64; 2],
    probe: [f64; 2],
    bare: [f64; 2],
}

/// At 1,000 and 5,000 commits a second.
pub fn measure(effort: Effort) -> Section {
    let (rounds, seconds) = effort.pick((2, 3), (7, 8));
    let mut section = Section::new(
        "From commit to Redis",
        "pgbench commits single-row updates of a mapped table at a set rate, on 8 connections. \"Status\" is \
         redis_cache.status: from the commit to Redis's answer, for every commit. \"Seen\" is measured from outside: \
         a client commits, and from when COMMIT has returned it polls Redis until the new value is there. \"Bare\" is \
         a SET of the same size by that client, between the probes. Of each round the quantile is taken; shown are \
         the rounds.",
    );
    let world = World::builder().conf_text(STEADY).start();
    make_pgbench_tables(&world.postgres);
    world.execute(PROBE);
    world.set_mappings(&format!("{ACCOUNT}{MAPPINGS}"));
    let folder = Folder::new();
    let script = folder.path().join("update.sql");
    std::fs::File::create(&script)
        .and_then(|mut file| file.write_all(SCRIPT.as_bytes()))
        .expect("a temporary folder takes a file");
    let script = script.to_str().expect("the folder's name is plain");

    for rate in [1_000, 5_000] {
        let rounds: Vec<Round> = (0..rounds)
            .map(|seed| {
                let run = Run {
                    script: &["-f", script],
                    clients: 8,
                    seconds,
                    seed,
                    accounts: ACCOUNTS,
                    rate: Some(rate),
                };
                round(&world, &run)
            })
            .collect();
        add(&mut section, rate, &rounds);
    }
    section
}

fn add(section: &mut Section, rate: u32, rounds: &[Round]) {
    let of = |pick: &dyn Fn(&Round) -> f64| rounds.iter().map(pick).collect();
    section.case(
        format!("commits, {rate}/s wanted"),
        "commits/s",
        of(&|round| round.tps),
    );
    for (at, (_, quantile)) in QUANTILES.iter().enumerate() {
        let aim = [P50, P99][at];
        let status = section.case(
            format!("{rate}/s: status {quantile}"),
            "ms",
            of(&|round| round.status[at]),
        );
        section.aim(status, aim);
        let probe = section.case(
            format!("{rate}/s: seen {quantile}"),
            "ms",
            of(&|round| round.probe[at]),
        );
        section.aim(probe, aim);
        let bare = section.case(
            format!("{rate}/s: bare {quantile}"),
            "ms",
            of(&|round| round.bare[at]),
        );
        section.ratio(format!("{rate}/s: status {quantile} / bare"), status, bare, None);
    }
}

fn round(world: &World, run: &Run<'_>) -> Round {
    let mut client = world.connect();
    let pgbench = start_pgbench(&world.postgres, run);
    let start = Instant::now();
    // pgbench connects, plans, and comes to its rate.
    std::thread::sleep(Duration::from_secs(1));
    client
        .batch_execute("SELECT redis_cache.reset_stats()")
        .expect("a superuser may");
    let until = start + Duration::from_secs(u64::from(run.seconds));
    let (probe, bare) = probe(world, &mut client, until);
    let status = status(&mut client);
    let tps = end_pgbench(pgbench);
    settle(world);
    Round {
        tps,
        status,
        probe: QUANTILES.map(|(p, _)| percentile(&probe, p)),
        bare: QUANTILES.map(|(p, _)| percentile(&bare, p)),
    }
}

/// Milliseconds that half of the commits, and all but one in a hundred, took since the statistics were reset.
pub fn status(client: &mut Client) -> [f64; 2] {
    let sql = "SELECT (1e3 * extract(epoch FROM lag_p50))::float8, (1e3 * extract(epoch FROM lag_p99))::float8 \
               FROM redis_cache.status";
    let row = client.query_one(sql, &[]).expect("the view can be read");
    [row.get(0), row.get(1)]
}

/// Milliseconds until changes are seen, and of bare round trips, until the time is over.
fn probe(world: &World, client: &mut Client, until: Instant) -> (Vec<f64>, Vec<f64>) {
    let redis = redis::Client::open(world.redis.url()).expect("the url is well formed");
    let mut redis = redis.get_connection().expect("Redis is there");
    let update = client
        .prepare("UPDATE probe SET payload = $1 WHERE id = 1")
        .expect("the table is there");
    let (mut seen, mut bare) = (Vec::new(), Vec::new());
    while Instant::now() < until {
        let value = format!("{:050}", seen.len());
        client
            .execute(&update, &[&value])
            .expect("the row can be changed");
        let committed = Instant::now();
        while redis::cmd("GET")
            .arg(PROBE_KEY)
            .query::<Option<String>>(&mut redis)
            .expect("Redis answers")
            .as_deref()
            != Some(&value)
        {}
        seen.push(1e3 * committed.elapsed().as_secs_f64());
        let start = Instant::now();
        redis::cmd("SET")
            .arg("bare:1")
            .arg(&value)
            .query::<()>(&mut redis)
            .expect("Redis answers");
        bare.push(1e3 * start.elapsed().as_secs_f64());
        std::thread::sleep(PAUSE);
    }
    (seen, bare)
}
