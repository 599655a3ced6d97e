//! The transaction buffer: what a transaction has changed, from the capture of a row to the commit.
//!
//! Ops are captured with the nest level of the subtransaction that wrote them (PostgreSQL's
//! GetCurrentTransactionNestLevel: 1 is the transaction itself). A level is opened when the first op
//! is captured in it, not when a savepoint is set. A subtransaction that aborts takes its ops with
//! it; one that commits hands them to its parent. In PRE_COMMIT [`TransactionBuffer::seal`] makes
//! of what is captured what is to be sent, a different type: nothing else reaches the ring (rule 1).
//!
//! The buffer never fails. Where it cannot keep an op, it keeps something weaker that is right as
//! well: the ladder goes from SET over DEL of the same key to a purge of the mapping. It steps down
//! with the mapping that takes most room, when the ops exceed the limit. A purge for ops that were
//! dropped is *sticky*: it outlives the subtransaction, as ops of an outer one may be among them. A
//! purge that was asked for (TRUNCATE, DDL) belongs to its subtransaction like any op.
//!
//! Not here: which rows changed, the callbacks of PostgreSQL, the append itself.

use super::{MAX_MAPPINGS, MappingSet};
use crate::ring::batch::{Op, Ops, TransactionHeader, set_committed_at, set_op_count};
use crate::ring::oplog::{OpLog, Position};
use crate::ring::{Reservation, Ring};

/// PostgreSQL's nest level of a transaction that is in no subtransaction.
pub const TOP_LEVEL: u32 = 1;

/// Memory that an idle buffer keeps, in bytes.
const KEPT_WHEN_IDLE: usize = 32 * 1024;

/// A subtransaction that has captured something.
#[derive(Debug)]
struct Level {
    nest: u32,
    start: Position,
    /// Purges asked for in it.
    purges: MappingSet,
}

/// See the module. One per backend; empty between transactions.
#[derive(Debug)]
pub struct TransactionBuffer {
    log: OpLog,
    /// Memory for the next header.
    header: Vec<u8>,
    /// Nest levels above the top one, ascending.
    levels: Vec<Level>,
    /// Purges asked for at the top level.
    purges: MappingSet,
    /// Mappings some of whose ops were dropped.
    sticky: MappingSet,
    /// Mappings that no longer keep values.
    deletes_only: MappingSet,
    /// Mappings of which anything was ever captured.
    captured: MappingSet,
    /// Bytes of ops at which the ladder begins.
    limit: usize,
}

impl TransactionBuffer {
    /// An empty buffer for at most `limit` bytes of ops.
    pub fn new(limit: usize) -> Self {
        TransactionBuffer {
            log: OpLog::default(),
            header: Vec::new(),
            levels: Vec::new(),
            purges: MappingSet::EMPTY,
            sticky: MappingSet::EMPTY,
            deletes_only: MappingSet::EMPTY,
            captured: MappingSet::EMPTY,
            limit,
        }
    }

    /// Sets the limit in bytes, from the next captured op on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Captures a SET at this nest level. `value` appends the value to the vector that it is given,
    /// about `value_len_hint` bytes; it is not called if the value would not be kept.
    pub fn capture_set(
        &mut self,
        nest: u32,
        mapping: u16,
        hash: u64,
        key: &[u8],
        value_len_hint: usize,
        value: impl FnOnce(&mut Vec<u8>),
    ) {
        // A value that alone is beyond the limit would push all others down the ladder.
        if self.deletes_only.contains(mapping) || value_len_hint > self.limit {
            return self.capture_del(nest, mapping, hash, key);
        }
        if !self.open(nest, mapping) {
            return;
        }
        if self
            .log
            .push_set(mapping, hash, key, value_len_hint, value)
            .is_err()
        {
            return self.capture_del(nest, mapping, hash, key);
        }
        self.keep_to_limit();
    }

    /// Captures a DEL at this nest level.
    pub fn capture_del(&mut self, nest: u32, mapping: u16, hash: u64, key: &[u8]) {
        if !self.open(nest, mapping) {
            return;
        }
        if self.log.push_del(mapping, hash, key).is_err() {
            return self.sticky.insert(mapping);
        }
        self.keep_to_limit();
    }

    /// Asks for a purge of the mapping at commit, unless this subtransaction aborts.
    pub fn purge(&mut self, nest: u32, mapping: u16) {
        self.captured.insert(mapping);
        if !self.enter(nest) {
            return self.sticky.insert(mapping);
        }
        match self.levels.last_mut() {
            Some(level) => level.purges.insert(mapping),
            None => self.purges.insert(mapping),
        }
    }

    /// Asks for a purge of the mapping that no subtransaction's abort takes back.
    pub fn purge_for_good(&mut self, mapping: u16) {
        self.captured.insert(mapping);
        self.sticky.insert(mapping);
    }

    /// The newest captured op, which is of this mapping, becomes a DEL. If it is no longer known
    /// which that was (the ladder has been at work since), the mapping's ops all do.
    pub fn turn_last_into_del(&mut self, mapping: u16) {
        // An op of a mapping that is purged was not kept: the newest one is another.
        if !self.is_purged(mapping) && !self.log.turn_last_into_del() {
            self.delete_only(mapping);
        }
    }

    /// A place for [`TransactionBuffer::contains_since`].
    pub fn position(&self) -> Position {
        self.log.position()
    }

    /// Whether an op of this key was captured since `position`; also yes if that cannot be told.
    pub fn contains_since(&self, position: Position, mapping: u16, hash: u64, key: &[u8]) -> bool {
        self.log.contains_since(position, mapping, hash, key)
    }

    /// Whether there is neither an op nor a purge.
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
            && self.purges.is_empty()
            && self.sticky.is_empty()
            && self.levels.iter().all(|level| level.purges.is_empty())
    }

    /// Whether the transaction has, or had before a rollback to a savepoint, changes of this
    /// mapping: it then fills nothing of it.
    pub fn touches(&self, mapping: u16) -> bool {
        self.captured.contains(mapping)
    }

    /// Bytes of captured ops.
    pub fn len_bytes(&self) -> usize {
        self.log.len_bytes()
    }

    fn is_purged(&self, mapping: u16) -> bool {
        self.sticky.contains(mapping)
            || self.purges.contains(mapping)
            || self.levels.iter().any(|level| level.purges.contains(mapping))
    }

    /// Makes `nest` the newest level, unless the mapping is to be purged anyway: then the op is not
    /// needed. (The purge is as safe from an abort as the op: it belongs to this level or an outer
    /// one.) False if the op is not to be captured.
    fn open(&mut self, nest: u32, mapping: u16) -> bool {
        self.captured.insert(mapping);
        if self.is_purged(mapping) {
            return false;
        }
        let opened = self.enter(nest);
        if !opened {
            self.sticky.insert(mapping);
        }
        opened
    }

    /// Makes `nest` the newest level. False if there is no memory for it.
    fn enter(&mut self, nest: u32) -> bool {
        self.settle_deeper_than(nest);
        let current = self.levels.last().map_or(TOP_LEVEL, |level| level.nest);
        if current >= nest {
            return true;
        }
        if self.levels.try_reserve(1).is_err() {
            return false;
        }
        let start = self.log.position();
        self.levels.push(Level {
            nest,
            start,
            purges: MappingSet::EMPTY,
        });
        true
    }

    /// Levels deeper than `nest` have ended, as PostgreSQL is back at it. Should one not have told
    /// us how, its changes may or may not be committed: DELs of its keys are right in both cases.
    fn settle_deeper_than(&mut self, nest: u32) {
        while let Some(level) = self.levels.pop_if(|level| level.nest > nest) {
            let marks = self.levels.iter_mut().map(|level| &mut level.start);
            self.log.to_deletes(level.start, marks, |_| true);
            self.sticky.union(&level.purges);
        }
    }

    /// COMMIT_SUB at this nest level: its ops and purges go to its parent.
    pub fn commit_sub(&mut self, nest: u32) {
        self.settle_deeper_than(nest);
        let Some(mut level) = self.levels.pop_if(|level| level.nest == nest) else {
            return;
        };
        let parent = nest.saturating_sub(1);
        match self.levels.last_mut() {
            Some(outer) if outer.nest == parent => outer.purges.union(&level.purges),
            _ if parent <= TOP_LEVEL => self.purges.union(&level.purges),
            _ => {
                // The parent has captured nothing itself: the level becomes the parent's. There is
                // room, one was just taken away.
                level.nest = parent;
                self.levels.push(level);
            }
        }
    }

    /// ABORT_SUB at this nest level: its ops and purges are gone.
    pub fn abort_sub(&mut self, nest: u32) {
        while let Some(level) = self.levels.pop_if(|level| level.nest >= nest) {
            if !self.log.truncate(level.start) {
                // Every rewrite moves the levels' places along, so this does not happen; if it did,
                // deleting what should be gone would still be right.
                self.delete_all();
            }
        }
    }

    /// ABORT: all is gone.
    pub fn abort(&mut self) {
        self.log.clear(KEPT_WHEN_IDLE);
        self.levels.clear();
        self.levels.shrink_to(16);
        self.purges = MappingSet::EMPTY;
        self.sticky = MappingSet::EMPTY;
        self.deletes_only = MappingSet::EMPTY;
        self.captured = MappingSet::EMPTY;
    }

    /// Takes the memory of what was sealed back for the next transaction.
    pub fn reclaim(&mut self, sealed: Sealed) {
        if self.log.is_empty() {
            self.log = sealed.ops;
            self.log.clear(KEPT_WHEN_IDLE);
        }
        self.header = sealed.header;
        self.header.clear();
        self.header.shrink_to(KEPT_WHEN_IDLE);
    }

    fn delete_all(&mut self) {
        let all = self.log.beginning();
        self.log
            .to_deletes(all, self.levels.iter_mut().map(|level| &mut level.start), |_| {
                true
            });
    }

    fn delete_only(&mut self, mapping: u16) {
        self.deletes_only.insert(mapping);
        let all = self.log.beginning();
        let marks = self.levels.iter_mut().map(|level| &mut level.start);
        self.log.to_deletes(all, marks, |of| of == mapping);
    }

    fn remove(&mut self, gone: &MappingSet) {
        let marks = self.levels.iter_mut().map(|level| &mut level.start);
        self.log.remove(marks, |mapping| gone.contains(mapping));
    }

    /// The ladder. It goes down to three quarters of the limit, so that it walks through the log
    /// only once in a quarter of the limit and not at each op.
    fn keep_to_limit(&mut self) {
        if self.log.len_bytes() <= self.limit {
            return;
        }
        let target = self.limit / 4 * 3;
        let newest = self
            .levels
            .last()
            .map_or_else(|| self.log.beginning(), |level| level.start);
        // If this fails for lack of memory the steps below do without.
        self.log
            .compact(newest, self.levels.iter_mut().map(|level| &mut level.start));
        while self.log.len_bytes() > target {
            let Some(largest) = self.largest_mapping() else {
                return;
            };
            if !self.deletes_only.contains(largest) {
                self.delete_only(largest);
                continue;
            }
            self.sticky.insert(largest);
            let mut gone = MappingSet::EMPTY;
            gone.insert(largest);
            self.remove(&gone);
        }
    }

    fn largest_mapping(&self) -> Option<u16> {
        let mut bytes = [0usize; MAX_MAPPINGS];
        for op in self.log.ops() {
            bytes[op.mapping as usize % MAX_MAPPINGS] += op.encoded_len();
        }
        let (mapping, bytes) = bytes.iter().enumerate().max_by_key(|(_, bytes)| **bytes)?;
        (*bytes > 0).then_some(mapping as u16)
    }

    /// PRE_COMMIT: what is to be sent once the transaction is visible. The buffer is empty after it.
    ///
    /// `xid` is the full top-level id, `s` the number taken by rule 2, and `epoch_of` tells the
    /// epoch of each mapping that may have ops. Memory that cannot be had turns ops into purges.
    pub fn seal(&mut self, xid: u64, s: u64, epoch_of: impl Fn(u16) -> u64) -> Sealed {
        self.settle_deeper_than(TOP_LEVEL);
        let all = self.log.beginning();
        if !self.log.compact(all, []) {
            // Values that the transaction itself has replaced must not be seen, not even shortly.
            self.delete_all();
        }
        let mut purges = self.purges;
        purges.union(&self.sticky);
        if !purges.is_empty() {
            self.remove(&purges);
        }
        // This may name a mapping whose ops were all rolled back, which costs the note of an epoch;
        // to look at every op again would cost more.
        let mut touched = if self.log.is_empty() {
            MappingSet::EMPTY
        } else {
            self.captured
        };
        touched.subtract(&purges);
        let mut sealed = Sealed {
            header: std::mem::take(&mut self.header),
            ops: std::mem::take(&mut self.log),
            touched,
            purges,
        };
        self.abort();
        let epochs = touched.iter().map(|mapping| (mapping, epoch_of(mapping)));
        let header = TransactionHeader {
            xid,
            s,
            ops: sealed.ops.count(),
            epochs: touched.len() as u16,
        };
        if !header.encode(&mut sealed.header, epochs) {
            sealed.give_up();
        }
        sealed
    }
}

/// How many bytes of a transaction's ops make an entry of the ring: the worker takes a large transaction in
/// pieces, so that it needs no memory of that size itself. Each op stands for itself: nothing in the rules
/// asks for the ops of a transaction to be taken together.
const PART: usize = 256 * 1024;

/// See [`Sealed::parts`].
struct Parts<'a>(&'a [u8]);

struct Part<'a> {
    bytes: &'a [u8],
    ops: u32,
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let (mut len, mut ops) = (0, 0);
        for op in Ops::new(self.0) {
            len += op.encoded_len();
            ops += 1;
            if len >= PART {
                break;
            }
        }
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        (ops > 0).then_some(Part { bytes, ops })
    }
}

/// What a committed transaction sends: at most one op per key, in the ring's encoding, and the
/// mappings that are to be purged for it.
///
/// If the ring refuses it: [`Sealed::to_deletes`], and if it still does, [`Sealed::give_up`].
#[derive(Debug)]
pub struct Sealed {
    header: Vec<u8>,
    ops: OpLog,
    touched: MappingSet,
    purges: MappingSet,
}

impl Sealed {
    /// Whether there is nothing to send and nothing to purge.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.purges.is_empty()
    }

    /// Bytes to reserve in the ring; 0 if there is no op and hence no entry.
    pub fn reservation_len(&self) -> usize {
        if self.ops.is_empty() {
            0
        } else if self.ops.len_bytes() <= PART {
            self.header.len() + self.ops.len_bytes()
        } else {
            Ring::reservation_len(self.parts().map(|part| self.header.len() + part.bytes.len()))
        }
    }

    /// Notes the time of the commit, in microseconds on the clock that the worker compares with.
    pub fn set_committed_at(&mut self, micros: i64) {
        set_committed_at(&mut self.header, micros);
    }

    /// The ops, [`PART`] bytes and an op at a time.
    fn parts(&self) -> Parts<'_> {
        Parts(self.ops.as_bytes())
    }

    /// Writes the ops into a reservation of [`Sealed::reservation_len`] bytes and publishes them, all at
    /// once. False if they went out as one empty entry because the length was another.
    pub fn publish(&mut self, mut reservation: Reservation) -> bool {
        let mut header = std::mem::take(&mut self.header);
        let mut is_first = true;
        for part in self.parts() {
            if !std::mem::take(&mut is_first) {
                reservation.end_entry();
            }
            set_op_count(&mut header, part.ops);
            reservation.write(&header);
            reservation.write(part.bytes);
        }
        self.header = header;
        reservation.publish()
    }

    /// The ops, oldest first.
    pub fn ops(&self) -> impl Iterator<Item = Op<'_>> {
        self.ops.ops()
    }

    /// The mappings that have ops, and maybe some whose ops were rolled back.
    pub fn touched(&self) -> &MappingSet {
        &self.touched
    }

    /// The mappings to be declared lost (rule 6) in the hold of the ring's lock in which the entry
    /// is appended; none of them has ops.
    pub fn purges(&self) -> &MappingSet {
        &self.purges
    }

    /// A step down the ladder: the values are dropped, the keys deleted. True if it is shorter now.
    pub fn to_deletes(&mut self) -> bool {
        let before = self.ops.len_bytes();
        self.ops.to_deletes(self.ops.beginning(), [], |_| true);
        self.ops.len_bytes() < before
    }

    /// The last step: no ops, a purge of every mapping that had some.
    pub fn give_up(&mut self) {
        self.purges.union(&self.touched);
        self.drop_ops();
    }

    /// Purges these mappings too, whose ops are then not needed: the transaction found out that
    /// they are incomplete, or that it and the worker do not mean the same by them.
    pub fn purge(&mut self, mappings: &MappingSet) {
        self.purges.union(mappings);
        self.touched.subtract(mappings);
        self.ops.remove([], |mapping| mappings.contains(mapping));
    }

    fn drop_ops(&mut self) {
        self.ops.clear(0);
        self.touched = MappingSet::EMPTY;
        self.header.clear();
    }
}

#[cfg(test)]
mod tests;
