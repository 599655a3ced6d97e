//! What can be wrong with a mapping list, and how it is said.
//!
//! A [`ConfigError`] carries where and what; `message`, `detail` and `hint` are the three lines that a GUC
//! check hook hands to PostgreSQL. Parts of the list that are shown are cut short and cleaned of control
//! characters, so that an error stays one line each in the log.

use std::fmt;

use super::ttl::TtlProblem;

/// A mapping list that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    entry: usize,
    byte: usize,
    character: usize,
    problem: Problem,
}

/// A problem and its byte offset in the list, before the entry is known.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) problem: Problem,
}

impl ConfigError {
    pub(super) fn new(list: &str, entry: usize, fault: Fault) -> Self {
        let before = list.get(..fault.at).unwrap_or(list);
        ConfigError {
            entry,
            byte: fault.at,
            character: before.chars().count() + 1,
            problem: fault.problem,
        }
    }

    /// The entry, counted from 1 without the empty ones; 0 where the list is refused as a whole.
    pub fn entry(&self) -> usize {
        self.entry
    }

    /// The position in the whole list as a byte offset from 0.
    pub fn byte(&self) -> usize {
        self.byte
    }

    /// The position in the whole list in characters from 1, as PostgreSQL counts positions.
    pub fn character(&self) -> usize {
        self.character
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Where and what, in one line.
    pub fn message(&self) -> String {
        match self.entry {
            0 => self.problem.to_string(),
            entry => format!(
                "mapping entry {entry}, character {}: {}",
                self.character, self.problem
            ),
        }
    }

    /// What was expected instead.
    pub fn detail(&self) -> String {
        self.problem.expected()
    }

    /// What to do about it, where there is more to say than what was expected.
    pub fn hint(&self) -> Option<String> {
        self.problem.hint()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message(), self.detail().trim_end_matches('.'))
    }
}

impl std::error::Error for ConfigError {}

/// What stands at a place where something else was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The list is over.
    End,
    /// The beginning of what stands there, cut and cleaned for showing.
    Text(String),
}

/// The longest piece of a list that an error shows, in characters.
const SHOWN_CHARACTERS: usize = 30;

/// The text as an error may show it: short, on one line.
fn shown(text: &str) -> String {
    let mut cut: String = text
        .chars()
        .take(SHOWN_CHARACTERS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        cut.push('…');
    }
    cut
}

impl Found {
    /// The first word, or the first character, of `rest`.
    pub(super) fn at_start_of(rest: &str) -> Self {
        let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
        let word_end = rest.find(|c| !part_of_word(c)).unwrap_or(rest.len());
        let first = rest.chars().next().map_or(0, char::len_utf8);
        match rest.get(..word_end.max(first)) {
            None | Some("") => Found::End,
            Some(text) => Found::Text(shown(text)),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::End => f.write_str("the end of the list"),
            Found::Text(text) => write!(f, "\"{text}\""),
        }
    }
}

/// A part of SQL's SELECT that a mapping cannot have: it names stored columns of one table, whole rows only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its SQL clause")]
pub enum Clause {
    With,
    Distinct,
    All,
    Into,
    Where,
    Join,
    GroupBy,
    Having,
    Window,
    SetOperation,
    OrderBy,
    Limit,
    Locking,
    TableSample,
    Lateral,
}

impl Clause {
    fn name(self) -> &'static str {
        match self {
            Clause::With => "a WITH query",
            Clause::Distinct => "DISTINCT",
            Clause::All => "SELECT ALL",
            Clause::Into => "SELECT INTO",
            Clause::Where => "a WHERE clause",
            Clause::Join => "a join",
            Clause::GroupBy => "GROUP BY",
            Clause::Having => "HAVING",
            Clause::Window => "WINDOW",
            Clause::SetOperation => "UNION, INTERSECT or EXCEPT",
            Clause::OrderBy => "ORDER BY",
            Clause::Limit => "LIMIT, OFFSET or FETCH",
            Clause::Locking => "a locking clause (FOR UPDATE, FOR SHARE)",
            Clause::TableSample => "TABLESAMPLE",
            Clause::Lateral => "LATERAL",
        }
    }
}

/// What is wrong with a list; one variant per rule of the grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what the messages below say of them")]
pub enum Problem {
    /// The list is longer than it may be.
    ListTooLong { bytes: usize, limit: usize },
    /// A NUL, which no text in PostgreSQL can hold.
    NulCharacter,
    /// A quote that is never closed.
    QuoteUnclosed { quote: char },
    /// A name of no characters.
    NameEmpty,
    /// A name longer than PostgreSQL's.
    NameTooLong {
        name: String,
        bytes: usize,
        limit: usize,
    },
    /// An unquoted name that SQL reads as a keyword.
    ReservedWord { word: String },

    /// An entry that begins with `=>`.
    TemplateMissing,
    /// A quote in a template that is not itself in quotes.
    TemplateQuote { quote: char },
    /// No `=>` after the template.
    ExpectedArrow { found: Found },
    /// `{` without a name and `}`.
    PlaceholderUnclosed { found: Found },
    /// `{` with something else than a name behind it.
    PlaceholderName { found: Found },
    /// `}` that closes nothing.
    LoneBrace,
    /// A template with no column in it.
    NoPlaceholder,
    /// A template that begins with a column.
    NoPrefix { column: String },
    /// Two columns with nothing between them.
    PlaceholdersAdjacent { left: String, right: String },
    /// A column twice in one template.
    KeyColumnTwice { column: String },
    /// More columns than an index can have.
    TooManyKeyColumns { limit: usize },
    /// More literal text than a template may have.
    TemplateTooLong { bytes: usize, limit: usize },
    /// A template whose keys would be taken for the extension's own.
    ReservedPrefix { prefix: &'static str },

    /// Something else than SELECT behind `=>`.
    ExpectedSelect { found: Found },
    /// `--` or `/*` outside quotes.
    Comment,
    /// A clause that a mapping cannot have.
    ClauseNotAllowed { clause: Clause },
    /// SELECT with no column.
    NoColumns,
    /// `*` beside other columns.
    StarNotAlone,
    /// A column that is not a plain name.
    Expression { column: usize },
    /// `t.column` or `t.*`.
    QualifiedColumn { column: usize },
    /// A column with another name.
    ColumnAlias { column: usize },
    /// A column twice in the SELECT.
    ColumnTwice { column: String },
    /// SELECT without FROM.
    NoTable { found: Found },
    /// `FROM ONLY`.
    Only,
    /// More than one table.
    SeveralTables,
    /// A table with another name.
    TableAlias,
    /// A function, a subquery or the like where a table must stand.
    NotATable,
    /// `a.b.c`.
    TableNameParts { parts: usize },
    /// Nested or long beyond what any mapping needs.
    TooComplex,
    /// What the SQL parser says of anything else.
    SelectSyntax { message: String },

    /// No `(` after WITH.
    ExpectedOptions { found: Found },
    /// No option where one must stand.
    ExpectedOption { found: Found },
    /// An option that does not exist.
    UnknownOption { option: String },
    /// An option twice.
    OptionTwice { option: &'static str },
    /// No `=` after an option.
    ExpectedEquals { option: &'static str, found: Found },
    /// No value after `=`.
    ExpectedValue { option: &'static str, found: Found },
    /// A value that the option does not know.
    BadValue {
        option: &'static str,
        value: String,
        allowed: &'static str,
    },
    /// A mapping name or database that is no SQL name.
    BadName { option: &'static str, value: String },
    /// A bad time to live.
    Ttl { value: String, problem: TtlProblem },
    /// Neither `,` nor `)` after an option.
    ExpectedCommaOrClose { found: Found },
    /// Text behind the options.
    ExpectedEnd { found: Found },
    /// `format = string` with more columns than one.
    StringColumns { count: usize },
    /// A mapping name that an earlier entry has.
    NameTwice { name: String, first: usize },
}

impl fmt::Display for Problem {
    #[rustfmt::skip]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Problem::*;
        match self {
            ListTooLong { bytes, limit } => write!(f, "the mapping list has {bytes} bytes, more than {limit}"),
            NulCharacter => write!(f, "the mapping list holds a NUL character"),
            QuoteUnclosed { quote } => write!(f, "unclosed quote {quote}"),
            NameEmpty => write!(f, "a name has no characters"),
            NameTooLong { name, bytes, limit } => {
                write!(f, "the name \"{}\" has {bytes} bytes, more than {limit}", shown(name))
            }
            ReservedWord { word } => write!(f, "\"{}\" is a reserved word of SQL", shown(word)),
            TemplateMissing => write!(f, "the key template is missing"),
            TemplateQuote { quote } => write!(f, "a quote ({quote}) in a key template that stands without quotes"),
            ExpectedArrow { found } => write!(f, "expected => after the key template, found {found}"),
            PlaceholderUnclosed { found } => write!(f, "expected }} after the column's name, found {found}"),
            PlaceholderName { found } => write!(f, "expected a column's name after {{, found {found}"),
            LoneBrace => write!(f, "}} closes nothing"),
            NoPlaceholder => write!(f, "the key template names no column"),
            NoPrefix { column } => write!(f, "the key template begins with the column \"{}\"", shown(column)),
            PlaceholdersAdjacent { left, right } => {
                write!(f, "nothing stands between the columns \"{}\" and \"{}\"", shown(left), shown(right))
            }
            KeyColumnTwice { column } => write!(f, "the column \"{}\" is in the key template twice", shown(column)),
            TooManyKeyColumns { limit } => write!(f, "the key template names more than {limit} columns"),
            TemplateTooLong { bytes, limit } => {
                write!(f, "the key template has {bytes} bytes of literal text, more than {limit}")
            }
            ReservedPrefix { prefix } => write!(f, "keys that begin with \"{prefix}\" are the extension's own"),
            ExpectedSelect { found } => write!(f, "expected SELECT after =>, found {found}"),
            Comment => write!(f, "a comment is not allowed"),
            ClauseNotAllowed { clause } => write!(f, "{} is not allowed", clause.name()),
            NoColumns => write!(f, "the SELECT names no column"),
            StarNotAlone => write!(f, "* stands beside other columns"),
            Expression { column } => write!(f, "column {column} of the SELECT is an expression"),
            QualifiedColumn { column } => write!(f, "column {column} of the SELECT is qualified by a table"),
            ColumnAlias { column } => write!(f, "column {column} of the SELECT has an alias"),
            ColumnTwice { column } => write!(f, "the column \"{}\" is named twice", shown(column)),
            NoTable { found } => write!(f, "expected FROM and a table, found {found}"),
            Only => write!(f, "ONLY is not allowed"),
            SeveralTables => write!(f, "the SELECT names several tables"),
            TableAlias => write!(f, "the table has an alias"),
            NotATable => write!(f, "FROM names something else than a table"),
            TableNameParts { parts } => write!(f, "the table's name has {parts} parts"),
            TooComplex => write!(f, "the SELECT is too complex for a mapping"),
            SelectSyntax { message } => write!(f, "syntax error in the SELECT: {}", shown_message(message)),
            ExpectedOptions { found } => write!(f, "expected ( after WITH, found {found}"),
            ExpectedOption { found } => write!(f, "expected an option, found {found}"),
            UnknownOption { option } => write!(f, "unknown option \"{}\"", shown(option)),
            OptionTwice { option } => write!(f, "the option {option} is given twice"),
            ExpectedEquals { option, found } => write!(f, "expected = after {option}, found {found}"),
            ExpectedValue { option, found } => write!(f, "expected a value for {option}, found {found}"),
            BadValue { option, value, .. } => write!(f, "{option} cannot be \"{}\"", shown(value)),
            BadName { option, value } => write!(f, "{option} cannot be \"{}\" without quotes", shown(value)),
            Ttl { value, problem } => write!(f, "ttl cannot be \"{}\": {problem}", shown(value)),
            ExpectedCommaOrClose { found } => write!(f, "expected , or ) after an option, found {found}"),
            ExpectedEnd { found } => write!(f, "expected ; or the end of the list, found {found}"),
            StringColumns { count } => write!(f, "format string with {count} columns"),
            NameTwice { name, first } => write!(f, "the mapping name \"{}\" is that of entry {first}", shown(name)),
        }
    }
}

/// A parser's message on one line and not without end: it can quote the SELECT.
fn shown_message(message: &str) -> String {
    message
        .chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

impl Problem {
    /// The problem at a byte offset in the list.
    pub(super) fn at(self, at: usize) -> Fault {
        Fault { at, problem: self }
    }

    /// The rule that was broken, as what was expected instead.
    fn expected(&self) -> String {
        use Problem::*;
        let template = "Expected literal text and {column} placeholders, such as user:{id}.";
        let rule = match self {
            ListTooLong { limit, .. } => return format!("Expected at most {limit} bytes."),
            NulCharacter => "Expected text without NUL.",
            QuoteUnclosed { quote } => {
                return format!("Expected a closing {quote}; inside, it stands doubled.");
            }
            NameEmpty | NameTooLong { .. } => {
                return format!("Expected a name of 1 to {} bytes.", super::MAX_NAME_BYTES);
            }
            ReservedWord { .. } => "Expected a name, or the word in double quotes.",
            TemplateMissing | NoPlaceholder => template,
            TemplateQuote { .. } => {
                "Expected a template without quotes and white space, or all of it in single quotes."
            }
            ExpectedArrow { .. } => {
                "Expected <key template> => SELECT <columns> FROM <table> [WITH (<options>)]."
            }
            PlaceholderUnclosed { .. } | PlaceholderName { .. } | LoneBrace => {
                "Expected {column}; literal braces are written {{ and }}."
            }
            NoPrefix { .. } => "Expected literal text before the first placeholder.",
            PlaceholdersAdjacent { .. } => "Expected literal text between two placeholders.",
            KeyColumnTwice { .. } => "Expected each key column once.",
            TooManyKeyColumns { limit } => {
                return format!("Expected at most {limit} key columns, as an index has.");
            }
            TemplateTooLong { limit, .. } => {
                return format!("Expected at most {limit} bytes of literal text.");
            }
            ReservedPrefix { .. } => "Expected a key template that begins with something else.",
            ExpectedSelect { .. } | NoColumns | NoTable { .. } | SelectSyntax { .. } | TooComplex => {
                "Expected SELECT <columns> FROM <table>."
            }
            Comment => "Expected SELECT <columns> FROM <table>, without comments.",
            ClauseNotAllowed { .. } => "Expected SELECT <columns> FROM <table> and nothing else.",
            StarNotAlone => "Expected * alone, or the columns by name.",
            Expression { .. } | QualifiedColumn { .. } | ColumnAlias { .. } => {
                "Expected the plain name of a column."
            }
            ColumnTwice { .. } => "Expected each column once.",
            Only | SeveralTables | TableAlias | NotATable => "Expected the plain name of one table.",
            TableNameParts { .. } => "Expected [schema.]table.",
            ExpectedOptions { .. } | ExpectedOption { .. } | ExpectedCommaOrClose { .. } => {
                "Expected WITH (option = value, ...)."
            }
            UnknownOption { .. } => {
                "Expected one of name, database, server, format, ttl, fill, write, insert, allow_rls."
            }
            OptionTwice { .. } => "Expected each option once.",
            ExpectedEquals { option, .. } | ExpectedValue { option, .. } => {
                return format!("Expected {option} = <value>.");
            }
            BadValue { allowed, .. } => return format!("Expected {allowed}."),
            BadName { .. } => "Expected a name by the rules of SQL, or any name in double quotes.",
            Ttl { .. } => "Expected whole seconds above 0, such as 300, or an interval, such as '5 minutes'.",
            ExpectedEnd { .. } => "Expected ; between two entries.",
            StringColumns { .. } => "Expected exactly one column for format string.",
            NameTwice { .. } => "Expected a name that no other entry has.",
        };
        rule.to_owned()
    }

    /// Advice beyond the rule.
    fn hint(&self) -> Option<String> {
        use Problem::*;
        let advice = match self {
            ReservedWord { word } => return Some(format!("Write \"{word}\" in double quotes.")),
            TemplateQuote { .. } => {
                "A template with quotes, white space or ; is written 'like this', with '' for a quote."
            }
            LoneBrace => "Write }} for a literal brace.",
            ClauseNotAllowed {
                clause: Clause::Where,
            } => "A key belongs to one row, whatever the row's values are.",
            ClauseNotAllowed { clause: Clause::Join } | SeveralTables => "Write one mapping for each table.",
            Expression { .. } => "A generated column (STORED) can hold an expression's value.",
            ColumnAlias { .. } => "Fields are called as the columns are.",
            Only
            | ClauseNotAllowed {
                clause: Clause::Lateral,
            } => "A partitioned table is mapped with all its partitions.",
            BadName { .. } => "Names fold to lower case unless they are in quotes.",
            Ttl { .. } => "An interval stands in single quotes: ttl = '1 day 02:00:00'.",
            ExpectedCommaOrClose { .. } => "A value with white space stands in single quotes.",
            StringColumns { .. } => "Name one column in the SELECT, or use format hash or json.",
            NameTwice { .. } => "Give one of them a name of its own: WITH (name = ...).",
            TableNameParts { .. } => "The table's database is given with WITH (database = ...).",
            _ => return None,
        };
        Some(advice.to_owned())
    }
}
