//! `use_remote_estimate 'on'`: how many rows a table has, asked of Redis while a statement is planned.
//!
//! A collection's size is one command, and exact. Of a pattern's keys a sample is taken: one step of a SCAN tells what
//! share of the keys match, and the sizes of some of them tell the rest; so it is two round trips, however many there
//! are.
//!
//! Without an answer the guess is taken ([`super::plan`]): Redis may be away, busy, or not allow its user these
//! commands. Whether the statement can be carried out is found out when it is; EXPLAIN works all the same.
use std::panic::AssertUnwindSafe;

use pg_redis_cache_core::fdw::{
    Access, Commands, Counting, Kind, ReadProblem, Reply, counting, options::Keys, step,
};
use pgrx::{
    PgSqlErrorCode, PgTryBuilder,
    pg_sys::{Oid, panic::CaughtError},
};

use super::{cache, line::Line, table::Table};

/// How many keys the step of a SCAN looks at.
const LOOKED_AT: u32 = 1_000;
/// How many of those that match are asked for their sizes.
const ASKED: usize = 100;

/// The rows of a table; none if Redis does not say.
pub fn rows(table: &Table, user: Oid) -> Option<f64> {
    PgTryBuilder::new(AssertUnwindSafe(|| ask(table, user)))
        .catch_others(|caught| match &caught {
            // Raised by this library itself, with nothing of the server's half done.
            CaughtError::ErrorReport(report) if is_about_connections(report.sql_error_code()) => None,
            _ => caught.rethrow(),
        })
        .execute()
}

fn is_about_connections(code: PgSqlErrorCode) -> bool {
    matches!(
        code,
        PgSqlErrorCode::ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION
            | PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE
            | PgSqlErrorCode::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION
            | PgSqlErrorCode::ERRCODE_TOO_MANY_CONNECTIONS
            | PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR
            | PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION
            | PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION
            | PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE
            | PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION
            | PgSqlErrorCode::ERRCODE_FDW_ERROR
    )
}

fn ask(table: &Table, user: Oid) -> Option<f64> {
    let mut line = cache::line_of(table, user);
    let kind = table.options.kind;
    match &table.layout.keys {
        Keys::One(_) => {
            let access = Access::new(kind, &table.layout.keys, Vec::new());
            let rows = total(&mut Counting::new(kind, true, access), &mut line).ok()?;
            Some(rows as f64)
        }
        Keys::Matching(pattern) => sample(&mut line, pattern, kind, table.mapping.is_some()),
    }
}

/// What there is to count, counted.
///
/// # Errors
/// What keeps it from being counted.
pub fn total(counting: &mut Counting, line: &mut Line) -> Result<u64, ReadProblem> {
    loop {
        let mut commands = Commands::default();
        counting.ask(&mut commands);
        if commands.count == 0 {
            return Ok(counting.total());
        }
        line.send(&commands);
        while counting.is_waiting() {
            counting.answer(line.receive())?;
        }
    }
}

fn sample(line: &mut Line, pattern: &[u8], kind: Kind, is_mapping: bool) -> Option<f64> {
    let mut commands = Commands::default();
    commands.push(&[b"DBSIZE"]);
    step::push_scan(&mut commands, b"0", pattern, LOOKED_AT as usize, Some(kind));
    line.send(&commands);
    let (all, found) = (line.receive(), line.receive());
    let (Reply::Integer(all), Reply::Array(parts)) = (all, found) else {
        return None;
    };
    let (next, found) = step::cursor_and_found(parts).ok()?;
    let keys = if next.is_none() {
        found.len() as f64
    } else {
        // With none among those that were looked at, there may still be some.
        let share = (found.len() as f64).max(0.5) / f64::from(LOOKED_AT);
        all as f64 * share
    };
    if kind == Kind::String || is_mapping || found.is_empty() {
        return Some(keys);
    }
    let mut commands = Commands::default();
    for key in found.into_iter().take(ASKED).filter_map(Reply::into_bytes) {
        commands.push(&[counting::size(kind).as_bytes(), &key]);
    }
    line.send(&commands);
    let sizes: Vec<Reply> = (0..commands.count).map(|_| line.receive()).collect();
    let sizes = sizes.into_iter().filter_map(|size| match size {
        Reply::Integer(size) => Some(size as f64),
        _ => None,
    });
    Some(keys * sizes.sum::<f64>() / commands.count.max(1) as f64)
}
