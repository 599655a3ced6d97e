//! PostgreSQL with the extension, and its Redis.

use std::time::Duration;

use postgres::{Client, NoTls};

use crate::pgserver::{Postgres, PostgresBuilder};
use crate::proxy::Proxy;
use crate::redisserver::Redis;
use crate::row_oracle::{Comparison, RowOracle};
use crate::{Shutdown, attempt, eventually};

const LIMIT: Duration = Duration::from_secs(20);

/// `text` as an SQL string literal, for statements that take no parameters.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What is to be in a [`World`].
#[derive(Debug, Default)]
pub struct WorldBuilder {
    postgres: PostgresBuilder,
    redis_args: Vec<String>,
    database: Option<String>,
    has_proxy: bool,
    url: Option<String>,
}

impl WorldBuilder {
    /// The list of mappings. Tables made later are mapped then; see [`World::wait_until_active`].
    pub fn mappings(self, list: &str) -> Self {
        self.conf("pg_redis_cache.mappings", list)
    }

    /// A setting of PostgreSQL.
    pub fn conf(mut self, name: &str, value: &str) -> Self {
        self.postgres = self.postgres.conf(name, value);
        self
    }

    /// Lines of postgresql.conf.
    pub fn conf_text(mut self, lines: &str) -> Self {
        self.postgres = self.postgres.conf_text(lines);
        self
    }

    /// Arguments of redis-server.
    pub fn redis_args(mut self, args: &[&str]) -> Self {
        self.redis_args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// A database to be made for the test instead of `postgres`.
    pub fn database(mut self, name: &str) -> Self {
        self.database = Some(name.to_owned());
        self
    }

    /// PostgreSQL reaches Redis by a [`Proxy`]; the tests' own connections do without it.
    pub fn proxied(mut self) -> Self {
        self.has_proxy = true;
        self
    }

    /// PostgreSQL writes to where this says; the world's own Redis is left alone.
    pub fn url(mut self, url: &str) -> Self {
        self.url = Some(url.to_owned());
        self
    }

    /// Starts Redis, then PostgreSQL, and creates the extension.
    pub fn start(self) -> World {
        let args: Vec<&str> = self.redis_args.iter().map(String::as_str).collect();
        let redis = Redis::start_with(&args);
        let database = self.database.unwrap_or_else(|| "postgres".to_owned());
        let postgres = self.postgres.conf("shared_preload_libraries", "pg_redis_cache");
        let proxy = self.has_proxy.then(|| Proxy::to(&redis));
        let url = self
            .url
            .unwrap_or_else(|| proxy.as_ref().map_or_else(|| redis.url(), Proxy::url));
        let postgres = postgres.conf("pg_redis_cache.url", &url);
        // For the function redis() of regress/helpers.sql; the extension does not know it.
        let postgres = postgres.conf("test.redis_port", &redis.port().to_string());
        let postgres = postgres.conf("pg_redis_cache.database", &database).start();
        if database != "postgres" {
            let create = format!("CREATE DATABASE \"{}\"", database.replace('"', "\"\""));
            postgres
                .connect()
                .batch_execute(&create)
                .expect("a new cluster takes a database");
        }
        let world = World {
            postgres,
            redis,
            proxy,
            database,
        };
        world.execute("CREATE EXTENSION pg_redis_cache");
        world
    }
}

/// A PostgreSQL that keeps a Redis in step.
#[derive(Debug)]
pub struct World {
    /// The server with the extension.
    pub postgres: Postgres,
    /// The server that it writes to.
    pub redis: Redis,
    proxy: Option<Proxy>,
    database: String,
}

impl World {
    /// Both servers, to be described.
    pub fn builder() -> WorldBuilder {
        WorldBuilder::default()
    }

    /// Runs `schema`, then sets the mappings and waits until all are active and the purge that comes with
    /// it is over: what most tests want.
    pub fn with(schema: &str, mappings: &str) -> World {
        let world = World::builder().start();
        world.execute(schema);
        world.set_mappings(mappings);
        world.wait();
        world
    }

    /// What lies between the two.
    ///
    /// # Panics
    /// In a world that was not [`proxied`](WorldBuilder::proxied).
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the world was made with a proxy")
    }

    /// The database that has the mapped tables.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// A session of the superuser in [`database`](Self::database).
    pub fn connect(&self) -> Client {
        self.postgres.connect_to(&self.database)
    }

    /// A connection to Redis.
    pub fn redis(&self) -> redis::Connection {
        self.redis.connection()
    }

    /// Runs statements in a session of their own.
    ///
    /// # Panics
    /// If one fails.
    pub fn execute(&self, sql: &str) {
        self.connect()
            .batch_execute(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// Replaces the list of mappings and waits until the server uses it.
    pub fn set_mappings(&self, list: &str) {
        self.set_list(list);
        self.wait_until_active();
    }

    /// Replaces the list of mappings and waits until new sessions have it; the worker may not.
    pub fn set_list(&self, list: &str) {
        self.postgres.set_conf("pg_redis_cache.mappings", list);
        let mut client = self.connect();
        eventually("the new list of mappings to be read", LIMIT, || {
            let row = client.query_one("SELECT current_setting('pg_redis_cache.mappings')", &[]);
            (row.expect("a setting can be shown").get::<_, String>(0) == list).then_some(())
        });
    }

    /// Waits until every mapping is active.
    ///
    /// # Panics
    /// If one is in state `error`, with its problem, or does not become active in time.
    pub fn wait_until_active(&self) {
        let mut client = self.connect();
        let sql = "SELECT name || ': ' || coalesce(problem, '') FROM redis_cache.mappings WHERE state = $1";
        let mut in_state = |state: &str| -> Vec<String> {
            let rows = client.query(sql, &[&state]).expect("the view can be read");
            rows.iter().map(|row| row.get(0)).collect()
        };
        eventually("every mapping to be active", LIMIT, || {
            in_state("pending").is_empty().then_some(())
        });
        let errors = in_state("error");
        assert!(errors.is_empty(), "mappings in error: {errors:?}");
    }

    /// Waits until Redis has all that was committed.
    ///
    /// # Panics
    /// If that takes longer than 20 s.
    pub fn wait(&self) {
        let row = self.connect().query_one("SELECT redis_cache.wait('20s')", &[]);
        assert!(
            row.expect("wait() can be called").get::<_, bool>(0),
            "redis_cache.wait('20s') gave up"
        );
    }

    /// Waits until a condition holds of the view `status`. What is NULL does not hold.
    ///
    /// # Panics
    /// If that takes longer than 20 s, with the last error that the view tells.
    pub fn wait_for_status(&self, condition: &str) {
        let mut client = self.connect();
        let sql = format!("SELECT coalesce({condition}, false), last_error FROM redis_cache.status");
        let mut last: Option<String> = None;
        let met = attempt(LIMIT, || {
            let row = client.query_one(&sql, &[]).expect("the view can be read");
            last = row.get(1);
            row.get::<_, bool>(0).then_some(())
        });
        assert!(met.is_some(), "waited for {condition}; last_error: {last:?}");
    }

    /// The worker's process id, once it is connected to Redis.
    ///
    /// # Panics
    /// If that takes longer than 20 s.
    pub fn worker_pid(&self) -> u32 {
        // A new session each time: a postmaster before 16 that gets SIGCHLD between unblocking signals and
        // select() sleeps on, for up to a minute, unless somebody connects (postmaster.c, ServerLoop).
        eventually("a worker", LIMIT, || {
            let mut client = self
                .postgres
                .config()
                .dbname(&self.database)
                .connect(NoTls)
                .ok()?;
            let sql = "SELECT worker_pid FROM redis_cache.status WHERE connected";
            let pid: i32 = client.query_one(sql, &[]).ok()?.get(0);
            u32::try_from(pid).ok()
        })
    }

    /// [`wait`](Self::wait)s, then compares Redis with the table.
    ///
    /// # Panics
    /// With the differences, if there are any.
    pub fn assert_rows(&self, oracle: &RowOracle) -> Comparison {
        self.wait();
        let comparison = oracle.compare(&mut self.connect(), &mut self.redis());
        assert!(
            comparison.differences.is_empty(),
            "Redis is not in step: {comparison}"
        );
        comparison
    }

    /// Stops PostgreSQL and starts it again; Redis goes on.
    pub fn restart_postgres(&mut self, how: Shutdown) {
        self.postgres.restart(how);
    }
}
