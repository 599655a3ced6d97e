//! From a query's conditions to the shortest way of reading.
//!
//! Which conditions count is known when a statement is planned ([`Shape`]); their operands when it runs
//! ([`Operand`]). An [`Access`] reads all rows that meet the conditions. It may read others, and says so: then
//! PostgreSQL has to look at each row again.
use std::collections::HashSet;

use super::{
    Kind,
    element::parse_score,
    exact, glob,
    interval::{self, ScoreEnd, Scores, ids_between_texts},
    options::Keys,
};

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Key,
    /// A hash's field, a set's or zset's member, a stream's id.
    Name,
    Score,
    Index,
    /// A part of a mapping's keys: the key column with that number.
    Part(usize),
}

/// How the column stands to the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Comparison {
    Equal,
    /// Equal to one of many.
    Any,
    Like,
    /// Begins with it.
    Prefix,
    Less,
    LessEqual,
    GreaterEqual,
    Greater,
}

impl Comparison {
    /// All, in an order that [`Self::number`] counts by.
    pub(super) const ALL: [Comparison; 8] = [
        Self::Equal,
        Self::Any,
        Self::Like,
        Self::Prefix,
        Self::Less,
        Self::LessEqual,
        Self::GreaterEqual,
        Self::Greater,
    ];

    /// A number for it, which a plan can hold.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// The comparison with that number.
    pub fn numbered(number: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|comparison| comparison.number() == number)
    }

    /// Whether it leaves what lies on one side of the operand.
    pub fn is_range(self) -> bool {
        matches!(
            self,
            Self::Less | Self::LessEqual | Self::GreaterEqual | Self::Greater
        )
    }

    pub(super) fn is_point(self) -> bool {
        matches!(self, Self::Equal | Self::Any)
    }
}

/// A condition without its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub target: Target,
    pub comparison: Comparison,
}

impl Shape {
    /// Whether such a condition on a table of that kind makes the reading shorter.
    pub fn narrows(self, kind: Kind) -> bool {
        let pattern = matches!(self.comparison, Comparison::Like | Comparison::Prefix);
        match self.target {
            Target::Key => self.comparison.is_point() || pattern,
            Target::Name => match kind {
                Kind::Hash | Kind::Set | Kind::Zset => self.comparison.is_point() || pattern,
                Kind::Stream => self.comparison.is_point() || self.comparison.is_range(),
                Kind::String | Kind::List => false,
            },
            Target::Score => {
                kind == Kind::Zset && (self.comparison == Comparison::Equal || self.comparison.is_range())
            }
            Target::Part(_) => self.comparison.is_point(),
            Target::Index => kind == Kind::List && (self.comparison.is_point() || self.comparison.is_range()),
        }
    }
}

/// What a column is compared with, as Redis has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operand {
    /// No row meets the condition.
    Null,
    One(Vec<u8>),
    Many(Vec<Vec<u8>>),
}

impl Operand {
    pub(super) fn into_many(self) -> Vec<Vec<u8>> {
        match self {
            Self::Null => Vec::new(),
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Which keys are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyAccess {
    /// These, each once.
    Listed(Vec<Vec<u8>>),
    /// Those that SCAN finds by `scanned`, as far as all of `patterns` match.
    Scanned {
        scanned: Vec<u8>,
        patterns: Vec<Vec<u8>>,
    },
}

/// What is read of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Within {
    All,
    /// These fields or members, each once.
    Names(Vec<Vec<u8>>),
    /// The fields or members that a glob pattern matches.
    Matching(Vec<u8>),
    Scores(Scores),
    /// A list's elements from index to index.
    Indexes(Vec<(i64, i64)>),
    /// A stream's entries from id to id, as XRANGE takes them.
    Ids(Vec<(Vec<u8>, Vec<u8>)>),
    /// The same from id down to id, as XREVRANGE takes them.
    IdsDown(Vec<(Vec<u8>, Vec<u8>)>),
    /// A hash as one row.
    Record,
    /// A hash as one row, of which no more than these fields are wanted.
    Fields(Vec<Vec<u8>>),
}

/// A way of reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    pub keys: KeyAccess,
    pub within: Within,
    /// Whether every row that is read meets all of the conditions, as far as their operands' texts are one to one with
    /// the values: nobody need look again.
    pub exact: bool,
}

impl Access {
    /// All of a table's rows that may meet the conditions.
    pub fn new(kind: Kind, keys: &Keys, conditions: Vec<(Shape, Operand)>) -> Self {
        let nothing = conditions
            .iter()
            .any(|(_, operand)| matches!(operand, Operand::Null) || *operand == Operand::Many(Vec::new()));
        let exact = nothing || exact::is(kind, keys, &conditions);
        let (of_key, of_rest): (Vec<_>, Vec<_>) = conditions
            .into_iter()
            .filter(|(shape, _)| shape.narrows(kind))
            .partition(|(shape, _)| shape.target == Target::Key);
        Self {
            keys: if nothing {
                KeyAccess::Listed(Vec::new())
            } else {
                key_access(keys, of_key)
            },
            within: within(kind, of_rest),
            exact,
        }
    }
}

impl Access {
    /// The same rows of a zset in the order of their scores, and others where the members had to match a pattern: no
    /// command knows both. What is read by name has no order.
    #[must_use]
    pub fn by_score(mut self, descending: bool) -> Self {
        self.exact &= !matches!(self.within, Within::Matching(_));
        self.within = match self.within {
            Within::Scores(scores) => Within::Scores(Scores { descending, ..scores }),
            Within::All | Within::Matching(_) => Within::Scores(Scores {
                descending,
                ..Scores::ALL
            }),
            within => within,
        };
        self
    }
}

impl Access {
    /// The same hashes with no more than these of their fields, if each is one row.
    #[must_use]
    pub fn with_fields(mut self, fields: &[Vec<u8>]) -> Self {
        if self.within == Within::Record {
            self.within = Within::Fields(fields.to_vec());
        }
        self
    }

    /// The same entries of a stream, the latest first. (What is read by XRANGE comes in the order of the ids.)
    #[must_use]
    pub fn latest_first(mut self) -> Self {
        self.within = match self.within {
            Within::All => Within::IdsDown(vec![(b"+".to_vec(), b"-".to_vec())]),
            Within::Ids(ranges) => {
                Within::IdsDown(ranges.into_iter().rev().map(|(from, to)| (to, from)).collect())
            }
            within => within,
        };
        self
    }
}

fn key_access(keys: &Keys, conditions: Vec<(Shape, Operand)>) -> KeyAccess {
    let pattern = match keys {
        Keys::One(key) => return KeyAccess::Listed(vec![key.clone()]),
        Keys::Matching(pattern) => pattern.clone(),
    };
    let mut patterns = vec![pattern];
    let mut listed: Option<Vec<Vec<u8>>> = None;
    for (shape, operand) in conditions {
        match shape.comparison {
            Comparison::Like | Comparison::Prefix => patterns.extend(pattern_of(shape.comparison, operand)),
            _ => listed = Some(common(listed, operand.into_many())),
        }
    }
    let matches = |key: &Vec<u8>| patterns.iter().all(|pattern| glob::matches(pattern, key));
    match listed {
        Some(mut keys) => {
            keys.retain(matches);
            KeyAccess::Listed(keys)
        }
        None => match glob::narrowest(&patterns) {
            Some(scanned) => KeyAccess::Scanned {
                scanned: scanned.to_vec(),
                patterns,
            },
            None => KeyAccess::Listed(Vec::new()),
        },
    }
}

/// What is in both, each once; all of `new` if there is no other yet.
pub(super) fn common(known: Option<Vec<Vec<u8>>>, new: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    match known {
        Some(mut known) => {
            let new: HashSet<Vec<u8>> = new.into_iter().collect();
            known.retain(|value| new.contains(value));
            known
        }
        None if new.len() < 2 => new,
        None => {
            let mut seen = HashSet::new();
            new.into_iter()
                .filter(|value| seen.insert(value.clone()))
                .collect()
        }
    }
}

/// The glob pattern for a LIKE or a prefix; none if there is none.
fn pattern_of(comparison: Comparison, operand: Operand) -> Option<Vec<u8>> {
    let Operand::One(text) = operand else { return None };
    if comparison == Comparison::Like {
        return glob::from_like(&text);
    }
    let mut pattern = glob::escape(&text);
    pattern.push(b'*');
    Some(pattern)
}

fn within(kind: Kind, conditions: Vec<(Shape, Operand)>) -> Within {
    let (points, others): (Vec<_>, Vec<_>) = conditions
        .into_iter()
        .partition(|(shape, _)| shape.target == Target::Name && shape.comparison.is_point());
    if !points.is_empty() {
        let names = points.into_iter().fold(None, |known, (_, operand)| {
            Some(common(known, operand.into_many()))
        });
        let names = names.unwrap_or_default();
        return match kind {
            Kind::Stream => {
                let ids = interval::ids(&names).into_iter();
                Within::Ids(ids.map(|id| (id.clone(), id)).collect())
            }
            _ => Within::Names(names),
        };
    }
    match kind {
        Kind::List => indexes(others),
        Kind::Stream => ids(others),
        Kind::Zset if others.iter().any(|(shape, _)| shape.target == Target::Score) => scores(others),
        _ => {
            let patterns = others
                .into_iter()
                .filter_map(|(shape, operand)| pattern_of(shape.comparison, operand));
            let patterns: Vec<Vec<u8>> = patterns.collect();
            match glob::narrowest(&patterns) {
                _ if patterns.is_empty() => Within::All,
                Some(pattern) => Within::Matching(pattern.to_vec()),
                None => Within::Names(Vec::new()),
            }
        }
    }
}

fn scores(conditions: Vec<(Shape, Operand)>) -> Within {
    let mut scores = Scores::ALL;
    for (shape, operand) in conditions {
        let (Target::Score, Operand::One(text)) = (shape.target, operand) else {
            continue;
        };
        let Some(score) = parse_score(&text) else {
            continue;
        };
        if score.is_nan() {
            // To PostgreSQL it is above all others; no score is one.
            if !matches!(shape.comparison, Comparison::Less | Comparison::LessEqual) {
                scores.at_least(ScoreEnd {
                    score: f64::INFINITY,
                    inclusive: false,
                });
            }
            continue;
        }
        // A text that no double is exactly: the range must not lose what lies between the two.
        let exact = exact::is_score(&text);
        let (below, above) = if exact {
            (score, score)
        } else {
            (score.next_down(), score.next_up())
        };
        let low = |inclusive| ScoreEnd {
            score: below,
            inclusive: inclusive || !exact,
        };
        let high = |inclusive| ScoreEnd {
            score: above,
            inclusive: inclusive || !exact,
        };
        match shape.comparison {
            Comparison::Equal => {
                scores.at_least(low(true));
                scores.at_most(high(true));
            }
            Comparison::Less => scores.at_most(high(false)),
            Comparison::LessEqual => scores.at_most(high(true)),
            Comparison::Greater => scores.at_least(low(false)),
            Comparison::GreaterEqual => scores.at_least(low(true)),
            Comparison::Any | Comparison::Like | Comparison::Prefix => {}
        }
    }
    Within::Scores(scores)
}

/// A list's index.
pub(super) fn index(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn indexes(conditions: Vec<(Shape, Operand)>) -> Within {
    if conditions.is_empty() {
        return Within::All;
    }
    let (mut low, mut high) = (0, i64::MAX);
    let mut points: Option<Vec<Vec<u8>>> = None;
    for (shape, operand) in conditions {
        if shape.comparison.is_point() {
            points = Some(common(points, operand.into_many()));
            continue;
        }
        let Operand::One(text) = operand else { continue };
        let Some(number) = index(&text) else { continue };
        match shape.comparison {
            Comparison::Less => high = high.min(number.saturating_sub(1)),
            Comparison::LessEqual => high = high.min(number),
            Comparison::Greater => low = low.max(number.saturating_add(1)),
            Comparison::GreaterEqual => low = low.max(number),
            _ => {}
        }
    }
    let ranges = match points {
        Some(points) => {
            let points = points.iter().filter_map(|text| index(text));
            interval::of_points(points.filter(|point| (low..=high).contains(point)).collect())
        }
        None if low > high => Vec::new(),
        None => vec![(low, high)],
    };
    Within::Indexes(ranges)
}

fn ids(conditions: Vec<(Shape, Operand)>) -> Within {
    let (mut low, mut high): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
    for (shape, operand) in conditions {
        let Operand::One(text) = operand else { continue };
        match shape.comparison {
            Comparison::Less | Comparison::LessEqual => high.push(text),
            Comparison::Greater | Comparison::GreaterEqual => low.push(text),
            _ => {}
        }
    }
    // Of several ends any one will do; which is the tightest depends on the collation.
    let (low, high) = (low.into_iter().next(), high.into_iter().next());
    if low.is_none() && high.is_none() {
        return Within::All;
    }
    match ids_between_texts(low.as_deref(), high.as_deref()) {
        Some(ranges) => Within::Ids(
            ranges
                .into_iter()
                .map(|range| (range.start().to_string().into(), range.end().to_string().into()))
                .collect(),
        ),
        None => Within::All,
    }
}

#[cfg(test)]
mod tests;
