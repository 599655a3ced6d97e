//! What a Redis collection holds, as rows.
use std::{fmt, rc::Rc};

/// The types of Redis that a table can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    String,
    Hash,
    List,
    Set,
    Zset,
    Stream,
}

impl Kind {
    pub const ALL: [Kind; 6] = [
        Kind::String,
        Kind::Hash,
        Kind::List,
        Kind::Set,
        Kind::Zset,
        Kind::Stream,
    ];

    /// The name that TYPE answers and SCAN's TYPE takes.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Hash => "hash",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::Zset => "zset",
            Kind::Stream => "stream",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names and values.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// One row's worth of a collection.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    Value(Vec<u8>),
    Pair { field: Vec<u8>, value: Vec<u8> },
    Item { index: i64, element: Vec<u8> },
    Member(Vec<u8>),
    Scored { member: Vec<u8>, score: f64 },
    Entry { id: Vec<u8>, fields: Fields },
}

impl Element {
    /// How many bytes it holds.
    pub fn size(&self) -> usize {
        match self {
            Self::Value(bytes) | Self::Member(bytes) => bytes.len(),
            Self::Pair { field, value } => field.len() + value.len(),
            Self::Item { element, .. } => element.len(),
            Self::Scored { member, .. } => member.len() + size_of::<f64>(),
            Self::Entry { id, fields } => {
                let fields = fields.iter().map(|(field, value)| field.len() + value.len());
                id.len() + fields.sum::<usize>()
            }
        }
    }
}

/// An element and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: Rc<[u8]>,
    /// What TTL answered: seconds, -1 without expiry, -2 gone; -2 too when it was not asked for.
    pub ttl: i64,
    pub element: Element,
}

/// A score as Redis writes it: `3.5`, `inf`, `-inf`.
pub fn parse_score(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A score as Redis reads it (strtod), and as the shortest text that reads back as the same number.
pub fn format_score(score: f64) -> String {
    if score == score.trunc() && score.abs() < 1e17 {
        // Without `-0`, which numeric would not keep either.
        format!("{}", score as i64)
    } else {
        format!("{score:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_have_one_text() {
        for (score, text) in [
            (1.0, "1"),
            (-3.0, "-3"),
            (0.1, "0.1"),
            (1e300, "1e300"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(format_score(score), text);
            assert_eq!(parse_score(text.as_bytes()), Some(score));
        }
        assert_eq!(parse_score(b"0.10000000000000001"), Some(0.1));
    }
}
