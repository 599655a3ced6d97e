//! A topic's text, cut into what psql would send and do one after the other.
//!
//! It knows as much of SQL's lexical rules as it takes to find the end of a statement and its literals
//! (src/backend/parser/scan.l), and as much of psql as the topics use: `\!`, `\c`, `\set` and the rows of COPY.

/// What psql does at one place of a topic.
#[derive(Debug)]
pub enum Piece {
    /// Sends a statement.
    Sql(Statement),
    /// Sends a `COPY … FROM stdin` and the rows that follow it.
    CopyIn(String, String),
    /// Runs a command of the shell: `\!`.
    Shell(String),
    /// Connects anew, to that database or the same: `\c`.
    Connect(Option<String>),
}

/// An SQL statement without its semicolon, and its tokens.
pub struct Statement {
    pub text: String,
    tokens: Vec<Token>,
}

/// What a part of a statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// White space or a comment.
    Space,
    /// A name or a keyword, quoted or not.
    Word,
    Number,
    /// `'…'`
    Literal,
    /// A literal of another kind: `E'…'`, `B'…'`, `$$…$$`.
    Special,
    Operator,
    /// One of `( ) [ ] , ; .`
    Mark,
}

#[derive(Clone, Copy)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

impl std::fmt::Debug for Statement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Statement {
    fn new(text: &str, tokens: Vec<Token>) -> Statement {
        Statement {
            text: text.to_owned(),
            tokens,
        }
    }

    /// Kind, text and place of everything that is not space.
    pub fn tokens(&self) -> impl Iterator<Item = (Kind, &str, std::ops::Range<usize>)> {
        let visible = self.tokens.iter().filter(|token| token.kind != Kind::Space);
        visible.map(|token| {
            (
                token.kind,
                &self.text[token.start..token.end],
                token.start..token.end,
            )
        })
    }

    /// The statement's words in upper case, as keywords are compared.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let words = self.tokens().filter(|token| token.0 == Kind::Word);
        words.map(|(_, text, _)| text.to_ascii_uppercase())
    }

    /// Whether one of its words is this keyword.
    pub fn has(&self, keyword: &str) -> bool {
        self.words().any(|word| word == keyword)
    }

    /// The names before a parenthesis: those of functions, and some keywords.
    pub fn called(&self) -> Vec<String> {
        let tokens: Vec<_> = self.tokens().collect();
        let before = tokens
            .windows(2)
            .filter(|pair| pair[0].0 == Kind::Word && pair[1].1 == "(");
        before
            .map(|pair| pair[0].1.trim_matches('"').to_owned())
            .collect()
    }
}

/// Cuts a topic into its pieces.
///
/// # Panics
/// Where it has a command of psql's that is not known here, or a literal that does not end.
pub fn cut(topic: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = topic;
    while let Some(start) = rest.find(|c: char| !c.is_whitespace()) {
        rest = &rest[start..];
        if rest.starts_with("--") {
            rest = after_line(rest).1;
        } else if rest.starts_with('\\') {
            let (line, after) = after_line(rest);
            pieces.extend(command(line));
            rest = after;
        } else {
            let (statement, after) = statement(rest);
            rest = after;
            if is_copy_in(&statement) {
                // The rows begin on the next line, and end with a line `\.`.
                let (_, rows) = after_line(rest);
                let (rows, after) = rows.split_once("\\.\n").expect("COPY has an end");
                pieces.push(Piece::CopyIn(statement.text, rows.to_owned()));
                rest = after;
            } else {
                pieces.push(Piece::Sql(statement));
            }
        }
    }
    pieces
}

fn after_line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

/// A command of psql's; None for what only changes what psql prints.
fn command(line: &str) -> Option<Piece> {
    let (name, argument) = line.split_once(' ').unwrap_or((line, ""));
    match name {
        "\\!" => Some(Piece::Shell(argument.to_owned())),
        "\\c" => Some(Piece::Connect(
            Some(argument.to_owned()).filter(|database| database != "-"),
        )),
        "\\set" | "\\d" => None,
        _ => panic!("this knows no {line}"),
    }
}

fn is_copy_in(statement: &Statement) -> bool {
    let words: Vec<String> = statement.words().collect();
    words[0] == "COPY" && words.windows(2).any(|pair| pair == ["FROM", "STDIN"])
}

/// The first statement of a text, and what follows its semicolon.
fn statement(text: &str) -> (Statement, &str) {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some((kind, length)) = token(&text[at..]) {
        let (start, end) = (at, at + length);
        at = end;
        if &text[start..end] == ";" {
            return (Statement::new(&text[..start], tokens), &text[end..]);
        }
        tokens.push(Token { kind, start, end });
    }
    panic!("a statement without a semicolon: {text}");
}

/// The kind and length of what a text begins with; None at its end.
fn token(text: &str) -> Option<(Kind, usize)> {
    let first = text.chars().next()?;
    let special = ["E'", "e'", "B'", "b'", "X'", "x'"];
    Some(if first.is_whitespace() {
        (Kind::Space, run(text, char::is_whitespace))
    } else if text.starts_with("--") {
        (Kind::Space, run(text, |c| c != '\n'))
    } else if text.starts_with("/*") {
        (Kind::Space, through(text, 2, "*/"))
    } else if special.iter().any(|start| text.starts_with(start)) {
        (
            Kind::Special,
            1 + quoted(&text[1..], '\'', first.eq_ignore_ascii_case(&'e')),
        )
    } else if first == '\'' {
        (Kind::Literal, quoted(text, '\'', false))
    } else if first == '"' {
        (Kind::Word, quoted(text, '"', false))
    } else if let Some(tag) = dollar_tag(text) {
        (Kind::Special, through(text, tag.len(), tag))
    } else if first.is_alphabetic() || first == '_' {
        (
            Kind::Word,
            run(text, |c| c.is_alphanumeric() || c == '_' || c == '$'),
        )
    } else if first.is_ascii_digit() {
        (Kind::Number, run(text, |c| c.is_ascii_alphanumeric() || c == '.'))
    } else if "()[],;.".contains(first) {
        (Kind::Mark, 1)
    } else {
        let end = run(text, |c| "+-*/<>=~!@#%^&|`?:$".contains(c)).max(first.len_utf8());
        let comment = text[1..end].find("--").map(|at| at + 1);
        (Kind::Operator, comment.unwrap_or(end))
    })
}

/// The length of what satisfies a condition, at the beginning.
fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// The length of what begins with `skip` bytes and ends with `end`.
fn through(text: &str, skip: usize, end: &str) -> usize {
    let found = text[skip..].find(end);
    skip + found.unwrap_or_else(|| panic!("a literal or comment that does not end: {text}")) + end.len()
}

/// `$$` or `$tag$`.
fn dollar_tag(text: &str) -> Option<&str> {
    let name = run(text.strip_prefix('$')?, |c| c.is_alphabetic() || c == '_');
    text[1 + name..].starts_with('$').then(|| &text[..name + 2])
}

/// The length of what stands in quotes; a quote within is doubled, or has a backslash before it.
fn quoted(text: &str, quote: char, backslashes: bool) -> usize {
    let mut within = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = within.next() {
        if c == quote {
            if within.next_if(|(_, next)| *next == quote).is_none() {
                return at + 1;
            }
        } else if backslashes && c == '\\' {
            within.next();
        }
    }
    panic!("a quote that does not end: {text}");
}
