//! TLS to Redis: what the settings say, made into what rustls connects with.
//!
//! Guarantees that nothing here shows a key, and that nothing is loaded before [`Tls::new`]. A certificate is looked
//! at as rustls does: version 3, its names in subjectAltName (a common name is not looked at), and an authority's own
//! certificate is no server's. Does not read files, which the caller does, nor look for revoked certificates.
//!
//! The connections of the worker's pool are made by the library, which is given the same files and level and looks at
//! certificates with the same verifier of rustls. Where nothing is to be verified it does not tell the host's name
//! either.

use std::fmt;
use std::io;
use std::sync::Arc;

use ::redis::{ClientTlsConfig, TlsCertificates};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

mod session;

pub use session::Session;

/// What of a server's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// That an authority vouches for it, that it is valid today, and that it names the host.
    #[default]
    Full,
    /// The same but for the host.
    Authority,
    /// Nothing: whoever is in between can read and change everything.
    Nothing,
}

impl Verify {
    /// The level of this name: `full`, `ca` or `none`, in any case.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "full" => Some(Self::Full),
            "ca" => Some(Self::Authority),
            "none" => Some(Self::Nothing),
            _ => None,
        }
    }
}

/// A file in PEM format, as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// Where it was read from, for messages.
    pub path: String,
    /// What it held; of a key this is secret.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({})", self.path)
    }
}

/// What the settings say, with the files that they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificates of authorities; none: those that the system trusts.
    pub authorities: Option<Pem>,
    /// This client's certificate, with those between it and its authority behind it.
    pub certificate: Option<Pem>,
    /// The key of that certificate, not encrypted.
    pub key: Option<Pem>,
    /// How far the server is to be trusted.
    pub verify: Verify,
}

/// Why settings of TLS cannot be used. No text of a file is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The file has no certificate, or none that can be read.
    NoCertificate {
        /// The file.
        path: String,
    },
    /// The file has no private key, or none that can be read.
    NoKey {
        /// The file.
        path: String,
    },
    /// The certificate and the key do not go together.
    Mismatch {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
    },
    /// There is a certificate without a key, or the other way round.
    Half,
    /// No authorities are named, and the system has none either.
    NoAuthorities,
    /// rustls does not take the settings.
    Unusable(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate { path } => {
                write!(f, "the file \"{path}\" has no valid certificate in PEM format")
            }
            Self::NoKey { path } => write!(
                f,
                "the file \"{path}\" has no valid private key in PEM format (an encrypted one cannot be used)"
            ),
            Self::Mismatch { certificate, key } => {
                write!(
                    f,
                    "the key in \"{key}\" is not that of the certificate in \"{certificate}\""
                )
            }
            Self::Half => f.write_str("tls_cert_file and tls_key_file must be given together"),
            Self::NoAuthorities => {
                f.write_str("the system has no certificates of authorities, and tls_ca_file names none")
            }
            Self::Unusable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for TlsError {}

/// What went wrong in a TLS connection beside what rustls says: the payload of an [`io::Error`].
#[derive(Debug)]
pub(super) struct TlsFailure(pub String);

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsFailure {}

/// Everything that is needed to open TLS connections.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    settings: Arc<TlsSettings>,
}

impl Tls {
    /// Loads the authorities, the certificate and the key.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier(settings, provider)?);
        let mut config = match (&settings.certificate, &settings.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|error| match error {
                    rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
                        certificate: certificate.path.clone(),
                        key: key.path.clone(),
                    },
                    other => unusable(other),
                })?,
            _ => return Err(TlsError::Half),
        };
        // Connections are few and last: there is nothing to resume, and nothing needs to be kept for it.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            settings: Arc::new(settings.clone()),
        })
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    pub(super) fn verify(&self) -> Verify {
        self.settings.verify
    }

    /// The same for the library whose connections the pool makes. Its rustls is given the provider here, which it
    /// cannot be given by itself.
    pub(super) fn certificates(&self) -> TlsCertificates {
        // An error means that there is one already.
        let _ = crypto::ring::default_provider().install_default();
        let settings = &self.settings;
        let client_tls = settings.certificate.as_ref().zip(settings.key.as_ref());
        TlsCertificates {
            client_tls: client_tls.map(|(certificate, key)| ClientTlsConfig {
                client_cert: certificate.bytes.clone(),
                client_key: key.bytes.clone(),
            }),
            // Never none: the library would then trust authorities of its own choice.
            root_cert: Some(match &settings.authorities {
                Some(pem) => pem.bytes.clone(),
                None => system_authorities(),
            }),
        }
    }
}

fn unusable(error: rustls::Error) -> TlsError {
    TlsError::Unusable(error.to_string())
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = || TlsError::NoCertificate {
        path: pem.path.clone(),
    };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.bytes).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(none)
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&pem.bytes).map_err(|_| TlsError::NoKey {
        path: pem.path.clone(),
    })
}

fn verifier(
    settings: &TlsSettings,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let algorithms = provider.signature_verification_algorithms;
    Ok(match settings.verify {
        Verify::Full => WebPkiServerVerifier::builder_with_provider(Arc::new(roots(settings)?), provider)
            .build()
            .map_err(|error| TlsError::Unusable(error.to_string()))?,
        Verify::Authority => Arc::new(Lenient {
            roots: Some(roots(settings)?),
            algorithms,
        }),
        Verify::Nothing => Arc::new(Lenient {
            roots: None,
            algorithms,
        }),
    })
}

fn roots(settings: &TlsSettings) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match &settings.authorities {
        Some(pem) => {
            for certificate in certificates(pem)? {
                store.add(certificate).map_err(|_| TlsError::NoCertificate {
                    path: pem.path.clone(),
                })?;
            }
        }
        None => {
            // Some of a system's may be of no use; that is no reason to do without the others.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        return Err(TlsError::NoAuthorities);
    }
    Ok(store)
}

/// Those authorities of the system that rustls can use, in PEM format.
fn system_authorities() -> Vec<u8> {
    let mut store = RootCertStore::empty();
    let all = rustls_native_certs::load_native_certs().certs;
    let usable = all.into_iter().filter(|der| store.add(der.clone()).is_ok());
    let usable: Vec<_> = usable.map(|der| pem::Pem::new("CERTIFICATE", &*der)).collect();
    pem::encode_many(&usable).into_bytes()
}

/// Does not ask whether the certificate names the host and, without authorities, who vouches for it.
#[derive(Debug)]
struct Lenient {
    roots: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(certificate)?;
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // That the server has the certificate's key is always verified.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a certificate has to name for this host: an IPv6 address counts without its zone.
///
/// # Errors
/// It is no name that a certificate could have.
pub(super) fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(certified(host).to_owned())
        .map_err(|_| failure(format!("\"{host}\" is no name that a certificate can have")))
}

/// The part of a host that a certificate can name: an IPv6 address without its zone.
pub(super) fn certified(host: &str) -> &str {
    host.split_once('%').map_or(host, |(address, _zone)| address)
}

/// Nobody has answered in TLS.
pub fn unanswered(after: std::time::Duration) -> io::Error {
    failure(format!(
        "no handshake within {} ms: does the port speak TLS?",
        after.as_millis()
    ))
}

fn failure(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, TlsFailure(text))
}

#[cfg(test)]
mod tests;
