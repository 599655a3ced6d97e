//! Reads all that an [`Access`] says, in windows.
//!
//! The caller sends what [`Reading::ask`] appends, feeds the answers to [`Reading::answer`] in their order, and takes
//! rows with [`Reading::next_row`]. When all answers are in it may ask again at once, so that Redis works on the next
//! window while the rows of this one are handed out. Where it shows [`Reading::foresee`] the beginning of an answer,
//! Redis works on the next window while this one is still being read.
//!
//! Guarantees: memory is bounded by the rows of two windows, each of which aims at [`WINDOW_BYTES`] and has at most
//! `batch_size` elements (a small collection, which Redis keeps in one piece, comes whole, and the first
//! two windows are asked for before the elements' size is known); no element comes twice from one cursor (see [`super::seen`]); what
//! is there from beginning to end is returned. What does not hold: a snapshot. Elements that come or go meanwhile
//! may be returned or not, and a list that is pushed to or popped from meanwhile shifts under its reader.
use std::{collections::VecDeque, fmt, rc::Rc};

use super::{
    Kind,
    element::Row,
    filter::{Access, KeyAccess, Within},
    resp::{Commands, Reply},
    seen::Seen,
    step::{self, Key, Step, Unexpected},
};
use rows::Rows;
use window::Window;

pub use window::WINDOW_BYTES;

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
    seen: Option<Box<Seen>>,
}

/// What an answer is to.
#[derive(Debug)]
enum Asked {
    Keys,
    Ttl,
    Values(Vec<Key>),
    Window(Box<Asking>),
}

/// The commands for a key's next elements.
#[derive(Debug)]
struct Asking {
    work: Work,
    count: usize,
    /// How many answers are still to come behind these.
    missing: usize,
    replies: Vec<Reply>,
}

/// Where keys come from.
#[derive(Debug)]
enum Source {
    Ended,
    Scan {
        cursor: Vec<u8>,
        scanned: Vec<u8>,
        patterns: Vec<Vec<u8>>,
        seen: Option<Box<Seen>>,
        /// How many keys Redis looks at in a step, unless a window has more.
        count: usize,
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
    /// Whether the last that was asked is the next window already.
    has_foreseen: bool,
    rows: Rows,
    window: Window,
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
                    count: KEYS_AT_ONCE,
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
            has_foreseen: false,
            rows: Rows::default(),
            window: Window::first(needs),
            least: window::FEWEST,
        }
    }

    /// The same with another first window, for what is known to be small.
    #[must_use]
    pub fn with_window(mut self, window: usize) -> Self {
        self.window.set(window);
        self
    }

    /// How many elements the next window is to have.
    pub fn window(&self) -> usize {
        self.window.count()
    }

    /// Asks for no more than these at first: more are wanted only if some of them are not.
    #[must_use]
    pub fn beginning_with(mut self, rows: usize) -> Self {
        self.window.limit(rows);
        self.least = 1;
        self
    }

    /// How many rows have been read and not been taken.
    pub fn at_hand(&self) -> usize {
        self.rows.len()
    }

    /// The next row of those that have been read.
    pub fn next_row(&mut self) -> Option<Row> {
        self.rows.next()
    }

    /// Whether answers are still to come.
    pub fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Begins with the answers to the window that was asked for last: from now on it is the present one.
    pub fn begin_window(&mut self) {
        self.has_foreseen = false;
    }

    /// Whether answers to the present window are still to come.
    pub fn is_in_window(&self) -> bool {
        self.asked.len() > usize::from(self.has_foreseen)
    }

    /// Whether the next window has been asked for before this one had come.
    pub fn has_foreseen(&self) -> bool {
        self.has_foreseen
    }

    /// Looks at the beginning of the next answer, and appends the next window's command if that is all it takes to know
    /// it: a cursor stands before what it has found. (By a pattern little is found, and the next window depends on how
    /// much.)
    pub fn foresee(&mut self, begun: &[Reply], commands: &mut Commands) {
        let ends_here = self.keys.is_empty() && self.begun.is_empty() && matches!(self.source, Source::Ended);
        let (Some(Reply::Bulk(cursor)), [Asked::Window(asking)], Within::All, true) = (
            begun.first(),
            self.asked.make_contiguous(),
            &self.within,
            ends_here,
        ) else {
            return;
        };
        let ttl = asking.work.ttl.or(self.ttls.front().copied());
        if !matches!(asking.work.step, Step::Scan { .. }) || cursor == b"0" || self.needs.ttl && ttl.is_none()
        {
            return;
        }
        let work = Work {
            key: asking.work.key.clone(),
            step: Step::Scan {
                cursor: cursor.clone(),
            },
            ttl,
            seen: None,
        };
        self.has_foreseen = true;
        self.window.adapt(false);
        self.ask_window(work, self.window.count(), commands);
    }

    /// Appends the next commands, once all that were asked before are answered. None: all has been read.
    pub fn ask(&mut self, commands: &mut Commands) {
        self.window.adapt(matches!(self.within, Within::Matching(_)));
        let room = match self.within {
            // A row each, as strings are.
            Within::Record | Within::Fields(_) => self.window.count(),
            _ => KEYS_AT_ONCE.min(self.window.count()),
        };
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
            let count = (self.window.count() / self.begun.len().max(1)).max(self.least);
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
        let count = self.keys.len().min(self.window.count());
        if count == 0 {
            return;
        }
        let keys: Vec<Key> = self.keys.drain(..count).collect();
        self.window.ask(count);
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
        self.window.ask(count);
        let before = commands.count;
        work.step
            .ask(self.needs.kind, &work.key, &self.within, count, commands);
        self.asked.push_back(Asked::Window(Box::new(Asking {
            work,
            count,
            missing: commands.count - before,
            replies: Vec::new(),
        })));
    }

    fn ask_keys(&mut self, commands: &mut Commands) {
        let Source::Scan {
            cursor,
            scanned,
            count,
            ..
        } = &self.source
        else {
            return;
        };
        let count = self.window.count().max(*count);
        let kind = Some(self.needs.kind);
        step::push_scan(commands, cursor, scanned, count, kind);
        self.asked.push_back(Asked::Keys);
    }
}

mod answers;
mod rows;
mod window;

#[cfg(test)]
pub(super) mod tests;
