//! `WITH (option = value, ...)`.

use std::num::NonZeroU32;

use super::error::{Fault, Problem};
use super::names;
use super::scan::{Cursor, is_space};
use super::servers::DEFAULT_SERVER;
use super::ttl;
use super::{Fill, Format, Insert, Write};

/// The options of one entry, with their defaults where not given.
#[derive(Default)]
pub(super) struct Options {
    /// The name and its byte offset in the list.
    pub(super) name: Option<(String, usize)>,
    pub(super) database: Option<String>,
    /// None: that of the setting `url`.
    pub(super) server: Option<String>,
    pub(super) format: Format,
    /// Where the format was given, as a byte offset in the list.
    pub(super) format_at: usize,
    pub(super) ttl: Option<NonZeroU32>,
    pub(super) fill: Fill,
    pub(super) write: Write,
    pub(super) insert: Insert,
    pub(super) allow_rls: bool,
}

/// The names of the options; the place here is the bit that remembers that one was given.
const NAMES: [&str; 9] = [
    "name",
    "database",
    "server",
    "format",
    "ttl",
    "fill",
    "write",
    "insert",
    "allow_rls",
];

/// Reads the options, if WITH stands here, and the end of the entry.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Options, Fault> {
    let mut options = Options::default();
    cursor.skip_space();
    // The SELECT before stops only at WITH, `;` or the end.
    if cursor.take_word().is_empty() {
        return Ok(options);
    }
    cursor.skip_space();
    if !cursor.take("(") {
        return Err(Problem::ExpectedOptions {
            found: cursor.found(),
        }
        .at(cursor.at()));
    }
    let mut given = [false; NAMES.len()];
    loop {
        read_one(cursor, &mut options, &mut given)?;
        cursor.skip_space();
        if cursor.take(")") {
            break;
        }
        if !cursor.take(",") {
            let problem = Problem::ExpectedCommaOrClose {
                found: cursor.found(),
            };
            return Err(problem.at(cursor.at()));
        }
    }
    cursor.skip_space();
    match cursor.peek() {
        None | Some(';') => Ok(options),
        Some(_) => Err(Problem::ExpectedEnd {
            found: cursor.found(),
        }
        .at(cursor.at())),
    }
}

fn read_one(cursor: &mut Cursor<'_>, options: &mut Options, given: &mut [bool]) -> Result<(), Fault> {
    cursor.skip_space();
    let option_at = cursor.at();
    let fail = |problem: Problem| problem.at(option_at);
    let found = cursor.found();
    let word = names::fold(cursor.take_word());
    if word.is_empty() {
        return Err(fail(Problem::ExpectedOption { found }));
    }
    let known = NAMES.iter().zip(given).find(|(name, _)| **name == word);
    let Some((&option, given)) = known else {
        return Err(fail(Problem::UnknownOption { option: word }));
    };
    if std::mem::replace(given, true) {
        return Err(fail(Problem::OptionTwice { option }));
    }
    cursor.skip_space();
    if !cursor.take("=") {
        let problem = Problem::ExpectedEquals {
            option,
            found: cursor.found(),
        };
        return Err(problem.at(cursor.at()));
    }
    let value = read_value(cursor, option)?;
    options.set(option, value)
}

/// A value as written.
struct Value {
    option: &'static str,
    text: String,
    quoted: bool,
    at: usize,
}

fn read_value(cursor: &mut Cursor<'_>, option: &'static str) -> Result<Value, Fault> {
    cursor.skip_space();
    let at = cursor.at();
    let (text, quoted) = match cursor.peek() {
        Some(quote @ ('\'' | '"')) => (cursor.take_quoted(quote)?, true),
        _ => {
            let ends = |c| is_space(c) || matches!(c, ',' | ';' | '(' | ')' | '\'' | '"' | '=');
            (cursor.take_while(|c| !ends(c)).to_owned(), false)
        }
    };
    if text.is_empty() && !quoted {
        return Err(Problem::ExpectedValue {
            option,
            found: cursor.found(),
        }
        .at(at));
    }
    Ok(Value {
        option,
        text,
        quoted,
        at,
    })
}

impl Options {
    fn set(&mut self, option: &'static str, value: Value) -> Result<(), Fault> {
        match option {
            "name" => self.name = Some((value.name()?, value.at)),
            "database" => self.database = Some(value.name()?),
            "server" => self.server = Some(value.name()?).filter(|name| name != DEFAULT_SERVER),
            "format" => {
                let formats = [
                    ("hash", Format::Hash),
                    ("json", Format::Json),
                    ("string", Format::String),
                ];
                self.format = value.one_of("hash, json or string", &formats)?;
                self.format_at = value.at;
            }
            "ttl" => self.ttl = Some(value.ttl()?),
            "fill" => {
                let fills = [("point", Fill::Point), ("any", Fill::Any), ("off", Fill::Off)];
                self.fill = value.one_of("point, any or off", &fills)?;
            }
            "write" => {
                self.write =
                    value.one_of("set or delete", &[("set", Write::Set), ("delete", Write::Delete)])?;
            }
            "insert" => {
                self.insert = value.one_of("off or set", &[("off", Insert::Off), ("set", Insert::Set)])?;
            }
            // "allow_rls", the only name that is left in NAMES
            _ => self.allow_rls = value.one_of("on or off", &[("on", true), ("off", false)])?,
        }
        Ok(())
    }
}

impl Value {
    fn one_of<T: Copy>(&self, allowed: &'static str, values: &[(&str, T)]) -> Result<T, Fault> {
        let found = values
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(&self.text));
        let problem = || Problem::BadValue {
            option: self.option,
            value: self.text.clone(),
            allowed,
        };
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| problem().at(self.at))
    }

    /// A name: in either kind of quotes exact, without them by the rules of SQL.
    fn name(&self) -> Result<String, Fault> {
        let name = if self.quoted {
            names::check(self.text.clone())
        } else if names::is_word(&self.text) {
            names::check(names::fold(&self.text))
        } else {
            Err(Problem::BadName {
                option: self.option,
                value: self.text.clone(),
            })
        };
        name.map_err(|problem| problem.at(self.at))
    }

    fn ttl(&self) -> Result<NonZeroU32, Fault> {
        let problem = |problem| Problem::Ttl {
            value: self.text.clone(),
            problem,
        };
        ttl::parse(&self.text).map_err(|reason| problem(reason).at(self.at))
    }
}
