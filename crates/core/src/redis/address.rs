//! Where Redis is: the text of the setting `url`, taken apart.
//!
//! Guarantees that no way of showing an [`Address`], a [`Secret`] or an [`AddressError`] shows a
//! password; errors therefore name what is wrong and never repeat the text. Does not look names up.

use std::fmt;
use std::path::{Path, PathBuf};

use ::redis::Cmd;

/// The port that Redis listens on unless told otherwise.
const DEFAULT_PORT: u16 = 6379;

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
    Tcp { host: String, port: u16 },
    Unix { path: PathBuf },
}

/// What a plain socket connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    Tcp { host: &'a str, port: u16 },
    Unix { path: &'a Path },
}

/// Why a text is not an address. Positions and numbers only: the text may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// There is no `scheme://`.
    NoScheme,
    /// The scheme is none of `redis`, `rediss`, `redis+unix`, `unix`.
    UnknownScheme,
    /// No host between `://` and the port or the path.
    NoHost,
    /// `[` without `]`, something other than a port after `]`, or not an IPv6 address in between.
    Brackets,
    /// The host holds a character that no host name has.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
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
            Self::NoScheme => f.write_str("expected redis://, rediss:// or redis+unix:// at the beginning"),
            Self::UnknownScheme => f.write_str("the scheme must be redis, rediss or redis+unix"),
            Self::NoHost => f.write_str("there is no host after \"://\""),
            Self::Brackets => f.write_str("expected [IPv6 address] or [IPv6 address]:port"),
            Self::Host => f.write_str("the host contains a character that cannot be part of a host name"),
            Self::Port => f.write_str("the port must be a number from 1 to 65535"),
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
    /// Reads `redis://[user:password@]host[:port][/db]`, the same with `rediss://` for TLS, or
    /// `redis+unix:///path[?db=n][&user=…][&pass=…]` (also `unix://`). User, password, host and path may
    /// be percent-encoded; an IPv6 address stands in brackets. The port is 6379 and the database 0
    /// unless given; an empty user name is none.
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
            _ => Err(AddressError::UnknownScheme),
        }
    }

    fn parse_tcp(rest: &str, is_tls: bool) -> Result<Self, AddressError> {
        let (rest, query) = split_query(rest);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last @: an unescaped one in the password is a common slip, and harmless.
        let (credentials, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (host, port) = split_port(place)?;
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        let mut address = Self {
            endpoint: Endpoint::Tcp { host, port },
            is_tls,
            user: non_empty(decode(user)?),
            password: password.map(decode).transpose()?.map(Secret),
            database: if path.is_empty() { 0 } else { parse_database(path)? },
        };
        address.read_query(query)?;
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

    /// The same address at another host, in brackets or without, and port.
    #[must_use]
    pub fn at(mut self, host: String, port: u16) -> Self {
        self.endpoint = Endpoint::Tcp { host, port };
        self
    }

    /// What a plain socket connects to.
    pub fn place(&self) -> Place<'_> {
        match &self.endpoint {
            Endpoint::Tcp { host, port } => Place::Tcp { host, port: *port },
            Endpoint::Unix { path } => Place::Unix { path },
        }
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// What has to be sent first: AUTH and SELECT, as far as they are needed. `password` takes precedence over the
    /// address's.
    pub fn greeting(&self, password: Option<&Secret>) -> Vec<Cmd> {
        let mut commands = Vec::new();
        if let Some(password) = password.or(self.password()) {
            let mut auth = ::redis::cmd("AUTH");
            if let Some(user) = self.user() {
                auth.arg(user);
            }
            auth.arg(password.reveal());
            commands.push(auth);
        }
        if self.database != 0 {
            let mut select = ::redis::cmd("SELECT");
            select.arg(self.database);
            commands.push(select);
        }
        commands
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
            Endpoint::Tcp { host, port } => {
                f.write_str(if self.is_tls { "rediss://" } else { "redis://" })?;
                match (&self.user, &self.password) {
                    (_, Some(_)) => write!(f, "{}:{MASK}@", Encoded(user))?,
                    (Some(_), None) => write!(f, "{}@", Encoded(user))?,
                    (None, None) => {}
                }
                if host.contains(':') {
                    write!(f, "[{host}]:{port}/{}", self.database)
                } else {
                    write!(f, "{}:{port}/{}", Encoded(host), self.database)
                }
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

/// Percent-encodes what has a meaning in an address.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_ascii_control() || matches!(c, ' ' | '%' | ':' | '@' | '?' | '#' | '&' | '=' | '[' | ']')
            {
                write!(f, "%{:02X}", u32::from(c))?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// Splits off what is behind `?`; a fragment behind `#` is dropped.
fn split_query(text: &str) -> (&str, &str) {
    let text = text.split_once('#').map_or(text, |(before, _)| before);
    text.split_once('?').unwrap_or((text, ""))
}

fn split_port(place: &str) -> Result<(String, u16), AddressError> {
    if let Some(rest) = place.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or(AddressError::Brackets)?;
        let host = decode(inside)?;
        let literal = host
            .split_once('%')
            .map_or(host.as_str(), |(address, _zone)| address);
        literal
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| AddressError::Brackets)?;
        let port = match after.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if after.is_empty() => DEFAULT_PORT,
            None => return Err(AddressError::Brackets),
        };
        return Ok((host, port));
    }
    let (host, port) = match place.split_once(':') {
        Some((host, port)) => (host, parse_port(port)?),
        None => (place, DEFAULT_PORT),
    };
    let host = decode(host)?;
    if host.is_empty() {
        return Err(AddressError::NoHost);
    }
    if host
        .chars()
        .any(|c| c.is_ascii_control() || c.is_whitespace() || "/\\?#[]:@%".contains(c))
    {
        return Err(AddressError::Host);
    }
    Ok((host, port))
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(AddressError::Port),
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

fn decode(text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).ok_or(AddressError::Percent)?;
        let digit = |d: u8| char::from(d).to_digit(16).ok_or(AddressError::Percent);
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| AddressError::Percent)
}

#[cfg(test)]
mod tests;
