//! Writers and readers that work on one table at the same time, in every way that SQL offers.
//!
//! What it does: [`Load::start`] runs threads, each with a session of its own. Writers update single rows and
//! many, upsert, delete and insert again, change keys, roll back, roll back to savepoints, at each isolation
//! level. Readers look up hot keys, alone, in lists, and in transactions with an old snapshot.
//!
//! What it guarantees: the column `version` of a key grows with each commit, also from a deleted row to the
//! next one of that key, and only what is rolled back sets `doomed`. That is what [`VersionOracle`] needs.
//! Keys up to [`STEADY`] always have a row; those above it come and go, and who makes or removes one holds
//! the key's advisory lock, so that its version (the lifetime's number in the millions, updates below) grows.
//!
//! What it does not: stop for errors. What concurrency brings (serialization failures, deadlocks, duplicate
//! keys) and the loss of a connection is counted; everything else is a test's failure, told by
//! [`Done::unexpected`].
//!
//! [`VersionOracle`]: crate::VersionOracle

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use postgres::error::SqlState;
use postgres::{Client, Config, Error, NoTls};

use crate::row_oracle::RowOracle;
use crate::world::{World, WorldBuilder};
use crate::{Comparison, Redis, RedisCluster, VersionOracle, eventually};

/// Keys from 1 to this one always have a row.
pub const STEADY: i32 = 24;

/// The mappings of the table: one in each format, one that is only filled by reads, one that expires.
pub const MAPPINGS: &str = "doc:{id} => SELECT version, doomed, body FROM doc; \
     gone:{id} => SELECT version, doomed FROM doc WITH (name = gone, write = delete); \
     j:{id} => SELECT id, version, doomed, body FROM doc WITH (name = j, format = json, insert = set); \
     s:{id} => SELECT stamp FROM doc WITH (name = s, format = string, ttl = 2)";

/// What a load is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Threads that write.
    pub writers: u64,
    /// Threads that read.
    pub readers: u64,
    /// Keys from 1 to this one are used. More than [`STEADY`].
    pub keys: i32,
    /// How long a thread rests after each transaction: enough of it, and faults are not drowned in work.
    pub pause: Duration,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            writers: 4,
            readers: 3,
            keys: 60,
            pause: Duration::from_micros(500),
        }
    }
}

/// Threads at work.
#[derive(Debug)]
pub struct Load {
    common: Arc<Common>,
    threads: Vec<JoinHandle<()>>,
}

/// What they have done.
#[derive(Debug, Default)]
pub struct Done {
    /// Writing transactions that committed.
    pub commits: u64,
    /// Writing transactions that were rolled back on purpose.
    pub rollbacks: u64,
    /// Transactions that failed as concurrent ones may, or with their connection.
    pub failures: u64,
    /// Reading statements.
    pub reads: u64,
    /// Errors that nothing excuses.
    pub unexpected: Vec<String>,
}

#[derive(Debug, Default)]
struct Common {
    stop: AtomicBool,
    commits: AtomicU64,
    rollbacks: AtomicU64,
    failures: AtomicU64,
    reads: AtomicU64,
    unexpected: Mutex<Vec<String>>,
}

impl Load {
    /// A world with the table of `shape.keys` rows and its mappings, refilled as often as is asked for, so
    /// that reads race with writes as often as they can.
    pub fn world(shape: Shape, settings: impl FnOnce(WorldBuilder) -> WorldBuilder) -> World {
        let builder = World::builder()
            .conf("deadlock_timeout", "50ms")
            // The log without the errors that are meant to happen: log is above error there.
            .conf("log_min_messages", "log");
        let world = settings(builder.conf("pg_redis_cache.refill_interval", "0")).start();
        Load::make_table(&world, shape.keys);
        world.set_mappings(MAPPINGS);
        world.wait();
        world
    }

    /// The table, with rows for keys from 1 to `keys`.
    pub fn make_table(world: &World, keys: i32) {
        world.execute(&format!(
            "CREATE TABLE doc (id int PRIMARY KEY, version bigint NOT NULL, doomed boolean NOT NULL DEFAULT false, \
                 body text, stamp text GENERATED ALWAYS AS (version::text || ' ' || doomed::text) STORED) \
                 WITH (fillfactor = 50); \
             CREATE SEQUENCE life; \
             CREATE FUNCTION new_life() RETURNS bigint LANGUAGE sql VOLATILE \
                 AS $$ SELECT nextval('life') * 1000000 $$; \
             CREATE FUNCTION save_often(key int, depth int) RETURNS void LANGUAGE plpgsql AS $$ \
                 BEGIN \
                     UPDATE doc SET version = version + 1, body = 'level ' || depth WHERE id = key; \
                     IF depth > 0 THEN \
                         BEGIN \
                             PERFORM save_often(key + 1, depth - 1); \
                             UPDATE doc SET version = version + 1000, doomed = true WHERE id IN (key, key + 1); \
                             RAISE division_by_zero; \
                         EXCEPTION WHEN division_by_zero THEN NULL; \
                         END; \
                         PERFORM save_often(key + 1, depth - 1); \
                     END IF; \
                 END $$; \
             INSERT INTO doc (id, version, body) SELECT i, new_life(), 'first' FROM generate_series(1, {keys}) i"
        ));
    }

    /// Begins.
    pub fn start(world: &World, shape: Shape) -> Load {
        let common = Arc::new(Common::default());
        let mut config = world.postgres.config();
        config.dbname(world.database());
        let roles = (0..shape.writers)
            .map(|_| Role::Writer)
            .chain((0..shape.readers).map(|_| Role::Reader));
        let threads = roles.enumerate().map(|(number, role)| {
            let mut thread = Thread {
                common: Arc::clone(&common),
                config: config.clone(),
                client: None,
                dice: Dice(0x9E37_79B9_7F4A_7C15 ^ (number as u64 + 1) << 17),
                shape,
            };
            std::thread::spawn(move || thread.run(role))
        });
        let threads = threads.collect();
        Load { common, threads }
    }

    /// Transactions that have committed so far.
    pub fn commits(&self) -> u64 {
        self.common.commits.load(Ordering::Relaxed)
    }

    /// Waits until `more` further transactions have committed: the server works as it should.
    ///
    /// # Panics
    /// If they do not within 30 s.
    pub fn goes_on(&self, more: u64) {
        let goal = self.commits() + more;
        eventually("transactions to commit", Duration::from_secs(30), || {
            (self.commits() >= goal).then_some(())
        });
    }

    /// Ends it.
    ///
    /// # Panics
    /// If a statement failed with what nothing excuses, or nothing was committed.
    pub fn stop(self) -> Done {
        self.common.stop.store(true, Ordering::Release);
        for thread in self.threads {
            thread.join().expect("a thread of the load has failed");
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let unexpected = self.common.unexpected.lock().map(|list| list.clone());
        let done = Done {
            commits: read(&self.common.commits),
            rollbacks: read(&self.common.rollbacks),
            failures: read(&self.common.failures),
            reads: read(&self.common.reads),
            unexpected: unexpected.unwrap_or_default(),
        };
        assert!(done.unexpected.is_empty(), "{:#?}", done.unexpected);
        assert!(done.commits > 0, "nothing was committed: {done:?}");
        done
    }

    /// Polls the keys whose versions tell what they are; of very many the first 300, so as to look often.
    pub fn watch(world: &World, shape: Shape) -> VersionOracle {
        Load::watch_all([&world.redis], shape)
    }

    /// The same on a cluster.
    pub fn watch_cluster(cluster: &RedisCluster, shape: Shape) -> VersionOracle {
        Load::watch_all(&cluster.nodes, shape)
    }

    /// The same on these servers, of which the masters are asked.
    pub fn watch_all<'a>(servers: impl IntoIterator<Item = &'a Redis>, shape: Shape) -> VersionOracle {
        let keys = (1..=shape.keys.min(300)).flat_map(|id| [format!("doc:{id}"), format!("gone:{id}")]);
        VersionOracle::watch_all(servers, keys)
    }

    /// Compares every mapping of the database with its table; the keys are on a cluster.
    ///
    /// # Panics
    /// If one differs.
    pub fn assert_all_rows_in(world: &World, cluster: &RedisCluster) -> Vec<Comparison> {
        world.wait();
        let mut masters = cluster.masters();
        let mut client = world.connect();
        let oracles = RowOracle::of_database(&mut client);
        assert!(!oracles.is_empty(), "no mapping is active");
        let compare = |(_, oracle): &(String, RowOracle)| {
            let comparison = oracle.compare_all(&mut client, &mut masters);
            assert!(
                comparison.differences.is_empty(),
                "Redis is not in step: {comparison}"
            );
            comparison
        };
        oracles.iter().map(compare).collect()
    }

    /// Compares every mapping of the database with its table.
    ///
    /// # Panics
    /// If one differs.
    pub fn assert_all_rows(world: &World) -> Vec<Comparison> {
        let oracles = RowOracle::of_database(&mut world.connect());
        assert!(!oracles.is_empty(), "no mapping is active");
        oracles
            .iter()
            .map(|(_, oracle)| world.assert_rows(oracle))
            .collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum Role {
    Writer,
    Reader,
}

struct Thread {
    common: Arc<Common>,
    config: Config,
    client: Option<Client>,
    dice: Dice,
    shape: Shape,
}

/// Whether a transaction is to be kept.
enum Ending {
    Commit,
    Rollback,
}

impl Thread {
    fn run(&mut self, role: Role) {
        while !self.common.stop.load(Ordering::Acquire) {
            let Some(mut client) = self.session() else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            let result = match role {
                Role::Writer => self.write(&mut client),
                Role::Reader => self.read(&mut client),
            };
            if let Err(error) = result {
                self.failed(&error);
                let _ = client.batch_execute("ROLLBACK");
            }
            if !client.is_closed() {
                self.client = Some(client);
            }
            std::thread::sleep(self.shape.pause);
        }
    }

    fn session(&mut self) -> Option<Client> {
        self.client.take().or_else(|| self.config.connect(NoTls).ok())
    }

    fn failed(&mut self, error: &Error) {
        self.common.failures.fetch_add(1, Ordering::Relaxed);
        let excused = match error.code() {
            None => error.is_closed() || error.to_string().contains("communicating with the server"),
            Some(code) => [
                SqlState::T_R_SERIALIZATION_FAILURE,
                SqlState::T_R_DEADLOCK_DETECTED,
                SqlState::UNIQUE_VIOLATION,
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::QUERY_CANCELED,
            ]
            .contains(code),
        };
        if !excused && let Ok(mut list) = self.common.unexpected.lock() {
            list.push(format!("{error:?}"));
        }
    }

    fn write(&mut self, client: &mut Client) -> Result<(), Error> {
        let isolation = [
            "READ COMMITTED",
            "READ COMMITTED",
            "REPEATABLE READ",
            "SERIALIZABLE",
        ];
        let isolation = isolation[self.dice.below(4) as usize];
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}"))?;
        for _ in 0..=self.dice.below(2) {
            self.change(client)?;
        }
        match self.ending(client)? {
            Ending::Commit => {
                client.batch_execute("COMMIT")?;
                self.common.commits.fetch_add(1, Ordering::Relaxed);
            }
            Ending::Rollback => {
                client.batch_execute("ROLLBACK")?;
                self.common.rollbacks.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn ending(&mut self, client: &mut Client) -> Result<Ending, Error> {
        if self.dice.below(6) > 0 {
            return Ok(Ending::Commit);
        }
        let key = self.dice.key(STEADY);
        client.execute(
            "UPDATE doc SET version = version + 1000, doomed = true WHERE id = $1",
            &[&key],
        )?;
        Ok(Ending::Rollback)
    }

    fn change(&mut self, client: &mut Client) -> Result<(), Error> {
        let (steady, body) = (self.dice.key(STEADY), self.dice.text());
        match self.dice.below(10) {
            0..=3 => {
                let sql = "UPDATE doc SET version = version + 1, body = $2 WHERE id = $1";
                client.execute(sql, &[&steady, &body]).map(drop)
            }
            4 => {
                let sql = "WITH changed AS (UPDATE doc SET version = version + 1, body = $2 \
                               WHERE id BETWEEN $1 AND $1 + 9 RETURNING id) SELECT count(*) FROM changed";
                client.query(sql, &[&steady, &body]).map(drop)
            }
            5 => {
                let sql = "INSERT INTO doc (id, version, body) VALUES ($1, 0, $2) \
                               ON CONFLICT (id) DO UPDATE SET version = doc.version + 1, body = excluded.body";
                client.execute(sql, &[&steady, &body]).map(drop)
            }
            6 => self.nest(client, steady),
            7 => self.delete_and_insert(client, &body),
            8 => self.change_key(client),
            _ => client.execute("SELECT save_often($1, 2)", &[&steady]).map(drop),
        }
    }

    /// Savepoints, kept and rolled back in turn.
    fn nest(&mut self, client: &mut Client, key: i32) -> Result<(), Error> {
        let keep = "UPDATE doc SET version = version + 1 WHERE id = $1";
        let doom = "UPDATE doc SET version = version + 1000, doomed = true WHERE id = $1";
        client.execute(keep, &[&key])?;
        client.batch_execute("SAVEPOINT a")?;
        client.execute(doom, &[&key])?;
        client.batch_execute("SAVEPOINT b")?;
        client.execute(doom, &[&(key % STEADY + 1)])?;
        client.batch_execute("RELEASE b; ROLLBACK TO a")?;
        client.execute(keep, &[&key])?;
        client.batch_execute("SAVEPOINT c")?;
        client.execute(keep, &[&(key % STEADY + 1)])?;
        client.batch_execute("RELEASE c")
    }

    fn delete_and_insert(&mut self, client: &mut Client, body: &String) -> Result<(), Error> {
        let key = self.passing_key();
        lock(client, key)?;
        let deleted = client.execute("DELETE FROM doc WHERE id = $1", &[&key])?;
        if deleted == 0 || self.dice.below(3) == 0 {
            let sql = "INSERT INTO doc (id, version, body) VALUES ($1, new_life(), $2)";
            client.execute(sql, &[&key, body])?;
        }
        Ok(())
    }

    fn change_key(&mut self, client: &mut Client) -> Result<(), Error> {
        let (from, to) = (self.passing_key(), self.passing_key());
        if from == to {
            return Ok(());
        }
        lock(client, from.min(to))?;
        lock(client, from.max(to))?;
        client.execute("DELETE FROM doc WHERE id = $1", &[&to])?;
        let sql = "UPDATE doc SET id = $2, version = new_life() WHERE id = $1";
        client.execute(sql, &[&from, &to]).map(drop)
    }

    /// One of the keys that come and go.
    fn passing_key(&mut self) -> i32 {
        STEADY + self.dice.key(self.shape.keys - STEADY)
    }

    fn read(&mut self, client: &mut Client) -> Result<(), Error> {
        let (steady, any) = (self.dice.key(STEADY), self.dice.key(self.shape.keys));
        let one = "SELECT version, body FROM doc WHERE id = $1";
        match self.dice.below(6) {
            0 | 1 => client.query(one, &[&any]).map(drop)?,
            2 => {
                let keys: Vec<i32> = (any..any + 10).collect();
                client
                    .query("SELECT body FROM doc WHERE id = ANY($1)", &[&keys])
                    .map(drop)?;
            }
            3 => {
                let sql = "SELECT d.body FROM generate_series($1::int, $1 + 5) i JOIN doc d ON d.id = i";
                client.query(sql, &[&any]).map(drop)?;
            }
            // A snapshot that grows old while others write.
            4 => {
                let isolation = ["REPEATABLE READ", "SERIALIZABLE"][self.dice.below(2) as usize];
                client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}"))?;
                for key in [steady, any, steady, any] {
                    client.query(one, &[&key])?;
                    std::thread::sleep(Duration::from_millis(self.dice.below(8)));
                }
                client.batch_execute("COMMIT")?;
            }
            _ => {
                client.batch_execute("BEGIN")?;
                client.query(one, &[&steady])?;
                client.query("SELECT body FROM doc WHERE id = $1 FOR SHARE", &[&steady])?;
                client.query(one, &[&any])?;
                client.batch_execute("COMMIT")?;
            }
        }
        self.common.reads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn lock(client: &mut Client, key: i32) -> Result<(), Error> {
    client
        .query("SELECT pg_advisory_xact_lock($1)", &[&i64::from(key)])
        .map(drop)
}

/// Pseudo-random numbers (xorshift64*): the same ones in each run, as far as the scheduler allows.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Numbers that depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn key(&mut self, keys: i32) -> i32 {
        1 + self.below(keys as u64) as i32
    }

    fn text(&mut self) -> String {
        let word = [
            "plain",
            "ünïcode 漢字 🦀",
            "\"quoted\" \\ {json}",
            "",
            "line\nbreak\ttab",
        ];
        let word = word[self.below(5) as usize];
        word.repeat(1 + self.below(20) as usize)
    }
}
