//! A TLS port of a Redis.

use std::path::Path;

use crate::authority::{Authority, Paper, Validity};
use crate::port::Port;
use crate::redisserver::Redis;

/// A TLS port of a Redis, with what it was made with.
#[derive(Debug)]
pub struct Secure {
    /// Who vouches for the server, and for clients.
    pub authority: Authority,
    /// Where TLS is spoken; plain connections have a port of their own.
    pub port: Port,
}

impl Secure {
    /// A port that is free, and an authority that has vouched for nobody yet.
    pub fn new() -> Self {
        Self {
            authority: Authority::new("the authority"),
            port: Port::claim(),
        }
    }

    /// What makes redis-server show this certificate at the port. `clients` is its `tls-auth-clients`.
    pub fn args(&self, paper: &Paper, clients: &str) -> Vec<String> {
        let port = ["--tls-port".to_owned(), self.port.number.to_string()];
        port.into_iter().chain(self.papers(paper, clients)).collect()
    }

    /// The same without the port.
    pub fn papers(&self, paper: &Paper, clients: &str) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let args = [
            ("--tls-cert-file", text(&paper.certificate)),
            ("--tls-key-file", text(&paper.key)),
            ("--tls-ca-cert-file", text(&self.authority.certificate())),
            ("--tls-auth-clients", clients.to_owned()),
        ];
        args.into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
    }

    /// A certificate for this machine.
    pub fn server(&self) -> Paper {
        self.authority
            .issue("server", &["localhost", "127.0.0.1"], Validity::Now)
    }

    /// The address of the port.
    pub fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}/0", self.port.number)
    }

    /// A Redis that shows this certificate.
    pub fn redis(&self, paper: &Paper, clients: &str) -> Redis {
        let args = self.args(paper, clients);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Redis::start_with(&args)
    }
}

impl Default for Secure {
    fn default() -> Self {
        Self::new()
    }
}
