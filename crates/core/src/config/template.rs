//! The key template: its parts, how its text is read, and how it is printed.
//!
//! What a template does with rows and keys is in [`crate::encode::key`].

use std::fmt;
use std::str::FromStr;

use super::ConfigError;
use super::error::{Fault, Problem};
use super::names;
use super::scan::{Cursor, is_name_part, is_space};

/// The most key columns: a unique index has no more (INDEX_MAX_KEYS).
pub const MAX_KEY_COLUMNS: usize = 32;

/// The most literal text in one template, in bytes. It bounds the work of comparing two templates.
pub const MAX_TEMPLATE_BYTES: usize = 1024;

/// Keys of the extension itself begin so; no template may (rule 8).
pub const RESERVED_PREFIX: &str = "pg_redis_cache:";

/// A key template: literal text, then columns with literal text between each two.
///
/// The shape makes the rules of the grammar true of every value: the text before the first column is not
/// empty, there is at least one column, no column stands twice, and only the last column may have nothing
/// behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate {
    prefix: String,
    parts: Vec<KeyPart>,
}

/// A key column and the literal text behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPart {
    column: String,
    literal: String,
}

impl KeyPart {
    /// The column's name.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// The text between this column and the next, or behind the last one.
    pub fn literal(&self) -> &str {
        &self.literal
    }
}

impl KeyTemplate {
    /// The text before the first column.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The columns with the text behind each, in order.
    pub fn parts(&self) -> &[KeyPart] {
        &self.parts
    }
}

/// Reads a template from its plain text, as [`KeyTemplate`]'s `Display` prints it: without outer quotes.
impl FromStr for KeyTemplate {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut cursor = Cursor::new(text);
        let mut reader = Reader {
            cursor: &mut cursor,
            wrapping: Wrapping::Whole,
            in_placeholder: false,
        };
        reader
            .template(0)
            .map_err(|fault| ConfigError::new(text, 0, fault))
    }
}

/// Reads the template of an entry and leaves the cursor behind it.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<KeyTemplate, Fault> {
    let start = cursor.at();
    if cursor.rest().starts_with("=>") {
        return Err(Problem::TemplateMissing.at(start));
    }
    let quoted = cursor.take("'");
    let wrapping = if quoted {
        Wrapping::Quoted { opened_at: start }
    } else {
        Wrapping::Bare
    };
    let mut reader = Reader {
        cursor,
        wrapping,
        in_placeholder: false,
    };
    let template = reader.template(start)?;
    if quoted {
        cursor.take("'");
    }
    Ok(template)
}

/// What ends a template, and what must not stand in it.
#[derive(Clone, Copy)]
enum Wrapping {
    /// In an entry: ends at white space, `=>` or `;`.
    Bare,
    /// In an entry, in single quotes; `''` is a quote.
    Quoted { opened_at: usize },
    /// The whole text.
    Whole,
}

/// Hands out the template's characters, with what wraps them taken away.
struct Reader<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    wrapping: Wrapping,
    /// Between braces white space and quotes do not end a bare template.
    in_placeholder: bool,
}

impl Reader<'_, '_> {
    /// The character that stands here, none at the template's end.
    fn peek(&self) -> Result<Option<char>, Fault> {
        let at = self.cursor.at();
        let next = self.cursor.peek();
        match (self.wrapping, next) {
            (Wrapping::Quoted { opened_at }, None) => {
                Err(Problem::QuoteUnclosed { quote: '\'' }.at(opened_at))
            }
            (Wrapping::Quoted { .. }, Some('\'')) => Ok(self.cursor.rest().starts_with("''").then_some('\'')),
            (Wrapping::Bare, Some(c)) if !self.in_placeholder => match c {
                '\'' | '"' => Err(Problem::TemplateQuote { quote: c }.at(at)),
                ';' => Ok(None),
                c if is_space(c) || self.cursor.rest().starts_with("=>") => Ok(None),
                c => Ok(Some(c)),
            },
            _ => Ok(next),
        }
    }

    /// Goes past the character that `peek` showed.
    fn advance(&mut self) {
        if self.cursor.bump() == Some('\'') && matches!(self.wrapping, Wrapping::Quoted { .. }) {
            self.cursor.bump();
        }
    }

    /// Goes past `expected` if it stands here.
    fn take(&mut self, expected: char) -> Result<bool, Fault> {
        let stands_here = self.peek()? == Some(expected);
        if stands_here {
            self.advance();
        }
        Ok(stands_here)
    }

    fn template(&mut self, start: usize) -> Result<KeyTemplate, Fault> {
        let mut building = Building::new(start);
        loop {
            let at = self.cursor.at();
            let Some(c) = self.peek()? else { break };
            self.advance();
            match c {
                '{' if self.cursor.take("{") => building.literal('{', at)?,
                '}' if self.cursor.take("}") => building.literal('}', at)?,
                '}' => {
                    return Err(Problem::LoneBrace.at(at));
                }
                '{' => {
                    let column = self.placeholder()?;
                    building.column(column, at)?;
                }
                c => building.literal(c, at)?,
            }
        }
        building.finish()
    }

    /// Reads `column}`.
    fn placeholder(&mut self) -> Result<String, Fault> {
        self.in_placeholder = true;
        self.skip_space()?;
        let at = self.cursor.at();
        let found = self.cursor.found();
        let name = if self.take('"')? {
            self.quoted_name(at)?
        } else {
            let word = self.word()?;
            if word.is_empty() {
                return Err(Problem::PlaceholderName { found }.at(at));
            }
            names::fold(&word)
        };
        let name = names::check(name).map_err(|problem| problem.at(at))?;
        self.skip_space()?;
        let at = self.cursor.at();
        let found = self.cursor.found();
        if !self.take('}')? {
            return Err(Problem::PlaceholderUnclosed { found }.at(at));
        }
        self.in_placeholder = false;
        Ok(name)
    }

    fn skip_space(&mut self) -> Result<(), Fault> {
        while self.peek()?.is_some_and(is_space) {
            self.advance();
        }
        Ok(())
    }

    /// An unquoted name as written; empty if none begins here.
    fn word(&mut self) -> Result<String, Fault> {
        let mut word = String::new();
        while let Some(c) = self.peek()?.filter(|c| is_name_part(*c)) {
            word.push(c);
            self.advance();
        }
        Ok(if names::is_word(&word) {
            word
        } else {
            String::new()
        })
    }

    /// The rest of a name whose opening double quote, at `opened_at`, has been taken.
    fn quoted_name(&mut self, opened_at: usize) -> Result<String, Fault> {
        let mut name = String::new();
        while let Some(c) = self.peek()? {
            self.advance();
            if c == '"' && !self.take('"')? {
                return Ok(name);
            }
            name.push(c);
        }
        Err(Problem::QuoteUnclosed { quote: '"' }.at(opened_at))
    }
}

/// A template being put together; every rule of its shape is checked here.
struct Building {
    start: usize,
    prefix: String,
    parts: Vec<KeyPart>,
    literal_bytes: usize,
}

impl Building {
    fn new(start: usize) -> Self {
        Building {
            start,
            prefix: String::new(),
            parts: Vec::new(),
            literal_bytes: 0,
        }
    }

    fn literal(&mut self, c: char, at: usize) -> Result<(), Fault> {
        self.literal_bytes += c.len_utf8();
        if self.literal_bytes > MAX_TEMPLATE_BYTES {
            let problem = Problem::TemplateTooLong {
                bytes: self.literal_bytes,
                limit: MAX_TEMPLATE_BYTES,
            };
            return Err(problem.at(at));
        }
        match self.parts.last_mut() {
            None => self.prefix.push(c),
            Some(part) => part.literal.push(c),
        }
        Ok(())
    }

    fn column(&mut self, column: String, at: usize) -> Result<(), Fault> {
        let problem = if self.prefix.is_empty() {
            Problem::NoPrefix { column }
        } else if self.parts.iter().any(|part| part.column == column) {
            Problem::KeyColumnTwice { column }
        } else if self.parts.len() == MAX_KEY_COLUMNS {
            Problem::TooManyKeyColumns {
                limit: MAX_KEY_COLUMNS,
            }
        } else if let Some(left) = self.parts.last().filter(|left| left.literal.is_empty()) {
            Problem::PlaceholdersAdjacent {
                left: left.column.clone(),
                right: column,
            }
        } else {
            self.parts.push(KeyPart {
                column,
                literal: String::new(),
            });
            return Ok(());
        };
        Err(problem.at(at))
    }

    fn finish(self) -> Result<KeyTemplate, Fault> {
        let problem = if self.parts.is_empty() {
            Problem::NoPlaceholder
        } else if self.prefix.starts_with(RESERVED_PREFIX) {
            Problem::ReservedPrefix {
                prefix: RESERVED_PREFIX,
            }
        } else {
            return Ok(KeyTemplate {
                prefix: self.prefix,
                parts: self.parts,
            });
        };
        Err(problem.at(self.start))
    }
}

/// The plain text: braces doubled, names quoted where SQL needs it, no outer quotes.
impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let literal = |text: &str| text.replace('{', "{{").replace('}', "}}");
        f.write_str(&literal(&self.prefix))?;
        for part in &self.parts {
            write!(
                f,
                "{{{}}}{}",
                names::quote_name(&part.column),
                literal(&part.literal)
            )?;
        }
        Ok(())
    }
}
