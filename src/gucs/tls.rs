//! The settings of TLS.
use std::ffi::{CStr, CString};

use pg_redis_cache_core::redis::Verify;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

pub static CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static CERT_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
pub static KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static VERIFY: GucSetting<Level> = GucSetting::<Level>::new(Level::Full);

/// [`Verify`] as guc.c lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
enum Level {
    #[name = c"full"]
    Full,
    #[name = c"ca"]
    Authority,
    #[name = c"none"]
    Nothing,
}

/// What of a server's certificate is verified.
pub fn verify() -> Verify {
    match VERIFY.get() {
        Level::Full => Verify::Full,
        Level::Authority => Verify::Authority,
        Level::Nothing => Verify::Nothing,
    }
}

pub fn init() {
    let files: [(
        &'static CStr,
        &'static CStr,
        &'static CStr,
        &'static GucSetting<_>,
    ); 3] = [
        (
            c"pg_redis_cache.tls_ca_file",
            c"Certificates of the authorities that vouch for Redis, in PEM format.",
            c"Empty: those that the system trusts.",
            &CA_FILE,
        ),
        (
            c"pg_redis_cache.tls_cert_file",
            c"The certificate that is shown to Redis, in PEM format.",
            c"Goes with tls_key_file.",
            &CERT_FILE,
        ),
        (
            c"pg_redis_cache.tls_key_file",
            c"The private key of tls_cert_file, in PEM format, not encrypted.",
            c"It must be readable by the server's owner only.",
            &KEY_FILE,
        ),
    ];
    for (name, description, more, setting) in files {
        GucRegistry::define_string_guc(
            name,
            description,
            more,
            setting,
            GucContext::Sighup,
            GucFlags::default(),
        );
    }
    GucRegistry::define_enum_guc(
        c"pg_redis_cache.tls_verify",
        c"What of the certificate of Redis is verified: full, ca (not the host's name) or none.",
        c"",
        &VERIFY,
        GucContext::Sighup,
        GucFlags::default(),
    );
}
