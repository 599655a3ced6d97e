//! What goes wrong between a foreign table and Redis, as PostgreSQL's errors. No text has a password in it.
use std::io;

use pg_redis_cache_core::{
    fdw::{Kind, OptionProblem, ReadProblem, options::Keys},
    redis::{Address, Cause, Kind as Trouble},
};
use pgrx::PgSqlErrorCode;

use super::table::Table;
use crate::{
    gucs,
    sql::{raise, sqlstate},
};

/// Where to look when the two do not come together on TLS.
const TLS_HINT: &str = "See the server's options tls_ca_file, tls_cert_file, tls_key_file and tls_verify, or the settings pg_redis_cache.tls_….";

/// What a statement that changes something has to reckon with.
const UNKNOWN_FATE: &str = "What was being changed may have been changed, or may still be.";

/// No connection could be made.
pub fn unreachable_server(address: &str, problem: &io::Error) -> ! {
    let cause = Cause::of_io(problem);
    let code = match cause.kind() {
        // Nothing was lost: there was no connection yet.
        Trouble::TimedOut | Trouble::Lost => PgSqlErrorCode::ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION,
        _ => sqlstate::of(&cause),
    };
    raise(
        code,
        format!("Redis at {address} cannot be reached"),
        cause.to_string(),
        match cause.kind() {
            Trouble::Tls => TLS_HINT,
            _ => "See the server's option host_port or url; without them, the setting pg_redis_cache.url.",
        },
    )
}

/// A connection was made, and broke before anything was answered, or nothing was in time.
pub fn unanswered(address: &Address, problem: &io::Error) -> ! {
    let cause = match problem.kind() {
        io::ErrorKind::TimedOut => Cause::Timeout {
            after: gucs::command_timeout(),
        },
        _ => Cause::of_io(problem).before_any_answer(address),
    };
    unreachable_server(&address.masked(), &cause.into_io())
}

/// The options of a server are for superusers to set, and nobody has judged them (the wrapper has no validator).
pub fn untrusted(server: &str) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("server \"{server}\" cannot be used"),
        "Only a superuser's server can do without host_port and url, or have tls_ca_file, tls_cert_file or tls_key_file.",
        "Have a superuser make the server, or give its wrapper the validator redis_cache.redis_fdw_validator.",
    )
}

/// A connection broke, or an answer did not come in time.
pub fn lost(address: &str, problem: &io::Error) -> ! {
    let cause = Cause::of_io(problem);
    let (detail, hint) = match (problem.kind(), cause.kind()) {
        (_, Trouble::Tls) => (cause.to_string(), TLS_HINT),
        (io::ErrorKind::TimedOut, _) => (
            "There was no answer within pg_redis_cache.command_timeout.".to_string(),
            UNKNOWN_FATE,
        ),
        (io::ErrorKind::UnexpectedEof, _) => ("Redis closed the connection.".to_string(), UNKNOWN_FATE),
        _ => (cause.to_string(), UNKNOWN_FATE),
    };
    raise(
        sqlstate::of(&cause),
        format!("the connection to Redis at {address} was lost"),
        detail,
        hint,
    )
}

/// Keys of a mapping can be deleted where the worker writes them alone.
pub fn elsewhere(server: &str) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "keys of a mapping cannot be deleted through a server with an address of its own",
        format!(
            "Server \"{server}\" has an address of its own; the mapping's keys are at pg_redis_cache.url."
        ),
        "Make the foreign table on the server redis_cache.",
    )
}

/// What came is not the protocol.
pub fn garbled(address: &str) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
        format!("Redis at {address} sent what is no answer"),
        "",
        "Is it Redis that listens there? If it speaks TLS, the address must begin with rediss://.",
    )
}

/// A table could not be read.
pub fn unread(table: &Table, problem: &ReadProblem, address: &str) -> ! {
    match problem {
        ReadProblem::OtherType => {
            let (Keys::One(key) | Keys::Matching(key)) = &table.options.keys;
            wrong_type(key, table.options.kind)
        }
        ReadProblem::Refused(text) => refused(text),
        ReadProblem::Unexpected => garbled(address),
    }
}

/// Redis said no; the text begins with a code. Of it only the first words are shown.
pub fn refused(text: &str) -> ! {
    let cause = Cause::of_text(text);
    let (code, hint) = match text.split(' ').next().unwrap_or_default() {
        "MOVED" | "ASK" | "CROSSSLOT" => (
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "The server is part of a Redis Cluster: give it the option cluster_mode 'true', and its user CLUSTER SLOTS.",
        ),
        _ if cause.kind() == Trouble::Auth => (
            sqlstate::of(&cause),
            "Give username and password in a user mapping.",
        ),
        _ => (sqlstate::of(&cause), ""),
    };
    raise(code, "Redis refused a command", cause.to_string(), hint)
}

/// A key holds another type than its table.
pub fn wrong_type(key: &[u8], kind: Kind) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
        format!(
            "the key \"{}\" holds another type than {kind}",
            String::from_utf8_lossy(key)
        ),
        "",
        "See the table's option table_type.",
    )
}

/// Redis has not carried out a change.
pub fn change_refused(text: &str) -> ! {
    let mut words = text.split(' ');
    match words.next() {
        Some("WRONGTYPE") => raise(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            "a key holds another type than its table",
            "",
            "See the table's option table_type.",
        ),
        Some("CHANGED") => raise(
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            "a list was changed while the statement read it",
            "Nothing of that list has been changed by this statement.",
            "Try again.",
        ),
        Some("INDEX") => raise(
            PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            format!(
                "index {} is behind the end of the list",
                words.next().unwrap_or_default()
            ),
            format!("The list has {} elements.", words.next().unwrap_or_default()),
            "Without an index the element goes to the list's end.",
        ),
        _ => refused(text),
    }
}

/// An option cannot be used.
pub fn option(problem: &OptionProblem) -> ! {
    let code = match problem {
        OptionProblem::Unknown { .. } => PgSqlErrorCode::ERRCODE_FDW_INVALID_OPTION_NAME,
        OptionProblem::Missing { .. } => PgSqlErrorCode::ERRCODE_FDW_OPTION_NAME_NOT_FOUND,
        OptionProblem::Value { .. }
        | OptionProblem::Address { .. }
        | OptionProblem::MixedTls { .. }
        | OptionProblem::Url { .. }
        | OptionProblem::TwoAddresses => PgSqlErrorCode::ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
    };
    raise(code, problem.to_string(), "", problem.hint())
}
