//! Why a mapping is purged.

/// Why a mapping is purged: each is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// `invalidate_all`.
    Asked = 0,
    /// It is new, or what it means has changed.
    Activated = 1,
    /// DDL or TRUNCATE.
    Ddl = 2,
    /// A statement ran that cannot be captured.
    Statement = 3,
    /// A row's key may have changed, and the one it had is not known.
    Key = 4,
    /// Rows changed out of sight, see [`super::tally`].
    Unseen = 5,
    /// A transaction changed more than `transaction_buffer` holds, even as deletions.
    Buffer = 6,
    /// The queue had no room.
    Queue = 7,
    /// The list of mappings changed while a transaction ran.
    List = 8,
    /// PREPARE TRANSACTION.
    Prepared = 9,
    /// Redis refused an operation, or an operation could not be sent.
    Refused = 10,
    /// A lost connection's commands may still run.
    Connection = 11,
    /// Redis was restarted, or another server answers.
    Server = 12,
    /// The worker started, and what happened before is not known.
    Start = 13,
    /// Its server was away for longer than what it missed could be kept.
    Away = 14,
}

impl Reason {
    /// All of them, by number.
    pub const ALL: [Reason; 15] = [
        Reason::Asked,
        Reason::Activated,
        Reason::Ddl,
        Reason::Statement,
        Reason::Key,
        Reason::Unseen,
        Reason::Buffer,
        Reason::Queue,
        Reason::List,
        Reason::Prepared,
        Reason::Refused,
        Reason::Connection,
        Reason::Server,
        Reason::Start,
        Reason::Away,
    ];

    /// What users see.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Asked => "asked",
            Reason::Activated => "activated",
            Reason::Ddl => "ddl",
            Reason::Statement => "statement",
            Reason::Key => "key",
            Reason::Unseen => "unseen",
            Reason::Buffer => "buffer",
            Reason::Queue => "queue",
            Reason::List => "list",
            Reason::Prepared => "prepared",
            Reason::Refused => "refused",
            Reason::Connection => "connection",
            Reason::Server => "server",
            Reason::Start => "start",
            Reason::Away => "away",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_numbered_as_they_are_listed() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
    }
}
