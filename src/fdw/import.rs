//! IMPORT FOREIGN SCHEMA: `mappings`, one table for each mapping of the database that works; or a pattern of keys, one
//! table for each group of them. Keys are grouped by what they have up to their last `:` and by their type.
use std::{
    collections::{BTreeMap, HashSet},
    ffi::CString,
};

use pg_redis_cache_core::fdw::{Commands, Kind, Reply, glob};
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_guard, pg_sys, pg_sys::panic::ErrorReport};

use super::{cache, key_scan, line::Line};
use crate::{
    capture::{
        columns::{MappedColumn, attribute_named},
        relations::{self, ActiveMapping},
    },
    gucs, nodes,
    sql::{self, keys, raise},
};

/// The remote schema that stands for the mappings.
const MAPPINGS: &[u8] = b"mappings";

/// ImportForeignSchema. LIMIT TO and EXCEPT are PostgreSQL's: it leaves out what is returned and not wanted.
#[pg_guard]
pub unsafe extern "C-unwind" fn import(
    statement: *mut pg_sys::ImportForeignSchemaStmt,
    server: pg_sys::Oid,
) -> *mut pg_sys::List {
    // SAFETY: the statement's own node.
    let (schema, server_name, options) = unsafe {
        let statement = &*statement;
        let server_name = text(nodes::bytes(statement.server_name));
        (
            nodes::bytes(statement.remote_schema),
            server_name,
            statement.options,
        )
    };
    if !options.is_null() {
        raise(
            PgSqlErrorCode::ERRCODE_FDW_INVALID_OPTION_NAME,
            "IMPORT FOREIGN SCHEMA takes no options here",
            "",
            "The remote schema is mappings, or a pattern of keys in double quotes.",
        );
    }
    let commands = if schema == MAPPINGS {
        // SAFETY: the statement's own node.
        mappings(&server_name, &|name| unsafe { is_wanted(statement, name) })
    } else {
        by_pattern(schema, server, &server_name)
    };
    commands.into_iter().fold(std::ptr::null_mut(), |list, command| {
        let command = CString::new(command).unwrap_or_default();
        // SAFETY: a list of strings in the current memory context.
        unsafe { pg_sys::lappend(list, pg_sys::pstrdup(command.as_ptr()).cast()) }
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A name as SQL reads it back.
fn quote_name(name: &str) -> String {
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: returns its argument, or a copy in the current memory context.
    text(unsafe { nodes::bytes(pg_sys::quote_identifier(name.as_ptr())) })
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether LIMIT TO and EXCEPT leave a table of that name in.
unsafe fn is_wanted(statement: *mut pg_sys::ImportForeignSchemaStmt, table: &str) -> bool {
    let table = CString::new(table).unwrap_or_default();
    // SAFETY: the statement's own node.
    unsafe { pg_sys::IsImportableForeignTable(table.as_ptr(), statement) }
}

/// A statement for each mapping of this database; a warning for each that is not active.
fn mappings(server: &str, is_wanted: &dyn Fn(&str) -> bool) -> Vec<String> {
    let shared = sql::shared();
    let default_database = gucs::text(&gucs::DATABASE);
    let database = relations::current_database();
    let listed = relations::listed();
    let here = listed.iter().filter(|mapping| {
        let of = mapping.effective_database(&default_database);
        database.as_deref() == Some(of) && is_wanted(&mapping.name)
    });
    here.filter_map(|mapping| {
        let problem = keys::problem(shared, mapping, &default_database);
        let active = relations::active_named(&mapping.name);
        if active.is_none() {
            no_table(&mapping.name, problem);
        }
        active.map(|mapping| mapping_table(&mapping, server))
    })
    .collect()
}

fn no_table(mapping: &str, problem: String) {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!("no table is made for mapping \"{mapping}\", which is not active"),
        "pg_redis_cache",
    )
    .set_detail(if gucs::ENABLED.get() {
        problem
    } else {
        "pg_redis_cache.enabled is off.".to_string()
    })
    .report(PgLogLevel::WARNING);
}

fn mapping_table(mapping: &ActiveMapping, server: &str) -> String {
    let mut named = HashSet::new();
    let table = relations::table_of(&mapping.definition);
    let keys = mapping.key.iter().map(|column| (column, " NOT NULL"));
    let values = mapping.value.iter().map(|column| (column, ""));
    let columns: Vec<String> = keys
        .chain(values)
        .filter(|(column, _)| named.insert(&column.name))
        .map(|(column, not_null)| {
            let (name, type_name) = (quote_name(&column.name), type_name(column));
            format!("{name} {type_name}{}{not_null}", collation(column, table))
        })
        .collect();
    let name = &mapping.definition.name;
    format!(
        "CREATE FOREIGN TABLE {} ({}) SERVER {} OPTIONS (mapping {})",
        quote_name(name),
        columns.join(", "),
        quote_name(server),
        literal(name)
    )
}

/// A column's type as a statement can name it, whatever the search_path.
fn type_name(column: &MappedColumn) -> String {
    let how = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_FORCE_QUALIFY;
    // SAFETY: a catalog look-up; the name is in the current memory context.
    unsafe {
        let name = pg_sys::format_type_extended(column.type_id, column.type_modifier, how as u16);
        text(nodes::bytes(name))
    }
}

/// The clause for a column's collation, unless it is that of its type.
fn collation(column: &MappedColumn, table: pg_sys::Oid) -> String {
    let Some(attribute) = attribute_named(table, &column.name) else {
        return String::new();
    };
    // SAFETY: catalog look-ups; the name is in the current memory context.
    unsafe {
        if attribute.collation == pg_sys::get_typcollation(column.type_id) {
            return String::new();
        }
        let name = pg_sys::generate_collation_name(attribute.collation);
        format!(" COLLATE {}", text(nodes::bytes(name)))
    }
}

/// What the tables of a pattern are over: a prefix of keys up to `:`, or a key without one.
type Group = (Vec<u8>, Kind);

fn by_pattern(pattern: &[u8], server: pg_sys::Oid, server_name: &str) -> Vec<String> {
    // SAFETY: reads a variable.
    let user = unsafe { pg_sys::GetUserId() };
    let mut line = cache::line(server, user, None);
    let mut groups: BTreeMap<Group, Vec<u8>> = BTreeMap::new();
    let mut cursor = key_scan::start();
    while let Some(from) = cursor {
        let (next, found) = key_scan::scan(&mut line, &from, pattern, None);
        for (key, kind) in kinds(&mut line, found) {
            let end = key
                .iter()
                .rposition(|byte| *byte == b':')
                .map_or(key.len(), |colon| colon + 1);
            groups.entry((key[..end].to_vec(), kind)).or_insert(key);
        }
        cursor = next;
    }
    let mut named = HashSet::new();
    let mut commands = Vec::new();
    for ((prefix, kind), example) in groups {
        let Some(table) = pattern_table(&mut line, &prefix, kind, &example, &mut named) else {
            continue;
        };
        commands.push(format!(
            "{table} SERVER {} OPTIONS ({})",
            quote_name(server_name),
            options(&prefix, kind)
        ));
    }
    commands
}

/// The keys that hold something that can be a table, with its type.
fn kinds(line: &mut Line, keys: Vec<Vec<u8>>) -> Vec<(Vec<u8>, Kind)> {
    let mut commands = Commands::default();
    keys.iter().for_each(|key| commands.push(&[b"TYPE", key]));
    line.send(&commands);
    let kind = |name: Vec<u8>| Kind::ALL.into_iter().find(|kind| kind.name().as_bytes() == name);
    keys.into_iter()
        .filter_map(|key| {
            let found = line.answer().into_bytes();
            Some((key, kind(found?)?))
        })
        .collect()
}

fn options(prefix: &[u8], kind: Kind) -> String {
    let mut keys = prefix.to_vec();
    if prefix.ends_with(b":") {
        keys = glob::escape(prefix);
        keys.push(b'*');
    }
    format!("table_type '{kind}', table_key_prefix {}", literal(&text(&keys)))
}

/// The beginning of the statement; none, with a warning, for what has no name that SQL takes.
fn pattern_table(
    line: &mut Line,
    prefix: &[u8],
    kind: Kind,
    example: &[u8],
    named: &mut HashSet<String>,
) -> Option<String> {
    let many = prefix.ends_with(b":");
    // A key that is no pattern by itself must not look like one.
    let unclear = !many && glob::is_glob(prefix);
    let base = std::str::from_utf8(prefix).ok().filter(|_| !unclear);
    let base = base
        .map(|prefix| prefix.trim_end_matches(':').replace(':', "_"))
        .unwrap_or_default();
    let name = [base.clone(), format!("{base}_{kind}")]
        .into_iter()
        .find(|name| !base.is_empty() && name.len() < pg_sys::NAMEDATALEN as usize && !named.contains(name));
    let Some(name) = name else {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("no table is made for the keys \"{}\"", text(prefix)),
            "pg_redis_cache",
        )
        .set_hint("They make no name that a table can have.")
        .report(PgLogLevel::WARNING);
        return None;
    };
    named.insert(name.clone());
    let key = if many { "key text, " } else { "" };
    let columns = match kind {
        Kind::String => "value text".to_string(),
        Kind::Hash => "field text, value text".to_string(),
        Kind::List => "element text".to_string(),
        Kind::Set => "member text".to_string(),
        Kind::Zset => "member text, score double precision".to_string(),
        Kind::Stream => entry_columns(line, example),
    };
    Some(format!(
        "CREATE FOREIGN TABLE {} ({key}{columns})",
        quote_name(&name)
    ))
}

/// A stream's columns, after the fields of its first entry.
fn entry_columns(line: &mut Line, key: &[u8]) -> String {
    let entries = line.ask(&[b"XRANGE", key, b"-", b"+", b"COUNT", b"1"]);
    let mut named = HashSet::from(["id".to_string(), "key".to_string(), "ttl".to_string()]);
    let mut columns = "id text".to_string();
    if let Reply::Array(mut entries) = entries
        && let Some(Reply::Array(mut entry)) = entries.pop()
        && let Some(Reply::Array(fields)) = entry.pop()
    {
        for field in fields.into_iter().step_by(2).filter_map(Reply::into_bytes) {
            if let Ok(field) = String::from_utf8(field)
                && !field.is_empty()
                && field.len() < pg_sys::NAMEDATALEN as usize
                && named.insert(field.clone())
            {
                columns.push_str(&format!(", {} text", quote_name(&field)));
            }
        }
    }
    if named.len() == 3 {
        columns.push_str(", field text");
    }
    columns
}
