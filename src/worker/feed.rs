//! From the ring to the engine: rules 3, 4 and 6 are decided here, in the order of the ring.
use std::{collections::VecDeque, time::SystemTime};

use pg_redis_cache_core::{
    coherence::{
        FillTicket, Reason,
        slots::{FillVerdict, Verdict},
    },
    encode::value::Value,
    redis::{Chunk, Request, Target, Ticket},
    ring::batch::{self, Entry, Fills, Invalidate, Op, Transaction},
};
use pgrx::pg_sys;

use super::{Worker, purges::Asker};
use crate::shared::{MappingState, Shared};

/// How much may be with the engine and not acknowledged. The rest waits in the ring.
const UNACKNOWLEDGED_BYTES: usize = 8 * 1024 * 1024;
const UNACKNOWLEDGED_CHUNKS: usize = 256;
/// A chunk is sent when it has come to this size, or when the ring is empty.
const CHUNK_OPS: usize = 1024;
const CHUNK_BYTES: usize = 256 * 1024;
/// Memory for reading an entry that is kept.
const KEPT: usize = 1024 * 1024;

/// A chunk that the engine has.
struct Sent {
    id: u64,
    /// The ring's position behind its last entry.
    end: u64,
    bytes: usize,
    /// Commit times of its transactions.
    committed_at: Vec<i64>,
}

/// Where the worker is in the ring.
pub struct Feed {
    position: u64,
    next_chunk: u64,
    sent: VecDeque<Sent>,
    unacknowledged: usize,
    entry: Vec<u8>,
    /// By the engine's ticket: who asked for an answer.
    askers: VecDeque<(Ticket, Asker)>,
    next_ticket: Ticket,
    /// Entries taken and not yet counted.
    taken: u32,
}

impl Feed {
    pub fn new(shared: Shared) -> Self {
        Self {
            position: shared.ring().tail(),
            next_chunk: 1,
            sent: VecDeque::new(),
            unacknowledged: 0,
            entry: Vec::new(),
            askers: VecDeque::new(),
            next_ticket: 1,
            taken: 0,
        }
    }

    /// The number of entries taken since this was last asked.
    pub fn take_count(&mut self) -> u32 {
        std::mem::take(&mut self.taken)
    }

    fn has_room(&self) -> bool {
        self.sent.len() < UNACKNOWLEDGED_CHUNKS && self.unacknowledged < UNACKNOWLEDGED_BYTES
    }

    /// Whether there is an entry that could be taken now.
    pub fn can_take(&self, shared: Shared) -> bool {
        self.has_room() && shared.ring().is_published(self.position)
    }

    /// Whether everything in the ring has been acknowledged.
    pub fn is_drained(&self, shared: Shared) -> bool {
        self.sent.is_empty() && shared.ring().used() == 0
    }

    /// The next ticket for the engine, to be answered to `asker`.
    pub fn ticket_for(&mut self, asker: Asker) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.askers.push_back((ticket, asker));
        ticket
    }

    /// Who asked under that ticket.
    pub fn asker(&mut self, ticket: Ticket) -> Option<Asker> {
        let position = self.askers.iter().position(|(asked, _)| *asked == ticket)?;
        self.askers.remove(position).map(|(_, asker)| asker)
    }
}

impl Worker {
    /// Takes entries and sends them in chunks. Returns whether there were any.
    pub(super) fn feed_engine(&mut self) -> bool {
        let mut fed = false;
        while self.engine.is_some() && self.feed.has_room() {
            if !self.feed_chunk() {
                break;
            }
            fed = true;
        }
        fed
    }

    fn feed_chunk(&mut self) -> bool {
        let mut chunk = Chunk::with_capacity(self.feed.next_chunk, 0, 0);
        let mut committed_at = Vec::new();
        let start = self.feed.position;
        while chunk.len() < CHUNK_OPS && chunk.byte_len() < CHUNK_BYTES {
            let mut entry = std::mem::take(&mut self.feed.entry);
            let next = self.shared.ring().read(self.feed.position, &mut entry);
            if next.is_some() {
                self.keep_register();
                self.take_entry(&entry, &mut chunk, &mut committed_at);
            }
            entry.shrink_to(KEPT);
            self.feed.entry = entry;
            match next {
                Some(next) => {
                    self.feed.position = next;
                    self.feed.taken += 1;
                }
                None => break,
            }
        }
        if self.feed.position == start {
            return false;
        }
        let bytes = chunk.byte_len();
        let sent = Sent {
            id: chunk.id(),
            end: self.feed.position,
            bytes,
            committed_at,
        };
        self.feed.next_chunk += 1;
        self.feed.unacknowledged += bytes;
        self.feed.sent.push_back(sent);
        self.note_oldest();
        if let Some(engine) = &self.engine {
            engine.send(Request::Write(chunk));
        }
        true
    }

    fn take_entry(&mut self, entry: &[u8], chunk: &mut Chunk, committed_at: &mut Vec<i64>) {
        match batch::decode(entry) {
            Ok(Entry::Transaction(transaction)) => {
                committed_at.push(transaction.committed_at_us);
                for op in transaction.ops() {
                    self.take_write(&transaction, &op, chunk);
                }
            }
            Ok(Entry::Fills(fills)) => self.take_fills(&fills, chunk),
            Ok(Entry::Invalidate(invalidate)) => self.take_invalidate(&invalidate, chunk),
            // Cannot be: only backends of this build write entries. If it is, nothing is known of any key.
            Err(error) => {
                pgrx::warning!("pg_redis_cache: an entry of the queue cannot be read: {error}");
                self.lose_everything(Reason::Refused);
            }
        }
    }

    /// Rules 3, 4 and 6.
    fn take_write(&mut self, transaction: &Transaction, op: &Op, chunk: &mut Chunk) {
        let current = self
            .shared
            .gates()
            .is_current(op.mapping, transaction.epoch_of(op.mapping));
        let verdict =
            self.shared
                .slots()
                .take_write(op.hash, transaction.xid, transaction.s, current, op.kind);
        let target = Target {
            mapping: op.mapping,
            hash: op.hash,
            key: op.key,
        };
        if verdict == Verdict::Set && self.store(target, op.value, false, chunk) {
            return;
        }
        self.shared.hints().clear(op.hash);
        chunk.delete(target, None);
    }

    /// Rules 3 and 4.
    fn take_fills(&mut self, fills: &Fills, chunk: &mut Chunk) {
        let slots = *self.shared.slots();
        let mut decisions = slots.take_fills(fills.s, fills.xmin, fills.xmax);
        for fill in fills.fills() {
            let ticket = FillTicket {
                version: fill.version,
                epoch: fill.epoch,
            };
            let epoch = self.shared.gates().note(fill.mapping);
            let target = Target {
                mapping: fill.mapping,
                hash: fill.hash,
                key: fill.key,
            };
            let stored = matches!(decisions.take(fill.hash, ticket, epoch), FillVerdict::Apply)
                && self.store(target, fill.value, true, chunk);
            if !stored {
                self.shared.hints().clear(fill.hash);
                self.shared
                    .stats(fill.mapping)
                    .fills_dropped
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }

    fn take_invalidate(&mut self, invalidate: &Invalidate, chunk: &mut Chunk) {
        let asker = Asker {
            backend: invalidate.reply,
            ticket: invalidate.ticket,
        };
        if invalidate.mapping == batch::PING {
            let ticket = self.feed.ticket_for(asker);
            if let Some(engine) = &self.engine {
                engine.send(Request::Ping { ticket });
            }
            return;
        }
        if invalidate.key.is_empty() {
            self.purge_for(invalidate.mapping, asker);
            return;
        }
        self.shared.slots().take_invalidate(invalidate.hash);
        self.shared.hints().clear(invalidate.hash);
        let ticket = self.feed.ticket_for(asker);
        let target = Target {
            mapping: invalidate.mapping,
            hash: invalidate.hash,
            key: invalidate.key,
        };
        chunk.delete(target, Some(ticket));
    }

    /// Adds a value to the chunk. False if the mapping is gone or not active, so that nobody keeps what is stored in
    /// step, or if the value cannot be read.
    fn store(&self, target: Target, value: &[u8], is_fill: bool, chunk: &mut Chunk) -> bool {
        if self.shared.state(target.mapping) != MappingState::Active {
            return false;
        }
        let Some(written) = self.written.get(&target.mapping) else {
            return false;
        };
        match Value::decode(value) {
            Ok(Value::Text(text)) => chunk.store_text(target, text, written.expiry, is_fill),
            Ok(Value::Hash(_)) => chunk.store_hash(target, value, written.expiry, is_fill),
            Err(_) => return false,
        }
        true
    }

    /// Every chunk up to that one is in Redis, or has been declared lost.
    pub(super) fn acknowledged(&mut self, chunk: u64, at: SystemTime) {
        let at = timestamp(at);
        let mut end = None;
        while let Some(sent) = self.feed.sent.pop_front_if(|sent| sent.id <= chunk) {
            self.feed.unacknowledged -= sent.bytes;
            end = Some(sent.end);
            for committed_at in sent.committed_at {
                self.shared.lag().record((at - committed_at).max(0) as u64);
            }
        }
        if let Some(end) = end {
            self.shared.ring().release(end);
            self.shared.wake_waiters(end);
            self.note_oldest();
        }
    }

    fn note_oldest(&self) {
        let oldest = self
            .feed
            .sent
            .iter()
            .flat_map(|sent| sent.committed_at.first())
            .next();
        self.shared
            .control()
            .oldest_unsent
            .store(oldest.copied().unwrap_or(0), std::sync::atomic::Ordering::Relaxed);
    }
}

/// A time on the server's clock: microseconds since the beginning of 2000 (datatype/timestamp.h).
fn timestamp(at: SystemTime) -> i64 {
    const DAYS: u64 = (pg_sys::POSTGRES_EPOCH_JDATE - pg_sys::UNIX_EPOCH_JDATE) as u64;
    let unix = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    unix.as_micros() as i64 - (DAYS * 86_400 * 1_000_000) as i64
}
