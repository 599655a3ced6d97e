//! A row of a foreign table as what is written to Redis, and the row that an UPDATE or DELETE has found.
use pg_redis_cache_core::fdw::{
    Element, Kind, Role,
    element::parse_score,
    glob,
    options::Keys,
    step::Key,
    writing::{APPENDED, Lifetime, Name},
};
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys, pg_sys::panic::ErrorReport};

use super::{table::Table, values::Converter};
use crate::sql::raise;

/// A column and how its values are written.
pub struct WrittenColumn {
    pub place: usize,
    pub role: Role,
    pub name: String,
    pub converter: Converter,
}

/// All columns of a table that stand for something.
///
/// # Safety
/// As [`Table::converter`].
pub unsafe fn columns(table: &Table) -> Vec<WrittenColumn> {
    let places = 0..table.columns.len();
    places
        .filter_map(|place| {
            Some(WrittenColumn {
                place,
                role: table.layout.role(place)?.clone(),
                name: table.columns[place].as_ref()?.name.clone(),
                // SAFETY: as the caller promises.
                converter: unsafe { table.converter(place) }?,
            })
        })
        .collect()
}

/// A row's values as Redis gets them.
pub struct Texts<'c> {
    columns: &'c [WrittenColumn],
    texts: Vec<Option<Vec<u8>>>,
}

impl<'c> Texts<'c> {
    /// Those of a slot.
    ///
    /// # Safety
    /// `slot` must hold a row of the columns' table.
    pub unsafe fn of(columns: &'c [WrittenColumn], slot: *mut pg_sys::TupleTableSlot) -> Self {
        // SAFETY: as the caller promises; after slot_getallattrs all values are there.
        let texts = unsafe {
            pg_sys::slot_getallattrs(slot);
            columns.iter().map(|column| {
                let null = *(*slot).tts_isnull.add(column.place);
                (!null).then(|| column.converter.write(*(*slot).tts_values.add(column.place)))
            })
        };
        Self {
            columns,
            texts: texts.collect(),
        }
    }

    fn find(&self, role: &Role) -> Option<(&WrittenColumn, Option<&[u8]>)> {
        let place = self.columns.iter().position(|column| column.role == *role)?;
        Some((&self.columns[place], self.texts[place].as_deref()))
    }

    /// Takes the text of a column that must not be NULL.
    fn needed(&mut self, role: &Role) -> Vec<u8> {
        let Some(place) = self.columns.iter().position(|column| column.role == *role) else {
            return Vec::new();
        };
        match self.texts[place].take() {
            Some(text) => text,
            None => refuse_null(&self.columns[place].name),
        }
    }

    fn given(&self, role: &Role) -> Option<Vec<u8>> {
        self.find(role)?.1.map(<[u8]>::to_vec)
    }

    /// The key that the row belongs to. To be asked once.
    pub fn key(&mut self, table: &Table) -> Key {
        let pattern = match &table.layout.keys {
            Keys::One(_) => return table.one_key(),
            Keys::Matching(pattern) => pattern,
        };
        let key = self.needed(&Role::Key);
        if !glob::matches(pattern, &key) {
            outside(table, &key, pattern);
        }
        key.into()
    }

    /// The row's element. `new`: it is inserted, so that an id or index may be made up. To be asked once.
    pub fn element(&mut self, table: &Table, new: bool) -> Element {
        match table.options.kind {
            Kind::String => Element::Value(self.needed(&Role::Value)),
            Kind::Hash => Element::Pair {
                field: self.needed(&Role::Field),
                value: self.needed(&Role::Value),
            },
            Kind::Set => Element::Member(self.needed(&Role::Member)),
            Kind::Zset => Element::Scored {
                member: self.needed(&Role::Member),
                score: self.score(),
            },
            Kind::List => Element::Item {
                index: if new { self.index() } else { APPENDED },
                element: self.needed(&Role::Element),
            },
            Kind::Stream => self.entry(),
        }
    }

    fn score(&mut self) -> f64 {
        let text = self.needed(&Role::Score);
        match parse_score(&text).filter(|score| !score.is_nan()) {
            Some(score) => score,
            None => raise(
                PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
                format!("\"{}\" cannot be a score", String::from_utf8_lossy(&text)),
                "A score in Redis is a double precision number, and not NaN.",
                "",
            ),
        }
    }

    fn index(&self) -> i64 {
        let Some(text) = self.given(&Role::Index) else {
            return APPENDED;
        };
        let index = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        match index {
            Some(index @ 0..) => index,
            _ => raise(
                PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
                format!("\"{}\" cannot be an index", String::from_utf8_lossy(&text)),
                "The elements of a list count from 0.",
                "Without an index the element goes to the list's end.",
            ),
        }
    }

    /// Whether the row's index is given, and not that of the element that it was.
    pub fn index_differs(&self, old: &Name) -> bool {
        let given = self.given(&Role::Index);
        let Name::At { index, .. } = old else { return false };
        given.is_some_and(|given| given != index.to_string().into_bytes())
    }

    fn entry(&self) -> Element {
        let fields: Vec<(Vec<u8>, Vec<u8>)> = self
            .columns
            .iter()
            .zip(&self.texts)
            .filter_map(|(column, text)| match (&column.role, text) {
                (Role::Named(name), Some(text)) => Some((name.clone(), text.clone())),
                _ => None,
            })
            .collect();
        if fields.is_empty() {
            raise(
                PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
                "an entry of a stream needs a field",
                "A NULL is no field, and all columns of the row are NULL.",
                "",
            );
        }
        Element::Entry {
            id: self.given(&Role::Id).unwrap_or_else(|| b"*".to_vec()),
            fields,
        }
    }

    /// What becomes of the key's time to live: what the row says, else what the table says, else `otherwise`.
    pub fn lifetime(&self, table: &Table, otherwise: Lifetime) -> Lifetime {
        let seconds = match self.find(&Role::Ttl) {
            Some((column, Some(text))) => Some(seconds(&column.name, text)),
            _ => None,
        };
        match seconds.or(table.options.ttl) {
            None => otherwise,
            Some(0) => Lifetime::Kept,
            Some(-1) => Lifetime::Endless,
            Some(seconds) => Lifetime::Seconds(seconds),
        }
    }

    /// Whether there is a column for the time to live.
    pub fn has_ttl(&self) -> bool {
        self.find(&Role::Ttl).is_some()
    }
}

fn seconds(column: &str, text: &[u8]) -> i64 {
    match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
        Some(seconds @ -1..) => seconds,
        _ => raise(
            PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            format!(
                "invalid value for column \"{column}\": {}",
                String::from_utf8_lossy(text)
            ),
            "Seconds above 0 are a time to live, -1 is none, 0 leaves it as it is, NULL is the table's default.",
            "",
        ),
    }
}

fn refuse_null(column: &str) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
        format!("column \"{column}\" cannot be NULL"),
        "Redis has no NULL.",
        "",
    )
}

/// A row is written to a key that the table does not show.
fn outside(table: &Table, key: &[u8], pattern: &[u8]) {
    let message = format!(
        "the key \"{}\" does not match the table's pattern \"{}\"",
        String::from_utf8_lossy(key),
        String::from_utf8_lossy(pattern)
    );
    if table.options.strict_key_prefix {
        raise(
            PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
            message,
            "",
            "The table's option strict_key_prefix forbids it.",
        );
    }
    ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, "pg_redis_cache")
        .set_hint("The row is written, and the table will not show it. See the option strict_key_prefix.")
        .report(PgLogLevel::WARNING);
}
