//! One key's elements, window by window: the commands, and the rows in their answers.
use std::rc::Rc;

use super::{
    Kind,
    element::{Element, Fields},
    filter::Within,
    interval::Scores,
    ranges, record,
    resp::{Commands, Reply},
    scores::{Place, score},
};

/// What is to be asked next about a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The fields or members from this one on, in the order in which they were given.
    Names { from: usize },
    /// HSCAN, SSCAN or ZSCAN from that cursor.
    Scan { cursor: Vec<u8> },
    /// The elements from that index on, of that range.
    Items { range: usize, from: i64 },
    /// The elements from that place on in the order of their scores.
    Scores(Place),
    /// The whole of a hash, as one element.
    Record,
    /// Some fields of a hash, as one element.
    Fields,
    /// The entries from that id on, of that range.
    Entries { range: usize, from: Vec<u8> },
}

/// The answer is none that the command has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected;

/// What an answer holds, and what is to be asked next.
#[derive(Debug, PartialEq)]
pub struct Window {
    pub elements: Vec<Element>,
    pub next: Option<Step>,
}

impl Step {
    /// How the reading of a key begins; none if nothing is to be read. Not for strings.
    pub fn first(kind: Kind, within: &Within) -> Option<Self> {
        match within {
            Within::Names(names) => (!names.is_empty()).then_some(Self::Names { from: 0 }),
            Within::Record => Some(Self::Record),
            Within::Fields(_) => Some(Self::Fields),
            Within::Scores(_) => Some(Self::Scores(Place::First)),
            Within::Indexes(ranges) => ranges.first().map(|range| Self::Items {
                range: 0,
                from: range.0,
            }),
            Within::Ids(ranges) | Within::IdsDown(ranges) => ranges.first().map(|range| Self::Entries {
                range: 0,
                from: range.0.clone(),
            }),
            Within::All if kind == Kind::List => Some(Self::Items { range: 0, from: 0 }),
            Within::All if kind == Kind::Stream => Some(Self::Entries {
                range: 0,
                from: b"-".to_vec(),
            }),
            Within::All | Within::Matching(_) => Some(Self::Scan {
                cursor: b"0".to_vec(),
            }),
        }
    }

    /// Appends the commands for about `count` elements: one, but for ranges and for a hash's fields.
    pub fn ask(&self, kind: Kind, key: &[u8], within: &Within, count: usize, commands: &mut Commands) {
        let count_text = count.to_string();
        let count_text = count_text.as_bytes();
        match self {
            Self::Names { from } => {
                let Within::Names(names) = within else { return };
                let names = names[*from..].iter().take(count);
                let command: &[u8] = match kind {
                    Kind::Hash => b"HMGET",
                    Kind::Set => b"SMISMEMBER",
                    _ => b"ZMSCORE",
                };
                commands.begin(names.len() + 2);
                commands.word(command);
                commands.word(key);
                names.for_each(|name| commands.word(name));
            }
            Self::Scan { cursor } => {
                let command: &[u8] = match kind {
                    Kind::Hash => b"HSCAN",
                    Kind::Set => b"SSCAN",
                    _ => b"ZSCAN",
                };
                match within {
                    Within::Matching(pattern) => {
                        commands.push(&[command, key, cursor, b"MATCH", pattern, b"COUNT", count_text]);
                    }
                    _ => commands.push(&[command, key, cursor, b"COUNT", count_text]),
                }
            }
            Self::Record => commands.push(&[b"HGETALL", key]),
            Self::Fields => {
                let Within::Fields(fields) = within else { return };
                record::ask(key, fields, commands);
            }
            Self::Items { range, from } => ranges::ask(key, within, *range, from, count, commands),
            Self::Entries { range, from } => ranges::ask(key, within, *range, from, count, commands),
            Self::Scores(place) => place.ask(key, scores_of(within), count, commands),
        }
    }

    /// The elements in the answers to what [`Self::ask`] asked with the same `count`.
    ///
    /// # Errors
    /// They are none that these commands have.
    pub fn take(
        self,
        kind: Kind,
        within: &Within,
        count: usize,
        replies: Vec<Reply>,
    ) -> Result<Window, Unexpected> {
        match self {
            Self::Items { range, from } => ranges::take(within, range, from, count, replies),
            Self::Entries { range, from } => ranges::take(within, range, from, count, replies),
            Self::Fields => match within {
                Within::Fields(fields) => record::take(fields, replies),
                _ => Err(Unexpected),
            },
            Self::Names { from } => names(kind, within, from, count, only(replies)?),
            Self::Scan { .. } => scanned(kind, only(replies)?),
            Self::Record => record::whole(only(replies)?),
            Self::Scores(place) => place.take(scores_of(within), count, replies),
        }
    }
}

/// The parts of the one answer.
pub(super) fn only(replies: Vec<Reply>) -> Result<Vec<Reply>, Unexpected> {
    match <[Reply; 1]>::try_from(replies) {
        Ok([Reply::Array(parts)]) => Ok(parts),
        _ => Err(Unexpected),
    }
}

fn scores_of(within: &Within) -> Scores {
    match within {
        Within::Scores(scores) => *scores,
        _ => Scores::ALL,
    }
}

/// The bytes of a bulk string.
pub(super) fn bulk(reply: Reply) -> Result<Vec<u8>, Unexpected> {
    match reply {
        Reply::Bulk(bytes) => Ok(bytes),
        _ => Err(Unexpected),
    }
}

fn names(
    kind: Kind,
    within: &Within,
    from: usize,
    count: usize,
    parts: Vec<Reply>,
) -> Result<Window, Unexpected> {
    let Within::Names(names) = within else {
        return Err(Unexpected);
    };
    let asked = &names[from..names.len().min(from.saturating_add(count))];
    if parts.len() != asked.len() {
        return Err(Unexpected);
    }
    let mut elements = Vec::new();
    for (name, part) in asked.iter().zip(parts) {
        match (kind, part) {
            (_, Reply::Nil) | (Kind::Set, Reply::Integer(0)) => {}
            (Kind::Set, Reply::Integer(_)) => elements.push(Element::Member(name.clone())),
            (Kind::Hash, part) => elements.push(Element::Pair {
                field: name.clone(),
                value: bulk(part)?,
            }),
            (_, part) => elements.push(Element::Scored {
                member: name.clone(),
                score: score(part)?,
            }),
        }
    }
    let behind = from + asked.len();
    let next = (behind < names.len()).then_some(Step::Names { from: behind });
    Ok(Window { elements, next })
}

/// Appends a step of a SCAN from a cursor on, in which Redis looks at about `count` keys: those of this pattern and, if
/// it is given, of this type.
pub fn push_scan(commands: &mut Commands, cursor: &[u8], pattern: &[u8], count: usize, kind: Option<Kind>) {
    let count = count.to_string();
    let mut words: Vec<&[u8]> = vec![b"SCAN", cursor, b"MATCH", pattern, b"COUNT", count.as_bytes()];
    if let Some(kind) = kind {
        words.extend([b"TYPE".as_slice(), kind.name().as_bytes()]);
    }
    commands.push(&words);
}

/// The two parts of a SCAN's answer: the next cursor, none at the end, and what was found.
pub fn cursor_and_found(parts: Vec<Reply>) -> Result<(Option<Vec<u8>>, Vec<Reply>), Unexpected> {
    let [cursor, found] = <[Reply; 2]>::try_from(parts).map_err(|_| Unexpected)?;
    let Reply::Array(found) = found else {
        return Err(Unexpected);
    };
    let cursor = bulk(cursor)?;
    Ok(((cursor != b"0").then_some(cursor), found))
}

fn scanned(kind: Kind, parts: Vec<Reply>) -> Result<Window, Unexpected> {
    let (cursor, found) = cursor_and_found(parts)?;
    let mut elements = Vec::with_capacity(found.len());
    let mut found = found.into_iter();
    while let Some(first) = found.next() {
        let name = bulk(first)?;
        let mut second = || found.next().ok_or(Unexpected);
        elements.push(match kind {
            Kind::Set => Element::Member(name),
            Kind::Hash => Element::Pair {
                field: name,
                value: bulk(second()?)?,
            },
            _ => Element::Scored {
                member: name,
                score: score(second()?)?,
            },
        });
    }
    let next = cursor.map(|cursor| Step::Scan { cursor });
    Ok(Window { elements, next })
}

/// Names and values, which come by turns.
pub(super) fn pairs(parts: Vec<Reply>) -> Result<Fields, Unexpected> {
    let mut pairs = Vec::with_capacity(parts.len() / 2);
    let mut parts = parts.into_iter();
    while let Some(name) = parts.next() {
        pairs.push((bulk(name)?, bulk(parts.next().ok_or(Unexpected)?)?));
    }
    Ok(pairs)
}

/// What names an element within its key, for those that a cursor may return twice.
pub fn identity(element: &Element) -> Option<&[u8]> {
    match element {
        Element::Pair { field, .. } => Some(field),
        Element::Member(member) | Element::Scored { member, .. } => Some(member),
        Element::Value(_) | Element::Item { .. } | Element::Entry { .. } => None,
    }
}

/// A key shared by its rows.
pub type Key = Rc<[u8]>;
