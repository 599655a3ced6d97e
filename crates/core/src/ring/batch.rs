//! What an entry of the ring holds, and its encoding: little endian, no padding.
//!
//! | entry | bytes |
//! | --- | --- |
//! | transaction | `1`, xid u64, s u64, committed_at i64, ops u32, epochs u16, then per epoch mapping u16, epoch u64, then the ops |
//! | — op | hash u64, key length u32, value length u32, mapping u16, kind u8, key, value |
//! | fills | `2`, s u64, xmin u64, xmax u64, fills u32, then the fills |
//! | — fill | hash u64, version u64, epoch u64, key length u32, value length u32, mapping u16, key, value |
//! | invalidation | `3`, mapping u16, hash u64, reply u32, ticket u64, key |
//!
//! [`decode`] walks an entry once and borrows from it. It accepts an entry whole or not at all, so
//! that nobody applies half a transaction, and never panics whatever the bytes are. Keys and values
//! are opaque here.

use std::fmt;

const TRANSACTION: u8 = 1;
const FILLS: u8 = 2;
const INVALIDATE: u8 = 3;

/// Bytes of an op in front of its key and value.
pub const OP_HEADER: usize = 8 + 4 + 4 + 2 + 1;
/// Bytes of a fill in front of its key and value.
pub const FILL_HEADER: usize = 8 + 8 + 8 + 4 + 4 + 2;
/// Where a transaction's commit time stands: it is known only after the rest is encoded.
const COMMITTED_AT: usize = 1 + 8 + 8;
const TRANSACTION_HEADER: usize = COMMITTED_AT + 8 + 4 + 2;
const EPOCH: usize = 2 + 8;
const FILLS_HEADER: usize = 1 + 8 + 8 + 8 + 4;
const INVALIDATE_HEADER: usize = 1 + 2 + 8 + 4 + 8;

/// Why an entry cannot be read. Offsets are in bytes from the entry's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The entry has no bytes: its producer gave up between reserving and publishing.
    Empty,
    /// No entry starts with this byte.
    UnknownEntry(u8),
    /// An op of no known kind.
    UnknownKind { kind: u8, offset: usize },
    /// The entry ends before what stands at `offset` does.
    Truncated {
        offset: usize,
        required: usize,
        available: usize,
    },
    /// Bytes are left after the last op or fill.
    Trailing { offset: usize, bytes: usize },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Empty => write!(f, "the entry was abandoned by its producer"),
            DecodeError::UnknownEntry(tag) => write!(f, "no entry starts with byte {tag}"),
            DecodeError::UnknownKind { kind, offset } => write!(f, "unknown kind {kind} at byte {offset}"),
            DecodeError::Truncated {
                offset,
                required,
                available,
            } => {
                write!(
                    f,
                    "{required} bytes required at byte {offset}, {available} available"
                )
            }
            DecodeError::Trailing { offset, bytes } => write!(f, "{bytes} bytes too many at byte {offset}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// What a write does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Store the value.
    Set = 1,
    /// Delete the key; the value is empty.
    Del = 2,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Set),
            2 => Some(Kind::Del),
            _ => None,
        }
    }
}

/// One write of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op<'a> {
    pub mapping: u16,
    pub kind: Kind,
    pub hash: u64,
    pub key: &'a [u8],
    /// Opaque here; empty for [`Kind::Del`].
    pub value: &'a [u8],
}

impl Op<'_> {
    /// Bytes of the op in its encoded form.
    pub fn encoded_len(&self) -> usize {
        OP_HEADER + self.key.len() + self.value.len()
    }
}

/// An op's header as [`Op`]s are encoded with it. The lengths are the caller's to keep below 2^32.
pub(crate) fn op_header(
    mapping: u16,
    kind: Kind,
    hash: u64,
    key_len: u32,
    value_len: u32,
) -> [u8; OP_HEADER] {
    let mut header = [0; OP_HEADER];
    header[0..8].copy_from_slice(&hash.to_le_bytes());
    header[8..12].copy_from_slice(&key_len.to_le_bytes());
    header[12..16].copy_from_slice(&value_len.to_le_bytes());
    header[16..18].copy_from_slice(&mapping.to_le_bytes());
    header[18] = kind as u8;
    header
}

/// A row that a scan found, to be cached if it is still current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill<'a> {
    pub mapping: u16,
    pub hash: u64,
    /// The slot's version and the mapping's epoch as noted before the tests of rule 3.
    pub version: u64,
    pub epoch: u64,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// A committed transaction.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    /// Full top-level transaction id.
    pub xid: u64,
    /// Its number by rule 2.
    pub s: u64,
    /// Microseconds, on whatever clock the worker compares with.
    pub committed_at_us: i64,
    epochs: &'a [u8],
    ops: Ops<'a>,
}

impl<'a> Transaction<'a> {
    /// The epochs noted in PRE_COMMIT, by mapping: one for each mapping that has ops.
    pub fn epochs(&self) -> impl Iterator<Item = (u16, u64)> + use<'a> {
        self.epochs.chunks_exact(EPOCH).filter_map(|chunk| {
            let mut cursor = Cursor::new(chunk);
            Some((cursor.u16().ok()?, cursor.u64().ok()?))
        })
    }

    /// The epoch noted for a mapping. `None` must be taken for "not current" (rule 6).
    pub fn epoch_of(&self, mapping: u16) -> Option<u64> {
        self.epochs()
            .find(|(noted, _)| *noted == mapping)
            .map(|(_, epoch)| epoch)
    }

    /// The writes, at most one per key.
    pub fn ops(&self) -> Ops<'a> {
        self.ops
    }
}

/// Rows of one scan: they share its snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Fills<'a> {
    /// The counter of rule 2, read after the snapshot was taken.
    pub s: u64,
    /// The snapshot's bounds: all below `xmin` had ended, nothing from `xmax` on is visible.
    pub xmin: u64,
    pub xmax: u64,
    fills: &'a [u8],
}

impl<'a> Fills<'a> {
    /// The rows.
    pub fn fills(&self) -> impl Iterator<Item = Fill<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.fills);
        // `decode` has walked these bytes: an error cannot come, and would end the iteration.
        std::iter::from_fn(move || if cursor.at_end() { None } else { cursor.fill().ok() })
    }
}

/// The mapping of an [`Invalidate`] that deletes nothing: the answer is the time of a round trip to Redis.
pub const PING: u16 = u16::MAX;

/// The reply slot of an [`Invalidate`] whose answer nobody waits for: there is none of that number.
pub const NOBODY: u32 = u32::MAX;

/// A DEL asked for by SQL, whose answer goes to a reply slot. Without a key: a purge of the mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalidate<'a> {
    pub mapping: u16,
    pub hash: u64,
    pub key: &'a [u8],
    /// The reply slot and the ticket that guards it: see [`crate::coherence::replies`].
    pub reply: u32,
    pub ticket: u64,
}

impl Invalidate<'_> {
    /// Appends the encoded entry to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(INVALIDATE_HEADER + self.key.len());
        out.push(INVALIDATE);
        out.extend_from_slice(&self.mapping.to_le_bytes());
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.extend_from_slice(&self.reply.to_le_bytes());
        out.extend_from_slice(&self.ticket.to_le_bytes());
        out.extend_from_slice(self.key);
    }
}

/// An entry of the ring.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    Transaction(Transaction<'a>),
    Fills(Fills<'a>),
    Invalidate(Invalidate<'a>),
}

/// Reads an entry, all of it or nothing.
pub fn decode(entry: &[u8]) -> Result<Entry<'_>, DecodeError> {
    let mut cursor = Cursor::new(entry);
    match entry.first() {
        None => Err(DecodeError::Empty),
        Some(&TRANSACTION) => cursor.transaction().map(Entry::Transaction),
        Some(&FILLS) => cursor.fills().map(Entry::Fills),
        Some(&INVALIDATE) => cursor.invalidate().map(Entry::Invalidate),
        Some(&tag) => Err(DecodeError::UnknownEntry(tag)),
    }
}

/// What stands in front of a transaction's ops, but for the commit time, which is written later by
/// [`set_committed_at`].
pub(crate) struct TransactionHeader {
    pub(crate) xid: u64,
    pub(crate) s: u64,
    pub(crate) ops: u32,
    /// How many epochs follow.
    pub(crate) epochs: u16,
}

impl TransactionHeader {
    /// Appends the header and `epochs`, as many as announced. False if memory is short.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, epochs: impl Iterator<Item = (u16, u64)>) -> bool {
        let len = TRANSACTION_HEADER + EPOCH * self.epochs as usize;
        if out.try_reserve_exact(len).is_err() {
            return false;
        }
        out.push(TRANSACTION);
        out.extend_from_slice(&self.xid.to_le_bytes());
        out.extend_from_slice(&self.s.to_le_bytes());
        out.extend_from_slice(&0i64.to_le_bytes());
        out.extend_from_slice(&self.ops.to_le_bytes());
        out.extend_from_slice(&self.epochs.to_le_bytes());
        for (mapping, epoch) in epochs {
            out.extend_from_slice(&mapping.to_le_bytes());
            out.extend_from_slice(&epoch.to_le_bytes());
        }
        true
    }
}

/// Puts the commit time into an encoded transaction header.
pub(crate) fn set_committed_at(header: &mut [u8], committed_at_us: i64) {
    if let Some(field) = header.get_mut(COMMITTED_AT..COMMITTED_AT + 8) {
        field.copy_from_slice(&committed_at_us.to_le_bytes());
    }
}

/// Changes the number of ops in an encoded transaction header.
pub(crate) fn set_op_count(header: &mut [u8], ops: u32) {
    if let Some(field) = header.get_mut(COMMITTED_AT + 8..COMMITTED_AT + 12) {
        field.copy_from_slice(&ops.to_le_bytes());
    }
}

/// Collects the fills of one scan in the form in which they go to the ring.
#[derive(Debug, Default)]
pub struct FillLog {
    bytes: Vec<u8>,
    fills: u32,
}

impl FillLog {
    /// Appends a row. False if it is left out: memory is short, or the key or the value is longer
    /// than the format's 2^32 - 1 bytes.
    pub fn push(&mut self, fill: &Fill<'_>) -> bool {
        let lengths = (u32::try_from(fill.key.len()), u32::try_from(fill.value.len()));
        let ((Ok(key_len), Ok(value_len)), Some(fills)) = (lengths, self.fills.checked_add(1)) else {
            return false;
        };
        let room = FILLS_HEADER + FILL_HEADER + fill.key.len() + fill.value.len();
        if self.bytes.try_reserve(room).is_err() {
            return false;
        }
        if self.bytes.is_empty() {
            self.bytes.resize(FILLS_HEADER, 0);
        }
        self.bytes.extend_from_slice(&fill.hash.to_le_bytes());
        self.bytes.extend_from_slice(&fill.version.to_le_bytes());
        self.bytes.extend_from_slice(&fill.epoch.to_le_bytes());
        self.bytes.extend_from_slice(&key_len.to_le_bytes());
        self.bytes.extend_from_slice(&value_len.to_le_bytes());
        self.bytes.extend_from_slice(&fill.mapping.to_le_bytes());
        self.bytes.extend_from_slice(fill.key);
        self.bytes.extend_from_slice(fill.value);
        self.fills = fills;
        true
    }

    /// How many rows are collected.
    pub fn len(&self) -> u32 {
        self.fills
    }

    /// Whether no row is collected.
    pub fn is_empty(&self) -> bool {
        self.fills == 0
    }

    /// Bytes that the entry takes as it stands.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The finished entry, for the snapshot that all its rows were seen with; `s` as read after
    /// that snapshot was taken.
    pub fn seal(&mut self, s: u64, xmin: u64, xmax: u64) -> &[u8] {
        if self.fills > 0 {
            self.bytes[0] = FILLS;
            self.bytes[1..9].copy_from_slice(&s.to_le_bytes());
            self.bytes[9..17].copy_from_slice(&xmin.to_le_bytes());
            self.bytes[17..25].copy_from_slice(&xmax.to_le_bytes());
            self.bytes[25..29].copy_from_slice(&self.fills.to_le_bytes());
        }
        &self.bytes
    }

    /// Forgets the rows. The memory is kept if it is at most `keep` bytes.
    pub fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(keep);
        self.fills = 0;
    }
}

/// The ops of an entry or of an [`oplog::OpLog`](super::oplog::OpLog), in the order of capture.
#[derive(Debug, Clone, Copy)]
pub struct Ops<'a>(Cursor<'a>);

impl<'a> Ops<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Ops(Cursor::new(bytes))
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Op<'a>;

    #[inline]
    fn next(&mut self) -> Option<Op<'a>> {
        // Checked when decoded, or our own encoding: an error cannot come, and would end here.
        if self.0.at_end() { None } else { self.0.op().ok() }
    }
}

/// Reads forward through bytes and says where they end too early.
#[derive(Debug, Clone, Copy)]
struct Cursor<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Cursor {
            rest: bytes,
            offset: 0,
        }
    }

    fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            let (offset, available) = (self.offset, self.rest.len());
            return Err(DecodeError::Truncated {
                offset,
                required: len,
                available,
            });
        };
        self.rest = rest;
        self.offset += len;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    #[inline]
    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    fn op(&mut self) -> Result<Op<'a>, DecodeError> {
        // One check for the whole header: every op of every transaction comes by here.
        let mut header = Cursor::new(self.bytes(OP_HEADER)?);
        let (hash, key_len, value_len) = (header.u64()?, header.u32()?, header.u32()?);
        let (mapping, [kind]) = (header.u16()?, header.array()?);
        let offset = self.offset - 1;
        let kind = Kind::from_byte(kind).ok_or(DecodeError::UnknownKind { kind, offset })?;
        let key = self.bytes(key_len as usize)?;
        Ok(Op {
            mapping,
            kind,
            hash,
            key,
            value: self.bytes(value_len as usize)?,
        })
    }

    fn fill(&mut self) -> Result<Fill<'a>, DecodeError> {
        let mut header = Cursor::new(self.bytes(FILL_HEADER)?);
        let (hash, version, epoch) = (header.u64()?, header.u64()?, header.u64()?);
        let (key_len, value_len, mapping) = (header.u32()?, header.u32()?, header.u16()?);
        let key = self.bytes(key_len as usize)?;
        Ok(Fill {
            mapping,
            hash,
            version,
            epoch,
            key,
            value: self.bytes(value_len as usize)?,
        })
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.at_end() {
            return Ok(());
        }
        Err(DecodeError::Trailing {
            offset: self.offset,
            bytes: self.rest.len(),
        })
    }

    fn transaction(&mut self) -> Result<Transaction<'a>, DecodeError> {
        self.bytes(1)?;
        let (xid, s) = (self.u64()?, self.u64()?);
        let committed_at_us = self.array().map(i64::from_le_bytes)?;
        let (ops, epochs) = (self.u32()?, self.u16()?);
        let epochs = self.bytes(EPOCH * epochs as usize)?;
        let first = *self;
        for _ in 0..ops {
            self.op()?;
        }
        self.end()?;
        Ok(Transaction {
            xid,
            s,
            committed_at_us,
            epochs,
            ops: Ops(first),
        })
    }

    fn fills(&mut self) -> Result<Fills<'a>, DecodeError> {
        self.bytes(1)?;
        let (s, xmin, xmax, count) = (self.u64()?, self.u64()?, self.u64()?, self.u32()?);
        let fills = self.rest;
        for _ in 0..count {
            self.fill()?;
        }
        self.end()?;
        Ok(Fills { s, xmin, xmax, fills })
    }

    fn invalidate(&mut self) -> Result<Invalidate<'a>, DecodeError> {
        self.bytes(1)?;
        let (mapping, hash, reply, ticket) = (self.u16()?, self.u64()?, self.u32()?, self.u64()?);
        Ok(Invalidate {
            mapping,
            hash,
            reply,
            ticket,
            key: self.rest,
        })
    }
}

#[cfg(test)]
mod tests;
