//! The scanner: a position in the list, and the few lexical rules that every part of an entry shares.
//!
//! White space is what PostgreSQL's lexer calls so (five ASCII characters and vertical tab), never
//! Unicode's wider set: a no-break space is a letter in an SQL name and literal text in a template.

use super::error::{Fault, Found, Problem};

/// A place in the list. Offsets are bytes from its beginning and always stand between characters.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// Whether PostgreSQL's lexer takes `c` for white space.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// Whether an unquoted SQL name can begin with `c`.
pub(super) fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

/// Whether an unquoted SQL name can go on with `c`.
pub(super) fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_ascii_digit() || c == '$'
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Cursor { text, at: 0 }
    }

    /// The byte offset in the list.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'a str {
        // `at` only ever moves by whole characters.
        self.text.get(self.at..).unwrap_or("")
    }

    /// The text from `start` up to here.
    pub(super) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or("")
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Takes `expected` if it stands here.
    pub(super) fn take(&mut self, expected: &str) -> bool {
        let stands_here = self.rest().starts_with(expected);
        if stands_here {
            self.at += expected.len();
        }
        stands_here
    }

    /// Takes the characters for which `accept` holds.
    pub(super) fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&accept) {
            self.bump();
        }
        self.since(start)
    }

    pub(super) fn skip_space(&mut self) {
        self.take_while(is_space);
    }

    /// Goes to the first character of the next entry; false at the end of the list.
    pub(super) fn skip_empty_entries(&mut self) -> bool {
        self.take_while(|c| is_space(c) || c == ';');
        self.peek().is_some()
    }

    /// Takes an unquoted SQL name as written, empty if none begins here.
    pub(super) fn take_word(&mut self) -> &'a str {
        if self.peek().is_some_and(is_name_start) {
            self.take_while(is_name_part)
        } else {
            ""
        }
    }

    /// The unquoted SQL name that begins here, empty if none does.
    pub(super) fn peek_word(&self) -> &'a str {
        Cursor {
            text: self.text,
            at: self.at,
        }
        .take_word()
    }

    /// Takes text in `quote`s, which stand doubled for themselves inside. The cursor is at the first one.
    pub(super) fn take_quoted(&mut self, quote: char) -> Result<String, Fault> {
        let opened_at = self.at;
        self.bump();
        let mut inside = String::new();
        loop {
            match self.bump() {
                None => {
                    return Err(Problem::QuoteUnclosed { quote }.at(opened_at));
                }
                Some(c) if c != quote => inside.push(c),
                Some(_) if self.peek() == Some(quote) => {
                    self.bump();
                    inside.push(quote);
                }
                Some(_) => return Ok(inside),
            }
        }
    }

    /// What stands here, for an error that expected something else.
    pub(super) fn found(&self) -> Found {
        Found::at_start_of(self.rest())
    }
}
