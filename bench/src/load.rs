//! Servers to be measured, and what puts load on them.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{Postgres, World, eventually};

/// The tables that pgbench makes are this many times 100,000 rows.
pub const SCALE: u32 = 10;
/// The number of rows of pgbench_accounts.
pub const ACCOUNTS: i32 = 100_000 * SCALE as i32;

/// What maps pgbench_accounts.
pub const ACCOUNT: &str = "account:{aid} => SELECT bid, abalance FROM public.pgbench_accounts";

/// For every server. Nothing waits for a disk and nothing runs in the background, so that what is compared
/// is work on a CPU: this is where the extension's share is largest.
pub const STEADY: &str = "shared_buffers = 512MB\nautovacuum = off\ncheckpoint_timeout = 1h\n\
    full_page_writes = off\nmax_wal_size = 8GB\nmax_parallel_workers_per_gather = 0\njit = off\n";

/// How a pgbench run goes.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// `-S`, `-N`, or `-f` and a file.
    pub script: &'a [&'a str],
    pub clients: u32,
    pub seconds: u32,
    /// The same for runs that are compared: the same rows in the same order.
    pub seed: usize,
    /// How many of the accounts are drawn from, the first ones.
    pub accounts: i32,
    /// Transactions a second to be tried, where it is not to be as fast as can be.
    pub rate: Option<u32>,
}

/// pgbench's own tables.
pub fn make_pgbench_tables(server: &Postgres) {
    let mut pgbench = server.command("pgbench");
    finish(
        pgbench
            .args(["-i", "-q", "-s", &SCALE.to_string()])
            .output()
            .expect("pgbench can be run"),
    );
}

/// Runs pgbench and returns its transactions a second.
pub fn pgbench(server: &Postgres, run: &Run<'_>) -> f64 {
    tps(pgbench_command(server, run).output().expect("pgbench can be run"))
}

/// pgbench beside something else.
pub fn start_pgbench(server: &Postgres, run: &Run<'_>) -> Child {
    let mut command = pgbench_command(server, run);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("pgbench can be run")
}

/// Waits for what [`start_pgbench`] has started, and returns its transactions a second.
pub fn end_pgbench(child: Child) -> f64 {
    tps(child.wait_with_output().expect("it is our child"))
}

fn pgbench_command(server: &Postgres, run: &Run<'_>) -> Command {
    let mut pgbench = server.command("pgbench");
    pgbench.args(["-n", "-M", "prepared"]).args(run.script);
    pgbench.arg("-c").arg(run.clients.to_string());
    pgbench.arg("-j").arg(run.clients.min(2).to_string());
    pgbench.arg("-T").arg(run.seconds.to_string());
    pgbench.arg(format!("--random-seed={}", run.seed + 1));
    // What pgbench's own scripts multiply by 100,000.
    pgbench.arg(format!("--define=scale={}", f64::from(run.accounts) / 1e5));
    if let Some(rate) = run.rate {
        pgbench.arg("-R").arg(rate.to_string());
    }
    pgbench
}

fn finish(output: Output) -> String {
    assert!(
        output.status.success(),
        "pgbench failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn tps(output: Output) -> f64 {
    let text = finish(output);
    let number = text.lines().find_map(|line| {
        let after = line.strip_prefix("tps = ")?;
        after.split(' ').next()?.parse().ok()
    });
    number.unwrap_or_else(|| panic!("pgbench says no tps:\n{text}"))
}

/// The background worker's process.
pub fn worker_pid(world: &World) -> u32 {
    world.postgres.child("pg_redis_cache").expect("the worker runs")
}

/// As [`World::wait`], for as long as a large backlog may take.
pub fn settle(world: &World) {
    let row = world.connect().query_one("SELECT redis_cache.wait('300s')", &[]);
    assert!(
        row.expect("wait() can be called").get::<_, bool>(0),
        "Redis did not get everything within 300 s"
    );
}

/// Sets a parameter, and waits until new sessions have it.
pub fn reconfigure(server: &Postgres, name: &str, value: &str) {
    server.set_conf(name, value);
    let mut client = server.connect();
    eventually("the new setting to be read", Duration::from_secs(10), || {
        let row = client.query_one(
            "SELECT setting::text = $2 OR current_setting($1) = $2 FROM pg_settings WHERE name = $1",
            &[&name, &value],
        );
        row.expect("a setting can be shown")
            .get::<_, bool>(0)
            .then_some(())
    });
}

/// SETs a second that redis-benchmark reaches on one connection: 128 commands in flight, 16-byte keys of
/// which there are a million, 50-byte values.
pub fn redis_benchmark(port: u16, sets: usize) -> f64 {
    let output = Command::new("redis-benchmark")
        .args(["-p", &port.to_string(), "-n", &sets.to_string()])
        .args([
            "-c", "1", "-P", "128", "-t", "set", "-r", "1000000", "-d", "50", "--csv",
        ])
        .output()
        .expect("redis-benchmark can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| {
        let mut fields = line.split(',').map(|field| field.trim_matches('"'));
        (fields.next() == Some("SET")).then(|| fields.next()?.parse().ok())?
    });
    rate.unwrap_or_else(|| panic!("redis-benchmark says no rate:\n{text}"))
}

/// How long something takes, in seconds.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
