//! The columns that a scan has to fill.
use std::borrow::Cow;

use pg_redis_cache_core::fdw::{Element, Role, Row, element};
use pgrx::pg_sys::Datum;

use super::{mapped::Mapped, values::Converter};

/// A column that the query needs.
pub struct Column {
    pub place: usize,
    pub role: Role,
    pub converter: Converter,
    /// Whether an UPDATE or DELETE finds the row again by it.
    pub identifies: bool,
}

impl Column {
    /// What Redis has of the column in a row; none is NULL.
    fn bytes<'r>(&self, row: &'r Row, parts: &[&'r [u8]]) -> Option<Cow<'r, [u8]>> {
        let number = |number: i64| Some(Cow::Owned(number.to_string().into_bytes()));
        let bytes: &[u8] = match (&self.role, &row.element) {
            (Role::Key, _) => &row.key,
            (Role::Part(part), _) => parts.get(*part)?,
            (Role::Ttl, _) => return number(row.ttl),
            (Role::Index, Element::Item { index, .. }) => return number(*index),
            (Role::Value, Element::Value(value) | Element::Pair { value, .. }) => value,
            (Role::Field, Element::Pair { field, .. }) => field,
            (Role::Element, Element::Item { element, .. }) => element,
            (Role::Member, Element::Member(member) | Element::Scored { member, .. }) => member,
            (Role::Score, Element::Scored { score, .. }) => {
                return Some(Cow::Owned(element::format_score(*score).into_bytes()));
            }
            (Role::Id, Element::Entry { id, .. }) => id,
            (Role::Named(name), Element::Entry { fields, .. }) => {
                &fields.iter().find(|(field, _)| field == name)?.1
            }
            _ => return None,
        };
        Some(Cow::Borrowed(bytes))
    }

    /// The column's value in a row; none is NULL. Of a table over a mapping, what cannot be read is told by its key.
    ///
    /// # Safety
    /// Must be called within a transaction.
    pub unsafe fn value(&mut self, row: &Row, parts: &[&[u8]], mapping: Option<&Mapped>) -> Option<Datum> {
        let bytes = self.bytes(row, parts)?;
        let Some(mapping) = mapping else {
            // SAFETY: within a transaction.
            return Some(unsafe { self.converter.read(&bytes) });
        };
        let (name, pinning) = (self.converter.name(), self.converter.pinning());
        let read = || {
            // SAFETY: within a transaction.
            unsafe { self.converter.read(&bytes) }
        };
        Some(mapping.telling(&row.key, Some(&name), pinning, read))
    }

    /// Whether the value would be written as Redis has it.
    ///
    /// # Safety
    /// `value` must be the column's own.
    pub unsafe fn is_written_so(&self, value: Datum, row: &Row, parts: &[&[u8]]) -> bool {
        // SAFETY: the column's own value.
        let written = unsafe { self.converter.write(value) };
        self.bytes(row, parts).is_some_and(|bytes| *bytes == written)
    }
}
