//! What the row code needs of a mapped relation: columns, types, attribute numbers of the table and of each partition.
//!
//! It is built from the system caches alone, without a lock of its own (the statement holds one on whatever it
//! touches), and does not notice when it is out of date: [`relations`](super::relations) does.
use std::{rc::Rc, time::Duration};

use pg_redis_cache_core::{
    coherence::Reason,
    config::{Insert, Mapping},
    encode::key::KeyKind,
};
use pgrx::pg_sys::{AttrNumber, Oid};

use super::{
    attached,
    columns::{KeyColumn, MappedColumn, attribute_named, key_kind, value_names},
    tap_all::TAP_ALL,
    text::{Pinning, ValueWriter},
};
use crate::{gucs, xact};

/// Number, fingerprint and definition of a mapping.
pub type Definition = (u16, u64, Rc<Mapping>);

/// A mapping that is active in this database.
pub struct ActiveMapping {
    /// Its number in shared memory.
    pub index: u16,
    pub fingerprint: u64,
    pub definition: Rc<Mapping>,
    pub key: Vec<MappedColumn>,
    pub value: Vec<MappedColumn>,
    pub kinds: Vec<KeyKind>,
    /// Whether every key that the template makes parses back into the same values.
    pub unambiguous: bool,
    pub key_pinning: Pinning,
    pub value_pinning: Pinning,
}

impl ActiveMapping {
    /// Whether new rows are stored.
    pub fn stores_inserts(&self) -> bool {
        self.definition.insert == Insert::Set
    }

    /// For how long a filled key is not filled again, in milliseconds.
    pub fn refill_ms(&self) -> u64 {
        let interval = gucs::refill_interval();
        let ttl = self
            .definition
            .ttl
            .map(|seconds| Duration::from_secs(seconds.get().into()));
        ttl.map_or(interval, |ttl| interval.min(ttl)).as_millis() as u64
    }
}

/// Where a mapping's columns are in one relation.
pub struct Placed {
    pub mapping: Rc<ActiveMapping>,
    pub key_attributes: Vec<AttrNumber>,
    pub value_attributes: Vec<AttrNumber>,
}

/// A mapped table, or a partition of one.
pub struct MappedRelation {
    pub relid: Oid,
    /// The mapped table itself.
    pub root: Oid,
    /// A trigger of ours captures its changes (`redis_cache.attach`): the hooks leave it alone.
    pub attached: bool,
    pub mappings: Vec<Placed>,
    pub last_attribute: AttrNumber,
    keys: Vec<KeyColumn>,
}

impl MappedRelation {
    /// What the catalog says now. A mapping with a column that is gone is left out.
    pub fn new(relid: Oid, root: Oid, definitions: Vec<Definition>) -> Self {
        let mut relation = Self {
            relid,
            root,
            attached: attached::is_attached(relid),
            mappings: Vec::new(),
            last_attribute: 0,
            keys: Vec::new(),
        };
        for definition in definitions {
            // A column that is gone makes the mapping an error as soon as the resolver looks; until then its rows
            // are not captured, and the ALTER that removed the column has purged it.
            if let Some(mapping) = activate(definition, root) {
                relation.place(Rc::new(mapping));
            }
        }
        relation
    }

    /// Whether any mapping stores new rows.
    pub fn stores_inserts(&self) -> bool {
        TAP_ALL || self.mappings.iter().any(|placed| placed.mapping.stores_inserts())
    }

    /// The key columns of all mappings, one mapping after the other.
    pub fn key_columns(&self) -> impl Iterator<Item = &KeyColumn> {
        self.keys.iter()
    }

    /// Whether setting those columns can change a key.
    pub fn key_may_change(&self, set: impl Iterator<Item = i32>) -> bool {
        let mut set = set;
        TAP_ALL
            || self.keys.iter().any(|key| key.generated)
            || set.any(|column| self.keys.iter().any(|key| i32::from(key.attribute) == column))
    }

    /// Marks every mapping of the relation for a purge at commit.
    pub fn purge(&self, reason: Reason) {
        for placed in &self.mappings {
            xact::purge(placed.mapping.index, reason);
        }
    }

    fn place(&mut self, mapping: Rc<ActiveMapping>) {
        let find = |columns: &[MappedColumn]| -> Option<Vec<KeyColumn>> {
            columns
                .iter()
                .map(|column| attribute_named(self.relid, &column.name))
                .collect()
        };
        let (Some(key), Some(value)) = (find(&mapping.key), find(&mapping.value)) else {
            return;
        };
        let numbers =
            |columns: &[KeyColumn]| columns.iter().map(|column| column.attribute).collect::<Vec<_>>();
        let last = key
            .iter()
            .chain(&value)
            .map(|column| column.attribute)
            .max()
            .unwrap_or(0);
        self.last_attribute = self.last_attribute.max(last);
        self.mappings.push(Placed {
            mapping,
            key_attributes: numbers(&key),
            value_attributes: numbers(&value),
        });
        self.keys.extend(key);
    }
}

fn activate((index, fingerprint, definition): Definition, root: Oid) -> Option<ActiveMapping> {
    let columns = |names: &[String]| -> Option<Vec<MappedColumn>> {
        names
            .iter()
            .map(|name| {
                let KeyColumn {
                    type_id,
                    type_modifier,
                    ..
                } = attribute_named(root, name)?;
                // SAFETY: catalog look-ups within a transaction.
                let writer = unsafe { ValueWriter::new(type_id) };
                Some(MappedColumn {
                    name: name.clone(),
                    writer,
                    type_id,
                    type_modifier,
                })
            })
            .collect()
    };
    let key_names: Vec<String> = definition.template.columns().map(str::to_string).collect();
    let key = columns(&key_names)?;
    let value = columns(&value_names(&definition, root))?;
    let kinds: Vec<KeyKind> = key.iter().map(|column| key_kind(column.type_id)).collect();
    let pinning = |columns: &[MappedColumn]| {
        columns.iter().fold(Pinning::default(), |all, column| Pinning {
            variables: all.variables || column.writer.pinning.variables,
            monetary: all.monetary || column.writer.pinning.monetary,
        })
    };
    Some(ActiveMapping {
        index,
        fingerprint,
        unambiguous: definition.template.is_unambiguous(&kinds),
        key_pinning: pinning(&key),
        value_pinning: pinning(&value),
        definition,
        key,
        value,
        kinds,
    })
}
