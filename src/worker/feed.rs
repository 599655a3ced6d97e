//! From the ring to the engines: rules 3, 4 and 6 are decided here, in the order of the ring.
//!
//! What is read off the ring becomes a chunk for each server that it concerns. The ring's tail moves to where all
//! servers have acknowledged (`on_its_way.rs`, which also says what becomes of a server that is away).
use std::collections::VecDeque;

use pg_redis_cache_core::{
    coherence::{
        FillTicket, Reason,
        slots::{FillVerdict, Verdict},
    },
    config::MAX_SERVERS,
    encode::value::Value,
    redis::{Chunk, Request, Target, Ticket},
    ring::batch::{self, Entry, Fills, Invalidate, Op, Transaction},
};

use super::{Worker, destination::Destination, on_its_way::Waiting, purges::Asker};
use crate::shared::{DEFAULT, MappingState, ServerSet, Shared};

/// A chunk is sent when it has come to this size, or when the ring is empty.
const CHUNK_OPS: usize = 1024;
const CHUNK_BYTES: usize = 256 * 1024;
/// Memory for reading an entry that is kept.
const KEPT: usize = 1024 * 1024;

/// Where the worker is in the ring.
pub struct Feed {
    pub position: u64,
    next_chunk: u64,
    entry: Vec<u8>,
    /// By the engines' ticket: who asked for an answer.
    askers: VecDeque<(Ticket, Asker)>,
    next_ticket: Ticket,
    /// Entries taken and not yet counted.
    taken: u32,
    /// Memory for the chunks of a round.
    chunks: Vec<Option<Waiting>>,
}

impl Feed {
    pub fn new(shared: Shared) -> Self {
        Self {
            position: shared.ring().tail(),
            next_chunk: 1,
            entry: Vec::new(),
            askers: VecDeque::new(),
            next_ticket: 1,
            taken: 0,
            chunks: std::iter::repeat_with(|| None).take(MAX_SERVERS).collect(),
        }
    }

    /// The number of entries taken since this was last asked.
    pub fn take_count(&mut self) -> u32 {
        std::mem::take(&mut self.taken)
    }

    /// The next ticket for an engine, to be answered to `asker`.
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

/// The chunks of one round, by destination.
struct Round {
    begin: u64,
    chunks: Vec<Option<Waiting>>,
    /// Whether one of them is large enough to be sent.
    is_full: bool,
}

impl Round {
    /// The chunk of a destination, which begins here or has been waiting there for more.
    fn chunk(&mut self, feed: &mut Feed, destinations: &mut [Destination], at: usize) -> &mut Waiting {
        let begin = self.begin;
        self.chunks[at].get_or_insert_with(|| {
            let small =
                |waiting: &Waiting| waiting.chunk.len() < CHUNK_OPS && waiting.chunk.byte_len() < CHUNK_BYTES;
            destinations[at]
                .on_its_way
                .pop_waiting_if(small)
                .unwrap_or_else(|| {
                    let id = feed.next_chunk;
                    feed.next_chunk += 1;
                    Waiting {
                        begin,
                        chunk: Chunk::with_capacity(id, 0, 0),
                        committed_at: Vec::new(),
                    }
                })
        })
    }
}

impl Worker {
    /// Whether there is an entry that could be taken now.
    pub(super) fn can_feed(&self) -> bool {
        self.shared.ring().is_published(self.feed.position) && self.somebody_takes()
    }

    /// Whether a server takes more. Without any the ring has to wait.
    fn somebody_takes(&self) -> bool {
        if self.several() {
            let takes = |destination: &Destination| destination.is_used && destination.takes_more();
            return self.destinations.iter().any(takes);
        }
        let only = self.destinations.iter().find(|destination| destination.is_used);
        only.unwrap_or(&self.destinations[DEFAULT]).takes_more()
    }

    /// Takes entries and sends them in chunks. Returns whether there were any.
    pub(super) fn feed_engines(&mut self) -> bool {
        let mut fed = false;
        self.look_after_the_away();
        while self.can_feed() && self.feed_round() {
            fed = true;
            self.look_after_the_away();
        }
        fed
    }

    fn feed_round(&mut self) -> bool {
        let mut round = Round {
            begin: self.feed.position,
            chunks: std::mem::take(&mut self.feed.chunks),
            is_full: false,
        };
        while !round.is_full {
            let mut entry = std::mem::take(&mut self.feed.entry);
            let next = self.shared.ring().read(self.feed.position, &mut entry);
            if next.is_some() {
                self.keep_register();
                self.take_entry(&entry, &mut round);
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
        if self.feed.position == round.begin {
            self.feed.chunks = round.chunks;
            return false;
        }
        for (at, chunk) in round.chunks.iter_mut().enumerate() {
            let dropped = chunk.take().and_then(|chunk| self.destinations[at].take(chunk));
            if let Some(dropped) = dropped {
                self.answer_dropped(&dropped);
            }
        }
        self.feed.chunks = round.chunks;
        self.settle_positions();
        true
    }

    fn chunk_for<'a>(&mut self, round: &'a mut Round, mapping: u16) -> &'a mut Waiting {
        let at = self.shared.server_of(mapping);
        round.chunk(&mut self.feed, &mut self.destinations, at)
    }

    fn take_entry(&mut self, entry: &[u8], round: &mut Round) {
        match batch::decode(entry) {
            Ok(Entry::Transaction(transaction)) => self.take_transaction(&transaction, round),
            Ok(Entry::Fills(fills)) => self.take_fills(&fills, round),
            Ok(Entry::Invalidate(invalidate)) => self.take_invalidate(&invalidate, round),
            // Cannot be: only backends of this build write entries. If it is, nothing is known of any key.
            Err(error) => {
                pgrx::warning!("pg_redis_cache: an entry of the queue cannot be read: {error}");
                self.lose_everything(Reason::Refused);
            }
        }
        round.is_full = round
            .chunks
            .iter()
            .flatten()
            .any(|waiting| waiting.chunk.len() >= CHUNK_OPS || waiting.chunk.byte_len() >= CHUNK_BYTES);
    }

    /// Answers who asked under that ticket; without an answer with the number that stands for none.
    pub(super) fn answer_ticket(&mut self, ticket: Ticket, answer: Option<i64>) {
        if let Some(asker) = self.feed.asker(ticket) {
            self.answer(asker, answer.unwrap_or(-1));
        }
    }

    fn take_transaction(&mut self, transaction: &Transaction, round: &mut Round) {
        let mut told = ServerSet::NONE;
        for op in transaction.ops() {
            let at = self.shared.server_of(op.mapping);
            let waiting = round.chunk(&mut self.feed, &mut self.destinations, at);
            if !told.contains(at) {
                told.insert(at);
                waiting.committed_at.push(transaction.committed_at_us);
            }
            self.take_write(transaction, &op, &mut waiting.chunk);
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
    fn take_fills(&mut self, fills: &Fills, round: &mut Round) {
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
            let stored = matches!(decisions.take(fill.hash, ticket, epoch), FillVerdict::Apply) && {
                let chunk = &mut self.chunk_for(round, fill.mapping).chunk;
                self.store(target, fill.value, true, chunk)
            };
            if !stored {
                self.shared.hints().clear(fill.hash);
                self.shared
                    .stats(fill.mapping)
                    .fills_dropped
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }

    fn take_invalidate(&mut self, invalidate: &Invalidate, round: &mut Round) {
        let asker = Asker {
            backend: invalidate.reply,
            ticket: invalidate.ticket,
        };
        if invalidate.mapping == batch::PING {
            let ticket = self.feed.ticket_for(asker);
            // What is no key's hash is a server's number.
            match self.destinations.get(invalidate.hash as usize) {
                Some(destination) if destination.engine.is_some() => {
                    destination.send(Request::Ping { ticket });
                }
                _ => self.answer_ticket(ticket, None),
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
        self.chunk_for(round, invalidate.mapping)
            .chunk
            .delete(target, Some(ticket));
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
}
