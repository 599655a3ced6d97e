//! Whether a mapping can work: everything about it that only the catalog can tell.
//!
//! Runs in the resolver, with a lock on the table. What is found goes to shared memory: backends capture for a
//! mapping only once it is active there.
use pg_redis_cache_core::{
    config::{Format, Mapping},
    encode::key::KeyKind,
};
use pgrx::pg_sys::{self, Oid};

use super::{columns, relations, text};
use crate::{compat, nodes};

/// What the catalog says of a mapping that works.
pub struct Resolved {
    pub relation: Oid,
    pub kinds: Vec<KeyKind>,
}

/// Checks a mapping against the catalog. The error says what is wrong and what would help.
///
/// # Safety
/// Must be called within a transaction, outside any hook.
pub unsafe fn resolve(mapping: &Mapping) -> Result<Resolved, String> {
    check_server()?;
    let table = format!("{}.{}", mapping.schema, mapping.table);
    let relid = relations::table_of(mapping);
    if relid == pg_sys::InvalidOid {
        return Err(format!("table \"{table}\" does not exist"));
    }
    // SAFETY: the relation is locked while it is looked at.
    unsafe {
        let relation = pg_sys::try_relation_open(relid, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return Err(format!("table \"{table}\" does not exist"));
        }
        let result = check_relation(mapping, &table, relation);
        // The lock stays until the transaction ends: what was found holds while it is published.
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        result
    }
}

fn check_server() -> Result<(), String> {
    // SAFETY: plain look-ups of this process's settings.
    unsafe {
        if pg_sys::GetDatabaseEncoding() != pg_sys::pg_enc::PG_UTF8 as i32 {
            return Err("the database's encoding is not UTF8".into());
        }
        if !pg_sys::pgstat_track_counts {
            return Err("track_counts is off: turn it on in postgresql.conf".into());
        }
    }
    Ok(())
}

unsafe fn check_relation(
    mapping: &Mapping,
    table: &str,
    relation: pg_sys::Relation,
) -> Result<Resolved, String> {
    // SAFETY: the relation is open and locked.
    unsafe {
        let relid = (*relation).rd_id;
        let class = (*relation).rd_rel;
        check_kind(table, relation)?;
        if (*class).relrowsecurity && !mapping.allow_rls {
            return Err(format!(
                "table \"{table}\" has row-level security, which does not apply to those who read Redis: \
                 say allow_rls = on if that is wanted"
            ));
        }
        let keys: Vec<String> = mapping.template.columns().map(str::to_string).collect();
        let values = columns::value_names(mapping, relid);
        if mapping.format == Format::String && values.len() != 1 {
            return Err(format!(
                "format string takes exactly one column, and the table has {}",
                values.len()
            ));
        }
        let mut kinds = Vec::with_capacity(keys.len());
        for name in &keys {
            let column = check_column(table, relation, name)?;
            if !column.not_null {
                return Err(format!(
                    "key column \"{name}\" of table \"{table}\" is not NOT NULL"
                ));
            }
            kinds.push(columns::key_kind(column.type_id));
        }
        for name in &values {
            let column = check_column(table, relation, name)?;
            if mapping.format == Format::Json && any_part(column.type_id, 0, has_cast_to_json) {
                return Err(format!(
                    "the type of column \"{name}\" of table \"{table}\" has a cast to json, which format json does \
                     not call"
                ));
            }
        }
        if !has_unique_index(relation, &keys) {
            return Err(format!(
                "table \"{table}\" has no valid, immediate unique index on exactly the key columns ({}) that is \
                 neither partial nor on expressions",
                keys.join(", ")
            ));
        }
        Ok(Resolved {
            relation: relid,
            kinds,
        })
    }
}

unsafe fn check_kind(table: &str, relation: pg_sys::Relation) -> Result<(), String> {
    // SAFETY: the relation is open and locked.
    unsafe {
        let class = (*relation).rd_rel;
        let kind = (*class).relkind as u8;
        let relid = (*relation).rd_id;
        let partitioned = kind == pg_sys::RELKIND_PARTITIONED_TABLE;
        let problem = match kind {
            pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE => None,
            pg_sys::RELKIND_FOREIGN_TABLE => Some("is a foreign table"),
            pg_sys::RELKIND_VIEW | pg_sys::RELKIND_MATVIEW => Some("is a view: map the table behind it"),
            _ => Some("is not a table"),
        };
        if let Some(problem) = problem {
            return Err(format!("\"{table}\" {problem}"));
        }
        if (*class).relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP {
            return Err(format!("\"{table}\" is a temporary table"));
        }
        if (*class).relispartition {
            return Err(format!(
                "\"{table}\" is a partition: map the partitioned table that it belongs to"
            ));
        }
        if compat::has_superclass(relid) {
            return Err(format!("\"{table}\" inherits from another table"));
        }
        if !partitioned {
            check_heap(table, (*class).relam)?;
        }
        let below = compat::find_all_inheritors(relid, pg_sys::NoLock as i32, std::ptr::null_mut());
        for member in nodes::oids(below).filter(|member| *member != relid) {
            if !partitioned {
                return Err(format!("\"{table}\" has inheritance children"));
            }
            check_partition(table, member)?;
        }
    }
    Ok(())
}

fn check_heap(table: &str, access_method: Oid) -> Result<(), String> {
    if access_method == pg_sys::HEAP_TABLE_AM_OID {
        Ok(())
    } else {
        Err(format!("the table access method of \"{table}\" is not heap"))
    }
}

unsafe fn check_partition(table: &str, member: Oid) -> Result<(), String> {
    // SAFETY: a system cache look-up; the tuple is released after its fields have been copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as _,
            pg_sys::Datum::from(member),
        );
        if tuple.is_null() {
            return Ok(()); // dropped since
        }
        let header = (*tuple).t_data;
        let form = header
            .cast::<u8>()
            .add((*header).t_hoff as usize)
            .cast::<pg_sys::FormData_pg_class>();
        let (kind, access_method) = ((*form).relkind as u8, (*form).relam);
        let name = String::from_utf8_lossy(nodes::bytes((*form).relname.data.as_ptr())).into_owned();
        pg_sys::ReleaseSysCache(tuple);
        match kind {
            pg_sys::RELKIND_FOREIGN_TABLE => {
                Err(format!("partition \"{name}\" of \"{table}\" is a foreign table"))
            }
            pg_sys::RELKIND_RELATION => check_heap(&name, access_method),
            _ => Ok(()),
        }
    }
}

struct CheckedColumn {
    type_id: Oid,
    not_null: bool,
}

unsafe fn check_column(table: &str, relation: pg_sys::Relation, name: &str) -> Result<CheckedColumn, String> {
    // SAFETY: the relation is open and locked, and so its descriptor does not change.
    unsafe {
        let Some(column) = columns::attribute_named((*relation).rd_id, name) else {
            return Err(format!("column \"{name}\" of table \"{table}\" does not exist"));
        };
        let attribute = compat::attribute((*relation).rd_att, column.attribute);
        if compat::is_virtual(attribute) {
            return Err(format!(
                "column \"{name}\" of table \"{table}\" is a virtual generated column"
            ));
        }
        if any_part(column.type_id, 0, text_depends_on_names) {
            return Err(format!(
                "the type of column \"{name}\" of table \"{table}\" has a text of names, which depend on search_path or may change"
            ));
        }
        Ok(CheckedColumn {
            type_id: column.type_id,
            not_null: (*attribute).attnotnull,
        })
    }
}

/// Whether a type, or one that it is made of, is such a type.
unsafe fn any_part(type_id: Oid, depth: u32, is: unsafe fn(Oid) -> bool) -> bool {
    if depth > 16 {
        return true;
    }
    // SAFETY: catalog look-ups within a transaction.
    unsafe {
        let base = pg_sys::getBaseType(type_id);
        if is(base) {
            return true;
        }
        let held = text::held_by(base);
        if held != pg_sys::InvalidOid {
            return any_part(held, depth + 1, is);
        }
        if pg_sys::get_typtype(base) as u8 != pg_sys::TYPTYPE_COMPOSITE {
            return false;
        }
        let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(base, -1);
        (1..=(*descriptor).natts as i16).any(|number| {
            let attribute = compat::attribute(descriptor, number);
            !(*attribute).attisdropped && any_part((*attribute).atttypid, depth + 1, is)
        })
    }
}

/// The reg types print names as the search_path in force requires, and an aclitem those of roles, which ALTER ROLE
/// changes without any of our hooks in this database.
unsafe fn text_depends_on_names(base: Oid) -> bool {
    matches!(
        base,
        pg_sys::REGPROCOID
            | pg_sys::REGPROCEDUREOID
            | pg_sys::REGOPEROID
            | pg_sys::REGOPERATOROID
            | pg_sys::REGCLASSOID
            | pg_sys::REGTYPEOID
            | pg_sys::REGCONFIGOID
            | pg_sys::REGDICTIONARYOID
            | pg_sys::REGNAMESPACEOID
            | pg_sys::REGROLEOID
            | pg_sys::REGCOLLATIONOID
            | pg_sys::ACLITEMOID
    )
}

/// A user's cast to json is what to_json would call (json.c, json_categorize_type): a function that may raise, in
/// the middle of somebody's statement.
unsafe fn has_cast_to_json(base: Oid) -> bool {
    // SAFETY: a system cache look-up within a transaction.
    base.to_u32() >= pg_sys::FirstNormalObjectId
        && unsafe {
            pg_sys::SearchSysCacheExists(
                pg_sys::SysCacheIdentifier::CASTSOURCETARGET as _,
                pg_sys::Datum::from(base),
                pg_sys::Datum::from(pg_sys::JSONOID),
                pg_sys::Datum::from(0),
                pg_sys::Datum::from(0),
            )
        }
}

unsafe fn has_unique_index(relation: pg_sys::Relation, keys: &[String]) -> bool {
    // SAFETY: the relation is open and locked; its index list is a copy.
    unsafe {
        nodes::oids(pg_sys::RelationGetIndexList(relation))
            .any(|index| index_covers(index, (*relation).rd_id, keys))
    }
}

unsafe fn index_covers(index: Oid, relid: Oid, keys: &[String]) -> bool {
    // SAFETY: a system cache look-up; the tuple is released after it has been looked at.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::INDEXRELID as _,
            pg_sys::Datum::from(index),
        );
        if tuple.is_null() {
            return false;
        }
        let header = (*tuple).t_data;
        let form = header
            .cast::<u8>()
            .add((*header).t_hoff as usize)
            .cast::<pg_sys::FormData_pg_index>();
        let plain = pg_sys::heap_attisnull(tuple, pg_sys::Anum_pg_index_indpred as i32, std::ptr::null_mut())
            && pg_sys::heap_attisnull(tuple, pg_sys::Anum_pg_index_indexprs as i32, std::ptr::null_mut());
        let count = (*form).indnkeyatts as usize;
        let columns = (*form).indkey.values.as_slice(count);
        let covers = plain
            && (*form).indisunique
            && (*form).indisvalid
            && (*form).indimmediate
            && count == keys.len()
            && keys.iter().all(|name| {
                columns::attribute_named(relid, name).is_some_and(|key| columns.contains(&key.attribute))
            });
        pg_sys::ReleaseSysCache(tuple);
        covers
    }
}
