//! Statements of tests, and what becomes of them.

use postgres::{Client, error::DbError};

/// The error that a statement, or one of several, ends with.
///
/// # Panics
/// If it ends well, or otherwise than by PostgreSQL's word.
pub fn refusal(client: &mut Client, sql: &str) -> DbError {
    let error = client.batch_execute(sql).expect_err(sql);
    let told = error.as_db_error();
    told.unwrap_or_else(|| panic!("{sql}: {error:?}")).clone()
}

/// The only column of the only row.
///
/// # Panics
/// If there is none, or it is no bigint.
pub fn number(client: &mut Client, sql: &str) -> i64 {
    let row = client.query_one(sql, &[]);
    row.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// Replaces the foreign server `r` by one with these options, and all that stood on it by what `more` makes.
///
/// # Panics
/// If that is refused.
pub fn replace_server(client: &mut Client, options: &str, more: &str) {
    let sql = format!(
        "DROP SERVER IF EXISTS r CASCADE; \
         CREATE SERVER r FOREIGN DATA WRAPPER redis_cache_fdw OPTIONS ({options}); {more}"
    );
    client
        .batch_execute(&sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}
