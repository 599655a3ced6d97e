//! A chunk: operations on keys in the order of the ring, acknowledged as one.
//!
//! Keys and values are copied once, into one buffer; operations name them by ranges that only this
//! file makes, so they always lie within it.

use std::num::NonZeroU64;
use std::ops::Range;

/// What the sender gives an operation or a question to recognise the answer by.
pub type Ticket = u64;

/// Takes the stored form of a hash apart: calls the second argument with each field's name and text,
/// and returns whether every column of the mapping is among them (no column is NULL). `None`: the
/// bytes are not such a form, and what has been passed on until then does not count.
pub type HashFields = for<'a> fn(&'a [u8], &mut dyn FnMut(&'a [u8], &'a [u8])) -> Option<bool>;

/// How long Redis keeps a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Until it is deleted.
    Never,
    /// For this many milliseconds from when Redis stores it.
    Milliseconds(NonZeroU64),
}

/// How a value lies in the chunk and in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The text itself, stored as a string.
    Text,
    /// What [`HashFields`] takes apart, stored as a hash.
    Hash,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Store {
        value: Range<usize>,
        form: Form,
        expiry: Expiry,
    },
    Delete {
        answer: Option<Ticket>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Op {
    pub mapping: u16,
    pub is_fill: bool,
    pub hash: u64,
    key: Range<usize>,
    pub action: Action,
}

/// Operations that are acknowledged together.
///
/// Within a chunk and between chunks, the operations of one key keep their order; different keys go
/// to Redis in any order.
#[derive(Debug)]
pub struct Chunk {
    id: u64,
    bytes: Vec<u8>,
    ops: Vec<Op>,
}

impl Chunk {
    /// An empty chunk, with room for about this many operations and bytes of keys and values.
    pub fn with_capacity(id: u64, ops: usize, bytes: usize) -> Self {
        Self {
            id,
            bytes: Vec::with_capacity(bytes),
            ops: Vec::with_capacity(ops),
        }
    }

    /// Adds the storing of `text` as a string. `hash` is the key's, the same one in each operation of
    /// the key: it picks the lane. A fill (`is_fill`) is dropped where a write would be sent again.
    pub fn store_text(&mut self, op: Target<'_>, text: &[u8], expiry: Expiry, is_fill: bool) {
        self.store(op, text, Form::Text, expiry, is_fill);
    }

    /// Adds the storing of a hash, given in the form that [`HashFields`] reads. A hash without a field
    /// is the deletion of the key.
    pub fn store_hash(&mut self, op: Target<'_>, fields: &[u8], expiry: Expiry, is_fill: bool) {
        self.store(op, fields, Form::Hash, expiry, is_fill);
    }

    /// Adds the deletion of a key. With a ticket, the number of keys deleted (0 or 1) comes back as
    /// [`Event::Answer`](super::Event::Answer).
    pub fn delete(&mut self, op: Target<'_>, answer: Option<Ticket>) {
        self.push(op, Action::Delete { answer }, false);
    }

    fn store(&mut self, op: Target<'_>, value: &[u8], form: Form, expiry: Expiry, is_fill: bool) {
        let value = self.append(value);
        self.push(op, Action::Store { value, form, expiry }, is_fill);
    }

    fn push(&mut self, op: Target<'_>, action: Action, is_fill: bool) {
        let key = self.append(op.key);
        self.ops.push(Op {
            mapping: op.mapping,
            is_fill,
            hash: op.hash,
            key,
            action,
        });
    }

    fn append(&mut self, part: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(part);
        start..self.bytes.len()
    }

    /// What [`Event::Acknowledged`](super::Event::Acknowledged) will name.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is no operation in it.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of keys and values.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The tickets of its operations, for a chunk that is not sent after all.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.ops.iter().filter_map(|op| match op.action {
            Action::Delete { answer } => answer,
            Action::Store { .. } => None,
        })
    }

    pub(super) fn ops(&self) -> &[Op] {
        &self.ops
    }

    pub(super) fn key(&self, op: &Op) -> &[u8] {
        &self.bytes[op.key.clone()]
    }

    pub(super) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }
}

/// The key that an operation is about.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The mapping that the key belongs to: losses and counts are reported by it.
    pub mapping: u16,
    /// The key's hash.
    pub hash: u64,
    /// The key as Redis knows it.
    pub key: &'a [u8],
}
