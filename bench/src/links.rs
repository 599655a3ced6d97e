//! What the way to Redis costs the worker: TCP, a Unix socket, TLS, a cluster.

use std::time::Duration;

use pg_redis_cache_tests::{Redis, RedisCluster, Secure, World, eventually};

use crate::Effort;
use crate::feed;
use crate::lag;
use crate::load::{
    ACCOUNT, ACCOUNTS, Run, end_pgbench, make_pgbench_tables, settle, start_pgbench, worker_pid,
};
use crate::machine::own_cpu;
use crate::report::{CaseId, Section};

const MAPPING: &str = "key:{id} => SELECT value FROM public.kv";
/// Commits a second while the lag is measured: what the machine has time for, whatever the way.
const RATE: u32 = 1_000;
const WAYS: usize = 4;

/// A server whose worker goes to its Redis in one way.
struct Way {
    name: &'static str,
    world: World,
    /// The processes that it writes to.
    redis: Vec<u32>,
    /// What has to last as long.
    _kept: Kept,
    /// By round.
    found: Vec<Found>,
}

#[derive(Default)]
struct Kept {
    _secure: Option<Secure>,
    _cluster: Option<RedisCluster>,
}

/// What one round gave.
struct Found {
    rows_a_second: f64,
    /// Microseconds of CPU for each row.
    worker: f64,
    redis: f64,
    /// Milliseconds.
    lag: [f64; 2],
}

/// Rows a second of a backlog, the CPU time that they take, and the lag under a steady load; the ways in turns.
pub fn measure(effort: Effort) -> Section {
    let (rounds, rows, seconds) = effort.pick((3, 100_000, 3), (7, 500_000, 6));
    let about = format!(
        "The same backlog of {rows} rows (hashes of one field) as in \"Rows a second through the worker\", and \
         pgbench at {RATE} commits a second, with one Redis for each way, on this machine, but for the cluster's three masters; the \
         ways in turns. CPU time is for each row of the backlog, also in Redis."
    );
    let mut section = Section::new("Ways to Redis", &about);
    let mut ways: [Way; WAYS] = [tcp(rows), socket(rows), tls(rows), cluster(rows)];
    for round in 0..=rounds {
        for turn in 0..WAYS {
            let way = &mut ways[(round + turn) % WAYS];
            let found = way.round(rows, seconds, round);
            if round > 0 {
                way.found.push(found);
            }
        }
    }
    compare(&mut section, &ways, "backlog", "rows/s", |found| {
        found.rows_a_second
    });
    compare(&mut section, &ways, "CPU in the worker", "µs/row", |found| {
        found.worker
    });
    compare(&mut section, &ways, "CPU in Redis", "µs/row", |found| {
        found.redis
    });
    compare(&mut section, &ways, "lag p50", "ms", |found| found.lag[0]);
    compare(&mut section, &ways, "lag p99", "ms", |found| found.lag[1]);
    section
}

/// Adds a figure of each way, and its ratio to that of the first.
fn compare(section: &mut Section, ways: &[Way], what: &str, unit: &'static str, pick: fn(&Found) -> f64) {
    let mut case = |way: &Way| {
        let values = way.found.iter().map(pick).collect();
        section.case(format!("{what}: {}", way.name), unit, values)
    };
    let cases: Vec<CaseId> = ways.iter().map(&mut case).collect();
    for (way, of) in ways.iter().zip(&cases).skip(1) {
        section.ratio(
            format!("{what}: {} / {}", way.name, ways[0].name),
            *of,
            cases[0],
            None,
        );
    }
}

fn tcp(rows: usize) -> Way {
    let world = feed::world(World::builder(), MAPPING, rows);
    prepare("TCP", world, Kept::default(), rows)
}

fn socket(rows: usize) -> Way {
    let world = feed::world(World::builder(), MAPPING, rows);
    let url = format!("redis+unix://{}", world.redis.socket().display());
    world.postgres.set_conf("pg_redis_cache.url", &url);
    prepare("Unix socket", world, Kept::default(), rows)
}

fn tls(rows: usize) -> Way {
    let secure = Secure::new();
    let args = secure.args(&secure.server(), "no");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let world = feed::world(World::builder().redis_args(&args), MAPPING, rows);
    let authority = secure.authority.certificate().display().to_string();
    world.postgres.set_conf("pg_redis_cache.tls_ca_file", &authority);
    world.postgres.set_conf("pg_redis_cache.url", &secure.url());
    let kept = Kept {
        _secure: Some(secure),
        ..Kept::default()
    };
    prepare("TLS", world, kept, rows)
}

fn cluster(rows: usize) -> Way {
    let cluster = RedisCluster::start(3, false);
    let world = feed::world(World::builder().url(&cluster.url()), MAPPING, rows);
    let redis = cluster.nodes.iter().map(Redis::pid).collect();
    let kept = Kept {
        _cluster: Some(cluster),
        ..Kept::default()
    };
    Way {
        redis,
        ..prepare("Cluster of 3", world, kept, rows)
    }
}

/// Makes pgbench's tables, too, and waits until the worker goes that way.
fn prepare(name: &'static str, world: World, kept: Kept, rows: usize) -> Way {
    make_pgbench_tables(&world.postgres);
    world.set_mappings(&format!("{MAPPING}; {ACCOUNT}"));
    let url = "SELECT current_setting('pg_redis_cache.url')";
    let row = world
        .connect()
        .query_one(url, &[])
        .expect("a setting can be shown");
    let url: String = row.get(0);
    eventually(&url, Duration::from_secs(20), || {
        let sql = "SELECT connected AND url = $1 FROM redis_cache.status";
        let row = world.connect().query_one(sql, &[&url]);
        row.expect("the view can be read").get::<_, bool>(0).then_some(())
    });
    feed::drain(&world, rows);
    Way {
        name,
        redis: vec![world.redis.pid()],
        world,
        _kept: kept,
        found: Vec::new(),
    }
}

impl Way {
    fn round(&self, rows: usize, seconds: u32, seed: usize) -> Found {
        let used = || {
            [
                own_cpu(worker_pid(&self.world)),
                self.redis.iter().copied().map(own_cpu).sum(),
            ]
        };
        let before = used();
        let rows_a_second = feed::drain(&self.world, rows);
        let after = used();
        let each = |at: usize| 1e6 * (after[at] - before[at]) / rows as f64;
        Found {
            rows_a_second,
            worker: each(0),
            redis: each(1),
            lag: self.lag(seconds, seed),
        }
    }

    fn lag(&self, seconds: u32, seed: usize) -> [f64; 2] {
        let run = Run {
            script: &["-N"],
            clients: 8,
            seconds,
            seed,
            accounts: ACCOUNTS,
            rate: Some(RATE),
        };
        let mut client = self.world.connect();
        let pgbench = start_pgbench(&self.world.postgres, &run);
        // pgbench connects, plans, and comes to its rate.
        std::thread::sleep(Duration::from_secs(1));
        client
            .batch_execute("SELECT redis_cache.reset_stats()")
            .expect("a superuser may");
        end_pgbench(pgbench);
        settle(&self.world);
        lag::status(&mut client)
    }
}
