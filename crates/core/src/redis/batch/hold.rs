//! What of a batch can be sent now, and what has to wait (see `backlog`).

use std::rc::Rc;

use rustc_hash::FxHashSet;

use super::super::ledger::Pending;
use super::super::slots::slot;
use super::encode::part_of;
use super::{Batch, Planned};

/// What was in flight in one part.
#[derive(Debug, Default)]
pub(in super::super) struct InPart {
    pub slots: FxHashSet<u16>,
    /// Each once.
    pub mappings: Vec<u16>,
}

impl Batch {
    /// Whether all of the plan is to be sent now, up to so many operations.
    pub fn sends_all(&self, most: usize) -> bool {
        self.encoded == self.plan.len().min(most)
    }

    /// Plans to send what is open by its slot and the number of its master, at most `most` operations; returns whether
    /// that is anything. What is not open stays behind it, and with it whatever comes later of the same slot: within
    /// each slot the order stays.
    pub fn send_only(&mut self, most: usize, is_open: impl Fn(u16, usize) -> bool) -> bool {
        let plan = std::mem::take(&mut self.plan);
        let mut shut = FxHashSet::default();
        let (mut open, mut rest) = (Vec::with_capacity(plan.len()), Vec::new());
        for planned in plan {
            let (slot, at) = self.destination(planned);
            if !shut.contains(&slot) && is_open(slot, at) {
                open.push(planned);
            } else {
                shut.insert(slot);
                rest.push(planned);
            }
        }
        let sent = open.len().min(most);
        open.append(&mut rest);
        self.plan = open;
        self.encode(sent);
        sent > 0
    }

    /// Whether [`Self::send_only`] would send anything.
    pub fn can_send(&self, is_open: impl Fn(u16, usize) -> bool) -> bool {
        let mut destinations = self.plan.iter().map(|planned| self.destination(*planned));
        let mut shut = FxHashSet::default();
        destinations.any(|(slot, at)| {
            let is_open = !shut.contains(&slot) && is_open(slot, at);
            if !is_open {
                shut.insert(slot);
            }
            is_open
        })
    }

    fn destination(&self, planned: Planned) -> (u16, usize) {
        let key = self.items[planned.item as usize].key();
        (slot(key), part_of(key, planned, self.table.as_deref()))
    }

    /// The slots of what is still to be sent.
    pub fn slots_left(&self) -> impl Iterator<Item = u16> {
        let key = |planned: &Planned| self.items[planned.item as usize].key();
        self.plan.iter().map(move |planned| slot(key(planned)))
    }

    /// What the commands of a part are for.
    pub fn in_part(&self, part: usize) -> InPart {
        let mut found = InPart::default();
        for step in &self.parts[part].steps {
            for planned in &self.plan[step.first as usize..(step.first + step.count) as usize] {
                let item = &self.items[planned.item as usize];
                found.slots.insert(slot(item.key()));
                if !found.mappings.contains(&item.op().mapping) {
                    found.mappings.push(item.op().mapping);
                }
            }
        }
        found
    }

    /// The operations of a batch that gathers.
    pub fn gathered(&self) -> impl Iterator<Item = (&Pending, u32)> {
        self.items.iter().map(|item| (&*item.pending, item.op))
    }

    /// Takes out of a batch that gathers what does not stay, the last one first.
    pub fn take_back(&mut self, stays: impl Fn(&Pending, u32) -> bool) -> Vec<(Rc<Pending>, u32)> {
        debug_assert!(
            self.plan.len() == self.items.len(),
            "something of it was sent before"
        );
        let items = std::mem::take(&mut self.items);
        self.clear();
        let mut taken = Vec::new();
        for item in items {
            if stays(&item.pending, item.op) {
                self.push(&item.pending, item.op);
            } else {
                taken.push((item.pending, item.op));
            }
        }
        taken.reverse();
        taken
    }

    /// The chunks of its operations, one for each operation.
    pub fn chunks(&self) -> impl Iterator<Item = &Rc<Pending>> {
        self.items.iter().map(|item| &item.pending)
    }
}
