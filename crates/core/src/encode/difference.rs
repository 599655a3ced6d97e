//! What differs between what Redis holds under a key and what the key's row says.
//!
//! The words that `redis_cache.verify` reports. A key that Redis does not hold differs from nothing: a missing key
//! costs a query, and no more. Values are compared byte by byte with what would be written for the row.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value as Json};

use super::value::{HashValue, Value};
use crate::config::Format;

/// What Redis holds under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    Nothing,
    /// The fields of a hash and their values.
    Hash(Vec<(Vec<u8>, Vec<u8>)>),
    Text(Vec<u8>),
    /// A type that the mapping does not write, by Redis's name for it.
    Other(String),
}

/// What the table says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected<'a> {
    /// No row has this key.
    NoRow,
    /// The row is stored as no key: all its columns are NULL.
    NothingToStore,
    Value(Value<'a>),
}

/// How many fields are named before the rest is only counted.
const NAMED: usize = 8;

/// How a key differs from its row; none if it is as it should be, or not there.
pub fn difference(format: Format, expected: Expected, held: &Held) -> Option<String> {
    if *held == Held::Nothing {
        return None;
    }
    let value = match expected {
        Expected::NoRow => return Some("there is no row".to_owned()),
        Expected::NothingToStore => return Some("the row has nothing to store".to_owned()),
        Expected::Value(value) => value,
    };
    match (value, held) {
        (Value::Hash(hash), Held::Hash(fields)) => in_hash(hash, fields),
        (Value::Text(text), Held::Text(found)) if text == found => None,
        (Value::Text(text), Held::Text(found)) if format == Format::Json => Some(in_document(text, found)),
        (Value::Text(_), Held::Text(_)) => Some("the value differs".to_owned()),
        (Value::Hash(_), other) => Some(format!("the key is a {}, not a hash", kind(other))),
        (Value::Text(_), other) => Some(format!("the key is a {}, not a string", kind(other))),
    }
}

/// How a key's expiry differs from what its mapping asks for. `left` is what PTTL says, in milliseconds: negative
/// for none. `ttl` is in seconds.
pub fn expiry_difference(ttl: Option<u32>, left: i64) -> Option<&'static str> {
    match ttl {
        None if left >= 0 => Some("the key expires, but the mapping has no ttl"),
        Some(_) if left < 0 => Some("the key does not expire"),
        Some(ttl) if left > i64::from(ttl) * 1000 => Some("the key expires later than the ttl allows"),
        _ => None,
    }
}

fn kind(held: &Held) -> &str {
    match held {
        Held::Nothing => "none",
        Held::Hash(_) => "hash",
        Held::Text(_) => "string",
        Held::Other(name) => name,
    }
}

fn in_hash(expected: HashValue, found: &[(Vec<u8>, Vec<u8>)]) -> Option<String> {
    let mut left: BTreeMap<&[u8], &[u8]> = found
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .collect();
    let mut words = Words::default();
    for (name, value) in expected.fields() {
        match left.remove(name) {
            Some(found) if found == value => {}
            Some(_) => words.field(name, "differs"),
            None => words.field(name, "is missing"),
        }
    }
    for name in left.keys() {
        words.field(name, "should not be there");
    }
    words.finish()
}

/// The texts are known to differ.
fn in_document(expected: &[u8], found: &[u8]) -> String {
    let object = |text: &[u8]| serde_json::from_slice::<Map<String, Json>>(text).ok();
    let (Some(expected), Some(found)) = (object(expected), object(found)) else {
        return "the value is not the row's document".to_owned();
    };
    let mut words = Words::default();
    for (name, value) in &expected {
        match found.get(name) {
            Some(found) if found == value => {}
            Some(_) => words.field(name.as_bytes(), "differs"),
            None => words.field(name.as_bytes(), "is missing"),
        }
    }
    for name in found.keys().filter(|name| !expected.contains_key(*name)) {
        words.field(name.as_bytes(), "should not be there");
    }
    words
        .finish()
        .unwrap_or_else(|| "the document is written differently".to_owned())
}

/// A list of what is wrong with fields.
#[derive(Default)]
struct Words {
    text: String,
    fields: usize,
}

impl Words {
    fn field(&mut self, name: &[u8], what: &str) {
        self.fields += 1;
        if self.fields > NAMED {
            return;
        }
        if !self.text.is_empty() {
            self.text.push_str("; ");
        }
        let name = printable(name);
        // Writing to a String cannot fail.
        let _ = write!(self.text, "field \"{name}\" {what}");
    }

    fn finish(mut self) -> Option<String> {
        if self.fields > NAMED {
            let _ = write!(self.text, "; and {} more", self.fields - NAMED);
        }
        (self.fields > 0).then_some(self.text)
    }
}

/// Bytes as a text that PostgreSQL takes: it has no NUL character.
pub fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::value::{HashWriter, begin_text};

    fn hash(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = HashWriter::begin(&mut out);
        for (name, value) in fields {
            writer.field(name.as_bytes(), value.as_bytes());
        }
        assert!(writer.finish());
        out
    }

    fn text(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        begin_text(&mut out);
        out.extend_from_slice(text.as_bytes());
        out
    }

    fn held(fields: &[(&str, &str)]) -> Held {
        let owned = |text: &str| text.as_bytes().to_vec();
        Held::Hash(
            fields
                .iter()
                .map(|(name, value)| (owned(name), owned(value)))
                .collect(),
        )
    }

    fn between(format: Format, value: &[u8], held: &Held) -> Option<String> {
        let value = Value::decode(value).expect("the value has just been written");
        difference(format, Expected::Value(value), held)
    }

    #[test]
    fn a_key_that_is_not_there_differs_from_nothing() {
        let value = hash(&[("a", "1")]);
        assert_eq!(between(Format::Hash, &value, &Held::Nothing), None);
        assert_eq!(difference(Format::Hash, Expected::NoRow, &Held::Nothing), None);
    }

    #[test]
    fn a_key_without_a_row_or_without_a_value_is_one_too_many() {
        let there = held(&[("a", "1")]);
        let of = |expected| difference(Format::Hash, expected, &there);
        assert_eq!(of(Expected::NoRow).as_deref(), Some("there is no row"));
        assert_eq!(
            of(Expected::NothingToStore).as_deref(),
            Some("the row has nothing to store")
        );
    }

    #[test]
    fn fields_are_compared_one_by_one_whatever_their_order() {
        let value = hash(&[("a", "1"), ("b", "2"), ("c", "")]);
        let of = |fields: &[(&str, &str)]| between(Format::Hash, &value, &held(fields));
        assert_eq!(of(&[("c", ""), ("b", "2"), ("a", "1")]), None);
        assert_eq!(
            of(&[("a", "x"), ("c", ""), ("z\0", "")]).as_deref(),
            Some("field \"a\" differs; field \"b\" is missing; field \"z\u{fffd}\" should not be there")
        );
    }

    #[test]
    fn of_many_fields_the_first_are_named() {
        let fields: Vec<String> = (10..30).map(|number| format!("f{number}")).collect();
        let fields: Vec<(&str, &str)> = fields.iter().map(|name| (name.as_str(), "1")).collect();
        let value = hash(&fields);
        let told = between(Format::Hash, &value, &held(&[("f10", "1")])).expect("19 fields are missing");
        assert!(told.ends_with("\"f18\" is missing; and 11 more"), "{told}");
    }

    #[test]
    fn another_type_is_told() {
        let other = Held::Other("list".to_owned());
        assert_eq!(
            between(Format::Hash, &hash(&[("a", "1")]), &other).as_deref(),
            Some("the key is a list, not a hash")
        );
        assert_eq!(
            between(Format::String, &text("x"), &held(&[("a", "1")])).as_deref(),
            Some("the key is a hash, not a string")
        );
        assert_eq!(
            between(Format::Hash, &hash(&[("a", "1")]), &Held::Text(b"1".to_vec())).as_deref(),
            Some("the key is a string, not a hash")
        );
    }

    #[test]
    fn texts_are_compared_as_bytes() {
        let of = |found: &str| between(Format::String, &text("x"), &Held::Text(found.into()));
        assert_eq!(of("x"), None);
        assert_eq!(of("x ").as_deref(), Some("the value differs"));
    }

    #[test]
    fn documents_are_compared_as_bytes_and_explained_by_their_fields() {
        let value = text(r#"{"a":1,"b":null}"#);
        let of = |found: &str| between(Format::Json, &value, &Held::Text(found.into()));
        assert_eq!(of(r#"{"a":1,"b":null}"#), None);
        assert_eq!(
            of(r#"{"a":2,"c":1}"#).as_deref(),
            Some("field \"a\" differs; field \"b\" is missing; field \"c\" should not be there")
        );
        assert_eq!(
            of(r#"{"b":null, "a":1}"#).as_deref(),
            Some("the document is written differently")
        );
        assert_eq!(of("[1]").as_deref(), Some("the value is not the row's document"));
    }

    #[test]
    fn an_expiry_is_there_if_and_only_if_the_mapping_has_a_ttl() {
        assert_eq!(expiry_difference(None, -1), None);
        assert_eq!(expiry_difference(Some(2), 2000), None);
        assert_eq!(expiry_difference(Some(2), 0), None);
        for (ttl, left) in [(None, 5), (Some(2), -1), (Some(2), 2001)] {
            assert!(expiry_difference(ttl, left).is_some(), "{ttl:?} {left}");
        }
        // The largest ttl of a mapping.
        assert_eq!(
            expiry_difference(Some(u32::MAX), i64::from(u32::MAX) * 1000),
            None
        );
    }
}
