//! The form in which a value travels through the ring: self-contained bytes, written straight into the
//! caller's buffer and read without copying.
//!
//! ```text
//! text:  0x01 <bytes to the end>
//! hash:  0x02 <0x01 complete | 0x00 not> { <u32 length> <name> <u32 length> <value> } to the end
//! ```
//!
//! Lengths are little endian; nothing is aligned or terminated, so any byte can stand anywhere. Guaranteed:
//! what was written decodes to the same; [`Value::decode`] never panics, and checks the whole framing, so
//! that reading the fields cannot fail. Not guaranteed: that field names are distinct. The form is no
//! storage format: writer and reader are of one build.

/// Why bytes are no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// No bytes.
    Empty,
    /// Neither text nor hash.
    UnknownTag(u8),
    /// A hash whose second byte is neither 0 nor 1.
    UnknownFlags(u8),
    /// A length says more than there is.
    Truncated {
        /// The byte offset in the value at which something was to stand.
        at: usize,
        /// How many bytes it needs.
        required: usize,
        /// How many there are.
        available: usize,
    },
    /// A hash without fields: a row with nothing to store is stored as no key.
    NoField,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DecodeError::Empty => write!(f, "empty value"),
            DecodeError::UnknownTag(tag) => write!(f, "unknown value tag {tag}"),
            DecodeError::UnknownFlags(flags) => write!(f, "unknown hash flags {flags}"),
            DecodeError::Truncated {
                at,
                required,
                available,
            } => {
                write!(
                    f,
                    "value ends early: {required} bytes required at {at}, {available} available"
                )
            }
            DecodeError::NoField => write!(f, "hash without fields"),
        }
    }
}

impl std::error::Error for DecodeError {}

const TEXT: u8 = 1;
const HASH: u8 = 2;
const NOT_COMPLETE: u8 = 0;
const COMPLETE: u8 = 1;

/// A value as the worker reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// The formats `json` and `string`: the key's bytes.
    Text(&'a [u8]),
    /// The format `hash`.
    Hash(HashValue<'a>),
}

/// The fields of a hash; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashValue<'a> {
    fields: &'a [u8],
    count: usize,
    complete: bool,
}

impl<'a> Value<'a> {
    /// Reads what the writers below wrote.
    ///
    /// # Errors
    /// For bytes that none of them wrote.
    pub fn decode(bytes: &'a [u8]) -> Result<Value<'a>, DecodeError> {
        match bytes {
            [] => Err(DecodeError::Empty),
            [TEXT, text @ ..] => Ok(Value::Text(text)),
            [HASH] => Err(DecodeError::Truncated {
                at: 1,
                required: 1,
                available: 0,
            }),
            [HASH, flags @ (NOT_COMPLETE | COMPLETE), fields @ ..] => {
                let count = count_fields(fields)?;
                Ok(Value::Hash(HashValue {
                    fields,
                    count,
                    complete: *flags == COMPLETE,
                }))
            }
            [HASH, flags, ..] => Err(DecodeError::UnknownFlags(*flags)),
            [tag, ..] => Err(DecodeError::UnknownTag(*tag)),
        }
    }
}

/// Walks over all fields and counts them.
fn count_fields(fields: &[u8]) -> Result<usize, DecodeError> {
    let mut rest = fields;
    let mut count = 0;
    while !rest.is_empty() {
        for _ in 0..2 {
            let at = HASH_HEADER + fields.len() - rest.len();
            let truncated = |required| DecodeError::Truncated {
                at,
                required,
                available: rest.len(),
            };
            let (length, _) = split_length(rest).ok_or(truncated(LENGTH_BYTES))?;
            let (_, behind) = split_sized(rest).ok_or(truncated(LENGTH_BYTES.saturating_add(length)))?;
            rest = behind;
        }
        count += 1;
    }
    if count == 0 {
        Err(DecodeError::NoField)
    } else {
        Ok(count)
    }
}

const LENGTH_BYTES: usize = 4;
const HASH_HEADER: usize = 2;

fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    Some((usize::try_from(u32::from_le_bytes(*length)).ok()?, rest))
}

/// A length and as many bytes, split from the rest.
fn split_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = split_length(bytes)?;
    rest.split_at_checked(length)
}

impl<'a> HashValue<'a> {
    /// How many fields there are; at least one.
    pub fn field_count(&self) -> usize {
        self.count
    }

    /// Whether every column of the mapping has its field. If not, fields of NULL columns that the key may
    /// still hold from an older row have to be removed when this value is written.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// The fields' names and values in the order in which they were written.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.fields;
        // `decode` has seen every length, so nothing is cut off here but the end.
        std::iter::from_fn(move || {
            let (name, behind_name) = split_sized(rest)?;
            let (value, behind) = split_sized(behind_name)?;
            rest = behind;
            Some((name, value))
        })
    }
}

/// Begins a text: all that is appended to `out` from here on is its bytes, until the caller ends the value.
pub fn begin_text(out: &mut Vec<u8>) {
    out.push(TEXT);
}

/// Writes a hash into a buffer, behind what is there.
#[must_use = "a hash is whole only after finish()"]
pub struct HashWriter<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    too_long: bool,
}

impl<'o> HashWriter<'o> {
    /// Begins a hash without fields, complete until [`HashWriter::null`] says otherwise.
    pub fn begin(out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[HASH, COMPLETE]);
        HashWriter {
            out,
            start,
            too_long: false,
        }
    }

    /// Adds a field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.field_with(name, |out| out.extend_from_slice(value));
    }

    /// Adds a field whose value `write` appends to the buffer, and only appends.
    pub fn field_with(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.sized(|out| out.extend_from_slice(name));
        self.sized(write);
    }

    /// Notes a column that is NULL: it has no field, and an old one is to be removed.
    pub fn null(&mut self) {
        if let Some(flags) = self.out.get_mut(self.start + 1) {
            *flags = NOT_COMPLETE;
        }
    }

    /// Ends the hash. False if there is nothing to store: no field, or one too long for a length of 32 bits
    /// (PostgreSQL has no such value, and Redis takes none). The buffer is then as it was before `begin`,
    /// and the row is to be stored as no key.
    pub fn finish(self) -> bool {
        let stored = self.out.len() > self.start + HASH_HEADER && !self.too_long;
        if !stored {
            self.out.truncate(self.start);
        }
        stored
    }

    /// Appends what `write` writes behind its length.
    fn sized(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let length_at = self.out.len();
        self.out.extend_from_slice(&[0; LENGTH_BYTES]);
        let bytes_at = self.out.len();
        write(self.out);
        let written = u32::try_from(self.out.len().saturating_sub(bytes_at));
        let length = self.out.get_mut(length_at..bytes_at);
        match (written, length) {
            (Ok(written), Some(length)) => length.copy_from_slice(&written.to_le_bytes()),
            _ => self.too_long = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

    /// Whether a hash is complete, and its fields.
    fn fields(bytes: &[u8]) -> (bool, Fields<'_>) {
        match Value::decode(bytes) {
            Ok(Value::Hash(hash)) => {
                assert_eq!(hash.field_count(), hash.fields().count());
                (hash.complete(), hash.fields().collect())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hash_reads_back_with_its_fields_in_order() {
        let mut out = Vec::new();
        let mut writer = HashWriter::begin(&mut out);
        writer.field(b"name", b"Ada");
        writer.field_with(b"n", |out| crate::encode::push_int(out, -42));
        writer.field(b"empty", b"");
        assert!(writer.finish());
        let expected: Fields<'_> = vec![(b"name", b"Ada"), (b"n", b"-42"), (b"empty", b"")];
        assert_eq!(fields(&out), (true, expected));
    }

    #[test]
    fn a_null_column_makes_it_incomplete() {
        let mut out = b"before".to_vec();
        let mut writer = HashWriter::begin(&mut out);
        writer.null();
        writer.field(b"a", b"\0\xff");
        assert!(writer.finish());
        assert_eq!(fields(&out[6..]), (false, vec![(&b"a"[..], &b"\0\xff"[..])]));
    }

    #[test]
    fn a_hash_without_fields_leaves_the_buffer_alone() {
        let mut out = b"before".to_vec();
        let mut writer = HashWriter::begin(&mut out);
        writer.null();
        assert!(!writer.finish());
        assert_eq!(out, b"before");
    }

    #[test]
    fn a_text_is_every_byte_behind_its_tag() {
        let mut out = Vec::new();
        begin_text(&mut out);
        out.extend_from_slice(b"a\0\xff");
        assert_eq!(Value::decode(&out), Ok(Value::Text(b"a\0\xff")));
        assert_eq!(Value::decode(&[TEXT]), Ok(Value::Text(b"")));
    }

    #[test]
    fn each_kind_of_garbage_has_its_error() {
        let truncated = |at, required, available| DecodeError::Truncated {
            at,
            required,
            available,
        };
        for (bytes, error) in [
            (&b""[..], DecodeError::Empty),
            (b"\x07", DecodeError::UnknownTag(7)),
            (b"\x02", truncated(1, 1, 0)),
            (b"\x02\x02", DecodeError::UnknownFlags(2)),
            (b"\x02\x01", DecodeError::NoField),
            (b"\x02\x01\x01\0", truncated(2, 4, 2)),
            (b"\x02\x01\x05\0\0\0a", truncated(2, 9, 5)),
            (b"\x02\x01\x01\0\0\0a", truncated(7, 4, 0)),
            (
                b"\x02\x01\x01\0\0\0a\xff\xff\xff\xff",
                truncated(7, 4 + 0xffff_ffff, 4),
            ),
        ] {
            assert_eq!(Value::decode(bytes), Err(error), "{bytes:?}");
        }
    }
}
