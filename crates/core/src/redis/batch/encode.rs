//! From a batch's plan to the commands of its parts.

use super::super::chunk::{Action, Expiry, Form};
use super::super::event::LossReason;
use super::super::part::{Adding, Part, hset, pexpire, set, unlink};
use super::super::table::Table;
use super::{Batch, Planned, Way};

impl Batch {
    /// Encodes the plan from its beginning, up to this many operations.
    pub(super) fn encode(&mut self, most: usize) {
        self.parts.iter_mut().for_each(Part::clear);
        self.encoded = 0;
        self.bytes = 0;
        while self.encoded < self.plan.len().min(most) {
            self.encode_next();
        }
    }

    pub(super) fn encode_next(&mut self) {
        let planned = self.plan[self.encoded];
        let item = &self.items[planned.item as usize];
        let (op, chunk) = (item.op(), item.chunk());
        let adding = Adding {
            place: self.encoded as u32,
            asking: planned.asked.is_some(),
        };
        let key = chunk.key(op);
        let at = part_of(key, planned, self.table.as_deref());
        let part = &mut self.parts[at];
        self.encoded += 1;
        let stored = match (&op.action, planned.way) {
            (
                Action::Store {
                    value,
                    form: Form::Text,
                    expiry,
                },
                Way::AsWritten | Way::Replaced,
            ) => {
                let value = chunk.bytes(value);
                part.add(adding, set(key, value, *expiry));
                key.len() + value.len()
            }
            (
                Action::Store {
                    value,
                    form: Form::Hash,
                    expiry,
                },
                Way::AsWritten | Way::Replaced,
            ) => {
                let value = chunk.bytes(value);
                let Some((command, is_complete)) = hset(key, value, self.hash_fields) else {
                    let mapping = op.mapping;
                    self.condemn(planned.item, mapping, at, LossReason::Payload);
                    self.plan[self.encoded - 1].way = Way::Condemned;
                    return self.encode_deletion(adding, false);
                };
                let Some(command) = command else {
                    self.turn(planned.item, Way::Deleted);
                    return self.encode_deletion(adding, false);
                };
                if !is_complete || planned.way == Way::Replaced {
                    // No field of an older row may survive. A reader in between finds no key.
                    part.add(adding, unlink(key));
                }
                part.add(adding, command);
                if let Expiry::Milliseconds(ms) = expiry {
                    part.add(adding, pexpire(key, *ms));
                }
                key.len() + value.len()
            }
            (Action::Delete { answer: Some(_) }, _) => return self.encode_deletion(adding, true),
            (Action::Delete { answer: None } | Action::Store { .. }, _) => {
                return self.encode_deletion(adding, false);
            }
        };
        part.bytes += stored;
        self.bytes += stored;
    }

    /// Adds the last operation's key to the UNLINK before it, or begins one. One that is asked for an
    /// answer stands alone, and so does each in a cluster.
    fn encode_deletion(&mut self, adding: Adding, is_alone: bool) {
        let planned = self.plan[adding.place as usize];
        let key = self.items[planned.item as usize].key();
        self.bytes += key.len();
        let may_join = !is_alone && self.table.is_none();
        self.parts[part_of(key, planned, self.table.as_deref())].add_deletion(adding, key, may_join);
    }
}

/// The number of the part that an operation belongs to.
pub(super) fn part_of(key: &[u8], planned: Planned, table: Option<&Table>) -> usize {
    match (planned.asked, table) {
        (Some(asked), _) => usize::from(asked),
        (None, Some(table)) => table.of_key(key),
        (None, None) => 0,
    }
}
