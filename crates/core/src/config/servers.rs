//! The list of servers: `pg_redis_cache.servers`, the further places of mappings with the option `server`.
//!
//! ```text
//! <name> => <url> ; ...
//! ```
//!
//! Names are as those of mappings: folded, or exact in quotes. A url is bare, up to white space or `;`, or stands in
//! single quotes, doubled inside.
//!
//! A list is never refused: the urls hold passwords, and PostgreSQL logs a refused value whole. So what can be read
//! works, and the rest is told as [`ServerProblem`]s, without any of the text. An entry that cannot be taken apart
//! ends the reading: what stands behind it may be a piece of its url, and to take that for a name would be to show it.
//! It may itself be a piece of the bare url before it, whose password has a `;`: that is not used either, nor shown.

use std::collections::HashSet;
use std::fmt;

use super::names;
use super::scan::{Cursor, is_space};
use crate::redis::{Address, AddressError};

/// How many servers there can be, the setting `url` among them.
pub const MAX_SERVERS: usize = 16;

/// The name of the server that the setting `url` says; no entry can have it.
pub const DEFAULT_SERVER: &str = "default";

/// The longest list that is read, in bytes.
pub const MAX_SERVER_LIST_BYTES: usize = 64 * 1024;

/// A server of the list.
#[derive(Clone, PartialEq, Eq)]
pub struct ListedServer {
    /// Unique in the list.
    pub name: String,
    /// As it was written, with its password: for the connection alone.
    pub url: String,
}

impl ListedServer {
    /// The url as it may be shown.
    pub fn masked(&self) -> String {
        masked(&self.url)
    }
}

impl fmt::Debug for ListedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} => {}", self.name, self.masked())
    }
}

/// A url as it may be shown, whatever it is.
pub fn masked(url: &str) -> String {
    Address::parse(url).map_or_else(|_| "(not a valid url)".to_owned(), |address| address.masked())
}

/// What is wrong with an entry. Says nothing of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerProblem {
    /// Counted from 1 without the empty ones; 0 where it is the whole list.
    pub entry: usize,
    /// In the whole list, in characters from 1.
    pub character: usize,
    /// What.
    pub fault: ServerFault,
}

/// See [`ServerProblem`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFault {
    /// The list is longer than it may be.
    ListTooLong,
    /// No name where an entry begins.
    ExpectedName,
    /// A name without characters, or longer than PostgreSQL's.
    BadName,
    /// No `=>` behind the name.
    ExpectedArrow,
    /// No url behind `=>`.
    ExpectedUrl,
    /// A quote that is never closed.
    QuoteUnclosed,
    /// Something else than `;` behind the url.
    ExpectedEnd,
    /// The name of the setting `url`.
    Default,
    /// A name that an earlier entry has.
    Twice,
    /// More servers than there can be.
    TooMany,
    /// A url that cannot be read. The server exists all the same.
    Url(AddressError),
    /// A bare url that may go on behind the `;`, where no entry begins. The server exists all the same.
    UrlMayGoOn,
}

impl fmt::Display for ServerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ListTooLong => write!(f, "the list has more than {MAX_SERVER_LIST_BYTES} bytes"),
            Self::ExpectedName => f.write_str("expected a name"),
            Self::BadName => write!(f, "expected a name of 1 to {} bytes", names::MAX_NAME_BYTES),
            Self::ExpectedArrow => f.write_str("expected => after the name"),
            Self::ExpectedUrl => f.write_str("expected a url after =>"),
            Self::QuoteUnclosed => f.write_str("unclosed quote"),
            Self::ExpectedEnd => f.write_str("expected ; or the end of the list after the url"),
            Self::Default => write!(f, "the server \"{DEFAULT_SERVER}\" is the setting url"),
            Self::Twice => f.write_str("an earlier entry has the same name"),
            Self::TooMany => write!(
                f,
                "there can be {} servers beside the setting url",
                MAX_SERVERS - 1
            ),
            Self::Url(error) => write!(f, "the url is not valid: {error}"),
            Self::UrlMayGoOn => f.write_str(
                "the url is not used: it may go on behind the ;, where no entry begins (quote a url that has a ;)",
            ),
        }
    }
}

impl fmt::Display for ServerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            0 => self.fault.fmt(f),
            entry => write!(f, "entry {entry}, character {}: {}", self.character, self.fault),
        }
    }
}

/// What a list says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerList {
    /// Those that can be used, in their order.
    pub servers: Vec<ListedServer>,
    /// What is wrong with the others.
    pub problems: Vec<ServerProblem>,
}

impl ServerList {
    /// Reads a list; see the module for what becomes of one that is wrong.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        let problem = |at: usize, entry, fault| ServerProblem {
            entry,
            character: text.get(..at).unwrap_or(text).chars().count() + 1,
            fault,
        };
        if text.len() > MAX_SERVER_LIST_BYTES {
            list.problems.push(problem(0, 0, ServerFault::ListTooLong));
            return list;
        }
        let mut cursor = Cursor::new(text);
        let mut taken = HashSet::new();
        let mut before: Option<(usize, usize)> = None;
        for entry in 1.. {
            if !cursor.skip_empty_entries() {
                break;
            }
            let begins_at = cursor.at();
            let (server, is_bare) = match read_entry(&mut cursor) {
                Ok(read) => read,
                Err((at, fault)) => {
                    if let Some((index, begins_at)) = before {
                        list.servers[index].url.clear();
                        list.problems
                            .push(problem(begins_at, entry - 1, ServerFault::UrlMayGoOn));
                    }
                    list.problems.push(problem(at, entry, fault));
                    break;
                }
            };
            before = None;
            let fault = if server.name == DEFAULT_SERVER {
                Some(ServerFault::Default)
            } else if !taken.insert(server.name.clone()) {
                Some(ServerFault::Twice)
            } else if list.servers.len() + 1 >= MAX_SERVERS {
                Some(ServerFault::TooMany)
            } else {
                let invalid = Address::parse(&server.url).err();
                before = is_bare.then_some((list.servers.len(), begins_at));
                list.servers.push(server);
                invalid.map(ServerFault::Url)
            };
            list.problems
                .extend(fault.map(|fault| problem(begins_at, entry, fault)));
        }
        list
    }

    /// The url of a server.
    pub fn url_of(&self, name: &str) -> Option<&str> {
        let found = self.servers.iter().find(|server| server.name == name);
        found.map(|server| server.url.as_str())
    }

    /// The list as it may be shown: what cannot be read is left out.
    pub fn masked(&self) -> String {
        let entries = self.servers.iter().map(|server| {
            let name = names::quote_name(&server.name);
            format!("{name} => {}", server.masked())
        });
        entries.collect::<Vec<_>>().join("; ")
    }
}

/// Reads one entry and leaves the cursor at the `;` behind it or at the end of the list. Returns as well whether its
/// url is a bare one.
fn read_entry(cursor: &mut Cursor<'_>) -> Result<(ListedServer, bool), (usize, ServerFault)> {
    let begins_at = cursor.at();
    let name = match cursor.peek() {
        Some(quote @ ('\'' | '"')) => take_quoted(cursor, quote)?,
        _ => match cursor.take_word() {
            "" => return Err((begins_at, ServerFault::ExpectedName)),
            word => names::fold(word),
        },
    };
    let name = names::check(name).map_err(|_| (begins_at, ServerFault::BadName))?;
    cursor.skip_space();
    if !cursor.take("=>") {
        return Err((cursor.at(), ServerFault::ExpectedArrow));
    }
    cursor.skip_space();
    let url_at = cursor.at();
    let is_bare = cursor.peek() != Some('\'');
    let url = match cursor.peek() {
        Some('\'') => take_quoted(cursor, '\'')?,
        _ => cursor.take_while(|c| !is_space(c) && c != ';').to_owned(),
    };
    if url.is_empty() {
        return Err((url_at, ServerFault::ExpectedUrl));
    }
    cursor.skip_space();
    match cursor.peek() {
        None | Some(';') => Ok((ListedServer { name, url }, is_bare)),
        Some(_) => Err((cursor.at(), ServerFault::ExpectedEnd)),
    }
}

fn take_quoted(cursor: &mut Cursor<'_>, quote: char) -> Result<String, (usize, ServerFault)> {
    let opened_at = cursor.at();
    cursor
        .take_quoted(quote)
        .map_err(|_| (opened_at, ServerFault::QuoteUnclosed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names_and_urls(text: &str) -> Vec<(String, String)> {
        let list = ServerList::parse(text);
        assert_eq!(list.problems, Vec::new(), "{text}");
        let pair = |server: ListedServer| (server.name, server.url);
        list.servers.into_iter().map(pair).collect()
    }

    fn problems(text: &str) -> Vec<String> {
        ServerList::parse(text)
            .problems
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn names_fold_and_urls_stand_bare_or_in_quotes() {
        let pairs = [
            ("b", "redis://h/1"),
            ("C d", "redis://:it's;@h"),
            ("e", "redis://h/2"),
        ];
        let text = ";; B=>redis://h/1 ;\"C d\" => 'redis://:it''s;@h';'e' => redis://h/2;";
        let expected: Vec<_> = pairs.map(|(name, url)| (name.to_owned(), url.to_owned())).into();
        assert_eq!(names_and_urls(text), expected);
        assert_eq!(names_and_urls(""), Vec::new());
    }

    #[test]
    fn what_is_wrong_with_an_entry_alone_leaves_the_others() {
        let text =
            "a => redis://h/1; default => redis://h; a => redis://h/2; b => redis//h; c => redis://h/3";
        let list = ServerList::parse(text);
        let names: Vec<&str> = list.servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(list.url_of("a"), Some("redis://h/1"));
        assert_eq!(
            problems(text),
            [
                "entry 2, character 19: the server \"default\" is the setting url",
                "entry 3, character 41: an earlier entry has the same name",
                "entry 4, character 59: the url is not valid: expected redis://, rediss://, redis+unix://, redis-sentinel:// or redis-cluster:// at the beginning",
            ]
        );
    }

    #[test]
    fn an_entry_that_cannot_be_taken_apart_ends_the_list() {
        for (text, problem) in [
            (
                "a => redis://h; => b; c => redis://h/1",
                "entry 2, character 17: expected a name",
            ),
            (
                "a => redis://h; b redis://h; c => redis://h/1",
                "entry 2, character 19: expected => after the name",
            ),
            (
                "a => redis://h; b =>; c => redis://h/1",
                "entry 2, character 21: expected a url after =>",
            ),
            (
                "a => redis://h; b => 'redis://h; c => redis://h/1",
                "entry 2, character 22: unclosed quote",
            ),
            (
                "a => redis://h; b => redis://h redis://i; c => redis://h/1",
                "entry 2, character 32: expected ; or the end of the list after the url",
            ),
            (
                "a => redis://h; '' => redis://h/2",
                "entry 2, character 17: expected a name of 1 to 63 bytes",
            ),
        ] {
            let in_doubt = "entry 1, character 1: the url is not used: it may go on behind the ;, where no entry begins (quote a url that has a ;)";
            assert_eq!(problems(text), [in_doubt, problem], "{text}");
            assert_eq!(
                ServerList::parse(text).masked(),
                "a => (not a valid url)",
                "{text}"
            );
            let quoted = text.replacen("redis://h", "'redis://h'", 1);
            let list = ServerList::parse(&quoted);
            assert_eq!(list.problems.len(), 1, "{quoted}");
            assert_eq!(list.masked(), "a => redis://h:6379/0", "{quoted}");
        }
    }

    #[test]
    fn a_password_with_a_semicolon_is_not_shown_by_halves() {
        let list = ServerList::parse("s => redis://app:4711;x@h/0");
        assert_eq!(list.masked(), "s => (not a valid url)");
        assert!(!format!("{list:?}").contains("4711"));
        // Only that of the entry before.
        let list = ServerList::parse("a => redis://h; s => redis://app:4711; x@h/0");
        assert_eq!(list.masked(), "a => redis://h:6379/0; s => (not a valid url)");
    }

    #[test]
    fn there_are_at_most_fifteen_beside_the_default() {
        let entries: Vec<String> = (1..=17).map(|n| format!("s{n} => redis://h/{n}")).collect();
        let list = ServerList::parse(&entries.join(";"));
        assert_eq!(list.servers.len(), MAX_SERVERS - 1);
        assert_eq!(list.problems.len(), 2);
        assert_eq!(list.problems[0].fault, ServerFault::TooMany);
    }

    #[test]
    fn no_password_is_shown() {
        let text = "a => redis://u:hunter2@h/1; \"B\" => redis//:hunter2@h; c => 'hunter2";
        let list = ServerList::parse(text);
        assert_eq!(
            list.masked(),
            "a => redis://u:***@h:6379/1; \"B\" => (not a valid url)"
        );
        let shown = format!("{list:?} {:?}", problems(text));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    proptest! {
        #[test]
        fn quoted_entries_are_read_back(
            name in "[^\u{0}]{1,15}",
            url in "redis://[a-z0-9:@;'\" ]{0,20}",
        ) {
            prop_assume!(name != DEFAULT_SERVER);
            let text = format!("\"{}\" => '{}'", name.replace('"', "\"\""), url.replace('\'', "''"));
            let list = ServerList::parse(&text);
            prop_assert_eq!(list.url_of(&name), Some(url.as_str()), "{}", text);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}") {
            for problem in ServerList::parse(&text).problems {
                prop_assert!(problem.character <= text.chars().count() + 1);
            }
        }
    }
}
