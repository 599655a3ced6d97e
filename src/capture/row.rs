//! A row in a slot, its keys and its values.
use std::{cell::RefCell, mem, ops::Range};

use pg_redis_cache_core::{
    config::{Format, Write},
    encode::{
        json::JsonWriter,
        key::key_hash,
        value::{self, HashWriter},
    },
};
use pgrx::pg_sys::{self, Datum};

use super::{
    columns::MappedColumn,
    relations::{ActiveMapping, MappedRelation, Placed},
    text::{JsonForm, Pinned},
};
use crate::{compat::unguarded, xact};

/// No key or value of a row is encoded past this: Redis refuses strings of more than 512 MB
/// (`proto-max-bulk-len`).
const VALUE_LIMIT: usize = 512 * 1024 * 1024;

/// From this size on a row's buffers are asked for beforehand, in a way that may fail: Rust's own growth would end
/// the process.
const LARGE: usize = 64 * 1024;
/// No encoding of a value is longer than this many times what [`MappedColumn`]'s writer says of its size: a control
/// character in JSON (`\u0001`).
const MOST_GROWTH: usize = 6;

/// A filled slot.
#[derive(Clone, Copy)]
pub struct Row(*mut pg_sys::TupleTableSlot);

impl Row {
    /// # Safety
    /// `slot` must be filled and stay so while the row is used.
    pub unsafe fn of(slot: *mut pg_sys::TupleTableSlot) -> Self {
        Self(slot)
    }

    /// The value of an attribute, `None` for NULL.
    ///
    /// # Safety
    /// `attribute` must be a user column of the slot's descriptor.
    pub unsafe fn datum(self, attribute: pg_sys::AttrNumber) -> Option<Datum> {
        // SAFETY: deformed far enough, as slot_getattr does (tuptable.h).
        unsafe {
            if (*self.0).tts_nvalid < attribute {
                unguarded::slot_getsomeattrs_int(self.0, attribute.into());
            }
            let index = attribute as usize - 1;
            (!*(*self.0).tts_isnull.add(index)).then(|| *(*self.0).tts_values.add(index))
        }
    }

    /// Deforms the row once, up to the last column that any mapping needs.
    pub unsafe fn deform(self, last: pg_sys::AttrNumber) {
        // SAFETY: `last` is a column of the slot's descriptor.
        unsafe {
            if (*self.0).tts_nvalid < last {
                unguarded::slot_getsomeattrs_int(self.0, last.into());
            }
        }
    }
}

/// Buffers that are used again for every row.
#[derive(Default)]
pub struct Scratch {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    parts: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Scratch {
    /// Whether there is memory for a value whose columns have that size.
    fn has_room(&mut self, size: usize) -> bool {
        let most = size.saturating_mul(MOST_GROWTH);
        size < LARGE || (self.value.try_reserve(most).is_ok() && self.parts.try_reserve(most).is_ok())
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Lends the buffers. Output functions may run statements, and these come here again: they get fresh ones.
pub fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.take();
    let result = work(&mut scratch);
    if scratch.value.capacity() + scratch.parts.capacity() > 1 << 20 {
        scratch = Scratch::default();
    }
    SCRATCH.replace(scratch);
    result
}

/// What a row's key came to.
pub enum Key {
    /// The key is in the scratch buffer; this is its hash.
    Good(u64),
    /// Another row could have this key: it is never set, only deleted.
    Shared(u64),
    /// A key column is NULL, or the key is longer than Redis takes: no key belongs to the row.
    None,
}

/// Encodes the key of a row into `scratch.key`.
///
/// # Safety
/// `row` must be a row of the relation that `placed` was made for.
pub unsafe fn encode_key(placed: &Placed, row: Row, scratch: &mut Scratch) -> Key {
    // SAFETY: the attributes are those of the relation.
    unsafe { encode_key_from(&placed.mapping, &placed.key_attributes, row, scratch) }
}

unsafe fn encode_key_from(
    mapping: &ActiveMapping,
    attributes: &[pg_sys::AttrNumber],
    row: Row,
    scratch: &mut Scratch,
) -> Key {
    scratch.parts.clear();
    scratch.ranges.clear();
    scratch.key.clear();
    let _pinned = Pinned::new(mapping.key_pinning);
    for (column, attribute) in mapping.key.iter().zip(attributes) {
        // SAFETY: the attribute holds a value of the column's type.
        unsafe {
            let Some(datum) = row.datum(*attribute) else {
                return Key::None;
            };
            if column.writer.size(datum) > VALUE_LIMIT {
                return Key::None;
            }
            let start = scratch.parts.len();
            column.writer.write_text(datum, &mut scratch.parts);
            scratch.ranges.push(start..scratch.parts.len());
        }
    }
    finish_key(mapping, scratch)
}

fn finish_key(mapping: &ActiveMapping, scratch: &mut Scratch) -> Key {
    let template = &mapping.definition.template;
    let render = |values: &[&[u8]], key: &mut Vec<u8>| {
        template.render(values, key);
        let hash = key_hash(key);
        if mapping.unambiguous || template.round_trips(key, values, &mapping.kinds) {
            Key::Good(hash)
        } else {
            Key::Shared(hash)
        }
    };
    if let [only] = scratch.ranges.as_slice() {
        return render(&[&scratch.parts[only.clone()]], &mut scratch.key);
    }
    let values: Vec<&[u8]> = scratch
        .ranges
        .iter()
        .map(|range| &scratch.parts[range.clone()])
        .collect();
    render(&values, &mut scratch.key)
}

/// Encodes the value of a row into `scratch.value`. Returns false if there is nothing to store: no column that
/// is not NULL, more than `limit` bytes, or no memory for them.
///
/// # Safety
/// As [`encode_key`].
pub unsafe fn encode_value(placed: &Placed, row: Row, scratch: &mut Scratch, limit: usize) -> bool {
    scratch.value.clear();
    let mapping = &placed.mapping;
    let limit = limit.min(VALUE_LIMIT);
    let columns = || mapping.value.iter().zip(placed.value_attributes.iter().copied());
    // SAFETY: the attributes hold values of the columns' types.
    unsafe {
        let size: usize = columns()
            .filter_map(|(column, at)| Some(column.writer.size(row.datum(at)?)))
            .sum();
        if size > limit || !scratch.has_room(size) {
            return false;
        }
        let _pinned = Pinned::new(mapping.value_pinning);
        let stores = match mapping.definition.format {
            Format::Hash => encode_hash(columns(), row, &mut scratch.value),
            Format::Json => encode_json(columns(), row, &mut scratch.value, &mut scratch.parts),
            Format::String => encode_string(columns(), row, &mut scratch.value),
        };
        // Some texts are longer than their values' sizes tell: numbers with many digits, bits, arrays of NULLs.
        stores && scratch.value.len() <= limit
    }
}

type Columns<'a> = std::iter::Zip<
    std::slice::Iter<'a, MappedColumn>,
    std::iter::Copied<std::slice::Iter<'a, pg_sys::AttrNumber>>,
>;

unsafe fn encode_hash(columns: Columns, row: Row, out: &mut Vec<u8>) -> bool {
    let mut hash = HashWriter::begin(out);
    for (column, attribute) in columns {
        // SAFETY: as in `encode_value`.
        match unsafe { row.datum(attribute) } {
            Some(datum) => hash.field_with(column.name.as_bytes(), |out| {
                // SAFETY: as in `encode_value`.
                unsafe { column.writer.write_text(datum, out) }
            }),
            None => hash.null(),
        }
    }
    hash.finish()
}

unsafe fn encode_string(mut columns: Columns, row: Row, out: &mut Vec<u8>) -> bool {
    let Some((column, attribute)) = columns.next() else {
        return false;
    };
    // SAFETY: as in `encode_value`.
    unsafe {
        let Some(datum) = row.datum(attribute) else {
            return false;
        };
        value::begin_text(out);
        column.writer.write_text(datum, out);
    }
    true
}

unsafe fn encode_json(columns: Columns, row: Row, out: &mut Vec<u8>, text: &mut Vec<u8>) -> bool {
    value::begin_text(out);
    let mut object = JsonWriter::begin(out);
    for (column, attribute) in columns {
        // SAFETY: as in `encode_value`.
        unsafe {
            let Some(datum) = row.datum(attribute) else {
                object.null(&column.name);
                continue;
            };
            text.clear();
            if column.writer.json == JsonForm::ToJson {
                column.writer.write_to_json(datum, text);
            } else {
                column.writer.write_text(datum, text);
            }
        }
        match column.writer.json {
            JsonForm::Number => object.number_or_text(&column.name, text),
            JsonForm::Bool => object.boolean(&column.name, text == b"t"),
            JsonForm::Embedded | JsonForm::ToJson => object.raw(&column.name, text),
            JsonForm::Text => object.text(&column.name, text),
        }
    }
    object.finish()
}

/// The row is now as in `row`, under the key it had.
///
/// # Safety
/// `row` must be a row of `relation`; so for all the functions below.
pub unsafe fn capture_set(relation: &MappedRelation, row: Row, since: xact::Position) {
    // SAFETY: as the caller promises.
    unsafe {
        row.deform(relation.last_attribute);
        for placed in &relation.mappings {
            set(placed, row, since);
        }
    }
}

/// The row is new.
pub unsafe fn capture_insert(relation: &MappedRelation, row: Row, since: xact::Position) {
    // SAFETY: as the caller promises.
    unsafe {
        for placed in relation
            .mappings
            .iter()
            .filter(|placed| placed.mapping.stores_inserts())
        {
            set(placed, row, since);
        }
    }
}

/// The row `old` has become `new`, maybe under another key and in another partition.
pub unsafe fn capture_update(
    old_relation: &MappedRelation,
    old: Row,
    relation: &MappedRelation,
    new: Row,
    since: xact::Position,
) {
    // SAFETY: as the caller promises.
    unsafe {
        old.deform(old_relation.last_attribute);
        new.deform(relation.last_attribute);
        for (before, after) in old_relation.mappings.iter().zip(&relation.mappings) {
            with_scratch(|scratch| {
                let hash = match encode_key(before, old, scratch) {
                    Key::Good(hash) | Key::Shared(hash) => hash,
                    Key::None => return,
                };
                let old_key = mem::take(&mut scratch.key);
                let kept = match encode_key(after, new, scratch) {
                    Key::Good(_) | Key::Shared(_) => scratch.key == old_key,
                    Key::None => false,
                };
                if !kept {
                    xact::delete(before.mapping.index, hash, &old_key);
                }
            });
            set(after, new, since);
        }
    }
}

/// The row is gone.
pub unsafe fn capture_delete(relation: &MappedRelation, row: Row) {
    // SAFETY: as the caller promises.
    unsafe {
        for placed in &relation.mappings {
            delete(&placed.mapping, &placed.key_attributes, row);
        }
    }
}

/// The row is gone, and `keys` holds the key columns of the relation's mappings, one after the other.
pub unsafe fn capture_delete_of_keys(relation: &MappedRelation, keys: Row) {
    let mut attribute = 0;
    for placed in &relation.mappings {
        let attributes: Vec<pg_sys::AttrNumber> = placed
            .key_attributes
            .iter()
            .map(|_| {
                attribute += 1;
                attribute
            })
            .collect();
        // SAFETY: as the caller promises.
        unsafe { delete(&placed.mapping, &attributes, keys) };
    }
}

unsafe fn set(placed: &Placed, row: Row, since: xact::Position) {
    with_scratch(|scratch| {
        let index = placed.mapping.index;
        // SAFETY: as the caller promises.
        unsafe {
            match encode_key(placed, row, scratch) {
                Key::None => {}
                Key::Shared(hash) => xact::delete(index, hash, &scratch.key),
                Key::Good(hash) => {
                    let stores = placed.mapping.definition.write == Write::Set
                        && encode_value(placed, row, scratch, crate::gucs::transaction_buffer())
                        // RETURNING expressions or triggers may have changed the row again since.
                        && !xact::changed_since(since, index, &scratch.key);
                    if stores {
                        xact::set(index, hash, &scratch.key, &scratch.value);
                    } else {
                        xact::delete(index, hash, &scratch.key);
                    }
                }
            }
        }
    });
}

unsafe fn delete(mapping: &ActiveMapping, attributes: &[pg_sys::AttrNumber], row: Row) {
    with_scratch(|scratch| {
        // SAFETY: as the caller promises.
        match unsafe { encode_key_from(mapping, attributes, row, scratch) } {
            Key::Good(hash) | Key::Shared(hash) => xact::delete(mapping.index, hash, &scratch.key),
            Key::None => {}
        }
    });
}
