//! Foreign tables over hashes, each statement beside the bare commands for the same bytes.

use std::io::Write;
use std::process::{Command, Stdio};

use pg_redis_cache_tests::World;
use postgres::{Client, Statement};

use crate::Effort;
use crate::bare::{self, Bare};
use crate::load::{STEADY, seconds};
use crate::peers::{self, Compared};
use crate::report::{Aim, Section};
use crate::stats::percentile;

/// The fields of the smaller hash.
const FIELDS: usize = 100_000;
/// How many commands a bare client has on their way, and how many fields it asks for at a time.
const AT_ONCE: usize = 1_000;
/// COUNT of HSCAN: the default of a table's batch_size.
const WINDOW: &[u8] = b"5000";
/// How many rows UPDATE and DELETE change.
const CHANGED: usize = 10_000;

const TABLES: &str = "
    CREATE FOREIGN TABLE small (field text, value text) SERVER bench OPTIONS (table_type 'hash', table_key_prefix 'small');
    CREATE FOREIGN TABLE large (field text, value text) SERVER bench OPTIONS (table_type 'hash', table_key_prefix 'large');
    CREATE FOREIGN TABLE changed (field text, value text) SERVER bench OPTIONS (table_type 'hash', table_key_prefix 'changed');
    CREATE TABLE ids (id int PRIMARY KEY, field text);
    CREATE FUNCTION read_often(times int) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE found text; BEGIN
            FOR i IN 1 .. times LOOP SELECT value INTO STRICT found FROM small WHERE field = i::text; END LOOP;
        END $$;";

/// Both sides of every comparison, in turns.
pub fn measure(effort: Effort) -> Section {
    let (rounds, large) = effort.pick((3, 200_000), (7, 1_000_000));
    let mut section = Section::new(
        "Foreign tables",
        "Tables over hashes of 100,000 and of many more fields, whose values are 12 to 13 bytes; beside each statement a \
         client that writes the bare commands into a socket and cuts the answers into values. INSERT is beside \
         redis-cli --pipe with an HSET for each field. Scans are of all values, within the server (sum(length(value))). \
         A point SELECT is a prepared statement of a client; its bare time is that of HGET, so what is left has one \
         round trip between client and PostgreSQL in it.",
    );
    let world = World::builder().conf_text(STEADY).start();
    let port = world.redis.port();
    world.execute(&format!(
        "CREATE SERVER bench FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS (host_port '127.0.0.1:{port}'); {TABLES} \
         INSERT INTO ids SELECT i, i * {step} FROM generate_series(1, 100000) i; ANALYZE ids; \
         INSERT INTO large SELECT i, 'value ' || i FROM generate_series(1, {large}) i; ANALYZE large",
        step = large / 100_000,
    ));
    let mut run = Run {
        client: world.connect(),
        bare: Bare::connect(port),
        port,
        rounds,
        large,
    };
    run.inserts(&mut section);
    run.points(&mut section, effort.pick(1_000, 5_000));
    run.scans(&mut section);
    run.joins(&mut section);
    run.counts(&mut section);
    run.changes(&mut section);
    run.peers(&mut section);
    section
}

struct Run {
    client: Client,
    bare: Bare,
    port: u16,
    rounds: usize,
    /// How many fields the larger hash has.
    large: usize,
}

impl Run {
    /// Measures two things in turns, once more than asked for: the first time does not count. In milliseconds.
    fn in_turns(
        &mut self,
        mut ours: impl FnMut(&mut Run) -> f64,
        mut theirs: impl FnMut(&mut Run) -> f64,
    ) -> [Vec<f64>; 2] {
        let mut found: [Vec<f64>; 2] = Default::default();
        for round in 0..=self.rounds {
            let times = [ours(self), theirs(self)];
            if round > 0 {
                found
                    .iter_mut()
                    .zip(times)
                    .for_each(|(found, time)| found.push(1e3 * time));
            }
        }
        found
    }

    /// Adds a statement and the bare commands for it, with their ratio.
    fn compare(
        &mut self,
        section: &mut Section,
        name: &str,
        sql: &str,
        bare_name: &str,
        aim: Option<Aim>,
        bare: impl FnMut(&mut Run) -> f64,
    ) {
        let ours = |run: &mut Run| seconds(|| run.execute(sql));
        let [ours, bare] = self.in_turns(ours, bare);
        let ours = section.case(name, "ms", ours);
        let bare = section.case(format!("{name}: {bare_name}"), "ms", bare);
        section.ratio(format!("{name} / {bare_name}"), ours, bare, aim);
    }

    fn execute(&mut self, sql: &str) {
        self.client
            .batch_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    fn prepare(&mut self, sql: &str) -> Statement {
        self.client.prepare(sql).expect("the tables are there")
    }

    fn inserts(&mut self, section: &mut Section) {
        let input = pairs(FIELDS, |out, field, value| {
            bare::command(out, &[b"HSET", b"piped", field, value])
        })
        .concat();
        let insert = format!("INSERT INTO small SELECT i, 'value ' || i FROM generate_series(1, {FIELDS}) i");
        let ours = |run: &mut Run| {
            run.bare.command(&[b"DEL", b"small"]);
            seconds(|| run.execute(&insert))
        };
        let theirs = |run: &mut Run| {
            run.bare.command(&[b"DEL", b"piped"]);
            seconds(|| pipe(run.port, &input))
        };
        let [ours, theirs] = self.in_turns(ours, theirs);
        let ours = section.case("INSERT of 100,000 rows", "ms", ours);
        let theirs = section.case("INSERT of 100,000 rows: redis-cli --pipe", "ms", theirs);
        section.ratio("INSERT / redis-cli --pipe", ours, theirs, Some(Aim::AtMost(1.5)));
    }

    /// Point reads, by a client and in a loop within the server, and IN of 100.
    fn points(&mut self, section: &mut Section, trips: usize) {
        let one = self.prepare("SELECT value FROM small WHERE field = $1");
        let local = self.prepare("SELECT field FROM ids WHERE id = $1");
        let many = self.prepare("SELECT value FROM small WHERE field = ANY ($1)");
        let mut found: [Vec<f64>; 7] = Default::default();
        for round in 0..=self.rounds {
            let (mut times, mut all): ([Vec<f64>; 5], _) = (Default::default(), Vec::new());
            for trip in 0..trips {
                let number = trip * 37 % FIELDS + 1;
                let field = number.to_string();
                let id = number as i32;
                let hundred: Vec<String> = (0..100)
                    .map(|n| ((number + n * 997) % FIELDS + 1).to_string())
                    .collect();
                let words: Vec<&[u8]> = [&b"HMGET"[..], b"small"]
                    .into_iter()
                    .chain(hundred.iter().map(String::as_bytes))
                    .collect();
                let client = &mut self.client;
                let mut query = |statement, parameter: &(dyn postgres::types::ToSql + Sync), rows| {
                    let read = client.query(statement, &[parameter]).expect("rows can be read");
                    assert_eq!(read.len(), rows);
                };
                times[0].push(seconds(|| query(&one, &field, 1)));
                times[1].push(seconds(|| query(&local, &id, 1)));
                times[3].push(seconds(|| query(&many, &hundred, 100)));
                times[2].push(seconds(|| {
                    drop(self.bare.command(&[b"HGET", b"small", field.as_bytes()]))
                }));
                times[4].push(seconds(|| all = self.bare.command(&words)));
                assert_eq!(all.len(), 100);
            }
            let loop_time = seconds(|| self.execute(&format!("SELECT read_often({trips})"))) / trips as f64;
            if round == 0 {
                continue;
            }
            let [ours, local, bare, many, many_bare] = times.map(|times| 1e6 * percentile(&times, 0.5));
            let row = [ours, bare, ours - bare, local, 1e6 * loop_time, many, many_bare];
            found
                .iter_mut()
                .zip(row)
                .for_each(|(found, value)| found.push(value));
        }
        let [ours, bare, over, local, looped, many, many_bare] = found;
        section.case("point SELECT", "µs", ours);
        let bare = section.case("point SELECT: bare HGET", "µs", bare);
        let over = section.case("point SELECT less bare HGET", "µs", over);
        section.aim(over, Aim::AtMost(40.0));
        section.case("point SELECT of a local table", "µs", local);
        let looped = section.case("point SELECT in a PL/pgSQL loop", "µs", looped);
        section.ratio("point SELECT in a PL/pgSQL loop / bare HGET", looped, bare, None);
        let many = section.case("IN of 100", "µs", many);
        let many_bare = section.case("IN of 100: bare HMGET", "µs", many_bare);
        section.ratio("IN of 100 / bare HMGET", many, many_bare, None);
    }

    fn scans(&mut self, section: &mut Section) {
        for (table, fields) in [("small", FIELDS), ("large", self.large)] {
            let hgetall = move |run: &mut Run| {
                seconds(|| {
                    let all = run.bare.command(&[b"HGETALL", table.as_bytes()]);
                    assert_eq!(all.len(), 2 * fields);
                })
            };
            let name = format!("scan of {fields} rows");
            let sql = format!("SELECT sum(length(value)) FROM {table}");
            self.compare(
                section,
                &name,
                &sql,
                "bare HGETALL",
                Some(Aim::AtMost(1.3)),
                hgetall,
            );
        }
        let hscan = |run: &mut Run| seconds(|| run.hscan("large", b"*"));
        let sql = "SELECT sum(length(value)) FROM large";
        let name = format!("scan of {} rows again", self.large);
        self.compare(section, &name, sql, "bare HSCAN", None, hscan);
        let matching = |run: &mut Run| seconds(|| run.hscan("small", b"555*"));
        let sql = "SELECT sum(length(value)) FROM small WHERE field LIKE '555%'";
        self.compare(
            section,
            "LIKE 'prefix%' on 100,000",
            sql,
            "bare HSCAN MATCH",
            None,
            matching,
        );
    }

    /// HSCAN to its end.
    fn hscan(&mut self, key: &str, pattern: &[u8]) {
        let mut cursor = b"0".to_vec();
        loop {
            let words = [
                &b"HSCAN"[..],
                key.as_bytes(),
                &cursor,
                b"MATCH",
                pattern,
                b"COUNT",
                WINDOW,
            ];
            cursor = self.bare.command(&words).swap_remove(0);
            if cursor == b"0" {
                return;
            }
        }
    }

    /// Local rows joined by key to the larger hash.
    fn joins(&mut self, section: &mut Section) {
        let step = self.large / 100_000;
        for rows in [1_000, 100_000] {
            let sql = format!(
                "SELECT sum(length(value)) FROM ids JOIN large ON large.field = ids.field WHERE id <= {rows}"
            );
            let requests: Vec<Vec<u8>> = (0..rows / AT_ONCE).map(|block| names(block, step)).collect();
            let theirs = move |run: &mut Run| {
                seconds(|| {
                    for request in &requests {
                        assert_eq!(run.bare.ask(request, 1).len(), AT_ONCE);
                    }
                })
            };
            let name = format!("join of {rows} rows");
            self.compare(section, &name, &sql, "bare HMGET", None, theirs);
            let trips = self.round_trips(&sql) / rows as f64;
            let trips = section.case(format!("{name}: round trips for each row"), "", vec![trips]);
            section.aim(trips, Aim::AtMost(0.01));
        }
    }

    /// What EXPLAIN ANALYZE says that a statement took.
    fn round_trips(&mut self, sql: &str) -> f64 {
        let explain = format!("EXPLAIN (ANALYZE, TIMING OFF) {sql}");
        let rows = self.client.query(&explain, &[]).expect("it can be explained");
        let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let trips = lines.iter().filter_map(|line| {
            line.trim()
                .strip_prefix("Redis Round Trips: ")?
                .parse::<f64>()
                .ok()
        });
        let all: Vec<f64> = trips.collect();
        assert!(!all.is_empty(), "no round trips in\n{}", lines.join("\n"));
        all.iter().sum()
    }

    fn counts(&mut self, section: &mut Section) {
        let hlen = |run: &mut Run| seconds(|| drop(run.bare.command(&[b"HLEN", b"large"])));
        let name = format!("count(*) of {} rows", self.large);
        self.compare(
            section,
            &name,
            "SELECT count(*) FROM large",
            "bare HLEN",
            None,
            hlen,
        );
    }

    /// UPDATE and DELETE of every row, beside HGETALL with HSETs or HDELs behind it.
    fn changes(&mut self, section: &mut Section) {
        let fill = pairs(CHANGED, |out, field, value| {
            bare::command(out, &[b"HSET", b"changed", field, value])
        });
        let sets = pairs(CHANGED, |out, field, _| {
            bare::command(out, &[b"HSET", b"changed", field, b"a new value"])
        });
        let deletes = pairs(CHANGED, |out, field, _| {
            bare::command(out, &[b"HDEL", b"changed", field])
        });
        let statements = [
            (
                "UPDATE of 10,000 rows",
                "UPDATE changed SET value = 'a new value'",
                sets,
                "bare HGETALL and HSETs",
            ),
            (
                "DELETE of 10,000 rows",
                "DELETE FROM changed",
                deletes,
                "bare HGETALL and HDELs",
            ),
        ];
        for (name, sql, commands, bare_name) in statements {
            let ours = |run: &mut Run| {
                run.pipeline(&fill);
                seconds(|| run.execute(sql))
            };
            let theirs = |run: &mut Run| {
                run.pipeline(&fill);
                seconds(|| {
                    assert_eq!(run.bare.command(&[b"HGETALL", b"changed"]).len(), 2 * CHANGED);
                    run.pipeline(&commands);
                })
            };
            let [ours, theirs] = self.in_turns(ours, theirs);
            let ours = section.case(name, "ms", ours);
            let theirs = section.case(format!("{name}: {bare_name}"), "ms", theirs);
            section.ratio(format!("{name} / {bare_name}"), ours, theirs, None);
        }
    }

    /// The same statements by the other wrappers that are installed.
    fn peers(&mut self, section: &mut Section) {
        let compared = |name: &str, before: &str, sql: String| Compared {
            name: name.to_owned(),
            sql,
            before: before.to_owned(),
        };
        let fill =
            format!("INSERT INTO changed SELECT i, 'value ' || i FROM generate_series(1, {CHANGED}) i");
        let refill = format!("TRUNCATE changed; {fill}");
        let hundred: Vec<String> = (1..=100).map(|n| format!("'{}'", n * 997)).collect();
        let hundred = hundred.join(", ");
        let statements = [
            compared("INSERT of 10,000 rows", "TRUNCATE changed", fill.clone()),
            compared(
                "point SELECT",
                "",
                "SELECT value FROM small WHERE field = '4711'".into(),
            ),
            compared(
                "IN of 100",
                "",
                format!("SELECT sum(length(value)) FROM small WHERE field IN ({hundred})"),
            ),
            compared(
                "scan of 100,000 rows",
                "",
                "SELECT sum(length(value)) FROM small".into(),
            ),
            compared(
                "LIKE 'prefix%' on 100,000",
                "",
                "SELECT sum(length(value)) FROM small WHERE field LIKE '555%'".into(),
            ),
            compared(
                "join of 1,000 rows",
                "",
                "SELECT sum(length(value)) FROM ids JOIN large ON large.field = ids.field WHERE id <= 1000"
                    .into(),
            ),
            compared(
                "count(*) of 100,000 rows",
                "",
                "SELECT count(*) FROM small".into(),
            ),
            compared(
                "UPDATE of 10,000 rows",
                &refill,
                "UPDATE changed SET value = 'a new value'".into(),
            ),
            compared("DELETE of 10,000 rows", &refill, "DELETE FROM changed".into()),
        ];
        peers::measure(section, &mut self.client, self.port, self.rounds, &statements);
    }

    fn pipeline(&mut self, commands: &[Vec<u8>]) {
        for block in commands.chunks(AT_ONCE) {
            self.bare.ask(&block.concat(), block.len());
        }
    }
}

/// A command for each of so many fields with their values.
fn pairs(count: usize, write: impl Fn(&mut Vec<u8>, &[u8], &[u8])) -> Vec<Vec<u8>> {
    let command = |number: usize| {
        let mut out = Vec::new();
        write(
            &mut out,
            number.to_string().as_bytes(),
            format!("value {number}").as_bytes(),
        );
        out
    };
    (1..=count).map(command).collect()
}

/// HMGET of one block of the fields that the local rows name.
fn names(block: usize, step: usize) -> Vec<u8> {
    let first = block * AT_ONCE + 1;
    let fields: Vec<String> = (first..first + AT_ONCE)
        .map(|id| (id * step).to_string())
        .collect();
    let mut words: Vec<&[u8]> = vec![b"HMGET", b"large"];
    words.extend(fields.iter().map(String::as_bytes));
    let mut out = Vec::new();
    bare::command(&mut out, &words);
    out
}

/// redis-cli --pipe.
fn pipe(port: u16, commands: &[u8]) {
    let mut child = Command::new("redis-cli")
        .args(["-p", &port.to_string(), "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-cli can be run");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(commands).expect("redis-cli reads");
    drop(input);
    assert!(child.wait().expect("it is our child").success());
}
