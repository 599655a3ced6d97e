//! TRUNCATE of foreign tables: the one key, or every key of the pattern that holds the table's type.
use std::collections::{HashSet, VecDeque};

use pg_redis_cache_core::fdw::{
    Commands, Kind, Reply,
    options::Keys,
    step::{self, Key},
};
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};

use super::{cache, connection::Line, error, pending, table::Table};
use crate::{
    nodes,
    sql::{self, queue, raise},
};

/// How many keys are looked at, and removed, at a time.
const KEYS_AT_ONCE: &[u8] = b"1000";

/// ExecForeignTruncate.
#[pg_guard]
pub unsafe extern "C-unwind" fn truncate(
    relations: *mut pg_sys::List,
    _behavior: pg_sys::DropBehavior::Type,
    _restart_sequences: bool,
) {
    // SAFETY: a list of open foreign tables of ours.
    let tables: Vec<Table> = unsafe {
        nodes::items::<pg_sys::RelationData>(relations)
            .map(|relation| Table::of(relation))
            .collect()
    };
    // SAFETY: reads a variable.
    let user = unsafe { pg_sys::GetUserId() };
    for table in tables {
        if let Some(mapping) = &table.mapping {
            queue::invalidate_mapping(sql::shared(), mapping.index);
            continue;
        }
        let mut line = cache::line(table.server, user, table.options.database);
        match &table.layout.keys {
            _ if table.options.transactional => keep(&table, user, &mut line),
            Keys::One(key) => one(&mut line, key, table.options.kind),
            Keys::Matching(pattern) => matching(&mut line, pattern, table.options.kind),
        }
    }
}

fn one(line: &mut Line, key: &[u8], kind: Kind) {
    let found = ask(line, &[b"TYPE", key]);
    match found {
        Reply::Status(found) if found == kind.name().as_bytes() => {
            ask(line, &[b"UNLINK", key]);
        }
        Reply::Status(found) if found != b"none" => raise(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!(
                "the key \"{}\" holds another type than {kind}",
                String::from_utf8_lossy(key)
            ),
            "",
            "See the table's option table_type.",
        ),
        _ => {}
    }
}

/// Each step's keys go with the next step's command.
fn matching(line: &mut Line, pattern: &[u8], kind: Kind) {
    let mut cursor = Some(b"0".to_vec());
    let mut found: VecDeque<Vec<u8>> = VecDeque::new();
    while cursor.is_some() || !found.is_empty() {
        let mut commands = Commands::default();
        let removes = !found.is_empty();
        if removes {
            commands.begin(1 + found.len());
            commands.word(b"UNLINK");
            found.drain(..).for_each(|key| commands.word(&key));
        }
        if let Some(cursor) = &cursor {
            let kind = kind.name().as_bytes();
            commands.push(&[
                b"SCAN",
                cursor,
                b"MATCH",
                pattern,
                b"COUNT",
                KEYS_AT_ONCE,
                b"TYPE",
                kind,
            ]);
        }
        line.send(&commands);
        if removes {
            answer(line);
        }
        if cursor.is_some() {
            let Reply::Array(parts) = answer(line) else {
                error::garbled(&line.address())
            };
            let (next, keys) =
                step::cursor_and_found(parts).unwrap_or_else(|_| error::garbled(&line.address()));
            found.extend(keys.into_iter().filter_map(Reply::into_bytes));
            cursor = next;
        }
    }
}

/// Notes what is there now for removal at COMMIT.
fn keep(table: &Table, user: pg_sys::Oid, line: &mut Line) {
    pending::check_unchanged(table);
    let keys: HashSet<Key> = match &table.layout.keys {
        Keys::One(_) => HashSet::from([table.one_key()]),
        Keys::Matching(pattern) => {
            let mut keys = HashSet::new();
            let mut cursor = Some(b"0".to_vec());
            while let Some(from) = cursor {
                let kind = table.options.kind.name().as_bytes();
                let scan: [&[u8]; 8] = [
                    b"SCAN",
                    &from,
                    b"MATCH",
                    pattern,
                    b"COUNT",
                    KEYS_AT_ONCE,
                    b"TYPE",
                    kind,
                ];
                let Reply::Array(parts) = ask(line, &scan) else {
                    error::garbled(&line.address())
                };
                let (next, found) =
                    step::cursor_and_found(parts).unwrap_or_else(|_| error::garbled(&line.address()));
                keys.extend(found.into_iter().filter_map(Reply::into_bytes).map(Key::from));
                cursor = next;
            }
            keys
        }
    };
    let mut commands = Commands::default();
    keys.iter().for_each(|key| commands.push(&[b"UNLINK", key]));
    pending::add(table, user, commands, keys);
}

fn ask(line: &mut Line, words: &[&[u8]]) -> Reply {
    let mut commands = Commands::default();
    commands.push(words);
    line.send(&commands);
    answer(line)
}

fn answer(line: &mut Line) -> Reply {
    let reply = line.receive();
    match reply.error() {
        Some(text) => error::refused(text),
        None => reply,
    }
}
