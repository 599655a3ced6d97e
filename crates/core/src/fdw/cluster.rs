//! A Redis Cluster behind one line: which node each command goes to, and what its answers come to.
//!
//! Guarantees: a command whose keys belong to several slots is sent in parts, and answered as one (MGET, UNLINK); the
//! keys of all masters are one SCAN, whose cursor names the master. Does no I/O, and does not follow redirections: it
//! tells them.
use super::{
    resp::{Commands, Reader, Reply},
    step::Unexpected,
};
use crate::redis::slots::{Node, Slots, slot};

/// Reads the answer to CLUSTER SLOTS. `asked` is the host of the node that gave it.
///
/// # Errors
/// It is none that the command has.
pub fn read_slots(reply: Reply, asked: &str) -> Result<Slots, Unexpected> {
    let Reply::Array(rows) = reply else {
        return Err(Unexpected);
    };
    let mut ranges = Vec::with_capacity(rows.len());
    for row in rows {
        let Reply::Array(row) = row else {
            return Err(Unexpected);
        };
        let [Reply::Integer(from), Reply::Integer(to), Reply::Array(master), ..] = &row[..] else {
            return Err(Unexpected);
        };
        let [host, Reply::Integer(port), ..] = &master[..] else {
            return Err(Unexpected);
        };
        let host = match host {
            Reply::Bulk(host) => String::from_utf8_lossy(host).into_owned(),
            Reply::Nil => String::new(),
            _ => return Err(Unexpected),
        };
        let number = |number: &i64| u16::try_from(*number).map_err(|_| Unexpected);
        ranges.push((number(from)?..=number(to)?, Node::of(&host, number(port)?, asked)));
    }
    Ok(Slots::new(ranges))
}

/// Whom a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The master of a slot.
    Slot(u16),
    /// The master with that number, of those that a SCAN goes through; the first step of a SCAN begins it.
    Scanned { master: usize, begins: bool },
    /// Each master.
    Every,
    /// Any node.
    Any,
}

/// How the answers to the parts of a command become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    Only,
    /// That of the node to which the command was sent, whatever it is.
    Sent,
    /// One value for each key; a key of another type has none, as MGET answers.
    Values,
    /// How many keys it was done to.
    Sum,
    /// A step of a SCAN, of the master with that number.
    Scan(usize),
}

/// A part of a command that goes to one node, or to each.
#[derive(Clone, Debug)]
pub struct Part {
    pub to: To,
    /// Whether it is a step through one key (HSCAN, SSCAN, ZSCAN), and if so, the first: a cursor is the node's own.
    pub step: Option<bool>,
    pub command: Commands,
}

/// A command as a cluster takes it.
#[derive(Debug)]
pub struct Routed {
    pub parts: Vec<Part>,
    pub merge: Merge,
}

/// Takes commands apart.
pub fn route(commands: &Commands) -> Vec<Routed> {
    let mut reader = Reader::default();
    reader.feed(&commands.bytes);
    let mut routed = Vec::with_capacity(commands.count);
    while let Ok(Some(Reply::Array(words))) = reader.next_reply() {
        let words: Vec<Vec<u8>> = words.into_iter().filter_map(Reply::into_bytes).collect();
        routed.push(route_one(&words));
    }
    routed
}

/// The slots of commands, each once.
pub fn slots_of(commands: &Commands) -> Vec<u16> {
    let parts = route(commands).into_iter().flat_map(|routed| routed.parts);
    let mut slots: Vec<u16> = parts
        .filter_map(|part| match part.to {
            To::Slot(slot) => Some(slot),
            _ => None,
        })
        .collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

fn route_one(words: &[Vec<u8>]) -> Routed {
    let name = words.first().map(Vec::as_slice).unwrap_or_default();
    let keys = words.get(1..).unwrap_or_default();
    match name {
        b"MGET" => in_parts(b"GET", keys, Merge::Values),
        b"UNLINK" | b"DEL" | b"EXISTS" if keys.len() > 1 => in_parts(name, keys, Merge::Sum),
        b"DBSIZE" => Routed {
            parts: vec![part(To::Every, words)],
            merge: Merge::Sum,
        },
        b"SCAN" => scan(words),
        b"HSCAN" | b"SSCAN" | b"ZSCAN" => {
            let mut routed = whole(words, keys.first());
            let begins = keys.get(1).is_some_and(|cursor| cursor == b"0");
            routed.parts.iter_mut().for_each(|part| part.step = Some(begins));
            routed
        }
        // The script, how many keys, the first key.
        b"EVAL" => whole(words, keys.get(2)),
        // The command, then the key.
        b"MEMORY" | b"OBJECT" => whole(words, keys.get(1)),
        _ => whole(words, keys.first()),
    }
}

fn whole(words: &[Vec<u8>], key: Option<&Vec<u8>>) -> Routed {
    let to = key.map_or(To::Any, |key| To::Slot(slot(key)));
    Routed {
        parts: vec![part(to, words)],
        merge: Merge::Only,
    }
}

fn part<W: AsRef<[u8]>>(to: To, words: &[W]) -> Part {
    let words: Vec<&[u8]> = words.iter().map(AsRef::as_ref).collect();
    let mut command = Commands::default();
    command.push(&words);
    Part {
        to,
        step: None,
        command,
    }
}

fn in_parts(name: &[u8], keys: &[Vec<u8>], merge: Merge) -> Routed {
    let parts = keys.iter().map(|key| part(To::Slot(slot(key)), &[name, key]));
    Routed {
        parts: parts.collect(),
        merge,
    }
}

/// A cursor is that of one master, with the master's number before it: `2:17`; 0 is the beginning.
fn scan(words: &[Vec<u8>]) -> Routed {
    let cursor = words.get(1).map(Vec::as_slice).unwrap_or_default();
    let (number, own) = match cursor.iter().position(|byte| *byte == b':') {
        Some(colon) => (&cursor[..colon], &cursor[colon + 1..]),
        None => (&b"0"[..], cursor),
    };
    let number = std::str::from_utf8(number)
        .ok()
        .and_then(|text| text.parse().ok());
    let number = number.unwrap_or(0);
    let mut words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    if let Some(cursor) = words.get_mut(1) {
        *cursor = own;
    }
    Routed {
        parts: vec![part(
            To::Scanned {
                master: number,
                begins: cursor == b"0",
            },
            &words,
        )],
        merge: Merge::Scan(number),
    }
}

impl Merge {
    /// The one answer. `masters` is how many masters a SCAN goes through.
    pub fn apply(self, mut replies: Vec<Reply>, masters: usize) -> Reply {
        match self {
            Self::Only | Self::Sent => replies.pop().unwrap_or(Reply::Nil),
            Self::Values => {
                let mut values = Vec::with_capacity(replies.len());
                for reply in replies {
                    values.push(match reply {
                        Reply::Error(text) if text.starts_with("WRONGTYPE") => Reply::Nil,
                        Reply::Error(_) => return reply,
                        value => value,
                    });
                }
                Reply::Array(values)
            }
            Self::Sum => {
                let mut sum = 0;
                for reply in replies {
                    match reply {
                        Reply::Integer(count) => sum += count,
                        other => return other,
                    }
                }
                Reply::Integer(sum)
            }
            Self::Scan(number) => {
                let mut reply = replies.pop().unwrap_or(Reply::Nil);
                if let Reply::Array(parts) = &mut reply
                    && let Some(Reply::Bulk(cursor)) = parts.first_mut()
                {
                    *cursor = match &cursor[..] {
                        b"0" if number + 1 >= masters => b"0".to_vec(),
                        b"0" => format!("{}:0", number + 1).into_bytes(),
                        own => [format!("{number}:").as_bytes(), own].concat(),
                    };
                }
                reply
            }
        }
    }
}

impl Merge {
    /// Whether a SCAN has come to its end with this answer.
    pub fn ends_scan(self, reply: &Reply) -> bool {
        matches!(self, Self::Scan(_))
            && matches!(reply, Reply::Array(parts) if parts.first() == Some(&Reply::Bulk(b"0".to_vec())))
    }
}

/// Whether an answer to CLUSTER NODES says that the node which gave it has slots on their way to or from another.
pub fn is_resharding(nodes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(nodes);
    text.lines()
        .any(|line| line.contains("myself") && (line.contains("->-") || line.contains("-<-")))
}

#[cfg(test)]
mod tests;
