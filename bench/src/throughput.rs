//! What pgbench reaches on servers without the library, with it, and with pgbench_accounts mapped.

use pg_redis_cache_tests::{Postgres, World};

use crate::Effort;
use crate::load::{
    ACCOUNT, ACCOUNTS, Run, STEADY, make_pgbench_tables, pgbench, reconfigure, settle, worker_pid,
};
use crate::machine::{own_cpu, sessions_cpu};
use crate::report::{Aim, CaseId, Section};

const LOADED: Aim = Aim::AtLeast(0.99);
const HOT: Aim = Aim::AtLeast(0.97);
const WRITES: Aim = Aim::AtLeast(0.95);

/// The accounts that select-only reads. They have the default hint table nearly each to themselves, which is
/// what being hot means; for more, and with more slots, a short session would mostly take page faults on it.
const HOT_ACCOUNTS: i32 = 10_000;

const MICROSECONDS: &str = "µs/transaction";
const REFILL: &str = "pg_redis_cache.refill_interval";

struct Servers {
    plain: Postgres,
    loaded: World,
    mapped: World,
}

/// What is compared: a server in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Plain,
    Loaded,
    /// Every row read is known to have been filled a moment ago.
    Hot,
    /// Every row read is filled again.
    Refilling,
}

/// pgbench, select-only and simple-update, with 1 and 8 clients.
pub fn measure(effort: Effort) -> Section {
    let (rounds, seconds) = effort.pick((3, 1), (7, 5));
    let about = format!(
        "pgbench at scale {}, prepared, {rounds} rounds of {seconds} s each, the servers in turns. (a) the library \
         is not loaded, (b) loaded without a mapping, (c) pgbench_accounts is mapped and hot: what is read has been \
         filled, (d) writes to the mapped table. Redis and the worker run on the same cores. Nothing waits for a \
         disk (fsync and full_page_writes are off), which makes the extension's share as large as it gets. CPU time is \
         that of the processes, for each transaction; other programs on the machine disturb it less than the rates. \
         select-only reads the first {HOT_ACCOUNTS} accounts, on every server.",
        crate::load::SCALE
    );
    let mut section = Section::new("pgbench", &about);
    let servers = Servers::start();
    for clients in [1, 8] {
        select_only(&mut section, &servers, clients, rounds, seconds);
        simple_update(&mut section, &servers, clients, rounds, seconds);
    }
    section
}

impl Servers {
    fn start() -> Servers {
        let plain = Postgres::builder().conf_text(STEADY).start();
        let loaded = World::builder().conf_text(STEADY).start();
        let mapped = World::builder().conf_text(STEADY).conf(REFILL, "1h").start();
        for server in [&plain, &loaded.postgres, &mapped.postgres] {
            make_pgbench_tables(server);
        }
        mapped.set_mappings(ACCOUNT);
        fill(&mapped);
        Servers {
            plain,
            loaded,
            mapped,
        }
    }

    fn server(&self, setting: Setting) -> &Postgres {
        match setting {
            Setting::Plain => &self.plain,
            Setting::Loaded => &self.loaded.postgres,
            Setting::Hot | Setting::Refilling => &self.mapped.postgres,
        }
    }

    /// What one round of `setting` gives, from which nothing is left for the next.
    fn run(&self, setting: Setting, run: &Run<'_>) -> Found {
        if setting == Setting::Refilling {
            reconfigure(&self.mapped.postgres, REFILL, "0");
        }
        let worker = worker_pid(&self.mapped);
        let used = || {
            [
                sessions_cpu(self.server(setting).pid()),
                own_cpu(worker),
                own_cpu(self.mapped.redis.pid()),
            ]
        };
        let before = used();
        let tps = pgbench(self.server(setting), run);
        settle(&self.mapped);
        let after = used();
        if setting == Setting::Refilling {
            reconfigure(&self.mapped.postgres, REFILL, "1h");
        }
        let transactions = tps * f64::from(run.seconds);
        let each = |at: usize| 1e6 * (after[at] - before[at]) / transactions;
        Found {
            tps,
            backend: each(0),
            worker: each(1),
            redis: each(2),
        }
    }
}

/// What one round gave: transactions a second, and microseconds of CPU for each.
#[derive(Clone, Copy, Debug)]
struct Found {
    tps: f64,
    backend: f64,
    worker: f64,
    redis: f64,
}

/// Reads every hot row by its key, in pieces that one statement may fill.
fn fill(world: &World) {
    const AT_ONCE: i32 = 5_000;
    let mut client = world.connect();
    let read = client
        .prepare("SELECT abalance FROM pgbench_accounts WHERE aid = ANY ($1)")
        .expect("the table is there");
    for first in (1..=HOT_ACCOUNTS).step_by(AT_ONCE as usize) {
        let aids: Vec<i32> = (first..first + AT_ONCE).collect();
        client.query(&read, &[&aids]).expect("rows can be read");
    }
    settle(world);
}

fn fills(world: &World) -> [i64; 2] {
    let sql = "SELECT fills, fills_skipped FROM redis_cache.stats";
    let row = world.connect().query_one(sql, &[]);
    let row = row.expect("the view can be read");
    [row.get(0), row.get(1)]
}

fn select_only(section: &mut Section, servers: &Servers, clients: u32, rounds: usize, seconds: u32) {
    use Setting::{Hot, Loaded, Plain, Refilling};
    let what = format!("select-only, {}", who(clients));
    let [filled, skipped] = fills(&servers.mapped);
    let found = in_turns(servers, [Plain, Loaded, Hot], clients, rounds, seconds, "-S");
    let [filled_now, skipped_now] = fills(&servers.mapped);
    let (filled, skipped) = (filled_now - filled, skipped_now - skipped);
    let share = 100.0 * skipped as f64 / (filled + skipped).max(1) as f64;
    section.note(format!(
        "{what}: {share:.1} % of the reads of (c) found that the row need not be filled."
    ));
    let [plain, loaded, hot] = cases(section, &what, ["(a)", "(b)", "(c)"], &found);
    section.ratio(format!("{what}: b / a"), loaded, plain, Some(LOADED));
    section.ratio(format!("{what}: c / a"), hot, plain, Some(HOT));
    let found = in_turns(servers, [Plain, Refilling], clients, rounds, seconds, "-S");
    let names = ["(a) beside it", "every read fills"];
    let [plain, refilling] = cases(section, &what, names, &found);
    section.ratio(format!("{what}: every read fills / a"), refilling, plain, None);
    others(section, &format!("{what}: every read fills"), &found[1]);
}

fn simple_update(section: &mut Section, servers: &Servers, clients: u32, rounds: usize, seconds: u32) {
    use Setting::{Hot, Loaded, Plain};
    let what = format!("simple-update, {}", who(clients));
    let found = in_turns(servers, [Plain, Loaded, Hot], clients, rounds, seconds, "-N");
    let [plain, loaded, mapped] = cases(section, &what, ["(a)", "(b)", "(d)"], &found);
    section.ratio(format!("{what}: b / a"), loaded, plain, Some(LOADED));
    section.ratio(format!("{what}: d / a"), mapped, plain, Some(WRITES));
    others(section, &format!("{what}: (d)"), &found[2]);
}

fn who(clients: u32) -> String {
    format!("{clients} client{}", if clients == 1 { "" } else { "s" })
}

/// Adds rates and the backends' CPU time, and the CPU time's ratios to the first. Returns the rates.
fn cases<const N: usize>(
    section: &mut Section,
    what: &str,
    names: [&str; N],
    found: &[Vec<Found>; N],
) -> [CaseId; N] {
    let mut at = 0;
    let mut add = |section: &mut Section, name: &str, unit, pick: fn(&Found) -> f64| {
        let values = found[at % N].iter().map(pick).collect();
        at += 1;
        section.case(format!("{what}: {name}"), unit, values)
    };
    let rates = names.map(|name| add(section, name, "transactions/s", |found| found.tps));
    let cpu = names.map(|name| {
        let name = format!("{name}, CPU in the backends");
        add(section, &name, MICROSECONDS, |found| found.backend)
    });
    for (name, of) in names.iter().zip(cpu).skip(1) {
        section.ratio(
            format!("{what}: {name} / a, CPU in the backends"),
            of,
            cpu[0],
            None,
        );
    }
    rates
}

/// Adds the CPU time of those that share the machine with the backends.
fn others(section: &mut Section, what: &str, found: &[Found]) {
    let of = |pick: fn(&Found) -> f64| found.iter().map(pick).collect();
    section.case(
        format!("{what}, CPU in the worker"),
        MICROSECONDS,
        of(|found| found.worker),
    );
    section.case(
        format!("{what}, CPU in Redis"),
        MICROSECONDS,
        of(|found| found.redis),
    );
}

/// For each setting, what each round gave. One round before the first does not count; each begins with
/// another setting, so that none is always the first.
fn in_turns<const N: usize>(
    servers: &Servers,
    settings: [Setting; N],
    clients: u32,
    rounds: usize,
    seconds: u32,
    script: &str,
) -> [Vec<Found>; N] {
    let mut all: [Vec<Found>; N] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for round in 0..=rounds {
        for turn in 0..N {
            let which = (round + turn) % N;
            let run = Run {
                script: &[script],
                clients,
                seconds,
                seed: round,
                accounts: if script == "-S" { HOT_ACCOUNTS } else { ACCOUNTS },
                rate: None,
            };
            let found = servers.run(settings[which], &run);
            if script == "-N" {
                clean(servers.server(settings[which]));
            }
            if round > 0 {
                all[which].push(found);
            }
        }
    }
    all
}

/// Every round finds the tables as the one before it did.
fn clean(server: &Postgres) {
    let mut client = server.connect();
    for statement in [
        "VACUUM pgbench_accounts",
        "TRUNCATE pgbench_history",
        "CHECKPOINT",
    ] {
        client.batch_execute(statement).expect("a table can be cleaned");
    }
}
