//! An address out of its text.

use std::path::{Path, PathBuf};

use super::text::{Parts, decode, split_query};
use super::{Address, AddressError, Endpoint, HostPort, Secret};

/// The port that Redis listens on unless told otherwise.
const DEFAULT_PORT: u16 = 6379;
/// The port that a sentinel listens on unless told otherwise.
const SENTINEL_PORT: u16 = 26379;

impl Address {
    /// Reads `redis://[user:password@]host[:port][/db]`, the same with `rediss://` for TLS,
    /// `redis+unix:///path[?db=n][&user=…][&pass=…]` (also `unix://`), or
    /// `redis-sentinel://[user:password@]host[:port],…/service[/db]` (`rediss-sentinel://`: TLS to the
    /// sentinels and to Redis), or `redis-cluster://[user:password@]host[:port],…` (`rediss-cluster://`), some
    /// nodes of a cluster. User, password, host, path and service may be percent-encoded; an IPv6
    /// address stands in brackets. The port is 6379, of a sentinel 26379, and the database 0 unless given; an
    /// empty user name is none. Credentials and database are Redis's.
    ///
    /// # Errors
    ///
    /// What is wrong, without the text itself.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(AddressError::NoScheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "redis" => Self::parse_tcp(rest, false),
            "rediss" => Self::parse_tcp(rest, true),
            "redis+unix" | "unix" => Self::parse_unix(rest),
            "redis-sentinel" => Self::parse_service(rest, false),
            "rediss-sentinel" => Self::parse_service(rest, true),
            "redis-cluster" => Self::parse_cluster(rest, false),
            "rediss-cluster" => Self::parse_cluster(rest, true),
            _ => Err(AddressError::UnknownScheme),
        }
    }

    fn parse_tcp(rest: &str, is_tls: bool) -> Result<Self, AddressError> {
        let parts = Parts::of(rest);
        let endpoint = Endpoint::Tcp(HostPort::read(parts.hosts, DEFAULT_PORT)?);
        Self::of_parts(endpoint, is_tls, &parts, parts.path)
    }

    fn parse_service(rest: &str, is_tls: bool) -> Result<Self, AddressError> {
        let parts = Parts::of(rest);
        let sentinels = HostPort::read_list(parts.hosts, SENTINEL_PORT)?;
        let (name, database) = parts.path.split_once('/').unwrap_or((parts.path, ""));
        let name = non_empty(decode(name)?).ok_or(AddressError::NoService)?;
        let endpoint = Endpoint::Service { sentinels, name };
        Self::of_parts(endpoint, is_tls, &parts, database)
    }

    fn parse_cluster(rest: &str, is_tls: bool) -> Result<Self, AddressError> {
        let parts = Parts::of(rest);
        let nodes = HostPort::read_list(parts.hosts, DEFAULT_PORT)?;
        let address = Self::of_parts(Endpoint::Cluster { nodes }, is_tls, &parts, parts.path)?;
        if address.database != 0 {
            return Err(AddressError::ClusterDatabase);
        }
        Ok(address)
    }

    fn of_parts(
        endpoint: Endpoint,
        is_tls: bool,
        parts: &Parts<'_>,
        database: &str,
    ) -> Result<Self, AddressError> {
        let (user, password) = match parts.credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (parts.credentials, None),
        };
        let mut address = Self {
            endpoint,
            is_tls,
            user: non_empty(decode(user)?),
            password: password.map(decode).transpose()?.map(Secret),
            database: if database.is_empty() {
                0
            } else {
                parse_database(database)?
            },
        };
        address.read_query(parts.query)?;
        address.normalize();
        Ok(address)
    }

    fn parse_unix(rest: &str) -> Result<Self, AddressError> {
        let (path, query) = split_query(rest);
        let path = PathBuf::from(decode(path)?);
        if !path.is_absolute() || path == Path::new("/") {
            return Err(AddressError::NoPath);
        }
        let mut address = Self {
            endpoint: Endpoint::Unix { path },
            is_tls: false,
            user: None,
            password: None,
            database: 0,
        };
        address.read_query(query)?;
        address.normalize();
        Ok(address)
    }

    fn read_query(&mut self, query: &str) -> Result<(), AddressError> {
        for (index, pair) in query.split('&').enumerate().filter(|(_, pair)| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "db" => self.database = parse_database(value)?,
                "user" => self.user = non_empty(decode(value)?),
                "pass" | "password" => self.password = Some(Secret(decode(value)?)),
                _ => return Err(AddressError::Parameter { number: index + 1 }),
            }
        }
        Ok(())
    }

    /// `redis://:@host` means no credentials; `redis://user:@host` a user with an empty password.
    fn normalize(&mut self) {
        if self.user.is_none() && self.password.as_ref().is_some_and(|p| p.0.is_empty()) {
            self.password = None;
        }
    }
}

fn parse_database(text: &str) -> Result<u32, AddressError> {
    match text.parse::<u32>() {
        // Redis reads the number into a C int.
        Ok(database) if database <= i32::MAX as u32 && text.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(database)
        }
        _ => Err(AddressError::Database),
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
