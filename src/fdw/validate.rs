//! `redis_fdw_validator(text[], oid)`: judges the options of a wrapper, server, user mapping or table as they are set.
use pg_redis_cache_core::fdw::{
    Place,
    options::{self, Given},
};
use pgrx::{
    PgLogLevel, PgSqlErrorCode, pg_guard,
    pg_sys::{self, Datum, Oid, panic::ErrorReport},
};

use super::{catalog, error};
use crate::sql::raise;

/// The function that PostgreSQL calls.
///
/// # Safety
/// By the function manager alone, with the arguments of its declaration.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn redis_fdw_validator(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: declared strict, with an array of texts and an Oid.
    let (given, catalog) = unsafe {
        let arguments = (*call).args.as_slice(2);
        let list = pg_sys::untransformRelOptions(arguments[0].value);
        (
            catalog::options(list),
            Oid::from(arguments[1].value.value() as u32),
        )
    };
    match options::check(place(catalog), &given) {
        Ok(ignored) => ignored.iter().for_each(|problem| {
            ErrorReport::new(
                PgSqlErrorCode::ERRCODE_WARNING,
                problem.to_string(),
                "pg_redis_cache",
            )
            .set_hint(problem.hint())
            .report(PgLogLevel::WARNING);
        }),
        Err(problem) => error::option(&problem),
    }
    check_files(&given);
    if catalog == pg_sys::ForeignServerRelationId {
        check_address(&given);
    }
    Datum::from(0usize)
}

/// What the server asks of a C function (fmgr.h, `PG_FUNCTION_INFO_V1`).
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_redis_fdw_validator() -> &'static pg_sys::Pg_finfo_record {
    const VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &VERSION_1
}

fn place(catalog: Oid) -> Place {
    match catalog {
        pg_sys::ForeignServerRelationId => Place::Server,
        pg_sys::UserMappingRelationId => Place::UserMapping,
        pg_sys::ForeignTableRelationId => Place::Table,
        pg_sys::AttributeRelationId => Place::Column,
        _ => Place::Wrapper,
    }
}

/// Who names a file learns from errors whether it is there and what it is; so only a superuser may, as with sslcert and
/// sslkey of postgres_fdw (option.c, postgres_fdw_validator). It also keeps others from leading a server with a
/// superuser's certificate elsewhere.
fn check_files(given: &[Given]) {
    // SAFETY: a catalog look-up within a transaction.
    if given
        .iter()
        .any(|(name, _)| options::FILES.contains(&name.as_str()))
        && !unsafe { pg_sys::superuser() }
    {
        raise(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "permission denied for options that name files",
            "Only a superuser can create or alter a server with tls_ca_file, tls_cert_file or tls_key_file.",
            "Without tls_ca_file the setting pg_redis_cache.tls_ca_file holds.",
        )
    }
}

/// A server without an address logs in as the cache does, so only a superuser may make one.
fn check_address(given: &[Given]) {
    // SAFETY: a catalog look-up within a transaction.
    if !options::have_address(given) && !unsafe { pg_sys::superuser() } {
        raise(
            PgSqlErrorCode::ERRCODE_FDW_OPTION_NAME_NOT_FOUND,
            "option \"host_port\" is missing",
            "Only a superuser's server can use the address and password of pg_redis_cache.url.",
            "Give the server the option host_port or url.",
        );
    }
}
