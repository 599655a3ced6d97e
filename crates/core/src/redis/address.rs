//! Where Redis is: the text of the setting `url`, taken apart.
//!
//! Guarantees that no way of showing an [`Address`], a [`Secret`] or an [`AddressError`] shows a
//! password; errors therefore name what is wrong and never repeat the text. Does not look names up.

use std::fmt;
use std::path::{Path, PathBuf};

use ::redis::Cmd;

mod hosts;
mod read;
mod text;

pub use hosts::HostPort;
use hosts::Listed;
use text::Encoded;

/// What stands in place of a password wherever an address is shown.
const MASK: &str = "***";

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself, for the one place that authenticates.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A server's address with the credentials and the database to use there.
///
/// `Display` and `Debug` mask the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    endpoint: Endpoint,
    is_tls: bool,
    user: Option<String>,
    password: Option<Secret>,
    database: u32,
}

/// What to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    Tcp(HostPort),
    Unix { path: PathBuf },
    Service { sentinels: Vec<HostPort>, name: String },
    Cluster { nodes: Vec<HostPort> },
}

/// What a plain socket connects to, or who knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    Tcp {
        host: &'a str,
        port: u16,
    },
    Unix {
        path: &'a Path,
    },
    /// Sentinels say where; see [`Address::at`].
    Service(Service<'a>),
    /// These nodes, at least one, say where; see [`Address::at`].
    Cluster(&'a [HostPort]),
}

/// A master that sentinels watch, and know by this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service<'a> {
    /// At least one.
    pub sentinels: &'a [HostPort],
    /// What `SENTINEL get-master-addr-by-name` is asked for.
    pub name: &'a str,
}

/// The sentinels and the name.
impl fmt::Display for Service<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Encoded(self.name).to_string().replace('/', "%2F");
        write!(f, "{}/{name}", Listed(self.sentinels))
    }
}

/// Why a text is not an address. Positions and numbers only: the text may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// There is no `scheme://`.
    NoScheme,
    /// The scheme is none of those that [`Address::parse`] knows.
    UnknownScheme,
    /// No host between `://` and the port or the path.
    NoHost,
    /// `[` without `]`, something other than a port after `]`, or not an IPv6 address in between.
    Brackets,
    /// The host holds a character that no host name has.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// A host of a list of several cannot be read.
    Listed {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong with it.
        problem: Box<AddressError>,
    },
    /// There is no name of a service behind the sentinels.
    NoService,
    /// A cluster has database 0 only.
    ClusterDatabase,
    /// A socket's address has no absolute path.
    NoPath,
    /// The database is not a number from 0 to 2147483647.
    Database,
    /// A parameter behind `?` that is not known there; the number counts from 1.
    Parameter {
        /// Which parameter, counted from 1.
        number: usize,
    },
    /// `%` without two hexadecimal digits behind it, or bytes that are not UTF-8 once decoded.
    Percent,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoScheme => f.write_str(
                "expected redis://, rediss://, redis+unix://, redis-sentinel:// or redis-cluster:// at the beginning",
            ),
            Self::UnknownScheme => {
                f.write_str("the scheme must be redis, rediss, redis+unix, redis-sentinel, rediss-sentinel, redis-cluster or rediss-cluster")
            }
            Self::NoHost => f.write_str("there is no host after \"://\""),
            Self::Brackets => f.write_str("expected [IPv6 address] or [IPv6 address]:port"),
            Self::Host => f.write_str("the host contains a character that cannot be part of a host name"),
            Self::Port => f.write_str("the port must be a number from 1 to 65535"),
            Self::Listed { number, problem } => write!(f, "host {number}: {problem}"),
            Self::NoService => {
                f.write_str("expected the name of the service after the sentinels: host:port,host:port/name")
            }
            Self::ClusterDatabase => f.write_str("a cluster has no database but 0"),
            Self::NoPath => f.write_str("expected an absolute path after redis+unix://"),
            Self::Database => f.write_str("the database must be a number from 0 to 2147483647"),
            Self::Parameter { number } => {
                write!(f, "parameter {number} after \"?\" is not one of db, user, pass")
            }
            Self::Percent => f.write_str("\"%\" must be followed by two hexadecimal digits of UTF-8 text"),
        }
    }
}

impl std::error::Error for AddressError {}

impl Address {
    /// The address with the password replaced by `***`: what may be logged and shown.
    pub fn masked(&self) -> String {
        self.to_string()
    }

    /// The same address with other credentials and another database, as far as they are given.
    #[must_use]
    pub fn with(mut self, user: Option<String>, password: Option<Secret>, database: Option<u32>) -> Self {
        self.user = user.or(self.user);
        self.password = password.or(self.password);
        self.database = database.unwrap_or(self.database);
        self
    }

    /// The same address at another host, in brackets or without, and port: of a service, its master's.
    #[must_use]
    pub fn at(mut self, host: String, port: u16) -> Self {
        self.endpoint = Endpoint::Tcp(HostPort { host, port });
        self
    }

    /// The same address at another host, without credentials and database: of a service, a sentinel's.
    #[must_use]
    pub fn bare_at(&self, place: &HostPort) -> Self {
        Self {
            endpoint: Endpoint::Tcp(place.clone()),
            is_tls: self.is_tls,
            user: None,
            password: None,
            database: 0,
        }
    }

    /// What a plain socket connects to, or who knows.
    pub fn place(&self) -> Place<'_> {
        match &self.endpoint {
            Endpoint::Tcp(HostPort { host, port }) => Place::Tcp { host, port: *port },
            Endpoint::Unix { path } => Place::Unix { path },
            Endpoint::Service { sentinels, name } => Place::Service(Service { sentinels, name }),
            Endpoint::Cluster { nodes } => Place::Cluster(nodes),
        }
    }

    /// What sentinels have to be asked for before anything can be connected to.
    pub fn service(&self) -> Option<Service<'_>> {
        match self.place() {
            Place::Service(service) => Some(service),
            Place::Tcp { .. } | Place::Unix { .. } | Place::Cluster(_) => None,
        }
    }

    /// The addresses of the nodes that have to be asked for the others before anything can be connected to.
    pub fn cluster(&self) -> Option<Vec<Self>> {
        match self.place() {
            Place::Cluster(nodes) => {
                let at = |node: &HostPort| self.clone().at(node.host.clone(), node.port);
                Some(nodes.iter().map(at).collect())
            }
            Place::Tcp { .. } | Place::Unix { .. } | Place::Service(_) => None,
        }
    }

    /// Whether both lead to the same keys, as far as their texts tell: two names of one host are two hosts.
    pub fn is_same_place(&self, other: &Self) -> bool {
        let same_endpoint = match (&self.endpoint, &other.endpoint) {
            (Endpoint::Tcp(one), Endpoint::Tcp(other)) => one.is_same(other),
            (
                Endpoint::Service { sentinels, name },
                Endpoint::Service {
                    sentinels: others,
                    name: other,
                },
            ) => name == other && share_one(sentinels, others),
            (Endpoint::Cluster { nodes }, Endpoint::Cluster { nodes: others }) => share_one(nodes, others),
            (one, other) => one == other,
        };
        same_endpoint && self.database == other.database
    }

    /// Whether a password stands in it.
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// What has to be sent first: AUTH and SELECT, as far as they are needed. `password` takes precedence over the
    /// address's.
    pub fn greeting(&self, password: Option<&Secret>) -> Vec<Cmd> {
        let mut commands: Vec<Cmd> = self.authentication(password).into_iter().collect();
        if self.database != 0 {
            let mut select = ::redis::cmd("SELECT");
            select.arg(self.database);
            commands.push(select);
        }
        commands
    }

    /// AUTH, if there is a password; `password` takes precedence over the address's.
    pub fn authentication(&self, password: Option<&Secret>) -> Option<Cmd> {
        let password = password.or(self.password())?;
        let mut auth = ::redis::cmd("AUTH");
        if let Some(user) = self.user() {
            auth.arg(user);
        }
        auth.arg(password.reveal());
        Some(auth)
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The number of the database (`SELECT n`).
    pub fn database(&self) -> u32 {
        self.database
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_deref().unwrap_or("");
        match &self.endpoint {
            Endpoint::Tcp(place) => {
                self.write_beginning(f, "")?;
                write!(f, "{place}/{}", self.database)
            }
            Endpoint::Service { sentinels, name } => {
                self.write_beginning(f, "-sentinel")?;
                let service = Service { sentinels, name };
                write!(f, "{service}/{}", self.database)
            }
            Endpoint::Cluster { nodes } => {
                self.write_beginning(f, "-cluster")?;
                write!(f, "{}", Listed(nodes))
            }
            Endpoint::Unix { path } => {
                let path = path.to_string_lossy();
                write!(f, "redis+unix://{}?db={}", Encoded(&path), self.database)?;
                if self.user.is_some() {
                    write!(f, "&user={}", Encoded(user))?;
                }
                if self.password.is_some() {
                    write!(f, "&pass={MASK}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl Address {
    /// Scheme and credentials.
    fn write_beginning(&self, f: &mut fmt::Formatter<'_>, kind: &str) -> fmt::Result {
        let user = Encoded(self.user.as_deref().unwrap_or(""));
        write!(f, "redis{}{kind}://", if self.is_tls { "s" } else { "" })?;
        match (&self.user, &self.password) {
            (_, Some(_)) => write!(f, "{user}:{MASK}@"),
            (Some(_), None) => write!(f, "{user}@"),
            (None, None) => Ok(()),
        }
    }
}

fn share_one(some: &[HostPort], others: &[HostPort]) -> bool {
    some.iter()
        .any(|one| others.iter().any(|other| one.is_same(other)))
}

#[cfg(test)]
mod tests;
