//! TRUNCATE of foreign tables: the one key, or every key of the pattern that holds the table's type.
use std::collections::HashSet;

use pg_redis_cache_core::fdw::{Commands, Kind, Reply, options::Keys, step::Key};
use pgrx::{pg_guard, pg_sys};

use super::{cache, error, key_scan, line::Line, pending, table::Table};
use crate::{
    nodes,
    sql::{self, queue},
};

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
            table.check_is_cache();
            queue::invalidate_mapping(sql::shared(), mapping.index);
            continue;
        }
        let mut line = cache::line_of(&table, user);
        match &table.layout.keys {
            _ if table.options.transactional => keep(&table, user, &mut line),
            Keys::One(key) => one(&mut line, key, table.options.kind),
            Keys::Matching(pattern) => matching(&mut line, pattern, table.options.kind),
        }
    }
}

fn one(line: &mut Line, key: &[u8], kind: Kind) {
    match line.ask(&[b"TYPE", key]) {
        Reply::Status(found) if found == kind.name().as_bytes() => {
            line.ask(&[b"UNLINK", key]);
        }
        Reply::Status(found) if found != b"none" => error::wrong_type(key, kind),
        _ => {}
    }
}

/// Each step's keys go with the next step's command.
fn matching(line: &mut Line, pattern: &[u8], kind: Kind) {
    let mut cursor = key_scan::start();
    let mut found: Vec<Vec<u8>> = Vec::new();
    while cursor.is_some() || !found.is_empty() {
        let mut commands = Commands::default();
        let removes = !found.is_empty();
        if removes {
            commands.begin(1 + found.len());
            commands.word(b"UNLINK");
            found.drain(..).for_each(|key| commands.word(&key));
        }
        if let Some(cursor) = &cursor {
            key_scan::push_scan(&mut commands, cursor, pattern, Some(kind));
        }
        line.send(&commands);
        if removes {
            line.answer();
        }
        if cursor.is_some() {
            (cursor, found) = key_scan::receive(line);
        }
    }
}

/// Notes what is there now for removal at COMMIT.
fn keep(table: &Table, user: pg_sys::Oid, line: &mut Line) {
    pending::check_unchanged(table);
    let removed = match &table.layout.keys {
        Keys::One(_) => HashSet::from([table.one_key()]),
        Keys::Matching(pattern) => every_key(line, pattern, table.options.kind),
    };
    let mut commands = Commands::default();
    removed.iter().for_each(|key| commands.push(&[b"UNLINK", key]));
    pending::add(table, user, commands, removed);
}

fn every_key(line: &mut Line, pattern: &[u8], kind: Kind) -> HashSet<Key> {
    let mut every = HashSet::new();
    let mut cursor = key_scan::start();
    while let Some(from) = cursor {
        let (next, found) = key_scan::scan(line, &from, pattern, Some(kind));
        every.extend(found.into_iter().map(Key::from));
        cursor = next;
    }
    every
}
