//! SQL names: folding, length, and the quoting that makes a name read back as itself.

use super::error::Problem;
use super::scan::{is_name_part, is_name_start};

/// The longest name in PostgreSQL (NAMEDATALEN - 1), in bytes. PostgreSQL cuts longer ones with a notice;
/// here they are an error, because a cut name would silently be another one.
pub const MAX_NAME_BYTES: usize = 63;

/// Words that cannot be an unquoted column or table name: the classes "reserved" and "reserved (can be
/// function or type)" of the table in PostgreSQL's appendix C, for 15 to 18. In byte order.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// Folds an unquoted name: only ASCII letters, as PostgreSQL does in a multibyte encoding.
pub(super) fn fold(word: &str) -> String {
    word.to_ascii_lowercase()
}

/// Whether the folded `word` needs quotes to be a name.
pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.binary_search(&word).is_ok()
}

/// Refuses what cannot be a name in PostgreSQL.
pub(super) fn check(name: String) -> Result<String, Problem> {
    if name.is_empty() {
        return Err(Problem::NameEmpty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Problem::NameTooLong {
            bytes: name.len(),
            limit: MAX_NAME_BYTES,
            name,
        });
    }
    Ok(name)
}

/// Whether `word` could be written without quotes, whatever its case.
pub(super) fn is_word(word: &str) -> bool {
    let mut characters = word.chars();
    characters.next().is_some_and(is_name_start) && characters.all(is_name_part)
}

/// The name as SQL reads it back: bare where that gives this very name, else in double quotes.
pub fn quote_name(name: &str) -> String {
    let bare =
        is_word(name) && name.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) && !is_reserved(name);
    if bare {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_in_order_for_the_binary_search() {
        assert!(RESERVED.is_sorted());
        assert!(is_reserved("user") && is_reserved("all") && is_reserved("with"));
        assert!(!is_reserved("name") && !is_reserved("date"));
    }

    #[test]
    fn only_names_that_read_back_as_themselves_stay_bare() {
        for (name, quoted) in [
            ("users", "users"),
            ("_a$1", "_a$1"),
            ("Users", "\"Users\""),
            ("user", "\"user\""),
            ("1a", "\"1a\""),
            ("naïve", "\"naïve\""),
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
        ] {
            assert_eq!(quote_name(name), quoted);
        }
    }

    #[test]
    fn the_length_limit_counts_bytes() {
        assert!(check("x".repeat(63)).is_ok());
        assert!(check("x".repeat(64)).is_err());
        assert!(check("é".repeat(32)).is_err());
    }
}
