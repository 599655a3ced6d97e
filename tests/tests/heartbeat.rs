//! The heartbeat: what was committed before its time is in Redis, and it ends with whom it speaks for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use pg_redis_cache_tests::{RowOracle, Shutdown, World, eventually};

const SOON: Duration = Duration::from_secs(20);

fn world() -> World {
    let world = World::with(
        "CREATE TABLE doc (id int PRIMARY KEY, version bigint NOT NULL); \
         INSERT INTO doc SELECT i, 0 FROM generate_series(1, 20) i",
        "doc:{id} => SELECT version FROM doc",
    );
    world.execute("UPDATE doc SET version = version + 1");
    world.wait();
    world
}

fn heartbeats(world: &World) -> Vec<String> {
    let found = world
        .redis
        .cli(&["--scan", "--pattern", "pg_redis_cache:alive:*"]);
    let found = found.lines().map(|line| line.trim_matches('"').to_owned());
    found.filter(|line| !line.is_empty()).collect()
}

/// The heartbeat's time in milliseconds since 1970, and its WAL position.
fn alive(redis: &mut redis::Connection, key: &str) -> Option<(u128, String)> {
    let value: Option<String> = redis::cmd("GET").arg(key).query(redis).unwrap();
    let value = value?;
    let (time, lsn) = value
        .strip_prefix("{\"time\":")?
        .strip_suffix("\"}")?
        .split_once(",\"lsn\":\"")?;
    Some((time.parse().ok()?, lsn.to_owned()))
}

fn now() -> u128 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_millis()
}

fn heartbeat_key(world: &World) -> String {
    eventually("a heartbeat", SOON, || heartbeats(world).pop())
}

#[test]
fn the_heartbeat_goes_on_while_nothing_happens_and_ends_with_the_server() {
    let mut world = world();
    let key = heartbeat_key(&world);
    let mut redis = world.redis();
    let (first, lsn) = alive(&mut redis, &key).expect("a heartbeat of the known form");
    assert!(first <= now());
    eventually("the next heartbeat", SOON, || {
        (alive(&mut redis, &key)?.0 > first).then_some(())
    });
    let ttl: i64 = redis::cmd("PTTL").arg(&key).query(&mut redis).unwrap();
    assert!((1..=5000).contains(&ttl), "{ttl}");
    let sql = format!("SELECT '{lsn}'::pg_lsn <= pg_current_wal_insert_lsn()");
    assert!(world.connect().query_one(&sql, &[]).unwrap().get::<_, bool>(0));
    world.postgres.stop(Shutdown::Fast);
    assert_eq!(alive(&mut redis, &key), None);
}

#[test]
fn no_heartbeat_without_mappings() {
    let world = world();
    heartbeat_key(&world);
    world.postgres.set_conf("pg_redis_cache.enabled", "off");
    eventually("the heartbeat to expire", SOON, || {
        heartbeats(&world).is_empty().then_some(())
    });
}

/// Ends the other threads, however this one ends.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_was_committed_before_the_heartbeats_time_is_in_redis() {
    let world = world();
    // Large rows: when Redis stands still they pile up, and a command on another connection overtakes them.
    world.execute("ALTER TABLE doc ADD body text");
    world.set_mappings("doc:{id} => SELECT version, body FROM doc");
    let key = heartbeat_key(&world);
    let stop = AtomicBool::new(false);
    let committed = std::sync::Mutex::new(vec![(0u128, 0i64)]);
    let beats = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = world.connect();
            while !stop.load(Ordering::Relaxed) {
                let sql = "UPDATE doc SET version = version + 1, body = repeat('x', 1000000) WHERE id <= 8 \
                           RETURNING version";
                let version = client.query(sql, &[]).unwrap()[0].get(0);
                // Rounded up: the commit was over by then.
                committed.lock().unwrap().push((now() + 1, version));
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(300));
                world.redis.freeze();
                std::thread::sleep(Duration::from_millis(700));
                world.redis.thaw();
            }
        });
        let _stopped = StopAtEnd(&stop);
        let mut redis = world.redis();
        let mut seen = std::collections::BTreeSet::new();
        let start = Instant::now();
        while seen.len() < 6 && start.elapsed() < SOON {
            let Some((time, _)) = alive(&mut redis, &key) else {
                continue;
            };
            let version: Option<i64> = redis::cmd("HGET")
                .arg("doc:1")
                .arg("version")
                .query(&mut redis)
                .unwrap();
            let committed = committed.lock().unwrap();
            let at_least = committed.iter().rev().find(|(at, _)| *at <= time);
            if let (Some((_, at_least)), Some(version)) = (at_least, version) {
                assert!(
                    version >= *at_least,
                    "Redis has {version}, and {at_least} was committed before {time}"
                );
            }
            seen.insert(time);
        }
        seen.len()
    });
    assert!(beats >= 2, "{beats} heartbeats seen");
    world.assert_rows(&RowOracle::hash("doc:{id}", "doc", &["version", "body"]));
}
