//! What the columns of a table stand for.
//!
//! Columns are positional, their names free, with three exceptions: a column called `ttl` may stand anywhere, the
//! columns of a stream behind its id are its fields' names, and a zset's column called `score` is its score.
use std::fmt;

use super::{
    Kind, glob,
    options::{Keys, TableOptions},
};

/// A column as PostgreSQL knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Whether its type is an integer's.
    pub is_integer: bool,
}

/// What a column stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Key,
    /// Of a string, or of a hash's field.
    Value,
    Field,
    Index,
    Element,
    Member,
    Score,
    Id,
    /// A field of a stream's entries, or of a mapping's hashes.
    Named(Vec<u8>),
    /// A mapping's key column with that number.
    Part(usize),
    /// A member of a mapping's JSON objects.
    Property,
    Ttl,
}

/// The columns do not fit the table's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    kind: Kind,
    has_key: bool,
    found: usize,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = if self.has_key { " over many keys" } else { "" };
        write!(
            f,
            "a table of type {}{many} cannot have {} columns",
            self.kind, self.found
        )
    }
}

impl Misfit {
    /// What was expected.
    pub fn hint(&self) -> String {
        let key = if self.has_key { "key, " } else { "" };
        let columns = match self.kind {
            Kind::String => "value",
            Kind::Hash => "field, value",
            Kind::List => "[index,] element",
            Kind::Set => "member",
            Kind::Zset => "member, score",
            Kind::Stream => "id, and one or more of the entries' fields",
        };
        format!("Expected the columns {key}{columns}, and anywhere among them ttl.")
    }
}

/// What each column stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// By attribute number, from 0; none for a dropped column.
    pub roles: Vec<Option<Role>>,
    /// Which keys the rows come from.
    pub keys: Keys,
}

impl Layout {
    /// Gives each column its role. Dropped columns are none.
    ///
    /// # Errors
    /// There are too few or too many columns for the type.
    pub fn of(options: &TableOptions, columns: &[Option<Column>]) -> Result<Self, Misfit> {
        let mut roles = vec![None; columns.len()];
        let mut places = Vec::new();
        for (place, column) in columns.iter().enumerate() {
            match column {
                Some(column) if column.name.eq_ignore_ascii_case("ttl") => roles[place] = Some(Role::Ttl),
                Some(column) => places.push((place, column)),
                None => {}
            }
        }
        let found = places.len();
        let has_key = match options.keys {
            Keys::Matching(_) => true,
            Keys::One(_) => has_key_over_prefix(options.kind, &places),
        };
        let misfit = || Misfit {
            kind: options.kind,
            has_key,
            found,
        };
        let mut rest = &places[..];
        if has_key {
            let (&(place, _), behind) = rest.split_first().ok_or_else(misfit)?;
            roles[place] = Some(Role::Key);
            rest = behind;
        }
        let given = of_kind(options.kind, rest).ok_or_else(misfit)?;
        for ((place, _), role) in rest.iter().zip(given) {
            roles[*place] = Some(role);
        }
        let keys = match &options.keys {
            Keys::One(prefix) if has_key => {
                let mut pattern = glob::escape(prefix);
                pattern.push(b'*');
                Keys::Matching(pattern)
            }
            keys => keys.clone(),
        };
        Ok(Self { roles, keys })
    }

    /// The place of the column with that role.
    pub fn place(&self, role: &Role) -> Option<usize> {
        self.roles.iter().position(|other| other.as_ref() == Some(role))
    }

    /// The role of the column at a place.
    pub fn role(&self, place: usize) -> Option<&Role> {
        self.roles.get(place)?.as_ref()
    }

    /// Whether the rows come from many keys.
    pub fn has_key(&self) -> bool {
        matches!(self.keys, Keys::Matching(_))
    }
}

/// Whether there is one column more than the type has, so that the first is the key's, over a prefix.
fn has_key_over_prefix(kind: Kind, places: &[(usize, &Column)]) -> bool {
    match kind {
        Kind::String | Kind::Set => places.len() == 2,
        Kind::Hash | Kind::Zset => places.len() == 3,
        Kind::List => places.len() == 3 || (places.len() == 2 && !places.iter().any(|(_, c)| c.is_integer)),
        Kind::Stream => false,
    }
}

fn of_kind(kind: Kind, columns: &[(usize, &Column)]) -> Option<Vec<Role>> {
    let names = |place: usize, name: &str| columns[place].1.name.eq_ignore_ascii_case(name);
    match (kind, columns.len()) {
        (Kind::String, 1) => Some(vec![Role::Value]),
        (Kind::Hash, 2) => Some(vec![Role::Field, Role::Value]),
        (Kind::List, 1) => Some(vec![Role::Element]),
        (Kind::List, 2) if columns[1].1.is_integer && !columns[0].1.is_integer => {
            Some(vec![Role::Element, Role::Index])
        }
        (Kind::List, 2) => Some(vec![Role::Index, Role::Element]),
        (Kind::Set, 1) => Some(vec![Role::Member]),
        (Kind::Zset, 2) if names(0, "score") && !names(1, "score") => Some(vec![Role::Score, Role::Member]),
        (Kind::Zset, 2) => Some(vec![Role::Member, Role::Score]),
        (Kind::Stream, 2..) => {
            let fields = columns[1..].iter();
            let fields = fields.map(|(_, column)| Role::Named(column.name.clone().into_bytes()));
            Some(std::iter::once(Role::Id).chain(fields).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(kind: &str, prefix: &str, columns: &[&str]) -> Result<Layout, Misfit> {
        let given = [("table_type", kind), ("table_key_prefix", prefix)];
        let given: Vec<_> = given
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect();
        let columns: Vec<Option<Column>> = columns
            .iter()
            .map(|name| {
                (*name != "-").then(|| Column {
                    name: name.trim_end_matches('#').to_string(),
                    is_integer: name.ends_with('#'),
                })
            })
            .collect();
        Layout::of(&TableOptions::read(&given).unwrap(), &columns)
    }

    fn roles(kind: &str, prefix: &str, columns: &[&str]) -> Vec<Role> {
        let layout = layout(kind, prefix, columns).unwrap_or_else(|misfit| panic!("{misfit}"));
        layout.roles.into_iter().flatten().collect()
    }

    #[test]
    fn columns_are_positional() {
        use Role::*;
        assert_eq!(roles("string", "k", &["x"]), [Value]);
        assert_eq!(roles("hash", "k", &["key", "value"]), [Field, Value]);
        assert_eq!(roles("list", "k", &["x"]), [Element]);
        assert_eq!(roles("list", "k", &["i#", "x"]), [Index, Element]);
        assert_eq!(roles("list", "k", &["x", "i#"]), [Element, Index]);
        assert_eq!(roles("set", "k:*", &["k", "m"]), [Key, Member]);
        assert_eq!(roles("zset", "k:*", &["k", "m", "s"]), [Key, Member, Score]);
        assert_eq!(
            roles("zset", "k:*", &["key", "score", "member"]),
            [Key, Score, Member]
        );
        assert_eq!(
            roles("stream", "k", &["id", "a", "b"]),
            [Id, Named(b"a".to_vec()), Named(b"b".to_vec())]
        );
    }

    #[test]
    fn ttl_may_stand_anywhere_and_dropped_columns_count_for_nothing() {
        use Role::*;
        assert_eq!(roles("hash", "k", &["TTL", "f", "v"]), [Ttl, Field, Value]);
        let with_dropped = layout("hash", "k", &["f", "-", "ttl", "v"]).unwrap();
        assert_eq!(with_dropped.roles, [Some(Field), None, Some(Ttl), Some(Value)]);
        assert_eq!(with_dropped.place(&Value), Some(3));
    }

    #[test]
    fn a_key_column_over_a_prefix_means_the_prefix() {
        let table = layout("string", "a[:", &["key", "value"]);
        assert!(table.is_ok_and(|table| table.keys == Keys::Matching(b"a[:".to_vec())));
        let table = layout("string", "session:", &["key", "value"]).unwrap();
        assert_eq!(table.keys, Keys::Matching(b"session:*".to_vec()));
        assert_eq!(
            roles("list", "l:", &["key", "element"]),
            [Role::Key, Role::Element]
        );
    }

    #[test]
    fn too_few_or_too_many_are_told() {
        let misfit = layout("hash", "k", &["field"]).unwrap_err();
        assert_eq!(misfit.to_string(), "a table of type hash cannot have 1 columns");
        assert!(misfit.hint().starts_with("Expected the columns field, value,"));
        let misfit = layout("string", "k:*", &["value"]).unwrap_err();
        assert_eq!(
            misfit.to_string(),
            "a table of type string over many keys cannot have 1 columns"
        );
        assert!(layout("stream", "k", &["id"]).is_err());
        assert!(layout("set", "k", &["a", "b", "c"]).is_err());
        assert!(layout("set", "k", &[]).is_err());
    }
}
