//! The version oracle: no key ever goes back, and nothing that was rolled back is ever seen.
//!
//! The table has a column `version` that only grows with each commit, and a column `doomed` that only
//! transactions which roll back set. A thread polls Redis while writers run. An absent key is right at any
//! time, and does not make an older version right again.
//!
//! Of several servers the masters are asked. What one of them answers never goes back, whatever happens to the others:
//! it ran what it was sent in order, and what it had copied from its own master was a beginning of that one's order.
//! (What it held as a replica does not count: it may have been replaced by another copy.) From one server to the next
//! nothing may go back either, unless the next one has taken over without having heard of everything that was
//! acknowledged: until that is purged, whoever makes that happen has to [excuse](VersionOracle::excuse) it. From then on
//! what any of them has ever shown counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::{ConnectionLike, RedisResult, Value};

use crate::redisserver::Redis;

/// How long a server may take to answer; one that is frozen is left, so that the others are asked.
const PATIENCE: Duration = Duration::from_millis(500);

/// A poller at work.
#[derive(Debug)]
pub struct VersionOracle {
    stop: Arc<AtomicBool>,
    /// How often it was begun and ended to excuse: odd while it does.
    excuses: Arc<AtomicU64>,
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
    /// Keys that one server showed older than another one had.
    pub across: Vec<String>,
}

impl VersionOracle {
    /// Begins to poll `keys`, hashes with the fields `version` (a whole number) and `doomed` (a boolean).
    pub fn watch(redis: &Redis, keys: impl IntoIterator<Item = String>) -> VersionOracle {
        VersionOracle::watch_all([redis], keys)
    }

    /// The same on several servers, of which the masters are asked; in a cluster the one that has a key's slot answers.
    pub fn watch_all<'a>(
        servers: impl IntoIterator<Item = &'a Redis>,
        keys: impl IntoIterator<Item = String>,
    ) -> VersionOracle {
        let keys: Vec<String> = keys.into_iter().collect();
        let server = |redis: &Redis| Server {
            client: redis.client(),
            connection: None,
            newest: vec![None; keys.len()],
        };
        let mut servers: Vec<Server> = servers.into_iter().map(server).collect();
        let (stop, excuses) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let stopped = Arc::clone(&stop);
        let mut poller = Poller {
            newest: vec![None; keys.len()],
            keys,
            excuses: Arc::clone(&excuses),
            watched: Watched::default(),
        };
        let thread = std::thread::spawn(move || {
            // The last round begins after the request to stop, so that what the writers left is seen too.
            while !stopped.load(Ordering::Acquire) {
                poller.round(&mut servers);
            }
            poller.round(&mut servers);
            poller.watched
        });
        VersionOracle {
            stop,
            excuses,
            thread,
        }
    }

    /// From now on a server may show an older version than another one has shown.
    ///
    /// # Panics
    /// If it may already.
    pub fn excuse(&self) {
        let times = self.excuses.fetch_add(1, Ordering::SeqCst);
        assert_eq!(times % 2, 0, "that is excused already");
    }

    /// From now on it may not, not even if the other one has shown it meanwhile.
    ///
    /// # Panics
    /// If nothing was excused.
    pub fn excuse_no_more(&self) {
        let times = self.excuses.fetch_add(1, Ordering::SeqCst);
        assert_eq!(times % 2, 1, "nothing is excused");
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
        let watched = self.assert_each_held();
        assert!(watched.across.is_empty(), "{:#?}", watched.across);
        watched
    }

    /// The same, where another server may show an older version at any time.
    ///
    /// # Panics
    /// If a key went back on one of them, or showed what was rolled back, or no key was ever seen to change.
    pub fn assert_each_held(self) -> Watched {
        let watched = self.stop();
        assert!(watched.violations.is_empty(), "{:#?}", watched.violations);
        assert!(watched.advances > 0, "no key was seen to change: {watched:?}");
        watched
    }
}

struct Poller {
    keys: Vec<String>,
    /// What any server has shown of each.
    newest: Vec<Option<i64>>,
    excuses: Arc<AtomicU64>,
    watched: Watched,
}

struct Server {
    client: redis::Client,
    connection: Option<redis::Connection>,
    /// What it has shown of each key since it was a replica.
    newest: Vec<Option<i64>>,
}

/// Version and doom of a key.
type Seen = (Option<i64>, Option<String>);

impl Server {
    /// What it holds of each key; `None` of a replica.
    fn read(&mut self, keys: &[String]) -> RedisResult<Option<Vec<Value>>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let connection = self.client.get_connection_with_timeout(PATIENCE)?;
                connection.set_read_timeout(Some(PATIENCE))?;
                none.insert(connection)
            }
        };
        let mut pipe = redis::pipe();
        pipe.cmd("ROLE");
        for key in keys {
            pipe.cmd("HMGET").arg(key).arg("version").arg("doomed");
        }
        let mut answers = connection.req_packed_commands(&pipe.get_packed_pipeline(), 0, keys.len() + 1)?;
        let held = answers.split_off(1);
        let role = match answers.pop() {
            Some(Value::Array(mut role)) if !role.is_empty() => role.swap_remove(0),
            _ => Value::Nil,
        };
        let is_master = redis::from_redis_value::<String>(role).is_ok_and(|role| role == "master");
        Ok(is_master.then_some(held))
    }
}

impl Poller {
    fn round(&mut self, servers: &mut [Server]) {
        let mut answered = false;
        for server in servers {
            let before = self.excuses.load(Ordering::SeqCst);
            let Ok(answers) = server.read(&self.keys) else {
                // The test is killing Redis: what it cannot say is not wrong.
                server.connection = None;
                continue;
            };
            answered = true;
            let Some(answers) = answers else {
                server.newest.fill(None);
                continue;
            };
            // What was read in a time that is excused may be judged after its end, and the other way round.
            let excused = before % 2 == 1 || self.excuses.load(Ordering::SeqCst) != before;
            for (at, answer) in answers.into_iter().enumerate() {
                // A node of a cluster that does not have the slot says so.
                if let Ok((Some(version), doomed)) = redis::from_redis_value::<Seen>(answer) {
                    self.see(at, version, doomed.as_deref() == Some("t"));
                    self.compare(at, version, &mut server.newest[at], excused);
                }
            }
        }
        if answered {
            self.watched.rounds += 1;
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn see(&mut self, at: usize, version: i64, doomed: bool) {
        self.watched.hits += 1;
        if doomed {
            let key = &self.keys[at];
            self.watched
                .violations
                .push(format!("{key} shows version {version}, which was rolled back"));
        }
    }

    /// With what this server, and any server, has shown.
    fn compare(&mut self, at: usize, version: i64, own: &mut Option<i64>, excused: bool) {
        let back = |newest: i64| format!("{} went back from version {newest} to {version}", self.keys[at]);
        match (*own, self.newest[at]) {
            (Some(newest), _) if version < newest => self.watched.violations.push(back(newest)),
            (_, Some(newest)) if version < newest && !excused => self.watched.across.push(back(newest)),
            _ => {}
        }
        *own = (*own).max(Some(version));
        if self.newest[at] < Some(version) {
            self.watched.advances += 1;
            self.newest[at] = Some(version);
        }
    }
}
