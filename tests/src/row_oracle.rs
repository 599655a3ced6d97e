//! The row oracle: each cached key equals its row, and no key is there without a row.
//!
//! It reads the table with SQL and Redis with SCAN, and knows nothing of the extension. Writers must be
//! quiet, and `redis_cache.wait()` must have returned, before it is asked.

use std::collections::HashMap;
use std::fmt;

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use redis::Connection;

/// How a row is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A field per column.
    Hash,
    /// The text of the only column.
    String,
    /// An object, compared as jsonb: order and white space do not count.
    Json,
}

/// One mapping as the oracle sees it.
#[derive(Clone, Debug)]
pub struct RowOracle {
    /// Literal texts and column names in turn, beginning with a text.
    template: Vec<String>,
    table: String,
    values: Vec<String>,
    format: Format,
}

/// What Redis holds for a key, or should: field and value, with an empty field name where there is one
/// value only.
type Stored = Vec<(Vec<u8>, Vec<u8>)>;

/// A key that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// What Redis holds.
    pub in_redis: String,
    /// What the row says, if there is one.
    pub in_postgres: Option<String>,
}

/// What a comparison has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Keys that were in Redis.
    pub keys: usize,
    /// Rows that were in the table.
    pub rows: usize,
    /// Keys that do not equal their row.
    pub differences: Vec<Difference>,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} keys, {} rows, {} differences",
            self.keys,
            self.rows,
            self.differences.len()
        )?;
        for difference in self.differences.iter().take(10) {
            let Difference {
                key,
                in_redis,
                in_postgres,
            } = difference;
            write!(
                f,
                "\n  {key}: Redis {in_redis}, PostgreSQL {}",
                in_postgres.as_deref().unwrap_or("no row")
            )?;
        }
        Ok(())
    }
}

impl RowOracle {
    /// A mapping in format `hash`: the key template, the table as SQL names it, the value columns.
    pub fn hash(template: &str, table: &str, values: &[&str]) -> RowOracle {
        RowOracle::new(template, table, values, Format::Hash)
    }

    /// A mapping in any format.
    pub fn new(template: &str, table: &str, values: &[&str], format: Format) -> RowOracle {
        let values = values.iter().map(|column| (*column).to_owned()).collect();
        RowOracle {
            template: parse_template(template),
            table: table.to_owned(),
            values,
            format,
        }
    }

    /// Every active mapping of the database of `client`, as the view `redis_cache.mappings` shows it, with
    /// its name.
    pub fn of_database(client: &mut Client) -> Vec<(String, RowOracle)> {
        let sql = "SELECT name, key_template, relation::text, value_columns::text[], format \
                   FROM redis_cache.mappings WHERE state = 'active' AND database = current_database() ORDER BY name";
        let rows = client.query(sql, &[]).expect("the view can be read");
        let oracle = |row: &postgres::Row| {
            let format = match row.get::<_, &str>(4) {
                "hash" => Format::Hash,
                "string" => Format::String,
                "json" => Format::Json,
                other => panic!("unknown format {other}"),
            };
            let values: Vec<&str> = row.get(3);
            (
                row.get(0),
                RowOracle::new(row.get(1), row.get(2), &values, format),
            )
        };
        rows.iter().map(oracle).collect()
    }

    /// Compares every key of the mapping with its row.
    pub fn compare(&self, client: &mut Client, redis: &mut Connection) -> Comparison {
        self.compare_all(client, std::slice::from_mut(redis))
    }

    /// The same where the keys are spread over several servers.
    pub fn compare_all(&self, client: &mut Client, masters: &mut [Connection]) -> Comparison {
        let mut cached = HashMap::new();
        for master in masters {
            cached.extend(self.read_redis(master));
        }
        if self.format == Format::Json {
            normalize_json(client, &mut cached);
        }
        let keys = cached.len();
        let mut differences = Vec::new();
        let mut rows = 0;
        let mut seen = HashMap::new();
        self.for_each_row(client, |key, expected| {
            rows += 1;
            if let Some(stored) = cached.get(&key) {
                // A key that two rows would share must not be cached at all.
                if seen.insert(key.clone(), ()).is_some() || *stored != expected {
                    differences.push(difference(&key, stored, Some(&expected)));
                }
            }
        });
        cached.retain(|key, _| !seen.contains_key(key));
        differences.extend(cached.iter().map(|(key, stored)| difference(key, stored, None)));
        differences.sort_by(|a, b| a.key.cmp(&b.key));
        Comparison {
            keys,
            rows,
            differences,
        }
    }

    fn read_redis(&self, redis: &mut Connection) -> HashMap<Vec<u8>, Stored> {
        let mut keys = scan(redis, &self.template[0]);
        keys.sort_unstable();
        // SCAN may give a key twice.
        keys.dedup();
        let mut cached = HashMap::with_capacity(keys.len());
        for batch in keys.chunks(1000) {
            let mut pipe = redis::pipe();
            for key in batch {
                let command = if self.format == Format::Hash {
                    "HGETALL"
                } else {
                    "GET"
                };
                pipe.cmd(command).arg(key);
            }
            let stored: Vec<Stored> = match self.format {
                Format::Hash => pipe.query(redis).expect("a key of the mapping is a hash"),
                Format::String | Format::Json => {
                    let values: Vec<Option<Vec<u8>>> =
                        pipe.query(redis).expect("a key of the mapping is a string");
                    values
                        .into_iter()
                        .map(|value| value.into_iter().map(|value| (Vec::new(), value)).collect())
                        .collect()
                }
            };
            // A key that has expired meanwhile is an empty one.
            let there = batch
                .iter()
                .cloned()
                .zip(stored)
                .filter(|(_, stored)| !stored.is_empty());
            cached.extend(there.map(|(key, mut stored)| {
                stored.sort_unstable();
                (key, stored)
            }));
        }
        cached
    }

    /// Gives each row's key, and what Redis has to hold for it if it holds the key. An empty list means
    /// that the key must not be there.
    fn for_each_row(&self, client: &mut Client, mut row_found: impl FnMut(Vec<u8>, Stored)) {
        client
            .batch_execute(CANONICAL)
            .expect("these settings exist everywhere");
        let no_parameters: [&str; 0] = [];
        let mut rows = client
            .query_raw(&self.query(), no_parameters)
            .unwrap_or_else(|e| panic!("{}: {e}", self.query()));
        let key_columns = self.template.len() / 2;
        while let Some(row) = rows.next().expect("rows can be read") {
            let mut key = self.template[0].clone();
            for column in 0..key_columns {
                key += row.get::<_, &str>(column);
                key += &self.template[2 * column + 2];
            }
            let value = |column: usize| {
                row.get::<_, Option<&str>>(key_columns + column)
                    .map(|v| v.as_bytes().to_vec())
            };
            let mut expected: Stored = match self.format {
                Format::Hash => {
                    let field = |(i, name): (usize, &String)| Some((name.clone().into_bytes(), value(i)?));
                    self.values.iter().enumerate().filter_map(field).collect()
                }
                Format::String | Format::Json => {
                    value(0).into_iter().map(|value| (Vec::new(), value)).collect()
                }
            };
            expected.sort_unstable();
            row_found(key.into_bytes(), expected);
        }
    }

    fn query(&self) -> String {
        // format('%s') calls the output function, where a cast to text may not (bool, character, inet).
        let text = |column: &str| {
            let column = identifier(column);
            format!("CASE WHEN {column} IS NOT NULL THEN format('%s', {column}) END")
        };
        let mut columns: Vec<String> = self
            .template
            .iter()
            .skip(1)
            .step_by(2)
            .map(|column| text(column))
            .collect();
        if self.format == Format::Json {
            let members = self
                .values
                .iter()
                .map(|column| identifier(column))
                .collect::<Vec<_>>()
                .join(", ");
            columns.push(format!("(SELECT to_jsonb(r)::text FROM (SELECT {members}) r)"));
        } else {
            columns.extend(self.values.iter().map(|column| text(column)));
        }
        format!("SELECT {} FROM {}", columns.join(", "), self.table)
    }
}

/// The session settings under which a row has its one encoding.
const CANONICAL: &str = "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = postgres; SET TimeZone = 'UTC'; \
                         SET extra_float_digits = 1; SET bytea_output = hex; SET lc_monetary = 'C'; \
                         SET pg_redis_cache.fill = off";

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Splits `user:{id}:{{x}}` into its literal texts and column names, in turn.
fn parse_template(template: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let last = parts.len() - 1;
        parts[last] += &rest[..at];
        let brace = &rest[at..];
        if brace.starts_with("{{") || brace.starts_with("}}") {
            parts[last].push_str(&brace[..1]);
            rest = &brace[2..];
        } else {
            let end = brace
                .find('}')
                .unwrap_or_else(|| panic!("{template}: a brace is not closed"));
            let name = &brace[1..end];
            let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
            parts.push(quoted.map_or_else(|| name.to_lowercase(), |name| name.replace("\"\"", "\"")));
            parts.push(String::new());
            rest = &brace[end + 1..];
        }
    }
    let last = parts.len() - 1;
    parts[last] += rest;
    parts
}

fn scan(redis: &mut Connection, prefix: &str) -> Vec<Vec<u8>> {
    let escape = |c: char| {
        if "*?[]\\".contains(c) {
            format!("\\{c}")
        } else {
            c.to_string()
        }
    };
    let pattern = prefix.chars().map(escape).collect::<String>() + "*";
    let mut keys = Vec::new();
    let mut cursor = 0u64;
    loop {
        let mut command = redis::cmd("SCAN");
        command
            .arg(cursor)
            .arg("MATCH")
            .arg(&pattern)
            .arg("COUNT")
            .arg(1000);
        let (next, batch): (u64, Vec<Vec<u8>>) = command.query(redis).expect("Redis can be scanned");
        keys.extend(batch);
        if next == 0 {
            return keys;
        }
        cursor = next;
    }
}

/// Rewrites each JSON text as jsonb prints it; what is not JSON stays, and differs.
fn normalize_json(client: &mut Client, cached: &mut HashMap<Vec<u8>, Stored>) {
    for value in cached.values_mut().flatten().map(|(_, value)| value) {
        let text = String::from_utf8_lossy(value).into_owned();
        if let Ok(row) = client.query_one("SELECT ($1::text)::jsonb::text", &[&text]) {
            *value = row.get::<_, String>(0).into_bytes();
        }
    }
}

fn difference(key: &[u8], stored: &Stored, expected: Option<&Stored>) -> Difference {
    Difference {
        key: String::from_utf8_lossy(key).into_owned(),
        in_redis: show(stored),
        in_postgres: expected.map(show),
    }
}

fn show(stored: &Stored) -> String {
    let pair = |(field, value): &(Vec<u8>, Vec<u8>)| {
        format!(
            "{}={:?}",
            String::from_utf8_lossy(field),
            String::from_utf8_lossy(value)
        )
    };
    stored.iter().map(pair).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_texts_and_columns_in_turn() {
        assert_eq!(parse_template("user:{id}"), ["user:", "id", ""]);
        assert_eq!(
            parse_template("{{a}}:{X}-{\"Y\"\"z\"}!"),
            ["{a}:", "x", "-", "Y\"z", "!"]
        );
    }
}
