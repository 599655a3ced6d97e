//! Hosts with their ports, one or several, as they stand in an address.

use std::fmt;

use super::AddressError;
use super::text::{Encoded, decode};

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A name or an IP address, the latter without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl HostPort {
    /// Whether both are written alike, as names of hosts are compared.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host) && self.port == other.port
    }

    /// Reads `host[:port]`, in which the host may be percent-encoded, or an IPv6 address in brackets.
    pub(super) fn read(text: &str, default_port: u16) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix('[') {
            return Self::read_ipv6(rest, default_port);
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (text, default_port),
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
        Ok(Self { host, port })
    }

    fn read_ipv6(rest: &str, default_port: u16) -> Result<Self, AddressError> {
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
            None if after.is_empty() => default_port,
            None => return Err(AddressError::Brackets),
        };
        Ok(Self { host, port })
    }

    /// Reads several, at least one, with commas between.
    pub(super) fn read_list(text: &str, default_port: u16) -> Result<Vec<Self>, AddressError> {
        let read = |(index, text)| {
            Self::read(text, default_port).map_err(|problem| AddressError::Listed {
                number: index + 1,
                problem: Box::new(problem),
            })
        };
        text.split(',').enumerate().map(read).collect()
    }
}

/// As it stands in an address.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{}:{port}", Encoded(host))
        }
    }
}

/// Several, with commas between.
pub(super) struct Listed<'a>(pub &'a [HostPort]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            host.fmt(f)?;
        }
        Ok(())
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(AddressError::Port),
    }
}
