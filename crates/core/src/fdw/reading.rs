//! Reads all that an [`Access`] says, in windows.
//!
//! The caller sends what [`Reading::ask`] appends, feeds the answers to [`Reading::answer`] in their order, and takes
//! rows with [`Reading::next_row`]. When all answers are in it may ask again at once, so that Redis works on the next
//! window while the rows of this one are handed out.
//!
//! Guarantees: memory is bounded by the rows of two windows, each of which aims at [`WINDOW_BYTES`] and has at most
//! `batch_size` elements (a small collection, which Redis keeps in one piece, comes whole, and so does the first
//! window, before the elements' size is known); no element comes twice from one cursor (see [`super::seen`]); what
//! is there from beginning to end is returned. What does not hold: a snapshot. Elements that come or go meanwhile
//! may be returned or not, and a list that is pushed to or popped from meanwhile shifts under its reader.
use std::{collections::VecDeque, fmt, rc::Rc};

use super::{
    Kind,
    element::{Element, Row},
    filter::{Access, KeyAccess, Within},
    glob,
    resp::{Commands, Reply},
    seen::Seen,
    step::{self, Key, Step, Unexpected},
};

/// What a window should come to.
pub const WINDOW_BYTES: usize = 1 << 20;
/// How many elements are asked for before their size is known.
const FIRST_WINDOW: usize = 200;
/// The fewest elements that are asked for at a time.
const LEAST: usize = 10;
/// How many keys are read at a time.
const KEYS_AT_ONCE: usize = 100;

/// Why reading cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadProblem {
    /// The table's one key holds another type.
    OtherType,
    /// Redis refused a command; the text begins with its code.
    Refused(String),
    /// The answer is none that the command has.
    Unexpected,
}

impl fmt::Display for ReadProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherType => f.write_str("the key holds another type"),
            Self::Refused(text) => f.write_str(text),
            Self::Unexpected => f.write_str("Redis sent another answer than its command has"),
        }
    }
}

impl From<Unexpected> for ReadProblem {
    fn from(_: Unexpected) -> Self {
        Self::Unexpected
    }
}

/// What a query needs of a table.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    pub kind: Kind,
    /// Whether the time to live is to be asked for.
    pub ttl: bool,
    /// The most elements that are asked for at a time.
    pub batch_size: usize,
    /// Whether a key of another type is an error, rather than none of the table's.
    pub one_key: bool,
}

/// A key that is being read.
#[derive(Debug)]
struct Work {
    key: Key,
    step: Step,
    /// What TTL has answered.
    ttl: Option<i64>,
    seen: Option<Seen>,
}

/// What an answer is to.
#[derive(Debug)]
enum Asked {
    Keys,
    Ttl,
    Values(Vec<Key>),
    Window(Work, usize),
}

/// Where keys come from.
#[derive(Debug)]
enum Source {
    Ended,
    Scan {
        cursor: Vec<u8>,
        scanned: Vec<u8>,
        patterns: Vec<Vec<u8>>,
        seen: Option<Seen>,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Reading {
    needs: Needs,
    within: Within,
    source: Source,
    /// Keys of which nothing has been asked.
    keys: VecDeque<Key>,
    /// Keys that are read in part.
    begun: VecDeque<Work>,
    asked: VecDeque<Asked>,
    ttls: VecDeque<i64>,
    rows: VecDeque<Row>,
    window: usize,
    /// The fewest elements that are asked of a key at a time.
    least: usize,
}

impl Reading {
    /// Begins to read; nothing is asked yet.
    pub fn new(needs: Needs, access: Access) -> Self {
        let (keys, source) = match access.keys {
            KeyAccess::Listed(keys) => (keys.into_iter().map(Rc::from).collect(), Source::Ended),
            KeyAccess::Scanned { scanned, patterns } => {
                let source = Source::Scan {
                    cursor: b"0".to_vec(),
                    scanned,
                    patterns,
                    seen: None,
                };
                (VecDeque::new(), source)
            }
        };
        Self {
            needs,
            within: access.within,
            source,
            keys,
            begun: VecDeque::new(),
            asked: VecDeque::new(),
            ttls: VecDeque::new(),
            rows: VecDeque::new(),
            window: FIRST_WINDOW.min(needs.batch_size),
            least: LEAST,
        }
    }

    /// The same with another first window, for what is known to be small.
    #[must_use]
    pub fn with_window(mut self, window: usize) -> Self {
        self.window = window.clamp(10, self.needs.batch_size.max(10));
        self
    }

    /// How many elements the next window is to have.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Asks for no more than these at first: more are wanted only if some of them are not.
    #[must_use]
    pub fn beginning_with(mut self, rows: usize) -> Self {
        self.window = self.window.min(rows.max(1));
        self.least = 1;
        self
    }

    /// How many rows have been read and not been taken.
    pub fn at_hand(&self) -> usize {
        self.rows.len()
    }

    /// The next row of those that have been read.
    pub fn next_row(&mut self) -> Option<Row> {
        self.rows.pop_front()
    }

    /// Whether answers are still to come.
    pub fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Appends the next commands, once all that were asked before are answered. None: all has been read.
    pub fn ask(&mut self, commands: &mut Commands) {
        let room = KEYS_AT_ONCE.min(self.window);
        if self.needs.kind == Kind::String {
            self.ask_values(commands);
        } else {
            while self.begun.len() < room
                && let Some(key) = self.keys.pop_front()
            {
                if let Some(step) = Step::first(self.needs.kind, &self.within) {
                    self.begun.push_back(Work {
                        key,
                        step,
                        ttl: None,
                        seen: None,
                    });
                }
            }
            // Each key's share of the window; what is begun is first brought to its end.
            let count = (self.window / self.begun.len().max(1)).max(self.least);
            for work in std::mem::take(&mut self.begun) {
                self.ask_window(work, count, commands);
            }
        }
        if self.keys.len() < room {
            self.ask_keys(commands);
        }
    }

    fn ask_ttl(&mut self, key: &[u8], commands: &mut Commands) {
        commands.push(&[b"TTL", key]);
        self.asked.push_back(Asked::Ttl);
    }

    fn ask_values(&mut self, commands: &mut Commands) {
        let count = self.keys.len().min(self.window);
        if count == 0 {
            return;
        }
        let keys: Vec<Key> = self.keys.drain(..count).collect();
        if self.needs.ttl {
            keys.iter().for_each(|key| self.ask_ttl(key, commands));
        }
        // GET tells of another type, MGET counts it as none.
        commands.begin(keys.len() + 1);
        commands.word(if self.needs.one_key { b"GET" } else { b"MGET" });
        keys.iter().for_each(|key| commands.word(key));
        self.asked.push_back(Asked::Values(keys));
    }

    fn ask_window(&mut self, work: Work, count: usize, commands: &mut Commands) {
        if self.needs.ttl && work.ttl.is_none() {
            self.ask_ttl(&work.key.clone(), commands);
        }
        work.step
            .ask(self.needs.kind, &work.key, &self.within, count, commands);
        self.asked.push_back(Asked::Window(work, count));
    }

    fn ask_keys(&mut self, commands: &mut Commands) {
        let Source::Scan { cursor, scanned, .. } = &self.source else {
            return;
        };
        let count = self.window.max(KEYS_AT_ONCE).to_string();
        let kind = self.needs.kind.name().as_bytes();
        commands.push(&[
            b"SCAN",
            cursor,
            b"MATCH",
            scanned,
            b"COUNT",
            count.as_bytes(),
            b"TYPE",
            kind,
        ]);
        self.asked.push_back(Asked::Keys);
    }

    /// Takes the next answer.
    ///
    /// # Errors
    /// Reading cannot go on. Answers that are still to come are nobody's then.
    pub fn answer(&mut self, reply: Reply) -> Result<(), ReadProblem> {
        let asked = self.asked.pop_front().ok_or(ReadProblem::Unexpected)?;
        if let Reply::Error(text) = &reply {
            return self.refused(asked, text);
        }
        match (asked, reply) {
            (Asked::Ttl, Reply::Integer(seconds)) => self.ttls.push_back(seconds),
            (Asked::Keys, Reply::Array(parts)) => self.take_keys(parts)?,
            (Asked::Values(keys), Reply::Array(values)) => self.take_values(keys, values)?,
            (Asked::Values(keys), value) => self.take_values(keys, vec![value])?,
            (Asked::Window(work, count), reply) => self.take_window(work, count, reply)?,
            _ => return Err(ReadProblem::Unexpected),
        }
        Ok(())
    }

    fn refused(&mut self, asked: Asked, text: &str) -> Result<(), ReadProblem> {
        if !text.starts_with("WRONGTYPE") {
            return Err(ReadProblem::Refused(text.to_string()));
        }
        if self.needs.one_key {
            return Err(ReadProblem::OtherType);
        }
        // A key that holds another type is none of the table's.
        if let Asked::Window(Work { ttl: None, .. }, _) = asked
            && self.needs.ttl
        {
            self.ttls.pop_front();
        }
        Ok(())
    }

    fn take_keys(&mut self, parts: Vec<Reply>) -> Result<(), ReadProblem> {
        let (next, found) = step::cursor_and_found(parts)?;
        let Source::Scan {
            cursor,
            patterns,
            seen,
            ..
        } = &mut self.source
        else {
            return Err(ReadProblem::Unexpected);
        };
        let once = next.is_none() && seen.is_none();
        for key in found {
            let Reply::Bulk(key) = key else {
                return Err(ReadProblem::Unexpected);
            };
            let matches = patterns.iter().all(|pattern| glob::matches(pattern, &key));
            if matches && (once || seen.get_or_insert_default().is_new(&key)) {
                self.keys.push_back(key.into());
            }
        }
        match next {
            Some(next) => *cursor = next,
            None => self.source = Source::Ended,
        }
        Ok(())
    }

    fn take_values(&mut self, keys: Vec<Key>, values: Vec<Reply>) -> Result<(), ReadProblem> {
        if keys.len() != values.len() {
            return Err(ReadProblem::Unexpected);
        }
        let mut bytes = 0;
        let count = keys.len();
        for (key, value) in keys.into_iter().zip(values) {
            let ttl = if self.needs.ttl {
                self.ttls.pop_front()
            } else {
                None
            };
            match value {
                Reply::Nil => {}
                Reply::Bulk(value) => {
                    bytes += key.len() + value.len();
                    self.rows.push_back(Row {
                        key,
                        ttl: ttl.unwrap_or(GONE),
                        element: Element::Value(value),
                    });
                }
                _ => return Err(ReadProblem::Unexpected),
            }
        }
        self.adapt(count, bytes);
        Ok(())
    }

    fn take_window(&mut self, work: Work, count: usize, reply: Reply) -> Result<(), ReadProblem> {
        let Work {
            key,
            step,
            mut ttl,
            mut seen,
        } = work;
        if self.needs.ttl && ttl.is_none() {
            ttl = self.ttls.pop_front();
        }
        let window = step.take(self.needs.kind, &self.within, count, reply)?;
        let (mut bytes, found) = (0, window.elements.len());
        // An answer that is the whole collection, or all that was asked for by name, repeats nothing.
        let once = window.next.is_none() && seen.is_none() || matches!(self.within, Within::Names(_));
        for element in window.elements {
            bytes += element.size();
            let new =
                once || step::identity(&element).is_none_or(|name| seen.get_or_insert_default().is_new(name));
            if new {
                self.rows.push_back(Row {
                    key: key.clone(),
                    ttl: ttl.unwrap_or(GONE),
                    element,
                });
            }
        }
        self.adapt(found, bytes);
        if let Some(step) = window.next {
            self.begun.push_back(Work { key, step, ttl, seen });
        }
        Ok(())
    }

    /// Makes the next window as large as elements of this size allow.
    fn adapt(&mut self, count: usize, bytes: usize) {
        if let Some(each) = bytes.checked_div(count) {
            self.window = (WINDOW_BYTES / each.max(1)).clamp(LEAST, self.needs.batch_size.max(LEAST));
        }
    }
}

/// What TTL answers for a key that is not there.
const GONE: i64 = -2;

#[cfg(test)]
mod tests;
