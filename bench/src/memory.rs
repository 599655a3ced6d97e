//! What the extension costs in memory.

use std::fs;
use std::time::{Duration, Instant};

use pg_redis_cache_tests::{Postgres, World};
use postgres::Client;

use crate::Effort;
use crate::load::{
    ACCOUNT, ACCOUNTS, Run, STEADY, end_pgbench, make_pgbench_tables, pgbench, settle, start_pgbench,
    worker_pid,
};
use crate::report::{Aim, Section};
use crate::stats::Spread;

const AIM: Aim = Aim::AtMost(200.0);
const BACKENDS: usize = 5;

/// A process's own memory, which no other shares, in kB (Linux's smaps_rollup).
fn private_kb(pid: u32) -> f64 {
    sum_kb(pid, "smaps_rollup", &["Private_Clean:", "Private_Dirty:"])
}

/// A process's memory that is backed by no file and shared with nobody by design, in kB: not the queue.
fn anonymous_kb(pid: u32) -> f64 {
    sum_kb(pid, "status", &["RssAnon:"])
}

fn sum_kb(pid: u32, file: &str, names: &[&str]) -> f64 {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let value = |name: &&str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kb = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<f64>().ok());
        kb.unwrap_or_else(|| panic!("{path} has no {name}"))
    };
    names.iter().map(value).sum()
}

/// The private memory of some sessions, each after `sql`.
fn backends_kb(server: &Postgres, sql: &str) -> Vec<f64> {
    // The first session after a change of the catalog builds files that the others read.
    server
        .connect()
        .batch_execute(sql)
        .expect("the statements are valid");
    let mut clients: Vec<Client> = (0..BACKENDS).map(|_| server.connect()).collect();
    let pid = |client: &mut Client| -> u32 {
        client.batch_execute(sql).expect("the statements are valid");
        let row = client.query_one("SELECT pg_backend_pid()", &[]);
        row.expect("a session has a process").get::<_, i32>(0) as u32
    };
    // All have run before the first is looked at: what only one has touched so far counts as its own.
    let pids: Vec<u32> = clients.iter_mut().map(pid).collect();
    pids.into_iter().map(private_kb).collect()
}

/// Idle backends, and the worker before and after load.
pub fn measure(effort: Effort) -> Section {
    let mut section = Section::new(
        "Memory",
        "Private memory of backends (Private_Clean and Private_Dirty of smaps_rollup), five in each case, as the \
         difference to the median of a server without the library that ran the same statements. Of the worker, \
         its anonymous memory; the queue is shared memory, which was given at the start.",
    );
    let plain = Postgres::builder().conf_text(STEADY).start();
    let loaded = World::builder().conf_text(STEADY).start();
    let mapped = World::builder().conf_text(STEADY).start();
    for server in [&plain, &loaded.postgres, &mapped.postgres] {
        make_pgbench_tables(server);
    }
    mapped.set_mappings(ACCOUNT);

    let used = "SELECT * FROM pgbench_accounts WHERE aid = 1; \
                UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 2";
    for (what, sql, server) in [
        ("idle backend, no mapping", "", &loaded.postgres),
        ("idle backend, a table mapped", "", &mapped.postgres),
        (
            "backend that has read and written a mapped table",
            used,
            &mapped.postgres,
        ),
    ] {
        let without = Spread::of(&backends_kb(&plain, sql)).median;
        let extra: Vec<f64> = backends_kb(server, sql)
            .into_iter()
            .map(|kb| kb - without)
            .collect();
        let case = section.case(format!("{what}: extra"), "kB", extra);
        if sql.is_empty() {
            section.aim(case, AIM);
        }
    }

    let worker = worker_pid(&mapped);
    section.case("worker, before load", "kB", vec![anonymous_kb(worker)]);
    let seconds = effort.pick(2, 20);
    let after = (0..3).map(|seed| {
        pgbench(&mapped.postgres, &updates(seconds, seed));
        settle(&mapped);
        anonymous_kb(worker)
    });
    let after = after.collect();
    section.case(
        format!("worker, after 1, 2 and 3 times {seconds} s of simple-update by 8 clients"),
        "kB",
        after,
    );
    section
}

fn updates(seconds: u32, seed: usize) -> Run<'static> {
    Run {
        script: &["-N"],
        clients: 8,
        seconds,
        seed,
        accounts: ACCOUNTS,
        rate: None,
    }
}

/// The worker's memory over ten minutes of load.
pub fn soak(effort: Effort) -> Section {
    let seconds: u32 = effort.pick(20, 600);
    let samples = 60;
    let about = format!(
        "simple-update by 8 clients on a mapped table for {seconds} s; the worker's anonymous memory, {samples} \
         times in equal distances. Flat means that the last quarter's median is that of the second quarter."
    );
    let mut section = Section::new("The worker's memory under lasting load", &about);
    let world = World::builder().conf_text(STEADY).start();
    make_pgbench_tables(&world.postgres);
    world.set_mappings(ACCOUNT);
    let worker = worker_pid(&world);
    let load = start_pgbench(&world.postgres, &updates(seconds, 0));
    let start = Instant::now();
    let mut values = Vec::new();
    for sample in 1..=samples {
        let due = start + Duration::from_secs(u64::from(seconds)) * sample / samples;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        values.push(anonymous_kb(worker));
    }
    let tps = end_pgbench(load);
    settle(&world);
    assert_eq!(worker, worker_pid(&world), "the worker was restarted");
    let quarter = values.len() / 4;
    let (second, last) = (
        values[quarter..2 * quarter].to_vec(),
        values[3 * quarter..].to_vec(),
    );
    section.case("transactions", "transactions/s", vec![tps]);
    section.case("worker", "kB", values);
    let second = section.case("worker, second quarter", "kB", second);
    let last = section.case("worker, last quarter", "kB", last);
    section.ratio("last quarter / second", last, second, Some(Aim::AtMost(1.05)));
    section
}
