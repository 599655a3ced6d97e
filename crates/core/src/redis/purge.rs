//! A purge: SCAN for the keys of a mapping, UNLINK those that are its own (the last part of rule 7).
//!
//! Guarantees that every key that was there when it began, and that the matcher knows, is deleted by
//! its end: SCAN returns each key that stays in the database for the whole scan. It may delete a newer
//! value too; deleting is always right. Waiting until the ring has gone through the lanes, and holding
//! back what would be stored meanwhile, is up to whoever asks for it.

use ::redis::{Cmd, Pipeline, Value};

use super::engine::PurgeJob;
use super::fault::Cause;
use super::line::{Line, Topology};
use super::reply::Verdict;

/// How many keys Redis looks at for one answer: about a third of a millisecond of its time.
const SCAN_COUNT: usize = 1000;
/// The most keys in one UNLINK.
const MOST_KEYS: usize = 256;

/// A purge, and how far it has come on a server of its own.
pub(super) struct Purge {
    pub job: PurgeJob,
    pub scan: Scan,
}

/// How far the keys of one server have been looked at.
#[derive(Debug, Default)]
pub(super) struct Scan {
    cursor: u64,
    /// How many keys it has deleted.
    pub keys: u64,
    /// It has come to its end.
    pub is_done: bool,
    /// A key that it had found was not the server's own any more.
    pub was_redirected: bool,
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
            scan: Scan::default(),
        }
    }

    /// Begins again: the cursor of a lost connection may be another server's.
    pub fn restart(&mut self) {
        self.scan.cursor = 0;
    }
}

impl Scan {
    /// Looks at one page of keys.
    ///
    /// # Errors
    ///
    /// The connection is lost: begin again on another one.
    pub async fn step(&mut self, job: &PurgeJob, line: &mut Line) -> Result<Step, Cause> {
        let mut scan = Pipeline::with_capacity(1);
        scan.cmd("SCAN")
            .arg(self.cursor)
            .arg("MATCH")
            .arg(&job.glob)
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
            .filter(|key| (job.matches)(key))
            .collect();
        if !own.is_empty() {
            let (commands, bytes) = deletions(&own, line.topology());
            let replies = line.exchange(&commands, bytes).await?;
            self.keys += replies
                .iter()
                .map(|reply| if let Value::Int(n) = reply { *n as u64 } else { 0 })
                .sum::<u64>();
            self.was_redirected |= replies.iter().any(is_redirection);
            if let Some(step) = refusal(&replies)? {
                return Ok(step);
            }
        }
        self.cursor = cursor;
        self.is_done = cursor == 0;
        Ok(if self.is_done { Step::Done } else { Step::More })
    }
}

/// In a cluster each key is deleted by itself, for the slots of one command must be the same; with ASKING before it,
/// for the key may be one of those of a slot on its way to the server that have arrived there.
fn deletions(keys: &[&[u8]], topology: Topology) -> (Pipeline, usize) {
    let (most, asking) = match topology {
        Topology::Alone => (MOST_KEYS, false),
        Topology::Cluster | Topology::AnyNode => (1, true),
    };
    let mut commands = Pipeline::with_capacity(keys.len().div_ceil(most) * (1 + usize::from(asking)));
    for keys in keys.chunks(most) {
        if asking {
            commands.cmd("ASKING");
        }
        let mut unlink = Cmd::new();
        unlink.arg("UNLINK");
        for key in keys {
            unlink.arg(key);
        }
        commands.add_command(unlink);
    }
    (commands, keys.iter().map(|key| key.len()).sum())
}

fn is_redirection(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if matches!(Verdict::of(error), Verdict::Redirected { .. }))
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
        // A key that has gone to another master since it was found is found there, see `sweep`.
        Verdict::Done | Verdict::Redirected { .. } => Ok(None),
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
