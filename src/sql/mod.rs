//! The functions and views of schema `redis_cache`.
mod attach;
pub mod client;
mod connections;
pub mod keys;
mod predicate;
mod progress;
pub mod queue;
mod rows;
mod servers;
pub mod sqlstate;
mod verify;
mod views;
mod warm;

use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys::panic::ErrorReport};

use crate::shared::Shared;

pgrx::extension_sql_file!("../../sql/views.sql", name = "views", finalize);

/// An ERROR with everything that a user needs to mend it.
pub fn raise(
    code: PgSqlErrorCode,
    message: impl Into<String>,
    detail: impl Into<String>,
    hint: impl Into<String>,
) -> ! {
    let (message, detail, hint): (String, String, String) = (message.into(), detail.into(), hint.into());
    let mut report = ErrorReport::new(code, message, "pg_redis_cache");
    if !detail.is_empty() {
        report = report.set_detail(detail);
    }
    if !hint.is_empty() {
        report = report.set_hint(hint);
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// The shared memory, or an ERROR if the library was not preloaded.
pub fn shared() -> Shared {
    Shared::get().unwrap_or_else(|| {
        raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "pg_redis_cache has not been loaded at server start",
            "",
            "Add pg_redis_cache to shared_preload_libraries in postgresql.conf and restart the server.",
        )
    })
}

/// The name of a mapping, of a function whose other argument may be NULL.
fn given(mapping: Option<&str>) -> &str {
    mapping.unwrap_or_else(|| {
        raise(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            "the name of the mapping is NULL",
            "",
            "The view redis_cache.mappings lists the mappings.",
        )
    })
}

/// Whether an error is of the classes 22 (data exception) or 23 (a domain's constraint), or what a function of a
/// domain's constraint raises by itself (P0).
pub fn is_about_values(code: PgSqlErrorCode) -> bool {
    /// utils/elog.h, MAKE_SQLSTATE: six bits for each of the code's characters, the first one lowest.
    const fn class(first: u8, second: u8) -> i32 {
        (first - b'0') as i32 & 0x3f | ((second - b'0') as i32 & 0x3f) << 6
    }
    let of = code as i32 & 0xfff;
    of == class(b'2', b'2') || of == class(b'2', b'3') || of == class(b'P', b'0')
}
