//! What an error in the answer to a write means for it.

use ::redis::{ServerError, ServerErrorKind};

use super::fault::Cause;

/// What to do about an answer, the mildest first: the worst one of an operation's commands counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it is done.
    Done,
    /// The key's slot is another master's, or on its way there: it has not run.
    Redirected {
        /// For this time only (ASK).
        is_ask: bool,
        /// The slot and the place, as `3999 127.0.0.1:6381`.
        to: String,
    },
    /// The server as a whole refuses for now: wait and send again.
    Later(Cause),
    /// The key holds another type: delete it and store again.
    WrongType(Cause),
    /// No memory: delete the key (rule 6).
    NoMemory(Cause),
    /// Refused for good.
    Refused(Cause),
    /// This connection is of no use: not a master, or not authenticated.
    Fatal(Cause),
}

impl Verdict {
    /// Judges an error by its code.
    pub fn of(error: &ServerError) -> Self {
        let cause = Cause::of_reply(error);
        match error.kind() {
            Some(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown,
            ) => Self::Later(cause),
            Some(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => Self::Redirected {
                is_ask: kind == ServerErrorKind::Ask,
                to: error.details().unwrap_or_default().to_owned(),
            },
            Some(ServerErrorKind::ReadOnly) => Self::Fatal(cause),
            Some(_) => Self::Refused(cause),
            None => match error.code() {
                // A script runs too long; the last snapshot failed; too few replicas.
                "BUSY" | "MISCONF" | "NOREPLICAS" => Self::Later(cause),
                "OOM" => Self::NoMemory(cause),
                "WRONGTYPE" => Self::WrongType(cause),
                "NOAUTH" | "WRONGPASS" => Self::Fatal(cause),
                _ => Self::Refused(cause),
            },
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Redirected { .. } => 1,
            Self::Later(_) => 2,
            Self::WrongType(_) => 3,
            Self::NoMemory(_) => 4,
            Self::Refused(_) => 5,
            Self::Fatal(_) => 6,
        }
    }

    /// Keeps the worse one of the two.
    pub fn worsen(&mut self, other: Self) {
        if other.rank() > self.rank() {
            *self = other;
        }
    }
}
