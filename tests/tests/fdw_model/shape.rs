//! What a table over Redis looks like: its type, its columns and their types, its keys; and values to fill it with.

use std::fmt;

use pg_redis_cache_tests::Dice;

/// Redis's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    Hash,
    List,
    Set,
    Zset,
    Stream,
}

impl Kind {
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

/// What a column stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Key,
    /// Field, member or id.
    Name,
    /// Of a string, a field, a list's element, or of a stream's field `v`.
    Value,
    /// Of a stream's field `w`.
    Second,
    Score,
    Index,
    Ttl,
}

impl Role {
    /// The column's name; the time to live goes by its name, a stream's fields too.
    pub fn column(self) -> &'static str {
        match self {
            Role::Key => "k",
            Role::Name => "n",
            Role::Value => "v",
            Role::Second => "w",
            Role::Score => "s",
            Role::Index => "i",
            Role::Ttl => "ttl",
        }
    }
}

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    Bytea,
    BigInt,
    Float,
}

impl Type {
    pub fn sql(self) -> &'static str {
        match self {
            Type::Text => "text",
            Type::Bytea => "bytea",
            Type::BigInt => "bigint",
            Type::Float => "double precision",
        }
    }
}

/// A value that is not NULL.
#[derive(Clone, PartialEq, PartialOrd)]
pub enum Cell {
    Bytes(Vec<u8>),
    Int(i64),
    Float(f64),
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Bytes(bytes) => write!(f, "'{}'", bytes.escape_ascii()),
            Cell::Int(number) => write!(f, "{number}"),
            Cell::Float(number) => write!(f, "{number:?}"),
        }
    }
}

impl Cell {
    /// As Redis has it.
    pub fn redis(&self) -> Vec<u8> {
        match self {
            Cell::Bytes(bytes) => bytes.clone(),
            Cell::Int(number) => number.to_string().into_bytes(),
            Cell::Float(number) => format!("{number:?}").into_bytes(),
        }
    }

    pub fn of_redis(of: Type, bytes: &[u8]) -> Cell {
        let text = || std::str::from_utf8(bytes).expect("what the tests write is UTF-8");
        match of {
            Type::Text | Type::Bytea => Cell::Bytes(bytes.to_vec()),
            Type::BigInt => Cell::Int(text().parse().expect("a number was written")),
            Type::Float => Cell::Float(text().parse().expect("a score was written")),
        }
    }

    /// As PostgreSQL's input function takes it.
    pub fn input(&self, of: Type) -> String {
        match self {
            Cell::Bytes(bytes) if of == Type::Bytea => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("\\x{hex}")
            }
            Cell::Bytes(bytes) => String::from_utf8(bytes.clone()).expect("texts are UTF-8"),
            Cell::Int(number) => number.to_string(),
            Cell::Float(number) => format!("{number:?}").replace("inf", "Infinity"),
        }
    }

    /// From PostgreSQL's output function.
    pub fn of_output(of: Type, text: &str) -> Cell {
        match of {
            Type::Text => Cell::Bytes(text.as_bytes().to_vec()),
            Type::Bytea => {
                let digits = text.strip_prefix("\\x").expect("bytea_output is hex");
                let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits");
                Cell::Bytes((0..digits.len()).step_by(2).map(byte).collect())
            }
            Type::BigInt => Cell::Int(text.parse().expect("a bigint is a number")),
            Type::Float => Cell::Float(text.parse().expect("a float is a number")),
        }
    }
}

/// A table.
#[derive(Clone, Debug)]
pub struct Shape {
    pub kind: Kind,
    /// Whether it stands for the keys of a pattern.
    pub many: bool,
    pub columns: Vec<(Role, Type)>,
    /// The table's option `ttl`.
    pub ttl: Option<i64>,
    /// Whether a stream's ids are made by Redis.
    pub stars: bool,
    /// The table's option `transactional`.
    pub transactional: bool,
}

const TEXTS: &[&str] = &[
    "a",
    "ab",
    "abc",
    "abd",
    "b",
    "b*",
    "b?",
    "[a]",
    "\\",
    "\\*",
    "",
    "ünï",
    "100%",
    "a_b",
    "A",
    "10",
    "9",
    "NULL",
    "it's",
    "new\nline",
    "{\"a\": 1}",
    "漢",
    "-1",
    "0",
];
const BYTES: &[&[u8]] = &[
    b"",
    b"\0",
    b"\0\xff",
    b"a",
    b"ab",
    b"*",
    b"\xff\xfe",
    b"\\x61",
    b"[a]",
    b"\\",
    b"10",
];
const NUMBERS: &[i64] = &[-5, -1, 0, 1, 2, 3, 9, 10, 11, 100, i64::MAX, i64::MIN];
const SCORES: &[f64] = &[
    f64::NEG_INFINITY,
    -1.5,
    0.0,
    0.1,
    0.30000000000000004,
    1.0,
    2.0,
    3.0,
    10.0,
    100.0,
    1e17,
    123456789012345680.0,
    1e300,
    5e-324,
    f64::INFINITY,
];

/// Times to live, so far apart that what passes meanwhile does not matter.
pub const TTL_STEP: i64 = 10_000;

impl Shape {
    pub fn random(kind: Kind, many: bool, dice: &mut Dice) -> Shape {
        let name = [Type::Text, Type::Text, Type::Bytea, Type::BigInt][dice.below(4) as usize];
        let value = [Type::Text, Type::Text, Type::Bytea, Type::BigInt][dice.below(4) as usize];
        let key = [Type::Text, Type::Text, Type::Bytea][dice.below(3) as usize];
        let mut columns = match kind {
            Kind::String => vec![(Role::Value, value)],
            Kind::Hash => vec![(Role::Name, name), (Role::Value, value)],
            Kind::List if dice.below(2) == 0 => vec![(Role::Value, value)],
            Kind::List => vec![(Role::Index, Type::BigInt), (Role::Value, value)],
            Kind::Set => vec![(Role::Name, name)],
            Kind::Zset => vec![(Role::Name, name), (Role::Score, Type::Float)],
            Kind::Stream => vec![
                (Role::Name, Type::Text),
                (Role::Value, value),
                (Role::Second, name),
            ],
        };
        if many {
            columns.insert(0, (Role::Key, key));
        }
        if dice.below(3) > 0 {
            let place = dice.below(columns.len() as u64 + 1) as usize;
            columns.insert(place, (Role::Ttl, Type::BigInt));
        }
        Shape {
            kind,
            many,
            columns,
            ttl: (dice.below(4) == 0).then_some(2 * TTL_STEP),
            stars: dice.below(3) == 0,
            transactional: dice.below(3) == 0,
        }
    }

    pub fn place(&self, role: Role) -> Option<usize> {
        self.columns.iter().position(|(other, _)| *other == role)
    }

    pub fn prefix(&self) -> String {
        let mode = if self.many { "p" } else { "one" };
        format!("{}:{mode}:", self.kind.name())
    }

    /// The one key, or the pattern.
    pub fn pattern(&self) -> String {
        if self.many {
            self.prefix() + "*"
        } else {
            self.prefix() + "key"
        }
    }

    /// The key of a table over one.
    pub fn one_key(&self) -> Vec<u8> {
        self.pattern().into_bytes()
    }

    /// One of the few keys that the table's rows come from.
    pub fn key(&self, dice: &mut Dice) -> Vec<u8> {
        if !self.many {
            return self.one_key();
        }
        let ends = ["a", "ab", "b", "", "*", "[x]", "ü"];
        (self.prefix() + ends[dice.below(7) as usize]).into_bytes()
    }

    /// Keys that the table must neither show nor touch: of another type, and outside of the pattern.
    pub fn others(&self) -> [Vec<u8>; 2] {
        let outside = format!("outside:{}", self.pattern());
        [(self.prefix() + "other").into_bytes(), outside.into_bytes()]
    }

    /// A value for a column. `None` is not a value for any but a time to live, an index, a stream's field or id.
    pub fn value(&self, place: usize, dice: &mut Dice) -> Cell {
        let (role, of) = self.columns[place];
        match role {
            Role::Key => Cell::Bytes(self.key(dice)),
            Role::Ttl => Cell::Int([0, -1, TTL_STEP, 2 * TTL_STEP, 3 * TTL_STEP][dice.below(5) as usize]),
            Role::Index => Cell::Int(dice.below(8) as i64),
            _ => match of {
                Type::Text => Cell::Bytes(TEXTS[dice.below(TEXTS.len() as u64) as usize].into()),
                Type::Bytea => Cell::Bytes(BYTES[dice.below(BYTES.len() as u64) as usize].into()),
                Type::BigInt => Cell::Int(NUMBERS[dice.below(NUMBERS.len() as u64) as usize]),
                Type::Float => Cell::Float(SCORES[dice.below(SCORES.len() as u64) as usize]),
            },
        }
    }

    pub fn create(&self) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|(role, of)| format!("{} {}", role.column(), of.sql()))
            .collect();
        let ttl = self.ttl.map(|ttl| format!(", ttl '{ttl}'")).unwrap_or_default();
        let transactional = if self.transactional {
            ", transactional 'on'"
        } else {
            ""
        };
        format!(
            "CREATE FOREIGN TABLE t ({}) SERVER redis_server \
                 OPTIONS (table_type '{}', table_key_prefix '{}', batch_size '100'{ttl}{transactional})",
            columns.join(", "),
            self.kind.name(),
            self.pattern()
        )
    }
}
