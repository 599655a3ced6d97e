//! TLS as settings and server options have it: which files, and what is in them.
//!
//! Nothing is read, and nothing of rustls is touched, unless an address wants TLS.
use std::fmt;

use pg_redis_cache_core::redis::{Pem, Tls, TlsError, TlsSettings, Verify};
use pgrx::PgSqlErrorCode;

use crate::{
    files::{self, FileProblem, Readers},
    gucs,
    sql::raise,
};

/// The files that settings or options name, empty where they name none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub authorities: String,
    pub certificate: String,
    pub key: String,
    pub verify: Verify,
}

/// Why there is no TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsProblem {
    File(FileProblem),
    Settings(TlsError),
}

impl TlsProblem {
    /// How to mend it.
    fn hint(&self) -> &'static str {
        match self {
            Self::File(FileProblem { hint, .. }) if !hint.is_empty() => hint,
            Self::Settings(TlsError::NoAuthorities) => {
                "Give tls_ca_file the certificate of the authority that has signed that of Redis."
            }
            _ => {
                "See tls_ca_file, tls_cert_file and tls_key_file: options of the server, and settings pg_redis_cache.…."
            }
        }
    }
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(problem) => problem.fmt(f),
            Self::Settings(problem) => problem.fmt(f),
        }
    }
}

impl TlsFiles {
    /// What the settings say.
    pub fn configured() -> Self {
        Self {
            authorities: gucs::text(&gucs::tls::CA_FILE),
            certificate: gucs::text(&gucs::tls::CERT_FILE),
            key: gucs::text(&gucs::tls::KEY_FILE),
            verify: gucs::tls::verify(),
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with which.
    pub fn read(&self) -> Result<TlsSettings, TlsProblem> {
        Ok(TlsSettings {
            authorities: read("tls_ca_file", &self.authorities, Readers::Anyone)?,
            certificate: read("tls_cert_file", &self.certificate, Readers::Anyone)?,
            key: read("tls_key_file", &self.key, Readers::Owner)?,
            verify: self.verify,
        })
    }

    /// What connections of this backend are made with, or raises.
    pub fn load(&self) -> Tls {
        let loaded = self
            .read()
            .and_then(|settings| Tls::new(&settings).map_err(TlsProblem::Settings));
        loaded.unwrap_or_else(|problem| {
            raise(
                PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR,
                "TLS to Redis cannot be set up",
                problem.to_string(),
                problem.hint(),
            )
        })
    }
}

fn read(setting: &'static str, path: &str, readers: Readers) -> Result<Option<Pem>, TlsProblem> {
    if path.is_empty() {
        return Ok(None);
    }
    let bytes = files::read(setting, path, readers).map_err(TlsProblem::File)?;
    let path = path.to_string();
    Ok(Some(Pem { path, bytes }))
}
