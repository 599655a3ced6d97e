//! `verify`: whether what Redis holds is what the table says.
//!
//! Keys are taken in windows: what Redis holds for them is read, then their rows, and what differs is looked at
//! again, because a commit may be on its way. A difference is reported only if it is **certain**:
//!
//! 1. the slot's version and the mapping's epoch are noted, and the row is read under a new snapshot;
//! 2. all that was committed until then of this mapping gets into Redis ([`queue::caught_up`]);
//! 3. Redis is read, and then the row under another new snapshot;
//! 4. all that was committed until then of this mapping is taken off the ring, too;
//! 5. the row is the same in both snapshots, version and epoch have not moved, and Redis still differs.
//!
//! Between 2 and 3 Redis may hold the row as of any moment since 1, and it was the same row all the time: a change
//! that is captured moves the version when the worker takes it, which it has by 4, and an insert that is not
//! captured makes a row where there was none. What moves is tried again, some times: a key that is changed faster
//! than that cannot be judged, and is not reported.
//!
//! An expiry is set by a command of its own behind the value's, and a reader can see the one without the other.
//! So a difference in it has to be seen several times.
//!
//! Memory: a window's keys, values and rows. Windows get smaller where values are large.
mod candidates;
mod lookup;

use std::{collections::VecDeque, mem, time::Duration};

use pg_redis_cache_core::encode::{
    difference::{self, Expected, Held, printable},
    key::key_hash,
    value::Value,
};
use pgrx::{JsonB, PgSqlErrorCode, prelude::*};
use rustc_hash::FxHashSet;

use super::{
    client::Connection,
    keys, queue, raise,
    rows::{Settings, Target},
    shared,
};
use crate::shared::{Phase, Progress, Shared};
use candidates::{Candidate, Candidates};
use lookup::{Lookup, Values, WINDOW};

/// The first window. It then grows to [`WINDOW`], or shrinks, so that its values take about this many bytes.
const FIRST_WINDOW: usize = 32;
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// How often a key that differs is looked at again while it changes.
const ROUNDS: u32 = 30;
/// How often a difference in the expiry has to be seen.
const EXPIRY_ROUNDS: u32 = 3;
/// How long Redis may take to have what was committed.
const PATIENCE: Duration = Duration::from_secs(30);
/// SCAN may return a key twice. So many that were reported are remembered, so as not to report them again.
const REMEMBERED: usize = 1 << 16;

type Report = (String, String, Option<JsonB>, Option<JsonB>);

/// Compares what Redis holds for a mapping with its table, a row for each key that differs. With `sample` at most
/// that many keys, picked at random.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity)] // the row of a table
fn verify(
    mapping: Option<&str>,
    sample: default!(Option<i64>, "NULL"),
) -> TableIterator<
    'static,
    (
        name!(key, String),
        name!(problem, String),
        name!(in_postgres, Option<JsonB>),
        name!(in_redis, Option<JsonB>),
    ),
> {
    let shared = shared();
    let mapping = super::given(mapping);
    let sample = sample.map(|wanted| {
        u64::try_from(wanted)
            .ok()
            .filter(|wanted| *wanted > 0)
            .unwrap_or_else(|| {
                raise(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    "the sample of redis_cache.verify is not a number of keys",
                    format!("It is {wanted}."),
                    "Give a number above 0, or none for all keys.",
                )
            })
    });
    TableIterator::new(Verification::begin(shared, mapping, sample))
}

/// A difference that is not certain yet.
struct Suspect {
    candidate: Candidate,
    /// How often it has been seen for certain.
    seen: u32,
}

/// What is still to be compared, and what has been found.
struct Verification {
    shared: Shared,
    target: Target,
    lookup: Lookup,
    redis: Connection,
    candidates: Candidates,
    window: usize,
    found: VecDeque<Report>,
    reported: FxHashSet<u64>,
    done: u64,
    progress: Progress,
}

impl Iterator for Verification {
    type Item = Report;

    fn next(&mut self) -> Option<Report> {
        loop {
            if let Some(report) = self.found.pop_front() {
                return Some(report);
            }
            if !self.compare_window() {
                return None;
            }
        }
    }
}

/// A key as it was seen: what Redis holds, and for how long.
type Seen = (Held, i64);

/// What makes a look at a key certain: version and epoch (rules 3 and 6).
type Ticket = (u64, u64);

impl Verification {
    fn begin(shared: Shared, mapping: &str, sample: Option<u64>) -> Self {
        let target = Target::open(shared, mapping, "verify");
        let _settings = Settings::set();
        let progress = Progress::begin(shared, target.mapping.index, Phase::Counting);
        let lookup = Lookup::new(&target);
        let mut redis = Connection::open(target.mapping.definition.effective_server());
        let candidates = Candidates::new(shared, &target.mapping, &mut redis, sample);
        progress.phase(Phase::Comparing);
        Self {
            shared,
            target,
            lookup,
            redis,
            candidates,
            window: FIRST_WINDOW,
            found: VecDeque::new(),
            reported: FxHashSet::default(),
            done: 0,
            progress,
        }
    }

    /// Compares the next keys; false if there are none.
    fn compare_window(&mut self) -> bool {
        pgrx::check_for_interrupts!();
        let _settings = Settings::set();
        self.target.check(self.shared);
        let window = self.candidates.take(&mut self.redis, self.window);
        if window.is_empty() {
            return false;
        }
        let count = window.len() as u64;
        let seen = self.look(window.iter());
        let rows = self.rows(window.iter());
        self.fit_window(&seen, &rows);
        let suspects: Vec<Suspect> = window
            .into_iter()
            .zip(&seen)
            .filter(|(candidate, seen)| self.problem(candidate, &rows, seen).is_some())
            .map(|(candidate, _)| Suspect { candidate, seen: 0 })
            .collect();
        if !suspects.is_empty() {
            self.progress.phase(Phase::Confirming);
            self.confirm(suspects);
            self.progress.phase(Phase::Comparing);
        }
        self.done += count;
        let left = self.candidates.left();
        self.progress
            .at(self.done, left.map_or(0, |left| self.done + left));
        true
    }

    fn look<'a>(&mut self, keys: impl Iterator<Item = &'a Candidate>) -> Vec<Seen> {
        let keys: Vec<&[u8]> = keys.map(Candidate::key).collect();
        self.redis.held(self.target.mapping.definition.format, &keys)
    }

    fn rows<'a>(&self, keys: impl Iterator<Item = &'a Candidate>) -> Values {
        self.lookup
            .rows(keys.filter(|candidate| candidate.is_own()).map(Candidate::key))
    }

    fn fit_window(&mut self, seen: &[Seen], rows: &Values) {
        let in_redis: usize = seen.iter().map(|(held, _)| size(held)).sum();
        let in_postgres: usize = rows.values().flatten().map(Vec::len).sum();
        let bytes = in_redis.max(in_postgres);
        self.window = if bytes > WINDOW_BYTES {
            (self.window / 2).max(1)
        } else if bytes < WINDOW_BYTES / 4 {
            (self.window * 2).min(WINDOW)
        } else {
            self.window
        };
    }

    /// What is wrong with a key, and whether it can be only half of a write.
    fn problem(&self, candidate: &Candidate, rows: &Values, (held, left): &Seen) -> Option<(String, bool)> {
        if *held == Held::Nothing {
            return None;
        }
        let definition = &self.target.mapping.definition;
        if !candidate.is_own() {
            return Some(("not a key of this mapping".to_owned(), false));
        }
        let expected = expected(rows, candidate.key());
        if let Some(problem) = difference::difference(definition.format, expected, held) {
            return Some((problem, false));
        }
        let ttl = definition.ttl.map(|seconds| seconds.get());
        difference::expiry_difference(ttl, *left).map(|problem| (problem.to_owned(), true))
    }

    /// Looks at differences until each is certain or gone.
    fn confirm(&mut self, mut suspects: Vec<Suspect>) {
        for _ in 0..ROUNDS {
            if suspects.is_empty() {
                return;
            }
            pgrx::check_for_interrupts!();
            suspects = self.look_again(suspects);
        }
    }

    /// One look at each; those that neither is certain nor gone stay.
    fn look_again(&mut self, mut suspects: Vec<Suspect>) -> Vec<Suspect> {
        let keys = |suspects: &[Suspect]| -> Vec<u64> {
            suspects
                .iter()
                .map(|suspect| key_hash(suspect.candidate.key()))
                .collect()
        };
        let hashes = keys(&suspects);
        let before: Vec<Ticket> = hashes.iter().map(|hash| self.ticket(*hash)).collect();
        let candidates = || suspects.iter().map(|suspect| &suspect.candidate);
        let first = self.rows(candidates());
        self.catch_up();
        let seen = self.look(candidates());
        let second = self.rows(candidates());
        self.catch_up();
        self.target.check(self.shared);
        let mut unsettled = Vec::new();
        for (index, mut suspect) in mem::take(&mut suspects).into_iter().enumerate() {
            let key = suspect.candidate.key();
            let Some((problem, halfway)) = self.problem(&suspect.candidate, &second, &seen[index]) else {
                continue;
            };
            let stands = first.get(key) == second.get(key) && self.ticket(hashes[index]) == before[index];
            if suspect.candidate.is_own() && !stands {
                suspect.seen = 0;
                unsettled.push(suspect);
                continue;
            }
            suspect.seen += 1;
            if halfway && suspect.seen < EXPIRY_ROUNDS {
                unsettled.push(suspect);
            } else {
                self.report(key, problem, &second, &seen[index].0);
            }
        }
        unsettled
    }

    fn ticket(&self, hash: u64) -> Ticket {
        (
            self.shared.slots().note(hash),
            self.shared.gates().note(self.target.mapping.index),
        )
    }

    fn catch_up(&self) {
        if !queue::caught_up(self.shared, Some(self.target.mapping.index), PATIENCE) {
            raise(
                PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
                "Redis does not get what is committed",
                format!("It has not within {} seconds.", PATIENCE.as_secs()),
                "See redis_cache.status for what holds it up.",
            );
        }
    }

    fn report(&mut self, key: &[u8], problem: String, rows: &Values, held: &Held) {
        let hash = key_hash(key);
        if self.reported.contains(&hash) {
            return;
        }
        if self.reported.len() < REMEMBERED {
            self.reported.insert(hash);
        }
        let format = self.target.mapping.definition.format;
        let in_postgres = match expected(rows, key) {
            Expected::Value(Value::Hash(hash)) => Some(keys::object(hash.fields())),
            Expected::Value(Value::Text(text)) => Some(keys::document(format, text)),
            Expected::NoRow | Expected::NothingToStore => None,
        };
        let in_redis = match held {
            Held::Hash(fields) => Some(keys::object(
                fields.iter().map(|(name, value)| (&name[..], &value[..])),
            )),
            Held::Text(text) => Some(keys::document(format, text)),
            Held::Nothing | Held::Other(_) => None,
        };
        self.found
            .push_back((printable(key), problem, in_postgres, in_redis));
    }
}

fn expected<'a>(rows: &'a Values, key: &[u8]) -> Expected<'a> {
    match rows.get(key) {
        None => Expected::NoRow,
        Some(None) => Expected::NothingToStore,
        // What has just been encoded decodes.
        Some(Some(value)) => Value::decode(value).map_or(Expected::NothingToStore, Expected::Value),
    }
}

fn size(held: &Held) -> usize {
    match held {
        Held::Hash(fields) => fields.iter().map(|(name, value)| name.len() + value.len()).sum(),
        Held::Text(text) => text.len(),
        Held::Nothing | Held::Other(_) => 0,
    }
}
