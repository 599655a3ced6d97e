//! The rows of some keys, and what would be written for them.
use std::{collections::HashMap, panic::AssertUnwindSafe};

use pgrx::{
    PgSqlErrorCode, PgTryBuilder,
    pg_sys::{self, Datum, Oid, panic::CaughtError},
};

use super::super::{
    is_about_values, raise,
    rows::{self, Plan, Session, Snapshot, Target},
};
use crate::{
    capture::{
        columns::MappedColumn,
        relations::{ActiveMapping, Placed},
        row::{self, Key, Row},
        text::Pinned,
    },
    nodes,
};

/// The most keys that one query looks up.
pub const WINDOW: usize = 256;

/// What the table says of a key: the value in the form of the ring, `None` for a row with nothing to store.
pub type Values = HashMap<Vec<u8>, Option<Vec<u8>>>;

/// Finds rows by key.
pub struct Lookup {
    placed: Placed,
    plan: Plan,
}

impl Lookup {
    /// Prepares the query: the keys of a window joined with the table, by the equality that its unique index has.
    pub fn new(target: &Target) -> Self {
        let mapping = &target.mapping;
        let keys = mapping.key.len();
        let parameters = |key: usize| {
            let first = key * keys;
            let numbers: Vec<String> = (first + 1..=first + keys)
                .map(|number| format!("${number}"))
                .collect();
            format!("({})", numbers.join(", "))
        };
        let names: Vec<String> = (1..=keys).map(|number| format!("k{number}")).collect();
        let conditions: Vec<String> = mapping
            .key
            .iter()
            .zip(&names)
            .map(|(column, name)| format!("t.{} {} w.{name}", rows::quoted(&column.name), equality(column)))
            .collect();
        let sql = format!(
            "SELECT {} FROM (VALUES {}) w ({}) JOIN {} t ON {}",
            rows::columns(mapping, "t"),
            (0..WINDOW).map(parameters).collect::<Vec<_>>().join(", "),
            names.join(", "),
            rows::table(mapping),
            conditions.join(" AND "),
        );
        let mut types: Vec<Oid> = (0..WINDOW)
            .flat_map(|_| mapping.key.iter().map(|column| column.type_id))
            .collect();
        Self {
            placed: rows::placed(mapping),
            plan: Plan::prepare(&sql, &mut types),
        }
    }

    /// What the table says now of these keys, at most [`WINDOW`]. A key that is missing has no row.
    pub fn rows<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Values {
        let mapping = &self.placed.mapping;
        let mut found = Values::new();
        let _session = Session::open();
        let columns = mapping.key.len();
        let keys: Vec<&[u8]> = keys.collect();
        let mut parameters: Vec<Option<Datum>> = read_keys(mapping, &keys)
            .into_iter()
            .flatten()
            .map(Some)
            .collect();
        if parameters.is_empty() {
            return found;
        }
        parameters.resize(WINDOW * columns, None);
        let _snapshot = Snapshot::take();
        self.plan.run(&parameters, |slot| {
            row::with_scratch(|scratch| {
                // SAFETY: a row of the query that `placed` was made for.
                unsafe {
                    let row = Row::of(slot);
                    // A row whose key could be another's is stored under none.
                    if let Key::Good(_) = row::encode_key(&self.placed, row, scratch) {
                        let stored = row::encode_value(&self.placed, row, scratch, usize::MAX);
                        found.insert(scratch.key.clone(), stored.then(|| scratch.value.clone()));
                    }
                }
            });
        });
        found
    }
}

/// The equality operator of a column's default btree class, as SQL.
fn equality(column: &MappedColumn) -> String {
    // SAFETY: catalog look-ups within a transaction.
    unsafe {
        let entry = pg_sys::lookup_type_cache(column.type_id, pg_sys::TYPECACHE_EQ_OPR as i32);
        let operator = (*entry).eq_opr;
        if operator == pg_sys::InvalidOid {
            raise(
                PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
                format!(
                    "the type of key column \"{}\" has no equality operator",
                    column.name
                ),
                "",
                "",
            );
        }
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::OPEROID as _, Datum::from(operator));
        if tuple.is_null() {
            return "OPERATOR(pg_catalog.=)".to_string();
        }
        let form = (*tuple)
            .t_data
            .cast::<u8>()
            .add((*(*tuple).t_data).t_hoff as usize)
            .cast::<pg_sys::FormData_pg_operator>();
        let schema = nodes::bytes(pg_sys::get_namespace_name((*form).oprnamespace));
        let name = nodes::bytes((*form).oprname.data.as_ptr());
        let sql = format!(
            "OPERATOR({}.{})",
            rows::quoted(&String::from_utf8_lossy(schema)),
            String::from_utf8_lossy(name)
        );
        pg_sys::ReleaseSysCache(tuple);
        sql
    }
}

/// The column values of those keys that can have a row at all.
///
/// The input functions of types raise for a text that is none of theirs, such as a key `day:tomorrowish` over a
/// date. Then the window is halved until such keys stand alone: no row can have them.
fn read_keys(mapping: &ActiveMapping, keys: &[&[u8]]) -> Vec<Vec<Datum>> {
    match in_subtransaction(|| keys.iter().filter_map(|key| read_key(mapping, key)).collect()) {
        Some(read) => read,
        None if keys.len() == 1 => Vec::new(),
        None => {
            let (left, right) = keys.split_at(keys.len() / 2);
            let mut read = read_keys(mapping, left);
            read.extend(read_keys(mapping, right));
            read
        }
    }
}

fn read_key(mapping: &ActiveMapping, key: &[u8]) -> Option<Vec<Datum>> {
    let parts = mapping.definition.template.parse(key, &mapping.kinds)?;
    let texts: Option<Vec<&str>> = parts
        .into_iter()
        .map(|part| std::str::from_utf8(part).ok())
        .collect();
    // No text of the server has a NUL character.
    let texts = texts.filter(|texts| !texts.iter().any(|text| text.contains('\0')))?;
    let _pinned = Pinned::new(mapping.key_pinning);
    let read = |(column, text): (&MappedColumn, &str)| {
        // SAFETY: within a transaction.
        unsafe { column.read(text) }
    };
    Some(mapping.key.iter().zip(texts).map(read).collect())
}

/// Does some work in a subtransaction; `None` if it raised because of what it was given.
fn in_subtransaction<R>(work: impl FnOnce() -> R) -> Option<R> {
    // SAFETY: as PL/pgSQL does for a block with EXCEPTION (pl_exec.c, exec_stmt_block).
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
            .catch_others(|error| Err(Box::new(error)))
            .execute();
        if result.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        match result {
            Ok(result) => Some(result),
            Err(error) => match &*error {
                CaughtError::PostgresError(report) if is_about_values(report.sql_error_code()) => None,
                // Not before: whoever catches it would find a subtransaction open that is not his.
                _ => error.rethrow(),
            },
        }
    }
}
