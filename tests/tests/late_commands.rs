//! Rule 5: what a lost connection had been given does not run after newer writes. A proxy keeps the bytes of
//! the old connections until the new ones have written, however the old ones ended.

use std::time::Duration;

use pg_redis_cache_tests::{RowOracle, World, eventually};

const SOON: Duration = Duration::from_secs(20);

/// A row whose second version is on its way to Redis and is kept there.
struct Trial {
    world: World,
    oracle: RowOracle,
}

impl Trial {
    fn begin() -> Trial {
        let world = World::builder()
            .proxied()
            .conf("pg_redis_cache.command_timeout", "300ms")
            .conf("pg_redis_cache.shutdown_timeout", "500ms")
            .conf("pg_redis_cache.pool_size", "1")
            .start();
        world.execute("CREATE TABLE doc (id int PRIMARY KEY, version int); INSERT INTO doc VALUES (1, 1)");
        world.set_mappings("doc:{id} => SELECT version FROM doc");
        // The purge of the activation is over: it would take what is written now.
        world.wait();
        world.execute("UPDATE doc SET version = 2");
        world.wait();
        let trial = Trial {
            world,
            oracle: RowOracle::hash("doc:{id}", "doc", &["version"]),
        };
        assert_eq!(trial.version(), "2");
        trial
    }

    fn version(&self) -> String {
        self.world
            .redis
            .cli(&["HGET", "doc:1", "version"])
            .replace('"', "")
    }

    fn write_and_hold(&self) {
        self.world.proxy().hold();
        self.world.execute("UPDATE doc SET version = 3");
        eventually("the write to be on its way", SOON, || {
            self.world.proxy().keeps_something().then_some(())
        });
    }

    /// Writes by new connections, then lets the old ones' bytes arrive.
    fn write_and_release(&self) {
        eventually("the server to take statements", SOON, || {
            let mut client = self.world.postgres.config().connect(postgres::NoTls).ok()?;
            client.batch_execute("UPDATE doc SET version = 4").ok()
        });
        self.world.worker_pid();
        self.world.wait();
        self.world.assert_rows(&self.oracle);
        let newest = self.until_stored();
        assert!(
            self.world.proxy().keeps_something(),
            "nothing is held back any more"
        );
        self.world.proxy().release();
        assert_eq!(self.version(), newest);
        self.world.assert_rows(&self.oracle);
    }

    /// Once the purges that the fault has led to are over, a newer version stays, so that an old write would
    /// show. Returns it.
    fn until_stored(&self) -> String {
        let mut client = self.world.connect();
        eventually("a version that stays", SOON, || {
            let sql = "UPDATE doc SET version = version + 1 RETURNING version::text";
            let newest: String = client.query_one(sql, &[]).expect("an update works").get(0);
            self.world.wait();
            std::thread::sleep(Duration::from_millis(20));
            (self.version() == newest).then_some(newest)
        })
    }

    fn end_worker(&self, signal: i32) {
        let pid = self.world.worker_pid();
        self.write_and_hold();
        self.world.postgres.signal(pid, signal);
        self.write_and_release();
    }
}

#[test]
fn the_command_times_out() {
    let trial = Trial::begin();
    trial.write_and_hold();
    trial.write_and_release();
}

#[test]
fn the_connection_is_cut() {
    let trial = Trial::begin();
    trial.write_and_hold();
    trial.world.proxy().cut();
    trial.write_and_release();
}

#[test]
fn the_worker_is_terminated() {
    Trial::begin().end_worker(libc::SIGTERM);
}

#[test]
fn the_worker_is_killed_and_the_server_forgets_its_connections() {
    Trial::begin().end_worker(libc::SIGKILL);
}

#[test]
fn the_server_is_stopped_at_once_and_started_again() {
    let mut trial = Trial::begin();
    trial.write_and_hold();
    trial
        .world
        .restart_postgres(pg_redis_cache_tests::Shutdown::Immediate);
    trial.write_and_release();
}

/// The Redis user may not kill what the old connections have left: it runs, also after the purge, and is purged then.
#[test]
fn what_cannot_be_killed_is_purged_once_more() {
    let world = World::builder()
        .proxied()
        .conf("pg_redis_cache.command_timeout", "3s")
        .conf("pg_redis_cache.pool_size", "1")
        .start();
    world.execute("CREATE TABLE doc (id int PRIMARY KEY, version int); INSERT INTO doc VALUES (1, 1)");
    world.set_mappings("doc:{id} => SELECT version FROM doc");
    world.wait();
    // (Redis 6.2 can give a subcommand and not take it away.)
    let rules = ["-client", "+client|id", "+client|setname", "+client|list"];
    let answer = world
        .redis
        .cli(&[&["ACL", "SETUSER", "default"], &rules[..]].concat());
    assert_eq!(answer, "OK");
    let purges = "SELECT coalesce(sum(count), 0)::bigint FROM redis_cache.purges WHERE reason = 'connection'";
    let mut client = world.connect();
    let mut purges = move || {
        client
            .query_one(purges, &[])
            .expect("the view can be read")
            .get::<_, i64>(0)
    };
    world.proxy().hold();
    world.execute("UPDATE doc SET version = 2");
    eventually("the write to be on its way", SOON, || {
        world.proxy().keeps_something().then_some(())
    });
    eventually("the loss", SOON, || (purges() == 1).then_some(()));
    world.execute("DELETE FROM doc");
    world.wait();
    world.proxy().release();
    eventually("the second loss", SOON, || (purges() > 1).then_some(()));
    world.wait();
    world.assert_rows(&RowOracle::hash("doc:{id}", "doc", &["version"]));
}
