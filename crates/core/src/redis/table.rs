//! Which master has which slot, by number: what a batch is taken apart by.

use super::slots::{SLOTS, slot};

/// The number of no master.
const NOBODY: u16 = u16::MAX;

/// See the module. Masters are numbered from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    owners: Vec<u16>,
    masters: usize,
    /// How many slots nobody has.
    unowned: u16,
    /// Another one for other masters or another order of them.
    numbering: u64,
}

impl Table {
    /// A table of so many masters in which nobody has a slot.
    pub fn new(masters: usize, numbering: u64) -> Self {
        Self {
            owners: vec![NOBODY; usize::from(SLOTS)],
            masters,
            unowned: SLOTS,
            numbering,
        }
    }

    /// Gives a slot to a master.
    pub fn give(&mut self, slot: u16, master: usize) {
        if let Some(owner) = self.owners.get_mut(usize::from(slot)) {
            if *owner == NOBODY {
                self.unowned -= 1;
            }
            *owner = master as u16;
        }
    }

    /// The master of a slot, if it has one.
    pub fn owner(&self, slot: u16) -> Option<usize> {
        let owner = *self.owners.get(usize::from(slot))?;
        (owner != NOBODY).then_some(usize::from(owner))
    }

    /// Whether every slot has a master.
    pub fn is_whole(&self) -> bool {
        self.unowned == 0
    }

    /// The master of a key. If its slot has none, the first one: only for it to have a number, nothing is sent there.
    pub fn of_key(&self, key: &[u8]) -> usize {
        self.owner(slot(key)).unwrap_or(0)
    }

    pub fn masters(&self) -> usize {
        self.masters
    }

    /// Tells these masters in this order from others.
    pub fn numbering(&self) -> u64 {
        self.numbering
    }
}
