//! What the keys of a table hold, kept in plain Rust.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::shape::{Cell, Kind, Role, Shape, TTL_STEP};

/// A row's values by the place of their columns.
pub type Row = Vec<Option<Cell>>;

/// The id of an entry that Redis will make up.
pub const STAR: &[u8] = b"*";

/// What is written with a row of its key's time to live.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lifetime {
    /// As Redis does by itself: a new string has none, other keys keep theirs.
    Plain,
    Kept,
    Set(Option<i64>),
}

/// One row's worth of a key.
#[derive(Clone, PartialEq)]
pub struct Element {
    pub name: Vec<u8>,
    pub value: Option<Vec<u8>>,
    pub second: Option<Vec<u8>>,
    pub score: f64,
}

/// What a key holds, in order if its type has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collection {
    pub elements: Vec<Element>,
    pub ttl: Option<i64>,
}

/// Which element of which key a row is.
pub type Place = (Vec<u8>, usize);

/// All keys of a table.
#[derive(Clone, Debug)]
pub struct Model {
    shape: Shape,
    pub keys: BTreeMap<Vec<u8>, Collection>,
}

impl Model {
    pub fn new(shape: &Shape) -> Model {
        Model {
            shape: shape.clone(),
            keys: BTreeMap::new(),
        }
    }

    /// All rows.
    pub fn rows(&self) -> Vec<(Place, Row)> {
        let mut rows = Vec::new();
        for (key, collection) in &self.keys {
            for place in 0..collection.elements.len() {
                rows.push(((key.clone(), place), self.row(key, place)));
            }
        }
        rows
    }

    fn row(&self, key: &[u8], place: usize) -> Row {
        let collection = &self.keys[key];
        let element = &collection.elements[place];
        let columns = self.shape.columns.iter();
        columns
            .map(|(role, of)| match role {
                Role::Key => Some(Cell::of_redis(*of, key)),
                Role::Name => Some(Cell::of_redis(*of, &element.name)),
                Role::Value => Some(Cell::of_redis(*of, element.value.as_ref()?)),
                Role::Second => Some(Cell::of_redis(*of, element.second.as_ref()?)),
                Role::Score => Some(Cell::Float(element.score)),
                Role::Index => Some(Cell::Int(place as i64)),
                Role::Ttl => Some(Cell::Int(collection.ttl.unwrap_or(-1))),
            })
            .collect()
    }

    fn cell<'r>(&self, row: &'r Row, role: Role) -> Option<&'r Cell> {
        row[self.shape.place(role)?].as_ref()
    }

    fn key_of(&self, row: &Row) -> Vec<u8> {
        self.cell(row, Role::Key)
            .map_or_else(|| self.shape.one_key(), Cell::redis)
    }

    fn element_of(&self, row: &Row) -> Element {
        let bytes = |role| self.cell(row, role).map(Cell::redis);
        let star = || {
            if self.shape.kind == Kind::Stream {
                STAR.to_vec()
            } else {
                Vec::new()
            }
        };
        Element {
            name: bytes(Role::Name).unwrap_or_else(star),
            value: bytes(Role::Value),
            second: bytes(Role::Second),
            score: match self.cell(row, Role::Score) {
                Some(Cell::Float(score)) => *score,
                _ => 0.0,
            },
        }
    }

    /// What the time to live in a row means, and that of the table where the row says nothing.
    fn lifetime(&self, row: &Row, otherwise: Lifetime) -> Lifetime {
        let given = match self.cell(row, Role::Ttl) {
            Some(Cell::Int(seconds)) => Some(*seconds),
            _ => self.shape.ttl,
        };
        match given {
            None => otherwise,
            Some(0) => Lifetime::Kept,
            Some(-1) => Lifetime::Set(None),
            Some(seconds) => Lifetime::Set(Some(seconds)),
        }
    }

    /// INSERT of one row over what is there; false if a list has no such place, and then nothing is done.
    pub fn insert(&mut self, row: &Row) -> bool {
        let (key, element) = (self.key_of(row), self.element_of(row));
        let lifetime = self.lifetime(row, Lifetime::Plain);
        let index = match self.cell(row, Role::Index) {
            Some(Cell::Int(index)) => Some(*index as usize),
            _ => None,
        };
        let length = self.keys.get(&key).map_or(0, |there| there.elements.len());
        if index.is_some_and(|index| index > length) {
            return false;
        }
        self.put(key, element, index, lifetime);
        true
    }

    fn put(&mut self, key: Vec<u8>, element: Element, index: Option<usize>, lifetime: Lifetime) {
        let kind = self.shape.kind;
        let collection = self.keys.entry(key).or_default();
        let elements = &mut collection.elements;
        let same = match kind {
            Kind::String => elements.first().map(|_| 0),
            Kind::List => index.filter(|index| *index < elements.len()),
            Kind::Stream => None,
            _ => elements.iter().position(|other| other.name == element.name),
        };
        match same {
            Some(place) => elements[place] = element,
            None => elements.push(element),
        }
        match lifetime {
            Lifetime::Plain if kind == Kind::String => collection.ttl = None,
            Lifetime::Plain | Lifetime::Kept => {}
            Lifetime::Set(ttl) => collection.ttl = ttl,
        }
    }

    /// UPDATE of rows to others, all at once. `sets_ttl`: the statement sets the time to live.
    pub fn update(&mut self, changes: &[(Place, Row)], sets_ttl: bool) {
        let mut written = BTreeSet::new();
        let mut gone = Vec::new();
        let mut puts = Vec::new();
        for ((key, place), row) in changes {
            let (new_key, element) = (self.key_of(row), self.element_of(row));
            let old = self.keys[key].elements[*place].name.clone();
            let moves = new_key != *key;
            let has_ttl = self.shape.place(Role::Ttl).is_some();
            let lifetime = match has_ttl && !sets_ttl && !moves {
                true => Lifetime::Kept,
                false => self.lifetime(row, Lifetime::Kept),
            };
            written.insert((new_key.clone(), element.name.clone()));
            if moves || old != element.name {
                gone.push((key.clone(), old));
            }
            puts.push((new_key, element, *place, lifetime));
        }
        for (key, element, place, lifetime) in puts {
            self.put(key, element, Some(place), lifetime);
        }
        for (key, name) in gone {
            if !written.contains(&(key.clone(), name.clone())) {
                self.keep(&key, |_, element| element.name != name);
            }
        }
    }

    /// DELETE of rows.
    pub fn delete(&mut self, places: &[Place]) {
        let doomed: BTreeSet<&Place> = places.iter().collect();
        let keys: Vec<Vec<u8>> = self.keys.keys().cloned().collect();
        for key in keys {
            self.keep(&key, |place, _| !doomed.contains(&(key.clone(), place)));
        }
    }

    fn keep(&mut self, key: &[u8], stays: impl Fn(usize, &Element) -> bool) {
        let Some(collection) = self.keys.get_mut(key) else {
            return;
        };
        let mut place = 0;
        collection.elements.retain(|element| {
            place += 1;
            stays(place - 1, element)
        });
        // A stream without entries is still there.
        if collection.elements.is_empty() && self.shape.kind != Kind::Stream {
            self.keys.remove(key);
        }
    }

    /// What Redis has of the table's keys.
    pub fn of_redis(shape: &Shape, redis: &mut redis::Connection) -> Model {
        let mut model = Model::new(shape);
        let glob = if shape.many {
            shape.pattern()
        } else {
            escaped(&shape.pattern())
        };
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(glob).query(redis).unwrap();
        for key in keys {
            let found: String = redis::cmd("TYPE").arg(&key).query(redis).unwrap();
            if found == shape.kind.name() {
                let elements = elements(shape.kind, &key, redis);
                let ttl: i64 = redis::cmd("TTL").arg(&key).query(redis).unwrap();
                let ttl = (ttl >= 0).then_some((ttl + TTL_STEP - 1) / TTL_STEP * TTL_STEP);
                model.keys.insert(key, Collection { elements, ttl });
            }
        }
        model
    }

    /// Gives new entries of streams the ids that Redis has made up for them, where all else is as expected.
    pub fn adopt_ids(&mut self, redis: &Model) {
        for (key, collection) in &mut self.keys {
            let Some(found) = redis.keys.get(key) else {
                continue;
            };
            for (element, found) in collection.elements.iter_mut().zip(&found.elements) {
                if self.shape.kind == Kind::Stream && element.name == STAR {
                    element.name = found.name.clone();
                }
            }
        }
    }

    /// Each key with its time to live, and each element with its place if its type has one, as lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let has_order = matches!(self.shape.kind, Kind::List | Kind::Stream);
        for (key, collection) in &self.keys {
            let key = key.escape_ascii();
            lines.push(format!("{key}: ttl {:?}", collection.ttl));
            for (place, element) in collection.elements.iter().enumerate() {
                let place = if has_order {
                    place.to_string()
                } else {
                    String::new()
                };
                lines.push(format!("{key}: {place} {element:?}"));
            }
        }
        lines
    }
}

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| bytes.escape_ascii().to_string());
        let (value, second) = (shown(&self.value), shown(&self.second));
        write!(
            f,
            "{} = {value:?} {second:?} {:?}",
            self.name.escape_ascii(),
            self.score
        )
    }
}

fn escaped(key: &str) -> String {
    key.chars()
        .flat_map(|c| {
            if "*?[]\\".contains(c) {
                vec!['\\', c]
            } else {
                vec![c]
            }
        })
        .collect()
}

fn elements(kind: Kind, key: &[u8], redis: &mut redis::Connection) -> Vec<Element> {
    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
    let element = |name: Vec<u8>, value: Option<Vec<u8>>| Element {
        name,
        value,
        second: None,
        score: 0.0,
    };
    match kind {
        Kind::String => {
            let value: Vec<u8> = redis::cmd("GET").arg(key).query(redis).unwrap();
            vec![element(Vec::new(), Some(value))]
        }
        Kind::Hash => {
            let pairs: Pairs = redis::cmd("HGETALL").arg(key).query(redis).unwrap();
            pairs
                .into_iter()
                .map(|(name, value)| element(name, Some(value)))
                .collect()
        }
        Kind::List => {
            let items: Vec<Vec<u8>> = redis::cmd("LRANGE").arg(key).arg(0).arg(-1).query(redis).unwrap();
            items
                .into_iter()
                .map(|item| element(Vec::new(), Some(item)))
                .collect()
        }
        Kind::Set => {
            let members: Vec<Vec<u8>> = redis::cmd("SMEMBERS").arg(key).query(redis).unwrap();
            members.into_iter().map(|member| element(member, None)).collect()
        }
        Kind::Zset => {
            let mut range = redis::cmd("ZRANGE");
            let pairs: Vec<(Vec<u8>, f64)> = range
                .arg(key)
                .arg(0)
                .arg(-1)
                .arg("WITHSCORES")
                .query(redis)
                .unwrap();
            let scored = |(name, score)| Element {
                score,
                ..element(name, None)
            };
            pairs.into_iter().map(scored).collect()
        }
        Kind::Stream => {
            let mut range = redis::cmd("XRANGE");
            let entries: Vec<(Vec<u8>, Pairs)> = range.arg(key).arg("-").arg("+").query(redis).unwrap();
            let entry = |(name, fields): (Vec<u8>, Pairs)| {
                let field = |wanted: &[u8]| {
                    let found = fields.iter().find(|(field, _)| field == wanted);
                    found.map(|(_, value)| value.clone())
                };
                Element {
                    second: field(b"w"),
                    ..element(name, field(b"v"))
                }
            };
            entries.into_iter().map(entry).collect()
        }
    }
}
