//! One fault after the other, picked at random, under a load of writers, readers and pollers. After each one,
//! once it is over: the row oracle, the counters, and how long it took until Redis was fresh again. All along:
//! the version oracle.
//!
//! A short run by default; `make chaos` makes a long one and writes its table to docs/CHAOS.md.
//! `PG_REDIS_CACHE_CHAOS_SECONDS` and `PG_REDIS_CACHE_CHAOS_SEED` say how long and which one,
//! `PG_REDIS_CACHE_CHAOS_TABLES` names a folder for the tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{Dice, Load, Shutdown, Trial, World, WorldBuilder, eventually};
use postgres::{Client, NoTls};

const SOON: Duration = Duration::from_secs(30);

/// What is done to the servers; when it returns, it is over.
type Fault = (&'static str, fn(&mut World, &mut Dice));

const FAULTS: &[Fault] = &[
    ("Redis killed, back at once", redis_killed),
    ("Redis killed, away for a second", redis_away),
    ("Redis frozen for up to a second", redis_frozen),
    ("Redis emptied (FLUSHALL)", redis_emptied),
    ("Redis without memory (noeviction)", memory_refused),
    ("Redis without memory (allkeys-lru)", memory_evicted),
    ("connections cut, five times", connections_cut),
    ("clients killed in Redis, five times", clients_killed),
    ("network slow: 10 to 50 ms each way", network_slow),
    ("network slower than command_timeout", network_too_slow),
    ("network keeps what it was given, hands it on late", network_late),
    ("worker terminated", worker_terminated),
    ("worker killed (kill -9)", worker_killed),
    ("backend killed (kill -9)", backend_killed),
    ("Postgres restarted, fast", postgres_fast),
    ("Postgres restarted, immediate", postgres_immediate),
    ("Postgres killed whole", postgres_killed),
];

#[test]
fn with_the_usual_settings() {
    run("usual settings", |world| world);
}

#[test]
fn with_a_tiny_queue_and_buffer() {
    run("queue_size = 64kB, transaction_buffer = 64kB", |world| {
        world
            .conf("pg_redis_cache.queue_size", "64kB")
            .conf("pg_redis_cache.transaction_buffer", "64kB")
    });
}

fn run(title: &str, settings: fn(WorldBuilder) -> WorldBuilder) {
    let seed = number("PG_REDIS_CACHE_CHAOS_SEED").unwrap_or(1);
    let seconds = number("PG_REDIS_CACHE_CHAOS_SECONDS").unwrap_or(30);
    println!("chaos with {title}: {seconds} s, seed {seed}");
    let mut chaos = Chaos::begin(settings, seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        chaos.round();
    }
    chaos.end(title);
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

struct Chaos {
    world: World,
    dice: Dice,
    /// Those that are still to come before all have been again.
    due: Vec<Fault>,
    /// By fault: milliseconds until fresh again.
    times: BTreeMap<&'static str, Vec<u128>>,
    commits: u64,
}

impl Chaos {
    fn begin(settings: fn(WorldBuilder) -> WorldBuilder, seed: u64) -> Chaos {
        Chaos {
            world: Trial::world(|world| settings(world.proxied())),
            dice: Dice::new(seed),
            due: Vec::new(),
            times: BTreeMap::new(),
            commits: 0,
        }
    }

    fn round(&mut self) {
        if self.due.is_empty() {
            self.due = FAULTS.to_vec();
        }
        let next = self.dice.below(self.due.len() as u64) as usize;
        let (name, fault) = self.due.swap_remove(next);
        println!("{name}");
        let oracle = Load::watch(&self.world, Trial::shape());
        let load = Load::start(&self.world, Trial::shape());
        load.goes_on(20);
        fault(&mut self.world, &mut self.dice);
        let over = Instant::now();
        until_fresh(&self.world);
        self.times
            .entry(name)
            .or_default()
            .push(over.elapsed().as_millis());
        load.goes_on(20);
        // The row oracle needs a moment at which nothing changes.
        self.commits += load.stop().commits;
        self.world.wait_until_active();
        Load::assert_all_rows(&self.world);
        assert_balance(&self.world);
        oracle.assert_held();
    }

    fn end(self, title: &str) {
        let faults: usize = self.times.values().map(Vec::len).sum();
        let mut table = format!(
            "With {title}: {faults} faults, {} commits in between, 0 rows differed, no version went back.\n\n\
             | fault | times | until fresh again: median | longest |\n| --- | ---: | ---: | ---: |\n",
            self.commits,
        );
        for (name, mut times) in self.times {
            times.sort_unstable();
            let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
            let _ = writeln!(table, "| {name} | {} | {median} ms | {longest} ms |", times.len());
        }
        println!("{table}");
        if let Some(folder) = std::env::var_os("PG_REDIS_CACHE_CHAOS_TABLES") {
            let name: String = title.chars().filter(char::is_ascii_alphanumeric).collect();
            let file = Path::new(&folder).join(name + ".md");
            std::fs::write(file, table).expect("the folder for the tables can be written to");
        }
    }
}

/// Waits until all that was committed by then is in Redis.
fn until_fresh(world: &World) {
    eventually("Redis to be fresh again", SOON, || {
        let mut client = session(world)?;
        let sql = "SELECT redis_cache.wait('20s') AND connected FROM redis_cache.status";
        let row = client.query_one(sql, &[]).ok()?;
        row.get::<_, bool>(0).then_some(())
    });
}

/// A session, once the server takes some again.
fn session(world: &World) -> Option<Client> {
    let mut config = world.postgres.config();
    config.dbname(world.database()).connect(NoTls).ok()
}

/// The load is over: nothing is left in the queue, every connection is there, each mapping has been purged as
/// often as it was called for or less, and no operation was dropped.
fn assert_balance(world: &World) {
    let mut client = world.connect();
    let sql = "SELECT format('%s', t) FROM ( \
                   SELECT 'queue' AS what, queue_bytes, pool_waiting FROM redis_cache.status \
                   WHERE queue_bytes > 0 OR oldest_unsent IS NOT NULL OR pool_waiting > 0 OR pool_size <> 5 \
                   UNION ALL SELECT name, s.purges, p.called \
                   FROM redis_cache.stats s JOIN (SELECT name, sum(count)::bigint AS called \
                       FROM redis_cache.purges GROUP BY name) p USING (name) WHERE s.purges > p.called \
               ) t";
    eventually("the counters to balance", SOON, || {
        let rows = client.query(sql, &[]).expect("the views can be read");
        rows.is_empty().then_some(())
    });
}

fn pause(dice: &mut Dice, longest_ms: u64) {
    sleep(Duration::from_millis(dice.below(longest_ms)));
}

fn redis_killed(world: &mut World, _: &mut Dice) {
    world.redis.kill();
    world.redis.start_again();
}

fn redis_away(world: &mut World, _: &mut Dice) {
    world.redis.kill();
    sleep(Duration::from_secs(1));
    world.redis.start_again();
}

fn redis_frozen(world: &mut World, dice: &mut Dice) {
    world.redis.freeze();
    pause(dice, 1000);
    world.redis.thaw();
}

fn redis_emptied(world: &mut World, _: &mut Dice) {
    assert_eq!(world.redis.cli(&["FLUSHALL"]), "OK");
}

fn without_memory(world: &World, policy: &str) {
    for (name, value) in [("maxmemory-policy", policy), ("maxmemory", "1mb")] {
        assert_eq!(world.redis.cli(&["CONFIG", "SET", name, value]), "OK");
    }
    sleep(Duration::from_millis(500));
    assert_eq!(world.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
}

fn memory_refused(world: &mut World, _: &mut Dice) {
    without_memory(world, "noeviction");
}

fn memory_evicted(world: &mut World, _: &mut Dice) {
    without_memory(world, "allkeys-lru");
}

fn connections_cut(world: &mut World, dice: &mut Dice) {
    for _ in 0..5 {
        world.proxy().cut();
        pause(dice, 150);
    }
}

fn clients_killed(world: &mut World, dice: &mut Dice) {
    for _ in 0..5 {
        world
            .redis
            .cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        pause(dice, 150);
    }
}

fn slow(world: &World, delay: u64) {
    world.proxy().delay(Duration::from_millis(delay));
    sleep(Duration::from_secs(1));
    world.proxy().delay(Duration::ZERO);
}

fn network_slow(world: &mut World, dice: &mut Dice) {
    slow(world, 10 + dice.below(40));
}

fn network_too_slow(world: &mut World, _: &mut Dice) {
    slow(world, 200);
}

fn network_late(world: &mut World, dice: &mut Dice) {
    world.proxy().hold();
    pause(dice, 1000);
    world.proxy().cut();
    pause(dice, 500);
    world.proxy().release();
}

fn end_worker(world: &World, signal: i32) {
    let pid = world.worker_pid();
    world.postgres.signal(pid, signal);
    eventually("the worker's end", SOON, || {
        (!world.postgres.has_process(pid)).then_some(())
    });
}

fn worker_terminated(world: &mut World, _: &mut Dice) {
    end_worker(world, libc::SIGTERM);
}

fn worker_killed(world: &mut World, _: &mut Dice) {
    end_worker(world, libc::SIGKILL);
}

fn backend_killed(world: &mut World, _: &mut Dice) {
    let mut victim = world.connect();
    let row = victim.query_one("SELECT pg_backend_pid()", &[]);
    let pid: i32 = row.expect("the server answers").get(0);
    let half_done = "BEGIN; UPDATE doc SET version = version + 1000, doomed = true WHERE id = 1";
    victim.batch_execute(half_done).expect("an update works");
    world.postgres.signal(pid.unsigned_abs(), libc::SIGKILL);
}

fn postgres_fast(world: &mut World, _: &mut Dice) {
    world.restart_postgres(Shutdown::Fast);
}

fn postgres_immediate(world: &mut World, _: &mut Dice) {
    world.restart_postgres(Shutdown::Immediate);
}

fn postgres_killed(world: &mut World, _: &mut Dice) {
    world.postgres.crash();
    world.postgres.start_again();
}
