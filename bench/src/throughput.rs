//! What pgbench reaches on servers without the library, with it, and with pgbench_accounts mapped.

use pg_redis_cache_tests::{Postgres, World};

use crate::Effort;
use crate::load::{ACCOUNT, ACCOUNTS, Run, STEADY, make_pgbench_tables, pgbench, reconfigure, settle};
use crate::report::{Aim, CaseId, Section};

const LOADED: Aim = Aim::AtLeast(0.99);
const HOT: Aim = Aim::AtLeast(0.97);
const WRITES: Aim = Aim::AtLeast(0.95);

/// Large enough for every account to have a cell of its own, nearly.
const HASH_SLOTS: &str = "4194304";
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
         is not loaded, (b) loaded without a mapping, (c) pgbench_accounts is mapped and every row has just been \
         filled, (d) writes to the mapped table. Redis and the worker run on the same cores. Nothing waits for a \
         disk (fsync and full_page_writes are off), which makes the extension's share as large as it gets.",
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
        let mapped = World::builder()
            .conf_text(STEADY)
            .conf("pg_redis_cache.hash_slots", HASH_SLOTS)
            .conf(REFILL, "1h")
            .start();
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

    /// One value of `setting`, from which nothing is left for the next.
    fn run(&self, setting: Setting, run: &Run<'_>) -> f64 {
        if setting == Setting::Refilling {
            reconfigure(&self.mapped.postgres, REFILL, "0");
        }
        let tps = pgbench(self.server(setting), run);
        settle(&self.mapped);
        if setting == Setting::Refilling {
            reconfigure(&self.mapped.postgres, REFILL, "1h");
        }
        tps
    }
}

/// Reads every row by its key, in pieces that the queue has room for.
fn fill(world: &World) {
    const AT_ONCE: i32 = 5_000;
    let mut client = world.connect();
    let read = client
        .prepare("SELECT abalance FROM pgbench_accounts WHERE aid = ANY ($1)")
        .expect("the table is there");
    for first in (1..=ACCOUNTS).step_by(AT_ONCE as usize) {
        let aids: Vec<i32> = (first..first + AT_ONCE).collect();
        client.query(&read, &[&aids]).expect("rows can be read");
        client
            .query_one("SELECT redis_cache.wait('60s')", &[])
            .expect("wait() can be called");
    }
}

fn fills(world: &World) -> [i64; 2] {
    let sql = "SELECT fills, fills_skipped FROM redis_cache.stats";
    let row = world.connect().query_one(sql, &[]);
    let row = row.expect("the view can be read");
    [row.get(0), row.get(1)]
}

fn select_only(section: &mut Section, servers: &Servers, clients: u32, rounds: usize, seconds: u32) {
    use Setting::{Hot, Loaded, Plain, Refilling};
    let [filled, skipped] = fills(&servers.mapped);
    let hot = in_turns(servers, &[Plain, Loaded, Hot], clients, rounds, seconds, &["-S"]);
    let [filled_now, skipped_now] = fills(&servers.mapped);
    let (filled, skipped) = (filled_now - filled, skipped_now - skipped);
    let share = 100.0 * skipped as f64 / (filled + skipped).max(1) as f64;
    let refilling = in_turns(servers, &[Plain, Refilling], clients, rounds, seconds, &["-S"]);
    let who = who(clients);
    section.note(format!(
        "{who}: {share:.1} % of the reads of (c) found that the row need not be filled."
    ));
    let [plain, loaded, hot] = cases(
        section,
        &format!("select-only, {who}"),
        ["(a)", "(b)", "(c)"],
        hot,
    );
    section.ratio(format!("select-only, {who}: b / a"), loaded, plain, Some(LOADED));
    section.ratio(format!("select-only, {who}: c / a"), hot, plain, Some(HOT));
    let names = ["(a) beside it", "every read fills"];
    let [plain, refilling] = cases(section, &format!("select-only, {who}"), names, refilling);
    section.ratio(
        format!("select-only, {who}: every read fills / a"),
        refilling,
        plain,
        None,
    );
}

fn simple_update(section: &mut Section, servers: &Servers, clients: u32, rounds: usize, seconds: u32) {
    use Setting::{Hot, Loaded, Plain};
    let values = in_turns(servers, &[Plain, Loaded, Hot], clients, rounds, seconds, &["-N"]);
    let who = who(clients);
    let names = ["(a)", "(b)", "(d)"];
    let [plain, loaded, mapped] = cases(section, &format!("simple-update, {who}"), names, values);
    section.ratio(
        format!("simple-update, {who}: b / a"),
        loaded,
        plain,
        Some(LOADED),
    );
    section.ratio(
        format!("simple-update, {who}: d / a"),
        mapped,
        plain,
        Some(WRITES),
    );
}

fn who(clients: u32) -> String {
    format!("{clients} client{}", if clients == 1 { "" } else { "s" })
}

fn cases<const N: usize>(
    section: &mut Section,
    what: &str,
    names: [&str; N],
    values: Vec<Vec<f64>>,
) -> [CaseId; N] {
    let mut values = values.into_iter();
    names.map(|name| {
        let values = values.next().expect("there is a value for each name");
        section.case(format!("{what}: {name}"), "transactions/s", values)
    })
}

/// For each setting, what each round gave. One round before the first does not count; each begins with
/// another setting, so that none is always the first.
fn in_turns(
    servers: &Servers,
    settings: &[Setting],
    clients: u32,
    rounds: usize,
    seconds: u32,
    script: &[&str],
) -> Vec<Vec<f64>> {
    let mut values = vec![Vec::with_capacity(rounds); settings.len()];
    for round in 0..=rounds {
        for turn in 0..settings.len() {
            let which = (round + turn) % settings.len();
            let run = Run {
                script,
                clients,
                seconds,
                seed: round,
                rate: None,
            };
            let tps = servers.run(settings[which], &run);
            if script == ["-N"] {
                clean(servers.server(settings[which]));
            }
            if round > 0 {
                values[which].push(tps);
            }
        }
    }
    values
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
