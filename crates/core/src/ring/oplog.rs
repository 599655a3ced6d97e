//! The ops of a transaction while it runs: one byte arena, each op in the form in which it goes to
//! the ring, so that a commit copies and does not encode.
//!
//! Guarantees: no call panics, and what cannot be stored for lack of memory is reported, with the
//! log as it was before. Rewriting (a compaction, a step down the ladder) happens in place.
//!
//! Not here: which ops survive which subtransaction, and the limits; see
//! [`crate::coherence::transaction`].

use super::batch::{Kind, OP_HEADER, Op, Ops, op_header};
use super::duplicates::superseded;

/// Bytes that the first op allocates.
const FIRST_ROOM: usize = 1024;

/// A place in the log, between two ops.
///
/// A rewrite moves the places that are handed to it and leaves all others stale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    bytes: usize,
    ops: u32,
    rewrites: u64,
}

/// The log did not take an op: memory is short, or a length or the number of ops is beyond the
/// format's 2^32 - 1. The log is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotLogged {
    /// Bytes that key and value would have taken, as far as they were known.
    pub required: usize,
}

/// What a rewrite does with one op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rewrite {
    Keep,
    /// Turn it into a DEL, without a value.
    Delete,
    Drop,
}

/// See the module.
#[derive(Debug, Default)]
pub struct OpLog {
    bytes: Vec<u8>,
    ops: u32,
    /// Where the newest op starts, unless it has been truncated or rewritten since.
    last: Option<usize>,
    rewrites: u64,
}

impl OpLog {
    /// Appends a SET whose value `value` appends to the vector that it is given (and does nothing
    /// else with it). `value_len_hint` bytes are reserved in a way that may fail; beyond them the
    /// vector grows as vectors do.
    pub fn push_set(
        &mut self,
        mapping: u16,
        hash: u64,
        key: &[u8],
        value_len_hint: usize,
        value: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), NotLogged> {
        let start = self.begin(mapping, Kind::Set, hash, key, value_len_hint)?;
        let value_at = self.bytes.len();
        value(&mut self.bytes);
        let len = self.bytes.len().saturating_sub(value_at);
        match u32::try_from(len) {
            Ok(len) => self.bytes[start + 12..start + 16].copy_from_slice(&len.to_le_bytes()),
            Err(_) => {
                self.bytes.truncate(start);
                return Err(NotLogged { required: len });
            }
        }
        self.finish(start);
        Ok(())
    }

    /// Appends a DEL.
    pub fn push_del(&mut self, mapping: u16, hash: u64, key: &[u8]) -> Result<(), NotLogged> {
        let start = self.begin(mapping, Kind::Del, hash, key, 0)?;
        self.finish(start);
        Ok(())
    }

    /// Writes an op's header, with no value length yet, and its key. Returns where it starts.
    fn begin(
        &mut self,
        mapping: u16,
        kind: Kind,
        hash: u64,
        key: &[u8],
        value_len: usize,
    ) -> Result<usize, NotLogged> {
        let required = key.len().saturating_add(value_len);
        let refused = NotLogged { required };
        let key_len = u32::try_from(key.len()).map_err(|_| refused)?;
        if self.ops == u32::MAX {
            return Err(refused);
        }
        let room = required.saturating_add(OP_HEADER);
        // The first op makes room for a few: most transactions have no more.
        let room = if self.bytes.capacity() == 0 {
            room.max(FIRST_ROOM)
        } else {
            room
        };
        self.bytes.try_reserve(room).map_err(|_| refused)?;
        let start = self.bytes.len();
        self.bytes
            .extend_from_slice(&op_header(mapping, kind, hash, key_len, 0));
        self.bytes.extend_from_slice(key);
        Ok(start)
    }

    fn finish(&mut self, start: usize) {
        self.last = Some(start);
        self.ops += 1;
    }

    /// Turns the newest op into a DEL and drops its value. False if the log no longer knows which
    /// op that is (none was pushed since the last truncation or rewrite).
    pub fn turn_last_into_del(&mut self) -> bool {
        let Some(start) = self.last else { return false };
        let Some(op) = Ops::new(&self.bytes[start..]).next() else {
            return false;
        };
        let end = start + OP_HEADER + op.key.len();
        self.set_header(
            start,
            op_header(op.mapping, Kind::Del, op.hash, op.key.len() as u32, 0),
        );
        self.bytes.truncate(end);
        true
    }

    fn set_header(&mut self, at: usize, header: [u8; OP_HEADER]) {
        self.bytes[at..at + OP_HEADER].copy_from_slice(&header);
    }

    /// The ops in their encoded form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of all ops.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of ops.
    pub fn count(&self) -> u32 {
        self.ops
    }

    /// Whether the log holds no op.
    pub fn is_empty(&self) -> bool {
        self.ops == 0
    }

    /// The place behind the newest op.
    pub fn position(&self) -> Position {
        Position {
            bytes: self.bytes.len(),
            ops: self.ops,
            rewrites: self.rewrites,
        }
    }

    /// The log's beginning, as a place that is valid now.
    pub fn beginning(&self) -> Position {
        Position {
            bytes: 0,
            ops: 0,
            rewrites: self.rewrites,
        }
    }

    fn is_current(&self, position: Position) -> bool {
        position.rewrites == self.rewrites && position.bytes <= self.bytes.len()
    }

    /// Drops the ops behind `position`. False, and nothing dropped, if the place is stale.
    #[must_use]
    pub fn truncate(&mut self, position: Position) -> bool {
        if !self.is_current(position) {
            return false;
        }
        if position.bytes < self.bytes.len() {
            self.bytes.truncate(position.bytes);
            self.ops = position.ops;
            self.last = None;
        }
        true
    }

    /// The ops behind `position`, or `None` if the place is stale.
    pub fn ops_since(&self, position: Position) -> Option<Ops<'_>> {
        self.is_current(position)
            .then(|| Ops::new(&self.bytes[position.bytes..]))
    }

    /// All ops, oldest first.
    pub fn ops(&self) -> Ops<'_> {
        Ops::new(&self.bytes)
    }

    /// Whether an op of this key stands behind `position`. Of a stale place the log says yes: the
    /// caller then deletes, which is always right.
    pub fn contains_since(&self, position: Position, mapping: u16, hash: u64, key: &[u8]) -> bool {
        let Some(mut ops) = self.ops_since(position) else {
            return true;
        };
        ops.any(|op| op.hash == hash && op.mapping == mapping && op.key == key)
    }

    /// Keeps of the ops behind `from` only the last one of each key. `marks` are the places to be
    /// kept valid, in ascending order. None is behind `from`: an op must not replace one of an
    /// outer subtransaction, which may outlive it.
    ///
    /// Returns false, with the log unchanged, if memory for the search is short.
    pub fn compact<'m>(&mut self, from: Position, marks: impl IntoIterator<Item = &'m mut Position>) -> bool {
        let Some(ops) = self.ops_since(from) else {
            return false;
        };
        let Some(superseded) = superseded(ops, (self.ops - from.ops) as usize) else {
            return false;
        };
        if !superseded.is_empty() {
            let mut places = 0..;
            self.rewrite(from, marks, |_| match places.next() {
                Some(place) if superseded.contains(place) => Rewrite::Drop,
                _ => Rewrite::Keep,
            });
        }
        true
    }

    /// The ladder's first step: the ops behind `from` that `of` names become DELs of the same keys.
    pub fn to_deletes<'m>(
        &mut self,
        from: Position,
        marks: impl IntoIterator<Item = &'m mut Position>,
        of: impl Fn(u16) -> bool,
    ) {
        self.rewrite(from, marks, |op| {
            if of(op.mapping) {
                Rewrite::Delete
            } else {
                Rewrite::Keep
            }
        });
    }

    /// The ladder's second step: drops the ops of the mappings that `of` names. The caller purges
    /// them instead.
    pub fn remove<'m>(
        &mut self,
        marks: impl IntoIterator<Item = &'m mut Position>,
        of: impl Fn(u16) -> bool,
    ) {
        let all = self.beginning();
        self.rewrite(all, marks, |op| {
            if of(op.mapping) {
                Rewrite::Drop
            } else {
                Rewrite::Keep
            }
        });
    }

    /// Rewrites the ops behind `from` in place. `marks`, which ascend, are moved along; every other
    /// place is stale afterwards. Nothing is done if `from` is stale.
    fn rewrite<'m>(
        &mut self,
        from: Position,
        marks: impl IntoIterator<Item = &'m mut Position>,
        mut decide: impl FnMut(&Op<'_>) -> Rewrite,
    ) {
        if !self.is_current(from) {
            return;
        }
        self.rewrites += 1;
        self.last = None;
        let mut marks = marks.into_iter().peekable();
        while let Some(mark) = marks.next_if(|mark| mark.bytes < from.bytes) {
            mark.rewrites = self.rewrites;
        }
        let (mut read, mut write, mut ops) = (from.bytes, from.bytes, from.ops);
        while let Some(op) = Ops::new(&self.bytes[read..]).next() {
            while let Some(mark) = marks.next_if(|mark| mark.bytes <= read) {
                *mark = Position {
                    bytes: write,
                    ops,
                    rewrites: self.rewrites,
                };
            }
            let (size, kept) = (op.encoded_len(), OP_HEADER + op.key.len());
            let as_del = op_header(op.mapping, Kind::Del, op.hash, op.key.len() as u32, 0);
            match decide(&op) {
                Rewrite::Keep => {
                    if write < read {
                        self.bytes.copy_within(read..read + size, write);
                    }
                    (write, ops) = (write + size, ops + 1);
                }
                Rewrite::Delete => {
                    self.bytes.copy_within(read..read + kept, write);
                    self.set_header(write, as_del);
                    (write, ops) = (write + kept, ops + 1);
                }
                Rewrite::Drop => {}
            }
            read += size;
        }
        for mark in marks {
            *mark = Position {
                bytes: write,
                ops,
                rewrites: self.rewrites,
            };
        }
        self.bytes.truncate(write);
        self.ops = ops;
    }

    /// Forgets all ops. The memory is kept if it is at most `keep` bytes.
    pub fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(keep);
        self.ops = 0;
        self.last = None;
        self.rewrites += 1;
    }
}

#[cfg(test)]
mod tests;
