//! What went wrong between here and Redis, in words that may be logged.
//!
//! Redis repeats arguments in some errors (`unknown command … with args beginning with: …`), and a
//! command's arguments can be a key, a value or the password. So a [`Cause`] keeps an error's code and
//! its text only up to the first quotation mark (but for the name of a forbidden command), and a [`Fault`] the address with the password masked.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{ErrorKind, RedisError, ServerError};

use super::address::{Address, Place};
use super::tls::TlsFailure;

/// The longest text of Redis that is passed on, in bytes.
const LONGEST_TEXT: usize = 120;

/// The kinds of trouble, as operators tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing listens there, or the name leads nowhere.
    Refused,
    /// There was no connection, or no answer, in time.
    TimedOut,
    /// There is no free connection, in the pool or in Redis (`maxclients`).
    PoolExhausted,
    /// The two do not come together on TLS, or on each other's certificates.
    Tls,
    /// The user or the password is wrong, or missing.
    Auth,
    /// The server is a replica.
    ReadOnly,
    /// Redis has no memory for it (`maxmemory`).
    OutOfMemory,
    /// Redis does not do what it was asked.
    Rejected,
    /// The connection ended.
    Lost,
    /// What came is no answer.
    Protocol,
}

impl Kind {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 10] = [
        Self::Refused,
        Self::TimedOut,
        Self::PoolExhausted,
        Self::Tls,
        Self::Auth,
        Self::ReadOnly,
        Self::OutOfMemory,
        Self::Rejected,
        Self::Lost,
        Self::Protocol,
    ];

    /// Its name, which stands at the beginning of `last_error`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed out",
            Self::PoolExhausted => "pool exhausted",
            Self::Tls => "TLS",
            Self::Auth => "auth",
            Self::ReadOnly => "read only",
            Self::OutOfMemory => "out of memory",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
            Self::Protocol => "protocol",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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
        write!(f, "{}: {} ({})", self.cause.kind(), self.cause, self.address)
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
    /// No agreement on TLS.
    Tls {
        /// What rustls says of it.
        text: String,
    },
    /// No place in the pool became free in time.
    Exhausted,
    /// No answer in time.
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// Redis answered with an error.
    Server {
        /// The first word of the error, as `WRONGPASS`.
        code: String,
        /// The rest of it, cut as [`first_words`] does.
        text: String,
    },
    /// The server is a replica.
    Replica,
    /// The server is part of a cluster, and the address is not a cluster's.
    Cluster,
    /// The address is a cluster's, and the server is part of none.
    NotCluster,
    /// The answer is not one to the command sent.
    Protocol {
        /// What was expected.
        expected: &'static str,
    },
    /// The other end closed the connection, which has no TLS, before it answered anything.
    HungUp,
    /// No sentinel could say who the master is.
    NoMaster {
        /// The kind of trouble with the sentinels.
        kind: Kind,
        /// Who was asked, and why each did not say.
        text: String,
    },
    /// The sentinel does not know a service of that name.
    UnknownService,
    /// The settings were changed while something was in flight.
    Reconfigured,
}

impl Cause {
    /// The cause in an error of the client library.
    pub fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io => match io_error(error) {
                Some(source) => Self::of_io(source),
                None => Self::Io {
                    kind: io::ErrorKind::Other,
                    text: first_words(&error.to_string()),
                },
            },
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Server {
                code: first_words(error.code().unwrap_or("ERR")),
                text: first_words(error.detail().unwrap_or("")),
            },
            // The library's own texts, and behind a dash or colon what Redis said.
            kind => Self::Server {
                code: format!("{kind:?}"),
                text: first_words(error.detail().unwrap_or(error.category())),
            },
        }
    }

    /// The cause in an error of a socket, TLS or not; one that [`Self::into_io`] has made is what it was.
    pub fn of_io(error: &io::Error) -> Self {
        let inner = error.get_ref();
        if let Some(cause) = inner.and_then(|inner| inner.downcast_ref::<Self>()) {
            return cause.clone();
        }
        let of_tls = inner.is_some_and(|inner| inner.is::<rustls::Error>() || inner.is::<TlsFailure>());
        if of_tls {
            return Self::Tls {
                text: in_short(error.to_string()),
            };
        }
        Self::Io {
            kind: error.kind(),
            text: first_words(&error.to_string()),
        }
    }

    /// As an error of a socket.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// The cause in the text of an error that Redis has answered, which begins with its code.
    pub fn of_text(text: &str) -> Self {
        let (code, text) = text.split_once(' ').unwrap_or((text, ""));
        Self::Server {
            code: first_words(code),
            text: first_words(text),
        }
    }

    /// The same of a connection to `address` on which nothing has been answered yet.
    pub fn before_any_answer(self, address: &Address) -> Self {
        match address.place() {
            Place::Tcp { .. } if !address.is_tls() && self.kind() == Kind::Lost => Self::HungUp,
            _ => self,
        }
    }

    /// Which kind of trouble it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { kind, .. } => kind_of_io(*kind),
            Self::Tls { .. } => Kind::Tls,
            Self::Exhausted => Kind::PoolExhausted,
            Self::Timeout { .. } => Kind::TimedOut,
            Self::Server { code, text } => kind_of_answer(code, text),
            Self::Replica => Kind::ReadOnly,
            Self::Cluster | Self::NotCluster | Self::UnknownService => Kind::Rejected,
            Self::NoMaster { kind, .. } => *kind,
            Self::Protocol { .. } => Kind::Protocol,
            Self::HungUp | Self::Reconfigured => Kind::Lost,
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
            (Self::NoMaster { kind, .. }, Self::NoMaster { kind: other, .. }) => kind == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { text, .. } | Self::Tls { text } | Self::NoMaster { text, .. } => f.write_str(text),
            Self::Exhausted => f.write_str("no connection of the pool became free"),
            Self::Timeout { after } => write!(f, "no answer within {} ms", after.as_millis()),
            Self::Server { code, text } if text.is_empty() => f.write_str(code),
            Self::Server { code, text } => write!(f, "{code} {text}"),
            Self::Replica => f.write_str("the server is a replica, which cannot be written to"),
            Self::Cluster => {
                f.write_str("the server is part of a cluster, whose address begins with redis-cluster://")
            }
            Self::NotCluster => f.write_str("the server is not part of a cluster"),
            Self::UnknownService => f.write_str("it does not know the service"),
            Self::Protocol { expected } => write!(f, "unexpected answer, {expected} was expected"),
            Self::HungUp => {
                f.write_str("closed before anything was answered, as by a port for TLS (rediss://)")
            }
            Self::Reconfigured => f.write_str("the settings have changed"),
        }
    }
}

impl std::error::Error for Cause {}

/// The library keeps it in an `Arc` (redis_error.rs, `ErrorRepr::Internal`).
fn io_error(error: &RedisError) -> Option<&io::Error> {
    let source = std::error::Error::source(error)?;
    let shared = source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?;
    shared.downcast_ref::<io::Error>()
}

/// An error that is none of a connection that stood is one of making it: a name that leads nowhere has no kind of its
/// own, a socket's file may not be there.
fn kind_of_io(kind: io::ErrorKind) -> Kind {
    match kind {
        io::ErrorKind::TimedOut => Kind::TimedOut,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::WriteZero => Kind::Lost,
        _ => Kind::Refused,
    }
}

/// By the code and, where Redis has none of its own, by its words (networking.c, acceptCommonHandler; acl.c,
/// authCommand).
fn kind_of_answer(code: &str, text: &str) -> Kind {
    match code {
        "NOAUTH" | "WRONGPASS" => Kind::Auth,
        "READONLY" => Kind::ReadOnly,
        "OOM" => Kind::OutOfMemory,
        "ERR" if text.starts_with("max number of clients") => Kind::PoolExhausted,
        "ERR" if text.starts_with("AUTH ") => Kind::Auth,
        _ => Kind::Rejected,
    }
}

/// Where Redis begins to quote, or another line.
const QUOTES: [char; 5] = ['\'', '"', '`', '\n', '\r'];

/// Before the name of a command, in quotation marks, that the ACL forbids.
const FORBIDDEN: &str = "no permissions to run the '";

/// A text of this side, which quotes nothing but a certificate's names.
fn in_short(mut text: String) -> String {
    text.retain(|c| !matches!(c, '\n' | '\r'));
    text.truncate(text.floor_char_boundary(2 * LONGEST_TEXT));
    text
}

/// What Redis said, cut where it begins to quote and where it gets long: it may quote a password, a key or a value. The
/// name of a command that a user may not run is neither (acl.c, getAclErrorMessage).
pub fn first_words(text: &str) -> String {
    if let Some((before, command)) = text.split_once(FORBIDDEN)
        && let Some((name, _)) = command.split_once('\'')
        && !before.contains(QUOTES)
        && before.len() + name.len() < LONGEST_TEXT
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"|-_.".contains(&byte))
    {
        return format!("{before}{FORBIDDEN}{name}' command");
    }
    let end = text.find(QUOTES).unwrap_or(text.len());
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
    fn a_forbidden_command_is_named() {
        for text in [
            "this user has no permissions to run the 'client|kill' command",
            "User app has no permissions to run the 'hset' command",
        ] {
            assert_eq!(first_words(text), text);
        }
        for (text, shown) in [
            (
                "this user has no permissions to run the 'a key' command",
                "this user has no permissions to run the",
            ),
            (
                "unknown command 'HSET', with args beginning with: 'no permissions to run the 'x'",
                "unknown command",
            ),
        ] {
            assert_eq!(first_words(text), shown);
        }
    }

    #[test]
    fn each_trouble_has_its_kind() {
        let io = |kind: io::ErrorKind| Cause::of_io(&kind.into());
        let tls = Cause::of_io(&io::Error::new(
            io::ErrorKind::InvalidData,
            rustls::Error::DecryptError,
        ));
        let cases = [
            (io(io::ErrorKind::ConnectionRefused), Kind::Refused),
            (io(io::ErrorKind::NotFound), Kind::Refused),
            (io(io::ErrorKind::TimedOut), Kind::TimedOut),
            (io(io::ErrorKind::BrokenPipe), Kind::Lost),
            (io(io::ErrorKind::UnexpectedEof), Kind::Lost),
            (tls, Kind::Tls),
            (Cause::Exhausted, Kind::PoolExhausted),
            (Cause::Replica, Kind::ReadOnly),
            (
                Cause::of_text("WRONGPASS invalid username-password pair"),
                Kind::Auth,
            ),
            (Cause::of_text("NOAUTH Authentication required."), Kind::Auth),
            (
                Cause::of_text("ERR AUTH <password> called without any password"),
                Kind::Auth,
            ),
            (
                Cause::of_text("ERR max number of clients reached"),
                Kind::PoolExhausted,
            ),
            (
                Cause::of_text("OOM command not allowed when used memory > 'maxmemory'."),
                Kind::OutOfMemory,
            ),
            (
                Cause::of_text("READONLY You can't write against a read only replica."),
                Kind::ReadOnly,
            ),
            (
                Cause::of_text("NOPERM this user has no permissions"),
                Kind::Rejected,
            ),
        ];
        for (cause, kind) in cases {
            assert_eq!(cause.kind(), kind, "{cause}");
        }
    }

    #[test]
    fn the_library_s_error_keeps_its_kind() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(Cause::of(&reset.into()).kind(), Kind::Lost);
        let tls = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        assert_eq!(Cause::of(&tls.into()).kind(), Kind::Tls);
    }

    #[test]
    fn a_fault_says_kind_words_and_where() {
        let fault = Fault {
            address: "redis://h:1/0".to_owned(),
            cause: Cause::of_text("NOPERM No permissions to access a key"),
        };
        let shown = "rejected: NOPERM No permissions to access a key (redis://h:1/0)";
        assert_eq!(fault.to_string(), shown);
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
