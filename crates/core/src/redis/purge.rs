//! A purge: SCAN for the keys of a mapping, UNLINK those that are its own (the last part of rule 7).
//!
//! Guarantees that every key that was there when it began, and that the matcher knows, is deleted by
//! its end: SCAN returns each key that stays in the database for the whole scan. It may delete a newer
//! value too; deleting is always right. Waiting until the ring has gone through the lanes, and holding
//! back what would be stored meanwhile, is up to whoever asks for it.

use ::redis::{Cmd, Pipeline, Value};

use super::engine::PurgeJob;
use super::fault::Cause;
use super::line::Line;
use super::reply::Verdict;

/// How many keys Redis looks at for one answer: about a third of a millisecond of its time.
const SCAN_COUNT: usize = 1000;
/// The most keys in one UNLINK.
const MOST_KEYS: usize = 256;

/// How far a purge has come.
pub(super) struct Purge {
    pub job: PurgeJob,
    cursor: u64,
    pub keys: u64,
}

/// What a step of a purge came to.
pub(super) enum Step {
    More,
    Done,
    /// The server refuses for now: wait, then take the same step again.
    Wait(Cause),
    Refused(Cause),
}

impl Purge {
    pub fn new(job: PurgeJob) -> Self {
        Self {
            job,
            cursor: 0,
            keys: 0,
        }
    }

    /// Begins again: the cursor of a lost connection may be another server's.
    pub fn restart(&mut self) {
        self.cursor = 0;
    }

    /// Looks at one page of keys.
    ///
    /// # Errors
    ///
    /// The connection is lost: `restart` on another one.
    pub async fn step(&mut self, line: &mut Line) -> Result<Step, Cause> {
        let mut scan = Pipeline::with_capacity(1);
        scan.cmd("SCAN")
            .arg(self.cursor)
            .arg("MATCH")
            .arg(&self.job.glob)
            .arg("COUNT")
            .arg(SCAN_COUNT);
        let replies = line.exchange(&scan, 0).await?;
        if let Some(step) = refusal(&replies)? {
            return Ok(step);
        }
        let (cursor, keys) = page(&replies).ok_or(Cause::Protocol {
            expected: "a cursor and keys from SCAN",
        })?;
        let own: Vec<&[u8]> = keys
            .iter()
            .filter_map(key)
            .filter(|key| (self.job.matches)(key))
            .collect();
        if !own.is_empty() {
            let (commands, bytes) = deletions(&own);
            let replies = line.exchange(&commands, bytes).await?;
            self.keys += replies
                .iter()
                .map(|reply| if let Value::Int(n) = reply { *n as u64 } else { 0 })
                .sum::<u64>();
            if let Some(step) = refusal(&replies)? {
                return Ok(step);
            }
        }
        self.cursor = cursor;
        Ok(if cursor == 0 { Step::Done } else { Step::More })
    }
}

fn deletions(keys: &[&[u8]]) -> (Pipeline, usize) {
    let mut commands = Pipeline::with_capacity(keys.len().div_ceil(MOST_KEYS));
    for keys in keys.chunks(MOST_KEYS) {
        let mut unlink = Cmd::new();
        unlink.arg("UNLINK");
        for key in keys {
            unlink.arg(key);
        }
        commands.add_command(unlink);
    }
    (commands, keys.iter().map(|key| key.len()).sum())
}

/// The worst refusal among the answers.
fn refusal(replies: &[Value]) -> Result<Option<Step>, Cause> {
    let mut verdict = Verdict::Done;
    for reply in replies {
        if let Value::ServerError(error) = reply {
            verdict.worsen(Verdict::of(error));
        }
    }
    match verdict {
        Verdict::Done => Ok(None),
        Verdict::Later(cause) => Ok(Some(Step::Wait(cause))),
        Verdict::WrongType(cause) | Verdict::NoMemory(cause) | Verdict::Refused(cause) => {
            Ok(Some(Step::Refused(cause)))
        }
        Verdict::Fatal(cause) => Err(cause),
    }
}

fn page(replies: &[Value]) -> Option<(u64, &[Value])> {
    let [Value::Array(page)] = replies else {
        return None;
    };
    let [cursor, Value::Array(keys)] = page.as_slice() else {
        return None;
    };
    Some((std::str::from_utf8(key(cursor)?).ok()?.parse().ok()?, keys))
}

fn key(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}
