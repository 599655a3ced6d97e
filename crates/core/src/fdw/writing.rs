//! Changed rows as commands.
//!
//! [`inserts`] writes new rows over what is there. [`Changes`] gathers the rows that a statement updates and deletes:
//! rows that trade names with each other come out right, because all new ones are written before those old ones are
//! removed that no row is called any more. Rows of one key share their commands. A list's elements have no name but
//! their index, so the changes of a list are one script: it changes nothing unless every element is still what was
//! read, and no other client sees it half done.
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
};

use super::{Element, Kind, element::format_score, resp::Commands, step::Key};

/// How many elements one command has at most: Redis does nothing else meanwhile.
const ELEMENTS_AT_ONCE: usize = 1000;

/// The index of an element that goes to the end of its list.
pub const APPENDED: i64 = -1;

/// What becomes of a key's time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As Redis does by itself: a new string has none, other keys keep theirs.
    Plain,
    /// It stays as it is.
    Kept,
    Seconds(i64),
    /// The key does not expire.
    Endless,
}

/// A row to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    pub key: Key,
    /// An entry's id is `*` for a new one; an item's index may be [`APPENDED`].
    pub element: Element,
    pub lifetime: Lifetime,
}

/// What an element is called within its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// The key's only one.
    Whole,
    /// A hash's field, a set's or zset's member, a stream's id.
    Named(Vec<u8>),
    /// A list's element by its index, with what was read there.
    At { index: i64, element: Vec<u8> },
}

/// The name of an element.
fn name(element: &Element) -> Name {
    match element {
        Element::Value(_) => Name::Whole,
        Element::Pair { field: name, .. }
        | Element::Member(name)
        | Element::Scored { member: name, .. }
        | Element::Entry { id: name, .. } => Name::Named(name.clone()),
        Element::Item { index, element } => Name::At {
            index: *index,
            element: element.clone(),
        },
    }
}

/// Things by their key, in the order in which the keys came first.
struct ByKey<T>(Vec<(Key, Vec<T>)>);

impl<T> ByKey<T> {
    fn of(things: impl Iterator<Item = (Key, T)>) -> Self {
        let mut places: HashMap<Key, usize> = HashMap::new();
        let mut all: Vec<(Key, Vec<T>)> = Vec::new();
        let mut last = 0;
        for (key, thing) in things {
            // Mostly the same key follows.
            if let Some((known, things)) = all.get_mut(last)
                && *known == key
            {
                things.push(thing);
                continue;
            }
            let place = *places.entry(key.clone()).or_insert(all.len());
            if place == all.len() {
                all.push((key, Vec::new()));
            }
            all[place].1.push(thing);
            last = place;
        }
        Self(all)
    }
}

/// Appends the commands that write new rows over what is there. Each has one answer, of which only errors count; for
/// one row alone its first is that of XADD (the id) or RPUSH (the list's new length).
pub fn inserts(kind: Kind, puts: Vec<Put>, commands: &mut Commands) {
    write(kind, puts, false, commands);
}

/// `present`: only what is there already, where Redis can be told so.
fn write(kind: Kind, puts: Vec<Put>, present: bool, commands: &mut Commands) {
    if kind == Kind::String {
        puts.iter().for_each(|put| set(put, present, commands));
        return;
    }
    for (key, puts) in ByKey::of(puts.into_iter().map(|put| (put.key.clone(), put))).0 {
        let lifetime = last(puts.iter().map(|put| put.lifetime));
        let elements: Vec<&Element> = puts.iter().map(|put| &put.element).collect();
        match kind {
            Kind::List if has_index(&elements) => {
                put_items(&key, &elements, lifetime, commands);
                continue;
            }
            Kind::List => push(&key, &elements, commands),
            Kind::Stream => elements
                .iter()
                .for_each(|element| add_entry(&key, element, commands)),
            _ => elements
                .chunks(ELEMENTS_AT_ONCE)
                .for_each(|elements| add(kind, &key, elements, present, commands)),
        }
        expire(kind, &key, lifetime, commands);
    }
}

/// With GET, SET refuses a key of another type, which it would replace otherwise.
fn set(put: &Put, present: bool, commands: &mut Commands) {
    let Element::Value(value) = &put.element else {
        return;
    };
    let seconds;
    let mut words: Vec<&[u8]> = vec![b"SET", &put.key, value, b"GET"];
    match put.lifetime {
        Lifetime::Plain | Lifetime::Endless => {}
        Lifetime::Kept => words.push(b"KEEPTTL"),
        Lifetime::Seconds(number) => {
            seconds = number.to_string();
            words.extend([b"EX", seconds.as_bytes()]);
        }
    }
    if present {
        words.push(b"XX");
    }
    commands.push(&words);
}

fn add(kind: Kind, key: &[u8], elements: &[&Element], present: bool, commands: &mut Commands) {
    let (command, each): (&[u8], usize) = match kind {
        Kind::Hash => (b"HSET", 2),
        Kind::Set => (b"SADD", 1),
        _ => (b"ZADD", 2),
    };
    let present = present && kind == Kind::Zset;
    commands.begin(2 + usize::from(present) + each * elements.len());
    commands.word(command);
    commands.word(key);
    if present {
        commands.word(b"XX");
    }
    for element in elements {
        match element {
            Element::Pair { field, value } => {
                commands.word(field);
                commands.word(value);
            }
            Element::Scored { member, score } => {
                commands.word(format_score(*score).as_bytes());
                commands.word(member);
            }
            Element::Member(member) => commands.word(member),
            Element::Value(_) | Element::Item { .. } | Element::Entry { .. } => {}
        }
    }
}

/// Sets elements by index and appends the others. An index behind the list's end is refused, and then nothing written,
/// neither the time to live.
const PUT_ITEMS: &[u8] = b"\
local length = redis.call('LLEN', KEYS[1])
for i = 2, #ARGV, 2 do
    local index = tonumber(ARGV[i])
    if index > length then
        return redis.error_reply('INDEX ' .. ARGV[i] .. ' ' .. length)
    end
    if index < 0 or index == length then length = length + 1 end
end
length = redis.call('LLEN', KEYS[1])
for i = 2, #ARGV, 2 do
    local index = tonumber(ARGV[i])
    if index < 0 or index == length then
        length = redis.call('RPUSH', KEYS[1], ARGV[i + 1])
    else
        redis.call('LSET', KEYS[1], index, ARGV[i + 1])
    end
end
if ARGV[1] == '-1' then
    redis.call('PERSIST', KEYS[1])
elseif ARGV[1] ~= '' then
    redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return length";

fn items<'e>(elements: &'e [&Element]) -> impl ExactSizeIterator<Item = (i64, &'e [u8])> + Clone {
    elements.iter().map(|element| match element {
        Element::Item { index, element } => (*index, element.as_slice()),
        // Elements of a list are items.
        _ => (APPENDED, &b""[..]),
    })
}

fn has_index(elements: &[&Element]) -> bool {
    items(elements).any(|(index, _)| index != APPENDED)
}

fn push(key: &[u8], elements: &[&Element], commands: &mut Commands) {
    for elements in elements.chunks(ELEMENTS_AT_ONCE) {
        commands.begin(2 + elements.len());
        commands.word(b"RPUSH");
        commands.word(key);
        items(elements).for_each(|(_, element)| commands.word(element));
    }
}

fn put_items(key: &[u8], elements: &[&Element], lifetime: Lifetime, commands: &mut Commands) {
    commands.begin(5 + 2 * elements.len());
    let lifetime = seconds(lifetime).unwrap_or_default();
    [&b"EVAL"[..], PUT_ITEMS, b"1", key, lifetime.as_bytes()]
        .iter()
        .for_each(|word| commands.word(word));
    for (index, element) in items(elements) {
        commands.word(index.to_string().as_bytes());
        commands.word(element);
    }
}

fn add_entry(key: &[u8], element: &Element, commands: &mut Commands) {
    let Element::Entry { id, fields } = element else {
        return;
    };
    commands.begin(3 + 2 * fields.len());
    commands.word(b"XADD");
    commands.word(key);
    commands.word(id);
    for (field, value) in fields {
        commands.word(field);
        commands.word(value);
    }
}

/// Gives a key a time to live, or takes it away with -1. Not if the key holds another type: the write before was
/// refused then, and the key is nobody's of the table.
const EXPIRE: &[u8] = b"\
if redis.call('TYPE', KEYS[1]).ok ~= ARGV[1] then return 0 end
if ARGV[2] == '-1' then return redis.call('PERSIST', KEYS[1]) end
return redis.call('EXPIRE', KEYS[1], ARGV[2])";

fn expire(kind: Kind, key: &[u8], lifetime: Lifetime, commands: &mut Commands) {
    if let Some(seconds) = seconds(lifetime) {
        commands.push(&[
            b"EVAL",
            EXPIRE,
            b"1",
            key,
            kind.name().as_bytes(),
            seconds.as_bytes(),
        ]);
    }
}

/// What the scripts are told of a lifetime; none if it stays as it is.
fn seconds(lifetime: Lifetime) -> Option<String> {
    match lifetime {
        Lifetime::Plain | Lifetime::Kept => None,
        Lifetime::Seconds(seconds) => Some(seconds.to_string()),
        Lifetime::Endless => Some("-1".to_string()),
    }
}

/// What is left of a key's lifetimes, written one after the other: one that keeps it changes nothing.
fn last(lifetimes: impl DoubleEndedIterator<Item = Lifetime>) -> Lifetime {
    lifetimes
        .rev()
        .find(|lifetime| !matches!(lifetime, Lifetime::Plain | Lifetime::Kept))
        .unwrap_or(Lifetime::Kept)
}

/// A change of a list's element: what it becomes, or that it goes.
type ItemChange = (i64, Vec<u8>, Option<Vec<u8>>);

/// What a statement changes and deletes.
#[derive(Debug)]
pub struct Changes {
    kind: Kind,
    /// Rows that keep their name.
    kept: Vec<Put>,
    /// Rows with a new name.
    renamed: Vec<Put>,
    removed: Vec<(Key, Name)>,
    items: Vec<(Key, ItemChange)>,
    lifetimes: Vec<(Key, Lifetime)>,
}

impl Changes {
    /// None yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            kept: Vec::new(),
            renamed: Vec::new(),
            removed: Vec::new(),
            items: Vec::new(),
            lifetimes: Vec::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len() + self.renamed.len() + self.removed.len() + self.items.len() + self.lifetimes.len()
    }

    /// The keys that they change.
    pub fn keys(&self) -> HashSet<Key> {
        let written = self.kept.iter().chain(&self.renamed).map(|put| &put.key);
        let removed = self.removed.iter().map(|(key, _)| key);
        let items = self.items.iter().map(|(key, _)| key);
        let lifetimes = self.lifetimes.iter().map(|(key, _)| key);
        let all = written.chain(removed).chain(items).chain(lifetimes);
        all.cloned().collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row goes.
    pub fn delete(&mut self, key: Key, name: Name) {
        match name {
            Name::At { index, element } => self.items.push((key, (index, element, None))),
            name => self.removed.push((key, name)),
        }
    }

    /// A row becomes another. An element of a list keeps its key and index.
    pub fn update(&mut self, key: Key, old: Name, new: Put) {
        if let (Name::At { index, element: read }, Element::Item { element, .. }) = (&old, &new.element) {
            self.items
                .push((key.clone(), (*index, read.clone(), Some(element.clone()))));
            self.lifetimes.push((key, new.lifetime));
        } else if key == new.key && old == name(&new.element) {
            self.kept.push(new);
        } else {
            self.removed.push((key, old));
            self.renamed.push(new);
        }
    }

    /// A key's time to live changes, and nothing else.
    pub fn expire(&mut self, key: Key, lifetime: Lifetime) {
        self.lifetimes.push((key, lifetime));
    }

    /// Appends the commands for all that was gathered. Each has one answer, of which only errors count.
    pub fn take(&mut self, commands: &mut Commands) {
        let mut removed = std::mem::take(&mut self.removed);
        if !self.renamed.is_empty() {
            let rows = self.renamed.iter().chain(&self.kept);
            let written: HashSet<(Key, Name)> =
                rows.map(|put| (put.key.clone(), name(&put.element))).collect();
            removed.retain(|row| !written.contains(row));
        }
        write(self.kind, std::mem::take(&mut self.kept), true, commands);
        write(self.kind, std::mem::take(&mut self.renamed), false, commands);
        self.remove(removed, commands);
        for (key, changes) in ByKey::of(std::mem::take(&mut self.items).into_iter()).0 {
            change_items(&key, &changes, commands);
        }
        for (key, lifetimes) in ByKey::of(std::mem::take(&mut self.lifetimes).into_iter()).0 {
            expire(self.kind, &key, last(lifetimes.into_iter()), commands);
        }
    }

    fn remove(&self, removed: Vec<(Key, Name)>, commands: &mut Commands) {
        let command: &[u8] = match self.kind {
            Kind::Hash => b"HDEL",
            Kind::Set => b"SREM",
            Kind::Zset => b"ZREM",
            Kind::Stream => b"XDEL",
            Kind::String | Kind::List => {
                let keys: Vec<&Key> = removed.iter().map(|(key, _)| key).collect();
                for keys in keys.chunks(ELEMENTS_AT_ONCE) {
                    commands.begin(1 + keys.len());
                    commands.word(b"UNLINK");
                    keys.iter().for_each(|key| commands.word(key));
                }
                return;
            }
        };
        for (key, names) in ByKey::of(removed.into_iter()).0 {
            for names in names.chunks(ELEMENTS_AT_ONCE) {
                commands.begin(2 + names.len());
                commands.word(command);
                commands.word(&key);
                for name in names {
                    commands.word(match name {
                        Name::Named(name) => name,
                        Name::Whole | Name::At { .. } => b"",
                    });
                }
            }
        }
    }
}

/// Changes elements by index, if all of them still are what was read; those that go are marked first, so that no index
/// moves meanwhile.
const CHANGE_ITEMS: &[u8] = b"\
for i = 2, #ARGV, 4 do
    if redis.call('LINDEX', KEYS[1], ARGV[i + 1]) ~= ARGV[i + 2] then
        return redis.error_reply('CHANGED ' .. ARGV[i + 1])
    end
end
local gone = 0
for i = 2, #ARGV, 4 do
    if ARGV[i] == 'd' then
        redis.call('LSET', KEYS[1], ARGV[i + 1], ARGV[1])
        gone = gone + 1
    else
        redis.call('LSET', KEYS[1], ARGV[i + 1], ARGV[i + 3])
    end
end
if gone > 0 then redis.call('LREM', KEYS[1], 0, ARGV[1]) end
return gone";

fn change_items(key: &[u8], changes: &[ItemChange], commands: &mut Commands) {
    commands.begin(5 + 4 * changes.len());
    let hash = || RandomState::new().hash_one(changes);
    let mark = format!("pg_redis_cache:{:016x}{:016x}", hash(), hash());
    [&b"EVAL"[..], CHANGE_ITEMS, b"1", key, mark.as_bytes()]
        .iter()
        .for_each(|word| commands.word(word));
    for (index, read, new) in changes {
        commands.word(if new.is_some() { b"s" } else { b"d" });
        commands.word(index.to_string().as_bytes());
        commands.word(read);
        commands.word(new.as_deref().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
