//! Keys given in SQL, and what Redis holds for them: `get` and `ttl`.
use std::rc::Rc;

use pg_redis_cache_core::{
    config::{Format, Mapping},
    encode::{self, difference::printable},
};
use pgrx::{JsonB, PgSqlErrorCode, VariadicArray, prelude::*};
use serde_json::{Map, Value as Json};

use super::{client::Connection, raise, shared};
use crate::{
    capture::{
        relations::{self, ActiveMapping},
        text::Pinned,
    },
    gucs,
    shared::{MappingState, Shared},
};

/// A mapping of this database that a function names.
pub struct Found {
    pub mapping: Rc<ActiveMapping>,
}

/// Finds an active mapping of this database by name, or raises.
pub fn find(shared: Shared, name: &str) -> Found {
    let default_database = gucs::text(&gucs::DATABASE);
    let list = relations::listed();
    let Some(mapping) = list.iter().find(|mapping| mapping.name == name) else {
        raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("mapping \"{name}\" does not exist"),
            "",
            "The view redis_cache.mappings lists the mappings.",
        );
    };
    if !gucs::ENABLED.get() {
        raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "caching is off",
            "",
            "Set pg_redis_cache.enabled to on and reload the configuration.",
        );
    }
    let database = mapping.effective_database(&default_database);
    if relations::current_database().as_deref() != Some(database) {
        raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("mapping \"{name}\" belongs to database \"{database}\""),
            "",
            "Connect to that database.",
        );
    }
    // Before the backend's own list, so that a mapping that becomes active meanwhile is told of as it was.
    let problem = problem(shared, mapping, &default_database);
    if let Some(mapping) = relations::active_named(name) {
        return Found { mapping };
    }
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("mapping \"{name}\" is not active"),
        problem,
        "See redis_cache.mappings.",
    )
}

/// Why a mapping of this database that is not active is not.
pub fn problem(shared: Shared, mapping: &Mapping, default_database: &str) -> String {
    match shared.mapping_of(mapping.fingerprint(default_database)) {
        Some(place) if shared.state(place) == MappingState::Error => shared.problem(place),
        _ => "It has not been looked at yet.".to_string(),
    }
}

/// The key for values given as text, each cast by its column's input function and encoded again.
///
/// The functions that take a key have none of its values as their default, so that a call without any is told here
/// what is missing, and not by the parser that there is no such function.
pub fn encode(found: &Found, name: &str, values: VariadicArray<'_, &str>) -> (Vec<u8>, u64) {
    let mapping = &found.mapping;
    if values.len() != mapping.key.len() {
        let columns: Vec<&str> = mapping.key.iter().map(|column| column.name.as_str()).collect();
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("wrong number of key values for mapping \"{name}\""),
            format!(
                "Values given: {}. Key columns: {}.",
                values.len(),
                columns.join(", ")
            ),
            "Give one value for each key column, in that order.",
        );
    }
    let mut texts = Vec::with_capacity(values.len());
    for (column, value) in mapping.key.iter().zip(values.iter()) {
        let Some(value) = value else {
            raise(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                format!("the value for key column \"{}\" is NULL", column.name),
                "Key columns are never NULL.",
                "Give a value for each key column.",
            );
        };
        let mut text = Vec::new();
        // SAFETY: the value is of the type that the input function has just made.
        unsafe {
            let datum = column.read(value);
            let _pinned = Pinned::new(mapping.key_pinning);
            column.writer.write_text(datum, &mut text);
        }
        texts.push(text);
    }
    let parts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
    let mut key = Vec::new();
    mapping.definition.template.render(&parts, &mut key);
    let hash = encode::key::key_hash(&key);
    (key, hash)
}

/// What Redis holds for a key now; NULL if nothing. A hash comes as an object of texts, a json document as it
/// is, a string as a JSON string.
#[pg_extern(volatile, parallel_unsafe)]
fn get(mapping: &str, key: default!(VariadicArray<'_, &str>, "'{}'")) -> Option<JsonB> {
    let found = find(shared(), mapping);
    let (key, _) = encode(&found, mapping, key);
    let mut redis = Connection::open(found.mapping.definition.effective_server());
    match found.mapping.definition.format {
        Format::Hash => {
            let fields = redis.fields(&key);
            (!fields.is_empty()).then(|| object(fields.iter().map(|(name, value)| (&name[..], &value[..]))))
        }
        format => redis.text(&key).map(|text| document(format, &text)),
    }
}

/// The fields of a hash as SQL shows them: an object of texts.
pub fn object<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> JsonB {
    let object: Map<String, Json> = fields
        .map(|(name, value)| (printable(name), Json::String(printable(value))))
        .collect();
    JsonB(Json::Object(object))
}

/// A text in a mapping's format as SQL shows it: a json document as it is, anything else as a JSON string.
pub fn document(format: Format, text: &[u8]) -> JsonB {
    let parsed = match format {
        Format::Json => serde_json::from_slice(text).ok(),
        _ => None,
    };
    JsonB(parsed.unwrap_or_else(|| Json::String(printable(text))))
}

/// The time that a key has left; NULL if there is no such key, or it does not expire.
#[pg_extern(volatile, parallel_unsafe)]
fn ttl(mapping: &str, key: default!(VariadicArray<'_, &str>, "'{}'")) -> Option<Interval> {
    let found = find(shared(), mapping);
    let (key, _) = encode(&found, mapping, key);
    // PTTL: -2 without the key, -1 without an expiry.
    let milliseconds = Connection::open(found.mapping.definition.effective_server()).milliseconds_left(&key);
    (milliseconds >= 0).then(|| Interval::from_micros(milliseconds * 1000))
}
