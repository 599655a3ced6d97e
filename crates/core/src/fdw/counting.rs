//! Counts the rows of an [`Access`] without reading them: Redis knows how large a collection is, and how many of a
//! zset's members have scores of a range.
//!
//! As with a [`super::Reading`], the caller sends what [`Counting::ask`] appends and feeds in the answers in their
//! order. Memory is bounded: keys are counted in portions, those of a SCAN as they come, none twice.
//!
//! Does not: see to it that the access is exact ([`Access::exact`]); what it would read is counted.
use std::collections::VecDeque;

use super::{
    Kind,
    filter::{Access, KeyAccess, Within},
    glob,
    interval::Scores,
    reading::ReadProblem,
    resp::{Commands, Reply},
    seen::Seen,
    step,
};

/// How many keys are counted at a time, and looked at in a step of a SCAN.
const KEYS_AT_ONCE: usize = 1_000;

/// The command for the size of a collection.
pub fn size(kind: Kind) -> &'static str {
    match kind {
        // There is one row, if the key holds a string.
        Kind::String => "TYPE",
        Kind::Hash => "HLEN",
        Kind::List => "LLEN",
        Kind::Set => "SCARD",
        Kind::Zset => "ZCARD",
        Kind::Stream => "XLEN",
    }
}

/// A SCAN that is not at its end.
#[derive(Debug)]
struct Cursor {
    cursor: Vec<u8>,
    scanned: Vec<u8>,
    patterns: Vec<Vec<u8>>,
    seen: Seen,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Keys,
    Size,
}

/// See the module.
#[derive(Debug)]
pub struct Counting {
    kind: Kind,
    /// Whether a key of another type is an error, rather than none of the table's.
    one_key: bool,
    scores: Option<Scores>,
    keys: VecDeque<Vec<u8>>,
    scan: Option<Cursor>,
    asked: VecDeque<Asked>,
    total: u64,
}

impl Counting {
    /// Whether an access with these conditions on what is in a key can be counted.
    pub fn takes(within: &Within) -> bool {
        matches!(within, Within::All | Within::Scores(_))
    }

    /// Begins to count; nothing is asked yet.
    pub fn new(kind: Kind, one_key: bool, access: Access) -> Self {
        let scores = match access.within {
            Within::Scores(scores) => Some(scores),
            _ => None,
        };
        let (keys, scan) = match access.keys {
            KeyAccess::Listed(keys) => (keys.into(), None),
            KeyAccess::Scanned { scanned, patterns } => {
                let cursor = Cursor {
                    cursor: b"0".to_vec(),
                    scanned,
                    patterns,
                    seen: Seen::default(),
                };
                (VecDeque::new(), Some(cursor))
            }
        };
        Self {
            kind,
            one_key,
            scores,
            keys,
            scan,
            asked: VecDeque::new(),
            total: 0,
        }
    }

    /// How many rows there are, once nothing more is asked.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether answers are still to come.
    pub fn is_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Appends the next commands, once all that were asked before are answered. None: all has been counted.
    pub fn ask(&mut self, commands: &mut Commands) {
        let count = self.keys.len().min(KEYS_AT_ONCE);
        for key in self.keys.drain(..count) {
            match &self.scores {
                Some(scores) => {
                    commands.push(&[b"ZCOUNT", &key, &scores.low.to_text(), &scores.high.to_text()]);
                }
                None => commands.push(&[size(self.kind).as_bytes(), &key]),
            }
            self.asked.push_back(Asked::Size);
        }
        if self.keys.is_empty()
            && let Some(Cursor { cursor, scanned, .. }) = &self.scan
        {
            let count = KEYS_AT_ONCE;
            let kind = Some(self.kind);
            step::push_scan(commands, cursor, scanned, count, kind);
            self.asked.push_back(Asked::Keys);
        }
    }

    /// Takes the next answer.
    ///
    /// # Errors
    /// Counting cannot go on. Answers that are still to come are nobody's then.
    pub fn answer(&mut self, reply: Reply) -> Result<(), ReadProblem> {
        let asked = self.asked.pop_front().ok_or(ReadProblem::Unexpected)?;
        match (asked, reply) {
            (_, Reply::Error(text)) if text.starts_with("WRONGTYPE") => {
                if self.one_key {
                    return Err(ReadProblem::OtherType);
                }
            }
            (_, Reply::Error(text)) => return Err(ReadProblem::Refused(text)),
            (Asked::Keys, Reply::Array(parts)) => self.take_keys(parts)?,
            (Asked::Size, Reply::Integer(size)) => self.total += u64::try_from(size).unwrap_or(0),
            (Asked::Size, Reply::Status(kind)) => {
                self.total += u64::from(kind == self.kind.name().as_bytes());
            }
            _ => return Err(ReadProblem::Unexpected),
        }
        Ok(())
    }

    fn take_keys(&mut self, parts: Vec<Reply>) -> Result<(), ReadProblem> {
        let (next, found) = step::cursor_and_found(parts)?;
        let scan = self.scan.as_mut().ok_or(ReadProblem::Unexpected)?;
        for key in found {
            let key = key.into_bytes().ok_or(ReadProblem::Unexpected)?;
            let matches = scan.patterns.iter().all(|pattern| glob::matches(pattern, &key));
            if !matches || !scan.seen.is_new(&key) {
                continue;
            }
            match self.kind {
                // SCAN has looked at the type.
                Kind::String => self.total += 1,
                _ => self.keys.push_back(key),
            }
        }
        match next {
            Some(next) => scan.cursor = next,
            None => self.scan = None,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fdw::{Comparison, Operand, Shape, Target, options::Keys};

    fn page(cursor: &str, keys: &[&str]) -> Reply {
        let bulk = |text: &&str| Reply::Bulk(text.as_bytes().to_vec());
        Reply::Array(vec![bulk(&cursor), Reply::Array(keys.iter().map(bulk).collect())])
    }

    fn key_like(comparison: Comparison, operand: Operand) -> Vec<(Shape, Operand)> {
        let target = Target::Key;
        vec![(Shape { target, comparison }, operand)]
    }

    /// Counts with these answers, which come in this order, and tells how many commands were sent at a time.
    fn count(counting: &mut Counting, answers: Vec<Reply>) -> Result<(u64, Vec<usize>), ReadProblem> {
        let mut answers = answers.into_iter();
        let mut sent = Vec::new();
        loop {
            let mut commands = Commands::default();
            counting.ask(&mut commands);
            if commands.count == 0 {
                assert!(answers.next().is_none());
                return Ok((counting.total(), sent));
            }
            sent.push(commands.count);
            while counting.is_waiting() {
                counting.answer(answers.next().unwrap())?;
            }
        }
    }

    fn of(kind: Kind, keys: &Keys, conditions: Vec<(Shape, Operand)>) -> Counting {
        let access = Access::new(kind, keys, conditions);
        Counting::new(kind, matches!(keys, Keys::One(_)), access)
    }

    #[test]
    fn the_sizes_of_a_pattern_s_keys_are_added_up_and_none_twice() {
        let pattern = Keys::Matching(b"k:*".to_vec());
        let answers = vec![
            page("7", &["k:a", "other", "k:b"]),
            Reply::Integer(3),
            Reply::Integer(4),
            page("0", &["k:b", "k:c"]),
            // It has become something else meanwhile.
            Reply::Error("WRONGTYPE it is".to_string()),
        ];
        let counted = count(&mut of(Kind::Hash, &pattern, vec![]), answers);
        assert_eq!(counted, Ok((7, vec![1, 3, 1])));
    }

    #[test]
    fn strings_are_counted_by_their_keys() {
        let pattern = Keys::Matching(b"k:*".to_vec());
        let found = vec![page("0", &["k:a", "k:b", "k:a"])];
        let counted = count(&mut of(Kind::String, &pattern, vec![]), found);
        assert_eq!(counted, Ok((2, vec![1])));
        let keys = Operand::Many(vec![b"k:a".to_vec(), b"k:b".to_vec(), b"x".to_vec()]);
        let conditions = key_like(Comparison::Any, keys);
        let types = vec![Reply::Status(b"string".to_vec()), Reply::Status(b"none".to_vec())];
        assert_eq!(
            count(&mut of(Kind::String, &pattern, conditions), types),
            Ok((1, vec![2]))
        );
    }

    #[test]
    fn a_range_of_scores_is_zcount() {
        let shape = Shape {
            target: Target::Score,
            comparison: Comparison::Greater,
        };
        let conditions = vec![(shape, Operand::One(b"1.5".to_vec()))];
        let mut counting = of(Kind::Zset, &Keys::One(b"z".to_vec()), conditions);
        let mut commands = Commands::default();
        counting.ask(&mut commands);
        assert_eq!(
            commands.bytes,
            b"*4\r\n$6\r\nZCOUNT\r\n$1\r\nz\r\n$4\r\n(1.5\r\n$3\r\ninf\r\n"
        );
        counting.answer(Reply::Integer(9)).unwrap();
        assert_eq!(counting.total(), 9);
    }

    #[test]
    fn another_type_under_the_one_key_is_told_and_so_is_what_redis_refuses() {
        let one = Keys::One(b"k".to_vec());
        let wrong = vec![Reply::Error("WRONGTYPE it is".to_string())];
        let refused = vec![Reply::Error("LOADING it is".to_string())];
        assert_eq!(
            count(&mut of(Kind::Set, &one, vec![]), wrong),
            Err(ReadProblem::OtherType)
        );
        assert_eq!(
            count(&mut of(Kind::Set, &one, vec![]), refused),
            Err(ReadProblem::Refused("LOADING it is".to_string()))
        );
        assert_eq!(
            count(&mut of(Kind::Set, &one, vec![]), vec![Reply::Nil]),
            Err(ReadProblem::Unexpected)
        );
    }
}
