//! What went wrong between a backend and Redis, as SQLSTATE.
use pg_redis_cache_core::redis::{Cause, Kind};
use pgrx::PgSqlErrorCode;

/// The SQLSTATE of a cause: one for each kind, and its own for what an ACL forbids.
pub fn of(cause: &Cause) -> PgSqlErrorCode {
    match cause.kind() {
        Kind::Refused => PgSqlErrorCode::ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION,
        Kind::Tls => PgSqlErrorCode::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
        Kind::TimedOut | Kind::Lost => PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
        Kind::PoolExhausted => PgSqlErrorCode::ERRCODE_TOO_MANY_CONNECTIONS,
        Kind::Auth => PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
        Kind::ReadOnly => PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
        Kind::OutOfMemory => PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        Kind::Protocol => PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
        Kind::Rejected => match cause {
            Cause::Server { code, .. } if code == "NOPERM" => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            _ => PgSqlErrorCode::ERRCODE_FDW_ERROR,
        },
    }
}
