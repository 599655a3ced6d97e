//! What the engine reports, and the channel that it reports through.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use super::address::HostPort;
use super::chunk::Ticket;
use super::fault::{Cause, Fault, Kind};
use super::gauge::ConnectionFigures;

/// What happened. Events come in the order in which it happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Each operation of this chunk, and of every chunk before it, has gone through or has been
    /// declared lost.
    Acknowledged {
        /// The chunk's id.
        chunk: u64,
        /// When the last answer came.
        at: SystemTime,
        /// What became of its operations, by mapping.
        counts: Vec<(u16, Counts)>,
    },
    /// All that is left of this chunk waits for a master of a cluster that is away, while others are written to; or
    /// nothing of it is left, and the chunks before it, of which the oldest waits so, were all told. It is acknowledged in
    /// its turn all the same. Once for a chunk at most.
    HeldUp {
        /// The chunk's id.
        chunk: u64,
    },
    /// A deletion that asked for an answer has gone through.
    Answer {
        /// The operation's ticket.
        ticket: Ticket,
        /// How many keys it deleted; `None` if that is not known, because a later operation on the
        /// same key was sent in its place after a lost connection.
        deleted: Option<u64>,
    },
    /// The keys of this mapping are no longer known to be right: purge it (rule 6). Comes before the
    /// acknowledgement of what was lost.
    Lost {
        /// The mapping, or every mapping.
        mapping: Option<u16>,
        /// Why.
        reason: LossReason,
        /// Where, with the password masked: of a cluster the node.
        address: String,
    },
    /// A purge is done: no key that its matcher knows, and that was there when it began, is left.
    Purged {
        /// From the [`PurgeJob`](super::PurgeJob).
        mapping: u16,
        /// From the [`PurgeJob`](super::PurgeJob).
        epoch: u64,
        /// How many keys it deleted.
        keys: u64,
    },
    /// Redis refused a purge; some keys may be deleted.
    PurgeFailed {
        /// From the [`PurgeJob`](super::PurgeJob).
        mapping: u16,
        /// From the [`PurgeJob`](super::PurgeJob).
        epoch: u64,
        /// Why.
        fault: Fault,
    },
    /// The first connection to a server (`changed`), or all connections are there again.
    Connected {
        /// The server.
        server: Arc<Server>,
        /// It is the first one, or not the one of the last `Connected`, or it holds another data set:
        /// nothing is known about its keys, so purge every mapping (rule 8). Comes before any
        /// acknowledgement of what that server answered.
        changed: bool,
        /// With `changed`: the marker that was found there, and is deleted (rule 8).
        marker: Option<Vec<u8>>,
    },
    /// The connections go to another place than before: to the master that sentinels have named, or where the
    /// address says (`None`, as in the beginning). Comes before a [`Event::Connected`] of that server.
    Followed {
        /// The master's place.
        master: Option<HostPort>,
    },
    /// A connection is lost or cannot be had. Once for each kind of trouble until the next `Connected`, or other settings.
    Disconnected {
        /// Why.
        fault: Fault,
    },
    /// The server refuses writes for now (loading, busy, no disk, …): a lane waits and tries again.
    /// Once until something goes through again.
    Refusing {
        /// Why.
        fault: Fault,
    },
    /// Slots of the cluster have no master, so that what is for their keys waits and nobody refuses it; or all have one.
    Unserved {
        /// Which; `None`: they have masters again, or had all along.
        fault: Option<Fault>,
    },
    /// The server has no memory for writes, whose keys are deleted instead. Once for each batch with any.
    Full {
        /// Why.
        fault: Fault,
    },
    /// The answer to a ping.
    Pong {
        /// The ping's ticket.
        ticket: Ticket,
        /// How long Redis took to answer, or why it did not.
        round_trip: Result<Duration, Fault>,
    },
    /// What became of a [`Request::Note`](super::Request::Note). After an error it may be done, later too.
    Noted {
        /// The note's ticket.
        ticket: Ticket,
        /// Whether Redis has done it, or why that is not known.
        result: Result<(), Fault>,
    },
    /// The connection pool has changed.
    Pool(PoolState),
    /// How each connection is, and what has gone over it. Once a second at most, and only if something has changed.
    Connections(Vec<ConnectionFigures>),
    /// A batch took longer than [`Tuning::slow_push`](super::Tuning::slow_push).
    SlowPush(SlowPush),
    /// The engine has stopped; nothing comes after this.
    Stopped {
        /// Whether everything that had been sent to it was acknowledged.
        drained: bool,
    },
}

/// What became of the operations of one chunk on one mapping. Each operation counts once in one of
/// `sets`, `fills`, `fills_dropped`, `deletes`; a write that was declared lost only in `errors`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes stored.
    pub sets: u64,
    /// Fills stored.
    pub fills: u64,
    /// Fills whose key was deleted instead, after a lost connection or a refusal.
    pub fills_dropped: u64,
    /// Keys deleted, also where a row has nothing to store or its storing was refused.
    pub deletes: u64,
    /// Operations that Redis answered with an error, or that could not be sent.
    pub errors: u64,
    /// Bytes of the keys and values stored.
    pub bytes: u64,
}

/// Why a mapping's keys are no longer known to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// Redis refused an operation for good.
    Refused(Cause),
    /// The bytes of a hash could not be taken apart.
    Payload,
    /// An operation broke the connection each time that it was sent.
    Unsendable {
        /// How often it was sent.
        attempts: u32,
    },
    /// Redis did not tell which connections there are: an earlier engine's may be among them, and its
    /// commands may run after newer ones.
    Unlisted {
        /// What Redis answered.
        cause: Cause,
    },
    /// A lost connection's client could not be killed, so its commands may run after newer ones.
    Unkillable {
        /// The id that Redis gave that client.
        client: u64,
        /// What Redis answered.
        cause: Cause,
    },
    /// A master of a cluster has slots that were another's before it was away: it may have had them for some time, in
    /// which the other one took writes that it has not.
    TakenOver,
}

impl LossReason {
    /// Which kind of trouble it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(cause) | Self::Unlisted { cause } | Self::Unkillable { cause, .. } => cause.kind(),
            Self::Payload => Kind::Protocol,
            Self::Unsendable { .. } | Self::TakenOver => Kind::Lost,
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(cause) => write!(f, "Redis refused an operation: {cause}"),
            Self::Payload => f.write_str("a stored row could not be taken apart"),
            Self::Unsendable { attempts } => {
                write!(f, "an operation lost its connection {attempts} times in a row")
            }
            Self::TakenOver => f.write_str("a master that was away is back with slots of another one"),
            Self::Unlisted { cause } => {
                write!(f, "Redis does not say who else may still write: {cause}")
            }
            Self::Unkillable { client, cause } => {
                write!(
                    f,
                    "Redis client {client} may still write and could not be killed: {cause}"
                )
            }
        }
    }
}

/// A batch that took long. Neither keys nor values are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowPush {
    /// From being sent until all of it was answered, attempts over lost connections included.
    pub took: Duration,
    /// Bytes of keys and values in it.
    pub bytes: usize,
    /// The mappings of its operations, each with their number.
    pub mappings: Vec<(u16, usize)>,
    /// The lane, as in [`ConnectionFigures::role`].
    pub role: String,
    /// Where it leads, with the password masked.
    pub address: String,
}

/// The server at the other end, as `INFO` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `run_id`: names the server's process.
    pub run_id: String,
    /// `master_replid`: names the data set's history.
    pub replication_id: String,
    /// Brand and version, as `Redis 7.0.15`.
    pub version: String,
}

impl Server {
    /// Whether it is the same process with the same data.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.run_id == other.run_id && self.replication_id == other.replication_id
    }
}

/// A connection as Redis knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The server's process; an id means nothing to another one.
    pub run_id: String,
    /// `CLIENT ID`.
    pub id: u64,
}

/// The connection pool in numbers of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolState {
    /// Open.
    pub size: usize,
    /// Open, and held by neither a lane nor the control.
    pub idle: usize,
    /// Lanes and control that have none and want one.
    pub waiting: usize,
}

/// Wakes the thread that reads the events; called on the engine's thread, so it must neither block nor
/// panic.
pub type Waker = Box<dyn Fn() + Send>;

/// The engine's end of the event channel.
pub(super) struct Events {
    sender: mpsc::Sender<Event>,
    unread: Arc<AtomicBool>,
    waker: Waker,
}

/// The reader's end of the event channel.
#[derive(Debug)]
pub(super) struct EventReader {
    receiver: mpsc::Receiver<Event>,
    unread: Arc<AtomicBool>,
}

/// An event channel that wakes its reader once for all the events that it has not looked at yet.
pub(super) fn channel(waker: Waker) -> (Events, EventReader) {
    let (sender, receiver) = mpsc::channel();
    let unread = Arc::new(AtomicBool::new(false));
    (
        Events {
            sender,
            unread: unread.clone(),
            waker,
        },
        EventReader { receiver, unread },
    )
}

impl Events {
    pub fn emit(&self, event: Event) {
        // No reader: the handle is gone, and with it who could be told.
        let _ = self.sender.send(event);
        if !self.unread.swap(true, Ordering::AcqRel) {
            (self.waker)();
        }
    }
}

impl EventReader {
    pub fn try_recv(&self) -> Option<Event> {
        if let Ok(event) = self.receiver.try_recv() {
            return Some(event);
        }
        // An event sent before this swap is seen by the next line, one sent after it wakes again.
        self.unread.swap(false, Ordering::AcqRel);
        self.receiver.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn the_reader_is_woken_once_for_what_it_has_not_read() {
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        let (events, reader) = channel(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        for ticket in 0..3 {
            events.emit(Event::Answer {
                ticket,
                deleted: None,
            });
        }
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        while reader.try_recv().is_some() {}
        events.emit(Event::Stopped { drained: true });
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        assert!(matches!(
            reader.try_recv(),
            Some(Event::Stopped { drained: true })
        ));
    }
}
