//! The options of wrapper, server, user mapping and table, in the dialect of redis_fdw_rs.
//!
//! [`check`] judges what one statement sets; [`TableOptions::read`] reads what wrapper, server and table say
//! together, the later over the earlier. No text that is made here contains an option's value but that of a table's
//! own, which is no secret.
use std::fmt;

use super::{Kind, glob};
use crate::redis::{Address, AddressError, Verify};

/// Where options can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Wrapper,
    Server,
    UserMapping,
    Table,
    Column,
}

/// An option's name and value.
pub type Given = (String, String);

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionProblem {
    /// There is no such option at that place; `nearest` is the one that it may have been meant for.
    Unknown {
        name: String,
        nearest: Option<&'static str>,
        known: Vec<&'static str>,
    },
    /// The value is none that the option takes.
    Value {
        name: &'static str,
        /// What was given, where it may be shown.
        given: Option<String>,
        expected: &'static str,
    },
    /// An address of `host_port` is none.
    Address { node: usize, problem: AddressError },
    /// Of the addresses of `host_port` this one is with TLS and the first one without, or the other way round.
    MixedTls { node: usize },
    /// The address of `url` is none.
    Url { problem: AddressError },
    /// Both `url` and `host_port` say where one server is.
    TwoAddresses,
    /// An option that is needed is given nowhere.
    Missing { name: &'static str },
}

impl OptionProblem {
    /// How to mend it; may be empty.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown {
                nearest: Some(nearest),
                ..
            } => format!("Perhaps you meant \"{nearest}\"."),
            Self::Unknown { known, .. } if known.is_empty() => "There are no options here.".to_string(),
            Self::Unknown { known, .. } => format!("Valid options here: {}.", known.join(", ")),
            Self::Value { expected, .. } => format!("Expected {expected}."),
            Self::Address { .. } => {
                "Expected host:port, redis://host:port, rediss://host:port (TLS) or redis+unix:///path; several with a comma between."
                    .to_string()
            }
            Self::MixedTls { .. } => {
                "User and password are the same for all: give all of them rediss://, or none.".to_string()
            }
            Self::Url { .. } => "Expected an address as in the setting pg_redis_cache.url.".to_string(),
            Self::TwoAddresses => "Give the server one of them.".to_string(),
            Self::Missing { name } => format!("Give {name} to the table, its server or its wrapper."),
        }
    }
}

impl fmt::Display for OptionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, .. } => write!(f, "invalid option \"{name}\""),
            Self::Value {
                name,
                given: Some(given),
                ..
            } => write!(f, "invalid value for option \"{name}\": \"{given}\""),
            Self::Value { name, .. } => write!(f, "invalid value for option \"{name}\""),
            Self::Address { node, problem } => write!(f, "address {node} of option \"host_port\": {problem}"),
            Self::MixedTls { node } => write!(
                f,
                "addresses 1 and {node} of option \"host_port\" are not both with TLS, or both without"
            ),
            Self::Url { problem } => write!(f, "the address of option \"url\": {problem}"),
            Self::TwoAddresses => f.write_str("options \"url\" and \"host_port\" exclude each other"),
            Self::Missing { name } => write!(f, "option \"{name}\" is missing"),
        }
    }
}

impl std::error::Error for OptionProblem {}

struct Known {
    name: &'static str,
    places: &'static [Place],
    expected: &'static str,
    takes: fn(&str) -> bool,
}

const CONNECTION: &[Place] = &[Place::Wrapper, Place::Server];
const SECRETS: &[Place] = &[Place::Wrapper, Place::Server, Place::UserMapping];
const TABLE: &[Place] = &[Place::Wrapper, Place::Server, Place::Table];

/// The options of a table over a mapping: the rest the mapping says.
const OF_MAPPING: &[&str] = &["mapping", "batch_size", "join_batch_size", "use_remote_estimate"];

/// What redis_fdw_rs calls its pool's settings: taken and without effect, for there is no pool.
const POOL: &str = "pool_";

/// The options that name files of the server's machine.
pub const FILES: &[&str] = &["tls_ca_file", "tls_cert_file", "tls_key_file"];

/// The options that say where a server is.
const ADDRESSES: &[&str] = &["host_port", "url"];

const KNOWN: &[Known] = &[
    known("url", CONNECTION, "an address", |value| !value.is_empty()),
    known("host_port", CONNECTION, "host:port", |value| !value.is_empty()),
    known("cluster_mode", CONNECTION, "true or false", is_boolean),
    known("tls_ca_file", CONNECTION, "a file", |value| !value.is_empty()),
    known("tls_cert_file", CONNECTION, "a file", |value| !value.is_empty()),
    known("tls_key_file", CONNECTION, "a file", |value| !value.is_empty()),
    known("tls_verify", CONNECTION, "full, ca or none", |value| {
        Verify::named(value).is_some()
    }),
    known("username", SECRETS, "a name", |_| true),
    known("password", SECRETS, "a password", |_| true),
    known("mapping", &[Place::Table], "the name of a mapping", |value| {
        !value.is_empty()
    }),
    known(
        "table_type",
        TABLE,
        "string, hash, list, set, zset or stream",
        |value| kind(value).is_some(),
    ),
    known(
        "table_key_prefix",
        TABLE,
        "a key, or a pattern of keys",
        |value| !value.is_empty(),
    ),
    known("database", TABLE, "a number from 0 on", |value| {
        value
            .parse::<u32>()
            .is_ok_and(|number| i32::try_from(number).is_ok())
    }),
    known("ttl", TABLE, "a number of seconds above 0, or -1", |value| {
        ttl(value).is_some()
    }),
    known("batch_size", TABLE, "a number from 100 to 100000", |value| {
        value
            .parse()
            .is_ok_and(|number| (100..=100_000).contains(&number))
    }),
    known("strict_key_prefix", TABLE, "true or false", is_boolean),
    known("transactional", TABLE, "on or off", is_boolean),
    known("use_remote_estimate", TABLE, "on or off", is_boolean),
    known("join_batch_size", TABLE, "a number from 1 to 4096", |value| {
        value.parse().is_ok_and(|number| (1..=4096).contains(&number))
    }),
];

const fn known(
    name: &'static str,
    places: &'static [Place],
    expected: &'static str,
    takes: fn(&str) -> bool,
) -> Known {
    Known {
        name,
        places,
        expected,
        takes,
    }
}

/// As PostgreSQL's parse_bool takes them, written out.
fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Whether an option says yes.
pub fn is_true(value: &str) -> bool {
    boolean(value) == Some(true)
}

fn is_boolean(value: &str) -> bool {
    boolean(value).is_some()
}

fn kind(value: &str) -> Option<Kind> {
    Kind::ALL
        .into_iter()
        .find(|kind| kind.name().eq_ignore_ascii_case(value))
}

/// What is written with a row whose own ttl is not given: seconds, or -1 for PERSIST.
fn ttl(value: &str) -> Option<i64> {
    value
        .parse()
        .ok()
        .filter(|seconds| *seconds == -1 || (1..=i64::from(i32::MAX)).contains(seconds))
}

/// Judges the options that one object has. What is only unknown is an error where nothing says that the script was
/// written for redis_fdw_rs; there it is returned, to be warned of.
///
/// # Errors
/// The first option that cannot be used.
pub fn check(place: Place, given: &[Given]) -> Result<Vec<OptionProblem>, OptionProblem> {
    let has = |name: &str| given.iter().any(|(other, _)| other == name);
    let lenient = match place {
        Place::Server => has("host_port"),
        Place::Table => has("table_type") || has("table_key_prefix"),
        Place::Wrapper | Place::UserMapping | Place::Column => false,
    };
    let of_mapping = place == Place::Table && has("mapping");
    let mut ignored = Vec::new();
    for (name, value) in given {
        if of_mapping && !OF_MAPPING.contains(&name.as_str()) {
            return Err(unknown_among(name, OF_MAPPING.to_vec()));
        }
        if name.starts_with(POOL) && CONNECTION.contains(&place) {
            continue;
        }
        let known = KNOWN
            .iter()
            .find(|known| known.name == name && known.places.contains(&place));
        match known {
            Some(known) if (known.takes)(value) => {}
            Some(known) => return Err(refused(known, value)),
            None if lenient => ignored.push(unknown(place, name)),
            None => return Err(unknown(place, name)),
        }
        if ADDRESSES.contains(&name.as_str()) {
            read_addresses(name, value)?;
        }
    }
    if has("url") && has("host_port") {
        return Err(OptionProblem::TwoAddresses);
    }
    Ok(ignored)
}

fn refused(known: &Known, value: &str) -> OptionProblem {
    let secret = !known.places.contains(&Place::Table);
    OptionProblem::Value {
        name: known.name,
        given: (!secret).then(|| value.to_string()),
        expected: known.expected,
    }
}

fn unknown(place: Place, name: &str) -> OptionProblem {
    let known: Vec<&'static str> = KNOWN
        .iter()
        .filter(|known| known.places.contains(&place))
        .map(|known| known.name)
        .collect();
    unknown_among(name, known)
}

fn unknown_among(name: &str, known: Vec<&'static str>) -> OptionProblem {
    OptionProblem::Unknown {
        name: name.to_string(),
        nearest: nearest(name, &known),
        known,
    }
}

/// The one of the known names that another may have been meant for.
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let distances = known.iter().map(|known| (distance(known, name), *known));
    let (distance, known) = distances.min()?;
    (distance <= known.len().min(name.len()) / 2).then_some(known)
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Whether options of server and wrapper say where the server is.
pub fn have_address(given: &[Given]) -> bool {
    given.iter().any(|(name, _)| ADDRESSES.contains(&name.as_str()))
}

/// Where the server is, if its options or those of its wrapper say so, which come before: at least one address.
///
/// # Errors
/// What is none, and why.
pub fn addresses(given: &[Given]) -> Result<Option<Vec<Address>>, OptionProblem> {
    let last = given
        .iter()
        .rev()
        .find(|(name, _)| ADDRESSES.contains(&name.as_str()));
    last.map(|(name, value)| read_addresses(name, value)).transpose()
}

fn read_addresses(option: &str, value: &str) -> Result<Vec<Address>, OptionProblem> {
    match option {
        "url" => Address::parse(value)
            .map(|address| vec![address])
            .map_err(|problem| OptionProblem::Url { problem }),
        _ => nodes(value),
    }
}

/// The schemes of addresses that are lists themselves.
const LISTING: [&str; 4] = [
    "redis-sentinel",
    "rediss-sentinel",
    "redis-cluster",
    "rediss-cluster",
];

/// The addresses of an option `host_port`. What has no scheme has TLS if the one before it has. The same credentials go to
/// all of them, so none is without TLS beside one that has it.
fn nodes(value: &str) -> Result<Vec<Address>, OptionProblem> {
    // The commas in one of sentinels or of a cluster are its own.
    let is_one = value
        .split_once("://")
        .is_some_and(|(scheme, _)| LISTING.contains(&scheme.trim()));
    let nodes: Vec<&str> = if is_one {
        vec![value]
    } else {
        value.split(',').collect()
    };
    let mut all: Vec<Address> = Vec::new();
    for (node, text) in (1..).zip(nodes) {
        let text = text.trim();
        let scheme = match all.last() {
            _ if text.contains("://") => "",
            Some(before) if before.is_tls() => "rediss://",
            _ => "redis://",
        };
        let address = Address::parse(&format!("{scheme}{text}"));
        let address = address.map_err(|problem| OptionProblem::Address { node, problem })?;
        if all
            .first()
            .is_some_and(|first| first.is_tls() != address.is_tls())
        {
            return Err(OptionProblem::MixedTls { node });
        }
        all.push(address);
    }
    Ok(all)
}

/// Which keys a table stands for, as its option says. What a table's columns make of it is [`super::Layout::keys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// One key, all of whose elements are rows.
    One(Vec<u8>),
    /// All keys that match a glob pattern and hold the table's type.
    Matching(Vec<u8>),
}

/// The mapping that a table shows, if it shows one, of the options of wrapper, server and table.
pub fn mapping(given: &[Given]) -> Option<&str> {
    last(given, "mapping")
}

/// The value of an option that may be given more than once.
fn last<'g>(given: &'g [Given], name: &str) -> Option<&'g str> {
    let option = given.iter().rev().find(|(other, _)| other == name);
    option.map(|(_, value)| value.as_str())
}

/// What no validator has seen.
fn check_values(given: &[Given]) -> Result<(), OptionProblem> {
    for (name, value) in given {
        let known = KNOWN.iter().find(|known| known.name == name);
        if let Some(known) =
            known.filter(|known| known.places.contains(&Place::Table) && !(known.takes)(value))
        {
            return Err(refused(known, value));
        }
    }
    Ok(())
}

/// What a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    pub kind: Kind,
    pub keys: Keys,
    /// None: the one that the address names.
    pub database: Option<u32>,
    /// Seconds, or -1 for PERSIST; none: what Redis does by itself.
    pub ttl: Option<i64>,
    /// How many elements are asked for, or written, at a time.
    pub batch_size: usize,
    /// How many rows of a join's other side are looked up at a time; 1: each by itself.
    pub join_batch_size: usize,
    /// Whether a row whose key the table's pattern does not match is refused, rather than warned of.
    pub strict_key_prefix: bool,
    /// Whether changes are kept until COMMIT.
    pub transactional: bool,
    /// Whether Redis is asked for the table's size when a statement is planned.
    pub remote_estimate: bool,
}

impl TableOptions {
    /// Reads what wrapper, server and table say, in this order.
    ///
    /// # Errors
    /// What is missing, or cannot be used.
    pub fn read(given: &[Given]) -> Result<Self, OptionProblem> {
        check_values(given)?;
        let needed = |name: &'static str| last(given, name).ok_or(OptionProblem::Missing { name });
        let kind = kind(needed("table_type")?).ok_or(OptionProblem::Missing { name: "table_type" })?;
        let prefix = needed("table_key_prefix")?.as_bytes().to_vec();
        let keys = if glob::is_glob(&prefix) {
            Keys::Matching(prefix)
        } else {
            Keys::One(prefix)
        };
        Self::of_keys(kind, keys, given)
    }

    /// The same for a table whose type and keys come from elsewhere.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn of_keys(kind: Kind, keys: Keys, given: &[Given]) -> Result<Self, OptionProblem> {
        check_values(given)?;
        let last = |name: &'static str| last(given, name);
        Ok(Self {
            kind,
            keys,
            database: last("database").and_then(|value| value.parse().ok()),
            ttl: last("ttl").and_then(ttl),
            batch_size: last("batch_size")
                .and_then(|value| value.parse().ok())
                .unwrap_or(5000),
            join_batch_size: last("join_batch_size")
                .and_then(|value| value.parse().ok())
                .unwrap_or(1000),
            strict_key_prefix: last("strict_key_prefix").and_then(boolean).unwrap_or(false),
            transactional: last("transactional").and_then(boolean).unwrap_or(false),
            remote_estimate: last("use_remote_estimate").and_then(boolean).unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests;
