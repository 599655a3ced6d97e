//! Keys whose versions only grow, and a reader that sees if one does not (rule 4 as seen from Redis).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pg_redis_cache_core::redis::{Chunk, Expiry, Target};
use redis::Commands;

use super::{Bench, Server, target};

/// Writes ever newer versions of a few keys until told to stop; returns the last version of each.
pub fn write_versions(bench: &mut Bench, keys: usize, go_on: impl FnMut(u64) -> bool) -> Vec<u64> {
    write_versions_by(bench, keys, 100, go_on, |chunk, name, version| {
        chunk.store_text(name, version.to_string().as_bytes(), Expiry::Never, false);
    })
}

/// The same by what `store` says, with at most so many chunks unacknowledged.
pub fn write_versions_by(
    bench: &mut Bench,
    keys: usize,
    most: usize,
    mut go_on: impl FnMut(u64) -> bool,
    store: impl Fn(&mut Chunk, Target<'_>, u64),
) -> Vec<u64> {
    let mut last = vec![0; keys];
    let mut version = 0;
    let mut unacknowledged = std::collections::VecDeque::new();
    while go_on(version) {
        let id = bench.write(|chunk| {
            for _ in 0..20 {
                version += 1;
                // Uneven, so that the same key comes several times in a batch.
                let key = (version.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % keys;
                last[key] = version;
                let name = format!("v:{key}");
                store(chunk, target(0, name.as_bytes()), version);
            }
        });
        unacknowledged.push_back(id);
        if unacknowledged.len() > most {
            let oldest = unacknowledged.pop_front().unwrap();
            bench.wait_for_chunk(oldest);
        }
    }
    if let Some(newest) = unacknowledged.pop_back() {
        bench.wait_for_chunk(newest);
    }
    last
}

/// Polls the keys of `write_versions` and fails where one goes back; a missing key is no version.
pub fn watch_versions(server: &Server, keys: usize) -> impl FnOnce() -> u64 + use<> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let mut redis = server.client();
    let watcher = std::thread::spawn(move || {
        let names: Vec<String> = (0..keys).map(|key| format!("v:{key}")).collect();
        let mut seen = vec![0; keys];
        let mut polls = 0;
        while !told.load(Ordering::Relaxed) {
            let versions: Vec<Option<u64>> = redis.mget(&names).unwrap();
            for (key, version) in versions.into_iter().enumerate() {
                let Some(version) = version else { continue };
                assert!(
                    version >= seen[key],
                    "v:{key} went back from {} to {version}",
                    seen[key]
                );
                seen[key] = version;
            }
            polls += 1;
        }
        polls
    });
    move || {
        stop.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    }
}

/// Each key holds the last version that was written.
pub fn check_versions(server: &Server, last: &[u64]) {
    let mut redis = server.client();
    for (key, version) in last.iter().enumerate().filter(|(_, version)| **version > 0) {
        assert_eq!(
            redis.get::<_, Option<u64>>(format!("v:{key}")).unwrap(),
            Some(*version),
            "v:{key}"
        );
    }
}

/// The ids of the engine's lanes.
pub fn lanes(redis: &mut redis::Connection) -> Vec<u64> {
    let list: String = redis::cmd("CLIENT").arg("LIST").query(redis).unwrap();
    let lanes = list.lines().filter(|line| line.contains("name=test/1:lane"));
    lanes
        .map(|line| {
            line.split_once("id=")
                .unwrap()
                .1
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect()
}

pub fn kill_client(redis: &mut redis::Connection, id: u64) {
    let _: u64 = redis::cmd("CLIENT")
        .arg("KILL")
        .arg("ID")
        .arg(id)
        .query(redis)
        .unwrap();
}
