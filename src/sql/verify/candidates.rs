//! The keys that are looked at: those that match a mapping's pattern, or a sample of them.
//!
//! SCAN returns each key that is there for the whole scan, at least once; no more than a step of it is held in
//! memory. It has no random start, so a sample takes two scans: the first counts, the second takes each key with
//! the probability that is needed to end with the wanted number (Knuth, The Art of Computer Programming, volume 2,
//! 3.4.2, algorithm S). Keys that come or go between the two make the sample a little smaller, never larger.
use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
};

use pg_redis_cache_core::{
    config::{KeyTemplate, RESERVED_PREFIX},
    encode::key::KeyKind,
};

use super::super::client::Connection;
use crate::{capture::relations::ActiveMapping, shared::Shared};

/// How many keys of the database one SCAN looks at.
const STEP: usize = 1000;

/// A key to be looked at.
pub enum Candidate {
    /// One of the mapping's keys.
    Own(Vec<u8>),
    /// One that begins and ends as the mapping's keys do, and is none of any mapping.
    Foreign(Vec<u8>),
}

impl Candidate {
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Own(key) | Self::Foreign(key) => key,
        }
    }

    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

/// Whose key a key is.
struct Sorter {
    template: KeyTemplate,
    kinds: Vec<KeyKind>,
    others: Vec<(KeyTemplate, Vec<KeyKind>)>,
}

impl Sorter {
    fn new(shared: Shared, mapping: &ActiveMapping) -> Self {
        let others = shared
            .occupied()
            .filter(|other| *other != mapping.index)
            .filter_map(|other| Some((shared.template(other)?, shared.kinds(other)?)));
        Self {
            template: mapping.definition.template.clone(),
            kinds: mapping.kinds.clone(),
            others: others.collect(),
        }
    }

    fn sort(&self, key: Vec<u8>) -> Option<Candidate> {
        if self.template.is_key(&key, &self.kinds) {
            return Some(Candidate::Own(key));
        }
        let is_others = |(template, kinds): &(KeyTemplate, Vec<KeyKind>)| template.is_key(&key, kinds);
        let taken = key.starts_with(RESERVED_PREFIX.as_bytes()) || self.others.iter().any(is_others);
        (!taken).then_some(Candidate::Foreign(key))
    }
}

/// What is still to be picked.
struct Sample {
    wanted: u64,
    left: u64,
    hasher: RandomState,
}

impl Sample {
    /// Whether the next key is one of the sample.
    fn takes(&mut self) -> bool {
        let left = self.left.max(1);
        // 64 random bits scaled to 0..left; seeded by the system.
        let roll = ((u128::from(self.hasher.hash_one(self.left)) * u128::from(left)) >> 64) as u64;
        let taken = self.wanted > 0 && roll < self.wanted;
        self.wanted -= u64::from(taken);
        self.left = self.left.saturating_sub(1);
        taken
    }
}

/// A scan that goes on as candidates are taken.
pub struct Candidates {
    sorter: Sorter,
    pattern: Vec<u8>,
    /// `None` when all has been seen.
    cursor: Option<Vec<u8>>,
    waiting: VecDeque<Candidate>,
    sample: Option<Sample>,
}

impl Candidates {
    /// All of a mapping, or as many of them as `sample` says.
    pub fn new(shared: Shared, mapping: &ActiveMapping, redis: &mut Connection, sample: Option<u64>) -> Self {
        let mut all = Self {
            sorter: Sorter::new(shared, mapping),
            pattern: mapping.definition.template.glob(),
            cursor: Some(b"0".to_vec()),
            waiting: VecDeque::new(),
            sample: None,
        };
        if let Some(wanted) = sample {
            all.sample = Some(Sample {
                wanted,
                left: all.count(redis),
                hasher: RandomState::new(),
            });
        }
        all
    }

    /// Scans everything once, and begins again.
    fn count(&mut self, redis: &mut Connection) -> u64 {
        let mut count = 0;
        while self.step(redis) {
            count += self.waiting.len() as u64;
            self.waiting.clear();
        }
        self.cursor = Some(b"0".to_vec());
        count
    }

    /// How many keys the sample still wants, and there are; none without a sample.
    pub fn left(&self) -> Option<u64> {
        self.sample.as_ref().map(|sample| sample.wanted.min(sample.left))
    }

    /// The next ones, at most `most`; none when all have been seen.
    pub fn take(&mut self, redis: &mut Connection, most: usize) -> Vec<Candidate> {
        while self.waiting.len() < most && self.step(redis) {}
        let taken = self.waiting.len().min(most);
        self.waiting.drain(..taken).collect()
    }

    /// One SCAN; false if there is nothing more to scan.
    fn step(&mut self, redis: &mut Connection) -> bool {
        pgrx::check_for_interrupts!();
        let is_enough = self.sample.as_ref().is_some_and(|sample| sample.wanted == 0);
        let Some(cursor) = self.cursor.take().filter(|_| !is_enough) else {
            return false;
        };
        let (next, keys) = redis.scan(&cursor, &self.pattern, STEP);
        self.cursor = (next != b"0").then_some(next);
        for candidate in keys.into_iter().filter_map(|key| self.sorter.sort(key)) {
            if self.sample.as_mut().is_none_or(Sample::takes) {
                self.waiting.push_back(candidate);
            }
        }
        true
    }
}
