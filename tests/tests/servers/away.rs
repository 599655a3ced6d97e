//! One of several servers is away: nobody else is held up, and it is right when it is back.

use pg_redis_cache_tests::{Redis, World, eventually};
use postgres::{Client, NoTls};

use super::{SOON, Two, exists};

/// So much that the ring would be full several times over if the server that is away held its tail.
fn load(two: &Two, rounds: usize) {
    load_beside(two, ("here", &two.world.redis), rounds);
}

/// The same where this one is alive, and its table.
fn load_beside(two: &Two, (table, redis): (&str, &Redis), rounds: usize) {
    let mut client = two.world.connect();
    for _ in 0..rounds {
        client
            .batch_execute(
                "UPDATE far SET v = v + 1, filler = repeat('x', 400); UPDATE here SET v = v + 1, filler = repeat('y', 400)",
            )
            .unwrap();
        // Never more than the living one takes.
        let position: i32 = client
            .query_one(&format!("SELECT v FROM {table} WHERE id = 200"), &[])
            .unwrap()
            .get(0);
        two.awaits(redis, &format!("{table}:200"), &position.to_string());
    }
}

/// What a server holds by now is there when it is started again.
fn keep(redis: &Redis) {
    assert_eq!(redis.cli(&["SAVE"]), "OK");
}

#[test]
fn one_that_is_killed_holds_nobody_up_and_is_right_when_it_is_back() {
    let mut two = Two::with(&[("pg_redis_cache.queue_size", "2MB")]);
    two.fill();
    keep(&two.far);
    two.far.kill();
    two.wait_until_connected("far", false);
    load(&two, 40);
    // The ring was never full, and nothing of the living one's was lost.
    assert_eq!(two.purges("here", "queue"), 0);
    assert_eq!(two.purges("here", "away"), 0);
    assert_eq!(two.purges("far", "queue"), 0);
    assert!(two.purges("far", "away") > 0, "it was to be given up");
    let used: i64 = two
        .world
        .connect()
        .query_one("SELECT queue_bytes FROM redis_cache.status", &[])
        .unwrap()
        .get(0);
    assert!(used < 1024 * 1024, "{used} bytes of the ring are still held");
    assert_eq!(two.figure("connected", "default"), "true");
    let told = "server \"far\": away for longer than what it misses is kept";
    assert!(two.world.postgres.log().contains(told));
    // Whoever asks for a key of the dead one to be deleted learns at once that nobody can tell.
    let mut client = two.world.connect();
    let asked = client.query_one("SELECT redis_cache.invalidate('far', '1')", &[]);
    assert_eq!(asked.unwrap().get::<_, Option<bool>>(0), None);
    // The other one can be verified.
    two.world.redis.cli(&["HSET", "here:1", "v", "-1"]);
    let differ = client.query_one("SELECT count(*) FROM redis_cache.verify('here')", &[]);
    assert_eq!(differ.unwrap().get::<_, i64>(0), 1);
    two.change("here");
    // wait() waits for all.
    let waited = two
        .world
        .connect()
        .query_one("SELECT redis_cache.wait('200ms')", &[]);
    assert!(!waited.unwrap().get::<_, bool>(0));
    // What the dead one had is there again, and stale, until the purge is through.
    two.far.start_again();
    assert_eq!(two.assert_rows().0, 200);
    two.fill();
}

#[test]
fn the_server_of_the_setting_url_holds_nobody_up_either() {
    let mut two = Two::with(&[("pg_redis_cache.queue_size", "2MB")]);
    two.fill();
    keep(&two.world.redis);
    two.world.redis.kill();
    two.wait_until_connected("default", false);
    load_beside(&two, ("far", &two.far), 40);
    for (mapping, reason) in [("far", "queue"), ("far", "away"), ("here", "queue")] {
        assert_eq!(two.purges(mapping, reason), 0, "{mapping}, {reason}");
    }
    assert!(two.purges("here", "away") > 0, "it was to be given up");
    assert_eq!(two.figure("connected", "far"), "true");
    two.world.redis.start_again();
    assert_eq!(two.assert_rows().1, 200);
    two.fill();
}

#[test]
fn one_that_is_frozen_holds_nobody_up_and_what_it_had_read_does_no_harm() {
    // Room for what comes until it is known that nobody answers there.
    let two = Two::with(&[("pg_redis_cache.queue_size", "16MB")]);
    two.change("far");
    two.assert_rows();
    two.far.freeze();
    eventually("the frozen one to be given up", SOON, || {
        load(&two, 5);
        (two.purges("far", "away") > 0).then_some(())
    });
    load(&two, 5);
    assert_eq!(two.purges("here", "queue"), 0);
    two.far.thaw();
    two.assert_rows();
    two.change("far");
    assert_eq!(two.assert_rows().1, 200);
}

#[test]
fn one_that_goes_away_again_before_it_is_purged_holds_nobody_up_either() {
    let mut two = Two::with(&[("pg_redis_cache.queue_size", "2MB")]);
    two.change("far");
    two.assert_rows();
    for _ in 0..3 {
        two.far.kill();
        two.wait_until_connected("far", false);
        load(&two, 12);
        two.far.start_again();
        two.wait_until_connected("far", true);
    }
    two.far.kill();
    load(&two, 12);
    assert_eq!(two.purges("here", "queue"), 0);
    assert_eq!(two.purges("here", "away"), 0);
    two.far.start_again();
    two.assert_rows();
    two.change("far");
    assert_eq!(two.assert_rows().1, 200);
}

#[test]
fn a_short_absence_loses_nothing() {
    let two = Two::new();
    two.change("far");
    two.assert_rows();
    two.far.freeze();
    two.change("far");
    two.change("here");
    two.awaits(&two.world.redis, "here:7", "1");
    two.far.thaw();
    assert_eq!(two.assert_rows(), (200, 200));
    assert_eq!(two.purges("far", "away"), 0);
}

/// A synchronous session that fails a test by its first warning.
fn synchronous(world: &World) -> Client {
    let mut config = world.postgres.config();
    config.notice_callback(|notice| panic!("{notice}"));
    let mut client = config.connect(NoTls).unwrap();
    let sql = "SET pg_redis_cache.synchronous = on; SET pg_redis_cache.synchronous_timeout = '5min'";
    client.batch_execute(sql).unwrap();
    client
}

#[test]
fn a_synchronous_commit_waits_for_the_servers_that_it_concerns() {
    let mut two = Two::new();
    let mut client = synchronous(&two.world);
    client
        .batch_execute("UPDATE far SET v = 5 WHERE id = 5; UPDATE here SET v = 5 WHERE id = 5")
        .unwrap();
    assert_eq!(two.far.cli(&["HGET", "far:5", "v"]), "\"5\"");
    two.far.kill();
    two.wait_until_connected("far", false);
    for v in 1..=20 {
        client
            .execute("UPDATE here SET v = $1 WHERE id = 1", &[&v])
            .unwrap();
        assert_eq!(two.world.redis.cli(&["HGET", "here:1", "v"]), format!("\"{v}\""));
    }
    // One that concerns the dead one waits, and ends when that is back.
    let waiting = std::thread::spawn(move || {
        client
            .batch_execute(
                "BEGIN; UPDATE far SET v = 9 WHERE id = 9; UPDATE here SET v = 9 WHERE id = 9; COMMIT",
            )
            .unwrap();
    });
    two.awaits(&two.world.redis, "here:9", "9");
    assert!(!waiting.is_finished());
    two.far.start_again();
    waiting.join().unwrap();
    two.assert_rows();
}

#[test]
fn a_synchronous_commit_does_not_take_being_given_up_for_an_acknowledgement() {
    let mut two = Two::with(&[("pg_redis_cache.queue_size", "2MB")]);
    two.change("far");
    two.assert_rows();
    keep(&two.far);
    two.far.kill();
    two.wait_until_connected("far", false);
    let mut client = synchronous(&two.world);
    let waiting = std::thread::spawn(move || {
        client
            .batch_execute("UPDATE far SET v = 77 WHERE id = 7")
            .unwrap()
    });
    // Who meets the row before that waits for the lock, which the session keeps while it waits for the server.
    let mut other = two.world.connect();
    eventually("the row to be visible", SOON, || {
        let row = other.query_one("SELECT v FROM far WHERE id = 7", &[]).unwrap();
        (row.get::<_, i32>(0) == 77).then_some(())
    });
    load(&two, 40);
    assert!(two.purges("far", "away") > 0);
    assert!(!waiting.is_finished());
    // Nor does another worker.
    let pid = two.world.worker_pid();
    two.world.postgres.signal(pid, libc::SIGTERM);
    eventually("another worker", SOON, || {
        (two.world.worker_pid() != pid).then_some(())
    });
    load(&two, 5);
    assert!(!waiting.is_finished());
    two.far.start_again();
    waiting.join().unwrap();
    assert!(
        !exists(&two.far, "far:7"),
        "the commit returned before what it changed was purged"
    );
    two.assert_rows();
}
