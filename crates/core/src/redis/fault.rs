//! What went wrong between here and Redis, in words that may be logged.
//!
//! Redis repeats arguments in some errors (`unknown command … with args beginning with: …`), and a
//! command's arguments can be a key, a value or the password. So a [`Cause`] keeps an error's code and
//! its text only up to the first quotation mark, and a [`Fault`] the address with the password masked.

use std::fmt;
use std::io;
use std::time::Duration;

use ::redis::{ErrorKind, RedisError, ServerError};

/// The longest text of Redis that is passed on, in bytes.
const LONGEST_TEXT: usize = 120;

/// What went wrong, and with which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The address, password masked.
    pub address: String,
    /// What it was.
    pub cause: Cause,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.cause)
    }
}

impl std::error::Error for Fault {}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The operating system or the other end ended the connection, or would not have it.
    Io {
        /// Its kind.
        kind: io::ErrorKind,
        /// The operating system's words.
        text: String,
    },
    /// No answer in time.
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// Redis answered with an error.
    Server {
        /// The first word of the error, as `WRONGPASS`.
        code: String,
        /// The rest of it, cut before the first quotation mark.
        text: String,
    },
    /// The server is a replica.
    Replica,
    /// The server is part of a cluster, which this version does not support.
    Cluster,
    /// The answer is not one to the command sent.
    Protocol {
        /// What was expected.
        expected: &'static str,
    },
    /// The settings were changed while something was in flight.
    Reconfigured,
}

impl Cause {
    /// The cause in an error of the client library.
    pub(super) fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io => {
                let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>());
                let kind = source.map_or(io::ErrorKind::Other, io::Error::kind);
                Self::Io {
                    kind,
                    text: first_words(&error.to_string()),
                }
            }
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Server {
                code: first_words(error.code().unwrap_or("ERR")),
                text: first_words(error.detail().unwrap_or("")),
            },
            // The library keeps nothing of what Redis answered to AUTH (`check_resp2_auth` of the redis crate).
            ErrorKind::AuthenticationFailed => Self::Server {
                code: "AUTH".to_owned(),
                text: "was refused: the user or the password is wrong".to_owned(),
            },
            // The library's own texts, and behind a dash or colon what Redis said.
            kind => Self::Server {
                code: format!("{kind:?}"),
                text: first_words(error.detail().unwrap_or(error.category())),
            },
        }
    }

    /// The cause in an answer of Redis, cut by [`first_words`].
    pub fn of_reply(error: &ServerError) -> Self {
        Self::Server {
            code: first_words(error.code()),
            text: first_words(error.details().unwrap_or("")),
        }
    }

    /// Whether two causes are the same kind of trouble, whatever their words and numbers.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Io { kind, .. }, Self::Io { kind: other, .. }) => kind == other,
            (Self::Server { code, .. }, Self::Server { code: other, .. }) => code == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { text, .. } => f.write_str(text),
            Self::Timeout { after } => write!(f, "no answer within {} ms", after.as_millis()),
            Self::Server { code, text } if text.is_empty() => f.write_str(code),
            Self::Server { code, text } => write!(f, "{code} {text}"),
            Self::Replica => f.write_str("the server is a replica, which cannot be written to"),
            Self::Cluster => f.write_str("Redis Cluster is not supported by this version"),
            Self::Protocol { expected } => write!(f, "unexpected answer, {expected} was expected"),
            Self::Reconfigured => f.write_str("the settings have changed"),
        }
    }
}

impl std::error::Error for Cause {}

/// What Redis said, cut where it begins to quote and where it gets long: it may quote a password, a key or a value.
pub fn first_words(text: &str) -> String {
    let end = text.find(['\'', '"', '`', '\n', '\r']).unwrap_or(text.len());
    let text = &text[..text.floor_char_boundary(end.min(LONGEST_TEXT))];
    text.trim_end_matches([' ', ':', ',', '(', '>']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_quotes_is_not_repeated() {
        for text in [
            "unknown command 'SET', with args beginning with: 'k'",
            "unknown command `SET`, with `k`",
        ] {
            assert_eq!(first_words(text), "unknown command");
        }
        let no_memory = "command not allowed when used memory > 'maxmemory'.";
        assert_eq!(first_words(no_memory), "command not allowed when used memory");
        assert_eq!(first_words("value is not an integer or out of range").len(), 39);
        assert_eq!(first_words(&"é".repeat(200)).len(), LONGEST_TEXT);
    }

    #[test]
    fn a_refused_password_is_not_repeated() {
        let answer = b"-ERR unknown command 'AUTH', with args beginning with: 'user' 'secret'\r\n";
        let Ok(redis::Value::ServerError(error)) = redis::parse_redis_value(answer) else {
            panic!()
        };
        assert_eq!(Cause::of_reply(&error).to_string(), "ERR unknown command");
    }
}
