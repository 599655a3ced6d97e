//! The mapping list: `pg_redis_cache.mappings`, read, checked as far as text can be, and printed again.
//!
//! ```text
//! <key template> => SELECT <columns> FROM <table> [WITH (<options>)] ; ...
//! ```
//!
//! A scanner of our own cuts the list at `;`, `=>` and `WITH` outside quotes and braces; `sqlparser` reads
//! the SELECT in between, and what it accepts too freely is refused afterwards. Comments are not part of
//! the language: a value in `postgresql.conf` stands on one line, where `--` would swallow the rest.
//!
//! Guaranteed: [`parse_list`] never panics and its stack depth is bounded, whatever the text; what
//! [`print_list`] prints parses back to equal mappings; a [`Mapping`] it returned has a valid template,
//! valid names and a unique name; fingerprints are the same in every process and on every machine.
//!
//! Not guaranteed: that table or columns exist, or that the mapping can work. Only the catalog can tell,
//! and a mapping that fails there goes to the state `error` on its own.

mod error;
mod fingerprint;
mod names;
mod options;
mod print;
mod scan;
mod select;
mod servers;
mod template;
mod ttl;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::num::NonZeroU32;

pub use error::{Clause, ConfigError, Problem};
pub use fingerprint::list_fingerprint;
pub use names::{MAX_NAME_BYTES, quote_name};
pub use print::print_list;
pub use servers::{
    DEFAULT_SERVER, ListedServer, MAX_SERVER_LIST_BYTES, MAX_SERVERS, ServerFault, ServerList, ServerProblem,
    masked,
};
pub use template::{KeyPart, KeyTemplate, MAX_KEY_COLUMNS, MAX_TEMPLATE_BYTES, RESERVED_PREFIX};
pub use ttl::TtlProblem;

use error::Fault;
use scan::Cursor;

/// The longest list that is read, in bytes. It bounds the work and the memory of a reload; a mapping is
/// seldom longer than 200 bytes.
pub const MAX_LIST_BYTES: usize = 256 * 1024;

/// One entry of the list: which rows belong to which keys, and how they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Unique in the whole list; the table's name unless the option `name` says otherwise.
    pub name: String,
    /// The database of the table, where it is not `pg_redis_cache.database`.
    pub database: Option<String>,
    /// The server of [`ServerList`] that has the keys, where it is not the setting `url`.
    pub server: Option<String>,
    /// How a row's key is built.
    pub template: KeyTemplate,
    /// The table's schema, folded as SQL folds names; `public` where none was written.
    pub schema: String,
    /// The table's name, folded as SQL folds names.
    pub table: String,
    /// The columns whose values are stored.
    pub columns: Columns,
    /// How they are stored.
    pub format: Format,
    /// The keys' time to live in seconds; none: they stay.
    pub ttl: Option<NonZeroU32>,
    /// Which reads put rows into the cache.
    pub fill: Fill,
    /// What a committed change does to its key.
    pub write: Write,
    /// What a committed INSERT does.
    pub insert: Insert,
    /// Whether a table with row-level security may be mapped.
    pub allow_rls: bool,
}

/// The SELECT list of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// `*`: the live columns in their order, key columns too.
    All,
    /// Named columns in SELECT order, none twice, at least one.
    Named(Vec<String>),
}

/// The option `format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A Redis hash with one field per column that is not NULL.
    #[default]
    Hash,
    /// One JSON object by the rules of `to_json`.
    Json,
    /// The text of exactly one column.
    String,
}

/// The option `fill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fill {
    /// Rows that a scan looked up by equality on all key columns.
    #[default]
    Point,
    /// Every row that a scan of the table returns.
    Any,
    /// None.
    Off,
}

/// The option `write`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Write {
    /// A change sets its key to the new row, also where it was not cached.
    #[default]
    Set,
    /// A change deletes its key.
    Delete,
}

/// The option `insert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Insert {
    /// A new row is not cached until somebody reads it.
    #[default]
    Off,
    /// A new row is cached when its transaction commits.
    Set,
}

/// Reads a whole mapping list. Entries are separated by `;`, empty ones are ignored and not counted.
///
/// # Errors
/// The first thing that is wrong, with its entry and its position; see [`Problem`] for the kinds.
pub fn parse_list(text: &str) -> Result<Vec<Mapping>, ConfigError> {
    if text.len() > MAX_LIST_BYTES {
        let problem = Problem::ListTooLong {
            bytes: text.len(),
            limit: MAX_LIST_BYTES,
        };
        return Err(ConfigError::new(text, 0, problem.at(0)));
    }
    if let Some(at) = text.find('\0') {
        return Err(ConfigError::new(text, 0, Problem::NulCharacter.at(at)));
    }
    let mut cursor = Cursor::new(text);
    let mut mappings = Vec::new();
    let mut entry_of_name = HashMap::new();
    while cursor.skip_empty_entries() {
        let entry = mappings.len() + 1;
        let fail = |fault| ConfigError::new(text, entry, fault);
        let parsed = parse_entry(&mut cursor).map_err(fail)?;
        if let Some(first) = entry_of_name.insert(parsed.mapping.name.clone(), entry) {
            let problem = Problem::NameTwice {
                name: parsed.mapping.name,
                first,
            };
            return Err(fail(problem.at(parsed.name_at)));
        }
        mappings.push(parsed.mapping);
    }
    Ok(mappings)
}

/// A mapping and the byte offset of what named it, for the error about a name used twice.
struct Entry {
    mapping: Mapping,
    name_at: usize,
}

/// Reads one entry and leaves the cursor at the `;` behind it or at the end of the list.
fn parse_entry(cursor: &mut Cursor<'_>) -> Result<Entry, Fault> {
    let template = template::read(cursor)?;
    cursor.skip_space();
    if !cursor.take("=>") {
        return Err(Problem::ExpectedArrow {
            found: cursor.found(),
        }
        .at(cursor.at()));
    }
    let select = select::read(cursor)?;
    let options = options::read(cursor)?;
    if let (Format::String, Columns::Named(columns)) = (options.format, &select.columns)
        && columns.len() != 1
    {
        let problem = Problem::StringColumns { count: columns.len() };
        return Err(problem.at(options.format_at));
    }
    let (name, name_at) = options
        .name
        .unwrap_or_else(|| (select.table.clone(), select.table_at));
    let mapping = Mapping {
        name,
        database: options.database,
        server: options.server,
        template,
        schema: select.schema,
        table: select.table,
        columns: select.columns,
        format: options.format,
        ttl: options.ttl,
        fill: options.fill,
        write: options.write,
        insert: options.insert,
        allow_rls: options.allow_rls,
    };
    Ok(Entry { mapping, name_at })
}
