//! The version oracle: no key ever goes back, and nothing that was rolled back is ever seen.
//!
//! The table has a column `version` that only grows with each commit, and a column `doomed` that only
//! transactions which roll back set. A thread polls Redis while writers run. An absent key is right at any
//! time, and does not make an older version right again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::RedisResult;

use crate::redisserver::Redis;

/// A poller at work.
#[derive(Debug)]
pub struct VersionOracle {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Watched>,
}

/// What it saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// How often all keys were read.
    pub rounds: u64,
    /// How often a key was there.
    pub hits: u64,
    /// How often a key had a newer version than the last time: a test in which this is 0 has shown nothing.
    pub advances: u64,
    /// What must not happen, in words.
    pub violations: Vec<String>,
}

impl VersionOracle {
    /// Begins to poll `keys`, hashes with the fields `version` (a whole number) and `doomed` (a boolean).
    pub fn watch(redis: &Redis, keys: impl IntoIterator<Item = String>) -> VersionOracle {
        let redis = redis.client();
        let keys: Vec<String> = keys.into_iter().collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let newest = vec![None; keys.len()];
            let mut poller = Poller {
                keys,
                newest,
                watched: Watched::default(),
                connection: None,
            };
            // The last round begins after the request to stop, so that what the writers left is seen too.
            while !stopped.load(Ordering::Acquire) {
                poller.round(&redis);
            }
            poller.round(&redis);
            poller.watched
        });
        VersionOracle { stop, thread }
    }

    /// Ends the polling.
    ///
    /// # Panics
    /// If the poller did.
    pub fn stop(self) -> Watched {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the poller has failed")
    }

    /// Ends the polling.
    ///
    /// # Panics
    /// If a key went back, or showed what was rolled back, or no key was ever seen to change.
    pub fn assert_held(self) -> Watched {
        let watched = self.stop();
        assert!(watched.violations.is_empty(), "{:#?}", watched.violations);
        assert!(watched.advances > 0, "no key was seen to change: {watched:?}");
        watched
    }
}

struct Poller {
    keys: Vec<String>,
    newest: Vec<Option<i64>>,
    watched: Watched,
    connection: Option<redis::Connection>,
}

impl Poller {
    fn round(&mut self, redis: &redis::Client) {
        let Ok(answers) = self.read_all(redis) else {
            // The test is killing Redis: what it cannot say is not wrong.
            self.connection = None;
            std::thread::sleep(Duration::from_millis(1));
            return;
        };
        self.watched.rounds += 1;
        for (at, (version, doomed)) in answers.into_iter().enumerate() {
            if let Some(version) = version {
                self.see(at, version, doomed.as_deref() == Some("t"));
            }
        }
    }

    fn read_all(&mut self, redis: &redis::Client) -> RedisResult<Vec<(Option<i64>, Option<String>)>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(redis.get_connection()?),
        };
        let mut pipe = redis::pipe();
        for key in &self.keys {
            pipe.cmd("HMGET").arg(key).arg("version").arg("doomed");
        }
        pipe.query(connection)
    }

    fn see(&mut self, at: usize, version: i64, doomed: bool) {
        self.watched.hits += 1;
        let key = &self.keys[at];
        if doomed {
            self.watched
                .violations
                .push(format!("{key} shows version {version}, which was rolled back"));
        }
        match self.newest[at] {
            Some(newest) if version < newest => {
                self.watched
                    .violations
                    .push(format!("{key} went back from version {newest} to {version}"));
            }
            Some(newest) if version == newest => {}
            _ => {
                self.watched.advances += 1;
                self.newest[at] = Some(version);
            }
        }
    }
}
