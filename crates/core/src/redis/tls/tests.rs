use std::collections::VecDeque;
use std::io::{self, Read, Write};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection};

use super::*;

/// An authority, and a server's certificate for `redis.test` with its key.
struct Paper {
    authority: String,
    certificate: String,
    key: String,
}

fn paper() -> Paper {
    paper_of("the authority")
}

fn paper_of(authority: &str) -> Paper {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, authority);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["redis.test".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Paper {
        authority: issuer.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

fn pem(path: &str, text: &str) -> Pem {
    Pem {
        path: path.to_owned(),
        bytes: text.as_bytes().to_vec(),
    }
}

fn server(paper: &Paper) -> ServerConnection {
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            certificates(&pem("c", &paper.certificate)).unwrap(),
            private_key(&pem("k", &paper.key)).unwrap(),
        );
    let mut server = ServerConnection::new(Arc::new(config.unwrap())).unwrap();
    server.set_buffer_limit(None);
    server
}

/// The client's end of a wire to a server in the same thread. It takes and gives one byte at a time, and would block
/// in between.
struct Drip {
    server: ServerConnection,
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    rested: bool,
}

impl Drip {
    fn new(server: ServerConnection) -> Self {
        Self {
            server,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            rested: false,
        }
    }

    /// Every other call would block.
    fn rest(&mut self) -> io::Result<()> {
        self.rested = !self.rested;
        if self.rested {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(())
        }
    }

    /// What the server makes of what has come: an echo, in capitals.
    fn serve(&mut self) {
        let mut heard = Vec::new();
        while !self.to_server.is_empty() {
            self.server.read_tls(&mut self.to_server).unwrap();
            let _ = self.server.process_new_packets();
            let _ = self.server.reader().read_to_end(&mut heard);
        }
        heard.make_ascii_uppercase();
        self.server.writer().write_all(&heard).unwrap();
        while self.server.wants_write() {
            self.server.write_tls(&mut self.to_client).unwrap();
        }
    }
}

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest()?;
        self.serve();
        match self.to_client.pop_front() {
            Some(byte) => {
                buffer[0] = byte;
                Ok(1)
            }
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Drip {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.rest()?;
        self.to_server.push_back(buffer[0]);
        Ok(1)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Calls until it does not block; gives up where that is for ever.
fn patiently<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..100_000 {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
    panic!("it blocks for ever")
}

fn shaken(paper: &Paper, settings: &TlsSettings, host: &str) -> io::Result<Session<Drip>> {
    let tls = Tls::new(settings).unwrap();
    let mut session = Session::new(&tls, host, Drip::new(server(paper)))?;
    patiently(|| session.flush())?;
    Ok(session)
}

fn trusting(paper: &Paper, verify: Verify) -> TlsSettings {
    TlsSettings {
        authorities: Some(pem("ca", &paper.authority)),
        verify,
        ..TlsSettings::default()
    }
}

#[test]
fn both_directions_can_be_stopped_at_any_byte() {
    let paper = paper();
    let mut session = shaken(&paper, &trusting(&paper, Verify::Full), "redis.test").unwrap();
    // More than rustls buffers at a time.
    let said: Vec<u8> = (0..100_000).map(|at| b'a' + (at % 26) as u8).collect();
    let mut heard = Vec::new();
    let mut rest = said.as_slice();
    while !rest.is_empty() {
        let taken = patiently(|| session.write(rest)).unwrap();
        rest = &rest[taken..];
    }
    patiently(|| session.flush()).unwrap();
    while heard.len() < said.len() {
        let mut buffer = [0; 1000];
        let count = patiently(|| session.read(&mut buffer)).unwrap();
        heard.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(heard, said.to_ascii_uppercase());
}

#[test]
fn an_idle_session_is_told_from_one_with_something_to_read() {
    let paper = paper();
    let mut session = shaken(&paper, &trusting(&paper, Verify::Full), "redis.test").unwrap();
    // The server's tickets are on their way, and are nothing to read.
    session.socket.serve();
    assert!(!session.socket.to_client.is_empty());
    for _ in 0..2 * session.socket.to_client.len() {
        assert!(session.is_idle());
    }
    session.socket.server.writer().write_all(b"unasked").unwrap();
    session.socket.serve();
    assert!((0..10_000).any(|_| !session.is_idle()));

    let mut session = shaken(&paper, &trusting(&paper, Verify::Full), "redis.test").unwrap();
    session.socket.server.send_close_notify();
    session.socket.serve();
    assert!((0..10_000).any(|_| !session.is_idle()));
}

#[test]
fn what_is_verified_is_what_was_asked_for() {
    let (paper, other) = (paper(), paper_of("another authority"));
    for (host, trusted, verify, expected) in [
        ("redis.test", &paper, Verify::Full, None),
        ("127.0.0.1", &paper, Verify::Full, Some("not valid for name")),
        ("elsewhere.test", &paper, Verify::Full, Some("not valid for name")),
        ("elsewhere.test", &paper, Verify::Authority, None),
        ("redis.test", &other, Verify::Full, Some("UnknownIssuer")),
        ("redis.test", &other, Verify::Authority, Some("UnknownIssuer")),
        ("elsewhere.test", &other, Verify::Nothing, None),
    ] {
        let told = shaken(&paper, &trusting(trusted, verify), host).err();
        let told = told.map(|error| error.to_string());
        let as_expected = match (&told, expected) {
            (None, None) => true,
            (Some(told), Some(expected)) => told.contains(expected),
            _ => false,
        };
        assert!(as_expected, "{host} {verify:?}: {told:?}");
    }
}

#[test]
fn what_cannot_be_used_is_told_with_its_file() {
    let (own, other) = (paper(), paper());
    let both = |certificate: &str, key: &str| TlsSettings {
        certificate: Some(pem("/c", certificate)),
        key: Some(pem("/k", key)),
        ..trusting(&own, Verify::Full)
    };
    let no_certificate = |path: &str| TlsError::NoCertificate {
        path: path.to_owned(),
    };
    let no_key = TlsError::NoKey {
        path: "/k".to_owned(),
    };
    let mismatch = TlsError::Mismatch {
        certificate: "/c".to_owned(),
        key: "/k".to_owned(),
    };
    let cut = &own.certificate[..own.certificate.len() / 2];
    let cases = [
        (both(&own.certificate, &other.key), mismatch),
        (both(&own.key, &own.key), no_certificate("/c")),
        (both(cut, &own.key), no_certificate("/c")),
        (both(&own.certificate, &own.certificate), no_key.clone()),
        (both(&own.certificate, ""), no_key),
        (
            TlsSettings {
                key: None,
                ..both(&own.certificate, &own.key)
            },
            TlsError::Half,
        ),
        (
            TlsSettings {
                authorities: Some(pem("/a", "nothing")),
                ..TlsSettings::default()
            },
            no_certificate("/a"),
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(Tls::new(&settings).err(), Some(expected));
    }
    assert!(Tls::new(&both(&own.certificate, &own.key)).is_ok());
    assert!(!format!("{:?}", both(&own.certificate, &own.key)).contains("PRIVATE"));
}
