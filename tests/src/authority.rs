//! Certificates made for one test.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::folder::Folder;

/// Until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// For longer than the test runs.
    Now,
    /// It was, long ago.
    Past,
}

/// A certificate and its key, in files that the servers' user owns; the key's is readable by nobody else.
#[derive(Clone, Debug)]
pub struct Paper {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// Who vouches for certificates. Its files are gone when it is dropped.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: Folder,
}

impl Authority {
    /// A new one of this name.
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("the certificate is well formed");
        let authority = Authority {
            issuer,
            folder: Folder::new(),
        };
        authority.write("ca.pem", &authority.issuer.pem(), 0o644);
        authority
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate for these hosts, as files named after the holder.
    pub fn issue(&self, holder: &str, hosts: &[&str], validity: Validity) -> Paper {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("the names are well formed");
        params.distinguished_name.push(DnType::CommonName, holder);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if validity == Validity::Past {
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the certificate is well formed");
        Paper {
            certificate: self.write(&format!("{holder}.pem"), &certificate.pem(), 0o644),
            key: self.write(&format!("{holder}.key"), &key.serialize_pem(), 0o600),
        }
    }

    /// Makes a file in its folder, of the servers' user.
    pub fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        self.folder.write(name, text, mode)
    }
}
