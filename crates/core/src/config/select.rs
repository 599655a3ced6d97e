//! `SELECT <columns> FROM <table>`.
//!
//! Three passes: the scanner finds where the SELECT ends; its tokens are searched for clauses that a mapping
//! cannot have, so that each has its own error even in broken SQL; `sqlparser` parses the rest, and its tree
//! must hold nothing but plain columns and one plain table.
//!
//! Hostile text: `sqlparser` recurses, and dropping a long chain of operators recurses as deep as the chain
//! is long. A plain list has one token per comma, so everything beyond that is counted and bounded before
//! the parser sees it; nesting is bounded too.

mod tree;

use sqlparser::ast::Query;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::Columns;
use super::error::{Clause, Fault, Found, Problem};
use super::names;
use super::scan::{Cursor, is_name_start, is_space};

/// What the SELECT says.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) schema: String,
    pub(super) table: String,
    /// Where the table stands, as a byte offset in the list.
    pub(super) table_at: usize,
    pub(super) columns: Columns,
}

/// The most tokens beyond those of a plain list of columns. `SELECT a FROM s.t` has six.
const MAX_EXTRA_TOKENS: usize = 64;

/// The deepest nesting of parentheses and brackets; a mapping needs none.
const MAX_NESTING: usize = 4;

/// How deep sqlparser may recurse: enough to tell what an expression is, little enough for the stack of a
/// backend, also in a debug build, where one level takes 100 kB.
const MAX_RECURSION: usize = 8;

/// Reads the SELECT and leaves the cursor at WITH, at the `;` behind the entry, or at the end of the list.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Relation, Fault> {
    cursor.skip_space();
    let start = cursor.at();
    let first = cursor.found();
    let word = names::fold(cursor.take_word());
    match word.as_str() {
        "select" => {}
        "with" => return Err(clause_at(start, Clause::With)),
        _ => {
            return Err(Problem::ExpectedSelect { found: first }.at(start));
        }
    }
    find_end(cursor)?;
    Text {
        sql: cursor.since(start),
        start,
    }
    .relation(cursor)
}

fn clause_at(at: usize, clause: Clause) -> Fault {
    Problem::ClauseNotAllowed { clause }.at(at)
}

/// Goes to the WITH of the options or to the end of the entry.
fn find_end(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let mut depth = 0_usize;
    let mut after_dot = false;
    while let Some(c) = cursor.peek() {
        let at = cursor.at();
        if is_space(c) {
            cursor.skip_space();
            continue;
        }
        if cursor.rest().starts_with("--") || cursor.rest().starts_with("/*") {
            return Err(Problem::Comment.at(at));
        }
        match c {
            ';' => return Ok(()),
            '\'' | '"' => {
                cursor.take_quoted(c)?;
            }
            _ if is_name_start(c) => {
                // SQL lets any word follow a dot: `public.with` is a table.
                if depth == 0 && !after_dot && cursor.peek_word().eq_ignore_ascii_case("with") {
                    return Ok(());
                }
                cursor.take_word();
            }
            c => {
                match c {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                cursor.bump();
            }
        }
        after_dot = c == '.';
    }
    Ok(())
}

/// The text of a SELECT and its byte offset in the list.
struct Text<'a> {
    sql: &'a str,
    start: usize,
}

impl Text<'_> {
    /// The byte offset in the list of sqlparser's line and column, which count characters from 1.
    fn at(&self, location: Location) -> usize {
        let mut line = 1;
        let mut column = 1;
        for (offset, c) in self.sql.char_indices() {
            if (line, column) == (location.line, location.column) {
                return self.start + offset;
            }
            if c == '\n' {
                line += 1;
                column = 1;
            } else {
                column += 1;
            }
        }
        self.start + self.sql.trim_end().len()
    }

    fn relation(&self, cursor: &Cursor<'_>) -> Result<Relation, Fault> {
        let mut tokens = self.tokens()?;
        let layout = Layout::of(&tokens);
        self.refuse_clauses(&tokens, &layout)?;
        self.refuse_reserved_words(&tokens)?;
        let Some(from) = layout.from else {
            let found = if layout.depth_at_end > 0 {
                Found::End
            } else {
                cursor.found()
            };
            let at = self.start + self.sql.trim_end().len();
            return Err(Problem::NoTable { found }.at(at));
        };
        if from == 1 {
            return Err(self.fault(&tokens[from], Problem::NoColumns));
        }
        let table_at = tokens
            .get(from + 1)
            .map_or(self.start + self.sql.len(), |t| self.at(t.span.start));
        make_plain_words_names(&mut tokens);
        let query = self.parse(tokens.clone())?;
        let checked = tree::Checked {
            text: self,
            tokens: &tokens,
            layout: &layout,
            table_at,
        };
        checked.query(query)
    }

    fn fault(&self, token: &TokenWithSpan, problem: Problem) -> Fault {
        problem.at(self.at(token.span.start))
    }

    /// The tokens without white space; bounded in what the parser could make of them.
    fn tokens(&self) -> Result<Vec<TokenWithSpan>, Fault> {
        let dialect = PostgreSqlDialect {};
        let mut tokens = Tokenizer::new(&dialect, self.sql)
            .tokenize_with_location()
            .map_err(|error| {
                Problem::SelectSyntax {
                    message: error.message,
                }
                .at(self.at(error.location))
            })?;
        tokens.retain(|t| !matches!(t.token, Token::Whitespace(_)));
        let commas = tokens.iter().filter(|t| t.token == Token::Comma).count();
        if tokens.len() > 2 * commas + MAX_EXTRA_TOKENS {
            return Err(Problem::TooComplex.at(self.start));
        }
        let mut depth = 0;
        for token in &tokens {
            depth = depth_behind(depth, &token.token);
            if depth > MAX_NESTING {
                return Err(self.fault(token, Problem::TooComplex));
            }
        }
        Ok(tokens)
    }

    fn refuse_clauses(&self, tokens: &[TokenWithSpan], layout: &Layout) -> Result<(), Fault> {
        let names = lone_words(tokens);
        for &index in &layout.outer_words {
            let token = &tokens[index];
            // `FROM order` begins no clause: a name stands there, and is told to be a reserved word.
            if names.binary_search(&index).is_ok()
                && !matches!(keyword(token), Some(Keyword::ONLY | Keyword::LATERAL))
            {
                continue;
            }
            let in_from = layout.from.is_some_and(|from| index > from);
            let problem = match keyword(token) {
                Some(Keyword::ONLY) => Problem::Only,
                Some(Keyword::AS) if in_from => Problem::TableAlias,
                Some(Keyword::AS) => Problem::ColumnAlias {
                    column: layout.item_of(index),
                },
                Some(word) => match clause_of(word) {
                    Some(clause) => Problem::ClauseNotAllowed { clause },
                    None => continue,
                },
                None => continue,
            };
            return Err(self.fault(token, problem));
        }
        Ok(())
    }

    /// `SELECT user FROM t` is not a column called user.
    fn refuse_reserved_words(&self, tokens: &[TokenWithSpan]) -> Result<(), Fault> {
        for index in lone_words(tokens) {
            if let Token::Word(word) = &tokens[index].token
                && !after_dot(tokens, index)
                && names::is_reserved(&names::fold(&word.value))
            {
                let problem = Problem::ReservedWord {
                    word: word.value.clone(),
                };
                return Err(self.fault(&tokens[index], problem));
            }
        }
        Ok(())
    }

    fn parse(&self, tokens: Vec<TokenWithSpan>) -> Result<Query, Fault> {
        let dialect = PostgreSqlDialect {};
        let mut parser = Parser::new(&dialect)
            .with_recursion_limit(MAX_RECURSION)
            .with_tokens_with_locations(tokens);
        let query = parser.parse_query().map_err(|error| self.syntax(error))?;
        let next = parser.peek_token();
        if next.token != Token::EOF {
            let message = format!("unexpected {}", next.token);
            return Err(self.fault(&next, Problem::SelectSyntax { message }));
        }
        Ok(*query)
    }

    /// sqlparser puts the place at the end of its message.
    fn syntax(&self, error: ParserError) -> Fault {
        let message = match error {
            ParserError::RecursionLimitExceeded => {
                return Problem::TooComplex.at(self.start);
            }
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        };
        let (said, place) = message.rsplit_once(" at Line: ").unwrap_or((&message, ""));
        let location = place.split_once(", Column: ").and_then(|(line, column)| {
            Some(Location {
                line: line.parse().ok()?,
                column: column.parse().ok()?,
            })
        });
        let at = location.map_or(self.start + self.sql.trim_end().len(), |location| {
            self.at(location)
        });
        Problem::SelectSyntax {
            message: said.to_owned(),
        }
        .at(at)
    }
}

/// How deep what follows `token` stands in brackets; surplus closing ones are left to the parser.
fn depth_behind(depth: usize, token: &Token) -> usize {
    match token {
        Token::LParen | Token::LBracket | Token::LBrace => depth + 1,
        Token::RParen | Token::RBracket | Token::RBrace => depth.saturating_sub(1),
        _ => depth,
    }
}

/// The keyword that an unquoted word is.
fn keyword(token: &TokenWithSpan) -> Option<Keyword> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.keyword),
        _ => None,
    }
}

/// The clause that begins with a word. All of these are reserved in PostgreSQL: none can be a column's or a
/// table's name without quotes.
fn clause_of(word: Keyword) -> Option<Clause> {
    Some(match word {
        Keyword::DISTINCT => Clause::Distinct,
        Keyword::ALL => Clause::All,
        Keyword::INTO => Clause::Into,
        Keyword::WHERE => Clause::Where,
        Keyword::JOIN
        | Keyword::NATURAL
        | Keyword::CROSS
        | Keyword::INNER
        | Keyword::LEFT
        | Keyword::RIGHT
        | Keyword::FULL => Clause::Join,
        Keyword::GROUP => Clause::GroupBy,
        Keyword::HAVING => Clause::Having,
        Keyword::WINDOW => Clause::Window,
        Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => Clause::SetOperation,
        Keyword::ORDER => Clause::OrderBy,
        Keyword::LIMIT | Keyword::OFFSET | Keyword::FETCH => Clause::Limit,
        Keyword::FOR => Clause::Locking,
        Keyword::TABLESAMPLE => Clause::TableSample,
        Keyword::LATERAL => Clause::Lateral,
        _ => return None,
    })
}

fn after_dot(tokens: &[TokenWithSpan], index: usize) -> bool {
    index > 0 && tokens[index - 1].token == Token::Period
}

/// Unquoted words that can only be names where they stand: alone between SELECT, commas and FROM, behind
/// FROM, or behind a dot.
fn lone_words(tokens: &[TokenWithSpan]) -> Vec<usize> {
    let is = |index: usize, expected: Keyword| tokens.get(index).and_then(keyword) == Some(expected);
    let is_comma = |index: usize| tokens.get(index).is_some_and(|t| t.token == Token::Comma);
    let mut lone = Vec::new();
    for index in 1..tokens.len() {
        if keyword(&tokens[index]).is_none() {
            continue;
        }
        let begins = (index == 1 && is(0, Keyword::SELECT)) || is_comma(index - 1);
        let ends = is_comma(index + 1) || is(index + 1, Keyword::FROM);
        if (begins && ends) || is(index - 1, Keyword::FROM) || after_dot(tokens, index) {
            lone.push(index);
        }
    }
    lone
}

/// Takes the keyword off words that are names: sqlparser reads `position`, `interval` and others as the
/// beginning of an expression, where PostgreSQL reads a column.
fn make_plain_words_names(tokens: &mut [TokenWithSpan]) {
    for index in lone_words(tokens) {
        if let Token::Word(word) = &mut tokens[index].token {
            word.keyword = Keyword::NoKeyword;
        }
    }
}

/// Where things stand in the token list.
struct Layout {
    /// The first FROM outside parentheses.
    from: Option<usize>,
    /// The first token of each item of the SELECT list.
    items: Vec<usize>,
    /// Unquoted words outside parentheses that do not follow a dot.
    outer_words: Vec<usize>,
    depth_at_end: usize,
}

impl Layout {
    fn of(tokens: &[TokenWithSpan]) -> Self {
        let mut layout = Layout {
            from: None,
            items: vec![1],
            outer_words: Vec::new(),
            depth_at_end: 0,
        };
        for (index, token) in tokens.iter().enumerate() {
            layout.depth_at_end = depth_behind(layout.depth_at_end, &token.token);
            match token.token {
                _ if layout.depth_at_end > 0 => {}
                Token::Comma if layout.from.is_none() => layout.items.push(index + 1),
                Token::Word(_) if keyword(token).is_some() && !after_dot(tokens, index) => {
                    layout.outer_words.push(index);
                    if layout.from.is_none() && keyword(token) == Some(Keyword::FROM) {
                        layout.from = Some(index);
                    }
                }
                _ => {}
            }
        }
        layout
    }

    /// The item, counted from 1, that the token at `index` is part of.
    fn item_of(&self, index: usize) -> usize {
        self.items.iter().filter(|start| **start <= index).count()
    }
}
