//! The rounds of a run, each with one fault, and the table of what they measured.
//!
//! What it does not: stop a round in the middle. A run takes its time and what is left of its last round.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{Dice, Load, World, attempt, eventually};
use postgres::{Client, NoTls};

use crate::deployment::{Deployment, Fault, Kind};

/// How long anything may take on a machine that has other things to do.
pub const SOON: Duration = Duration::from_secs(60);

/// Connections of the worker to each master: the lanes and the control.
pub const CONNECTIONS: usize = 5;

/// Lets faults happen to what `begin` starts, for so many seconds unless the environment says how many.
///
/// # Panics
/// If an oracle is not content, or something takes too long.
pub fn run<D: Deployment>(title: &str, seconds: u64, begin: impl FnOnce() -> D) {
    let seed = number("PG_REDIS_CACHE_CHAOS_SEED").unwrap_or(1);
    let seconds = number("PG_REDIS_CACHE_CHAOS_SECONDS").unwrap_or(seconds);
    println!("chaos with {title}: {seconds} s, seed {seed}");
    let mut chaos = Chaos {
        deployment: begin(),
        dice: Dice::new(seed),
        due: Vec::new(),
        later: Vec::new(),
        times: BTreeMap::new(),
        commits: 0,
        unasked: 0,
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        chaos.round();
    }
    chaos.end(title);
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Those that the environment asks for, or all.
fn wanted<D>(mut faults: [Vec<Fault<D>>; 2]) -> [Vec<Fault<D>>; 2] {
    if let Ok(part) = std::env::var("PG_REDIS_CACHE_CHAOS_FAULT") {
        for list in &mut faults {
            list.retain(|fault| fault.name.contains(&part));
        }
        assert!(
            faults.iter().any(|list| !list.is_empty()),
            "there is no fault {part}"
        );
    }
    faults
}

struct Chaos<D> {
    deployment: D,
    dice: Dice,
    /// Those that are still to come before all have been again, and those that come after them.
    due: Vec<Fault<D>>,
    later: Vec<Fault<D>>,
    /// By fault: milliseconds until fresh again.
    times: BTreeMap<&'static str, Vec<u128>>,
    commits: u64,
    /// Rounds in which another server has taken over, though none was lost: the machine stood still for too long.
    unasked: u64,
}

impl<D: Deployment> Chaos<D> {
    fn round(&mut self) {
        if self.due.is_empty() && self.later.is_empty() {
            [self.due, self.later] = wanted(D::faults());
        }
        if self.due.is_empty() {
            self.due = std::mem::take(&mut self.later);
        }
        let next = self.dice.below(self.due.len() as u64) as usize;
        let fault = self.due.swap_remove(next);
        println!("{}", fault.name);
        let here = &mut self.deployment;
        let (shape, masters) = (here.shape(), ports(here));
        let oracle = Load::watch_all(here.servers(), shape);
        let load = Load::start(here.world(), shape);
        load.goes_on(20);
        if fault.kind != Kind::Same {
            oracle.excuse();
        }
        let purges = other_servers(here.world());
        (fault.inflict)(here, &mut self.dice);
        let over = Instant::now();
        let fails_over = fault.kind == Kind::FailsOver;
        until_fresh(here.world(), fails_over.then_some(purges));
        let fresh = over.elapsed().as_millis();
        load.goes_on(20);
        here.restore();
        if fault.kind != Kind::Same {
            oracle.excuse_no_more();
        }
        load.goes_on(20);
        // The row oracle needs a moment at which nothing changes.
        self.commits += load.stop().commits;
        here.world().wait_until_active();
        here.assert_rows();
        assert_balance(here.world(), here.masters().len());
        if !fails_over && ports(here) != masters {
            println!("another server has taken over, which nobody asked for");
            self.unasked += 1;
            oracle.assert_each_held();
        } else {
            oracle.assert_held();
            self.times.entry(fault.name).or_default().push(fresh);
        }
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
        if self.unasked > 0 {
            let _ = writeln!(
                table,
                "\nIn {} further rounds a server took over that nobody had asked to: the machine had stood still.",
                self.unasked
            );
        }
        println!("{table}");
        if let Some(folder) = std::env::var_os("PG_REDIS_CACHE_CHAOS_TABLES") {
            let name: String = title.chars().filter(char::is_ascii_alphanumeric).collect();
            let file = Path::new(&folder).join(name + ".md");
            std::fs::write(file, table).expect("the folder for the tables can be written to");
        }
    }
}

fn ports(deployment: &impl Deployment) -> Vec<u16> {
    let masters = deployment.masters();
    let mut ports: Vec<u16> = masters.into_iter().map(|redis| redis.port()).collect();
    ports.sort_unstable();
    ports
}

/// How often everything had to be purged because another server answered.
fn other_servers(world: &World) -> i64 {
    let sql = "SELECT coalesce(sum(count), 0)::bigint FROM redis_cache.purges WHERE reason = 'server'";
    let row = world.connect().query_one(sql, &[]);
    row.expect("the view can be read").get(0)
}

/// Waits until all that was committed by then is in Redis. After `purges`, if that is given: what the worker says before
/// it has noticed that another server answers is about the old one.
fn until_fresh(world: &World, purges: Option<i64>) {
    eventually("Redis to be fresh again", SOON, || {
        let mut client = session(world)?;
        if purges.is_some_and(|purges| other_servers(world) <= purges) {
            return None;
        }
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
fn assert_balance(world: &World, masters: usize) {
    let mut client = world.connect();
    let connections = masters * CONNECTIONS;
    let sql = format!(
        "SELECT format('%s', t) FROM ( \
             SELECT 'queue' AS what, queue_bytes, pool_waiting FROM redis_cache.status \
             WHERE queue_bytes > 0 OR oldest_unsent IS NOT NULL OR pool_waiting > 0 OR pool_size <> {connections} \
             UNION ALL SELECT name, s.purges, p.called \
             FROM redis_cache.stats s JOIN (SELECT name, sum(count)::bigint AS called \
                 FROM redis_cache.purges GROUP BY name) p USING (name) WHERE s.purges > p.called \
         ) t"
    );
    let mut last = Vec::new();
    let balanced = attempt(SOON, || {
        let rows = client.query(&sql, &[]).expect("the views can be read");
        last = rows.iter().map(|row| row.get::<_, String>(0)).collect();
        last.is_empty().then_some(())
    });
    assert!(balanced.is_some(), "the counters do not balance: {last:?}");
}
